"""Which studies are tracked again when something of an earlier date comes late: each once, in order of the dates."""

from __future__ import annotations

from datetime import date

from course_rows import Clock, lesion, patient_pk, visit
from ledger import at, header, kept
from sqlmodel import select

from store import instances, jobs
from store.database import Database
from store.patients import merge
from store.retrack import retrack
from store.tables import Instance, Job

JANUARY, FEBRUARY, MARCH, MAY = (date(2026, month, 10) for month in (1, 2, 3, 5))
ONE, TWO = "2.25.1", "2.25.2"


def test_what_was_analysed_before_an_earlier_study_is_asked_for_once_more_by_date(sqlite: Database) -> None:
    with sqlite.transaction() as session:
        clock = Clock()
        visit(session, clock, MAY, [lesion(ONE)])
        pk = patient_pk(session)
        assert retrack(session, pk, at(11)) == []
        visit(session, clock, MARCH, [lesion(TWO)])
        (may,) = retrack(session, pk, at(20))
        assert (may.run, may.state) == (1, "queued")
        visit(session, clock, JANUARY, [lesion(TWO)])
        (march,) = retrack(session, pk, at(30))  # May waits already
        claimed = []
        for seconds in (40, 50):
            job = jobs.claim(session, "w", at(seconds), 60)
            assert job is not None
            claimed.append(job.id)
            jobs.fail(session, int(job.id or 0), job.attempt, "broken", "no", at(seconds), permanent=True)
            assert retrack(session, pk, at(seconds)) == []  # whatever became of it
        assert claimed == [march.id, may.id]


def test_a_merge_makes_the_earlier_studies_of_the_other_patient_news(sqlite: Database) -> None:
    with sqlite.transaction() as session:
        clock = Clock()
        visit(session, clock, JANUARY, [lesion(TWO)], patient={"patient_id": "P2"})
        visit(session, clock, MARCH, [lesion(ONE)])
        pk = patient_pk(session)
        assert retrack(session, pk, at(30)) == []
        merge(session, patient_pk(session, "P2"), pk, "Admin", at(40))
        assert len(retrack(session, pk, at(41))) == 1
        assert retrack(session, pk, at(42)) == []


def test_another_set_of_findings_on_an_earlier_study_is_news_and_the_same_found_again_is_none(
    sqlite: Database,
) -> None:
    with sqlite.transaction() as session:
        clock = Clock()
        january = visit(session, clock, JANUARY, [lesion(TWO)])
        visit(session, clock, MARCH, [lesion(TWO)])
        visit(session, clock, JANUARY, [lesion(TWO)], study=january)
        pk = patient_pk(session)
        assert retrack(session, pk, at(31)) == []
        visit(session, clock, JANUARY, [lesion(ONE), lesion(TWO)], study=january)
        assert len(retrack(session, pk, at(41))) == 1
        assert len(session.exec(select(Job)).all()) == 5


def test_a_study_that_came_late_with_results_of_another_node_is_news_to_later_ones_alone(
    sqlite: Database,
) -> None:
    with sqlite.transaction() as session:
        clock = Clock()
        for on in (JANUARY, MARCH):
            visit(session, clock, on, [lesion(ONE)])
        one = header(
            7, "1.2.77", study_date=FEBRUARY, sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4", modality="SEG"
        )
        instances.record(session, one, kept("seg of another node"), source="PACS", now=at(60))
        row = session.exec(select(Instance).where(Instance.sop_instance_uid == one.sop_instance_uid)).one()
        row.own = True
        session.add(row)
        session.flush()
        (asked,) = retrack(session, patient_pk(session), at(61))
        assert (asked.plugin, asked.run, asked.revision_pk) == ("lung_nodule", 1, 2)
        assert retrack(session, patient_pk(session), at(62)) == []
