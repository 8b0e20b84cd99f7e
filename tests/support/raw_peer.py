"""A DICOM peer that is written byte by byte, so that it can be wrong on purpose."""

from __future__ import annotations

import socket
import struct
from io import BytesIO
from types import TracebackType
from typing import Self

from patience import PATIENCE_SECONDS
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
IMPLICIT_LITTLE = "1.2.840.10008.1.2"
VERIFICATION = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"


def item(kind: int, body: bytes) -> bytes:
    """Return one item of an association PDU."""
    return struct.pack(">BBH", kind, 0, len(body)) + body


def pdu(kind: int, body: bytes) -> bytes:
    """Return one PDU."""
    return struct.pack(">BBL", kind, 0, len(body)) + body


def associate_rq(called: str, calling: str, contexts: list[tuple[str, str]]) -> bytes:
    """Return an A-ASSOCIATE-RQ with one presentation context for each (abstract, transfer syntax)."""
    body = struct.pack(">HH", 1, 0) + called.ljust(16).encode() + calling.ljust(16).encode() + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, (abstract, transfer) in enumerate(contexts):
        syntaxes = item(0x30, abstract.encode()) + item(0x40, transfer.encode())
        body += item(0x20, struct.pack(">BBBB", 2 * number + 1, 0, 0, 0) + syntaxes)
    body += item(0x50, item(0x51, struct.pack(">L", 16382)) + item(0x52, b"2.25.1"))
    return pdu(0x01, body)


def encode(dataset: Dataset, *, implicit: bool = True) -> bytes:
    """Return the bytes of a dataset."""
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, implicit
    write_dataset(out, dataset)
    return out.getvalue()


def command(**values: object) -> bytes:
    """Return a command set, given as keywords."""
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    body = encode(dataset)
    length = Dataset()
    length.CommandGroupLength = len(body)
    return encode(length) + body


def p_data(context_id: int, control: int, data: bytes) -> bytes:
    """Return a P-DATA-TF with one fragment; `control` is 1 command, 3 its last, 0 data, 2 its last."""
    return pdu(0x04, struct.pack(">LBB", len(data) + 2, context_id, control) + data)


def store_command(sop_class: str, sop_instance: str, *, has_data: bool = True) -> bytes:
    """Return the command set of a C-STORE-RQ."""
    return command(
        AffectedSOPClassUID=sop_class,
        CommandField=0x0001,
        MessageID=1,
        Priority=0,
        CommandDataSetType=0x0001 if has_data else 0x0101,
        AffectedSOPInstanceUID=sop_instance,
    )


class RawPeer:
    """One TCP connection."""

    def __init__(self, port: int, *, source: str = "127.0.0.1", timeout: float = PATIENCE_SECONDS) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout, source_address=(source, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(data)

    def receive(self) -> tuple[int, bytes] | None:
        """Return type and body of the next PDU; None when the connection ended."""
        header = self._exactly(6)
        if header is None:
            return None
        kind, _, length = struct.unpack(">BBL", header)
        body = self._exactly(length)
        return None if body is None else (kind, body)

    def associate(
        self, *, called: str = "NADIR", calling: str = "RAW", contexts: list[tuple[str, str]] | None = None
    ) -> tuple[int, bytes] | None:
        """Ask for an association and return the answer."""
        self.send(
            associate_rq(
                called, calling, contexts or [(VERIFICATION, IMPLICIT_LITTLE), (CT, EXPLICIT_LITTLE)]
            )
        )
        return self.receive()

    def store(self, sop_class: str, sop_instance: str, data: bytes, *, context_id: int = 3) -> int | None:
        """Send one C-STORE and return its status; None when the connection ended."""
        self.send(p_data(context_id, 3, store_command(sop_class, sop_instance)))
        for start in range(0, len(data), 16000):
            last = start + 16000 >= len(data)
            self.send(p_data(context_id, 2 if last else 0, data[start : start + 16000]))
        return self.status()

    def echo(self) -> int | None:
        """Send one C-ECHO and return its status."""
        values = command(
            AffectedSOPClassUID=VERIFICATION, CommandField=0x0030, MessageID=1, CommandDataSetType=0x0101
        )
        self.send(p_data(1, 3, values))
        return self.status()

    def status(self) -> int | None:
        """Return the status of the next response; None when the connection ended or was aborted."""
        answer = self.receive()
        if answer is None or answer[0] != 0x04:
            return None
        at = answer[1].find(struct.pack("<HHL", 0x0000, 0x0900, 2))
        return int(struct.unpack("<H", answer[1][at + 8 : at + 10])[0])

    def release(self) -> None:
        """End the association in order."""
        self.send(pdu(0x05, bytes(4)))
        self.receive()

    def ended_within(self, seconds: float = PATIENCE_SECONDS) -> bool:
        """Return True when the other side closes the connection in time."""
        self.socket.settimeout(seconds)
        try:
            while self.socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True

    def _exactly(self, count: int) -> bytes | None:
        data = BytesIO()
        while data.tell() < count:
            try:
                got = self.socket.recv(count - data.tell())
            except ConnectionError:
                return None
            if not got:
                return None
            data.write(got)
        return data.getvalue()
