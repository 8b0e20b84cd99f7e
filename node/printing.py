"""What the command line prints: results on standard output, everything else on standard error."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from store.charset import STEERS

if TYPE_CHECKING:
    from rich.console import Console

    from node.doctor import Line

COMMANDS = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{STEERS}]")
"""What a terminal obeys instead of showing it; a file name or a tag of somebody else may hold it."""
MINUS = "\N{MINUS SIGN}"
WIDE = 1000
SAID_OF_DELIVERY = ("last_status", "last_error", "confirm_error")
"""Columns of what is not a terminal: a program that reads a table wants one line a row."""
MEASURED = {
    "long_axis": "long",
    "short_axis": "short",
    "volume": "volume",
    "suv_max": "SUVmax",
    "suv_peak": "SUVpeak",
    "mtv": "MTV",
    "tlg": "TLG",
    "laa_950": "LAA-950",
    "perc_15": "Perc15",
}
"""Measurements that a table in the terminal has room for, with their headings."""


def console(*, error: bool = False) -> Console:
    """Return the console of standard output, or of standard error; without colours when it is no terminal."""
    from rich.console import Console

    stream = sys.stderr if error else sys.stdout
    if stream.isatty():
        return Console(file=stream, highlight=False)
    # With a width alone, rich takes 80 columns all the same where TERM says that the terminal is dumb.
    return Console(file=stream, highlight=False, width=WIDE, height=WIDE)


@contextmanager
def advancing(what: str) -> Iterator[Callable[[int, int], None]]:
    """Give what is told how many of how many are done: a bar for a person, nothing for a program."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console(error=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Show a person that something is under way; a program sees nothing of it."""
    if not sys.stderr.isatty():
        yield
        return
    with console(error=True).status(what, spinner="dots"):
        yield


def say(text: object) -> None:
    """Print one line of a result as it stands."""
    sys.stdout.write(f"{_shown(str(text))}\n")


def complain(text: str) -> None:
    """Print one line on standard error."""
    sys.stderr.write(" ".join(_shown(text).split()) + "\n")


def complain_of_more(left_out: int, what: str) -> None:
    """Print on standard error how many further rows a table leaves out, when it does."""
    if left_out > 0:
        complain(f"nadir: {left_out} further {what} are not listed; --at-most lists more")


def print_json(value: object) -> None:
    """Print one JSON value and nothing else."""
    sys.stdout.write(json.dumps(value, indent=2, default=str, allow_nan=False) + "\n")


def print_json_rows(rows: Iterable[Mapping[str, object]]) -> None:
    """Print one JSON list, row by row, as `print_json` prints it whole."""
    before = "["
    for row in rows:
        text = json.dumps(row, indent=2, default=str, allow_nan=False)
        # No string in JSON holds a line break.
        sys.stdout.write(f"{before}\n  " + text.replace("\n", "\n  "))
        before = ","
    sys.stdout.write("[]\n" if before == "[" else "\n]\n")


def print_csv(rows: Iterable[Mapping[str, object]]) -> None:
    """Print the rows of `store.findings.list_findings`, no cell of which runs as a formula."""
    from node.report.table import FIELDS, safe_cell

    writer = csv.writer(sys.stdout)
    writer.writerow(FIELDS)
    writer.writerows([safe_cell(row.get(field)) for field in FIELDS] for row in rows)


