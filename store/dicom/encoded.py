"""Parts of a result as bytes: what is said many times alike is encoded once, and filled in for each time.

A report names five hundred images and measures hundreds of findings in the same words; a segmentation describes
thousands of frames. highdicom and pydicom take a millisecond for each such item. So the first one of a kind is made
and encoded by them, and a `Form` keeps its bytes with some values open. Explicit VR Little Endian; lengths are
explicit; texts are UTF-8.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from struct import pack
from typing import Any, Final, NamedTuple

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_dataset
from pydicom.tag import Tag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

ENCODING: Final = "utf_8"
TEXT: Final = frozenset({"LO", "SH", "ST", "LT", "UT", "UC", "PN"})
NUMBERS: Final = {"US": "H", "UL": "L", "FL": "f", "FD": "d"}
ITEM: Final = b"\xfe\xff\x00\xe0"


class _Open(NamedTuple):
    """A value that is filled in: its place among the values, and its element."""

    place: int
    element: DataElement


class _Nested(NamedTuple):
    """A sequence that has an open value somewhere."""

    tag: int
    items: tuple[tuple[Any, ...], ...]


class Form:
    """An item whose bytes are known but for some values."""

    def __init__(self, item: Dataset, open_: Sequence[DataElement] = ()) -> None:
        """Take the elements `open_` of an item, or of items within it, as what `fill` is given values for."""
        self.count = len(open_)
        self.is_ascii = all_ascii(item, open_)
        self._parts = _parts(item, {id(element): i for i, element in enumerate(open_)})

    def fill(self, *values: object) -> bytes:
        """Return the bytes of the item with one value for each open element; for a sequence the bytes of its items."""
        return _filled(self._parts, values)


def all_ascii(item: Dataset, without: Sequence[DataElement] = ()) -> bool:
    """Return whether every text in an item is ASCII, so that any character set holds it."""
    left_out = {id(element) for element in without}
    return all(
        str(value).isascii()
        for element in item.iterall()
        if element.VR in TEXT and id(element) not in left_out
        for value in (element.value if element.VM > 1 else [element.value])
    )


def encode(item: Dataset) -> bytes:
    """Return the bytes of an item, without its header."""
    buffer = _buffer()
    write_dataset(buffer, item, parent_encoding=ENCODING)
    return buffer.getvalue()


def put(dataset: Dataset, sequences: Mapping[str, Iterable[bytes]]) -> None:
    """Give a data set sequences of encoded items, by keyword; call it last, when the data set has its character set.

    pydicom writes them as they are, and reads them when they are looked at.
    """
    for _ in dataset:  # what a source left unconverted is in the source's encoding
        pass
    for keyword, items in sequences.items():
        tag, value = Tag(keyword), b"".join(_item(octets) for octets in items)
        dataset._dict[tag] = RawDataElement(tag, "SQ", len(value), value, 0, False, True)
    dataset.set_original_encoding(False, True, dataset._character_set)


def sequence(keyword: str, items: Iterable[bytes]) -> bytes:
    """Return the bytes of a whole sequence of encoded items."""
    value = b"".join(_item(octets) for octets in items)
    return _tag(Tag(keyword)) + b"SQ\0\0" + pack("<L", len(value)) + value


def _item(octets: bytes) -> bytes:
    return ITEM + pack("<L", len(octets)) + octets


def _tag(tag: int) -> bytes:
    return pack("<HH", tag >> 16, tag & 0xFFFF)


def _buffer() -> DicomBytesIO:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    return buffer


def _parts(item: Dataset, open_: Mapping[int, int]) -> tuple[Any, ...]:
    """Return the bytes of an item in pieces, with the open elements between them."""
    parts: list[Any] = [b""]
    for tag in sorted(item.keys()):
        element = item[tag]
        if id(element) in open_:
            parts += [_Open(open_[id(element)], element), b""]
        elif element.VR == "SQ" and any(id(inner) in open_ for inner in _all(element)):
            parts += [_Nested(int(tag), tuple(_parts(inner, open_) for inner in element.value)), b""]
        else:
            buffer = _buffer()
            write_data_element(buffer, element, [ENCODING])
            parts[-1] += buffer.getvalue()
    return tuple(part for part in parts if part != b"")


def _all(sequence_element: DataElement) -> Iterator[DataElement]:
    for item in sequence_element.value:
        yield from item.iterall()


def _filled(parts: tuple[Any, ...], values: Sequence[object]) -> bytes:
    done = []
    for part in parts:
        if isinstance(part, bytes):
            done.append(part)
        elif isinstance(part, _Open):
            done.append(_element(part.element, values[part.place]))
        else:
            inner = b"".join(_item(_filled(item, values)) for item in part.items)
            done.append(_tag(part.tag) + b"SQ\0\0" + pack("<L", len(inner)) + inner)
    return b"".join(done)


def _element(like: DataElement, value: Any) -> bytes:
    """Return the bytes of an element of the same tag and VR with another value."""
    vr = like.VR
    if vr == "SQ":
        octets = b"".join(_item(item) for item in value)
    elif vr == "UI":
        octets = value.encode("ascii")
        octets += b"\0" * (len(octets) % 2)
    elif vr in NUMBERS:
        numbers = value if isinstance(value, (list, tuple)) else [value]
        octets = pack(f"<{len(numbers)}{NUMBERS[vr]}", *numbers)
    else:
        buffer = _buffer()
        write_data_element(buffer, DataElement(like.tag, vr, value), [ENCODING])
        return buffer.getvalue()
    head = _tag(like.tag) + vr.encode()
    return (
        head
        + (b"\0\0" + pack("<L", len(octets)) if vr in EXPLICIT_VR_LENGTH_32 else pack("<H", len(octets)))
        + octets
    )
