"""How the score grows with the cases that are learned from: whether more data would help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training.evaluate import charts
from training.evaluate.bootstrap import Interval
from training.evaluate.section import Section, Table, between

NOT_KNOWN = "No runs on fewer cases were put beside it, so whether more data would help is not known."


@dataclass(frozen=True, kw_only=True)
class Point:
    """One model on the curve."""

    learned: int
    """Cases that each fold has learned from, the mean over folds."""
    score: Interval
    """Its score on the same cases as all others."""


def learning_part(points: Sequence[Point], name: str) -> tuple[Section, list[dict[str, Any]]]:
    """Return section and JSON of a learning curve; `name` is what the score is called."""
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
        title="Learning curve", tables=(Table(head=("Cases learned from", name), rows=rows),), charts=(chart,)
    )
    return section, [{"learned": point.learned, "score": name, **point.score.plain()} for point in ordered]


__all__ = ["NOT_KNOWN", "Point", "learning_part"]
