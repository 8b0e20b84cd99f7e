"""`nadir findings` of a node after years of use."""

from __future__ import annotations

import csv
import json
import weakref
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from empty_database import empty_database
from many_findings import fill
from sqlalchemy import event
from typer.testing import CliRunner

from node.cli import app
from store.findings import list_findings
from store.tables import Measurement

FINDINGS, MEASUREMENTS = 1200, 4800


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a node with 1,200 findings of four numbers each."""
    folder = tmp_path_factory.mktemp("home")
    database = empty_database(folder)
    assert fill(database, findings=FINDINGS).measurements == MEASUREMENTS
    database.dispose()
    return folder


@pytest.fixture
def most() -> Iterator[list[int]]:
    """Give how many measurements are held at once, of all times at which one was read."""
    held: dict[int, weakref.ref[Measurement]] = {}
    seen = [0]

    def read(row: Measurement, context: object) -> None:
        key = id(row)
        held[key] = weakref.ref(row, lambda _: held.pop(key))
        seen.append(len(held))

    event.listen(Measurement, "load", read)
    yield seen
    event.remove(Measurement, "load", read)


def told(home: Path, *flags: str) -> str:
    done = CliRunner().invoke(app, ["findings", *flags, "--home", str(home)])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


@pytest.mark.parametrize("form", ["--csv", "--json"])
def test_a_file_of_all_findings_is_written_while_few_of_them_are_held(
    home: Path, most: list[int], form: str
) -> None:
    text = told(home, form, "--superseded")
    rows = json.loads(text) if form == "--json" else list(csv.DictReader(StringIO(text)))
    assert len(rows) == len(most) - 1 == MEASUREMENTS
    assert max(most) <= 2000


def test_the_json_that_is_written_row_by_row_is_that_of_the_whole_list(home: Path) -> None:
    database = empty_database(home)
    with database.reading() as session:
        rows = list_findings(session)
    database.dispose()
    assert len({row["patient_id"] for row in rows}) == 15
    assert told(home, "--json") == json.dumps(rows, indent=2) + "\n"
    assert told(home, "--json", "--patient", "nobody") == "[]\n"
