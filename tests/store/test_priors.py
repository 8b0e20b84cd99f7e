"""Earlier studies of a patient: what belongs to one that was asked for, and what is here of them."""

from __future__ import annotations

from datetime import date

import pytest
from ledger import at, header, kept, queued, result, settled
from sqlmodel import Session, select

from plugins.errors import Refused
from store import instances, jobs, studies
from store.database import Database
from store.instances import Recorded
from store.prior_tables import Prior, PriorSearch
from store.priors import Coming, earlier, listed, retry_parked
from store.tables import Instance, Patient, Study

NOW_UID, OLD_UID = "1.2.3", "1.2.2"


def ask(session: Session, study_pk: int, study_instance_uid: str = OLD_UID) -> None:
    """Write down that an earlier study was found for a study and is to be fetched."""
    search = PriorSearch(study_pk=study_pk, source="PACS@host:104", run_after=at(0), requested_at=at(0))
    session.add(search)
    session.flush()
    session.add(
        Prior(
            search_pk=search.id or 0,
            study_instance_uid=study_instance_uid,
            run_after=at(0),
            requested_at=at(0),
        )
    )
    session.flush()


def come(
    session: Session, study: str = OLD_UID, number: int = 1, coming: Coming = "fetched", **changes: object
) -> Recorded:
    """Record one object of an earlier study."""
    one = header(number, study, **{"study_date": date(2025, 1, 2), **changes})
    return instances.record(
        session, one, kept(one.sop_instance_uid), source="PACS", now=at(10), coming=coming
    )


def old_study(session: Session) -> Study:
    return session.exec(select(Study).where(Study.study_instance_uid == OLD_UID)).one()


@pytest.mark.parametrize("coming", ["fetched", "moved"])
def test_an_earlier_study_that_was_asked_for_is_kept_and_never_settles(
    database: Database, coming: Coming
) -> None:
    with database.transaction() as session:
        ask(session, settled(session).study_pk)
        assert come(session, coming=coming).outcome == "new"
        old = old_study(session)
        assert (old.prior, old.state, old.revision) == (True, "settled", 0)
        assert studies.due(session, now=at(1e7), quiet_seconds=0, hard_cap_seconds=1) == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"patient_id": "P2"}, "prior-of-another-patient"),
        ({"patient_id": "p1"}, "prior-of-another-patient"),
        ({"patient_id": "P*"}, "prior-of-another-patient"),
        ({"patient_id": ""}, "prior-of-another-patient"),
        ({"issuer": "ELSEWHERE"}, "prior-of-another-patient"),
        ({"study": "1.2.9"}, "prior-not-asked"),
    ],
)
def test_what_was_fetched_and_is_not_the_patients_is_refused(
    database: Database, changes: dict[str, str], code: str
) -> None:
    with database.transaction() as session:
        ask(session, settled(session).study_pk)
        with pytest.raises(Refused) as caught:
            come(session, **changes)
        assert caught.value.code == code
        assert len(session.exec(select(Instance)).all()) == 1
        assert session.exec(select(Patient.patient_id)).all() == ["P1"]


def test_what_was_moved_and_not_asked_for_is_an_ordinary_study(database: Database) -> None:
    with database.transaction() as session:
        settled(session)
        come(session, coming="moved")
        assert (old_study(session).prior, old_study(session).state) == (False, "receiving")


@pytest.mark.parametrize("number", [1, 2])
def test_an_earlier_study_that_somebody_sends_is_analysed_also_when_it_was_held(
    database: Database, number: int
) -> None:
    with database.transaction() as session:
        ask(session, settled(session).study_pk)
        come(session)
        come(session, number=number, coming="sent")
        old = old_study(session)
        assert (old.prior, old.state, old.last_arrival_at) == (False, "receiving", at(10))
        revision = studies.settle(session, int(old.id or 0), now=at(99), forced=False)
        assert revision is not None
        assert len(studies.manifest_files(session, int(revision.id or 0))) == number


def test_own_results_that_come_back_leave_an_earlier_study_what_it_is(database: Database) -> None:
    with database.transaction() as session:
        ask(session, settled(session).study_pk)
        come(session)
        come(session, number=7, coming="sent", own=True, modality="SEG", series_instance_uid="1.2.2.7")
        assert old_study(session).prior is True


def test_images_that_were_asked_for_join_own_results_that_came_before(database: Database) -> None:
    with database.transaction() as session:
        ask(session, settled(session).study_pk)
        come(session, number=7, coming="sent", own=True, modality="SEG", series_instance_uid="1.2.2.7")
        come(session)
        assert (old_study(session).prior, old_study(session).state) == (True, "settled")


