"""DICOM files as bytes: the file header we write, and the few values we read before anything decodes.

Every file is treated as hostile: the scan reads no pixel data, allocates no more than a small cap whatever length
the file declares, and ends in a `Header` or in Refused (Unavailable when the disk fails), never in anything else.
"""

from __future__ import annotations

import re
import shutil
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from plugins.errors import Refused, Unavailable
from store.charset import base_encoding, decode_text
from store.elements import LONG_VR, SHORT_VR, Source, Walk

UID = re.compile(rb"[0-9]+(?:\.[0-9]+)*")
IMPLEMENTATION_CLASS_UID = "2.25.179027739462798264392331652416545824982"
IMPLEMENTATION_VERSION_NAME = "NADIR"
MANUFACTURER = "Nadir"
OWN_MODALITIES = frozenset({"SEG", "SR", "DOC", "OT"})
"""Of SEG, SR, encapsulated PDF and key images."""
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
VALUE_CAP_BYTES = 4096
KEY_CAP_BYTES = 256
META_CAP_BYTES = 1 << 20
INFLATED_CAP_BYTES = 4 << 20

TAGS = {
    "specific_character_set": 0x00080005,
    "sop_class_uid": 0x00080016,
    "sop_instance_uid": 0x00080018,
    "study_date": 0x00080020,
    "study_time": 0x00080030,
    "accession_number": 0x00080050,
    "modality": 0x00080060,
    "manufacturer": 0x00080070,
    "study_description": 0x00081030,
    "series_description": 0x0008103E,
    "manufacturer_model_name": 0x00081090,
    "patient_name": 0x00100010,
    "patient_id": 0x00100020,
    "issuer": 0x00100021,
    "patient_birth_date": 0x00100030,
    "patient_sex": 0x00100040,
    "study_instance_uid": 0x0020000D,
    "series_instance_uid": 0x0020000E,
    "series_number": 0x00200011,
    "frame_of_reference_uid": 0x00200052,
}
WANTED = frozenset(TAGS.values())
TEXTS = (
    "patient_id",
    "issuer",
    "patient_name",
    "patient_sex",
    "modality",
    "study_description",
    "accession_number",
    "series_description",
    "manufacturer",
    "manufacturer_model_name",
)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the store needs to know of an instance; texts are as received, without padding or control characters."""

    sop_instance_uid: str
    """SOP Instance UID of the dataset."""
    sop_class_uid: str
    """SOP Class UID of the dataset."""
    study_instance_uid: str
    """Study Instance UID."""
    series_instance_uid: str
    """Series Instance UID."""
    transfer_syntax_uid: str
    """Transfer syntax of the file."""
    patient_id: str = ""
    """PatientID; empty when there is none."""
    issuer: str = ""
    """IssuerOfPatientID; empty when there is none."""
    patient_name: str = ""
    """PatientName; nothing joins on it."""
    patient_sex: str = ""
    """PatientSex."""
    patient_birth_date: date | None = None
    """PatientBirthDate, None when absent or no date."""
    modality: str = ""
    """Modality."""
    study_date: date | None = None
    """StudyDate, None when absent or no date."""
    study_time: str = ""
    """StudyTime as HHMMSS or less of it, empty when absent or no time; fractions of a second are left out."""
    study_description: str = ""
    """StudyDescription."""
    accession_number: str = ""
    """AccessionNumber."""
    series_number: int | None = None
    """SeriesNumber, None when absent or no number."""
    series_description: str = ""
    """SeriesDescription."""
    frame_of_reference_uid: str = ""
    """FrameOfReferenceUID; empty when absent or no UID."""
    manufacturer: str = ""
    """Manufacturer."""
    manufacturer_model_name: str = ""
    """ManufacturerModelName."""
    own: bool = False
    """True when this software wrote it: a result that came back."""


class Scan(NamedTuple):
    """What a scan found, and where."""

    header: Header
    values: dict[int, bytes]
    """What the wanted elements hold, by tag."""
    offset: int
    """Where the dataset begins."""
    explicit: bool
    """Whether its elements say what they are."""
    begins: list[int]
    """Offsets of its elements, the last that of the pixel data or the end; empty unless it is little endian."""
    is_cut: bool
    """Whether the file ends within pixel data of defined length; not seen behind the cap of a deflated one."""


def write_preamble(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Return preamble, prefix and file meta information; equal arguments give equal bytes.

    The preamble is zero and no AE title is written (PS3.10 7.1). Refuses `invalid-uid`.
    """
    before, after = _around_instance_uid(sop_class_uid, transfer_syntax_uid)
    instance = _checked_uid(sop_instance_uid.encode("ascii", "replace"), "SOP Instance UID")
    body = before + _element(0x0003, b"UI", instance) + after
    return bytes(128) + b"DICM" + _element(0x0000, b"UL", struct.pack("<L", len(body))) + body


