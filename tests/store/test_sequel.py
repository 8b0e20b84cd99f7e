from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from at_once import at_once
from ledger import at, header, kept, queued, result, settled
from patience import PATIENCE_SECONDS
from sqlmodel import Session, col, select, update

from plugins.errors import Broken, NadirError
from store import studies
from store.database import Database
from store.instances import Arrived, OpenAssociation, Recorded, record_all
from store.known import Known
from store.sequel import NoSequelError, Writer, sequels
from store.tables import Event, Instance, Patient, Result, Study

SOURCE = "CT1@127.0.0.1"
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""Where a connection is kept."""


def arrived(number: int, seconds: float = 0.0, study: str = "1.2.3", **changes: object) -> Arrived:
    one = header(number, study, **changes)
    return Arrived(header=one, kept=kept(one.sop_instance_uid), source=SOURCE, now=at(seconds))


class Recorder:
    """Records groups, by the short way where it is one."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.known = Known()
        self._writer = Writer(database.engine.dialect)

    def long(self, *group: Arrived) -> list[Recorded]:
        rows = self.known.begin()
        with self.database.transaction() as session:
            recorded = record_all(session, group, rows)
        self.known.learn(rows)
        return recorded

    def short(self, *group: Arrived) -> list[Recorded]:
        found = sequels(group, self.known.rows)
        assert found is not None
        with self.database.cursor() as cursor:
            return self._writer.write(cursor, found)

    def either(self, group: Sequence[Arrived]) -> list[Recorded]:
        try:
            if sequels(group, self.known.rows) is not None:
                return self.short(*group)
        except NoSequelError:
            pass
        return self.long(*group)


@pytest.fixture
def recorder(database: Database) -> Recorder:
    return Recorder(database)


def rows(database: Database, table: Any) -> list[dict[str, Any]]:
    with database.reading() as session:
        return [row.model_dump() for row in session.exec(select(table).order_by(table.id))]


def test_the_next_image_is_written_as_the_long_way_writes_it(recorder: Recorder) -> None:
    first, second = recorder.long(arrived(1), arrived(2, 3.0))
    (third,) = recorder.short(arrived(3, 7.0))

    assert third == replace(second, instance_pk=third.instance_pk)
    assert first.instance_pk < second.instance_pk < third.instance_pk
    _, long, short = rows(recorder.database, Instance)
    own = {"id": third.instance_pk, "received_at": at(7.0)}
    own |= {"sop_instance_uid": "1.2.3.1.3", "sha256": kept("1.2.3.1.3").sha256}
    assert short == {**long, **own}
    assert [row["last_arrival_at"] for row in rows(recorder.database, Study)] == [at(7.0)]


def test_a_group_of_several_studies_is_written_at_once_and_no_time_runs_backwards(recorder: Recorder) -> None:
    recorder.long(arrived(1, 50.0), arrived(1, 5.0, study="1.2.4"))
    group = [arrived(2, 9.0), arrived(2, 9.0, study="1.2.4"), arrived(3, 8.0, study="1.2.4"), arrived(3, 1.0)]
    recorded = recorder.short(*group)

    assert [one.outcome for one in recorded] == ["new"] * 4
    uids = {row["id"]: row["sop_instance_uid"] for row in rows(recorder.database, Instance)}
    assert [uids[one.instance_pk] for one in recorded] == [one.header.sop_instance_uid for one in group]
    assert [row["last_arrival_at"] for row in rows(recorder.database, Study)] == [at(50.0), at(9.0)]


def settle(session: Session) -> None:
    studies.settle(session, 1, now=at(1), forced=False)


def make_prior(session: Session) -> None:
    session.exec(update(Study).values(prior=True))


def give_to_another_patient(session: Session) -> None:
    session.add(Patient(id=77, patient_id="P77"))
    session.flush()
    session.exec(update(Study).values(patient_pk=77))


def hold_the_image(session: Session) -> None:
    session.exec(update(Instance).where(col(Instance.id) == 1).values(sop_instance_uid="1.2.3.1.9"))


