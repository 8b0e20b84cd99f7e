"""Uploads as JSON: begin one, send its files as they are, say that this is all, read what became of each.

    U=http://127.0.0.1:8080/api/uploads
    curl -H "Authorization: Bearer $TOKEN" -X POST $U                                  # {"id": 7, ...}
    curl -H "Authorization: Bearer $TOKEN" -H "X-File-Name: study.zip" -T study.zip $U/7/files/1
    curl -H "Authorization: Bearer $TOKEN" -X POST $U/7/finish

A file may come in pieces, with `Content-Range`; then it goes on where it was, also after a restart of either side.
"""

from __future__ import annotations

import errno
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Annotated, BinaryIO
from urllib.parse import unquote

from fastapi import APIRouter, Header, Request
from fastapi import Path as InPath
from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from node.intake import Intake
from node.upload_kind import SKIPS
from node.uploads import Uploads
from node.web.access import JSON_BODY_BYTES, allow
from node.web.api import form
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
from plugins.errors import Refused, Unavailable
from store import upload_files, uploads
from store.file_hash import sha256_of
from store.upload_tables import ARRIVING, SKIPPED, Upload, UploadFile

BLOCK_BYTES = 1 << 20
LARGEST_FILE_BYTES = 64 << 30
RANGE = re.compile(r"bytes (?:(\d{1,15})-(\d{1,15})|\*)/(\d{1,15})")
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

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
    _uploads(made, site, desk)
    _images(made, site, desk)
    _files(made, site, _Door(site, desk))
    return made


def _uploads(made: APIRouter, site: Site, desk: Uploads) -> None:
    """Add the routes of uploads as wholes."""

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
        with site.database.reading() as session:
            return answer_of(session, uploads.get(session, upload_pk))

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
        return one(upload_pk)

    @made.delete("/uploads/{upload_pk}", responses=form.problems(404, 409))
    @allow("physicist", scopes=("api",))
    def cancel(upload_pk: form.Pk) -> UploadAnswer:
        """Cancel an upload. Images that were acknowledged are kept, as with any other sender."""
        desk.cancel(upload_pk)
        return one(upload_pk)


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


def _files(made: APIRouter, site: Site, door: _Door) -> None:
    """Add the routes of the files that are sent."""

    @made.get("/uploads/{upload_pk}/files", responses=form.problems(404))
    @allow("viewer", scopes=("api",))
    def listed(
        upload_pk: form.Pk, limit: form.Limit = 1000, cursor: form.Cursor = "", state: str = ""
    ) -> FileList:
        """List the files of an upload, all or those in one state: what is here need not be sent again."""
        (after,) = form.values_of(cursor, int) or (0,)
        after = after or 0
        with site.database.reading() as session:
            uploads.get(session, upload_pk)
            states = (state,) if state else ()
            rows = upload_files.files(session, upload_pk, after=after, limit=limit + 1, states=states)
            total = upload_files.count_files(session, upload_pk, states)
        found = [door.shown(row) for row in rows[:limit]]
        more = form.cursor_of(found[-1].id) if len(rows) > limit else None
        return FileList(files=found, total=total, next=more)

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
            for file in skipped.files:
                if upload_files.file_at(session, upload_pk, file.number) is not None:
                    continue
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