def split(path: Path) -> tuple[Dataset, int]:
    """Return the file meta information and the offset at which the dataset begins.

    Values are strings without padding (bytes where they are binary). Refuses `not-part10` and `unreadable-header`.
    """
    with _open(path) as source:
        elements, offset = _read_meta(source)
    meta = Dataset()
    for element, (vr, value) in elements.items():
        # A value is kept as it is; validating it would warn, and a warning would show it in the log.
        meta.add(DataElement(0x00020000 | element, vr, value, validation_mode=config.IGNORE))
    return meta, offset


def scan_header(path: Path, head: bytes = b"") -> Header:
    """Return what the header of a Part 10 file says, without decoding anything.

    `head` is the beginning of the file when it is known; then the file itself is read only for what lies behind it.
    The UIDs are the dataset's; whoever was promised others (a C-STORE command) compares them.
    Refuses `not-part10`, `no-transfer-syntax`, `unreadable-header`, `truncated`, `nested-too-deep`, `missing-uid`,
    `invalid-uid`, `deflated-too-large`.
    Raises Unavailable when the file cannot be read.
    """
    return scan(path, head).header


def scan(path: Path, head: bytes = b"") -> Scan:
    """Return what the header of a Part 10 file says, and where; else like `scan_header`."""
    with _open(path, head) as source:
        return _scan(source, *_read_meta(source))


def scan_whole(path: Path, head: bytes = b"") -> Scan:
    """Return what `scan` returns, of an object that comes; besides refuses one that ends within its pixel data."""
    found = scan(path, head)
    if found.is_cut:
        raise Refused("truncated", "The file ends within its pixel data; send it again as a whole.")
    return found


def normalise(path_in: Path, path_out: Path) -> Header:
    """Write any Part 10 file as ours and return its header: our preamble and meta, the dataset's bytes verbatim.

    Where file meta and dataset disagree about the instance, the dataset is believed. Refuses what `scan_header`
    refuses. Raises Unavailable when a file cannot be read or written.
    """
    with _open(path_in) as source:
        meta, offset = _read_meta(source)
        header = _scan(source, meta, offset).header
        preamble = write_preamble(header.sop_class_uid, header.sop_instance_uid, header.transfer_syntax_uid)
        try:
            with path_in.open("rb") as file, path_out.open("wb") as out:
                file.seek(offset)
                out.write(preamble)
                shutil.copyfileobj(file, out, 1 << 20)
        except OSError as error:
            path_out.unlink(missing_ok=True)
            raise Unavailable("The file cannot be written; free or mend the disk.") from error
    return header


@contextmanager
def _open(path: Path, head: bytes = b"") -> Iterator[Source]:
    try:
        with Source(path, head) as source:
            yield source
    except OSError as error:
        raise Unavailable(f"The file cannot be read ({type(error).__name__}); try again.") from error


