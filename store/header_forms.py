"""Headers that lie as those before them: of an image whose form is known only the values that vary are looked at.

A scanner sends hundreds of images whose headers are alike but for a few values. Where the elements of one lie is
found by the scan that trusts nobody. Of a later one the bytes between the values that vary are compared with those
that were scanned; whatever does not fit is scanned itself, so that the answer is always the one of `scan_whole`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from struct import Struct, error
from typing import Final, NamedTuple

from store.elements import LONG_VR, PIXELS, SHORT_VR, UNDEFINED, dictionary_vr
from store.part10 import (
    TAGS,
    VALUE_CAP_BYTES,
    WANTED,
    Header,
    Scan,
    header_of,
    of_another_instance,
    scan_whole,
)

MOST_FORMS: Final = 16
MOST_MISSES: Final = 64
"""After so many images in a row without a form only every so manieth is learned from: some never lie alike."""
PREFIX_AT: Final = 128
META_AT: Final = 132
PIXEL_HEAD_BYTES: Final = 12
INSTANCE: Final = TAGS["sop_instance_uid"]
TRANSFER_SYNTAX_UID: Final = 0x00020010
SHORT, LONG = Struct("<H"), Struct("<L")
TAG = Struct("<HH")


class _Element(NamedTuple):
    """Where an element lies in a file."""

    tag: int
    begin: int
    length_at: int
    """Where its length is."""
    length: Struct
    end: int
    may_vary: bool
    """Whether it holds a value that says nothing of how the others lie: no sequence, no fragments."""


@dataclass(frozen=True, kw_only=True)
class _Form:
    """How the headers of some images lie: one of them, and which of its values vary."""

    data: bytes
    elements: tuple[_Element, ...]
    varying: frozenset[int]
    """Numbers of the elements of which more than one value was met."""
    scan: Scan
    gaps: tuple[tuple[bytes, Struct, int], ...]
    """What lies before the length of each value that varies, the length's form, and the tag."""
    rest: bytes
    """What lies behind the last of them, as far as the length of the pixel data."""

    @classmethod
    def of(cls, data: bytes, elements: tuple[_Element, ...], varying: frozenset[int], found: Scan) -> _Form:
        gaps, at = [], PREFIX_AT
        for number in sorted(varying):
            element = elements[number]
            gaps.append((data[at : element.length_at], element.length, element.tag))
            at = element.end
        return cls(
            data=data,
            elements=elements,
            varying=varying,
            scan=found,
            gaps=tuple(gaps),
            rest=data[at:],
        )

    def is_like(self, other: _Form) -> bool:
        """Return whether both are in one transfer syntax and have the same elements, whatever these hold."""
        return (
            self.scan.header.transfer_syntax_uid == other.scan.header.transfer_syntax_uid
            and len(self.elements) == len(other.elements)
            and self._heads == other._heads
        )

    @property
    def _heads(self) -> list[bytes]:
        """Return tag and value representation of each element and of the pixel data."""
        heads = [self.data[element.begin : element.length_at] for element in self.elements]
        return [*heads, self.data[self.scan.begins[-1] :]]

    def read(self, data: bytes, size_bytes: int) -> Header | None:
        """Return what the header of an image of this size says that begins so; None when it does not lie so."""
        at, varied = PREFIX_AT, {}
        try:
            for alike, length, tag in self.gaps:
                if not data.startswith(alike, at):
                    return None
                at += len(alike)
                begin = at + length.size
                at = begin + length.unpack_from(data, at)[0]
                if tag in WANTED:
                    varied[tag] = data[begin:at]
        except error:
            return None
        if not data.startswith(self.rest, at) or at + len(self.rest) + PIXEL_HEAD_BYTES > len(data):
            return None
        if _is_cut(data, at + len(self.rest), size_bytes):
            return None
        if max(map(len, varied.values()), default=0) > VALUE_CAP_BYTES:
            return None
        header, values = self.scan.header, self.scan.values
        if any(value != values[tag] for tag, value in varied.items() if tag != INSTANCE):
            return header_of({**values, **varied}, header.transfer_syntax_uid)
        return of_another_instance(header, varied[INSTANCE]) if INSTANCE in varied else header


