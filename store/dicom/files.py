"""DICOM files on disk as headers and the place of their pixels; nothing is decoded here."""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from io import BufferedReader, BytesIO, FileIO
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.filereader import read_dataset, read_file_meta_info, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from plugins.errors import Refused
from store.dicom.headers import Found, Headers, require_shallow
from store.dicom.values import tag_of, text
from store.part10 import split

MAX_INFLATED_BYTES = 512 << 20
UID = re.compile(r"[0-9.]{1,64}")
PLAIN_UID = re.compile(rb"[0-9.]{1,64}\0?")
UIDS = ("SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID")
UID_TAGS = tuple(tag_of(keyword) for keyword in UIDS)
DICOM_SUFFIXES = {".dcm", ".dicom", ".ima"}
COPIED_GROUPS = (0x0008, 0x0010, 0x0020)
PIXEL_TAGS = {0x7FE00008: "float", 0x7FE00009: "double", 0x7FE00010: "integer"}


@dataclass(frozen=True, kw_only=True, eq=False)
class File:
    """One DICOM file: its header and where its pixels are."""

    path: Path
    """Where it lies."""
    header: Dataset
    """Every attribute before the pixel data."""
    transfer_syntax: str
    """Transfer Syntax UID."""
    pixel_kind: str | None
    """`integer`, `float`, `double`, or None when there is no pixel data."""
    pixel_offset: int
    """Offset of the first byte of the pixel value."""
    pixel_length: int | None
    """Length of the pixel value in bytes; None when encapsulated."""
    length: int
    """Length of the file in bytes, of `inflated` if there is any."""
    inflated: bytes | None = None
    """The data set of a deflated file, inflated; offsets count from its start."""

    @cached_property
    def sop_instance_uid(self) -> str:
        """Return the SOP Instance UID."""
        return text(self.header, "SOPInstanceUID")

    @cached_property
    def sop_class_uid(self) -> str:
        """Return the SOP Class UID."""
        return text(self.header, "SOPClassUID")

    @cached_property
    def series_instance_uid(self) -> str:
        """Return the Series Instance UID."""
        return text(self.header, "SeriesInstanceUID")

    @cached_property
    def modality(self) -> str:
        """Return the Modality."""
        return text(self.header, "Modality").upper()

    @property
    def pixel_bytes_there(self) -> int:
        """Return how many bytes of the pixel value were in the file, whatever its header says; 0 when encapsulated."""
        return max(0, min(self.pixel_length or 0, self.length - self.pixel_offset))

    def sha256(self) -> str:
        """Return the hash of the data set as it lies in the file; who wrote the file around it does not matter."""
        try:
            _, offset = split(self.path)
        except Refused:  # no preamble or no meta information
            offset = 0
        with self.path.open("rb") as file:
            file.seek(offset)
            return hashlib.file_digest(file, "sha256").hexdigest()

    def pixel_bytes(self) -> bytes:
        """Return the pixel value as it lies in the file: plain bytes, or the encapsulated items."""
        if self.inflated is not None:
            end = None if self.pixel_length is None else self.pixel_offset + self.pixel_length
            return self.inflated[self.pixel_offset : end]
        with self.path.open("rb") as file:
            file.seek(self.pixel_offset)
            # A length that lies must not decide how much memory is asked for.
            left = max(0, os.fstat(file.fileno()).st_size - self.pixel_offset)
            return file.read(left if self.pixel_length is None else min(self.pixel_length, left))

    def read_pixels(self, first: int, into: NDArray[Any]) -> None:
        """Fill an array with the pixel value from byte `first` on. Refuses (`truncated-pixel-data`) too few bytes."""
        room = into.data.cast("B")
        with FileIO(self.path) as file:
            file.seek(self.pixel_offset + first)
            while room:
                count = file.readinto(room)
                if not count:
                    raise _truncated(self)
                room = room[count:]

    def first_fragment(self, limit: int) -> bytes:
        """Return at most `limit` bytes of the first encapsulated fragment, from its beginning."""
        with self.path.open("rb") as file:
            file.seek(self.pixel_offset)
            offsets = int.from_bytes(file.read(8)[4:], "little")
            file.seek(offsets, os.SEEK_CUR)
            return file.read(min(limit, int.from_bytes(file.read(8)[4:], "little")))

    def pixel_frames(self, frames: int) -> list[bytes]:
        """Return the encapsulated frames. Refuses (`truncated-pixel-data`) when fewer are found than stated."""
        data = self.pixel_bytes()
        if not _has_whole_items(data):
            raise _truncated(self)
        try:
            found = list(generate_frames(data, number_of_frames=frames))
        except Exception as error:
            raise _truncated(self) from error
        if len(found) < frames or any(not part for part in found):
            raise _truncated(self)
        return found


