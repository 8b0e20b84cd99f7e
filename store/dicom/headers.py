"""The headers of sound little endian files, without a step for every element that was seen before.

The slices of a series say nearly everything alike. What the bytes of one element mean is found and judged once, and
all files that hold these bytes share it. A file with anything unusual in it is left to pydicom's reader (the answer
is None then). Elements, their values and what is judged of them equal what that reader and `require_shallow` give.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from io import BytesIO
from struct import Struct
from typing import BinaryIO, Final, NamedTuple

from pydicom import uid
from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element, empty_value_for_VR
from pydicom.dataset import Dataset
from pydicom.filereader import read_sequence
from pydicom.tag import BaseTag
from pydicom.values import convert_string

from plugins.errors import Refused
from store.dicom.values import implicit_vr, plain_texts, tag_of
from store.elements import LONG_VR, SHORT_VR, UNDEFINED

MAX_NESTING: Final = 64
READ_BYTES: Final = (16 << 10, 1 << 20)
"""How much of a file is read to find its pixels, and how much if that is too little."""
META_START: Final = b"DICM\x02\x00\x00\x00UL\x04\x00"
IMPLICIT: Final = str(uid.ImplicitVRLittleEndian)
SYNTAXES: Final = frozenset(
    str(u)
    for u in (
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.JPEGBaseline8Bit,
        uid.JPEGExtended12Bit,
        uid.JPEGLossless,
        uid.JPEGLosslessSV1,
        uid.JPEGLSLossless,
        uid.JPEGLSNearLossless,
        uid.JPEG2000Lossless,
        uid.JPEG2000,
        uid.HTJ2KLossless,
        uid.HTJ2KLosslessRPCL,
        uid.HTJ2K,
        uid.RLELossless,
    )
)
DEFLATED: Final = str(uid.DeflatedExplicitVRLittleEndian).encode()
TRANSFER_SYNTAX, CHARACTER_SET = 0x00020010, 0x00080005
META_TAGS, DATASET_TAGS = (0x0001FFFF, 0x00030000), (0x0007FFFF, 0x7FE00008)
"""The tags that one part may have lie between these; the second begins with the pixels."""
JUDGED_GROUPS: Final = (0x0008, 0x0010, 0x0020)
# Tags as the number that their four bytes are: the words of group and element are the wrong way round.
PIXELS: Final = frozenset({0x00087FE0, 0x00097FE0, 0x00107FE0})
ITEM, ITEM_END, SEQUENCE_END = 0xE000FFFE, 0xE00DFFFE, 0xE0DDFFFE
Elements = dict[BaseTag, DataElement | RawDataElement]
Element = tuple[int, BaseTag, RawDataElement]
_explicit_head = Struct("<L2sH").unpack_from
_implicit_head = Struct("<LL").unpack_from
_long = Struct("<L").unpack_from


class _Unusual(Exception):
    """What only pydicom's reader is to judge."""


class _Short(Exception):
    """The header goes on behind the bytes that were read."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A header, and the element behind it."""

    header: Dataset
    """Every attribute before the pixel data."""
    transfer_syntax: str
    """Transfer Syntax UID."""
    pixel_tag: int
    """The element at which the header ends."""
    pixel_offset: int
    """Offset of its value in the file."""
    pixel_length: int | None
    """Length of its value; None when undefined."""


class _Run(NamedTuple):
    """Elements that came one after another, known as a whole."""

    octets: bytes
    elements: Elements
    first: int
    last: int


