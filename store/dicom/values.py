"""Reading attributes that a stranger wrote: a value, or None where there is none that can be used.

pydicom converts a value when it is first touched and raises many kinds of error then; a damaged attribute must
not stop the reading of the others, so it counts as absent here. This is the one place where such errors end.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, TypeVar

from pydicom import config
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.tag import BaseTag, Tag

from plugins.code_fault import LONGEST, code_fault

Told = TypeVar("Told")
RAW: Final = frozenset({RawDataElement, type(None)})
NUMBER: Final = rb"[+-]?[0-9]{1,9}(?:\.[0-9]{1,14})?"
WORDS: Final = rb"[A-Za-z0-9 .,:/_+-]*\0?"
PLAIN: Final = {
    "CS": re.compile(rb"[A-Z0-9_ \\]*\0?"),
    "DA": re.compile(rb"[0-9.]*[\0 ]?"),
    "DS": re.compile(rb"%b(?:\\%b)* ?" % (NUMBER, NUMBER)),
    "IS": re.compile(rb"[+-]?[0-9]{1,9} ?"),
    "LO": re.compile(WORDS),
    "PN": re.compile(rb"[A-Za-z0-9.-]+(?:\^[A-Za-z0-9.-]+){0,4} ?"),
    "SH": re.compile(WORDS),
    "TM": re.compile(rb"[0-9.]*[\0 ]?"),
    "UI": re.compile(rb"[0-9.]*\0?"),
}
"""Values that mean the same in every character set and to every reader, by value representation."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom from warning about foreign values: its warnings quote them, and they may name the patient."""
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        yield


@lru_cache(maxsize=1 << 14)
def tag_of(name: str | int | tuple[int, int]) -> BaseTag:
    """Return the tag of a keyword or number, the same object every time: finding it in a data set is then cheap."""
    tag = Tag(name)
    return tag if isinstance(name, int) else tag_of(int(tag))


def has(dataset: Dataset, keyword: str) -> bool:
    """Return whether an attribute is there, also when its value is empty."""
    return tag_of(keyword) in dataset._dict


def _plain(dataset: Dataset, keyword: str | tuple[int, int]) -> tuple[str, ...] | None:
    """Return the values of an attribute as text without converting it; None when only pydicom can tell them."""
    tag = tag_of(keyword)
    raw = dataset._dict.get(tag)
    if raw is None:
        return ()
    if type(raw) is not RawDataElement or not raw.is_little_endian:
        return None
    return plain_texts(raw.VR or implicit_vr(tag), raw.value or b"")


@lru_cache(maxsize=1 << 12)
def implicit_vr(tag: BaseTag) -> str:
    """Return the value representation that the dictionary gives a tag, `` when it has none."""
    return dictionary_VR(tag) if dictionary_has_tag(tag) else ""


@lru_cache(maxsize=1 << 12)
def plain_texts(vr: str, value: bytes) -> tuple[str, ...] | None:
    """Return the values that little endian bytes mean, as stripped text; None when only pydicom can tell."""
    if vr == "US" and len(value) == 2:
        return (str(int.from_bytes(value, "little")),)
    pattern = PLAIN.get(vr)
    if pattern is None or pattern.fullmatch(value) is None:
        return None
    found = value.decode("ascii").rstrip("\0 ")
    return tuple(part.strip(" ") for part in found.split("\\")) if found else ()


def told_once(*keywords: str) -> Callable[[Callable[[Dataset], Told]], Callable[[Dataset], Told]]:
    """Return a decorator for what is told of these attributes alone: once for all data sets that hold the same bytes.

    What tells is given a data set with no others, and must not depend on a character set.
    """
    tags = tuple(tag_of(keyword) for keyword in keywords)

    def decorate(tell: Callable[[Dataset], Told]) -> Callable[[Dataset], Told]:
        @lru_cache(maxsize=1 << 8)
        def once(raws: tuple[RawDataElement | None, ...]) -> Told:
            return tell(Dataset({raw.tag: raw for raw in raws if raw is not None}))

        def told(dataset: Dataset) -> Told:
            found = tuple(map(dataset._dict.get, tags))
            return once(found) if RAW.issuperset(map(type, found)) else tell(dataset)

        return told

    return decorate


def value(dataset: Dataset, keyword: str | tuple[int, int]) -> Any:
    """Return the value of an attribute, or None when it is absent, empty or cannot be converted."""
    tag = tag_of(keyword)
    if tag not in dataset._dict:
        return None
    try:
        element = dataset[tag].value
        return None if element is None or (not isinstance(element, (int, float)) and not element) else element
    except Exception:
        return None


def text(dataset: Dataset, keyword: str | tuple[int, int]) -> str:
    """Return the value as stripped text, `` when absent; the first value of several."""
    plain = _plain(dataset, keyword)
    if plain is not None:
        return plain[0] if plain else ""
    found = value(dataset, keyword)
    if found is None:
        return ""
    if isinstance(found, bytes):
        return found.decode("ascii", "replace").strip("\0 ")
    if not isinstance(found, str) and isinstance(found, Sequence):
        found = found[0] if found else ""
    return str(found).strip("\0 ")


