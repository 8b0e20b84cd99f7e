"""What a relink asks to be written once more: only what is called otherwise now, once."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest
from course_rows import Clock, Linked, lesion, patient_pk, visit
from ledger import at
from sqlmodel import Session, select

from store.choices import choose, swap, undo
from store.chosen import chosen
from store.database import Database
from store.reissue import outdated, reissue
from store.sightings import found_here, studies_of
from store.tables import Job
from store.tracking.link import Kind

JANUARY, MARCH, MAY = date(2026, 1, 10), date(2026, 3, 10), date(2026, 5, 10)
ONE, TWO = "2.25.1", "2.25.2"


def three(session: Session) -> list[str]:
    """Write two lesions that are followed over three visits; return the studies."""
    clock = Clock()
    studies: list[str] = []
    for on in (JANUARY, MARCH, MAY):
        found = [lesion(ONE, 20), lesion(TWO, 10, segment_number=2)]
        links = [
            Linked(kind=Kind.SAME, uid=uid, earlier=[uid], study=studies[-1]) for uid in (ONE, TWO) if studies
        ]
        studies.append(visit(session, clock, on, found, links))
    return studies


def test_a_relink_asks_once_for_the_study_and_for_those_that_were_compared_with_it(sqlite: Database) -> None:
    about = {"author": "Dr. Grey", "now": at(1000)}
    with sqlite.transaction() as session:
        _, second, third = three(session)
        pk = patient_pk(session)
        assert reissue(session, pk, at(900)) == []
        fragment = choose(
            session, pk, "relink", TWO, ONE, study_instance_uid=second, split=True, **about
        )  # one segment of the SEG has that name already
        asked = reissue(session, pk, at(1001))
        assert asked == []
        undo(session, pk, fragment.number, **about)
        swap(session, pk, ONE, TWO, study_instance_uid=second, **about)
        made = reissue(session, pk, at(1001))
        assert [(job.run, job.state) for job in made] == [(1, "queued")] * 2
        assert reissue(session, pk, at(1002)) == []
        assert len(session.exec(select(Job)).all()) == 5

        found = found_here(session, studies_of(session, [pk]), [pk])
        decided = chosen(session, pk)
        told = {(one.study_instance_uid, one.written_uid) for one in outdated(found, decided)}
        assert told == {(study, uid) for study in (second, third) for uid in (ONE, TWO)}
        # Whoever began after the choice knew of it, whatever he made of it.
        knew = [replace(one, made_at=at(1000) + timedelta(seconds=6)) for one in found]
        assert outdated(knew, decided) == ()


@pytest.mark.parametrize("seconds", [0.5, 20])
def test_what_a_run_wrote_by_a_relink_that_is_taken_back_is_asked_for_again_however_soon_it_ran(
    sqlite: Database, seconds: float
) -> None:
    about = {"author": "Dr. Grey"}
    with sqlite.transaction() as session:
        _, second, _ = three(session)
        pk = patient_pk(session)
        found = found_here(session, studies_of(session, [pk]), [pk])
        other = {ONE: TWO, TWO: ONE}

        def written(at_second: float, *, swapped: bool) -> list[str]:
            """Return what is asked for of the second study, had it been written so by a run of that time."""
            own = [one for one in found if one.study_instance_uid == second]
            names = {one.written_uid: other[one.written_uid] if swapped else one.written_uid for one in own}
            ran = [
                replace(
                    one,
                    written_uid=names[one.written_uid],
                    before_uid=one.written_uid,
                    made_at=at(at_second) + timedelta(seconds=seconds),
                )
                for one in own
            ]
            return [one.before_uid for one in outdated(ran, chosen(session, pk))]

        swap(session, pk, ONE, TWO, study_instance_uid=second, now=at(1000), **about)
        assert written(1000, swapped=True) == []
        for one in chosen(session, pk).counting:
            undo(session, pk, one.number, now=at(1060), **about)
        assert written(1000, swapped=True) == [ONE, TWO]
        assert written(1060, swapped=False) == []
        swap(session, pk, ONE, TWO, study_instance_uid=second, now=at(1090), **about)
        assert written(1060, swapped=False) == [ONE, TWO]
        assert written(1090, swapped=True) == []
