"""The node's own DICOMweb door: STOW-RS (PS3.18 10.5). Success is answered only for what is on disk for good.

Each part of the body goes to a file while it arrives and through the same intake as a C-STORE. Who may, how much and
how slowly a body may come is decided by the guard before every route.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import Message
from itertools import count
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from node.desk import Peer
from node.intake import Intake
from node.logs import line
from node.multipart import BadMultipart, PartTooLarge, PartWriter, boundary_of
from node.receipts import Receipts
from node.settings import Settings
from node.status import DATA_SET_DOES_NOT_MATCH, OUT_OF_RESOURCES, status_of
from node.web.access import allow
from node.web.dicom_web import ToPacs
from node.web.stow_answer import RETRY_SECONDS, Stored, answer, form_of
from plugins.errors import Refused, Unavailable
from store.instances import STOW_RS, OpenAssociation, beat, close_association
from store.part10 import Header, scan_header

log = logging.getLogger(__name__)

DICOM = "application/dicom"
BLOCK_BYTES = 1 << 20
BEAT_SECONDS = 10.0
TAKEN_AT_ONCE = 4
MOST_WAITING = 8
MAX_PARTS = 100_000


def router(
    settings: Settings, intake: Intake, receipts: Receipts | None = None, to_pacs: ToPacs | None = None
) -> APIRouter:
    """Return the routes under `/dicom-web`: POST `studies` and `studies/{study}`.

    What a program sends is taken in by the node. What a person stores from a page, drawn in the viewer, goes by
    `to_pacs` to the archive that the images come from, and reaches the node as everything there does.
    """
    made = APIRouter(prefix="/dicom-web")
    door = _Door(settings, intake, receipts or Receipts())

    async def take(request: Request, study: str) -> Response:
        _boundary(request.headers.get("content-type", ""))
        is_person = request.state.identity.kind == "person" or "origin" in request.headers
        return await (to_pacs if to_pacs and is_person else door.store)(request, study)

    @made.post("/studies")
    @allow("physicist", scopes=("sender",), is_upload=True)
    async def store(request: Request) -> Response:
        """Store instances of any study."""
        return await take(request, "")

    @made.post("/studies/{study}")
    @allow("physicist", scopes=("sender",), is_upload=True)
    async def store_of_study(request: Request, study: str) -> Response:
        """Store instances of one study; those of another one fail."""
        return await take(request, study)

    return made


class _Door:
    def __init__(self, settings: Settings, intake: Intake, receipts: Receipts) -> None:
        self._intake = intake
        self._receipts = receipts
        self._numbers = count()
        self._largest_bytes = settings.max_object_bytes
        self._reserve_bytes = settings.reserve_bytes
        self._most = settings.max_stow_requests
        self._busy = 0

    async def store(self, request: Request, study: str) -> Response:
        boundary = _boundary(request.headers.get("content-type", ""))
        form = form_of(request.headers.get("accept", ""))
        if form is None:
            raise HTTPException(406, "the answer is application/dicom+json or application/dicom+xml")
        async with self._place():
            batch = _Batch(
                self._intake,
                boundary,
                address=str(request.scope.get("state", {}).get("address", "")),
                study=study,
                largest_bytes=self._largest_bytes,
                reserve_bytes=self._reserve_bytes,
                receipts=self._receipts,
                peer=Peer(request.state.identity.name, str(request.state.address), next(self._numbers)),
            )
            try:
                stored = await _receive(request, batch)
            finally:
                await run_in_threadpool(batch.close)
        return answer(stored, form)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        later = {"Retry-After": RETRY_SECONDS}
        if self._busy >= self._most:
            raise HTTPException(503, "too many are storing at this time; come again", later)
        self._busy += 1
        try:
            if await run_in_threadpool(self._intake.objects.free_bytes) < self._reserve_bytes:
                raise HTTPException(503, "the disk is filled up to its reserve", later)
            yield
        finally:
            self._busy -= 1


async def _receive(request: Request, batch: _Batch) -> list[Stored]:
    """Return what became of the parts of a body. Raises 400 for what is no multipart body, 413 for a part too large."""
    waiting = bytearray()
    try:
        async for block in request.stream():
            waiting += block
            if len(waiting) >= BLOCK_BYTES:
                await run_in_threadpool(batch.feed, bytes(waiting))
                waiting.clear()
        await run_in_threadpool(batch.feed, bytes(waiting))
        stored = await run_in_threadpool(batch.finish)
    except PartTooLarge as error:
        raise HTTPException(413, str(error)) from None
    except BadMultipart as error:
        raise HTTPException(400, str(error)) from None
    except ClientDisconnect:
        raise HTTPException(400, "the client has gone") from None
    except OSError as error:
        raise Unavailable("what is sent cannot be written; free or mend the disk") from error
    if not stored:
        raise HTTPException(400, "the body has no part")
    return stored


@dataclass(frozen=True)
class _Part:
    """A part on its way through the intake."""

    uid: Future[str]
    """Its SOP Instance UID, once it is read; empty when it cannot be."""
    taken: Future[Stored]
    """What became of it."""


class _Batch:
    """One request: its parts as they come, each on its way through the intake, and what became of them."""

    def __init__(
        self,
        intake: Intake,
        boundary: str,
        *,
        address: str,
        study: str,
        largest_bytes: int,
        reserve_bytes: int,
        receipts: Receipts,
        peer: Peer,
    ) -> None:
        self._receipts = receipts
        self._peer = peer
        self._intake = intake
        self._study = study
        self._reserve_bytes = reserve_bytes
        self._source = f"STOW-RS@{address}"
        self._association = OpenAssociation(calling_ae=STOW_RS, address=address)
        self._beaten_at = time.monotonic()
        self._parts = PartWriter(boundary, intake.objects.temporary, largest_bytes)
        # Some at a time: what is taken in together shares its commit.
        self._pool = ThreadPoolExecutor(max_workers=TAKEN_AT_ONCE, thread_name_prefix="stow")
        self._pending: deque[_Part] = deque()
        self._stored: list[Stored] = []

    def feed(self, data: bytes) -> None:
        """Take in the next bytes; waits when too many parts wait to be on disk."""
        for path in self._parts.feed(data):
            if len(self._stored) + len(self._pending) >= MAX_PARTS:
                path.unlink(missing_ok=True)
                raise BadMultipart(f"the body has more than {MAX_PARTS} parts")
            uid: Future[str] = Future()
            taken = self._pool.submit(self._take, path, uid, tuple(self._pending))
            self._pending.append(_Part(uid, taken))
            while len(self._pending) > MOST_WAITING:
                self._stored.append(self._pending.popleft().taken.result())
        if self._association.pk is not None and time.monotonic() - self._beaten_at > BEAT_SECONDS:
            self._beaten_at = time.monotonic()
            with self._intake.database.transaction() as session:
                beat(session, self._association.pk, self._intake.database.now())

    def finish(self) -> list[Stored]:
        """Return what became of each part, in their order, when all are dealt with. Raises `BadMultipart`."""
        self._stored += [one.taken.result() for one in self._pending]
        self._pending.clear()
        if not self._parts.finished:
            raise BadMultipart("the body ends before its last delimiter, or its lines do not end with CR LF")
        return self._stored

    def close(self) -> None:
        """Drop what is incomplete, and let the study settle."""
        self._parts.close()
        self._pool.shutdown()
        if self._association.pk is None:
            return
        brought = self._receipts.left(self._peer)
        try:
            with self._intake.database.transaction() as session:
                close_association(session, self._association.pk, self._intake.database.now())
                tell = brought.tell(session) if brought else None
            if tell is not None:
                tell()
        except Unavailable as error:  # a row left open goes stale by itself
            about = {"source": self._source, **(brought.about if brought else {})}
            log.error(line("association-not-closed", error=type(error).__name__, **about))

    def _take(self, path: Path, uid: Future[str], before: Sequence[_Part]) -> Stored:
        header: Header | None = None
        try:
            try:
                header = scan_header(path)
            except Refused:
                log.debug(line("part-unreadable"))  # the intake puts it aside and says why
            finally:
                uid.set_result(header.sop_instance_uid if header else "")
            if header is not None and self._study and header.study_instance_uid != self._study:
                path.unlink(missing_ok=True)
                return _stored(header, DATA_SET_DOES_NOT_MATCH)
            if self._intake.objects.free_bytes() < self._reserve_bytes:
                path.unlink(missing_ok=True)
                return _stored(header, OUT_OF_RESOURCES)
            for part in before:  # each was begun before this one, so that none waits for itself
                if header is not None and part.uid.result() == header.sop_instance_uid:
                    part.taken.result()
            recorded = self._intake.take(path, source=self._source, association=self._association)
            self._association.pk = self._association.pk or recorded.association_pk
            self._receipts.stored(self._peer, recorded.study_pk, header.sop_class_uid if header else "")
        except Exception as error:  # the border: every error becomes a failure reason
            status = status_of(error)
            code = error.code if isinstance(error, Refused) else type(error).__name__
            log.warning(line("not-stored", status=f"{status:04X}", code=code, source=self._source))
            self._receipts.refused(self._peer, code)
            return _stored(header, status)
        return _stored(header, 0)


def _stored(header: Header | None, status: int) -> Stored:
    if header is None:
        return Stored(status=status)
    return Stored(sop_class_uid=header.sop_class_uid, sop_instance_uid=header.sop_instance_uid, status=status)


def _boundary(content_type: str) -> str:
    """Return the boundary of the body. Raises 415 for another type than DICOM files as multipart."""
    message = Message()
    message["Content-Type"] = content_type
    kind = message.get_param("type")
    is_dicom = kind is None or (isinstance(kind, str) and kind.lower() == DICOM)
    if message.get_content_type() != "multipart/related" or not is_dicom:
        raise HTTPException(415, f'send multipart/related; type="{DICOM}"')
    boundary = boundary_of(content_type)
    if boundary is None or not boundary.isascii():
        raise HTTPException(400, "the Content-Type names no boundary")
    return boundary


__all__ = ["router"]
