"""What is told of a lesion that no earlier visit tells of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import pytest
from course_rows import Clock, Linked, lesion, patient_pk, visit
from ledger import at

from store.analysed import Found
from store.choices import choose
from store.course import course
from store.database import Database
from store.response.history import Role
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


def by_hand(uid: str) -> Found:
    return lesion(uid, 20, automatic=False, confidence=None, label=f"Drawn {uid[-1]}")


@pytest.mark.parametrize(
    ("then", "now", "links", "role_by", "word"),
    [
        (["2.25.1", "2.25.3"], ["2.25.2", "2.25.4"], [], "not confirmed", "NE"),
        (["2.25.1"], ["2.25.2"], [], "not confirmed", "NE"),
        # Under the names that a person keeps, a drawing is new.
        (["2.25.1"], ["2.25.1", "2.25.2"], [], "drawn by a person", "PD"),
        (
            ["2.25.1"],
            ["2.25.2"],
            [Linked(kind=Kind.NEW, uid="2.25.2", study="1.2.1")],
            "drawn by a person",
            "PD",
        ),
    ],
)
def test_a_drawing_that_was_compared_with_no_earlier_one_is_not_known_to_be_new(
    database: Database, then: list[str], now: list[str], links: list[Linked], role_by: str, word: str
) -> None:
    with database.transaction() as session:
        clock = Clock()
        visit(session, clock, JANUARY, [by_hand(uid) for uid in then], plugin="contours")
        visit(session, clock, MARCH, [by_hand(uid) for uid in now], links, plugin="contours")
        found = course(session, patient_pk(session))
    new = [one for one in found.sightings if one.date == MARCH and one.lesion not in then]
    assert {(one.role, one.role_by) for one in new} == {(Role.NEW, role_by)}
    assert judge(found, "recist1.1").time_points[-1].overall == word
    told = [words for words in doubts(found).get(MARCH, ()) if "nobody confirmed" in words]
    assert len(told) == (len(new) if role_by == "not confirmed" else 0)
    assert all("(20.0 mm) was not compared with earlier visits;" in words for words in told)


@pytest.mark.parametrize(
    ("uid", "study", "kind", "value", "role_by"),
    [
        ("2.25.2", "1.2.2", "confirm", "true", "ANNA"),
        ("2.25.2", "1.2.2", "relink", "new", "drawn by a person"),
        ("2.25.1", "1.2.1", "reject", "true", "drawn by a person"),
        ("2.25.4", "1.2.2", "relink", "2.25.1", "not confirmed"),
    ],
)
def test_a_person_says_of_a_drawing_that_was_not_compared_that_it_is_new(
    database: Database, uid: str, study: str, kind: str, value: str, role_by: str
) -> None:
    with database.transaction() as session:
        clock = Clock()
        visit(session, clock, JANUARY, [by_hand("2.25.1")], plugin="contours")
        visit(session, clock, MARCH, [by_hand("2.25.2"), by_hand("2.25.4")], plugin="contours")
        pk = patient_pk(session)
        choose(session, pk, kind, uid, value, author="ANNA", study_instance_uid=study, now=at(900))
        found = course(session, pk)
    (drawn,) = [one for one in found.sightings if one.written_uid == "2.25.2"]
    assert drawn.role_by == role_by


def test_a_drawing_after_a_visit_of_an_analysis_that_showed_none_is_new(database: Database) -> None:
    with database.transaction() as session:
        clock = Clock()
        visit(session, clock, JANUARY, [])
        visit(session, clock, MARCH, [by_hand("2.25.1"), lesion("2.25.2")])
        found = course(session, patient_pk(session))
    assert {one.lesion: one.role_by for one in found.sightings} == {
        "2.25.1": "drawn by a person",
        "2.25.2": "not confirmed",
    }