def _has_whole_items(data: bytes) -> bool:
    """Tell whether every item of encapsulated pixel data is as long as it says."""
    at = 0
    while data[at : at + 4] == b"\xfe\xff\x00\xe0":
        at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
    return 0 < at <= len(data)


def _truncated(file: File) -> Refused:
    return Refused(
        "truncated-pixel-data",
        f"the pixel data of instance {file.sop_instance_uid} end before the image does; send it again",
    )


def read_file(path: Path, headers: Headers | None = None) -> File | None:
    """Return the file's header and the place of its pixels; None when it is not a DICOM file.

    `headers` knows what other files of the study said, which makes reading many files of one series fast.
    Refuses (`unreadable-file`) what is named or begins like DICOM and cannot be read.
    """
    try:
        with FileIO(path) as unbuffered:
            found = (headers or Headers()).read(unbuffered)
            if found is not None and _is_sound(found):
                return _sound_file(path, found, os.fstat(unbuffered.fileno()).st_size)
            file = BufferedReader(unbuffered)
            file.seek(0)
            if not _looks_like_dicom(file):
                if path.suffix.lower() in DICOM_SUFFIXES:
                    sentence = (
                        f"{path.name} is named like a DICOM file and is none; send it again or remove it"
                    )
                    raise Refused("unreadable-file", sentence)
                return None
            return _read(path, file)
    except Refused:
        raise
    except Exception as error:  # pydicom raises at least nine kinds of error on damaged files
        if isinstance(error, OSError) and error.strerror:
            sentence = f"{path} cannot be read: {error.strerror}"
            raise Refused("unreadable-file", sentence, where=str(path)) from error
        raise _unreadable(path, type(error).__name__) from error


def _unreadable(path: Path, why: str) -> Refused:
    return Refused(
        "unreadable-file", f"{path.name} begins like a DICOM file but cannot be read ({why}); send it again"
    )


def _looks_like_dicom(file: BinaryIO) -> bool:
    """Tell a DICOM file by its mark, or by its first tag where preamble and meta information are missing."""
    start = file.read(132)
    file.seek(0)
    if start[128:] == b"DICM":
        return True
    first = int.from_bytes(start[:2], "little"), int.from_bytes(start[2:4], "little")
    return len(start) == 132 and first in {
        (0x0002, 0x0000),
        (0x0002, 0x0001),
        (0x0002, 0x0002),
        *((0x0008, e) for e in (0, 1, 5, 8, 0x12, 0x16, 0x18)),
    }


def _read(path: Path, file: BinaryIO) -> File:
    if _is_deflated(file):
        return _read_deflated(path, file)
    length = os.fstat(file.fileno()).st_size
    header = dcmread(file, stop_before_pixels=True, force=True)
    if not text(header, "SOPInstanceUID") or not text(header, "SOPClassUID"):
        if "DirectoryRecordSequence" in header:
            return File(
                path=path,
                header=header,
                transfer_syntax="",
                pixel_kind=None,
                pixel_offset=0,
                pixel_length=0,
                length=length,
            )
        raise _unreadable(path, "it has no SOP Instance UID")
    require_shallow(header)
    _require_sound(path, header)
    syntax = str(header.file_meta.get("TransferSyntaxUID", "")) or _guessed_syntax(header)
    kind, offset, pixel_length = _pixel_place(file, syntax)
    return File(
        path=path,
        header=header,
        transfer_syntax=syntax,
        pixel_kind=kind,
        pixel_offset=offset,
        pixel_length=pixel_length,
        length=length,
    )


