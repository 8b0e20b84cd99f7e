"""I2 to I6 damaged by hand in a small real node: what is found, what is mended, and what is left to a person."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from fsck_faults import LATER, an_object, codes, execute, found, mended
from sqlalchemy import text
from sqlmodel import select
from whole_node import START, WholeNode, image

from store import jobs
from store.database import Database
from store.fsck.check import check
from store.objects import ObjectStore
from store.rerun import rerun
from store.tables import Instance, Job, Result, Study


def drop(node: WholeNode, table: str, kind: str, column: str) -> None:
    """Take the constraints of a kind away that speak of a column, whatever they are called (PostgreSQL)."""
    with node.database.transaction() as session:
        names = session.execute(
            text(
                "SELECT conname FROM pg_constraint WHERE conrelid = CAST(:name AS regclass) AND contype = :kind"
                " AND pg_get_constraintdef(oid) LIKE :column"
            ),
            {"name": table, "kind": kind, "column": f"%{column}%"},
        )
        for (name,) in names.all():
            session.execute(text(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"'))


def test_a_node_that_keeps_its_promises_is_clean(node: WholeNode) -> None:
    assert found(node) == []
    assert found(node, quick=True) == []


def test_i2_two_jobs_of_one_piece_of_work_are_found(node: WholeNode) -> None:
    with node.database.transaction() as session:
        job = session.exec(select(Job).where(Job.id == 1)).one()
        session.add(Job(**{**job.model_dump(exclude={"id"}), "key": "f" * 64}))
    assert codes(node) == [("I2", "job-key"), ("I2", "result-twice")]
    assert [one.mended for one in mended(node)] == ["", ""]


def test_i2_two_answers_that_count_at_once_are_found(node: WholeNode) -> None:
    node.take(image(1, 4), LATER)
    later = LATER + timedelta(minutes=5)
    node.settle(later)
    node.analyse(later)
    assert found(node) == []
    execute(node, "UPDATE finding SET superseded = :no", no=False)
    assert codes(node) == [("I2", "two-answers")]


def test_i3_a_delivery_that_is_done_without_a_status_is_found(node: WholeNode) -> None:
    execute(node, "UPDATE delivery SET last_status = NULL WHERE id = 1")
    assert codes(node) == [("I3", "delivered-without-status")]


def test_i3_a_delivery_of_another_job_or_of_one_that_has_not_ended_is_found(node: WholeNode) -> None:
    execute(node, "UPDATE delivery SET job_pk = 2 WHERE id = 1")
    execute(node, "UPDATE job SET state = 'queued' WHERE id = 2")
    assert codes(node) == [
        ("I3", "delivery-of-another-job"),
        ("I3", "delivered-early"),
        ("I3", "delivered-early"),
    ]


def test_i3_two_deliveries_of_one_result_to_one_destination_are_found(node: WholeNode) -> None:
    if node.database.is_sqlite:
        pytest.skip("SQLite cannot drop the constraint")
    drop(node, "delivery", "u", "destination")
    execute(
        node,
        "INSERT INTO delivery (result_pk, job_pk, destination, state, attempt, run_after, refusals, give_up_at,"
        " created_at, confirm_attempt, resends) SELECT result_pk, job_pk, destination, 'pending', 0, run_after, 0,"
        " give_up_at, created_at, 0, 0 FROM delivery WHERE id = 1",
    )
    assert ("I3", "delivery-twice") in codes(node)


@pytest.mark.parametrize(
    ("where", "subject"),
    [
        ("evil.sh", "evil.sh"),
        ("incoming/evil\n", "incoming/evil\\n"),
        ("objects/zz", "objects/zz"),
        ("objects/ab/evil.dcm", "objects/ab/evil.dcm"),
        ("quarantine/CON", "quarantine/CON"),
    ],
)
def test_i4_what_the_node_did_not_put_into_its_store_is_told_and_not_touched(
    node: WholeNode, where: str, subject: str
) -> None:
    path = node.objects.root / where
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"MZ")
    (fault,) = found(node)
    assert (fault.invariant, fault.code, fault.subject) == ("I4", "unknown-file", subject)
    assert [one.mended for one in mended(node)] == [""]
    assert path.read_bytes() == b"MZ"


def test_i3_a_job_whose_deliveries_are_gone_is_left_to_a_person_and_not_ended(node: WholeNode) -> None:
    execute(node, "UPDATE job SET state = 'delivering' WHERE id = 1")
    execute(node, "DELETE FROM delivery WHERE job_pk = 1")
    (left,) = mended(node)
    assert (left.fault.invariant, left.fault.code, left.fault.subject) == ("I3", "deliveries-gone", "job 1")
    assert (left.mended, left.fault.todo) == (
        "",
        "restore the database from a copy, or make and send them again: nadir jobs rerun 1",
    )
    with node.database.transaction() as session:
        assert jobs.get(session, 1).state == "delivering"
        rerun(session, 1, LATER)
    assert node.analyse(LATER) == 1
    assert found(node) == []


def test_i4_a_link_in_the_place_of_an_object_is_found_and_never_followed(
    node: WholeNode, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    name = hashlib.sha256(b"secret").hexdigest()
    path = node.objects.path(name)
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(outside)
    assert codes(node) == [("I4", "link")]
    assert [one.mended for one in mended(node)] == [""]
    assert outside.read_bytes() == b"secret"


def test_i4_modes_that_let_others_read_or_anybody_write_are_set_right(node: WholeNode) -> None:
    path = an_object(node)
    path.chmod(0o600)
    assert [one.sentence for one in found(node)] == ["The mode 0600 allows more than 0440."]
    path.chmod(0o666)
    (node.objects.root / "incoming").chmod(0o777)
    sentences = ["The mode 0777 allows more than 0750.", "The mode 0666 allows more than 0440."]
    assert [one.sentence for one in found(node)] == sentences
    assert codes(node) == [("I4", "wrong-mode"), ("I4", "wrong-mode")]
    assert [one.mended for one in mended(node)] == ["set right", "set right"]
    assert path.stat().st_mode & 0o777 == 0o440
    assert found(node) == []


@pytest.mark.parametrize("current", [True, False])
def test_i5_what_came_last_is_made_the_one_current_instance(node: WholeNode, current: bool) -> None:
    execute(
        node, "UPDATE instance SET current = :current WHERE sop_instance_uid = '1.2.2.1.3'", current=current
    )
    assert ("I5", "not-one-current") in codes(node)
    mended(node)
    assert found(node) == []
    with node.database.reading() as session:
        rows = session.exec(
            select(Instance.sha256, Instance.current)
            .where(Instance.sop_instance_uid == "1.2.2.1.3")
            .order_by(Instance.id)  # type: ignore[arg-type]
        ).all()
    assert [is_current for _, is_current in rows] == [False, True]


def test_i5_content_that_no_revision_holds_is_settled_again(node: WholeNode) -> None:
    node.take(image(1, 4), LATER)
    execute(node, "UPDATE study SET state = 'settled'")
    assert codes(node) == [("I5", "content-not-analysed")]
    assert [one.mended for one in mended(node)] == ["the study settles again"]
    later = node.database.now() + timedelta(minutes=5)
    assert node.settle(later) == 1
    assert node.analyse(later) == 1
    assert found(node) == []


def test_i5_an_object_that_is_kept_and_quarantined_stays_kept(node: WholeNode) -> None:
    path = an_object(node)
    temporary = node.objects.temporary()
    temporary.write_bytes(path.read_bytes())
    node.objects.quarantine(temporary, "uid-mismatch")
    assert codes(node) == [("I5", "kept-and-quarantined")]
    assert [one.mended for one in mended(node)] == ["the copy in quarantine was removed"]
    assert path.is_file()
    assert found(node) == []


def test_i6_a_manifest_that_lost_a_line_is_found(node: WholeNode) -> None:
    execute(node, "DELETE FROM revision_instance WHERE revision_pk = 1 AND instance_pk = 1")
    assert ("I6", "manifest-changed") in codes(node)
    assert ("I6", "result-of-other-images") in codes(node)


def test_i6_a_manifest_with_an_image_of_another_study_is_found(node: WholeNode) -> None:
    execute(node, "UPDATE revision_instance SET instance_pk = 4 WHERE revision_pk = 1 AND instance_pk = 1")
    assert {code for _, code in codes(node)} == {
        "content-not-analysed",
        "manifest-changed",
        "manifest-of-two-studies",
        "manifest-of-two-patients",
        "result-of-other-images",
    }


def test_i6_a_result_of_two_patients_is_found(database: Database, objects: ObjectStore) -> None:
    node = WholeNode(database=database, objects=objects)
    node.take(image(1, 1))
    node.take(image(1, 2, patient_id="SOMEBODY ELSE"))
    node.settle(LATER)
    node.analyse(LATER)
    assert ("I6", "manifest-of-two-patients") in codes(node)
    assert not any("SOMEBODY" in str(fault) for fault in found(node))


def test_i6_a_result_whose_bytes_are_of_another_study_is_found(node: WholeNode) -> None:
    with node.database.reading() as session:
        _, second = session.exec(select(Result).order_by(Result.id)).all()  # type: ignore[arg-type]
    execute(
        node,
        "UPDATE result SET sha256 = :sha, size_bytes = :size WHERE id = 1",
        sha=second.sha256,
        size=second.size_bytes,
    )
    faults = set(codes(node))
    assert ("I6", "result-of-another-study") in faults
    assert ("disk", "orphan") in faults


def test_a_finding_of_another_study_is_found(node: WholeNode) -> None:
    execute(node, "UPDATE finding SET study_pk = 2 WHERE study_pk = 1")
    assert ("I6", "finding-of-another-study") in codes(node)


def test_what_nobody_holds_any_more_is_put_back(node: WholeNode) -> None:
    node.take(image(3, 1), LATER)
    later = LATER + timedelta(minutes=5)
    node.settle(later)
    node.claim(later)
    execute(node, "UPDATE job SET lease_until = NULL WHERE state = 'running'")
    execute(node, "UPDATE job SET state = 'delivering' WHERE id = 1")
    execute(node, "UPDATE delivery SET state = 'sending', delivered_at = NULL, attempt = 1 WHERE id = 2")
    assert codes(node) == [
        ("ledger", "job-stuck"),
        ("ledger", "job-not-ended"),
        ("ledger", "delivery-stuck"),
    ]
    assert all(one.mended for one in mended(node))
    assert found(node) == []
    with node.database.reading() as session:
        assert [job.state for job in jobs.list_jobs(session)] == ["done", "done", "queued"]


def test_a_lease_that_ran_out_a_moment_ago_is_no_fault(node: WholeNode) -> None:
    node.take(image(3, 1), node.database.now() - timedelta(minutes=30))
    node.settle(node.database.now() - timedelta(minutes=20))
    node.claim(node.database.now() - timedelta(minutes=20))
    assert found(node) == []


def test_states_that_there_are_not_are_found(node: WholeNode) -> None:
    execute(node, "UPDATE job SET state = 'confused' WHERE id = 1")
    execute(node, "UPDATE study SET state = 'confused' WHERE id = 1")
    assert codes(node) == [("ledger", "study-state"), ("ledger", "unknown-state")]


@pytest.mark.parametrize(("prior", "state"), [(False, "receiving"), (True, "settled")])
def test_a_study_in_a_state_that_there_is_not_settles_again_unless_it_is_only_an_earlier_one(
    node: WholeNode, prior: bool, state: str
) -> None:
    execute(node, "UPDATE study SET state = 'confused', prior = :prior WHERE id = 1", prior=prior)
    (fault,) = found(node)
    assert (fault.code, fault.subject, fault.todo) == ("study-state", "study 1", "run nadir fsck --repair")
    assert [one.mended for one in mended(node)] == [
        "the study settles again, unless it is only an earlier one"
    ]
    with node.database.reading() as session:
        assert session.exec(select(Study.state).where(Study.id == 1)).one() == state
    later = node.database.now() + timedelta(minutes=5)
    assert node.settle(later) == 0  # its content was analysed
    assert found(node) == []


def test_a_row_that_points_to_nothing_is_found(node: WholeNode, tmp_path: Path) -> None:
    if node.database.is_sqlite:
        with closing(sqlite3.connect(tmp_path / "nadir.sqlite")) as connection:
            connection.execute("PRAGMA foreign_keys=OFF")
            connection.execute("DELETE FROM patient WHERE id = 1")
            connection.commit()
    else:
        drop(node, "study", "f", "patient_pk")
        drop(node, "finding", "f", "patient_pk")
        execute(node, "DELETE FROM patient WHERE id = 1")
    assert ("database", "reference") in codes(node)


def test_a_damaged_sqlite_file_is_told_and_not_touched(tmp_path: Path, sqlite_template: Path) -> None:
    path = tmp_path / "nadir.sqlite"
    data = bytearray(sqlite_template.read_bytes())
    data[4096 * 3 : 4096 * 12] = b"\xff" * (4096 * 9)
    path.write_bytes(data)
    database = Database(f"sqlite:///{path}")
    faults = check(database, ObjectStore(tmp_path / "store"), now=START)
    database.dispose()
    assert {fault.code for fault in faults} == {"database-damaged"}
