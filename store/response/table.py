"""Tables of measurements that come from elsewhere, as histories; and verdicts as plain data.

One row is one lesion at one visit. The first line names the columns, in any order, upper or lower case:

- `patient`, `lesion`, `date` (2026-01-31 or 20260131) and `role` (target, non-target, new) are needed;
- `site`; `node` (1 for a lymph node); `status` (measured, absent, too-small, NE, present, unequivocal-progression;
  nothing is measured where there is a number; what is too small has no long axis of 10 mm unless it is a node);
- `long_axis_mm`, `short_axis_mm`; `volume_mm3` (also `volume`) or `volume_ml`; `suv_peak` (of SUL), `tlg`,
  `deauville`; one standard deviation each: `long_axis_sd_mm`, `short_axis_sd_mm`, `volume_sd_mm3` or `volume_sd_ml`,
  `suv_peak_sd`;
- of the visit, on one of its rows or the same on all: `liver_mean`, `liver_sd`, `blood_pool_mean`, `blood_pool_sd`,
  `mediastinum`, `uptake_minutes`, `injected_mbq`, `scanner`; of the patient: `treatment_start`.

A heading may say its unit in brackets, as `Long axis (mm)` does; another unit than that of the column is refused.
Text is UTF-8, or UTF-16 with its mark; commas, semicolons or tabs between the cells; a decimal point, or a comma.
Lengths become tenths of a millimetre, half up, and where that changed one the verdict says so. A visit is a date; the
first is the baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from typing import Any, Final, TypeVar

from plugins.errors import Refused
from store.response.burden import TARGET_TENTHS, TOO_SMALL_TENTHS
from store.response.history import History, Reference, Role, Seen, Status, Visit
from store.response.row import LENGTHS, OF_VISIT, Row, read_rows
from store.response.verdict import Response

T = TypeVar("T")
MEASURED = (*LENGTHS, "volume_mm3", "volume_ml", "suv_peak", "tlg", "deauville")
"""Columns of which a measured lesion has a number in one."""
BASELINE_DAYS: Final = 28
"""Most days from the baseline to the start of treatment by RECIST 1.1."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """What a table says."""

    histories: tuple[History, ...]
    """The patients, in the order of the table."""
    columns: frozenset[str]
    """The columns that it has, of those that are known."""
    notes: tuple[str, ...]
    """What was passed over: sentences."""
    doubts: Mapping[str, tuple[str, ...]]
    """What a reader of the verdicts should know, by patient: sentences."""


def read_table(data: bytes) -> Table:
    """Return what the bytes of a CSV file say.

    Raises Refused, with line and column wherever there are any: `empty-table`, `not-text`, `no-header`,
    `missing-column`, `column-twice`, `other-unit`, `uneven-row`, `mixed-decimals`, `bad-character`, `missing-value`,
    `bad-number`, `negative`, `bad-date`, `bad-role`, `bad-status`, `bad-flag`, `bad-deauville`, `no-status`,
    `no-number`, `contradiction`, `lesion-twice`, `role-changes`, `no-baseline`, `new-at-baseline`.
    """
    rows, columns, notes = read_rows(data)
    patients: dict[str, list[Row]] = {}
    for row in rows:
        patients.setdefault(row.text("patient"), []).append(row)
    try:
        histories = tuple(_history(patient, own) for patient, own in patients.items())
    except Refused as refusal:
        if refusal.code not in ("no-status", "no-number"):
            raise
        raise Refused(refusal.code, "; ".join((refusal.sentence, *notes))) from refusal
    return Table(
        histories=histories,
        columns=columns,
        notes=notes,
        doubts={patient: _doubts(own) for patient, own in patients.items()},
    )


def _history(patient: str, rows: Sequence[Row]) -> History:
    lesions: dict[str, list[Row]] = {}
    visits: dict[date, list[Row]] = {}
    for row in rows:
        lesions.setdefault(row.text("lesion"), []).append(row)
        visits.setdefault(row.day(), []).append(row)
    baseline = min(visits)
    of_lesion = {lesion: _lesion(patient, lesion, own, baseline) for lesion, own in lesions.items()}
    return History(
        patient=patient,
        visits=tuple(
            Visit(
                date=day,
                seen=tuple(_seen(row, *of_lesion[row.text("lesion")]) for row in visits[day]),
                reference=_reference(visits[day]),
            )
            for day in sorted(visits)
        ),
        treatment_start=_one_value(rows, "treatment_start", lambda row: row["treatment_start"].date()),
    )


def _lesion(patient: str, lesion: str, rows: Sequence[Row], baseline: date) -> tuple[Role, str, bool]:
    """Return role, site and whether a lesion is a node, which are the same at every visit."""
    of = f"lesion {lesion} of patient {patient}"
    days: dict[date, int] = {}
    for row in rows:
        if row.day() in days:
            raise row["lesion"].refused(
                "lesion-twice", f"which has a row of {row.day()} already; leave one of them"
            )
        days[row.day()] = row.line
    role = rows[0]["role"].role()
    for row in rows:
        if row["role"].role() is not role:
            raise row["role"].refused("role-changes", f"but {of} is {role.value} on line {rows[0].line}")
    first = min(days)
    if role is Role.NEW:
        at_baseline = next((row for row in rows if row.day() == baseline), None)
        if at_baseline and at_baseline["status"].status() not in (Status.ABSENT, Status.NOT_EVALUABLE):
            raise at_baseline["role"].refused(
                "new-at-baseline", f"but {baseline} is the first visit; {of} is target or non-target"
            )
    elif first > baseline:
        raise Refused(
            "no-baseline",
            f"line {days[first]}: {of} is {role.value} and has no row of the first visit, {baseline}; "
            "add it, or call it new",
        )
    site = next((row["site"].text for row in rows if row["site"].text), "")
    return role, site, bool(_one_value(rows, "node", lambda row: row["node"].flag()))


def _seen(row: Row, role: Role, site: str, node: bool) -> Seen:
    long_axis, short_axis = (row[name].tenths_mm(comma=row.comma)[0] for name in LENGTHS)
    volume = _volume(row, "volume")
    peak, tlg, deauville = row.number("suv_peak"), row.number("tlg"), row.number("deauville")
    if deauville is not None and deauville not in (1, 2, 3, 4, 5):
        raise row["deauville"].refused("bad-deauville", "write a whole number from 1 to 5")
    numbers = (long_axis, short_axis, volume, peak, tlg, deauville)
    return Seen(
        lesion=row.text("lesion"),
        role=role,
        status=_status(row, role, node=node, measured=any(value is not None for value in numbers)),
        site=row["site"].text or site,
        node=node,
        long_axis_tenths=long_axis,
        short_axis_tenths=short_axis,
        volume_mm3=volume,
        suv_peak=peak,
        tlg=tlg,
        deauville=None if deauville is None else int(deauville),
        long_axis_sd_mm=row.number("long_axis_sd_mm"),
        short_axis_sd_mm=row.number("short_axis_sd_mm"),
        volume_sd_mm3=_volume(row, "volume_sd"),
        suv_peak_sd=row.number("suv_peak_sd"),
    )


def _status(row: Row, role: Role, *, node: bool, measured: bool) -> Status:
    cell = row["status"]
    status = cell.status()
    if status is None:
        if not measured:
            raise cell.refused(
                "no-status", f"and no number in that row ({', '.join(MEASURED)}); write it, or what was seen"
            )
        return Status.MEASURED
    if status is Status.MEASURED and not measured:
        raise cell.refused(
            "no-number", f"and no number in that row ({', '.join(MEASURED)}); write it, or another status"
        )
    if status is Status.ABSENT:
        for name in (*LENGTHS, "volume_mm3", "volume_ml"):
            if row.number(name):
                raise row[name].refused(
                    "contradiction", "of a lesion that is absent; correct number or status"
                )
    if status is Status.TOO_SMALL and not node and (row.number("long_axis_mm") or 0) >= TARGET_TENTHS / 10:
        raise row["long_axis_mm"].refused(
            "contradiction", "of a lesion that is too small to measure; correct number or status"
        )
    if role is Role.TARGET and status is Status.PRESENT and measured:
        return Status.MEASURED
    return status


def _volume(row: Row, name: str) -> float | None:
    in_mm3, in_ml = row.number(f"{name}_mm3"), row.number(f"{name}_ml")
    if in_ml is None:
        return in_mm3
    if in_mm3 is not None and abs(in_mm3 - 1000 * in_ml) > 0.01 * in_mm3:
        raise row[f"{name}_ml"].refused("contradiction", f"but {name}_mm3 is {in_mm3:g}; correct one of them")
    return 1000 * in_ml if in_mm3 is None else in_mm3


def _reference(rows: Sequence[Row]) -> Reference | None:
    given = {name: _one_value(rows, name, partial(Row.number, column=name)) for name in OF_VISIT}
    scanner = _one_value(rows, "scanner", lambda row: row["scanner"].text or None) or ""
    if not scanner and all(value is None for value in given.values()):
        return None
    return Reference(**given, scanner=scanner)


def _one_value(rows: Sequence[Row], column: str, read: Callable[[Row], T | None]) -> T | None:
    """Return what is the same on all rows or stands on one. Raises Refused (`contradiction`)."""
    given = [(value, row) for row in rows if (value := read(row)) is not None]
    for value, row in given:
        if value != given[0][0]:
            first = given[0][1][column]
            raise row[column].refused(
                "contradiction", f"but '{first.text}' on line {first.line}; write the same"
            )
    return given[0][0] if given else None


def _doubts(rows: Sequence[Row]) -> tuple[str, ...]:
    rounded = [row[name] for row in rows for name in LENGTHS if row[name].tenths_mm(comma=row.comma)[1]]
    swapped = [
        row.line
        for row in rows
        if (row.number("short_axis_mm") or 0) > (row.number("long_axis_mm") or float("inf"))
    ]
    nodes = {row.text("lesion") for row in rows if row["node"].flag()}
    small = [
        row["long_axis_mm"]
        for row in rows
        if row["status"].status() is Status.TOO_SMALL
        and row.text("lesion") not in nodes
        and row["long_axis_mm"].tenths_mm(comma=row.comma)[0] not in (None, TOO_SMALL_TENTHS)
    ]
    start = _one_value(rows, "treatment_start", lambda row: row["treatment_start"].date())
    days = sorted({row.day() for row in rows})
    said = [] if start is None else list(_doubts_of_start(start, days))
    if rounded:
        first = rounded[0]
        told = f"{len(rounded)}, first {first.text} on line {first.line}"
        said.append(f"lengths rounded to tenths of a millimetre: {told}")
    if small:
        told = f"{len(small)}, first {small[0].text} on line {small[0].line}"
        said.append(f"lengths of lesions too small to measure, which RECIST counts as 5 mm: {told}")
    if swapped:
        said.append(f"lines with a short axis above the long one: {len(swapped)}, first line {swapped[0]}")
    return tuple(said)


def _doubts_of_start(start: date, days: Sequence[date]) -> Iterator[str]:
    """Yield what a start of treatment leaves in doubt of visits on these days, oldest first."""
    baseline, *later = days
    if later and start > later[-1]:
        yield f"the treatment starts on {start}, after the last visit, {later[-1]}: is that date right?"
        return
    early = (baseline - start).days
    if early > 0:
        yield (
            f"the baseline, {baseline}, lies {_days(early)} after the start of treatment, {start}: "
            "what changed before it is not seen"
        )
    if -early > BASELINE_DAYS:
        yield (
            f"the baseline, {baseline}, lies {_days(-early)} before the start of treatment, {start}; "
            f"RECIST 1.1 takes {BASELINE_DAYS} at most"
        )
    if before := [day for day in later if day < start]:
        yield (
            f"visits before the start of treatment, {start}, judged as follow-up: {len(before)}, first {before[0]}; "
            "the baseline should be the last before it"
        )


def _days(number: int) -> str:
    return f"{number} day{'' if number == 1 else 's'}"


def plain(response: Response) -> dict[str, Any]:
    """Return a response as JSON data: dates as 2026-01-31, `sum` and `nadir` in `unit`, None where there is none."""
    return {
        **asdict(response),
        "time_points": [{**asdict(point), "date": point.date.isoformat()} for point in response.time_points],
    }


__all__ = ["Table", "plain", "read_table"]
