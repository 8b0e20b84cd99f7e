"""The numbers of a report as tables: flat rows for CSV, truth beside measurement, change between dates."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from io import StringIO
from itertools import pairwise

import numpy as np

from node.report.shown import ShownFinding, ShownMeasurement, StudyReport, TrueThing, TrueValues, Truth
from plugins.flag_codes import INTERVAL
from store.analysed import CENTROID_COLUMNS, END_COLUMNS
from store.findings import FINDING_COLUMNS, LINK_COLUMNS, MEASUREMENT_COLUMNS

COLUMNS = (
    "patient_id",
    "study_date",
    "study_instance_uid",
    "plugin",
    "plugin_version",
    "series_instance_uid",
    "label",
    "tracking_uid",
    "confidence",
    "automatic",
    *CENTROID_COLUMNS,
    "name",
    "value",
    "unit",
    "method",
    "concept_meaning",
    *END_COLUMNS,
    "truth",
)
"""Columns of the CSV of a report."""
FIELDS = (
    "patient_id",
    "study_date",
    "study_instance_uid",
    "revision",
    "plugin",
    "plugin_version",
    "model_sha256",
    *FINDING_COLUMNS,
    *MEASUREMENT_COLUMNS,
    *LINK_COLUMNS,
)
"""Columns of the CSV of what is in SQL."""
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
OUTLINED_BY_READERS = (
    "Networks outline a nodule as several readers together do, about half a millimetre outside of a sharp edge, and "
    "its long axis about a millimetre longer still: sizes are larger than the truth."
)
CHANGING = ("long_axis", "volume", "suv_max", "laa_950")
Number = float | str | bool


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One true number and what was measured of it."""

    thing: str
    """Name of the thing."""
    kind: str
    """`nodule`, `lung` or `reference`."""
    name: str
    """Name of the measurement."""
    true: float
    """The truth."""
    measured: float | None
    """The measurement; None when the thing was not found on this kind of image."""
    unit: str
    """Unit of both; empty when nothing was measured."""
    label: str
    """Label of the finding that was compared; empty when there is none."""
    tracking_uid: str
    """Tracking UID of that finding; empty when there is none."""

    @property
    def difference(self) -> float | None:
        """Return measured minus true, or None."""
        return None if self.measured is None else self.measured - self.true


@dataclass(frozen=True, kw_only=True)
class Change:
    """One number of one lesion at two dates."""

    thing: str
    """What people call the lesion."""
    name: str
    """Name of the measurement."""
    unit: str
    """Unit of the values."""
    before: float | None
    """Value at the earlier date; None when it was not there."""
    after: float | None
    """Value at the later date; None when it is no longer there."""
    dates: tuple[str, str]
    """Both dates."""
    true: tuple[float | None, float | None] = (None, None)
    """The truth at both dates, when it is known."""

    @property
    def percent(self) -> float | None:
        """Return the change in per cent of the earlier value, or None."""
        if self.before is None or self.after is None or self.before == 0:
            return None
        return 100 * (self.after - self.before) / self.before


def match(thing: TrueThing, group: TrueValues, report: StudyReport) -> ShownFinding | None:
    """Return the finding that shows a true thing on one kind of image: the nearest within the tolerance, or None."""
    best: tuple[float, ShownFinding] | None = None
    for finding in report.findings:
        volume = report.volume_of(finding)
        if volume is None or volume.role != group.role:
            continue
        if any(finding.measurement(name) is None for name in group.values):
            continue
        centre = finding.centre_mm(volume)
        if centre is None:
            continue
        distance = float(np.linalg.norm(np.subtract(centre, thing.centre_mm)))
        if distance <= thing.tolerance_mm and (best is None or distance < best[0]):
            best = (distance, finding)
    return None if best is None else best[1]


def compare(report: StudyReport, truth: Truth) -> tuple[Compared, ...]:
    """Return truth beside measurement for one study, in the order of the truth."""
    rows: list[Compared] = []
    for thing in truth:
        for group in thing.groups:
            finding = match(thing, group, report)
            for name, true in group.values.items():
                measurement = finding.measurement(name) if finding else None
                rows.append(
                    Compared(
                        thing=thing.name,
                        kind=thing.kind,
                        name=name,
                        true=true,
                        measured=measurement.value if measurement else None,
                        unit=measurement.unit if measurement else "",
                        label=finding.label if finding else "",
                        tracking_uid=finding.tracking_uid if finding else "",
                    )
                )
    return tuple(rows)


def without_counterpart(report: StudyReport, compared: Iterable[Compared]) -> tuple[ShownFinding, ...]:
    """Return the lesions that were found where the truth has none."""
    known = {row.tracking_uid for row in compared}
    return tuple(f for f in report.findings if f.measurement("long_axis") and f.tracking_uid not in known)


