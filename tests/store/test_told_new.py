"""What is told of a lesion that no earlier visit tells of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import pytest
from course_rows import Clock, Linked, lesion, patient_pk, visit

from store.analysed import Found
from store.course import course
from store.database import Database
from store.told import doubts, judge
from store.tracking.link import Kind

JANUARY, MARCH, MAY = date(2026, 1, 10), date(2026, 3, 10), date(2026, 5, 10)


def hot(uid: str, sul: float = 8.0) -> Found:
    return lesion(uid, 20, suv_peak=1.25 * sul, sul_peak=sul)


@pytest.fixture
def database(sqlite: Database) -> Database:
    return sqlite


def new_words(database: Database, then: Sequence[Found], links: Sequence[Linked] = ()) -> list[str]:
    """Return what is told in March of the lesions that nobody confirmed to be new."""
    with database.transaction() as session:
        clock = Clock()
        visit(session, clock, JANUARY, then, plugin="pet_lesion")
        visit(session, clock, MARCH, [hot("2.25.2")], links, plugin="pet_lesion")
        found = course(session, patient_pk(session))
    return [words for words in doubts(found, "percist")[MARCH] if "nobody confirmed" in words]


def test_a_lesion_that_was_compared_with_nothing_is_told_as_that(database: Database) -> None:
    (words,) = new_words(database, [hot("2.25.1")])
    assert words == (
        "'Nodule .2' (20.0 mm, confidence 0.90) was not compared with earlier visits; nobody confirmed that it is a "
        "new lesion, which would be progression: 'nadir lesions confirm' or 'nadir lesions mark' decides."
    )


def test_a_lesion_that_fits_no_earlier_one_was_not_seen_before(database: Database) -> None:
    (words,) = new_words(database, [hot("2.25.1")], [Linked(kind=Kind.NEW, uid="2.25.2", study="1.2.1")])
    assert words.startswith("'Nodule .2' (20.0 mm, confidence 0.90) was not seen before;")


def test_a_lesion_after_a_visit_that_showed_none_was_not_seen_before(database: Database) -> None:
    (words,) = new_words(database, [])
    assert words.startswith("'Nodule .2' (20.0 mm, confidence 0.90) was not seen before;")


def test_a_lesion_that_is_followed_later_is_still_told_as_not_compared(database: Database) -> None:
    with database.transaction() as session:
        clock = Clock()
        visit(session, clock, JANUARY, [hot("2.25.1")], plugin="pet_lesion")
        second = visit(session, clock, MARCH, [hot("2.25.2")], plugin="pet_lesion")
        same = [Linked(kind=Kind.SAME, uid="2.25.2", earlier=["2.25.2"], study=second)]
        visit(session, clock, MAY, [hot("2.25.2")], same, plugin="pet_lesion")
        found = course(session, patient_pk(session))
    assert any("was not compared with earlier visits" in words for words in doubts(found, "percist")[MAY])


def test_percist_tells_no_change_where_nothing_was_compared(database: Database) -> None:
    with database.transaction() as session:
        clock = Clock()
        visit(session, clock, JANUARY, [hot("2.25.1"), hot("2.25.3", 5.0)], plugin="pet_lesion")
        visit(session, clock, MARCH, [hot("2.25.2"), hot("2.25.4")], plugin="pet_lesion")
        found = course(session, patient_pk(session))
    point = judge(found, "percist").time_points[-1]
    assert point.because == "NE: nothing is known of the lesions of the baseline at this visit."
    assert not any("called absent" in words for words in point.doubts)
