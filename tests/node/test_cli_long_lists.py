"""`nadir findings`, `jobs list` and `studies` of a node after years of use."""

from __future__ import annotations

import csv
import json
import weakref
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from click.testing import Result
from empty_database import empty_database
from many_findings import NOW, fill
from sqlalchemy import event
from typer.testing import CliRunner

from node.cli import app
from store.findings import list_findings
from store.prior_tables import Prior, PriorSearch
from store.tables import Measurement

FINDINGS, MEASUREMENTS, JOBS, STUDIES = 1200, 4800, 120, 60


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


def asked(home: Path, *words: str) -> Result:
    done = CliRunner().invoke(app, [*words, "--home", str(home)])
    assert done.exit_code == 0, (done.output, done.exception)
    return done


def told(home: Path, *flags: str) -> str:
    return asked(home, "findings", *flags).stdout


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


def test_the_table_of_jobs_begins_with_the_newest_ends_somewhere_and_says_what_it_leaves_out(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = json.loads(asked(home, "jobs", "list", "--json").stdout)
    assert [row["id"] for row in rows] == list(range(1, JOBS + 1))
    done = asked(home, "jobs", "list", "--at-most", "3")
    assert [line.split()[0] for line in done.stdout.splitlines()[2:]] == ["120", "119", "118"]
    assert done.stderr == "nadir: 117 further jobs are not listed; --at-most lists more\n"
    assert json.loads(asked(home, "jobs", "list", "--at-most", "3", "--json").stdout) == rows[-3:]
    monkeypatch.setattr("node.cli_jobs.MOST_LISTED", 100)
    done = asked(home, "jobs", "list")
    assert (len(done.stdout.splitlines()) - 2, done.stderr.split()[1]) == (100, "20")
    assert len(json.loads(asked(home, "jobs", "list", "--json").stdout)) == JOBS
    dead = [row["id"] for row in rows if row["state"] == "dead"]
    done = asked(home, "jobs", "list", "--state", "dead")
    assert [int(line.split()[0]) for line in done.stdout.splitlines()[2:]] == dead[::-1] != []
    assert done.stderr == ""


def test_the_table_of_studies_ends_somewhere_and_says_what_it_leaves_out(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.cli_studies.MOST_LISTED", 50)
    done = asked(home, "studies")
    assert len(done.stdout.splitlines()) - 2 == 50
    assert done.stderr == "nadir: 10 further studies are not listed; --at-most lists more\n"
    assert len(json.loads(asked(home, "studies", "--json").stdout)) == STUDIES
    done = asked(home, "studies", "--at-most", "60")
    assert (len(done.stdout.splitlines()) - 2, done.stderr) == (STUDIES, "")


def test_the_table_of_findings_holds_the_newest_and_says_what_it_leaves_out(
    home: Path, most: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.cli_findings.MOST_LISTED", 100)
    done = asked(home, "findings")
    assert done.stderr == "nadir: 1100 further findings are not listed; --at-most lists more\n"
    assert len([line for line in done.stdout.splitlines() if " Nodule " in line]) == 100
    assert len(most) - 1 == max(most) == 400, "nothing else is read"
    rows = json.loads(told(home, "--json"))
    newest = sorted({row["finding"] for row in rows})[-30:]
    assert [row for row in rows if row["finding"] in newest] == json.loads(
        told(home, "--json", "--at-most", "30")
    )
    assert len(list(csv.DictReader(StringIO(told(home, "--csv", "--at-most", "7"))))) == 28
    done = asked(home, "findings", "--at-most", str(FINDINGS))
    assert done.stderr == ""


def test_the_table_of_priors_has_the_newest_searches_and_says_what_it_leaves_out(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = empty_database(home)
    when = {"run_after": NOW, "requested_at": NOW}
    with database.transaction() as session:
        for number in range(1, 8):
            session.add(PriorSearch(id=number, study_pk=number, source="PACS@h:104", state="done", **when))
            session.flush()
            state = "parked" if number in (2, 3) else "done"
            session.add(Prior(search_pk=number, study_instance_uid=f"1.{number}", state=state, **when))
    database.dispose()
    rows = json.loads(asked(home, "priors", "list", "--json").stdout)
    assert [row["study_instance_uid"] for row in rows if row["study_instance_uid"]] == [
        f"1.{n}" for n in range(1, 8)
    ]
    monkeypatch.setattr("node.cli_priors.MOST_LISTED", 5)
    done = asked(home, "priors", "list")
    assert done.stderr == "nadir: 2 further searches are not listed; --at-most lists more\n"
    assert len(done.stdout.splitlines()) - 2 == 10
    assert json.loads(asked(home, "priors", "list", "--json", "--at-most", "5").stdout) == rows[4:]
    done = asked(home, "priors", "list", "--state", "parked", "--at-most", "1", "--json")
    assert json.loads(done.stdout) == [rows[5]]
    assert asked(home, "priors", "list", "--at-most", "7").stderr == ""
