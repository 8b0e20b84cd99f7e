"""Frames and large values of an object as WADO-RS gives them (PS3.18 section 8.7.3): in the encoding they came in."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from plugins.errors import Refused

OCTETS = "application/octet-stream"
IMAGES: Mapping[str, str] = {
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.51": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
    "1.2.840.10008.1.2.4.201": "image/jphc",
    "1.2.840.10008.1.2.4.202": "image/jphc",
    "1.2.840.10008.1.2.4.203": "image/jphc",
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}
"""Media type of a compressed frame, by Transfer Syntax UID (PS3.18 table 8.7.3-5)."""

LAYOUT = (
    "Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "NumberOfFrames", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)  # fmt: skip
PIXEL_DATA = frozenset({b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10"})
WHOLE = frozenset({DeflatedExplicitVRLittleEndian})
"""Transfer syntaxes in which nothing can be found before all is read."""
UNREADABLE = (OSError, ValueError, KeyError, EOFError, TypeError, OverflowError)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of an answer."""

    kind: str
    """Content type, with the transfer syntax of a frame."""
    content: bytes
    """What it holds."""


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Where the frames of an object lie in its file."""

    path: Path
    """The file."""
    transfer_syntax: str
    """Transfer Syntax UID."""
    frames: int
    """How many there are; 0 of an object without pixels."""
    frame_bits: int
    """How long one is, uncompressed."""
    offset: int
    """Offset of the first byte of the pixel value."""
    extended: tuple[bytes, bytes] | None
    """Extended Offset Table and its lengths (PS3.3 C.7.6.3.1.8), as they are encoded."""

    @property
    def given_as(self) -> tuple[str, str]:
        """Return the media type and the Transfer Syntax UID that a frame is given in."""
        if not UID(self.transfer_syntax).is_encapsulated:
            return OCTETS, ExplicitVRLittleEndian
        return IMAGES.get(self.transfer_syntax, OCTETS), self.transfer_syntax


def read(path: Path) -> Dataset:
    """Return a whole object. Refuses `unreadable`."""
    try:
        return dcmread(path)
    except (InvalidDicomError, OSError, ValueError, KeyError, EOFError) as error:
        raise Refused("unreadable", "the object cannot be read") from error


def syntax_of(path: Path) -> str:
    """Return the Transfer Syntax UID of a file. Refuses `unreadable`."""
    try:
        return str(read_file_meta_info(path).TransferSyntaxUID)
    except (InvalidDicomError, AttributeError, *UNREADABLE) as error:
        raise Refused("unreadable", "the object cannot be read") from error


def pixels(path: Path) -> Pixels:
    """Return where the frames of an object lie; nothing of them is read. Refuses `unreadable` and `no-frame`."""
    try:
        with path.open("rb") as file:
            header = dcmread(file, stop_before_pixels=True, specific_tags=list(LAYOUT))
            syntax = header.file_meta.TransferSyntaxUID
            is_explicit = syntax != ImplicitVRLittleEndian
            tag = file.read(4)
            offset = file.tell() + (8 if is_explicit else 4)
        octets = header.get("Rows", 0) * header.get("Columns", 0) * header.get("SamplesPerPixel", 1)
        return Pixels(
            path=path,
            transfer_syntax=syntax,
            frames=int(header.get("NumberOfFrames") or 1) if syntax in WHOLE or tag in PIXEL_DATA else 0,
            frame_bits=octets * header.get("BitsAllocated", 0),
            offset=offset,
            extended=_extended(header),
        )
    except (InvalidDicomError, AttributeError, *UNREADABLE) as error:
        raise Refused("unreadable", "the object cannot be read") from error


def _extended(header: Dataset) -> tuple[bytes, bytes] | None:
    offsets, lengths = header.get("ExtendedOffsetTable"), header.get("ExtendedOffsetTableLengths")
    return (offsets, lengths) if offsets and lengths else None


def frame(pixels: Pixels, number: int) -> Part:
    """Return a frame, counted from 1: compressed as it is, else its pixels in little endian, packed when of one bit.

    Only that frame is read, save of a deflated object, which is read whole; of compressed frames without any offset
    table the lengths of those before it too. Refuses `no-frame`, `big-endian` and `unreadable` (fewer bytes than told).
    """
    if not 1 <= number <= pixels.frames:
        raise Refused("no-frame", f"the object has no frame {number}")
    if pixels.transfer_syntax == ExplicitVRBigEndian:
        raise Refused("big-endian", "frames in big endian are not given")
    kind = "{}; transfer-syntax={}".format(*pixels.given_as)
    if not UID(pixels.transfer_syntax).is_encapsulated:
        return Part(kind=kind, content=_native(pixels, number))
    try:
        with pixels.path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as view:
            view.seek(pixels.offset)
            content = get_frame(
                view,  # type: ignore[arg-type]  # its seek answers nothing, which nobody asks for
                number - 1,
                extended_offsets=pixels.extended,
                number_of_frames=pixels.frames,
            )
    except (struct.error, *UNREADABLE) as error:
        raise Refused("unreadable", f"frame {number} cannot be read") from error
    return Part(kind=kind, content=content)


def _native(pixels: Pixels, number: int) -> bytes:
    bits = pixels.frame_bits
    first, last = (number - 1) * bits, number * bits
    begin, end = first // 8, (last + 7) // 8
    if pixels.transfer_syntax in WHOLE:
        content: bytes = read(pixels.path).get("PixelData", b"")[begin:end]
    else:
        with pixels.path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as view:
            content = view[pixels.offset + begin : pixels.offset + end]
    if not content or len(content) < end - begin:
        raise Refused("unreadable", f"the object ends before its frame {number} does")
    if first % 8 or bits % 8:
        single = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")
        content = np.packbits(single[first % 8 : first % 8 + bits], bitorder="little").tobytes()
    return content


def bulk(dataset: Dataset, tag: str) -> Part:
    """Return the value of an element named as `00420011`, a document with its type. Refuses `no-bulk-data`."""
    try:
        element = dataset[int(tag, 16)]
    except (KeyError, ValueError, OverflowError):
        raise Refused("no-bulk-data", "the object has no such value") from None
    if not isinstance(element.value, bytes):
        raise Refused("no-bulk-data", "this value is told by the metadata")
    kind = OCTETS
    if (
        element.keyword == "EncapsulatedDocument"
        and dataset.get("MIMETypeOfEncapsulatedDocument") == "application/pdf"
    ):
        kind = "application/pdf"
    return Part(kind=kind, content=element.value)


__all__ = ["OCTETS", "Part", "Pixels", "bulk", "frame", "pixels", "read", "syntax_of"]