@lru_cache(maxsize=256)
def _around_instance_uid(sop_class_uid: str, transfer_syntax_uid: str) -> tuple[bytes, bytes]:
    """Return the elements before and behind the SOP Instance UID: the same for every image of a series."""
    sop_class = _checked_uid(sop_class_uid.encode("ascii", "replace"), "SOP Class UID")
    syntax = _checked_uid(transfer_syntax_uid.encode("ascii", "replace"), "Transfer Syntax UID")
    return (
        _element(0x0001, b"OB", b"\x00\x01") + _element(0x0002, b"UI", sop_class),
        _element(0x0010, b"UI", syntax)
        + _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode())
        + _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode()),
    )


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    value += (b"\0" if vr in (b"UI", b"OB") else b" ") * (len(value) % 2)
    head = struct.pack("<HH", 0x0002, element) + vr
    return (
        head + (struct.pack("<HL", 0, len(value)) if vr in LONG_VR else struct.pack("<H", len(value))) + value
    )


def _read_meta(source: Source) -> tuple[dict[int, tuple[str, object]], int]:
    """Return (VR, value) by element number, and the offset at which the dataset begins."""
    if source.at(128, 4) != b"DICM":
        raise Refused("not-part10", "The file has no DICM prefix; it is not a DICOM Part 10 file.")
    meta: dict[int, tuple[str, object]] = {}
    position = 132
    while True:
        head = source.at(position, 12)
        if len(head) < 8 or head[:2] != b"\x02\x00":
            return meta, position
        vr = head[4:6]
        if vr in LONG_VR and len(head) == 12:
            length, position = struct.unpack("<L", head[8:])[0], position + 12
        elif vr in SHORT_VR:
            length, position = struct.unpack("<H", head[6:8])[0], position + 8
        else:
            raise Refused("unreadable-header", "The file meta information is not explicit little endian.")
        if position + length > META_CAP_BYTES:
            raise Refused("unreadable-header", "The file meta information is too long.")
        value = source.at(position, length)
        if len(value) < length:
            raise Refused("truncated", "The file ends within its meta information.")
        element = struct.unpack("<H", head[2:4])[0]
        if element in meta:
            raise Refused("unreadable-header", "The file meta information says the same thing twice.")
        meta[element] = vr.decode(), _meta_value(vr, value)
        position += length


def _meta_value(vr: bytes, value: bytes) -> object:
    if vr in (b"UI", b"AE", b"SH"):
        return decode_text(value.rstrip(b"\0"), "ascii")
    return int.from_bytes(value[:4], "little") if vr == b"UL" else value


def _scan(source: Source, meta: dict[int, tuple[str, object]], offset: int) -> Scan:
    _, syntax = meta.get(0x0010, ("UI", ""))
    if not isinstance(syntax, str) or not syntax:
        raise Refused("no-transfer-syntax", "The file does not say its transfer syntax.")
    _checked_uid(syntax.encode("ascii", "replace"), "Transfer Syntax UID")
    if syntax in DEFLATED:
        values, is_cut = _inflated_values(source, offset)
        return Scan(header_of(values, syntax), values, offset, True, [], is_cut)
    walk = _walk(source, offset, ">" if syntax == EXPLICIT_BIG else "<")
    values = walk.values(WANTED)
    begins = [] if syntax == EXPLICIT_BIG else walk.begins
    is_cut = walk.pixels_end > source.size
    return Scan(header_of(values, syntax), values, offset, walk.is_explicit(), begins, is_cut)


def _walk(source: Source, start: int, order: str) -> Walk:
    return Walk(source=source, start=start, order=order, cap_bytes=VALUE_CAP_BYTES)


