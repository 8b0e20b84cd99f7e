"""A C-STORE request goes to a file while it arrives, never whole into memory, and a full disk is an answer.

pynetdicom can write what it receives to a file, but in the default folder for temporary files, by a switch for the
whole process, and an error while writing ends the association without a status. Here each association has its own
`SpoolingDimse`; a failed write is remembered, the rest of the object is read and dropped, and the handler answers.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.pdu_primitives import P_DATA

from node.hasher import FileHash, HashBeside, Hasher
from plugins.errors import Unavailable
from store.writeback import begin_writeback

Buffer = bytes | memoryview

CHECK_FREE_EVERY_BYTES = 32 << 20
LARGEST_UNSPOOLED_BYTES = 1 << 20
LARGEST_UID_CHARACTERS = 64
HEAD_BYTES = 1 << 16
PIECE_BYTES = 4 << 20
"""What is hashed at one time, while the system writes it to disk."""
PIECE_BESIDE_BYTES = 160 << 10
"""The same when another thread does it."""
READ_BYTES = 1 << 16


class Spool:
    """One object on its way in: a file, or the reason why there is none.

    Has the few attributes that pynetdicom asks of a temporary file: `write`, `close`, `name`, `file.flush`.
    """

    def __init__(
        self,
        path: Path,
        *,
        largest_bytes: int,
        free_bytes: Callable[[], int],
        reserve_bytes: int,
        hashing: bool = True,
        hasher: Hasher | None = None,
    ) -> None:
        self.path = path
        self.name = str(path)
        self.failure: Exception | None = None
        self.size_bytes = 0
        self._largest_bytes = largest_bytes
        self._free_bytes = free_bytes
        self._reserve_bytes = reserve_bytes
        self._checked_at = -CHECK_FREE_EVERY_BYTES
        self._descriptor: int | None = None
        self._preamble = b""
        self._hashing = hashing
        self._hasher = hasher
        self._hash: FileHash | None = None
        self._beside: HashBeside | None = None
        self._told_bytes = 0
        self.head = b""
        """The first bytes of the file, at most `HEAD_BYTES`."""

    def begin(self, preamble: bytes) -> Self:
        """Return itself, with the file begun by `preamble`; a failure is remembered, not raised."""
        self._preamble = preamble
        try:
            self._descriptor = os.open(
                self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
            self._begin_hash(self._descriptor)
        except OSError as error:
            self._fail(error)
        return self

    def _begin_hash(self, descriptor: int) -> None:
        if not self._hashing:
            return
        self._beside = self._hasher.lend(descriptor) if self._hasher else None
        if self._beside is None:
            self._hash = FileHash(descriptor)

    @property
    def sha256(self) -> Callable[[], str] | None:
        """Return what gives the hash of the closed file, or raises OSError; None when there is none.

        It may be known a little later than the file is closed: then who calls waits for it.
        """
        known = self._beside or self._hash
        return known.hexdigest if known and not self.failure else None

    @property
    def file(self) -> Self:
        """Return itself: pynetdicom flushes the file below its own."""
        return self

    def flush(self) -> None:
        """Do nothing: every write goes to the system at once."""

    def write(self, data: Buffer) -> None:
        """Append; after a failure the data are dropped. The preamble goes with the first of them."""
        if self._descriptor is None:
            return
        parts = (self._preamble, data) if self._preamble else (data,)
        size = len(self._preamble) + len(data)
        self._preamble = b""
        try:
            self._check_room(size)
            written = os.writev(self._descriptor, parts)
            if written < size:
                self._write_rest(b"".join(parts), written)
        except (OSError, Unavailable) as error:
            self._fail(error)
            return
        self.size_bytes += size
        if self.size_bytes - self._told_bytes >= (PIECE_BESIDE_BYTES if self._beside else PIECE_BYTES):
            self._tell()
        if len(self.head) < HEAD_BYTES:
            self.head = b"".join((self.head, *parts[:-1], data[: HEAD_BYTES - self.size_bytes + len(data)]))

    def _write_rest(self, data: bytes, written: int) -> None:
        assert self._descriptor is not None
        while written < len(data):
            written += os.write(self._descriptor, data[written:])

    def _check_room(self, more_bytes: int) -> None:
        if self.size_bytes + more_bytes > self._largest_bytes:
            raise OSError(errno.EFBIG, "the object is larger than max_object_bytes")
        if self.size_bytes - self._checked_at >= CHECK_FREE_EVERY_BYTES:
            self._checked_at = self.size_bytes
            if self._free_bytes() < self._reserve_bytes:
                raise OSError(errno.ENOSPC, "the disk is filled up to its reserve")

    def _tell(self, *, is_last: bool = False) -> None:
        """Have hashed what has come since, as it is in the file, while the system already writes it to disk."""
        if self._descriptor is None or not self._hashing:
            return
        told, self._told_bytes = self._told_bytes, self.size_bytes
        if self._beside is not None:
            # Before the call to the system, which lets the other thread have its turn.
            (self._beside.finish if is_last else self._beside.advance)(self.size_bytes)
        begin_writeback(self._descriptor, told, self.size_bytes - told)
        if self._hash is not None:
            try:
                self._hash.advance(self.size_bytes, memoryview(bytearray(READ_BYTES)))
            except OSError as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self.discard()

    def close(self) -> None:
        """Close the file; it stays where it is."""
        if self._preamble:
            self.write(b"")
        self._tell(is_last=True)
        self._release()

    def _release(self) -> None:
        if self._beside is not None:
            self._beside.finish(0)
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def discard(self) -> None:
        """Close and delete the file, when there is one; a later write is dropped."""
        try:
            self._release()
        finally:
            with suppress(FileNotFoundError):
                os.unlink(self.name)


class SpoolingDimse(DIMSEServiceProvider):  # type: ignore[misc]  # pynetdicom is untyped here
    """The message service of one association, which gives every C-STORE request a spool."""

    def __init__(self, assoc: Association, new_spool: Callable[[str, str, str], Spool]) -> None:
        super().__init__(assoc)
        self._new_spool = new_spool
        self._spools: set[Spool] = set()
        self._unspooled_bytes = 0

    @property
    def is_receiving(self) -> bool:
        """Return True while a message is incomplete or waits to be served."""
        return self.message is not None or not self.msg_queue.empty()

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take in the fragments of a P-DATA one by one; the data set of a C-STORE goes to its spool."""
        for fragment in list(primitive.presentation_data_value_list):
            spool = None if self.message is None else self.message._data_set_file
            self._unspooled_bytes = 0 if spool else self._unspooled_bytes + len(fragment[1])
            if self._unspooled_bytes > LARGEST_UNSPOOLED_BYTES:
                raise ValueError("a message other than C-STORE is too long")
            one = P_DATA()
            one.presentation_data_value_list = [[fragment[0], fragment[1]]]
            super().receive_primitive(one)
            if self.message is None:
                self._unspooled_bytes = 0
            elif isinstance(self.message, C_STORE_RQ) and not self.message._data_set_file:
                self._attach(fragment[0])
        pace = self.assoc.dul.socket.pace
        if self.message is None:
            pace.rest()
        elif pace.behind_seconds > self.assoc.network_timeout:
            raise ValueError("a message comes at less than the pace of a slow line")

    def _attach(self, context_id: int) -> None:
        command = self.message.command_set
        for keyword in ("AffectedSOPClassUID", "AffectedSOPInstanceUID"):
            # pynetdicom would end the association over a longer one; without it, the request gets an answer.
            if len(str(command.get(keyword) or "")) > LARGEST_UID_CHARACTERS:
                delattr(command, keyword)
        context = self.assoc._accepted_cx[context_id]
        spool = self._new_spool(
            str(command.get("AffectedSOPClassUID") or ""),
            str(command.get("AffectedSOPInstanceUID") or ""),
            str(context.transfer_syntax[0]),
        )
        self._spools.add(spool)
        self.message._data_set_file = spool
        self.message._data_set_path = spool.path

    def served(self, spool: Spool, *, is_taken: bool = False) -> None:
        """Forget a spool that was dealt with, and delete its file unless somebody took it."""
        self._spools.discard(spool)
        if not is_taken:
            spool.discard()

    def discard_all(self) -> None:
        """Delete the spools of messages that will never be complete or served."""
        for spool in list(self._spools):
            self.served(spool)
