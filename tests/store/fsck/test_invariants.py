"""Each invariant damaged by hand in a small real node: what is found, what is mended, and what is left to a person."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from fsck_faults import LATER, codes, found, mended
from sqlalchemy import text
from sqlmodel import select
from whole_node import START, WholeNode, image

from node.fsck import repair
from store import jobs
from store.database import Database
from store.fsck.check import check
from store.objects import ObjectStore
from store.rerun import rerun
from store.tables import Instance, Job, Result, Study


def an_object(node: WholeNode, number: int = 0) -> Path:
    with node.database.reading() as session:
        sha256 = session.exec(select(Instance.sha256).order_by(Instance.id)).all()[number]  # type: ignore[arg-type]
    return node.objects.path(sha256)


def execute(node: WholeNode, statement: str, **values: object) -> None:
    with node.database.transaction() as session:
        session.execute(text(statement), values)


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


def overwrite(path: Path, data: bytes) -> None:
    path.chmod(0o640)
    path.write_bytes(data)
    path.chmod(0o440)


def test_a_node_that_keeps_its_promises_is_clean(node: WholeNode) -> None:
    assert found(node) == []
    assert found(node, quick=True) == []


def test_i1_an_object_that_is_gone_is_found_and_is_for_the_source_to_send_again(node: WholeNode) -> None:
    an_object(node).unlink()
    assert codes(node) == [("I1", "object-missing")]
    (left,) = mended(node)
    assert (left.mended, left.fault.todo) == ("", "send it again from CT1@127.0.0.1")
    node.take(image(1, 1))
    assert found(node) == []


def test_i1_an_object_that_is_gone_comes_back_from_quarantine(node: WholeNode) -> None:
    path = an_object(node)
    path.rename(node.objects.root / "quarantine" / path.name)
    assert ("I1", "object-missing") in codes(node)
    assert all(one.mended for one in mended(node))
    assert found(node) == []
    assert path.stat().st_mode & 0o777 == 0o440


def test_i1_damaged_bytes_of_the_same_length_are_moved_aside_and_healed_by_the_next_sending(
    node: WholeNode,
) -> None:
    path = an_object(node)
    data = path.read_bytes()
    overwrite(path, data[:-1] + bytes([data[-1] ^ 1]))
    assert codes(node, quick=True) == []
    assert codes(node) == [("I1", "object-damaged")]
    (left,) = mended(node)
    assert left.mended == ""
    assert "moved to quarantine/" in left.fault.todo
    assert codes(node) == [("I1", "object-missing")]
    node.take(image(1, 1))
    assert found(node) == []


def test_i1_damaged_bytes_of_the_same_length_are_healed_by_the_next_sending_alone(node: WholeNode) -> None:
    path = an_object(node)
    data = path.read_bytes()
    overwrite(path, data[:-1] + bytes([data[-1] ^ 1]))
    node.take(image(1, 1))
    assert path.read_bytes() == data
    assert found(node) == []


def test_i1_a_truncated_object_is_found_without_reading_it(node: WholeNode) -> None:
    overwrite(an_object(node), b"half")
    assert codes(node, quick=True) == [("I1", "object-damaged")]


@pytest.mark.parametrize("table", ["instance", "result"])
@pytest.mark.parametrize("quick", [True, False])
def test_a_row_that_says_a_wrong_length_of_whole_bytes_gets_the_right_one(
    node: WholeNode, table: str, quick: bool
) -> None:
    execute(node, f"UPDATE {table} SET size_bytes = size_bytes + 1 WHERE id = 1")
    (fault,) = found(node, quick=quick)
    assert (fault.invariant, fault.code, fault.todo) == ("ledger", "row-size", "run nadir fsck --repair")
    path = node.objects.path(fault.subject)
    length = path.stat().st_size
    assert (
        fault.sentence
        == f"The row of {table} 1 says {length + 1} bytes; the object is whole and has {length}."
    )
    assert [one.mended for one in mended(node)] == [f"the row says {length} bytes now"]
    assert found(node) == []
    assert path.is_file() and not list((node.objects.root / "quarantine").iterdir())


def test_an_object_that_was_whole_again_when_its_turn_came_stays_where_it_is(node: WholeNode) -> None:
    path = an_object(node)
    data = path.read_bytes()
    overwrite(path, b"half")
    faults = found(node)
    overwrite(path, data)
    assert [one.mended for one in repair(node.database, node.objects, faults)] == [
        "its bytes are whole by now"
    ]
    assert found(node) == []


def test_i1_an_object_under_another_name_is_brought_back_in_one_go(node: WholeNode) -> None:
    path = an_object(node)
    other = node.objects.path("0" * 64)
    path.rename(other)
    assert codes(node) == [("I1", "object-missing"), ("disk", "orphan")]
    assert sorted(one.mended for one in mended(node)) == [
        "brought back from quarantine",
        "moved to quarantine: its bytes have another hash",
    ]
    assert found(node) == []
    assert not other.exists()


@pytest.mark.parametrize("count", [2, 3])
def test_i1_objects_that_lie_in_each_others_place_are_brought_back_in_one_go(
    node: WholeNode, count: int
) -> None:
    paths = [an_object(node, number) for number in range(count)]
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, contents[1:] + contents[:1], strict=True):
        overwrite(path, content)
    assert codes(node) == [("I1", "object-damaged")] * count
    assert [one.mended for one in mended(node)] == ["brought back from quarantine"] * count
    assert found(node) == []
    assert [path.read_bytes() for path in paths] == contents
    assert not list((node.objects.root / "quarantine").iterdir())


def test_i1_an_object_whose_bytes_lie_in_quarantine_is_for_fsck_to_bring_back(node: WholeNode) -> None:
    path = an_object(node)
    aside = node.objects.root / "quarantine" / path.name
    path.rename(aside)
    missing = {fault.code: fault.todo for fault in found(node, quick=True)}["object-missing"]
    assert missing == "run nadir fsck --repair"
    overwrite(aside, b"half")
    missing = {fault.code: fault.todo for fault in found(node, quick=True)}["object-missing"]
    assert missing == "send it again from CT1@127.0.0.1"


def test_i1_a_result_whose_bytes_are_gone_is_found(node: WholeNode) -> None:
    with node.database.reading() as session:
        sha256 = session.exec(select(Result.sha256)).all()[0]
    node.objects.path(sha256).unlink()
    assert codes(node) == [("I1", "object-missing")]
    assert mended(node)[0].fault.todo == "restore the store from a copy"


@pytest.mark.parametrize("table", ["instance", "result"])
@pytest.mark.parametrize("sha256", ["../../../etc/passwd", "", "A" * 64])
def test_i1_a_row_whose_hash_is_none_is_told_as_one_fault_beside_all_others(
    node: WholeNode, table: str, sha256: str
) -> None:
    lost = an_object(node, 1)
    lost.unlink()
    execute(node, f"UPDATE {table} SET sha256 = :sha256 WHERE id = 1", sha256=sha256)
    faults = {fault.code: fault for fault in found(node)}
    told = faults["row-without-hash"]
    assert (told.invariant, told.subject, told.todo) == (
        "I1",
        f"{table} 1",
        "restore the database from a copy",
    )
    assert faults["object-missing"].subject == lost.stem
    left = {one.fault.code: one.mended for one in mended(node)}
    assert left["row-without-hash"] == left["object-missing"] == ""
    if table == "instance":
        assert left["orphan"].startswith("taken in")
        assert not list((node.objects.root / "quarantine").iterdir())


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