def _inflated_values(source: Source, offset: int) -> tuple[dict[int, bytes], bool]:
    """Scan a deflated dataset (PS3.5 A.5), and return whether it is cut; no more than the cap is ever inflated."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    packed = source.at(offset, min(source.size - offset, INFLATED_CAP_BYTES))
    try:
        data = inflater.decompress(packed, INFLATED_CAP_BYTES)
    except zlib.error as error:
        raise Refused("unreadable-header", "The deflated dataset cannot be inflated.") from error
    walk = _walk(Source(None, data), 0, "<")
    try:
        values = walk.values(WANTED)
    except Refused as refused:
        if refused.code == "truncated" and len(data) >= INFLATED_CAP_BYTES:
            raise Refused(
                "deflated-too-large", "The header of the deflated dataset is too large."
            ) from refused
        raise
    is_all = max(len(data), source.size - offset) < INFLATED_CAP_BYTES
    return values, is_all and walk.pixels_end > len(data)


def header_of(values: Mapping[int, bytes], syntax: str) -> Header:
    """Return what the values of the wanted elements say. Refuses what `scan_header` refuses of values."""
    encoding = base_encoding(values.get(TAGS["specific_character_set"], b""))
    raw = {name: values.get(tag, b"") for name, tag in TAGS.items()}
    for name in ("patient_id", "issuer"):
        if len(raw[name]) > KEY_CAP_BYTES:
            raise Refused(
                "unreadable-header", f"The {name.replace('_', ' ')} is longer than {KEY_CAP_BYTES} bytes."
            )
    text = {name: _known_text(value, encoding) for name, value in raw.items()}
    # The delimiter of an empty last component group is not part of the name (PS3.5 6.2.1.1).
    text["patient_name"] = text["patient_name"].rstrip("=")
    uids = {
        name: _checked_uid(raw[name], name.replace("_", " ")).decode()
        for name in ("sop_class_uid", "sop_instance_uid", "study_instance_uid", "series_instance_uid")
    }
    frame = raw["frame_of_reference_uid"].strip(b"\0 ")
    return Header(
        **uids,
        transfer_syntax_uid=syntax,
        **{name: text[name] for name in TEXTS},
        patient_birth_date=_date(text["patient_birth_date"]),
        study_date=_date(text["study_date"]),
        study_time=_time(text["study_time"]),
        series_number=_number(text["series_number"]),
        frame_of_reference_uid=frame.decode() if len(frame) <= 64 and UID.fullmatch(frame) else "",
        own=text["manufacturer"] == MANUFACTURER and text["modality"] in OWN_MODALITIES,
    )


def of_another_instance(header: Header, sop_instance_uid: bytes) -> Header:
    """Return the header with the value of another SOP Instance UID. Refuses `missing-uid` and `invalid-uid`."""
    return replace(header, sop_instance_uid=_checked_uid(sop_instance_uid, "sop instance uid").decode())


@lru_cache(maxsize=512)
def _known_text(value: bytes, encoding: str) -> str:
    """Return the text of a value of at most `VALUE_CAP_BYTES`: the images of a series say nearly everything alike."""
    return decode_text(value, encoding)


def _checked_uid(value: bytes, name: str) -> bytes:
    value = value.strip(b"\0 ")
    if not value:
        raise Refused("missing-uid", f"The {name} is missing.")
    if len(value) > 64 or UID.fullmatch(value) is None:
        raise Refused("invalid-uid", f"The {name} is not a UID.")
    return value


def _date(text: str) -> date | None:
    match = re.fullmatch(r"([0-9]{4})[.]?([0-9]{2})[.]?([0-9]{2})", text)
    try:
        return date(int(match[1]), int(match[2]), int(match[3])) if match else None
    except ValueError:
        return None


def _time(text: str) -> str:
    match = re.fullmatch(r"([0-2][0-9])(?::?([0-5][0-9])(?::?([0-6][0-9])(?:\.[0-9]{1,6})?)?)?", text)
    return "".join(part or "" for part in match.groups()) if match else ""


def _number(text: str) -> int | None:
    # Within 32 bits, because the column is.
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,10}", text) and abs(int(text)) < 1 << 31 else None


__all__ = [
    "Header",
    "Scan",
    "header_of",
    "normalise",
    "of_another_instance",
    "scan",
    "scan_header",
    "scan_whole",
    "split",
    "write_preamble",
]
