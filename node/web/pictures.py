"""Pictures of findings over HTTP: drawn on threads of their own, kept below the home folder, never by a browser."""

from __future__ import annotations

from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import anyio
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from node.picture_files import PictureFiles
from node.web.access import allow
from node.web.api import form
from node.web.readings import tell_study
from node.web.site import Site
from plugins.errors import Refused
from store.depicted import Depicted, depicted, images

if TYPE_CHECKING:
    from node.report.finding_pictures import FindingPictures, SliceRange

FOLDER = "pictures"
AT_ONCE = 2
View = Annotated[Literal["near", "whole"], Query(description="The finding near by, or the whole slice")]
Slice = Annotated[
    int | None, Query(alias="slice", ge=0, le=100_000, description="From 0; its key slice by default")
]
WindowName = Annotated[Literal["auto", "lung", "soft"], Query(description="Grey scale of a CT")]
HasOutline = Annotated[bool, Query(alias="outline", description="Whether outline and diameters are drawn")]


class Slices(BaseModel):
    """The slices on which a finding can be looked at."""

    first: int = Field(description="The first one, from 0")
    last: int = Field(description="The last one")
    key: int = Field(description="That of its long axis; without one that of its largest area")
    count: int = Field(description="Slices of the series")
    sop_instance_uids: list[str] = Field(description="Image of each, from the first to the last")


class Look(NamedTuple):
    """How a finding is to be shown."""

    view: Literal["near", "whole"]
    number: int | None
    window: Literal["auto", "lung", "soft"]
    has_outline: bool


class PictureDesk:
    """Gives pictures of findings: as they were kept, or drawn anew."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._files = PictureFiles(site.settings.home / FOLDER)
        self._threads = anyio.CapacityLimiter(AT_ONCE)

    async def picture(self, request: Request, finding_pk: int, look: Look, study: str = "") -> Response:
        """Return a picture as PNG. Refuses `no-such-finding`, `no-such-slice`, `no-longer-here`."""

        def draw() -> bytes:
            what = self._depicted(finding_pk, study)
            png = self._png(what, look)
            tell_study(self._site, request, what.study_instance_uid)
            return png

        return Response(await anyio.to_thread.run_sync(draw, limiter=self._threads), media_type="image/png")

    async def slices(self, request: Request, finding_pk: int) -> SliceRange:
        """Return the slices on which a finding can be looked at. Refuses as `picture`."""
        return await anyio.to_thread.run_sync(self._slices, request, finding_pk, limiter=self._threads)

    @cached_property
    def _pictures(self) -> FindingPictures:
        from node.report.finding_pictures import FindingPictures

        return FindingPictures(self._site.objects.path)

    def png(self, finding_pk: int, look: Look, study: str) -> bytes:
        """Return a picture as PNG, on the thread of who asks, who tells the trail. Refuses as `picture`."""
        return self._png(self._depicted(finding_pk, study), look)

    def _png(self, what: Depicted, look: Look) -> bytes:
        from node.report.finding_pictures import VERSION

        where = (what.manifest_sha256, what.series_instance_uid, what.seg_sha256, what.segment_number)
        lengths = sorted((name, m.end_points_mm, m.value) for name, m in what.measurements.items())
        name = self._files.name(VERSION, where, what.centroid_mm, lengths, look)
        if (kept := self._files.get(name)) is not None:
            return kept
        png = self._pictures.png(what, partial(self._images, what), **look._asdict())
        if self._pictures.is_whole(what, partial(self._images, what)):
            self._files.keep(name, png)
        return png

    def _slices(self, request: Request, finding_pk: int) -> SliceRange:
        what = self._depicted(finding_pk, "")
        found = self._pictures.slices(what, partial(self._images, what))
        tell_study(self._site, request, what.study_instance_uid)
        return found

    def _depicted(self, finding_pk: int, study: str) -> Depicted:
        with self._site.database.reading() as session:
            what = depicted(session, finding_pk)
        if study and what.study_instance_uid != study:
            raise Refused("no-such-finding", "the study has no such finding")
        return what

    def _images(self, what: Depicted) -> tuple[tuple[str, Path], ...]:
        with self._site.database.reading() as session:
            return images(session, self._site.objects, what)


def router(site: Site) -> APIRouter:
    """Return the routes of pictures, for the page and for programs."""
    page, made, desk = APIRouter(include_in_schema=False), form.routes("findings"), PictureDesk(site)

    @page.get("/studies/{study_instance_uid}/findings/{finding_pk}/picture")
    @allow("viewer")
    async def shown(
        request: Request,
        study_instance_uid: str,
        finding_pk: form.Pk,
        view: View = "near",
        slice_number: Slice = None,
        window: WindowName = "auto",
        has_outline: HasOutline = True,
    ) -> Response:
        """Give a picture of a finding of this study."""
        look = Look(view, slice_number, window, has_outline)
        return await desk.picture(request, finding_pk, look, study_instance_uid)

    @made.get(
        "/findings/{finding_pk}/picture",
        responses={
            **form.problems(400, 404),
            200: {"content": {"image/png": {}}, "description": "The picture"},
        },
        response_class=Response,
    )
    @allow("viewer", scopes=("api",))
    async def picture(
        request: Request,
        finding_pk: form.Pk,
        view: View = "near",
        slice_number: Slice = None,
        window: WindowName = "auto",
        has_outline: HasOutline = True,
    ) -> Response:
        """Give a picture of a finding as PNG."""
        return await desk.picture(request, finding_pk, Look(view, slice_number, window, has_outline))

    @made.get("/findings/{finding_pk}/slices", responses=form.problems(400, 404))
    @allow("viewer", scopes=("api",))
    async def slices(request: Request, finding_pk: form.Pk) -> Slices:
        """Tell on which slices a finding can be looked at."""
        found = await desk.slices(request, finding_pk)
        return Slices(
            first=found.first,
            last=found.last,
            key=found.key,
            count=found.count,
            sop_instance_uids=list(found.sop_instance_uids),
        )

    page.routes.extend(made.routes)
    return page


__all__ = ["Look", "PictureDesk", "Slices", "router"]
