"""Frames and large values of an object as WADO-RS gives them (PS3.18 section 8.7.3): in the encoding they came in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRBigEndian

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


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of an answer."""

    kind: str
    """Content type, with the transfer syntax of a frame."""
    content: bytes
    """What it holds."""


def read(path: Path) -> Dataset:
    """Return a whole object. Refuses `unreadable`."""
    try:
        return dcmread(path)
    except (InvalidDicomError, OSError, ValueError, KeyError, EOFError) as error:
        raise Refused("unreadable", "the object cannot be read") from error


def frame(dataset: Dataset, number: int) -> Part:
    """Return a frame, counted from 1: compressed as it is, else its pixels in little endian, packed when of one bit.

    Refuses `no-frame` and `big-endian`.
    """
    count = int(dataset.get("NumberOfFrames") or 1)
    if "PixelData" not in dataset or not 1 <= number <= count:
        raise Refused("no-frame", f"the object has no frame {number}")
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        kind = f"{IMAGES.get(syntax, OCTETS)}; transfer-syntax={syntax}"
        return Part(kind=kind, content=get_frame(dataset.PixelData, number - 1, number_of_frames=count))
    if syntax == ExplicitVRBigEndian:
        raise Refused("big-endian", "frames in big endian are not given")
    bits = dataset.Rows * dataset.Columns * dataset.get("SamplesPerPixel", 1) * dataset.BitsAllocated
    first = (number - 1) * bits
    octets = np.frombuffer(dataset.PixelData, np.uint8)[first // 8 : (first + bits + 7) // 8]
    if first % 8 or bits % 8:
        single = np.unpackbits(octets, bitorder="little")
        octets = np.packbits(single[first % 8 : first % 8 + bits], bitorder="little")
    return Part(kind=f"{OCTETS}; transfer-syntax=1.2.840.10008.1.2.1", content=octets.tobytes())


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


__all__ = ["Part", "bulk", "frame", "read"]
