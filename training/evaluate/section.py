"""What a report is made of, whatever the model: sections with tables, charts and pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from training.evaluate.bootstrap import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTHING = "\N{EM DASH}"


@dataclass(frozen=True, kw_only=True)
class Headline:
    """A figure that stands at the top."""

    name: str
    """What it is."""
    value: str
    """The figure."""
    between: str
    """Its interval, or what else qualifies it."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of texts; the first column is words, the others are numbers unless it says that all are words."""

    head: tuple[str, ...]
    """Heading of each column."""
    rows: tuple[tuple[str, ...], ...]
    """The cells."""
    note: str = ""
    """What has to be known to read it."""
    words: bool = False
    """Whether all columns are words."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Chart:
    """A drawing that fits a light and a dark page."""

    draw: Callable[[Figure], None]
    """Draws on an empty figure, in the colours of `charts`."""
    caption: str
    """What it shows, in a sentence."""
    size_inches: tuple[float, float] = (4.6, 3.3)
    """Width and height."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """The same for who draws it otherwise: its kind, axes and numbers; empty when there is only the drawing."""

    @property
    def is_wide(self) -> bool:
        """Return whether nothing stands beside it."""
        return self.size_inches[0] > 6


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A picture with its words."""

    png: bytes
    """The picture."""
    caption: str
    """What it shows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """A part of a report under one heading."""

    title: str
    """The heading."""
    text: str = ""
    """Sentences under it."""
    points: tuple[str, ...] = ()
    """Sentences that are a list."""
    tables: tuple[Table, ...] = ()
    """Its tables."""
    charts: tuple[Chart, ...] = ()
    """Its charts."""
    pictures: tuple[Picture, ...] = ()
    """Its pictures."""


def number(value: float | None, digits: int = 3, *, signed: bool = False) -> str:
    """Return a number for people, with a real minus; a dash for what there is not."""
    if value is None:
        return NOTHING
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")


def between(found: Interval | None, digits: int = 3, *, signed: bool = False, scale: float = 1.0) -> str:
    """Return `value [low to high]`; the ends are left out where there are none."""
    if found is None:
        return NOTHING
    value = number(found.value * scale, digits, signed=signed)
    return f"{value} {ends(found, digits, signed=signed, scale=scale)}".rstrip()


def ends(found: Interval | None, digits: int = 3, *, signed: bool = False, scale: float = 1.0) -> str:
    """Return `[low to high]`, or nothing."""
    if found is None or found.low is None or found.high is None:
        return ""
    low, high = (number(end * scale, digits, signed=signed) for end in (found.low, found.high))
    return f"[{low} to {high}]"


__all__ = ["Chart", "Headline", "Picture", "Section", "Table", "between", "ends", "number"]