def _is_sound(found: Found) -> bool:
    """Tell whether the UIDs are such; who is not sure asks `_require_sound`."""
    elements = found.header._dict
    return all(
        (raw := elements.get(tag)) is not None
        and raw.VR in (None, "UI")
        and PLAIN_UID.fullmatch(raw.value or b"") is not None
        for tag in UID_TAGS
    )


def _sound_file(path: Path, found: Found, length: int) -> File:
    return File(
        path=path,
        header=found.header,
        transfer_syntax=found.transfer_syntax,
        pixel_kind=PIXEL_TAGS[found.pixel_tag],
        pixel_offset=found.pixel_offset,
        pixel_length=found.pixel_length,
        length=length,
    )


def _require_sound(path: Path, header: Dataset) -> None:
    """Refuse (`unreadable-file`) UIDs that are none, and bytes in the place of a value representation.

    Results take these over: what cannot be copied is better refused here than half way through writing.
    """
    for keyword in UIDS:
        if UID.fullmatch(str(header.get(keyword, ""))) is None:
            raise _unreadable(path, f"its {keyword} is not a UID")
    for tag in list(header.keys()):
        if tag.group in COPIED_GROUPS:
            with suppress(ValueError, TypeError, OverflowError):  # a bad value is for who needs it
                header[tag]


def _guessed_syntax(header: Dataset) -> str:
    implicit, little = header.original_encoding
    if implicit:
        return str(ImplicitVRLittleEndian)
    return "1.2.840.10008.1.2.1" if little else str(ExplicitVRBigEndian)


def _pixel_place(file: BinaryIO, syntax: str) -> tuple[str | None, int, int | None]:
    """Return kind, offset and length (None: encapsulated) of the pixel element at which the reader stopped."""
    order = "big" if syntax == ExplicitVRBigEndian else "little"
    head = file.read(12)
    if len(head) < 8:
        return None, 0, 0
    tag = int.from_bytes(head[:2], order) << 16 | int.from_bytes(head[2:4], order)  # type: ignore[arg-type]
    if tag not in PIXEL_TAGS:
        return None, 0, 0
    explicit = syntax != ImplicitVRLittleEndian
    length = int.from_bytes(head[8:12] if explicit else head[4:8], order)  # type: ignore[arg-type]
    offset = file.tell() - (0 if explicit else 4)
    return PIXEL_TAGS[tag], offset, None if length == 0xFFFFFFFF else length


def _is_deflated(file: BinaryIO) -> bool:
    try:
        if not read_preamble(file, False):
            return False
        return DeflatedExplicitVRLittleEndian.encode() in file.read(1024)
    except Exception:
        return False
    finally:
        file.seek(0)


def _read_deflated(path: Path, file: BinaryIO) -> File:
    """Read a deflated file with a bound on its inflated size. Refuses (`too-large`)."""
    meta_length = _meta_length(file)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = inflater.decompress(file.read(), MAX_INFLATED_BYTES)
    if inflater.unconsumed_tail:
        instance = text(read_file_meta_info(path), "MediaStorageSOPInstanceUID")
        what = f"instance {instance}" if UID.fullmatch(instance) else path.name
        raise Refused(
            "too-large",
            f"{what} inflates to more than {MAX_INFLATED_BYTES >> 20} MiB; send it without deflate",
        )
    buffer = BytesIO(plain)
    header = Dataset(read_dataset(buffer, False, True, stop_when=lambda tag, vr, length: tag in PIXEL_TAGS))
    kind, offset, length = _pixel_place(buffer, DeflatedExplicitVRLittleEndian)
    if not text(header, "SOPInstanceUID") or meta_length <= 0:
        raise _unreadable(path, "it has no SOP Instance UID")
    return File(
        path=path,
        header=header,
        transfer_syntax=str(DeflatedExplicitVRLittleEndian),
        pixel_kind=kind,
        pixel_offset=offset,
        pixel_length=length,
        length=len(plain),
        inflated=plain,
    )


def _meta_length(file: BinaryIO) -> int:
    """Read past the meta information and return its length in bytes."""
    file.seek(132 + 8)
    length = int.from_bytes(file.read(4), "little")
    file.seek(length, os.SEEK_CUR)
    return length
