"""How the score grows with the cases that are learned from: whether more data would help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.evaluate import charts
from training.evaluate.bootstrap import Interval
from training.evaluate.section import Section, Table, between

CURVE = "learning_curve"
"""Key of a learning curve in a report and among the figures of a card."""
FROM_CARD = "From the card of the model: measured when it was made, on the cases that it was made with."
NOT_KNOWN = "No runs on fewer cases were put beside it, so whether more data would help is not known."


@dataclass(frozen=True, kw_only=True)
class Point:
    """One model on the curve."""

    learned: int
    """Cases that each fold has learned from, the mean over folds."""
    score: Interval
    """Its score on the same cases as all others."""


def learning_part(points: Sequence[Point], name: str, text: str = "") -> tuple[Section, list[dict[str, Any]]]:
    """Return section and JSON of a learning curve; `name` is what the score is called, `text` stands above it."""
    ordered = sorted(points, key=lambda point: point.learned)
    chart = charts.with_intervals(
        [point.learned for point in ordered],
        [(point.score.value, point.score.low, point.score.high) for point in ordered],
        x_label="cases learned from",
        y_label=name,
        caption=f"{name} on the same unseen cases, against the cases that were learned from.",
    )
    rows = tuple((str(point.learned), between(point.score)) for point in ordered)
    section = Section(
        title="Learning curve",
        text=text,
        tables=(Table(head=("Cases learned from", name), rows=rows),),
        charts=(chart,),
    )
    return section, [{"learned": point.learned, "score": name, **point.score.plain()} for point in ordered]


def points_of(curve: Sequence[Mapping[str, Any]]) -> list[Point]:
    """Return the points of a curve as `learning_part` gives it to JSON. Raises KeyError for anything else."""
    names = ("value", "low", "high", "cases", "patients")
    return [
        Point(learned=int(one["learned"]), score=Interval(**{name: one[name] for name in names}))
        for one in curve
    ]


__all__ = ["CURVE", "FROM_CARD", "NOT_KNOWN", "Point", "learning_part", "points_of"]