def changes(reports: Sequence[StudyReport], truth: Sequence[Truth] | None = None) -> tuple[Change, ...]:
    """Return what changed between one study and the next of the same patient.

    With truth, lesions are linked by their true name; else by an equal Tracking UID. What is not linked is left out.
    """
    rows: list[Change] = []
    for (i, first), (j, second) in pairwise(enumerate(reports)):
        if first.study.patient.patient_id != second.study.patient.patient_id:
            continue
        if truth is not None:
            rows += _true_changes((first, second), (truth[i], truth[j]))
        else:
            rows += _linked_changes(first, second)
    return tuple(rows)


def _true_changes(reports: tuple[StudyReport, StudyReport], truth: tuple[Truth, Truth]) -> list[Change]:
    found = [
        {(row.thing, row.name): row for row in compare(r, t) if row.name in CHANGING}
        for r, t in zip(reports, truth, strict=True)
    ]
    rows = []
    for key in dict.fromkeys([*found[0], *found[1]]):
        before, after = (side.get(key) for side in found)
        unit = next((row.unit for row in (before, after) if row is not None and row.unit), "")
        rows.append(
            Change(
                thing=key[0],
                name=key[1],
                unit=unit,
                before=before.measured if before else None,
                after=after.measured if after else None,
                dates=(reports[0].date, reports[1].date),
                true=(before.true if before else None, after.true if after else None),
            )
        )
    return rows


def _linked_changes(first: StudyReport, second: StudyReport) -> list[Change]:
    later = {f.tracking_uid: f for f in second.findings}
    rows = []
    for finding in first.findings:
        other = later.get(finding.tracking_uid)
        for name in CHANGING:
            before = finding.measurement(name)
            after = other.measurement(name) if other else None
            if before is not None and after is not None and before.unit == after.unit:
                rows.append(
                    Change(
                        thing=finding.label,
                        name=name,
                        unit=before.unit,
                        before=before.value,
                        after=after.value,
                        dates=(first.date, second.date),
                    )
                )
    return rows


def caveat(reports: Sequence[StudyReport]) -> str:
    """Return what is to be known of nodules beside their truth; empty when no network drew any."""
    learned = any(flag.code == INTERVAL for report in reports for flag in report.flags)
    return OUTLINED_BY_READERS if learned else ""


def days_between(first: date | None, second: date | None) -> int | None:
    """Return the days from one study to the next, or None when a date is unknown."""
    return None if first is None or second is None else (second - first).days


def rows(reports: Sequence[StudyReport], truth: Sequence[Truth] | None = None) -> list[dict[str, Number]]:
    """Return one flat row for each measurement of each finding; keys are `COLUMNS`."""
    table: list[dict[str, Number]] = []
    for number, report in enumerate(reports):
        true: dict[tuple[str, str], float] = {}
        if truth is not None:
            true = {
                (row.tracking_uid, row.name): row.true
                for row in compare(report, truth[number])
                if row.tracking_uid
            }
        for finding in report.findings:
            for measurement in finding.measurements:
                known = true.get((finding.tracking_uid, measurement.name))
                table.append(_row(report, finding, measurement, known))
    return table


def _row(
    report: StudyReport, finding: ShownFinding, measurement: ShownMeasurement, true: float | None
) -> dict[str, Number]:
    volume = report.volume_of(finding)
    centre = finding.centre_mm(volume) if volume is not None else finding.centroid_mm
    made: Mapping[str, str] = report.provenance.get(finding.plugin, {})
    row: dict[str, Number] = dict.fromkeys(COLUMNS, "")
    row.update(
        patient_id=report.study.patient.patient_id,
        study_date=report.study.study_date.isoformat() if report.study.study_date else "",
        study_instance_uid=report.study.study_instance_uid,
        series_instance_uid=finding.series_instance_uid,
        plugin=finding.plugin,
        plugin_version=made.get("plugin_version", ""),
        label=finding.label,
        tracking_uid=finding.tracking_uid,
        confidence="" if finding.confidence is None else finding.confidence,
        automatic=finding.automatic,
        name=measurement.name,
        value=measurement.value,
        unit=measurement.unit,
        concept_meaning=measurement.meaning,
        method=measurement.method,
        truth="" if true is None else true,
    )
    if centre is not None:
        row.update(zip(CENTROID_COLUMNS, centre, strict=True))
    if measurement.end_points_mm is not None:
        first, last = measurement.end_points_mm
        row.update(zip(END_COLUMNS, (*first, *last), strict=True))
    return row


def csv_text(table: Iterable[Mapping[str, object]], columns: Sequence[str] = COLUMNS) -> str:
    """Return rows as CSV (RFC 4180, comma, point as decimal mark).

    Words that a spreadsheet would run as a formula get an apostrophe in front: labels come from the network.
    """
    out = StringIO(newline="")
    writer = csv.DictWriter(out, fieldnames=list(columns), extrasaction="ignore", restval="")
    writer.writeheader()
    for row in table:
        writer.writerow({name: safe_cell(row.get(name, "")) for name in columns})
    return out.getvalue()


def safe_cell(value: object) -> object:
    """Return a value for a CSV cell: eight meaning digits, nothing for None, no word that would run as a formula."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return f"{value:.8g}"
    text = str(value)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
