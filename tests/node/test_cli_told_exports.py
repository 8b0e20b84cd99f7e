"""Whoever takes patients' data away at the command line is in the audit trail, with whose they are."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from audit_schema import judge
from course_rows import Clock, lesion, visit
from small_node import SmallNode
from typer.testing import CliRunner

from node.cli import app
from node.cli_options import operator
from store import audit

pytestmark = pytest.mark.sec


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallNode]:
    """Give a node with two patients, each of one lesion."""
    made = SmallNode.make(tmp_path / "home")
    with made.database.transaction() as session:
        clock = Clock()
        visit(session, clock, date(2026, 1, 10), [lesion("2.25.1")])
        visit(session, clock, date(2026, 1, 10), [lesion("2.25.2")], patient={"patient_id": "P2"})
    yield made
    made.database.dispose()


@pytest.mark.parametrize(
    ("words", "what", "patients"),
    [
        (["report", "--patient", "P1", "--format", "csv"], "course of a patient as csv", 1),
        (["report", "--patient", "P1", "--format", "html"], "course of a patient as html", 1),
        (["report", "--cohort", "--format", "csv"], "cohort as csv", 2),
        (["findings", "--csv"], "findings as CSV", 2),
        (["findings", "--patient", "P2", "--json"], "findings as JSON", 1),
        (["response", "--patient", "P1"], "response of a patient by recist1.1", 1),
    ],
)
def test_who_takes_data_away_is_told_with_whose_they_are(
    small: SmallNode, tmp_path: Path, words: list[str], what: str, patients: int
) -> None:
    done = CliRunner().invoke(app, [*words, "--home", str(tmp_path / "home")])
    assert done.exit_code == 0, done.output
    assert told(small) == [(operator(), what, patients)]


def test_a_backup_is_told_with_where_it_is(small: SmallNode, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    CliRunner().invoke(app, ["backup", str(folder), "--home", str(tmp_path / "home")])
    ((who, what, patients),) = told(small)
    assert (who, patients) == (operator(), 0)
    assert what.startswith("backup 2") and what.endswith(f" in {folder}")


def test_what_was_refused_is_told_of_nobody(small: SmallNode, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", "--patient", "NOBODY", "--home", str(tmp_path / "home")])
    assert done.exit_code == 1 and told(small) == []


def told(small: SmallNode) -> list[tuple[str, str, int]]:
    """Return who exported what of how many patients, by the trail."""
    found = []
    with small.database.reading() as session:
        messages = [judge(row.message) for row in audit.records(session)]
    for message in messages:
        assert message[0][0].attrib["originalText"] == "Export"
        file, *patients = message.findall("ParticipantObjectIdentification")
        assert all(one.attrib["ParticipantObjectTypeCodeRole"] == "1" for one in patients)
        who = message.findall("ActiveParticipant")[0].attrib["UserID"]
        found.append((who, file.findtext("ParticipantObjectName") or "", len(patients)))
    return found
