"""The door that files of an upload come in by: a body whole, or piece by piece, and what became of it."""

from __future__ import annotations

import errno
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from node.uploads import Uploads
from node.web.api.upload_form import FileAnswer, file_answer
from node.web.site import Site
from plugins.errors import Refused, Unavailable
from store import upload_files, uploads
from store.file_hash import sha256_of
from store.upload_tables import ARRIVING, Upload, UploadFile

BLOCK_BYTES = 1 << 20
LARGEST_FILE_BYTES = 64 << 30
RANGE = re.compile(r"bytes (?:(\d{1,15})-(\d{1,15})|\*)/(\d{1,15})")
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class UploadDoor:
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
            raise Refused("being-sent", "this file is being sent at this moment by somebody else")
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
        """Append a piece; the last one completes the file.

        Refuses `another-piece` for one that does not come next, and `another-file` for a piece of a file that is not
        called as the one that is here in part, or not as long.
        """
        first, last, size_bytes = _range(pieces)
        upload_pk = int(upload.id or 0)
        path = await run_in_threadpool(self._desk.partial, upload_pk, number)
        here = path.stat().st_size if path.exists() else 0
        first = size_bytes if first is None else first
        if here and known and (known.name, known.size_bytes) != (upload_files.kept_name(name), size_bytes):
            raise Refused("another-file", f"file {number} is '{known.name}', of which {here} bytes are here")
        if first != here:
            raise Refused("another-piece", f"{here} bytes of this file are here; go on from there")

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


__all__ = ["LARGEST_FILE_BYTES", "UploadDoor"]
