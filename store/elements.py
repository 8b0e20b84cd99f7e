"""The walk over the data elements of a file that nobody vouches for: iterative, bounded, without decoding.

It follows PS3.5 7.1 (elements), 7.5 (sequences and items) and A.4 (fragments). Every length is held against the
file and the enclosing item before anything is read, and only values that were asked for are read at all.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from pydicom.datadict import dictionary_VR

from plugins.errors import Refused

MAX_DEPTH = 64
MAX_ELEMENTS = 1_000_000
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
LONG_VR = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
SHORT_VR = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL"}
    | {b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)
BULK_VR = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW"})
HEAD_BYTES = 64 << 10
EXPLICIT = {order: struct.Struct(order + "HH2sH") for order in "<>"}
LENGTH = {order: struct.Struct(order + "L") for order in "<>"}


class Source:
    """The bytes of a file by position: the first ones are in memory, the others are read when they are asked for."""

    def __init__(self, path: Path | None, head: bytes = b"") -> None:
        """Take the first bytes as they are known, or read them. Raises OSError; without a path `head` is the whole."""
        self._path = path
        self._file: BinaryIO | None = None
        self.size = len(head)
        if path is not None:
            self.size = os.stat(path).st_size
            head = head or self._read(0, HEAD_BYTES)
        self.head = head

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def at(self, position: int, count: int) -> bytes:
        """Return `count` bytes from `position`, fewer at the end of the file."""
        if position + count <= len(self.head) or self._path is None:
            return self.head[position : position + count]
        return self._read(position, count)

    def _read(self, position: int, count: int) -> bytes:
        if self._file is None:
            assert self._path is not None
            self._file = self._path.open("rb")
        self._file.seek(position)
        return self._file.read(count)


class _Frame(NamedTuple):
    kind: str  # dataset, sequence or fragments
    limit: int  # nothing in here reaches beyond
    defined: bool  # ends at the limit; else at a delimiter
    explicit: bool
    order: str


@dataclass(kw_only=True)
class Walk:
    """One walk over the elements of a dataset, from its first byte to the pixel data or the end."""

    source: Source
    """The file."""
    start: int
    """Offset of the first element."""
    order: str
    """`<` for little endian, `>` for big endian."""
    cap_bytes: int
    """Longest wanted value; a longer one is refused."""
    max_depth: int = MAX_DEPTH
    """Deepest nesting of sequences."""
    begins: list[int] = field(default_factory=list)
    """Offsets of the elements of the top level that `values` has met, in order; the last is where it ended."""
    pixels_end: int = 0
    """Where the pixel data of defined length that `values` has met say that they end; 0 without any."""

    def values(self, wanted: frozenset[int]) -> dict[int, bytes]:
        """Return the raw values of the wanted tags at the top level, by tag.

        Refuses `unreadable-header` (lengths or structure that contradict themselves, a wanted value that is
        there twice or too long), `truncated` and `nested-too-deep`.
        """
        found: dict[int, bytes] = {}
        stack = [_Frame("dataset", self.source.size, True, self.is_explicit(), self.order)]
        position, depth = self.start, 0
        for _ in range(MAX_ELEMENTS):
            frame = stack[-1]
            if len(stack) == 1:
                if frame.explicit:
                    position = self._leap(position, wanted, found)
                self.begins.append(position)
            if frame.defined and position >= frame.limit:
                if len(stack) == 1:
                    return found
                depth -= stack.pop().kind == "sequence"
                continue
            tag, vr, length, position = self._header(position, frame)
            if tag in PIXELS and len(stack) == 1:
                self.pixels_end = 0 if length == UNDEFINED else position + length
                return found
            if tag in (ITEM_END, SEQUENCE_END):
                _check_delimiter(tag, frame, len(stack))
                depth -= stack.pop().kind == "sequence"
                continue
            inner = _inner(tag, vr, length, frame, position)
            if inner is not None:
                depth += inner.kind == "sequence"
                if depth > self.max_depth:
                    raise Refused(
                        "nested-too-deep", f"Sequences are nested deeper than {self.max_depth} levels."
                    )
                stack.append(inner)
                continue
            if length > frame.limit - position:
                raise _truncated()
            if tag in wanted and len(stack) == 1:
                self._take(found, tag, position, length)
            position += length
        raise Refused("unreadable-header", f"The header has more than {MAX_ELEMENTS} elements.")

    def _leap(self, position: int, wanted: frozenset[int], found: dict[int, bytes]) -> int:
        """Return where the short elements end that are whole in memory, as most are; the wanted ones are taken."""
        head, unpack = self.source.head, EXPLICIT[self.order].unpack_from
        size = len(head)
        while position + 8 <= size:
            group, element, vr, length = unpack(head, position)
            tag, after = group << 16 | element, position + 8 + length
            if vr not in SHORT_VR or after > size or group == 0xFFFE or tag in PIXELS:
                break
            if tag in wanted:
                self._take(found, tag, position + 8, length)
            self.begins.append(position)
            position = after
        return position

    def is_explicit(self) -> bool:
        """Tell from the first element what the dataset is, whatever the transfer syntax says."""
        vr = self.source.at(self.start, 6)[4:6]
        return vr in LONG_VR or vr in SHORT_VR

    def _header(self, position: int, frame: _Frame) -> tuple[int, bytes, int, int]:
        if frame.limit - position < 8:
            raise _truncated()
        head = self.source.at(position, 8)
        if len(head) < 8:
            raise _truncated()
        group, element, vr, length = EXPLICIT[frame.order].unpack(head)
        tag = group << 16 | element
        if frame.explicit and group != 0xFFFE:
            if vr in SHORT_VR:
                return tag, vr, length, position + 8
            if vr in LONG_VR:
                tail = self.source.at(position + 8, 4)
                if len(tail) < 4:
                    raise _truncated()
                return tag, vr, LENGTH[frame.order].unpack(tail)[0], position + 12
        # An unknown representation in an explicit dataset is an element that some writer left implicit.
        vr = b"" if group == 0xFFFE else dictionary_vr(tag)
        return tag, vr, LENGTH[frame.order].unpack(head[4:])[0], position + 8

    def _take(self, found: dict[int, bytes], tag: int, position: int, length: int) -> None:
        if tag in found or length > self.cap_bytes:
            name = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
            raise Refused("unreadable-header", f"Element {name} is too long or there twice.")
        found[tag] = self.source.at(position, length)


@lru_cache(maxsize=4096)
def dictionary_vr(tag: int) -> bytes:
    """Return the value representation that the dictionary gives a tag, `UN` when it gives none."""
    try:
        return dictionary_VR(tag).encode()
    except KeyError:
        return b"UN"


def _inner(tag: int, vr: bytes, length: int, frame: _Frame, position: int) -> _Frame | None:
    """Return the frame that this header opens, or None when it is a plain value."""
    limit = frame.limit if length == UNDEFINED else position + length
    if frame.kind != "dataset":
        if tag != ITEM:
            raise Refused("unreadable-header", "A sequence holds something that is not an item.")
        if frame.kind == "fragments":
            return None
        kind = "dataset"
    elif tag == ITEM:
        raise Refused("unreadable-header", "An item stands outside a sequence.")
    elif vr == b"SQ":
        kind = "sequence"
    elif length == UNDEFINED:
        kind = "fragments" if vr in BULK_VR else "sequence"
    else:
        return None
    if limit > frame.limit:
        raise _truncated()
    # PS3.5 6.2.2: an unknown representation of undefined length holds implicit little endian.
    unknown = kind == "sequence" and vr == b"UN"
    order = "<" if unknown else frame.order
    return _Frame(kind, limit, length != UNDEFINED, frame.explicit and not unknown, order)


def _check_delimiter(tag: int, frame: _Frame, depth: int) -> None:
    right = ITEM_END if frame.kind == "dataset" else SEQUENCE_END
    if frame.defined or tag != right or depth == 1:
        raise Refused("unreadable-header", "A delimiter stands where no item or sequence ends.")


def _truncated() -> Refused:
    return Refused("truncated", "An element reaches beyond the end of the file or of its item.")
