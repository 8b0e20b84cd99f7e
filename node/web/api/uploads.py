"""Uploads as JSON: begin one, send its files as they are, say that this is all, read what became of each.

    U=http://127.0.0.1:8080/api/uploads
    curl -H "Authorization: Bearer $TOKEN" -X POST $U                                  # {"id": 7, ...}
    curl -H "Authorization: Bearer $TOKEN" -H "X-File-Name: study.zip" -T study.zip $U/7/files/1
    curl -H "Authorization: Bearer $TOKEN" -X POST $U/7/finish

A file may come in pieces, with `Content-Range`; then it goes on where it was, also after a restart of either side.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import unquote

from fastapi import APIRouter, Header, Request
from fastapi import Path as InPath
from sqlmodel import Session
from starlette.exceptions import HTTPException

from node.intake import Intake
from node.upload_kind import SKIPS
from node.uploads import Uploads
from node.web.access import JSON_BODY_BYTES, allow
from node.web.api import form
from node.web.api.upload_door import LARGEST_FILE_BYTES, UploadDoor
from node.web.api.upload_form import (
    MOST_FILES,
    Begun,
    FileAnswer,
    FileList,
    ImageSaid,
    SkippedFiles,
    UploadAnswer,
    UploadList,
    answer_of,
    file_answer,
    keep_said,
)
from node.web.site import Site
from store import upload_files, uploads
from store.upload_tables import SKIPPED

ANY_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

FileNumber = Annotated[
    int,
    InPath(
        ge=1, le=MOST_FILES, description="Which file, as the sender counts; the same again for the same file"
    ),
]
FileName = Annotated[
    str,
    Header(
        max_length=4000,
        description="Its name or path, percent-encoded; shown to people, never used as a path",
    ),
]


def router(site: Site) -> APIRouter:
    """Return the routes under `/api/uploads`."""
    made = form.routes("uploads")
    intake = Intake(site.database, site.objects)
    desk = Uploads(site.settings, intake, site.record)
    _told(made, site)
    _uploads(made, site, desk)
    _images(made, site, desk)
    _files(made, site, UploadDoor(site, desk))
    return made


def _told(made: APIRouter, site: Site) -> None:
    """Add the routes that tell how far uploads are."""

    @made.get("/uploads")
    @allow("viewer", scopes=("api",))
    def recent(limit: form.Limit = 20, cursor: form.Cursor = "") -> UploadList:
        """List the uploads, the newest first."""
        (before,) = form.values_of(cursor, int) or (None,)
        with site.database.reading() as session:
            rows = uploads.recent(session, limit=limit + 1, before=before)
            found = [answer_of(session, row) for row in rows[:limit]]
            total = uploads.count(session)
        more = form.cursor_of(found[-1].id) if len(rows) > limit else None
        return UploadList(uploads=found, total=total, next=more)

    @made.get("/uploads/{upload_pk}", responses=form.problems(404))
    @allow("viewer", scopes=("api",))
    def one(upload_pk: form.Pk) -> UploadAnswer:
        """Give one upload: how far it is, what was not taken and why."""
        return _answer(site, upload_pk)


def _uploads(made: APIRouter, site: Site, desk: Uploads) -> None:
    """Add the routes by which uploads begin and end."""

    @made.post("/uploads", status_code=201)
    @allow("physicist", scopes=("api",))
    def begin(request: Request, begun: Begun | None = None) -> UploadAnswer:
        """Begin an upload."""
        with site.database.transaction() as session:
            upload = uploads.begin(
                session,
                request.state.identity.name,
                delivered=begun is None or begun.delivered,
                now=site.database.now(),
            )
            return answer_of(session, upload)

    @made.post("/uploads/{upload_pk}/beat", status_code=204, responses=form.problems(404, 409))
    @allow("physicist", scopes=("api",))
    def beat(upload_pk: form.Pk) -> None:
        """Say that the upload goes on, while nothing is sent: its studies are not analysed before they are whole."""
        with site.database.transaction() as session:
            uploads.require_open(session, upload_pk)
            uploads.touch(session, upload_pk, site.database.now())

    @made.post("/uploads/{upload_pk}/finish", responses=form.problems(404, 409))
    @allow("physicist", scopes=("api",))
    def finish(upload_pk: form.Pk, ended: Begun | None = None) -> UploadAnswer:
        """Say that this is all: the studies are analysed at once, without the quiet time."""
        delivered = None if ended is None else ended.delivered
        with site.database.transaction() as session:
            uploads.close(session, upload_pk, delivered=delivered)
        desk.complete(upload_pk)
        return _answer(site, upload_pk)

    @made.delete("/uploads/{upload_pk}", responses=form.problems(404, 409))
    @allow("physicist", scopes=("api",))
    def cancel(upload_pk: form.Pk) -> UploadAnswer:
        """Cancel an upload. Images that were acknowledged are kept, as with any other sender."""
        desk.cancel(upload_pk)
        return _answer(site, upload_pk)


def _answer(site: Site, upload_pk: int) -> UploadAnswer:
    with site.database.reading() as session:
        return answer_of(session, uploads.get(session, upload_pk))


def _images(made: APIRouter, site: Site, desk: Uploads) -> None:
    """Add the routes of NIfTI images, of which somebody has to say what they are."""

    @made.put("/uploads/{upload_pk}/images/{file_pk}", responses=form.problems(404, 409))
    @allow("physicist", scopes=("api",))
    def say(upload_pk: form.Pk, file_pk: form.Pk, said: ImageSaid) -> FileAnswer:
        """Say what a NIfTI image is; it is written as a DICOM series then, and analysed with the rest."""
        with site.database.transaction() as session:
            keep_said(session, upload_pk, file_pk, said)
            return file_answer(upload_files.file_of(session, upload_pk, file_pk))

    @made.delete("/uploads/{upload_pk}/images/{file_pk}", responses=form.problems(404, 409))
    @allow("physicist", scopes=("api",))
    def leave_out(upload_pk: form.Pk, file_pk: form.Pk) -> FileAnswer:
        """Leave a NIfTI image out."""
        with site.database.transaction() as session:
            upload_files.leave_out(session, upload_files.file_of(session, upload_pk, file_pk))
        desk.complete(upload_pk)
        with site.database.reading() as session:
            return file_answer(upload_files.file_of(session, upload_pk, file_pk))


def _files(made: APIRouter, site: Site, door: UploadDoor) -> None:
    """Add the routes of the files that are sent."""

    @made.get("/uploads/{upload_pk}/files", responses=form.problems(404))
    @allow("viewer", scopes=("api",))
    def listed(
        upload_pk: form.Pk, limit: form.Limit = 1000, cursor: form.Cursor = "", state: str = ""
    ) -> FileList:
        """List the files of an upload, all or those in one state: what is here need not be sent again."""
        return _listed(site, door, upload_pk, limit, cursor, (state,) if state else ())

    @made.get("/uploads/{upload_pk}/files/{number}", responses=form.problems(404))
    @allow("viewer", scopes=("api",))
    def one(upload_pk: form.Pk, number: FileNumber) -> FileAnswer:
        """Give one file: how much of it is here, and what became of it."""
        with site.database.reading() as session:
            row = upload_files.file_at(session, upload_pk, number)
        if row is None:
            raise HTTPException(404, "nothing of this file is here")
        return door.shown(row, is_hashed=True)

    @made.put(
        "/uploads/{upload_pk}/files/{number}",
        responses=form.problems(404, 409, 413, 507),
        openapi_extra={"requestBody": {"required": True, "content": ANY_BYTES}},
    )
    @allow("physicist", scopes=("api",), body_bytes=LARGEST_FILE_BYTES)
    async def put(
        request: Request, upload_pk: form.Pk, number: FileNumber, x_file_name: FileName
    ) -> FileAnswer:
        """Send a file as it is, or with `Content-Range` the next piece of it.

        An image is on disk and committed when this answers. What was dealt with before is answered as it was;
        `another-file` when it had other bytes.
        """
        return await door.put(request, upload_pk, number, unquote(x_file_name, errors="replace"))

    @made.post("/uploads/{upload_pk}/skipped", status_code=204, responses=form.problems(404, 409))
    @allow("physicist", scopes=("api",), body_bytes=JSON_BODY_BYTES)
    def skipped(upload_pk: form.Pk, skipped: SkippedFiles) -> None:
        """Tell of files that the sender passes over by itself, so that they are counted with their reason."""
        with site.database.transaction() as session:
            uploads.require_open(session, upload_pk)
            uploads.touch(session, upload_pk, site.database.now())
            _note_skipped(session, upload_pk, skipped)


def _listed(
    site: Site, door: UploadDoor, upload_pk: int, limit: int, cursor: str, states: tuple[str, ...]
) -> FileList:
    """Return the files of an upload that are in one of the states, of all files when none is given."""
    (after,) = form.values_of(cursor, int) or (0,)
    after = after or 0
    with site.database.reading() as session:
        uploads.get(session, upload_pk)
        rows = upload_files.files(session, upload_pk, after=after, limit=limit + 1, states=states)
        total = upload_files.count_files(session, upload_pk, states)
    found = [door.shown(row) for row in rows[:limit]]
    more = form.cursor_of(found[-1].id) if len(rows) > limit else None
    return FileList(files=found, total=total, next=more)


def _note_skipped(session: Session, upload_pk: int, skipped: SkippedFiles) -> None:
    """Write down files that their sender passed over; of one that is known already nothing changes."""
    for file in skipped.files:
        if upload_files.file_at(session, upload_pk, file.number) is None:
            upload_files.note(
                session,
                upload_pk,
                file.number,
                file.name,
                file.size_bytes,
                SKIPPED,
                code=file.code,
                sentence=SKIPS[file.code],
            )


__all__ = ["router"]
