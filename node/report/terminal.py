"""The numbers of a report as tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from node.report.overlays import pretty_unit, rounded
from node.report.shown import StudyReport, Truth
from node.report.table import Compared, caveat, compare

NODULE_COLUMNS = (("long_axis", "long axis mm"), ("volume", "volume ml"), ("suv_max", "SUVmax"))
LUNG_COLUMNS = (("laa_950", "LAA-950 %"), ("perc_15", "Perc15 HU"))
FOUND_COLUMNS = (
    ("long_axis", "long"),
    ("short_axis", "short"),
    ("volume", "volume"),
    ("suv_max", "SUVmax"),
    ("laa_950", "LAA-950"),
    ("perc_15", "Perc15"),
)


def truth_table(reports: Sequence[StudyReport], truth: Sequence[Truth], kind: str) -> Table:
    """Return truth beside measurement of all `nodule`s or `lung`s, one row for each and date; 80 columns wide."""
    columns = NODULE_COLUMNS if kind == "nodule" else LUNG_COLUMNS
    table = Table(
        title=f"{kind.capitalize()}s: truth beside measurement", box=SIMPLE_HEAD, title_justify="left"
    )
    table.add_column("date", no_wrap=True)
    table.add_column(kind, no_wrap=True)
    for _, words in columns:
        table.add_column(f"{words}\n true measured", justify="right", no_wrap=True)
    missing = False
    for report, known in zip(reports, truth, strict=True):
        rows = [row for row in compare(report, known) if row.kind == kind]
        for number, thing in enumerate(dict.fromkeys(row.thing for row in rows)):
            values = {row.name: row for row in rows if row.thing == thing}
            table.add_row(
                report.date if number == 0 else "", thing, *(_pair(values.get(n)) for n, _ in columns)
            )
            missing = missing or any(row.measured is None for row in values.values())
        table.add_section()
    told = ["–: nothing was found there on this kind of image"] if missing else []
    if kind == "nodule" and (words := caveat(reports)):
        told.append(words)
    table.caption, table.caption_justify = "\n".join(told), "left"
    return table


def _pair(row: Compared | None) -> str:
    if row is None:
        return ""
    measured = "–" if row.measured is None else rounded(row.measured)
    style = "yellow" if row.measured is None else "bold"
    return f"{rounded(row.true):>5} [{style}]{measured:>8}[/]"


def findings_table(reports: Sequence[StudyReport]) -> Table:
    """Return what was found, one row for each finding, with a column for each number that there is."""
    there = {m.name: m for report in reports for finding in report.findings for m in finding.measurements}
    columns = [(name, words) for name, words in FOUND_COLUMNS if name in there]
    table = Table(title="Found", box=SIMPLE_HEAD, title_justify="left", collapse_padding=True, pad_edge=False)
    table.add_column("date", no_wrap=True)
    table.add_column("finding", overflow="ellipsis", no_wrap=True)
    table.add_column("analysis", no_wrap=True)
    for name, words in columns:
        unit = pretty_unit(there[name].unit)
        table.add_column(f"{words}\n{unit}", justify="right", no_wrap=True)
    for report in reports:
        for number, finding in enumerate(report.findings):
            found = [finding.measurement(name) for name, _ in columns]
            cells = ["" if m is None else rounded(m.value) for m in found]
            table.add_row(report.date if number == 0 else "", escape(finding.label), finding.plugin, *cells)
        table.add_section()
    return table
