"""A sender that cannot be the bottleneck: every PDU is encoded before the clock starts, and bytes go to the socket."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from store.part10 import split

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
REJECTED, ACCEPTED, P_DATA = 0x03, 0x02, 0x04


class TurnedAwayError(Exception):
    """The association was rejected, or not answered."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """One object to send."""

    sop_class_uid: str
    """SOP class."""
    sop_instance_uid: str
    """SOP instance."""
    data: bytes
    """The data set, explicit VR little endian."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the object of a Part 10 file."""
        meta, offset = split(path)
        if meta.TransferSyntaxUID != EXPLICIT_LITTLE:
            raise ValueError(f"{path} is not explicit VR little endian")
        return cls(
            sop_class_uid=str(meta.MediaStorageSOPClassUID),
            sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
            data=path.read_bytes()[offset:],
        )

    def message(self, pdu_bytes: int) -> bytes:
        """Return the C-STORE request in PDUs of at most this length."""
        command = _element(0x0002, _padded(self.sop_class_uid))
        for element, number in ((0x0100, 1), (0x0110, 1), (0x0700, 0), (0x0800, 1)):
            command += _element(element, struct.pack("<H", number))
        command += _element(0x1000, _padded(self.sop_instance_uid))
        parts = [_p_data(3, _element(0x0000, struct.pack("<L", len(command))) + command)]
        room = pdu_bytes - 6
        for start in range(0, len(self.data), room):
            parts.append(_p_data(2 if start + room >= len(self.data) else 0, self.data[start : start + room]))
        return b"".join(parts)


class Blast:
    """One association with one storage context."""

    def __init__(
        self, port: int, sop_class_uid: str, *, called: str = "NADIR", timeout: float = 120.0
    ) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._socket.sendall(_associate_rq(called, sop_class_uid))
            kind, body = self._pdu()
        except OSError as error:
            self._socket.close()
            raise TurnedAwayError("no answer") from error
        if kind != ACCEPTED:
            self._socket.close()
            raise TurnedAwayError("rejected" if kind == REJECTED else "aborted")
        at = body.index(struct.pack(">BBHBBH", 0x50, 0, _user_length(body), 0x51, 0, 4)) + 8
        self.pdu_bytes = struct.unpack_from(">L", body, at)[0] or 1 << 17

    def store(self, message: bytes) -> int:
        """Send one message of `Image.message` and return the status of its answer."""
        self._socket.sendall(message)
        kind, body = self._pdu()
        at = body.find(struct.pack("<HHL", 0x0000, 0x0900, 2)) if kind == P_DATA else -1
        while at < 0:  # the answer of some comes in two PDUs, or they abort
            kind, more = self._pdu()
            if kind != P_DATA:
                raise ConnectionAbortedError("the receiver aborted")
            body += more
            at = body.find(struct.pack("<HHL", 0x0000, 0x0900, 2))
        return int(struct.unpack_from("<H", body, at + 8)[0])

    def release(self) -> None:
        """End the association in order."""
        self._socket.sendall(struct.pack(">BxLL", 0x05, 4, 0))
        self._pdu()
        self._socket.close()

    def _pdu(self) -> tuple[int, bytes]:
        kind, length = struct.unpack(">BxL", self._exactly(6))
        return kind, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            got = self._socket.recv(count - len(data))
            if not got:
                raise ConnectionResetError("the receiver closed the connection")
            data += got
        return data


def send_all(port: int, messages: Sequence[bytes], sop_class_uid: str) -> None:
    """Send messages on one association; raises ConnectionError when one is not answered with success."""
    association = Blast(port, sop_class_uid)
    for message in messages:
        status = association.store(message)
        if status != 0:
            raise ConnectionError(f"status {status:04X}")
    association.release()


def pdu_bytes_of(port: int, sop_class_uid: str) -> int:
    """Return the longest PDU that a receiver takes."""
    association = Blast(port, sop_class_uid)
    association.release()
    return association.pdu_bytes


def _user_length(body: bytes) -> int:
    at = 68
    while body[at] != 0x50:
        at += 4 + int(struct.unpack_from(">H", body, at + 2)[0])
    return int(struct.unpack_from(">H", body, at + 2)[0])


def _associate_rq(called: str, sop_class_uid: str) -> bytes:
    def item(kind: int, data: bytes) -> bytes:
        return struct.pack(">BxH", kind, len(data)) + data

    context = item(0x30, sop_class_uid.encode()) + item(0x40, EXPLICIT_LITTLE.encode())
    body = struct.pack(">HH", 1, 0) + called.ljust(16).encode() + b"BLAST".ljust(16) + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, bytes([1, 0, 0, 0]) + context)
    body += item(0x50, item(0x51, struct.pack(">L", 1 << 17)) + item(0x52, b"2.25.1"))
    return struct.pack(">BxL", 0x01, len(body)) + body


def _p_data(control: int, data: bytes) -> bytes:
    return struct.pack(">BxLLBB", P_DATA, len(data) + 6, len(data) + 2, 1, control) + data


def _element(element: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, element, len(value)) + value


def _padded(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)