@dataclass(kw_only=True)
class _Known:
    """What elements are in one encoding and one character set, by their bytes."""

    explicit: bool
    encodings: str | list[str]
    elements: dict[bytes, Element] = field(default_factory=dict)
    runs: dict[bytes, _Run] = field(default_factory=dict)

    def learn(self, key: bytes, swapped: int, length: int, begin: int) -> Element:
        """Return and keep the element that `key` is; its value begins at `begin`."""
        number = (swapped & 0xFFFF) << 16 | swapped >> 16
        tag, vr = tag_of(number), key[4:6].decode() if self.explicit else None
        value: bytes | None = key[begin : len(key) - (8 if length == UNDEFINED else 0)]
        if length == UNDEFINED:
            _require_sequence(number, vr, key[begin:], self)
            vr = "SQ"
        if not value:
            value = b"" if vr == "SQ" or empty_value_for_VR(vr, raw=True) is not None else None
        raw = RawDataElement(tag, vr, length, value, 0, not self.explicit, True)
        if vr == "SQ" or (vr is None and dictionary_has_tag(number) and dictionary_VR(number) == "SQ"):
            self._judge_sequence(raw)
        elif number >> 16 in JUDGED_GROUPS:
            self._judge_value(raw)
        self.elements[key] = found = number, tag, raw
        return found

    def _judge_sequence(self, raw: RawDataElement) -> None:
        lone = Dataset({raw.tag: raw})
        lone.set_original_encoding(not self.explicit, True, self.encodings)
        try:
            require_shallow(lone)
        except Exception as error:  # whatever it is, the reader that judges the file meets it again
            raise _Unusual from error

    def _judge_value(self, raw: RawDataElement) -> None:
        if plain_texts(raw.VR or implicit_vr(raw.tag), raw.value or b"") is not None:
            return
        try:
            convert_raw_data_element(raw, encoding=self.encodings)
        except (ValueError, TypeError, OverflowError):
            return  # a bad value is for who needs it
        except Exception as error:
            raise _Unusual from error


class _Seen:
    """The known elements that were met in a row; when the row ends it becomes a run."""

    def __init__(self) -> None:
        self.at, self.key, self.first, self.last = 0, b"", 0, 0
        self.elements: Elements = {}

    def add(self, key: bytes, found: Element, at: int) -> None:
        """Take the next known element."""
        self.last, tag, raw = found
        if not self.elements:
            self.at, self.key, self.first = at, key, self.last
        self.elements[tag] = raw

    def end(self, known: _Known, octets: bytes) -> None:
        """Keep the row, whose bytes are `octets`, and begin another."""
        if len(self.elements) > 1:
            known.runs[self.key] = _Run(octets, self.elements, self.first, self.last)
        self.elements = {}


class Headers:
    """Reads the headers of one study."""

    def __init__(self) -> None:
        self._known: dict[tuple[bool, bytes | None], _Known] = {}

    def read(self, file: BinaryIO) -> Found | None:
        """Return the header of a file that is at its first byte; None when pydicom's reader must read it."""
        start = b""
        for size in READ_BYTES:
            start += file.read(size - len(start))
            try:
                return self._read(start)
            except (_Short, struct.error):
                if len(start) < size:
                    return None
            except _Unusual:
                return None
        return None

    def _read(self, start: bytes) -> Found:
        if start[128:140] != META_START or DEFLATED in start[:1024]:
            raise _Unusual
        end = 144 + _long(start, 140)[0]
        meta: Elements = {}
        self._walk(start, 132, end, self._of(True, None), meta)
        named = meta.get(tag_of(TRANSFER_SYNTAX))
        syntax = "" if named is None else (named.value or b"").rstrip(b"\0 ").decode("ascii", "replace")
        if syntax not in SYNTAXES or start[end : end + 2] == b"\x02\x00":
            raise _Unusual
        explicit = syntax != IMPLICIT
        if explicit != (start[end + 4 : end + 6].isalpha() and start[end + 4 : end + 6].isupper()):
            raise _Unusual
        elements: Elements = {}
        at, known = self._walk(start, end, None, self._of(explicit, None), elements)
        header = Dataset(elements)
        header.set_original_encoding(not explicit, True, known.encodings)
        swapped = _long(start, at)[0]
        if explicit and start[at + 4 : at + 6] not in LONG_VR:
            raise _Unusual
        offset = at + (12 if explicit else 8)
        length = _long(start, offset - 4)[0]
        return Found(
            header=header,
            transfer_syntax=syntax,
            pixel_tag=(swapped & 0xFFFF) << 16 | swapped >> 16,
            pixel_offset=offset,
            pixel_length=None if length == UNDEFINED else length,
        )

    def _of(self, explicit: bool, character_set: bytes | None) -> _Known:
        known = self._known.get((explicit, character_set))
        if known is None:
            encodings: str | list[str] = default_encoding
            try:
                if character_set is not None:
                    encodings = convert_encodings(convert_string(character_set, True))
            except Exception as error:  # whatever it is, the reader that judges the file meets it again
                raise _Unusual from error
            known = self._known[explicit, character_set] = _Known(explicit=explicit, encodings=encodings)
        return known

    def _walk(
        self, data: bytes, at: int, end: int | None, known: _Known, into: Elements
    ) -> tuple[int, _Known]:
        """Put the elements from `at` to `end` (None: to the pixels) into a dictionary; return where they end."""
        last, below = DATASET_TAGS if end is None else META_TAGS
        seen = _Seen()
        while at != end:
            swapped, length, begin = _head(data, at, known.explicit)
            if swapped in PIXELS:
                break
            stop = begin + length if length != UNDEFINED else _end_of_sequence(data, begin, known.explicit)
            key = data[at:stop]
            run = known.runs.get(key)
            if run is not None and data.startswith(run.octets, at):
                seen.end(known, data[seen.at : at])
                number, stop, then = run.first, at + len(run.octets), run.last
                into.update(run.elements)
            else:
                found = known.elements.get(key)
                if stop > len(data):
                    raise _Short
                if found is None or found[0] == CHARACTER_SET:
                    seen.end(known, data[seen.at : at])
                    found = found or known.learn(key, swapped, length, begin - at)
                else:
                    seen.add(key, found, at)
                number, tag, raw = found
                into[tag], then = raw, number
            if number <= last or then >= below or (end is not None and stop > end):
                raise _Unusual
            at, last = stop, then
            if number == CHARACTER_SET:
                known = self._of(known.explicit, into[tag_of(number)].value or b"")
        seen.end(known, data[seen.at : at])
        return at, known


