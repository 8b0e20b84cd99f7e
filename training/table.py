"""The rows of a CSV that a person wrote: each cell under a name of its own, or the line that is not so is told."""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from plugins.errors import Refused
from store.file_hash import sha256_of
from store.walk import is_inside


def read_rows(file: Path, needed: Collection[str], code: str) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a CSV with the numbers of their lines, each cell by the name of its column.

    Refuses, with `code`: a file that cannot be read as CSV in UTF-8, a column of `needed` that is not there, a name
    of two columns, and a line with more or fewer cells than there are names.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, strict=True)
            names = list(reader.fieldnames or ())
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise Refused(
            code, f"{file} cannot be read as CSV ({error}); save the sheet as CSV (UTF-8)"
        ) from error
    if lacking := [name for name in needed if name not in names]:
        raise Refused(
            code, f"{file} has no column {', '.join(lacking)}; its first line names them, commas between"
        )
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise Refused(code, f"{file} has more than one column '{twice[0]}'; leave one of them")
    for line, row in rows:
        if None in row or None in row.values():
            raise Refused(
                code,
                f"line {line} of {file} has more or fewer cells than there are columns ({len(names)}); "
                "give each column its cell, and quote what holds a comma",
            )
    return rows


def read_filled(file: Path, needed: Collection[str], code: str) -> list[tuple[int, dict[str, str]]]:
    """Return what `read_rows` returns. Refuses, with `code`, what that refuses, and a table without a row."""
    if rows := read_rows(file, needed, code):
        return rows
    raise Refused(code, f"{file} has no row below the names of its columns; give it one for each case")


def word_in(row: Mapping[str, str], name: str, line: int, file: Path, code: str) -> str:
    """Return the word in a cell without blanks around it. Refuses, with `code`, an empty one."""
    if word := row[name].strip():
        return word
    raise Refused(code, f"'{name}' in line {line} of {file} is empty; fill it in")


def number_in(
    row: Mapping[str, str],
    name: str,
    line: int,
    file: Path,
    code: str,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
) -> float:
    """Return the number in a cell.

    Refuses, with `code`, what is no finite number, not above `above`, below `least` or beyond `most`.
    """
    with suppress(ValueError):
        if math.isfinite(number := float(row[name])) and number > above and least <= number <= most:
            return number
    bounds = ((" above", above), (" from", least), (" up to", most))
    wanted = "".join(f"{word} {bound:g}" for word, bound in bounds if math.isfinite(bound))
    raise Refused(code, f"'{name}' in line {line} of {file} is no number{wanted}: '{row[name]}'; correct it")


def hashes_of(files: Mapping[str, str], line: int, file: Path) -> dict[str, str]:
    """Return the sha256 of the files of a row by their roles; they lie in the folder of the table.

    Refuses `outside` (a path that leads out of it) and `missing-files`.
    """
    found = {}
    for role, path in files.items():
        if not is_inside(path):
            raise Refused(
                "outside",
                f"line {line} of {file} names {path!r}, which is not in the folder of the table; put the file there, "
                "and write its path from there",
            )
        try:
            found[role] = sha256_of(file.parent / path)
        except OSError as error:
            raise Refused(
                "missing-files",
                f"line {line} of {file} needs {path}, which cannot be read ({error.strerror}); put it there, or "
                "correct the line",
            ) from error
    return found


__all__ = ["hashes_of", "number_in", "read_filled", "read_rows", "word_in"]
