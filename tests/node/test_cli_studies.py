"""The study list, and what would teach most, by the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edited_seg import Masks, edited
from empty_database import empty_database, place_database
from labelled_node import LabelledNode, truth
from small_node import SmallNode
from sqlmodel import Session, col, update
from typer.testing import CliRunner
from weeks_of_use import MONDAY, insert, week_of

from node.cli import app
from store.choices import keep
from store.model_tables import FindingDoubt
from store.objects import ObjectStore
from store.tables import Finding


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a node with thirty studies: the networks doubt most in study 7, and 9 was looked at."""
    folder = tmp_path_factory.mktemp("home")
    database = empty_database(folder)
    with database.transaction() as session:
        insert(session, list(week_of(0, np.random.default_rng(0))))
        session.exec(update(Finding).values(category_value="49755003"))
        for number in (7, 9):
            _doubt(session, 100 * number)
        keep(session, 9, "confirm", "2.25.900", "true", "Reader", MONDAY, study_instance_uid="1.2.826.9")
    database.dispose()
    return folder


def _doubt(session: Session, finding_pk: int) -> None:
    session.exec(update(FindingDoubt).where(col(FindingDoubt.finding_pk) == finding_pk).values(value=0.99))


def told(home: Path, *flags: str) -> str:
    answer = CliRunner().invoke(app, ["studies", *flags, "--home", str(home)])
    assert answer.exit_code == 0, (answer.output, answer.exception)
    return answer.stdout


def rows(home: Path, *flags: str) -> Any:
    return json.loads(told(home, *flags, "--json"))


def test_the_list_says_of_every_study_what_was_found_and_whether_a_person_looked(home: Path) -> None:
    listed = rows(home)
    assert len(listed) == 30
    seen = {row["patient_id"]: row for row in listed}
    assert (seen["P9"]["reviewed"], seen["P7"]["reviewed"]) == (1, 0)
    assert seen["P7"]["study_description"] == "CT chest"
    assert len(rows(home, "--at-most", "3")) == 3
    heading, _, first, *_ = told(home).splitlines()
    assert heading.split() == ["patient", "date", "description", "state", "findings", "reviewed"]
    assert first.split()[-1] in ("yes", "no")


def test_the_most_doubted_finding_that_nobody_looked_at_comes_first_and_says_why(home: Path) -> None:
    first, *others = rows(home, "--by", "teaching", "--at-most", "5")
    assert len(others) == 4
    assert (first["rank"], first["patient_id"], first["finding"], first["use"]) == (
        1,
        "P7",
        "Nodule 1",
        "learn",
    )
    assert "the networks are unsure: entropy 0.99, more than 9" in first["why"]
    assert "2.25.900" not in {row["tracking_uid"] for row in (first, *others)}
    table = told(home, "--by", "teaching")
    assert table.splitlines()[2].split()[0] == "P7"
    assert "Doe" not in table


def test_a_node_without_studies_says_so(tmp_path: Path) -> None:
    place_database(tmp_path)
    assert told(tmp_path) == "no studies\n"
    assert told(tmp_path, "--by", "teaching").startswith("nothing to look at")


def test_an_outline_that_a_reader_sent_back_is_looked_at_and_what_is_like_it_no_longer_new(
    tmp_path: Path,
) -> None:
    made = SmallNode.make(tmp_path / "node")
    node = LabelledNode(
        home=made.home, database=made.database, objects=ObjectStore(made.home / "store", sync=False)
    )
    seen = node.visit("P1")
    before = rows(node.home, "--by", "teaching")
    assert {row["finding"] for row in before} == {"Nodule 1", "Nodule 2", "Nodule 3"}

    def wider(masks: Masks) -> Masks:
        changed = masks.copy()
        changed[..., 1] = truth(2, 1.2)
        return changed

    node.take(edited(seen.seg, seen.images, wider))
    node.database.dispose()
    after = rows(node.home, "--by", "teaching")
    assert {row["finding"] for row in after} == {"Nodule 1", "Nodule 3"}
    assert "kernel 'B45f' was only once outlined (1 mask)" in after[0]["why"]
    (study,) = rows(node.home)
    assert (study["findings"], study["reviewed"], study["is_reviewed"]) == (3, 1, False)
