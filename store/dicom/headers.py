"""The headers of sound little endian files, without a step for every element that was seen before.

The slices of a series say nearly everything alike. What the bytes of one element mean is found and judged once, and
all files that hold these bytes share it; of a file that lies as one before it only the elements that vary are looked
at. A file with anything unusual in it is left to pydicom's reader (the answer is None then). Elements, their values
and what is judged of them equal what that reader and `require_shallow` give.
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
MOST_FORMS: Final = 8
"""How many ways in which files lay are remembered: series of one study come mixed."""
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
_explicit_head = Struct("<4x2sH").unpack_from
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


@dataclass(kw_only=True)
class _Known:
    """What elements are in one encoding and one character set, by their bytes."""

    explicit: bool
    encodings: str | list[str]
    elements: dict[bytes, RawDataElement] = field(default_factory=dict)
    met: set[int] = field(default_factory=set)
    varying: set[int] = field(default_factory=set)
    """The tags of which more than one value was met."""
    forms: list[_Form] = field(default_factory=list)
    """How files lay whose elements begin in this encoding and character set, the one that fitted last first."""

    def element(self, data: bytes, at: int) -> tuple[int, RawDataElement]:
        """Return where the element from `at` ends, and the element."""
        length, begin = _head(data, at, self.explicit)
        stop = begin + length if length != UNDEFINED else _end_of_sequence(data, begin, self.explicit)
        key = data[at:stop]
        found = self.elements.get(key)
        if found is None:
            if stop > len(data):
                raise _Short
            found = self._learn(key, length, begin - at)
        return stop, found

    def _learn(self, key: bytes, length: int, begin: int) -> RawDataElement:
        """Return and keep the element that `key` is; its value begins at `begin`."""
        number = _number(key, 0)
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
        self.elements[key] = raw
        (self.varying if number in self.met else self.met).add(number)
        return raw

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


class _Form(NamedTuple):
    """How elements lay in a file: those that all files said alike, between those that vary."""

    alike: tuple[bytes, ...]
    """The bytes before each element that varies, with its tag and value representation."""
    rest: bytes
    """The bytes behind them all."""
    elements: Elements
    """All elements of that file."""
    known: _Known
    """What those that vary are found in."""

    @classmethod
    def of(cls, data: bytes, places: list[tuple[int, int, int]], elements: Elements, known: _Known) -> _Form:
        """Return how the elements lay whose tags, begins and ends are `places`; the last one is in `known`."""
        alike, at = [], places[0][1]
        for number, begin, end in places:
            if number in known.varying:
                alike.append(data[at : begin + (6 if known.explicit else 4)])
                at = end
        return cls(tuple(alike), data[at : places[-1][2]], elements.copy(), known)

    def read(self, data: bytes, at: int, end: int | None) -> tuple[int, Elements] | None:
        """Return where the elements from `at` end, and the elements; None when they do not lie so."""
        known, elements = self.known, self.elements.copy()
        before = 6 if known.explicit else 4
        for octets in self.alike:
            if not data.startswith(octets, at):
                return None
            at += len(octets) - before
            at, raw = known.element(data, at)
            elements[raw.tag] = raw
        if not data.startswith(self.rest, at):
            return None
        at += len(self.rest)
        ended = at == end if end is not None else _long(data, at)[0] in PIXELS
        return (at, elements) if ended else None


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
        _, meta, _ = self._walk(start, 132, end, self._of(True, None))
        named = meta.get(tag_of(TRANSFER_SYNTAX))
        syntax = "" if named is None else (named.value or b"").rstrip(b"\0 ").decode("ascii", "replace")
        if syntax not in SYNTAXES or start[end : end + 2] == b"\x02\x00":
            raise _Unusual
        explicit = syntax != IMPLICIT
        if explicit != (start[end + 4 : end + 6].isalpha() and start[end + 4 : end + 6].isupper()):
            raise _Unusual
        at, elements, known = self._walk(start, end, None, self._of(explicit, None))
        header = _Bare(elements)
        header.set_original_encoding(not explicit, True, known.encodings)
        header.__class__ = Dataset  # type: ignore[assignment]
        offset = at + (12 if explicit else 8)
        length = _long(start, offset - 4)[0]
        if explicit and start[at + 4 : at + 6] not in LONG_VR:
            raise _Unusual
        return Found(
            header=header,
            transfer_syntax=syntax,
            pixel_tag=_number(start, at),
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

    def _walk(self, data: bytes, at: int, end: int | None, known: _Known) -> tuple[int, Elements, _Known]:
        """Return where the elements from `at` to `end` (None: to the pixels) end, and the elements.

        With them comes what the last of them was found in.
        """
        forms = known.forms
        for i, form in enumerate(forms):
            read = form.read(data, at, end)
            if read is not None:
                if i:
                    forms.insert(0, forms.pop(i))
                return *read, form.known
        last, below = DATASET_TAGS if end is None else META_TAGS
        elements: Elements = {}
        places: list[tuple[int, int, int]] = []
        while at != end:
            if _long(data, at)[0] in PIXELS:
                break
            stop, raw = known.element(data, at)
            number = int(raw.tag)
            if number <= last or number >= below or (end is not None and stop > end):
                raise _Unusual
            elements[raw.tag] = raw
            places.append((number, at, stop))
            at, last = stop, number
            if number == CHARACTER_SET:
                known = self._of(known.explicit, raw.value or b"")
        if places:
            forms.insert(0, _Form.of(data, places, elements, known))
            del forms[MOST_FORMS:]
        return at, elements, known


class _Bare(Dataset):
    """A data set as it is made: whose attributes are set without a look at whether their names are keywords."""

    __setattr__ = object.__setattr__  # type: ignore[assignment]


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


def _number(data: bytes, at: int) -> int:
    """Return the tag of the element at an offset."""
    swapped: int = _long(data, at)[0]
    return (swapped & 0xFFFF) << 16 | swapped >> 16


def _head(data: bytes, at: int, explicit: bool) -> tuple[int, int]:
    """Return length and begin of the value of the element at an offset."""
    if not explicit:
        return _long(data, at + 4)[0], at + 8
    vr, length = _explicit_head(data, at)
    if vr in SHORT_VR:
        return length, at + 8
    if vr not in LONG_VR:
        raise _Unusual
    return _long(data, at + 8)[0], at + 12


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
        length, begin = _head(data, at, explicit)
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
