"""The command `nadir response`: what a course of measurements means by one set of criteria, and why."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from node import printing
from node.cli_options import AsJson, Config, Home
from plugins.errors import Refused
from store.response.rules import USUAL, Rules

if TYPE_CHECKING:
    from store.response.history import History
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
Criteria = Annotated[str, typer.Option(help="recist1.1, irecist, percist, lugano, who or volume.")]
ConfirmDays = Annotated[int, typer.Option(min=0, help="Days after which a response is confirmed.")]
StableDays = Annotated[int, typer.Option(min=0, help="Days after the start for stable disease as best.")]
MostNe = Annotated[
    int, typer.Option("--max-ne", min=0, help="Visits not evaluable between response and confirmation.")
]
AcceptStable = Annotated[
    bool, typer.Option("--accept-stable", help="One stable visit may lie before the confirmation.")
]
Persistence = Annotated[
    Literal["strict", "eortc"],
    typer.Option(
        help="eortc: a partial response lasts until progression; strict: each visit by its own sum."
    ),
]
AfterProgression = Annotated[
    bool, typer.Option("--after-progression", help="What follows progression counts for the best response.")
]
MissingAsNe = Annotated[
    bool, typer.Option("--missing-as-ne", help="Best response is NE without a visit after the baseline.")
]
MostTargets = Annotated[int, typer.Option("--max-targets", min=1, help="Target lesions in all.")]
PerOrgan = Annotated[int, typer.Option("--max-targets-per-organ", min=1, help="Target lesions of one organ.")]
OneOrgan = Annotated[
    bool,
    typer.Option(
        "--nodes-one-organ/--nodes-by-site", help="All lymph nodes are one organ, or each its site."
    ),
]
VolumeChange = Annotated[
    float | None,
    typer.Option(
        "--volume-change",
        min=0,
        help="Change of volume, in percent, that is more than chance; by the long axis when not given.",
        show_default=False,
    ),
]
Markedly = Annotated[
    float, typer.Option("--markedly-above-liver", min=1, help="Uptake over liver for Deauville 5.")
]


def response(
    table: Csv = None,
    patient: Patient = None,
    criteria: Criteria = "recist1.1",
    home: Home = None,
    config: Config = None,
    confirm_days: ConfirmDays = USUAL.confirm_days,
    min_stable_days: StableDays = USUAL.min_stable_days,
    most_ne: MostNe = USUAL.most_not_evaluable,
    accept_stable: AcceptStable = USUAL.accept_stable,
    after_progression: AfterProgression = not USUAL.cut_at_progression,
    missing_as_ne: MissingAsNe = USUAL.missing_as_ne,
    pr_persistence: Persistence = USUAL.pr_persistence,
    most_targets: MostTargets = USUAL.most_targets,
    most_per_organ: PerOrgan = USUAL.most_targets_per_organ,
    nodes_one_organ: OneOrgan = USUAL.nodes_are_one_organ,
    volume_change: VolumeChange = None,
    markedly: Markedly = USUAL.markedly_above_liver,
    as_json: AsJson = False,
) -> None:
    """Judge a course of measurements, from a table (--csv) or of a patient of this node (--patient)."""
    from store.response.criteria import CRITERIA

    if criteria not in CRITERIA:
        raise typer.BadParameter(f"--criteria is one of {', '.join(CRITERIA)}, not '{criteria}'")
    if (table is None) == (patient is None):
        raise typer.BadParameter("give either --csv FILE or --patient ID")
    rules = Rules(
        confirm_days=confirm_days,
        min_stable_days=min_stable_days,
        most_not_evaluable=most_ne,
        accept_stable=accept_stable,
        cut_at_progression=not after_progression,
        missing_as_ne=missing_as_ne,
        pr_persistence=pr_persistence,
        most_targets=most_targets,
        most_targets_per_organ=most_per_organ,
        nodes_are_one_organ=nodes_one_organ,
        volume_change_percent=volume_change,
        markedly_above_liver=markedly,
    )
    if table is not None:
        found = _of_table(table, criteria, rules)
    else:
        judge = CRITERIA[criteria]
        found = [judge(history, rules) for history in _histories(str(patient), home, config)]
    _print(found, as_json=as_json)


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
    check_columns(criteria, read.columns)
    judged = (CRITERIA[criteria](history, rules) for history in read.histories)
    return [replace(one, doubts=(*one.doubts, *read.doubts[one.patient])) for one in judged]


def _histories(patient: str, home: Path | None, config: Path | None) -> list[History]:
    """Return what the node has measured of every patient with this PatientID."""
    raise NotImplementedError  # from store.course


def _print(found: Sequence[Response], *, as_json: bool) -> None:
    from store.response.table import plain

    if as_json:
        printing.print_json([plain(one) for one in found])
        return
    for number, one in enumerate(found):
        if number:
            printing.say("")
        _print_response(one)


def _print_response(found: Response) -> None:
    """Print the table of one patient, then why each verdict was given and what is to be doubted."""
    break_after = "/" if printing.console().width >= 100 else "/\n"

    def narrow(verdict: str | None) -> str:
        return (verdict or "").replace("/", break_after)

    rows = [
        {
            "date": point.date,
            "sum": _value(point.sum),
            "baseline": _percent(point.sum, found.time_points[0].sum) if index else "",
            "nadir": _value(point.nadir),
            "to_nadir": _percent(point.sum, point.nadir),
            "target": narrow(point.target),
            "non_target": narrow(point.non_target),
            "new": "yes" if point.new else "no",
            "overall": narrow(point.overall) if index else "baseline",
        }
        for index, point in enumerate(found.time_points)
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
    title = f"{found.patient}: {found.criteria}, {found.quantity}"
    printing.print_table(rows, columns, numbers=("sum", "baseline", "nadir", "to_nadir"), title=title)
    printing.say("")
    for point in found.time_points:
        _print_why(point)
    best = found.best_overall or "none", found.best_overall_confirmed or "none"
    _print_wrapped("best overall response: {}; confirmed: {}".format(*best), 0)
    for doubt in found.doubts:
        _print_wrapped(f"note: {doubt}", 0)


def _print_why(point: TimePoint) -> None:
    verdict = point.overall or "baseline"
    because = re.sub(rf"^({re.escape(verdict)}: )+", "", point.because, flags=re.IGNORECASE)
    _print_wrapped(f"{point.date} {verdict}: {because}", 0)
    for margin in point.margins[:1]:
        unit = _unit(margin.unit)
        deviations = margin.standard_deviations
        of_its = "" if deviations is None else f", {deviations:.1f} standard deviations of it,"
        what = f"{margin.lesion}, {margin.quantity.replace('_', ' ')} {_value(margin.value)} {unit}"
        change = f"{_value(margin.change, '+')} {unit}{of_its}"
        _print_wrapped(f"nearest: {what}: {change} would give {margin.verdict}", 2)
    for doubt in point.doubts:
        _print_wrapped(f"note: {doubt}", 2)


def _unit(ucum: str) -> str:
    """Return a UCUM unit without its annotation."""
    return re.sub(r"\{.*?\}", "", ucum)


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
    return "" if value is None or not of else f"{100 * (value / of - 1):+.1f} %"


__all__ = ["response"]