def print_table(
    rows: Sequence[Mapping[str, object]],
    columns: Mapping[str, str],
    *,
    numbers: Sequence[str] = (),
    wrapped: Sequence[str] = (),
    title: str | None = None,
) -> None:
    """Print the named columns (key to heading) of the rows: `numbers` to the right, only `wrapped` ones broken."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
        title=None if title is None else escape(title),
        title_justify="left",
        title_style="bold",
    )
    for key, heading in columns.items():
        table.add_column(
            heading,
            justify="right" if key in numbers else "left",
            overflow="fold",
            no_wrap=key not in wrapped,
            min_width=12 if key in wrapped else None,
        )
    for row in rows:
        table.add_row(*(escape(_cell(row.get(key))) for key in columns))
    console().print(table)


def print_report(report: Mapping[str, Any]) -> None:
    """Print findings, flags and files written; what was refused goes to standard error."""
    from plugins.flag_codes import NOTHING_HERE

    rows = [
        {
            "finding": f["label"],
            "plugin": f["plugin"],
            "confidence": f["confidence"],
            "measured": f["measurements"],
        }
        for f in report["findings"]
    ]
    columns = {"finding": "finding"}
    if any(row["confidence"] is not None for row in rows):
        columns["confidence"] = "confidence"
    if rows or not report["failed"]:
        print_measured(rows, columns)
    for sentence, code in dict.fromkeys((flag["sentence"], flag["code"]) for flag in report["flags"]):
        if code != NOTHING_HERE:
            say(f"note: {sentence} ({code})")
    for path in report["outputs"]:
        say(path)


def print_refused(report: Mapping[str, Any]) -> None:
    """Print what was refused, one line each, on standard error."""
    for refusal in report["refused"]:
        complain(f"nadir: refused: {refusal['sentence']} ({refusal['code']})")


def print_findings(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print the rows of `store.findings.list_findings`, one line a finding; all of them are held meanwhile."""
    found: dict[object, dict[str, Any]] = {}
    for row in rows:
        shown = found.setdefault(row["finding"], {**row, "measured": {}})
        if row["name"] is not None:
            shown["measured"][row["name"]] = row
    columns = {"patient_id": "patient", "study_date": "date", "finding": "finding"}
    if any(row["link"] for row in found.values()):
        columns["since"] = "since before"
    print_measured(
        [{**row, "finding": row["label"], "since": _since(row)} for row in found.values()], columns
    )


def _since(row: Mapping[str, Any]) -> str:
    """Return what a lesion was at earlier times, and how sure that is."""
    return f"{row['link']} ({row['link_confidence']:.2f})" if row["link"] else ""


