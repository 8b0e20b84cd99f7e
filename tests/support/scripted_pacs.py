"""Servers of DICOMweb that answer as they are told, and bodies in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from node.pacs import DicomWeb


def scripted(handle: Callable[[httpx.Request], httpx.Response]) -> DicomWeb:
    """Return a client of a server that is a function."""
    return DicomWeb("http://pacs/dicom-web/", client=httpx.Client(transport=httpx.MockTransport(handle)))


class Body(httpx.SyncByteStream):
    """A body that can be streamed, as over a wire."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self.content


def multipart(parts: list[bytes], boundary: str = "b0", end: bytes = b"--\r\n") -> bytes:
    """Return the body of an answer in parts."""
    head = b"\r\nContent-Type: application/dicom\r\n\r\n"
    return (
        b"".join(b"--" + boundary.encode() + head + part + b"\r\n" for part in parts)
        + b"--"
        + boundary.encode()
        + end
    )


def names(folder: Path) -> Callable[[], Path]:
    """Return what gives the next path of a folder."""
    numbers = iter(range(10**6))
    return lambda: folder / f"part{next(numbers)}"
