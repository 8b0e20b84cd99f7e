"""The command `nadir response`: what a course of measurements means by one set of criteria, and why."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node import printing
from node.cli_options import AsJson, Config, Home, open_database, tell_exported
from node.cli_rules import with_rules
from node.flags import load_settings
from plugins.errors import Refused
from store.response.rules import Rules

if TYPE_CHECKING:
    from store.response.verdict import Response, TimePoint


LARGEST = 64 * 2**20
"""A table above that many bytes is none."""

Csv = Annotated[
    Path | None,
    typer.Option("--csv", help="Table of measurements; - is standard input.", show_default=False),
]
Patient = Annotated[
    str | None, typer.Option(help="PatientID, of a patient that the node has measured.", show_default=False)
]
Issuer = Annotated[
    str | None,
    typer.Option(help="IssuerOfPatientID, when several gave that PatientID.", show_default=False),
]
Growth = Annotated[
    bool,
    typer.Option(
        "--growth", help="Fit growth and decay rates to the sums of each patient (gd, gx, dx, gdphi)."
    ),
]
Criteria = Annotated[str, typer.Option(help="recist1.1, irecist, percist, lugano, who or volume.")]


@with_rules
def response(
    table: Csv = None,
    patient: Patient = None,
    issuer: Issuer = None,
    criteria: Criteria = "recist1.1",
    growth: Growth = False,
    home: Home = None,
    config: Config = None,
    as_json: AsJson = False,
    **protocol: Any,
) -> None:
    """Judge a course of measurements, from a table (--csv) or of a patient of this node (--patient).

    A row of the table is one lesion at one visit. Its columns, in any order: patient, lesion, date (2026-01-31), role
    (target, non-target, new); site, node (1 for a lymph node), status (measured, absent, too-small, NE, present,
    unequivocal-progression); long_axis_mm, short_axis_mm; volume_mm3 or volume_ml; suv_peak, tlg, deauville; one
    standard deviation: long_axis_sd_mm, short_axis_sd_mm, volume_sd_mm3 or volume_sd_ml, suv_peak_sd.

    Of the visit: liver_mean, liver_sd, blood_pool_mean, blood_pool_sd, mediastinum, uptake_minutes, injected_mbq,
    scanner; of the patient: treatment_start. The first four columns are needed.

    All uptake is SUL (by lean body mass), suv_peak too. SUVbw is not converted, and limits that PERCIST sets in SUL do
    not hold for it.
    """
    from store.response.criteria import CRITERIA

    if criteria not in CRITERIA:
        raise typer.BadParameter(f"--criteria is one of {', '.join(CRITERIA)}, not '{criteria}'")
    if (table is None) == (patient is None):
        raise typer.BadParameter("give either --csv FILE or --patient ID")
    rules = Rules(**protocol)
    if table is not None:
        found = _of_table(table, criteria, rules)
    else:
        found = [_of_patient(str(patient), issuer, criteria, rules, home, config)]
    _print(found, as_json=as_json, growth=growth)


def _of_table(path: Path, criteria: str, rules: Rules) -> list[Response]:
    from store.response.criteria import CRITERIA, check_columns
    from store.response.table import read_table

    if path == Path("-"):
        data = sys.stdin.buffer.read(LARGEST + 1)
    else:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise Refused("too-large", f"{path} has more than {LARGEST >> 20} MiB; judge its patients in parts")
    read = read_table(data)
    for note in read.notes:
        printing.complain(f"nadir: {note}")
    check_columns(criteria, read.columns, read.histories)
    judged = (CRITERIA[criteria](history, rules) for history in read.histories)
    return [replace(one, doubts=(*one.doubts, *read.doubts[one.patient])) for one in judged]


def _of_patient(
    patient: str, issuer: str | None, criteria: str, rules: Rules, home: Path | None, config: Path | None
) -> Response:
    with open_database(home, config) as database:
        from store.course import course
        from store.objects import ObjectStore
        from store.patients import find_patient
        from store.told import in_words, judge

        with database.reading() as session:
            objects = ObjectStore(load_settings(config, {"home": home}).home / "store")
            known = course(session, int(find_patient(session, patient, issuer).id or 0), objects, rules)
        judged = in_words(judge(known, criteria, rules), known)
        whose = [(known.patient.issuer, known.patient.patient_id)]
        tell_exported(database, home, config, f"response of a patient by {criteria}", whose)
    return judged


def _print(found: Sequence[Response], *, as_json: bool, growth: bool) -> None:
    from store.response.growth import growth_of
    from store.response.table import plain

    grown = [growth_of(one) for one in found] if growth else []
    if as_json:
        told = [plain(one) for one in found]
        for patient, rates in zip(told, grown, strict=False):
            patient["growth"] = asdict(rates)
        printing.print_json(told)
        return
    for number, one in enumerate(found):
        if number:
            printing.say("")
        _print_response(one)
        if growth:
            _print_wrapped(f"growth of the {one.quantity}: {grown[number].because}", 0)


def _print_response(found: Response) -> None:
    """Print the table of one patient, then why each verdict was given and what is to be doubted."""
    break_after = "/" if printing.console().width >= 100 else "/\n"

    def narrow(verdict: str | None) -> str:
        return (verdict or "").replace("/", break_after)

    rows = [
        {
            "date": point.date,
            "sum": _value(point.sum),
            "baseline": _percent(point.sum, found.baseline.sum) if point is not found.baseline else "",
            "nadir": _value(point.nadir),
            "to_nadir": _percent(point.sum, point.nadir),
            "target": narrow(point.target),
            "non_target": narrow(point.non_target),
            "new": "yes" if point.new else "no",
            "overall": narrow(found.verdict_of(point)),
        }
        for point in found.time_points
    ]
    unit = _unit(found.unit)
    columns = {
        "date": "date",
        "sum": f"sum\n{unit}",
        "baseline": "to\nbaseline",
        "nadir": f"nadir\n{unit}",
        "to_nadir": "to\nnadir",
        "target": "target",
        "non_target": "non-target",
        "new": "new",
        "overall": "overall",
    }
    if not unit:  # a score: a share of it says nothing
        del columns["baseline"], columns["to_nadir"]
    title = f"{found.patient}: {found.criteria}, {found.quantity}"
    printing.print_table(rows, columns, numbers=("sum", "baseline", "nadir", "to_nadir"), title=title)
    printing.say("")
    for point in found.time_points:
        _print_why(point, found.verdict_of(point))
    best = found.best_overall or "none", found.best_overall_confirmed or "none"
    _print_wrapped("best overall response: {}; confirmed: {}".format(*best), 0)
    for doubt in found.doubts:
        _print_wrapped(f"note: {doubt}", 0)


def _print_why(point: TimePoint, verdict: str) -> None:
    because = re.sub(rf"^({re.escape(verdict)}[:.] )+", "", point.because, flags=re.IGNORECASE)
    _print_wrapped(f"{point.date} {verdict}: {because}", 0)
    for margin in point.margins[:1]:
        unit = _unit(margin.unit)
        deviations = margin.standard_deviations
        of_its = "" if deviations is None else f", {deviations:.1f} standard deviations of it,"
        what = f"{margin.lesion}, {margin.quantity.replace('_', ' ')} {_value(margin.value)} {unit}".rstrip()
        change = f"{_value(margin.change, '+')} {unit}".rstrip() + of_its
        _print_wrapped(f"nearest: {what}: {change} would give {margin.verdict}", 2)
    for doubt in point.doubts:
        _print_wrapped(f"note: {doubt}", 2)


def _unit(ucum: str) -> str:
    """Return a UCUM unit without its annotation, empty for a plain number."""
    return "" if ucum == "1" else re.sub(r"\{.*?\}", "", ucum)


def _print_wrapped(text: str, indent: int) -> None:
    """Print a sentence; in a terminal that is too narrow the lines after its first stand further right."""
    console = printing.console()
    width = console.width if console.is_terminal else sys.maxsize
    begin, go_on = " " * indent, " " * (indent + 2)
    printing.say(
        textwrap.fill(text, width, initial_indent=begin, subsequent_indent=go_on, break_on_hyphens=False)
    )


def _value(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{round(value, 1 if abs(value) >= 10 else 3):{sign}.12g}"


def _percent(value: float | None, of: float | None) -> str:
    from store.response.burden import change_percent

    return "" if value is None or not of else f"{change_percent(value, of):+.1f} %"


__all__ = ["response"]