def have_made_it(session: Session) -> None:
    result(session, queued(session, settled(session, study="1.9.9")))
    session.exec(update(Result).values(sop_instance_uid="1.2.3.1.9"))


@pytest.mark.parametrize(
    "change",
    [settle, make_prior, give_to_another_patient, hold_the_image, have_made_it],
    ids=lambda f: f.__name__,
)
def test_what_turns_out_to_be_no_sequel_is_left_alone_with_its_whole_group(
    recorder: Recorder, change: Callable[[Session], None]
) -> None:
    recorder.long(arrived(1))
    with recorder.database.transaction() as session:
        change(session)
    before = rows(recorder.database, Study), rows(recorder.database, Instance)

    with pytest.raises(NoSequelError):
        recorder.short(arrived(8, 9.0), arrived(9, 9.0))

    assert (rows(recorder.database, Study), rows(recorder.database, Instance)) == before


def test_what_brings_more_than_an_image_is_no_sequel(recorder: Recorder) -> None:
    association = OpenAssociation(calling_ae="CT1", address="127.0.0.1")
    (first,) = recorder.long(replace(arrived(1), association=association))
    known = recorder.known.rows

    assert sequels([replace(arrived(2), association=association)], known) is None
    association.pk = first.association_pk
    assert sequels([replace(arrived(2), association=association)], known) is not None
    assert sequels([arrived(2), arrived(3, study="1.2.9")], known) is None
    others: list[dict[str, object]] = [
        {"patient_id": "P2"},
        {"series_instance_uid": "1.2.3.8"},
        {"own": True},
        {"study_instance_uid": "1.2.8"},
    ]
    assert [sequels([arrived(2, 0.0, "1.2.3", **changes)], known) for changes in others] == [None] * len(
        others
    )
    assert sequels([replace(arrived(2), coming="moved")], known) is None


def test_a_fault_of_the_driver_is_told_as_every_other_and_nothing_is_written(recorder: Recorder) -> None:
    recorder.long(arrived(1))
    with pytest.raises(NadirError), recorder.database.cursor() as cursor:
        cursor.execute("UPDATE study SET accession_number = 'x'")
        cursor.execute("INSERT INTO nothing VALUES (1)")
    assert [row["accession_number"] for row in rows(recorder.database, Study)] == [""]


@ON_SQLITE
def test_a_database_is_closed_only_after_the_transaction_that_another_thread_is_in(
    recorder: Recorder,
) -> None:
    recorder.long(arrived(1))
    closing = threading.Thread(target=recorder.database.dispose)
    with recorder.database.cursor() as cursor:
        cursor.execute("UPDATE study SET accession_number = 'x'")
        closing.start()
        closing.join(0.2)
    closing.join(PATIENCE_SECONDS)
    assert [row["accession_number"] for row in rows(recorder.database, Study)] == ["x"]


@ON_SQLITE
def test_a_commit_that_fails_leaves_no_transaction_behind(recorder: Recorder) -> None:
    recorder.long(arrived(1))
    with pytest.raises(Broken), recorder.database.cursor() as cursor:
        cursor.execute("PRAGMA defer_foreign_keys = ON")
        cursor.execute("UPDATE study SET patient_pk = 999")
    with recorder.database.cursor() as cursor:
        cursor.execute("UPDATE study SET accession_number = 'y'")
    (study,) = rows(recorder.database, Study)
    assert (study["accession_number"], study["patient_pk"]) == ("y", 1)


def test_short_and_long_ways_that_meet_in_the_same_studies_never_stop_each_other(database: Database) -> None:
    images = [(number, f"1.2.{study}") for study in range(4) for number in range(9)]

    def send(seed: int) -> None:
        mine, recorder = images.copy(), Recorder(database)
        random.Random(seed).shuffle(mine)
        for start in range(0, len(mine), 6):
            recorder.either([arrived(n, study=study) for n, study in mine[start : start + 6]])

    at_once(send, 4)
    assert len(rows(database, Instance)) == len(images)
    assert rows(database, Event) == []
