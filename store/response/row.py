"""The rows of a table of measurements: text, separator, columns; what a row means is not asked here."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from plugins.errors import Refused
from store.response.cell import Cell
from store.response.heading import has_own_unit, other_unit, plain_heading, unit_of

NEEDED = ("patient", "lesion", "date", "role")
WORDS = ("site", "node", "status", "scanner", "treatment_start")
LENGTHS = ("long_axis_mm", "short_axis_mm")
OF_VISIT = (
    "liver_mean",
    "liver_sd",
    "blood_pool_mean",
    "blood_pool_sd",
    "mediastinum",
    "uptake_minutes",
    "injected_mbq",
)
NUMBERS = (
    *LENGTHS,
    *OF_VISIT,
    *("volume_mm3", "volume_ml", "suv_peak", "tlg", "deauville"),
    *("long_axis_sd_mm", "short_axis_sd_mm", "volume_sd_mm3", "volume_sd_ml", "suv_peak_sd"),
)
ALSO: Mapping[str, str] = {
    "patient_id": "patient",
    "lesion_id": "lesion",
    "organ": "site",
    "long_axis": "long_axis_mm",
    "longest_diameter_mm": "long_axis_mm",
    "short_axis": "short_axis_mm",
    "volume": "volume_mm3",
    "volume_sd": "volume_sd_mm3",
    "volume_cm3": "volume_ml",
    "volume_cc": "volume_ml",
    "volume_sd_cm3": "volume_sd_ml",
    "sul_peak": "suv_peak",
    "sulpeak": "suv_peak",
    "suvpeak": "suv_peak",
    "sul_peak_sd": "suv_peak_sd",
    "deauville_score": "deauville",
    "blood_pool": "blood_pool_mean",
    "liver": "liver_mean",
    "mediastinum_mean": "mediastinum",
}
"""Other names of columns."""
KNOWN = {**{name: name for name in (*NEEDED, *WORDS, *NUMBERS)}, **ALSO}
SEPARATORS = (",", ";", "\t")
EMPTY = "the file is empty; it needs a line of column names and one row for each lesion and visit"
UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One lesion at one visit, as it stands in the table."""

    line: int
    """Line of the file, from 1."""
    cells: Mapping[str, Cell]
    """By column."""
    comma: bool
    """Whether a comma in a number can only be a decimal comma."""

    def __getitem__(self, column: str) -> Cell:
        """Return a cell, an empty one where the table has no such column."""
        return self.cells.get(column) or Cell("", self.line, column)

    def number(self, column: str) -> float | None:
        """Return a number. Raises Refused (`Cell.number`)."""
        value = self[column].number(comma=self.comma)
        return None if value is None else float(value)

    def text(self, column: str) -> str:
        """Return a text that has to be there. Raises Refused (`missing-value`)."""
        if not self[column].text:
            raise self[column].refused("missing-value", f"write the {column}")
        return self[column].text

    def day(self) -> date:
        """Return the date of the visit. Raises Refused (`missing-value`, `bad-date`)."""
        found = self["date"].date()
        if found is None:
            raise self["date"].refused("missing-value", "write the date as 2026-01-31")
        return found


def read_rows(data: bytes) -> tuple[tuple[Row, ...], frozenset[str], tuple[str, ...]]:
    """Return the rows of a CSV file, the columns that it has of those that are known, and what was passed over.

    Raises Refused as `store.response.table.read_table` says.
    """
    separator, records = _records(_decoded(data))
    (line, names), *lines = records
    columns, notes = _columns(names, line)
    rows = tuple(_row(at, cells, columns, separator) for at, cells in lines)
    if not rows:
        raise Refused(
            "empty-table", "the table names columns and has no row; add one for each lesion and visit"
        )
    _one_decimal_mark(rows)
    return rows, frozenset(filter(None, columns)), notes


