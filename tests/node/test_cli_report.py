from __future__ import annotations

import csv
import json
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from course_rows import Clock, Linked, lesion, patient_pk, visit
from small_node import SmallNode
from typer.testing import CliRunner

from node.cli import app
from node.report.longitudinal.stored import objects_of
from plugins.errors import Refused
from store.course import Course, course
from store.objects import ObjectStore
from store.tracking.link import Kind

JANUARY, MARCH = date(2026, 1, 10), date(2026, 3, 10)
ONE = "2.25.1"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a node: in P1 a lesion of 20 and then 13 mm, in P2 and P3 one at one visit."""
    folder = tmp_path_factory.mktemp("report") / "home"
    small = SmallNode.make(folder)
    with small.database.transaction() as session:
        clock = Clock()
        first = visit(session, clock, JANUARY, [lesion(ONE, 20, label="Nodule A")])
        links = [Linked(kind=Kind.SAME, uid=ONE, earlier=[ONE], study=first)]
        visit(session, clock, MARCH, [lesion(ONE, 13, label="Nodule A")], links)
        visit(session, clock, JANUARY, [lesion("2.25.2", 30)], patient={"patient_id": "P2"})
        visit(session, clock, JANUARY, [lesion("2.25.3", 15)], patient={"patient_id": "P3"})
    yield folder
    small.database.dispose()


def run(home: Path, *words: str) -> Result:
    said = CliRunner().invoke(app, ["report", *words, "--home", str(home)], catch_exceptions=True)
    if isinstance(said.exception, Exception):
        raise said.exception
    return said


def test_the_report_of_a_patient_is_a_page_data_or_a_document(home: Path, tmp_path: Path) -> None:
    page = run(home, "--patient", "P1").stdout
    assert page.startswith("<!doctype html>") and "partial response" in page
    assert "its images are no longer here" in page
    told = json.loads(
        run(
            home, "--patient", "P1", "--format", "json", "--criteria", "recist1.1", "--criteria", "who"
        ).stdout
    )
    assert [r["criteria"] for r in told["responses"]] == ["recist1.1", "who"]
    assert [p["sum"] for p in told["responses"][0]["time_points"]] == [20.0, 13.0]
    (row, _) = csv.DictReader(StringIO(run(home, "--patient", "P1", "--format", "csv").stdout))
    assert (row["lesion"], row["name"], row["counted_mm"], row["overall"]) == ("T1", "Nodule A", "20", "")
    file = tmp_path / "report.pdf"
    run(home, "--patient", "P1", "--format", "pdf", "--out", str(file))
    assert file.read_bytes()[:5] == b"%PDF-"


def test_the_protocol_is_that_of_the_command(home: Path) -> None:
    told = json.loads(run(home, "--patient", "P1", "--format", "json", "--confirm-days", "0").stdout)
    assert told["responses"][0]["best_overall"] == "PR"


def test_the_cohort_has_every_patient_with_two_visits(home: Path) -> None:
    told = json.loads(run(home, "--cohort", "--format", "json").stdout)
    ((one,), left_out) = told["patients"], told["left_out"]
    assert (one["patient"], one["best_percent"], one["verdicts"], left_out) == (
        "P1",
        -35.0,
        [[59, "PR"]],
        ["P2", "P3"],
    )
    assert "<svg" in run(home, "--cohort").stdout


def test_a_cohort_is_read_patient_by_patient_none_is_held_longer_and_it_says_how_far_it_is(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[Course]] = []
    told: list[tuple[int, int]] = []
    before: list[int] = []

    def watched(*given: Any) -> Course:
        before.append(sum(one() is not None for one in held))
        known = course(*given)
        held.append(weakref.ref(known))
        return known

    @contextmanager
    def advancing(what: str) -> Iterator[Callable[[int, int], None]]:
        yield lambda done, total: told.append((done, total))

    monkeypatch.setattr("store.course.course", watched)
    monkeypatch.setattr("node.printing.advancing", advancing)
    rows = list(csv.DictReader(StringIO(run(home, "--cohort", "--format", "csv").stdout)))
    assert [row["patient"] for row in rows] == ["P1"]
    assert told == [(0, 3), (1, 3), (2, 3)]
    assert max(before) <= 1  # the one before, whose name is still bound
    assert not any(one() for one in held)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--patient", "P1", "--cohort"),
        ("--patient", "P1", "--criteria", "nonsense"),
        ("--patient", "P1", "--out", "course.pdf"),
        ("--patient", "P1", "--format", "csv", "--out", "course.JSON"),
    ],
)
def test_a_command_line_that_is_wrong_is_told(home: Path, words: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, ["report", *words, "--home", str(home)]).exit_code == 2
    assert not Path("course.pdf").exists()


def test_a_patient_who_is_not_here_is_refused(home: Path) -> None:
    with pytest.raises(Refused, match="P9"):
        run(home, "--patient", "P9")


def test_the_images_of_a_course_are_found_by_study_and_series(home: Path) -> None:
    small = SmallNode.make(home)
    with small.database.reading() as session:
        known = course(session, patient_pk(session))
        found = objects_of(session, known, ObjectStore(home / "store"))
    for one in known.visits:
        ((uids,),) = [found.images_of(one.study_instance_uid).values()]
        assert found.open_object(uids[0]).suffix == ".dcm"
    assert found.images_of("1.2.99") == {}
    with pytest.raises(KeyError):
        found.open_object("1.2.99")
    small.database.dispose()
