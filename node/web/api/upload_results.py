"""What was made of an upload, to take away: a report as PDF, and every result in one zip file."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import anyio
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from node import audit_events
from node.audit import patients_of
from node.web.access import allow
from node.web.api import form
from node.web.pictures import Look, PictureDesk
from node.web.site import Site
from plugins.errors import Refused
from store import upload_files, uploads
from store.finding_view import findings_of
from store.study_head import StudyHead
from store.study_view import StudyView, study_view

BLOCK_BYTES = 1 << 20
MOST_FINDINGS = 60
NEAR = Look("near", None, "auto", True)
ZIP_EPOCH = (1980, 1, 1)


def router(site: Site) -> APIRouter:
    """Return the routes under `/api/uploads/{upload_pk}` that give files."""
    made = form.routes("uploads")
    desk = _Desk(site)
    pdf = {"content": {"application/pdf": {}}, "description": "The report"}

    @made.get(
        "/uploads/{upload_pk}/report.pdf",
        responses={**form.problems(404), 200: pdf},
        response_class=Response,
    )
    @allow("viewer", scopes=("api",))
    async def report(
        request: Request,
        upload_pk: form.Pk,
        study: Annotated[
            str, Query(max_length=64, description="Study Instance UID; its first study without")
        ] = "",
    ) -> Response:
        """Give the report of a study of an upload as PDF, made now."""
        head, document = await anyio.to_thread.run_sync(desk.report, upload_pk, study, limiter=desk.threads)
        desk.tell(request, head, "report as PDF")
        name = f"report-{head.study_date or 'undated'}.pdf"
        return Response(document, media_type="application/pdf", headers=_attachment(name))

    @made.get(
        "/uploads/{upload_pk}/results.zip",
        responses={
            **form.problems(404),
            200: {"content": {"application/zip": {}}, "description": "SEG, SR and reports of all studies"},
        },
        response_class=Response,
    )
    @allow("viewer", scopes=("api",))
    def everything(request: Request, upload_pk: form.Pk) -> Response:
        """Give all results of an upload as one zip file: each object that was written, and a report a study."""
        views = desk.views(upload_pk)
        for view in views:
            desk.tell(request, view.head, "all results")
        return StreamingResponse(
            desk.zipped(views),
            media_type="application/zip",
            headers=_attachment(f"upload-{upload_pk}-results.zip"),
        )

    return made


class _Desk:
    """Collects what was made of the studies of an upload."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._pictures = PictureDesk(site)
        self.threads = anyio.CapacityLimiter(1)

    def views(self, upload_pk: int) -> list[StudyView]:
        """Return the studies of an upload. Refuses `no-such-upload` and `no-such-study` when it has none."""
        with self._site.database.reading() as session:
            uploads.get(session, upload_pk)
            found = [study_view(session, uid) for _, uid in upload_files.studies(session, upload_pk)]
        if not found:
            raise Refused("no-such-study", f"upload {upload_pk} holds no study")
        return found

    def report(self, upload_pk: int, study: str) -> tuple[StudyHead, bytes]:
        """Return whose study it is, and its report. Refuses `no-such-upload` and `no-such-study`."""
        views = self.views(upload_pk)
        found = [view for view in views if view.head.study_instance_uid == study] if study else views
        if not found:
            raise Refused("no-such-study", f"upload {upload_pk} does not hold that study")
        return found[0].head, self._document(found[0])

    def zipped(self, views: list[StudyView]) -> Iterator[bytes]:
        """Yield a zip file piece by piece; no file is held whole, and nothing is written to disk."""
        out = _Pieces()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
            for number, view in enumerate(views, start=1):
                folder = f"{number}-{view.head.study_date or 'undated'}"
                for name, path, made_at in self._files(view):
                    entry = zipfile.ZipInfo(f"{folder}/{name}", _stamp(made_at))
                    with path.open("rb") as file, archive.open(entry, "w", force_zip64=True) as member:
                        while block := file.read(BLOCK_BYTES):
                            member.write(block)
                            yield out.taken()
                entry = zipfile.ZipInfo(f"{folder}/report.pdf", _stamp(self._site.database.now()))
                archive.writestr(entry, self._document(view))
                yield out.taken()
        yield out.taken()

    def tell(self, request: Request, head: StudyHead, what: str) -> None:
        """Tell the audit trail who took what away of whom."""
        subjects = (
            audit_events.study(head.study_instance_uid, {}),
            patients_of(self._site.settings).subject(head.issuer, head.patient_id, head.patient_name),
        )
        name, address = request.state.identity.name, request.state.address
        self._site.record(audit_events.exported(name, address, what, subjects))

    def _files(self, view: StudyView) -> Iterator[tuple[str, Path, datetime]]:
        """Yield name, file and time of each result that counts; what is gone from the disk is left out."""
        with self._site.database.reading() as session:
            hashes = upload_files.result_hashes(
                session, [r.result_pk for one in view.analyses if not one.is_superseded for r in one.results]
            )
        for one in view.analyses:
            for result in one.results:
                sha256 = hashes.get(result.result_pk)
                if sha256 and (path := self._site.objects.path(sha256)).is_file():
                    yield f"{one.plugin}-{result.kind}-{result.result_pk}.dcm", path, result.created_at

    def _document(self, view: StudyView) -> bytes:
        from node.study_document import study_document

        with self._site.database.reading() as session:
            findings = findings_of(session, view.head.study_pk, limit=MOST_FINDINGS).findings
        draw = partial(self._pictures.png, look=NEAR, study=view.head.study_instance_uid)
        now = self._site.database.now().astimezone(self._site.frame.zone)
        return study_document(view, findings, draw, made_at=now, software=f"Nadir {version('nadir')}")


class _Pieces(io.RawIOBase):
    """A file that is read while it is written, and cannot be sought in."""

    def __init__(self) -> None:
        super().__init__()
        self._written = bytearray()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: object) -> int:
        """Take bytes."""
        taken = bytes(data)  # type: ignore[call-overload]
        self._written += taken
        return len(taken)

    def taken(self) -> bytes:
        """Return what was written since the last time."""
        given = bytes(self._written)
        self._written.clear()
        return given


def _stamp(at: datetime) -> tuple[int, int, int, int, int, int]:
    return (max(at.year, ZIP_EPOCH[0]), at.month, at.day, at.hour, at.minute, at.second)


def _attachment(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}


__all__ = ["router"]
