"""Groups of cases by what is known of them: size, slice thickness, scanner, and whatever words the manifest has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from training.evaluate.judged import Known

EDGES: Mapping[str, tuple[float, ...]] = {
    "size_mm": (6.0, 10.0, 20.0),
    "slice_thickness_mm": (1.0, 2.0),
}
"""Where numbers are cut. A value on an edge belongs above it for sizes, below it for slices."""
NAMES = {"size_mm": "size", "slice_thickness_mm": "slices"}
MOST_WORDS = 12
"""A text with more different values than this makes no groups: it is a name, not a kind."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Cases that share something."""

    by: str
    """What they share: a key of `known`."""
    name: str
    """The value or range that they share, for people."""
    cases: tuple[int, ...]
    """Which cases, by index."""

    @property
    def title(self) -> str:
        """Return what it is called in a table."""
        return f"{NAMES.get(self.by, self.by.replace('_', ' '))} {self.name}"


def groups(known: Sequence[Mapping[str, float | str]], most_words: int = MOST_WORDS) -> tuple[Group, ...]:
    """Return the groups of cases, sizes first; a kind of group with one member only is left out.

    Cases of which a thing is not known are gathered as `not known`, when it is known of others. A thing with more
    than `most_words` different values makes no groups.
    """
    keys = [*EDGES, *sorted({key for one in known for key in one} - EDGES.keys())]
    return tuple(group for key in keys for group in _by(key, known, most_words))


def _by(key: str, known: Sequence[Known], most_words: int) -> list[Group]:
    names = [_name(key, one.get(key)) for one in known]
    there = {name for name in names if name != UNKNOWN}
    if not there or len(there) + (UNKNOWN in names) < 2 or len(there) > most_words:
        return []
    order = [*_ranges(key)] if key in EDGES else sorted(there)
    return [
        Group(by=key, name=name, cases=tuple(i for i, own in enumerate(names) if own == name))
        for name in (*order, UNKNOWN)
        if name in names
    ]


UNKNOWN = "not known"


def _name(key: str, value: float | str | None) -> str:
    if value is None or value == "":
        return UNKNOWN
    if key not in EDGES:
        return f"{value:g}" if isinstance(value, float) else str(value)
    inclusive = key == "slice_thickness_mm"
    above = sum(float(value) > edge or (float(value) == edge and not inclusive) for edge in EDGES[key])
    return _ranges(key)[above]


def _ranges(key: str) -> tuple[str, ...]:
    edges = [f"{edge:g}" for edge in EDGES[key]]
    first, last = ("up to", "above") if key == "slice_thickness_mm" else ("below", "from")
    between = [f"{a} to {b} mm" for a, b in pairwise(edges)]
    return (f"{first} {edges[0]} mm", *between, f"{last} {edges[-1]} mm")


__all__ = ["EDGES", "NAMES", "Group", "groups"]