def print_jobs(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the rows of `store.ledger.overview`."""
    shown = [
        {
            **row,
            "created": _minute(row["created_at"]),
            "attempts": f"{row['attempt']}/{row['max_attempts']}",
            "reason": f"{row['error_code']}: {row['error_text']}" if row["error_code"] else "",
        }
        for row in rows
    ]
    columns = {
        "id": "job",
        "patient_id": "patient",
        "study_date": "study",
        "plugin": "analysis",
        "state": "state",
        "attempts": "tries",
        "created": "created",
    }
    if any(row["reason"] for row in shown):
        columns["reason"] = "reason"
    if rows:
        print_table(shown, columns, numbers=("id", "attempts"), wrapped=("patient_id", "reason"))
    else:
        say("no jobs")


def print_job(job: Mapping[str, Any]) -> None:
    """Print what `store.ledger.details` tells of one job."""
    say(f"job {job['id']}: {job['plugin']} {job['plugin_version']}, {job['state']}")
    when = f", {job['study_date']}" if job["study_date"] else ""
    say(f"  patient   {job['patient_id']}{when}, revision {job['revision']}")
    say(f"  study     {job['study_instance_uid']}")
    say(f"  attempts  {job['attempt']} of {job['max_attempts']}")
    for name in ("created", "started", "finished"):
        if job[f"{name}_at"]:
            say(f"  {name:<9} {_minute(job[f'{name}_at'])}")
    if job["error_code"]:
        say(f"  reason    {job['error_text']} ({job['error_code']})")
    say(f"  findings  {job['findings']}")
    for line in dict.fromkeys(
        f"  {'refused' if told['refused'] else 'note':<9} {told['sentence']} ({told['code']})"
        for told in job["refusals"]
    ):
        say(line)
    for result in job["results"]:
        say(f"  result    {result['kind']} {result['sop_instance_uid']}")
    kinds = {result["id"]: result["kind"] for result in job["results"]}
    for delivery in job["deliveries"]:
        said = ", ".join(str(delivery[k]) for k in SAID_OF_DELIVERY if delivery[k])
        state = delivery["state"] + (f" by {delivery['confirmed_by']}" if delivery["confirmed_by"] else "")
        tries = f"{delivery['attempt']} attempt{'' if delivery['attempt'] == 1 else 's'}"
        what = f"{kinds[delivery['result_pk']]} to {delivery['destination']}"
        say(f"  delivery  {what}: {state}, {tries}{said and f', {said}'}")


def print_lines(lines: Sequence[Line]) -> None:
    """Print what `node.doctor.examine` found."""
    from rich.markup import escape

    width = max(len(line.what) for line in lines)
    screen = console()
    for line in lines:
        mark = "[green]ok  [/]" if line.ok else ("[red]FAIL[/]" if line.needed else "[yellow]no  [/]")
        screen.print(f"{mark} {escape(f'{line.what:<{width}}  {line.says}')}", soft_wrap=True)


def print_faults(faults: Sequence[Mapping[str, Any]]) -> None:
    """Print what `nadir fsck` found and what became of it, one line each."""
    for fault in faults:
        what = f"mended: {fault['mended']}" if fault["mended"] else fault["todo"]
        say(f"{fault['invariant']} {fault['code']} {fault['subject']}: {fault['sentence']} -> {what}")
    left = sum(not fault["mended"] for fault in faults)
    say(f"{len(faults)} faults, {left} left" if faults else "clean")


def print_measured(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """Print one table for each analysis (`plugin`), a row a finding: `columns`, then its `measured` as columns.

    `measured` maps a name to value and unit. A finding with none of the usual measurements stands below in a line of
    its own; what is left out is in `--json` and `--csv`.
    """
    if not rows:
        say("no findings")
    for number, plugin in enumerate(dict.fromkeys(row["plugin"] for row in rows)):
        if number:
            say("")
        of_plugin = [row for row in rows if row["plugin"] == plugin]
        _print_usual([row for row in of_plugin if MEASURED.keys() & row["measured"]], columns, plugin)
        for row in (row for row in of_plugin if not MEASURED.keys() & row["measured"]):
            named = " ".join(str(row[key]) for key in columns if key != "confidence" and row[key])
            said = ", ".join(f"{name} {_number(m)}" for name, m in row["measured"].items())
            say(f"{named}: {said or 'nothing measured'}")


def _print_usual(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], plugin: str) -> None:
    from node.report.overlays import pretty_unit

    if not rows:
        say(plugin)
        return
    headings = {}
    for name in MEASURED:
        units = {pretty_unit(row["measured"][name]["unit"]) for row in rows if name in row["measured"]}
        if units:
            headings[name] = f"{MEASURED[name]}\n{units.pop() if len(units) == 1 else ''}"
    shown = [
        {
            **{key: row[key] for key in columns},
            **{
                name: _number(row["measured"][name], with_unit=heading.endswith("\n"))
                for name, heading in headings.items()
                if name in row["measured"]
            },
        }
        for row in rows
    ]
    print_table(
        shown,
        {**columns, **headings},
        numbers=(*headings, "confidence"),
        wrapped=("patient_id", "finding"),
        title=plugin,
    )


def _number(measured: Mapping[str, Any], *, with_unit: bool = True) -> str:
    from node.report.overlays import pretty_unit, rounded

    unit = pretty_unit(measured["unit"]) if with_unit else ""
    return f"{rounded(measured['value'])} {unit}".rstrip()


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else _shown(str(value))


def _shown(text: str) -> str:
    """Return a text as standard output can show it: no commands, a hyphen for a minus that its encoding lacks."""
    shown = COMMANDS.sub("\N{REPLACEMENT CHARACTER}", text)
    return shown if MINUS not in shown or _writes(sys.stdout.encoding, MINUS) else shown.replace(MINUS, "-")


def _writes(encoding: str | None, text: str) -> bool:
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _minute(text: str) -> str:
    """Return an ISO time in UTC, as it is kept, as `2025-01-31 14:05Z`."""
    return f"{text[:16].replace('T', ' ')}Z"
