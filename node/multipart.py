"""Multipart bodies, read and written without ever holding one whole (RFC 2046 section 5.1, PS3.18 8.6.1)."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from email.message import Message
from pathlib import Path
from typing import BinaryIO

from plugins.errors import Unavailable

BLOCK_BYTES = 1 << 18
MAX_PART_HEADER_BYTES = 1 << 14


class BadMultipart(Unavailable):
    """The body is no multipart body; who sent it may do better next time."""


class PartTooLarge(Unavailable):
    """A part of the body is larger than may be kept."""


class PartWriter:
    """Feeds on the bytes of a multipart body and writes each part to a file of its own.

    Parameters
    ----------
    boundary
        As in the Content-Type of the whole.
    new_path
        Gives the path that the next part is written to.
    max_part_bytes
        A larger part raises `PartTooLarge`: nobody may fill the disk.

    """

    def __init__(self, boundary: str, new_path: Callable[[], Path], max_part_bytes: int) -> None:
        self._delimiter = b"\r\n--" + boundary.encode("latin-1")
        self._new_path = new_path
        self._max_part_bytes = max_part_bytes
        self._buffer = b"\r\n"  # so that a body that begins with its first delimiter needs no rule of its own
        self._state: Callable[[], Iterator[Path] | None] = self._preamble
        self._file: BinaryIO | None = None
        self._path = Path()
        self._written = 0
        self.finished = False

    def feed(self, data: bytes) -> Iterator[Path]:
        """Yield the path of each part that is complete once `data` is taken in."""
        self._buffer += data
        while True:
            step = self._state()
            if step is None:
                return
            yield from step

    def close(self) -> None:
        """Delete a part that is not complete."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._path.unlink(missing_ok=True)

    def _preamble(self) -> Iterator[Path] | None:
        at = self._buffer.find(self._delimiter)
        if at < 0:
            self._buffer = self._buffer[-len(self._delimiter) :]
            return None
        self._buffer = self._buffer[at + len(self._delimiter) :]
        self._state = self._after_delimiter
        return iter(())

    def _after_delimiter(self) -> Iterator[Path] | None:
        if len(self._buffer) < 2:
            return None
        if self._buffer.startswith(b"--"):
            self.finished = True
            self._state = self._epilogue
        else:
            self._state = self._header
        return iter(())

    def _header(self) -> Iterator[Path] | None:
        # A part without header fields has its empty line at once: the line break that ends the delimiter counts.
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_PART_HEADER_BYTES:
                raise BadMultipart(
                    "a part of the multipart body has an endless header, or its lines do not end with CR LF"
                )
            return None
        self._buffer = self._buffer[end + 4 :]
        self._path = self._new_path()
        self._file = self._path.open("wb")
        self._written = 0
        self._state = self._content
        return iter(())

    def _content(self) -> Iterator[Path] | None:
        if self._file is None:
            return None
        at = self._buffer.find(self._delimiter)
        end = at if at >= 0 else max(len(self._buffer) - len(self._delimiter) + 1, 0)
        self._written += end
        if self._written > self._max_part_bytes:
            raise PartTooLarge(f"a part of the multipart body is larger than {self._max_part_bytes} bytes")
        self._file.write(memoryview(self._buffer)[:end])
        if at < 0:
            self._buffer = self._buffer[end:]
            return None
        self._buffer = self._buffer[at + len(self._delimiter) :]
        self._file.close()
        self._file = None
        self._state = self._after_delimiter
        return iter((self._path,))

    def _epilogue(self) -> Iterator[Path] | None:
        self._buffer = b""
        return None


def boundary_of(content_type: str) -> str | None:
    """Return the boundary of a multipart Content-Type; None for another type, or none that a body can hold."""
    message = Message()
    message["Content-Type"] = content_type
    if message.get_content_maintype() != "multipart":
        return None
    boundary = message.get_param("boundary")
    if not isinstance(boundary, str) or not 0 < len(boundary) <= 200 or max(boundary) > "\xff":
        return None
    return boundary


class FilesBody:
    """The body of a STOW-RS request: files as parts, read from disk while it is sent.

    Parameters
    ----------
    paths
        Part 10 files.

    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = tuple(paths)
        boundary = secrets.token_hex(16)
        self._head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode("ascii")
        self._end = f"--{boundary}--\r\n".encode("ascii")
        self.content_type = f'multipart/related; type="application/dicom"; boundary={boundary}'

    @property
    def length(self) -> int:
        """Return the number of bytes of the body."""
        return sum(len(self._head) + path.stat().st_size + 2 for path in self._paths) + len(self._end)

    def __iter__(self) -> Iterator[bytes]:
        for path in self._paths:
            yield self._head
            with path.open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    yield block
            yield b"\r\n"
        yield self._end
