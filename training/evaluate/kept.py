"""What is kept of a judgement beside its model: figures, groups, charts and cases as numbers, and no picture.

`evaluation.json` is what the page of a model draws: of a shipped model from `models/evaluations`, of one that was
judged for a node from its home folder. Cases are those of the first setting.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from training.evaluate.froc import RATES
from training.evaluate.report import Evaluation
from training.evaluate.section import Section

NAME = "evaluation.json"
DIGITS, CHART_DIGITS = 4, 3
"""Significant digits of a case, and of a point of a chart; figures are kept whole."""


class Column(NamedTuple):
    """One column of the table of cases."""

    name: str
    """Key in the row; the part after a blank is the key in what that holds."""
    words: str
    """For people, with the unit."""
    digits: int | None = None
    """Decimals that people are shown; None for words."""
    scale: float = 1.0
    """What people are shown, for 1."""


WHOSE = (Column("case_id", "Case"), Column("patient_id", "Patient"), Column("fold", "Fold", 0))
COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "segmentation": (
        Column("known slice_thickness_mm", "Slices, mm", 2),
        Column("figures dice", "Dice", 3),
        Column("figures hd95_mm", "HD95, mm", 1),
        Column("figures truth_ml", "Volume, true, ml", 2),
        Column("figures drawn_ml", "Volume, drawn, ml", 2),
        Column("figures volume_error", "Volume error, %", 1, 100.0),
        Column("figures truth_long_axis_mm", "Long axis, true, mm", 1),
        Column("figures drawn_long_axis_mm", "Long axis, drawn, mm", 1),
    ),
    "detection": (
        Column("lesions", "Lesions", 0),
        *(Column(f"found_at {rate:g}", f"Found at {rate:g} a scan", 0) for rate in RATES),
        *(Column(f"false_at {rate:g}", f"False at {rate:g} a scan", 0) for rate in RATES),
    ),
    "classification": (
        Column("positive", "Truly positive"),
        Column("probability", "Probability said", 3),
    ),
    "survival": (
        Column("risk", "Risk said", 3),
        Column("duration_days", "Followed, days", 0),
        Column("event", "Event"),
    ),
}
"""By task, what is kept of a case."""


def kept(evaluation: Evaluation) -> dict[str, Any]:
    """Return what is kept of a judgement, as JSON has it."""
    plain = evaluation.plain(cases=False)
    figures = {task: plain.pop(task) for task in evaluation.figures}
    return {
        **plain,
        "headlines": [asdict(one) for one in evaluation.headlines],
        "figures": figures,
        "sections": list(_sections(evaluation.sections)),
        "cases": [
            _cases(task, part["cases"])
            for task, part in evaluation.figures.items()
            if task in COLUMNS and part.get("cases")
        ],
    }


def kept_text(evaluation: Evaluation) -> str:
    """Return what is kept as the text of its file."""
    return json.dumps(kept(evaluation), separators=(",", ":"), allow_nan=False) + "\n"


def _sections(sections: Sequence[Section]) -> Iterator[dict[str, Any]]:
    """Yield the sections without pictures; one that held nothing else is left out."""
    for one in sections:
        charts = [{**chart.values, "caption": chart.caption} for chart in one.charts if chart.values]
        if one.pictures and not (one.tables or charts or one.points):
            continue
        yield {
            "title": one.title,
            "text": one.text,
            "points": list(one.points),
            "tables": [asdict(table) for table in one.tables],
            "charts": _rounded(charts, CHART_DIGITS),
        }


def _cases(task: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = rows[0].get("setting", "")
    shown = [row for row in rows if row.get("setting", "") == first]
    columns = [*WHOSE, *COLUMNS[task]]
    if all(row["case_id"].startswith(row["patient_id"]) for row in shown):
        columns.remove(WHOSE[1])  # the name of the case says it
    return {
        "task": task,
        "setting": first,
        "columns": [column._asdict() for column in columns],
        "rows": [[_rounded(_value(row, column.name)) for column in columns] for row in shown],
    }


def _value(row: Mapping[str, Any], name: str) -> Any:
    key, _, inner = name.partition(" ")
    value = row.get(key)
    return value.get(inner) if inner and isinstance(value, Mapping) else value


def _rounded(value: Any, digits: int = DIGITS) -> Any:
    """Return plain data with every number to a few digits."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(inner, digits) for key, inner in value.items()}
    return [_rounded(inner, digits) for inner in value] if isinstance(value, (list, tuple)) else value


__all__ = ["COLUMNS", "NAME", "Column", "kept", "kept_text"]