class HeaderForms:
    """Scans the headers of images that come one after the other, from whomever."""

    def __init__(self) -> None:
        self._forms: tuple[_Form, ...] = ()
        self._misses = 0

    def scan(self, path: Path, head: bytes, size_bytes: int) -> Header:
        """Return the header that `scan_whole` finds in a file of this size; refuses and raises what it does."""
        forms = self._forms
        for number, form in enumerate(forms):
            header = form.read(head, size_bytes)
            if header is not None:
                self._misses = 0
                if number:
                    self._forms = (form, *forms[:number], *forms[number + 1 :])
                return header
        found = scan_whole(path, head)
        self._misses += 1
        if self._misses < MOST_MISSES or self._misses % MOST_MISSES == 0:
            self._learn(head, found)
        return found.header

    def _learn(self, head: bytes, found: Scan) -> None:
        """Keep how this one lies; of a form that was met before, what varies besides."""
        if not found.begins or found.begins[-1] + PIXEL_HEAD_BYTES > len(head):
            return
        pixels_at = found.begins[-1]
        is_long = not found.explicit or head[pixels_at + 4 : pixels_at + 6] in LONG_VR
        if _tag(head, pixels_at) not in PIXELS or not is_long:
            return
        elements = (*_meta_elements(head, found.offset), *_elements(head, found))
        new = _Form.of(head[: pixels_at + (8 if found.explicit else 4)], elements, frozenset(), found)
        others = []
        for form in self._forms:
            if form.is_like(new):
                new = _refined(form, new)
            else:
                others.append(form)
        if all(elements[number].may_vary for number in new.varying):
            self._forms = (new, *others[: MOST_FORMS - 1])


def _is_cut(data: bytes, length_at: int, size_bytes: int) -> bool:
    """Return whether a file of this size ends before pixel data of the defined length that stands there do."""
    length: int = LONG.unpack_from(data, length_at)[0]
    return length != UNDEFINED and length_at + LONG.size + length > size_bytes


def _refined(old: _Form, new: _Form) -> _Form:
    """Return the new form, which varies where the old one did and where the two differ."""
    differs = {
        number
        for number, (one, other) in enumerate(zip(old.elements, new.elements, strict=True))
        if old.data[one.begin : one.end] != new.data[other.begin : other.end]
    }
    return _Form.of(new.data, new.elements, old.varying | differs, new.scan)


def _meta_elements(data: bytes, end: int) -> list[_Element]:
    """Return the elements of the file meta information, which was read before and ends at `end`."""
    elements, at = [], META_AT
    while at < end:
        elements.append(_explicit(data, at, None))
        at = elements[-1].end
    return elements


def _elements(data: bytes, found: Scan) -> list[_Element]:
    make = _explicit if found.explicit else _implicit
    return [make(data, begin, end) for begin, end in zip(found.begins, found.begins[1:], strict=False)]


def _explicit(data: bytes, begin: int, end: int | None) -> _Element:
    vr = data[begin + 4 : begin + 6]
    length_at, length = (begin + 6, SHORT) if vr in SHORT_VR else (begin + 8, LONG)
    size = length.unpack_from(data, length_at)[0]
    is_value = vr in SHORT_VR or (vr in LONG_VR and vr != b"SQ" and size != UNDEFINED)
    after = length_at + length.size + size if end is None else end
    tag = _tag(data, begin)
    return _Element(tag, begin, length_at, length, after, is_value and tag != TRANSFER_SYNTAX_UID)


def _implicit(data: bytes, begin: int, end: int) -> _Element:
    tag = _tag(data, begin)
    is_value = dictionary_vr(tag) != b"SQ" and LONG.unpack_from(data, begin + 4)[0] != UNDEFINED
    return _Element(tag, begin, begin + 4, LONG, end, is_value)


def _tag(data: bytes, at: int) -> int:
    group, element = TAG.unpack_from(data, at)
    return int(group) << 16 | int(element)


__all__ = ["HeaderForms"]