def _decoded(data: bytes) -> str:
    wide = data.startswith(UTF16)
    if b"\0" in data and not wide:
        raise Refused("not-text", "the file is no text; save the sheet as CSV (UTF-8)")
    try:
        return data.decode("utf-16" if wide else "utf-8-sig").replace("\N{NO-BREAK SPACE}", " ")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise Refused(
            "not-text", f"line {line}: there are bytes that are no UTF-8; save as CSV (UTF-8)"
        ) from error


def _records(text: str) -> tuple[str, list[tuple[int, list[str]]]]:
    """Return the separator and what stands between them, by line; lines without anything are left out."""

    def known(separator: str) -> int:
        _, names = next(_split(text, separator), (0, []))
        return sum(_name(name) in KNOWN for name in names)

    try:
        separator = max(SEPARATORS, key=known)
        records = list(_split(text, separator))
    except csv.Error as error:
        raise Refused("not-text", f"the file cannot be read as CSV: {error}; save the sheet again") from error
    if not records:
        raise Refused("empty-table", EMPTY)
    return separator, records


def _split(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    return ((reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells))


def _name(heading: str) -> str:
    """Return the name of a column as it is looked up: `Long axis (mm)` is `long_axis_mm`."""
    whole = re.sub(r"[^a-z0-9]+", "_", plain_heading(heading)).strip("_")
    short = re.split(r"[(\[]", heading)[0]
    if whole in KNOWN or short == heading:
        return whole
    name = _name(short)
    known = KNOWN.get(name, "")
    return known if has_own_unit(heading, known) else name


def _columns(names: Sequence[str], line: int) -> tuple[list[str], tuple[str, ...]]:
    """Return the known name of each column, empty for one that is not known, and what is to be told."""
    found = [KNOWN.get(_name(name), "") for name in names]
    if not any(found):
        raise Refused(
            "no-header",
            f"line {line}: no name of a column; the first line names them: {', '.join(NEEDED)} ...",
        )
    for heading, column in zip(names, found, strict=True):
        if unit := other_unit(heading, column):
            raise Refused(
                "other-unit",
                f"line {line}, column {column}: the heading {heading.strip()!r} names {unit}; nothing is converted, so "
                f"give the numbers in {unit_of(column)} and name the column {column}",
            )
    for name in NEEDED:
        if name not in found:
            has = ", ".join(filter(None, found))
            raise Refused("missing-column", f"line {line}: there is no column {name}, only {has}; add it")
    for name in filter(None, found):
        if found.count(name) > 1:
            raise Refused(
                "column-twice", f"line {line}: column {name} is there more than once; leave one of them"
            )
    notes = []
    if ignored := [
        name.strip() for name, known in zip(names, found, strict=True) if name.strip() and not known
    ]:
        notes.append(f"columns that are not known were ignored: {', '.join(ignored)}")
    if any(_name(name) in ("volume", "volume_sd") for name in names):
        notes.append("a column of volumes names no unit and was taken as mm3")
    return found, tuple(notes)


def _row(line: int, cells: list[str], columns: Sequence[str], separator: str) -> Row:
    if len(cells) != len(columns):
        raise Refused(
            "uneven-row",
            f"line {line}: {len(cells)} cells under {len(columns)} names of columns; give each name its cell, and "
            "quote what holds the separator, as 70,1 does among commas",
        )
    named = {name: Cell(text, line, name) for name, text in zip(columns, cells, strict=True) if name}
    for cell in named.values():
        if not cell.text.isprintable():
            raise cell.refused(
                "bad-character", "with a line break or control character; is a quote left open?"
            )
    return Row(line=line, cells=named, comma=separator != ",")


def _one_decimal_mark(rows: Iterable[Row]) -> None:
    cells = [row[name] for row in rows for name in NUMBERS if name in row.cells]
    comma = next((cell for cell in cells if "," in cell.text), None)
    point = next((cell for cell in cells if "." in cell.text), None)
    if comma and point:
        raise point.refused(
            "mixed-decimals", f"and a comma on line {comma.line}; use one decimal mark in the whole table"
        )


__all__ = ["LENGTHS", "OF_VISIT", "Row", "read_rows"]