def _require_sequence(number: int, vr: str | None, value: bytes, known: _Known) -> None:
    """Raise `_Unusual` unless pydicom's reader takes these bytes for one sequence of undefined length, to the last."""
    named = dictionary_VR(number) if dictionary_has_tag(number) else "SQ"
    if (vr or named) != "SQ":
        raise _Unusual
    stream = BytesIO(value)
    try:
        read_sequence(stream, not known.explicit, True, UNDEFINED, known.encodings)
    except Exception as error:  # whatever it is, the reader that judges the file meets it again
        raise _Unusual from error
    if stream.tell() != len(value):
        raise _Unusual


def _head(data: bytes, at: int, explicit: bool) -> tuple[int, int, int]:
    """Return tag, length and begin of the value of the element at an offset."""
    if not explicit:
        swapped, length = _implicit_head(data, at)
        return swapped, length, at + 8
    swapped, vr, length = _explicit_head(data, at)
    if vr in SHORT_VR:
        return swapped, length, at + 8
    if vr not in LONG_VR:
        raise _Unusual
    return swapped, _long(data, at + 8)[0], at + 12


def _end_of_sequence(data: bytes, at: int, explicit: bool) -> int:
    """Return the offset behind a sequence of undefined length whose first item is at `at`."""
    while True:
        swapped, length = _implicit_head(data, at)
        at += 8
        if swapped == SEQUENCE_END and length == 0:
            return at
        if swapped != ITEM:
            raise _Unusual
        at = at + length if length != UNDEFINED else _end_of_item(data, at, explicit)


def _end_of_item(data: bytes, at: int, explicit: bool) -> int:
    """Return the offset behind an item of undefined length whose first element is at `at`."""
    while True:
        if _implicit_head(data, at) == (ITEM_END, 0):
            return at + 8
        _, length, begin = _head(data, at, explicit)
        at = begin + length if length != UNDEFINED else _end_of_sequence(data, begin, explicit)


def require_shallow(header: Dataset, level: int = 0) -> None:
    """Refuse (`unreadable-file`) sequences nested deeper than 64, before anyone walks into them."""
    if level > MAX_NESTING:
        raise Refused("unreadable-file", f"its sequences are nested more than {MAX_NESTING} deep")
    for tag, element in header._dict.items():
        vr = element.VR
        if vr == "SQ" or (vr is None and dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ"):
            for item in header[tag].value:
                require_shallow(item, level + 1)
