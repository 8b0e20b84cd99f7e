"""The longitudinal report for programs: JSON with all of it, CSV with a row for each lesion at each visit."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from node.report.longitudinal.cohort import Cohort
from node.report.longitudinal.view import Cell, LesionCourse, LongitudinalReport, Pace
from node.report.shown import RESEARCH_USE
from node.report.table import csv_text
from store.response.table import plain

COLUMNS = (
    "patient_id",
    "issuer",
    "lesion",
    "name",
    "tracking_uid",
    "role",
    "role_by",
    "node",
    "site",
    "course_doubling_days",
    "course_volume_rate_per_day",
    "course_volume_rate_low_per_day",
    "course_volume_rate_high_per_day",
    "growth_model",
    "growth_g_per_day",
    "growth_d_per_day",
    "growth_phi",
    "growth",
    "date",
    "days",
    "status",
    "words",
    "long_axis_mm",
    "long_axis_sd_mm",
    "short_axis_mm",
    "short_axis_sd_mm",
    "volume",
    "volume_unit",
    "suv_max",
    "suv_peak",
    "sul_peak",
    "counted_mm",
    "to_baseline_percent",
    "to_nadir_percent",
    "doubling_since",
    "doubling_days",
    "volume_rate_per_day",
    "volume_rate_low_per_day",
    "volume_rate_high_per_day",
    "confidence",
    "link",
    "link_confidence",
    "reason",
    "automatic",
    "made_by",
    "criteria",
    "sum",
    "sum_nadir",
    "overall",
)
"""Columns of the CSV; the last ones are those of the visit, those of growth are those of the patient."""
COHORT_COLUMNS = (
    "patient", "criteria", "baseline", "days", "best_percent", "best_overall", "best_overall_confirmed", "progressed",
    "verdicts",
)  # fmt: skip


def write_csv(report: LongitudinalReport) -> str:
    """Return one row for each lesion at each visit at which something is known of it; columns are `COLUMNS`."""
    points = {point.date: point for point in report.response.time_points}
    rows = []
    for lesion in report.lesions:
        for visit, cell in zip(report.visits, lesion.cells, strict=True):
            if cell.status:
                point = points.get(visit.date)
                rows.append(
                    _of_lesion(report, lesion)
                    | _of_growth(report)
                    | _of_cell(cell)
                    | {
                        "days": visit.days,
                        "criteria": report.response.criteria,
                        "sum": point.sum if point else None,
                        "sum_nadir": point.nadir if point else None,
                        "overall": point.overall if point else None,
                    }
                )
    return csv_text(rows, COLUMNS)


def _of_lesion(report: LongitudinalReport, lesion: LesionCourse) -> dict[str, object]:
    return {
        "patient_id": report.patient.patient_id,
        "issuer": report.patient.issuer,
        "lesion": lesion.code,
        "name": lesion.name,
        "tracking_uid": lesion.tracking_uid,
        "role": lesion.role,
        "role_by": lesion.role_by,
        "node": lesion.node,
        "site": lesion.site,
        **(_of_pace(lesion.pace, "course_") if lesion.pace else {}),
    }


def _of_growth(report: LongitudinalReport) -> dict[str, object]:
    growth = report.growth[0]
    if growth is None:
        return {}
    fit = growth.chosen
    estimates = fit.estimates if fit else {}
    names = {"g": "growth_g_per_day", "d": "growth_d_per_day", "phi": "growth_phi"}
    return {"growth_model": fit.model if fit else "", "growth": growth.because} | {
        names[name]: one.value for name, one in estimates.items()
    }


def _of_pace(pace: Pace, of: str = "") -> dict[str, object]:
    low, high = pace.rate_interval or (None, None)
    return {
        f"{of}doubling_days": pace.doubling_days,
        f"{of}volume_rate_per_day": pace.rate_per_day,
        f"{of}volume_rate_low_per_day": low,
        f"{of}volume_rate_high_per_day": high,
    }


def _of_cell(cell: Cell) -> dict[str, object]:
    numbers = cell.numbers
    row: dict[str, object] = {
        "date": cell.date.isoformat(),
        "status": cell.status,
        "words": cell.words,
        "counted_mm": cell.counted_mm,
        "to_baseline_percent": cell.to_baseline_percent,
        "to_nadir_percent": cell.to_nadir_percent,
        "confidence": cell.confidence,
        "link": cell.link,
        "link_confidence": cell.link_confidence,
        "reason": cell.reason,
        "automatic": cell.automatic,
        "made_by": cell.made_by,
    }
    for name in ("long_axis", "short_axis"):
        if name in numbers:
            row |= {f"{name}_mm": numbers[name].value, f"{name}_sd_mm": numbers[name].sd}
    for name in ("volume", "suv_max", "suv_peak", "sul_peak"):
        if name in numbers:
            row[name] = numbers[name].value
    if "volume" in numbers:
        row["volume_unit"] = numbers["volume"].unit
    if cell.pace:
        row |= _of_pace(cell.pace) | {"doubling_since": cell.pace.since.isoformat()}
    return row


def write_json(report: LongitudinalReport) -> str:
    """Return everything of the report but its pictures as JSON; the verdicts as `nadir response` gives them."""
    told: dict[str, Any] = {
        "research_use": RESEARCH_USE,
        "software": report.software,
        "made_at": report.made_at,
        "patient": asdict(report.patient),
        "visits": [asdict(visit) for visit in report.visits],
        "responses": [
            plain(response) | {"growth": asdict(growth) if growth else None}
            for response, growth in zip(report.responses, report.growth, strict=True)
        ],
        "margins": report.margins,
        "sums": [asdict(sums) for sums in report.sums],
        "lesions": [asdict(lesion) for lesion in report.lesions],
        "events": [{"date": day, "words": words} for day, words in report.events],
        "corrections": [asdict(correction) for correction in report.corrections],
        "made": [asdict(made) for made in report.made],
        "densities": [
            asdict(one) | {"values": [{"date": day, "value": value} for day, value in one.values.items()]}
            for one in report.densities
        ],
        "missing": report.missing,
    }
    return _json(told)


def write_cohort_json(cohort: Cohort) -> str:
    """Return a cohort as JSON."""
    followed = [asdict(one) | {"days": one.days, "progressed": one.progressed} for one in cohort.followed]
    return _json(
        {
            "research_use": RESEARCH_USE,
            "software": cohort.software,
            "made_at": cohort.made_at,
            "criteria": cohort.criteria,
            "quantity": cohort.quantity,
            "patients": followed,
            "left_out": cohort.left_out,
        }
    )


def write_cohort_csv(cohort: Cohort) -> str:
    """Return one row for each patient of a cohort."""
    rows = [
        {
            "patient": one.patient,
            "criteria": cohort.criteria,
            "baseline": one.baseline.isoformat(),
            "days": one.days,
            "best_percent": one.best_percent,
            "best_overall": one.best_overall,
            "best_overall_confirmed": one.best_overall_confirmed,
            "progressed": one.progressed,
            "verdicts": " ".join(f"{day}:{verdict}" for day, verdict in one.verdicts),
        }
        for one in cohort.followed
    ]
    return csv_text(rows, COHORT_COLUMNS)


def _json(told: dict[str, Any]) -> str:
    return json.dumps(told, indent=2, default=lambda value: value.isoformat()) + "\n"


__all__ = ["COLUMNS", "write_cohort_csv", "write_cohort_json", "write_csv", "write_json"]