class _Door:
    """Where bodies of files come in."""

    def __init__(self, site: Site, desk: Uploads) -> None:
        self._database = site.database
        self._desk = desk
        self._busy: set[tuple[int, int]] = set()

    def shown(self, row: UploadFile, *, is_hashed: bool = False) -> FileAnswer:
        """Return a file with how much of it is here; when asked for, with the hash of that."""
        if row.state != ARRIVING:
            return file_answer(row)
        partial = self._desk.partial(row.upload_pk, row.number)
        if not partial.exists():
            return file_answer(row, 0)
        return file_answer(row, partial.stat().st_size, sha256_of(partial) if is_hashed else "")

    async def put(self, request: Request, upload_pk: int, number: int, name: str) -> FileAnswer:
        """Return what became of a file once its body, or the last piece of it, is here."""
        pieces = request.headers.get("content-range")
        upload, row = await run_in_threadpool(self._begin, upload_pk, number)
        if row is not None and row.state != ARRIVING:
            digest = sha256()
            # All of it: a browser that is answered before takes it for a break.
            async for block in request.stream():
                digest.update(block)
            if pieces is None and row.sha256 and digest.hexdigest() != row.sha256:
                raise Refused(
                    "another-file", f"file {number} is here with other bytes; send it as another number"
                )
            return file_answer(row)
        async with self._alone(upload_pk, number):
            try:
                self._desk.require_room(_declared(request))
                if pieces is None:
                    return await self._whole(request, upload, number, name)
                return await self._piece(request, upload, number, name, pieces, row)
            except ClientDisconnect:
                raise HTTPException(400, "the client has gone") from None
            except OSError as error:
                if error.errno in FULL:
                    sentence = "the disk of the node is full; free some space there, then go on"
                    raise HTTPException(507, sentence) from error
                raise Unavailable("what is sent cannot be written; free or mend the disk") from error

    def _begin(self, upload_pk: int, number: int) -> tuple[Upload, UploadFile | None]:
        with self._database.reading() as session:
            upload = uploads.require_open(session, upload_pk)
            return upload, upload_files.file_at(session, upload_pk, number)

    @asynccontextmanager
    async def _alone(self, upload_pk: int, number: int) -> AsyncIterator[None]:
        if (upload_pk, number) in self._busy:
            raise HTTPException(409, "this file is being sent at this moment by somebody else")
        self._busy.add((upload_pk, number))
        try:
            yield
        finally:
            self._busy.discard((upload_pk, number))

    async def _whole(self, request: Request, upload: Upload, number: int, name: str) -> FileAnswer:
        path = await run_in_threadpool(self._desk.temporary)
        try:
            await _written(request, path, "wb", self._desk.require_room)
            return file_answer(await run_in_threadpool(self._desk.receive, upload, number, name, path))
        finally:
            path.unlink(missing_ok=True)

    async def _piece(
        self,
        request: Request,
        upload: Upload,
        number: int,
        name: str,
        pieces: str,
        known: UploadFile | None,
    ) -> FileAnswer:
        """Append a piece; the last one completes the file. 409 when it is not the one that comes next.

        Refuses `another-file` for a piece of a file that is not called as the one that is here in part, or not as long.
        """
        first, last, size_bytes = _range(pieces)
        upload_pk = int(upload.id or 0)
        path = await run_in_threadpool(self._desk.partial, upload_pk, number)
        here = path.stat().st_size if path.exists() else 0
        first = size_bytes if first is None else first
        if here and known and (known.name, known.size_bytes) != (upload_files.kept_name(name), size_bytes):
            raise Refused("another-file", f"file {number} is '{known.name}', of which {here} bytes are here")
        if first != here:
            raise HTTPException(409, f"{here} bytes of this file are here; go on from there")

        def note() -> UploadFile:
            with self._database.transaction() as session:
                return upload_files.note(session, upload_pk, number, name, size_bytes, ARRIVING)

        row = await run_in_threadpool(note)
        room = self._desk.require_room
        came = await _written(request, path, "ab", room, at_most=last + 1 - first)
        if here + came < size_bytes:
            return self.shown(row)
        return file_answer(await run_in_threadpool(self._desk.receive, upload, number, name, path))


async def _written(
    request: Request, path: Path, mode: str, require_room: Callable[[], None], at_most: int | None = None
) -> int:
    """Return how many bytes of a body were written; 413 for more than it said that it is.

    The disk is looked at with each block, since a body need not say how long it is.
    """
    waiting, count = bytearray(), 0
    file: BinaryIO
    with path.open(mode) as file:  # type: ignore[assignment]
        async for block in request.stream():
            count += len(block)
            if at_most is not None and count > at_most:
                raise HTTPException(413, "the body is longer than its Content-Range")
            waiting += block
            if len(waiting) >= BLOCK_BYTES:
                require_room()
                await run_in_threadpool(file.write, bytes(waiting))
                waiting.clear()
        await run_in_threadpool(file.write, bytes(waiting))
    return count


def _declared(request: Request) -> int:
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0


def _range(text: str) -> tuple[int | None, int, int]:
    """Return first byte, last byte and size of a piece; None for the first when all of it is said to be here."""
    if (found := RANGE.fullmatch(text)) is not None:
        size_bytes = int(found[3])
        if found[1] is None:
            return None, size_bytes - 1, size_bytes
        if int(found[1]) <= int(found[2]) < size_bytes <= LARGEST_FILE_BYTES:
            return int(found[1]), int(found[2]), size_bytes
    raise HTTPException(
        422, "Content-Range: write 'bytes FIRST-LAST/SIZE', or 'bytes */SIZE' when all of it is here"
    )


__all__ = ["router"]
