"""What the script that draws charts is given of a report: the numbers of its view, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from node.report.longitudinal import words
from node.report.longitudinal.view import LongitudinalReport, SumCourse
from store.progression import KaplanMeier


def curve(course: SumCourse) -> str:
    """Return the sum over time with its thresholds and its uncertainty."""
    return _json(
        {
            "quantity": words.sentence(course.quantity),
            "unit": course.unit,
            "points": [
                {
                    "date": point.date.isoformat(),
                    "days": point.days,
                    "sum": point.sum,
                    "sd": point.sd,
                    "verdict": point.verdict,
                    "progression_from": point.progression_from,
                }
                for point in course.points
            ],
            "response_to": course.response_to,
            "next_progression_from": course.next_progression_from,
            "nadir": course.nadir,
            "nadir_date": course.nadir_date.isoformat() if course.nadir_date else None,
        }
    )


def spider(report: LongitudinalReport) -> str:
    """Return the change of each lesion to its first measurement."""
    return _json(
        {
            "lesions": [
                {
                    "code": lesion.code,
                    "name": words.title_of(lesion),
                    "points": [
                        {
                            "date": cell.date.isoformat(),
                            "percent": cell.to_baseline_percent,
                            "millimetres": cell.counted_mm,
                        }
                        for cell in lesion.cells
                        if cell.to_baseline_percent is not None
                    ],
                }
                for lesion in report.lesions
            ]
        }
    )


def progression(estimate: KaplanMeier) -> str:
    """Return the share without progression over time, with its band and where persons are censored."""
    return _json({"steps": [asdict(step) for step in estimate.steps]})


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


__all__ = ["curve", "progression", "spider"]