def test_a_study_that_a_trusted_source_tells_of_is_adopted_once(database: Database) -> None:
    with database.transaction() as session:
        ask(session, settled(session).study_pk)
        come(session)
        assert studies.adopt(session, OLD_UID, at(50))
        old = old_study(session)
        assert (old.prior, old.state, old.first_arrival_at) == (False, "receiving", at(50))
        assert not studies.adopt(session, OLD_UID, at(60))
        assert not studies.adopt(session, NOW_UID, at(60))


def test_earlier_studies_are_of_the_same_patient_with_their_results_oldest_first(database: Database) -> None:
    with database.transaction() as session:
        now = settled(session)
        study = session.get_one(Study, now.study_pk)
        study.study_date = date(2026, 3, 1)
        for uid, made in (("1.2.20", date(2025, 6, 1)), ("1.2.10", date(2024, 6, 1))):
            ask_uid = PriorSearch(study_pk=now.study_pk, source=uid, run_after=at(0), requested_at=at(0))
            session.add(ask_uid)
            session.flush()
            session.add(
                Prior(search_pk=ask_uid.id or 0, study_instance_uid=uid, run_after=at(0), requested_at=at(0))
            )
            session.flush()
            come(session, uid, study_date=made)
            come(session, uid, 7, study_date=made, own=True, modality="SEG", series_instance_uid=f"{uid}.7")
        come(session, "1.2.30", coming="sent", patient_id="P2", study_date=date(2025, 1, 1))
        come(session, "1.2.40", coming="sent", study_date=date(2026, 3, 1))
        come(session, "1.2.50", coming="sent", study_date=None)
        found = earlier(session, now.study_pk)
        assert [(one.study_instance_uid, one.prior) for one in found] == [("1.2.10", True), ("1.2.20", True)]
        assert [o.sop_instance_uid for one in found for o in one.objects] == ["1.2.10.1.1", "1.2.20.1.1"]
        assert [o.series_instance_uid for one in found for o in one.results] == ["1.2.10.7", "1.2.20.7"]
        assert [earlier(session, one.study_pk) for one in found] == [(), found[:1]]


def test_of_what_this_node_made_only_the_newest_of_each_analysis_counts(database: Database) -> None:
    with database.transaction() as session:
        first = settled(session, study=OLD_UID)
        old = result(session, queued(session, first))
        other = result(session, queued(session, first, plugin="lungs"))
        new = result(session, queued(session, settled(session, 2, study=OLD_UID, seconds=9)))
        for uid in (old.sop_instance_uid, new.sop_instance_uid):  # both came back from the PACS
            own = header(1, OLD_UID, sop_instance_uid=uid, series_instance_uid="1.2.2.99", own=True)
            instances.record(session, own, kept(uid), source="PACS", now=at(20))
        old_study(session).study_date = date(2025, 1, 1)
        now = settled(session)
        session.get_one(Study, now.study_pk).study_date = date(2026, 3, 1)
        (found,) = earlier(session, now.study_pk)
        assert {one.sop_instance_uid for one in found.results} == {
            other.sop_instance_uid, new.sop_instance_uid
        }  # fmt: skip
        assert found.prior is False
        assert jobs.list_jobs(session, state="queued") != []


def test_a_patient_without_an_id_has_no_earlier_studies(database: Database) -> None:
    with database.transaction() as session:
        come(session, "1.2.60", coming="sent", patient_id="", study_date=date(2024, 1, 1))
        newer = come(session, "1.2.61", coming="sent", patient_id="", study_date=date(2025, 1, 1))
        assert earlier(session, newer.study_pk) == ()


def test_what_was_asked_for_is_listed_and_what_is_parked_is_asked_for_again(database: Database) -> None:
    with database.transaction() as session:
        ask(session, settled(session).study_pk)
        prior = session.exec(select(Prior)).one()
        prior.state, prior.attempt, prior.error_code, prior.error_text = (
            "parked",
            3,
            "incomplete-prior",
            "2 of 3",
        )
    with database.transaction() as session:
        rows = listed(session)
        assert [(row["for_study"], row["study_instance_uid"], row["state"]) for row in rows] == [
            (NOW_UID, None, "waiting"),
            (NOW_UID, OLD_UID, "parked"),
        ]
        assert (rows[1]["error_code"], rows[1]["attempt"]) == ("incomplete-prior", 3)
        assert listed(session, "parked") == rows[1:]
        with pytest.raises(Refused):
            listed(session, "lost")
        assert retry_parked(session, at(99)) == 1
    with database.reading() as session:
        prior = session.exec(select(Prior)).one()
        assert (prior.state, prior.attempt, prior.run_after) == ("waiting", 0, at(99))
