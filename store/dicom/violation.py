"""A broken rule, and what a rule is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One rule that an object breaks."""

    rule: str
    """Lower-case word with hyphens, stable across versions (`sr-tracking`)."""
    where: str
    """Where in the object: an attribute, a segment, a position in the content tree (`1.9.2`)."""
    sentence: str
    """One sentence for people: what is wrong."""

    def __str__(self) -> str:
        return (
            f"{self.rule} at {self.where}: {self.sentence}" if self.where else f"{self.rule}: {self.sentence}"
        )


Rule = Callable[[Dataset, Sequence[Dataset]], Iterator[Violation]]
"""Yields what is wrong with an object, given its companions."""


def own(dataset: Dataset) -> bool:
    """Return whether the object says that this software made it."""
    return str(dataset.get("Manufacturer", "")).strip() == "Nadir"