def texts(dataset: Dataset, keyword: str | tuple[int, int]) -> tuple[str, ...]:
    """Return every value as stripped text."""
    plain = _plain(dataset, keyword)
    if plain is not None:
        return plain
    found = value(dataset, keyword)
    if found is None:
        return ()
    if isinstance(found, str) or not isinstance(found, Sequence):
        return (str(found).strip(),)
    return tuple(str(part).strip() for part in found)


def number(dataset: Dataset, keyword: str | tuple[int, int]) -> float | None:
    """Return the (first) value as a float, which may be NaN when the file says so; None when there is none."""
    try:
        return float(text(dataset, keyword))
    except ValueError:
        return None


def integer(dataset: Dataset, keyword: str) -> int | None:
    """Return the value as an int, or None when it is absent or not whole."""
    found = number(dataset, keyword)
    return int(found) if found is not None and math.isfinite(found) and found == int(found) else None


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """Return every value as a float; an empty tuple when one of them is not a number."""
    try:
        return tuple(float(part) for part in texts(dataset, keyword))
    except ValueError:
        return ()


def items(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """Return the items of a sequence, none when it is absent."""
    found = value(dataset, keyword)
    if found is None or isinstance(found, (str, bytes, int, float)):
        return ()
    try:
        return tuple(item for item in found if isinstance(item, Dataset))
    except Exception:
        return ()


def code(dataset: Dataset, keyword: str) -> Code | None:
    """Return the first coded entry of a code sequence, None when it is absent or has no value.

    One with a longer scheme than DICOM takes counts as absent, and a meaning is cut: no result could tell them.
    """
    for item in items(dataset, keyword):
        found = text(item, "CodeValue") or text(item, "LongCodeValue") or text(item, "URNCodeValue")
        scheme = text(item, "CodingSchemeDesignator")
        made = Code(found, scheme, text(item, "CodeMeaning")[: LONGEST["meaning"][1]])
        if found and (scheme or text(item, "URNCodeValue")) and code_fault(made) is None:
            return made
    return None


def day(words: str) -> date | None:
    """Return the date of a DA value, or None."""
    digits = words.replace(".", "").replace("-", "")[:8]
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError:
        return None


def moment(when: date | None, words: str) -> datetime | None:
    """Return the local (naive) date and time of a date and a TM value; scanners' clocks know no time zone."""
    digits, _, fraction = words.replace(":", "").partition(".")
    if when is None or len(digits) < 2 or not digits.isdigit():
        return None
    padded = digits.ljust(6, "0")
    try:
        start = datetime(when.year, when.month, when.day)  # noqa: DTZ001 (naive on purpose, see above)
        second = int(padded[4:6])
        if int(padded[:2]) > 23 or int(padded[2:4]) > 59 or second > 60:
            return None
        clock = timedelta(hours=int(padded[:2]), minutes=int(padded[2:4]), seconds=second)
        return (
            start + clock + timedelta(seconds=float(f"0.{fraction[:6]}") if fraction[:6].isdigit() else 0.0)
        )
    except ValueError:
        return None


def instant(words: str, zone: str = "") -> datetime | None:
    """Return the (naive) date and time of a DT value, or None.

    When it and `zone` (TimezoneOffsetFromUTC) both state an offset from UTC it is the time in that zone; else the
    offset is left aside.
    """
    plain, offset = _parted(words)
    found = moment(day(plain[:8]), plain[8:]) if len(plain) >= 10 else None
    there, here = utc_offset(offset), utc_offset(zone)
    return found if found is None or there is None or here is None else found + (here - there)


def instant_offset(words: str) -> timedelta | None:
    """Return the offset from UTC that a DT value states, or None."""
    return utc_offset(_parted(words)[1])


def meant(dataset: Dataset, keyword: str) -> Hashable:
    """Return what an attribute says, equal however it is written: a number (DS), a time (TM), a date and time (DT).

    A date and time comes with its offset from UTC. What is of another kind, or cannot be read, is its text.
    """
    words, vr = text(dataset, keyword), implicit_vr(tag_of(keyword))
    if vr == "DS" and (found := number(dataset, keyword)) is not None and math.isfinite(found):
        return found
    if vr == "TM":
        return moment(date.min, words) or words
    if vr == "DT" and (at := instant(words)) is not None:
        return at, instant_offset(words)
    return words


def _parted(words: str) -> tuple[str, str]:
    """Return a DT value without its offset, and its offset, `` when it has none."""
    plain = words.strip()
    for mark in "+-":
        if mark in plain[8:]:
            clock, _, offset = plain[8:].partition(mark)
            return plain[:8] + clock, mark + offset
    return plain, ""


def utc_offset(words: str) -> timedelta | None:
    """Return the offset from UTC that a TimezoneOffsetFromUTC (`+0100`) states, or None."""
    if len(words) != 5 or words[0] not in "+-" or not words[1:].isdigit():
        return None
    size = timedelta(hours=int(words[1:3]), minutes=int(words[3:]))
    return size if words[0] == "+" else -size
