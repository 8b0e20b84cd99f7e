from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from course_rows import Clock, Linked, lesion, patient_pk, visit
from hypothesis import given
from hypothesis import strategies as st
from ledger import at
from sqlmodel import Session, select

from plugins.errors import Refused
from store.choices import choose, swap, undo
from store.chosen import Chosen, chosen
from store.course import Course, CourseVisit, course, judged
from store.course_json import from_json, to_json
from store.database import Database
from store.person import Person
from store.response.history import Role, Status
from store.sighting import Decision, Measure, Sighting
from store.tables import Choice, Patient
from store.told import doubts
from store.tracking.link import Kind

JANUARY, MARCH, MAY = date(2026, 1, 10), date(2026, 3, 10), date(2026, 5, 10)
ONE, TWO, NEW = "2.25.1", "2.25.2", "2.25.3"


@pytest.fixture
def database(sqlite: Database) -> Database:
    return sqlite


def three(session: Session) -> tuple[int, str, str, str]:
    """Write two lesions that are followed over three visits, a new one from the second; return patient and studies."""
    clock = Clock()
    first = visit(session, clock, JANUARY, [lesion(ONE, 20), lesion(TWO, 10, segment_number=2)])
    same = [Linked(kind=Kind.SAME, uid=uid, earlier=[uid], study=first) for uid in (ONE, TWO)]
    new = Linked(kind=Kind.NEW, uid=NEW, study=first)
    found = [lesion(ONE, 21), lesion(TWO, 11, segment_number=2), lesion(NEW, 30, segment_number=3)]
    second = visit(session, clock, MARCH, found, [*same, new])
    again = [Linked(kind=Kind.SAME, uid=uid, earlier=[uid], study=second) for uid in (ONE, TWO, NEW)]
    third = visit(
        session,
        clock,
        MAY,
        [lesion(ONE, 22), lesion(TWO, 12, segment_number=2), lesion(NEW, 31, segment_number=3)],
        again,
    )
    return patient_pk(session), first, second, third


def decide(session: Session, kind: str, uid: str, value: str, study: str = "", **more: object) -> Decision:
    return choose(
        session,
        patient_pk(session),
        kind,
        uid,
        value,
        author="Dr. Grey",
        now=at(1000),
        study_instance_uid=study,
        **more,  # type: ignore[arg-type]
    )


def lengths(found: Course) -> list[dict[str, int | None]]:
    """Return the long axis of each lesion at each visit, tenths of mm."""
    return [{one.lesion: one.long_axis_tenths for one in v.seen} for v in found.history().visits]


def test_a_relink_goes_on_at_the_visits_that_were_compared_with_it_before(database: Database) -> None:
    with database.transaction() as session:
        pk, _, second, third = three(session)
        decide(session, "relink", ONE, "new", second)
        fresh = chosen(session, pk).decisions[0].value
        decide(session, "relink", NEW, ONE, second)
        found = course(session, pk)
    assert lengths(found) == [{ONE: 200, TWO: 100}, {ONE: 300, TWO: 110}, {ONE: 310, TWO: 120}]
    assert fresh.startswith("2.25.") and f"'{found.sightings[2].label}'" in doubts(found)[MARCH][0]
    assert from_json(to_json(found)) == found
    moved = next(one for one in found.sightings if one.written_uid == NEW and one.date == MARCH)
    assert [(d.author, d.kind, d.value, d.at) for d in moved.decisions] == [
        ("Dr. Grey", "relink", ONE, at(1000))
    ]
    followed = next(one for one in found.sightings if one.written_uid == NEW and one.date == MAY)
    assert (followed.tracking_uid, followed.study_instance_uid) == (ONE, third)


def test_two_studies_of_one_date_are_one_time_point_and_a_relink_goes_on_between_them(
    database: Database,
) -> None:
    with database.transaction() as session:
        clock = Clock()
        first = visit(session, clock, JANUARY, [lesion(ONE, 20), lesion(TWO, 10, segment_number=2)])
        same = [Linked(kind=Kind.SAME, uid=uid, earlier=[uid], study=first) for uid in (ONE, TWO)]
        again = [lesion(ONE, 21), lesion(TWO, 11, segment_number=2, confidence=0.5)]
        visit(session, clock, JANUARY, again, same)
        pk = patient_pk(session)
        assert lengths(course(session, pk)) == [{ONE: 210, TWO: 100}]
        (words,) = doubts(course(session, pk))[JANUARY]
        assert words.startswith("2 studies of this date are one time point")
        decide(session, "relink", ONE, "new", first)
        fresh = chosen(session, pk).decisions[0].value
        assert lengths(course(session, pk)) == [{fresh: 210, TWO: 100}]


def test_what_was_compared_after_a_relink_has_the_new_name_already(database: Database) -> None:
    with database.transaction() as session:
        clock = Clock()
        first = visit(session, clock, JANUARY, [lesion(ONE, 20), lesion(TWO, 10, segment_number=2)])
        same = [Linked(kind=Kind.SAME, uid=uid, earlier=[uid], study=first) for uid in (ONE, TWO)]
        second = visit(session, clock, MARCH, [lesion(ONE, 11), lesion(TWO, 21, segment_number=2)], same)
        pk = patient_pk(session)
        moved = swap(
            session, pk, ONE, TWO, author="Dr. Grey", now=at(clock.seconds + 1), study_instance_uid=second
        )
        assert [(d.tracking_uid, d.value) for d in moved] == [(ONE, TWO), (TWO, ONE)]
        clock.seconds += 10
        same = [Linked(kind=Kind.SAME, uid=uid, earlier=[uid], study=second) for uid in (ONE, TWO)]
        visit(session, clock, MAY, [lesion(ONE, 22), lesion(TWO, 12, segment_number=2)], same)
        found = course(session, pk)
    assert lengths(found) == [{ONE: 200, TWO: 100}, {TWO: 110, ONE: 210}, {ONE: 220, TWO: 120}]


def test_a_role_is_what_a_person_said_last(database: Database) -> None:
    with database.transaction() as session:
        pk, *_ = three(session)
        decide(session, "role", TWO, "target")
        decide(session, "role", TWO, "non-target")
        decide(session, "role", NEW, "new")
        decide(session, "role", ONE, "ignore")
        found = course(session, pk)
    assert [{one.lesion: one.role for one in v.seen} for v in found.history().visits] == [
        {TWO: Role.NON_TARGET},
        {TWO: Role.NON_TARGET, NEW: Role.NEW},
        {TWO: Role.NON_TARGET, NEW: Role.NEW},
    ]
    assert {one.role_by for one in found.sightings} == {"Dr. Grey"}
    assert doubts(found) == {}


def test_a_confirmed_new_lesion_is_new_and_not_before(database: Database) -> None:
    with database.transaction() as session:
        pk, _, second, _ = three(session)
        assert NEW not in lengths(course(session, pk))[1]
        number = decide(session, "confirm", NEW, "true", second).number
        assert [NEW in row for row in lengths(course(session, pk))] == [False, True, True]
        undo(session, pk, number, author="Dr. Grey", now=at(1001))
        assert NEW not in lengths(course(session, pk))[1]


def test_an_undo_is_undone_and_nothing_is_deleted(database: Database) -> None:
    with database.transaction() as session:
        pk, *_ = three(session)
        number = decide(session, "reject", ONE, "true").number
        assert ONE not in lengths(course(session, pk))[0]
        back = undo(session, pk, number, author="Dr. Grey", now=at(1001))
        assert ONE in lengths(course(session, pk))[0]
        with pytest.raises(Refused, match="already"):
            undo(session, pk, number, author="Dr. Grey", now=at(1002))
        undo(session, pk, back.number, author="Dr. Grey", now=at(1003))
        assert ONE not in lengths(course(session, pk))[0]
        with pytest.raises(Refused, match="no choice number 99"):
            undo(session, pk, 99, author="Dr. Grey", now=at(1004))
        assert len(session.exec(select(Choice)).all()) == 3


def test_node_site_and_status_are_what_a_person_said(database: Database) -> None:
    with database.transaction() as session:
        pk, first, second, third = three(session)
        decide(session, "node", ONE, "true")
        decide(session, "site", ONE, "Mediastinum")
        decide(session, "status", ONE, "absent", second)
        decide(session, "status", TWO, "NE", third)
        decide(session, "status", NEW, "present", first)
        found = course(session, pk)
    rows = [{one.lesion: one for one in v.seen} for v in found.history().visits]
    assert [(row[ONE].node, row[ONE].site) for row in rows] == [(True, "Mediastinum")] * 3
    assert (rows[1][ONE].status, rows[1][ONE].long_axis_tenths) == (Status.ABSENT, None)
    assert rows[2][TWO].status is Status.NOT_EVALUABLE
    # What a person saw at the first visit is not new at the second.
    assert (rows[0][NEW].status, rows[1][NEW].role) == (Status.PRESENT, Role.NON_TARGET)


REFUSED = [
    ("role", "2.25.99", "target", "", "no-such-lesion"),
    ("role", "2.25.66", "target", "", "lesion-of-another-patient"),
    ("relink", ONE, "2.25.66", "second", "lesion-of-another-patient"),
    ("relink", ONE, "2.25.99", "second", "no-such-lesion"),
    ("relink", NEW, ONE, "first", "no-such-lesion"),
    ("relink", NEW, ONE, "second", "two-lesions-of-one-visit"),
    ("relink", ONE, "", "second", "bad-choice"),
    ("role", ONE, "Target", "", "bad-choice"),
    ("status", ONE, "absent", "", "bad-choice"),
    ("status", ONE, "absent", "1.2.3.4", "no-such-study"),
    ("site", ONE, " ", "", "bad-choice"),
    ("size", ONE, "3", "", "no-such-choice"),
    ("undo", ONE, "3", "", "no-such-choice"),
]


def test_what_cannot_be_is_refused_and_nothing_is_kept(database: Database) -> None:
    with database.transaction() as session:
        _, first, second, _ = three(session)
        visit(
            session, Clock(seconds=500, studies=50), MARCH, [lesion("2.25.66")], patient={"patient_id": "Q"}
        )
        for kind, uid, value, study, code in REFUSED:
            with pytest.raises(Refused) as refused:
                decide(session, kind, uid, value, {"first": first, "second": second}.get(study, study))
            assert refused.value.code == code, (kind, uid, value)
        with pytest.raises(Refused, match="--author"):
            choose(session, patient_pk(session), "role", ONE, "target", author=" ", now=at(0))
        assert session.exec(select(Choice)).all() == []


def test_fragments_are_one_lesion_when_a_person_says_so(database: Database) -> None:
    with database.transaction() as session:
        pk, _, second, _ = three(session)
        decide(session, "relink", NEW, ONE, second, split=True)
        found = course(session, pk)
    assert lengths(found)[1] == {ONE: 210 + 300, TWO: 110}


def fallen_apart(session: Session) -> tuple[int, str, str, str]:
    """Write a lesion of which a part of its own goes on beside it from the second visit; return patient and studies."""
    clock = Clock()
    first = visit(session, clock, JANUARY, [lesion(ONE, 26)])
    parts = [Linked(kind=Kind.SPLIT, uid=uid, earlier=[ONE], study=first) for uid in (ONE, NEW)]
    second = visit(session, clock, MARCH, [lesion(ONE, 18), lesion(NEW, 15.6, segment_number=2)], parts)
    same = Linked(kind=Kind.SAME, uid=ONE, earlier=[ONE], study=second)
    gone = Linked(kind=Kind.GONE, uid=NEW, earlier=[NEW], study=second, is_drawn=False)
    third = visit(session, clock, MAY, [lesion(ONE, 17)], [same, gone])
    return patient_pk(session), first, second, third


@pytest.mark.parametrize("at_one_visit", [True, False])
def test_a_rejected_fragment_leaves_the_lesion_and_its_other_fragments_until_that_is_undone(
    database: Database, at_one_visit: bool
) -> None:
    with database.transaction() as session:
        pk, _, second, _ = fallen_apart(session)
        number = decide(session, "reject", NEW, "true", second if at_one_visit else "").number
        without = course(session, pk)
        undo(session, pk, number, author="Dr. Grey", now=at(1001))
        again = course(session, pk)
        known = Person(
            members=(pk,), head=session.get_one(Patient, pk), course=without, chosen=Chosen(), made_by={}
        )
    assert [known.rejected_by(uid, ONE, second) for uid in (ONE, NEW)] == [None, "Dr. Grey"]
    assert lengths(without) == [{ONE: 260}, {ONE: 180}, {ONE: 170}]
    assert lengths(again) == [{ONE: 260}, {ONE: 180 + 156}, {ONE: 170}]


def test_a_choice_of_the_whole_speaks_of_every_fragment(database: Database) -> None:
    with database.transaction() as session:
        pk, _, second, _ = fallen_apart(session)
        decide(session, "reject", ONE, "true", second)
        found = course(session, pk)
    assert lengths(found) == [{ONE: 260}, {}, {ONE: 170}]


SAID_OF_A_FRAGMENT = [
    ("second", "too-small", Status.MEASURED, 180 + 50),
    ("second", "absent", Status.MEASURED, 180),
    ("second", "NE", Status.NOT_EVALUABLE, None),
    ("third", "too-small", Status.MEASURED, 170 + 50),
    ("third", "absent", Status.MEASURED, 170),
    ("third", "unequivocal-progression", Status.PROGRESSED, None),
]


@pytest.mark.parametrize(("at_visit", "said", "status", "tenths"), SAID_OF_A_FRAGMENT)
def test_what_a_person_saw_of_a_fragment_counts_beside_the_others(
    database: Database, at_visit: str, said: str, status: Status, tenths: int | None
) -> None:
    with database.transaction() as session:
        pk, _, second, third = fallen_apart(session)
        decide(session, "status", NEW, said, {"second": second, "third": third}[at_visit])
        found = course(session, pk)
    seen = found.history().visits[1 if at_visit == "second" else 2].seen[0]
    assert (seen.lesion, seen.status, seen.long_axis_tenths) == (ONE, status, tenths)


def test_a_fragment_too_small_to_measure_adds_the_sphere_of_5_mm_to_the_volume(database: Database) -> None:
    with database.transaction() as session:
        clock = Clock()
        first = visit(session, clock, JANUARY, [lesion(ONE, 26, volume=9.2)])
        parts = [Linked(kind=Kind.SPLIT, uid=uid, earlier=[ONE], study=first) for uid in (ONE, NEW)]
        found = [lesion(ONE, 18, volume=3.0), lesion(NEW, 15.6, segment_number=2, volume=2.0)]
        second = visit(session, clock, MARCH, found, parts)
        decide(session, "status", NEW, "too-small", second)
        history = course(session, patient_pk(session)).history("volumetric")
    assert [v.seen[0].volume_mm3 for v in history.visits] == [pytest.approx(9200), pytest.approx(3065.45)]


def test_what_is_said_of_a_fragment_where_nothing_tells_of_it_is_said_of_it_alone(database: Database) -> None:
    with database.transaction() as session:
        pk, first, *_ = fallen_apart(session)
        decide(session, "status", NEW, "too-small", first)
        (one, other) = [s for s in course(session, pk).sightings if s.study_instance_uid == first]
    assert (one.tracking_uid, one.status, one.counts) == (ONE, Status.MEASURED, True)
    assert (other.tracking_uid, other.lesion, other.status) == (NEW, ONE, Status.TOO_SMALL)
    assert other.label == "Nodule .3"


def test_an_approved_outline_of_a_fragment_is_no_word_on_the_others(database: Database) -> None:
    with database.transaction() as session:
        pk, _, second, _ = fallen_apart(session)
        decide(session, "outline", NEW, "approved", second)
        there = [s for s in course(session, pk).sightings if s.study_instance_uid == second]
    assert {s.tracking_uid: [d.kind for d in s.decisions] for s in there} == {ONE: [], NEW: ["outline"]}


def test_a_choice_touches_no_other_patient(database: Database) -> None:
    with database.transaction() as session:
        pk, *_ = three(session)
        clock = Clock(seconds=500, studies=50)
        visit(session, clock, MARCH, [lesion("2.25.66")], patient={"patient_id": "Q"})
        other = patient_pk(session, "Q")
        before = course(session, other)
        decide(session, "reject", ONE, "true")
        decide(session, "role", TWO, "target")
        assert course(session, other) == before
        assert chosen(session, other).decisions == ()
        assert len(chosen(session, pk).decisions) == 2


def test_a_choice_is_kept_on_both_engines(database_url: str) -> None:
    both = Database(database_url)
    with both.transaction() as session:
        pk, *_ = three(session)
        made = decide(session, "role", ONE, "target", note="largest")
    with both.reading() as session:
        assert chosen(session, pk).decisions == (made,)
        assert (made.at, made.source, made.note) == (at(1000), "command", "largest")
    both.dispose()


VISITS = tuple(
    CourseVisit(study_pk=n, study_instance_uid=f"1.{n}", study_date=on)
    for n, on in enumerate((JANUARY, MARCH, MAY))
)
SIGHTINGS = tuple(
    Sighting(
        lesion=uid,
        tracking_uid=uid,
        written_uid=uid,
        label=uid,
        study_instance_uid=v.study_instance_uid,
        date=v.study_date,
        series_instance_uid=f"{v.study_instance_uid}.1",
        measurements={"long_axis": Measure(value=10.0, unit="mm")},
    )
    for v in VISITS
    for uid in (ONE, TWO, NEW)
)
DECISIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("relink"), st.sampled_from([ONE, TWO, NEW]), st.sampled_from([ONE, TWO, NEW, "2.25.9"])
        ),
        st.tuples(
            st.just("role"), st.sampled_from([ONE, TWO, NEW]), st.sampled_from(["target", "new", "ignore"])
        ),
        st.tuples(st.just("status"), st.sampled_from([ONE, TWO, NEW]), st.sampled_from(["absent", "NE"])),
        st.tuples(st.just("reject"), st.sampled_from([ONE, TWO, NEW]), st.sampled_from(["true", "false"])),
        st.tuples(st.just("undo"), st.just(ONE), st.sampled_from(["1", "2", "3"])),
    ),
    max_size=8,
)


@given(
    made=DECISIONS,
    seed=st.integers(0, 1000),
    studies=st.lists(st.sampled_from(VISITS), min_size=8, max_size=8),
)
def test_what_choices_do_does_not_depend_on_the_order_of_the_rows(
    made: list[tuple[str, str, str]], seed: int, studies: list[CourseVisit]
) -> None:
    decisions = [
        Decision(
            number=n,
            at=datetime(2026, 6, 1, 0, n, tzinfo=UTC),
            author="A",
            kind=kind,
            value=value,
            tracking_uid=uid,
            study_instance_uid=v.study_instance_uid if kind in ("relink", "status") else "",
            source="command",
        )
        for n, ((kind, uid, value), v) in enumerate(zip(made, studies, strict=False), start=1)
        if kind != "undo" or int(value) < n
    ]
    mixed = random.Random(seed).sample(decisions, len(decisions))
    told = judged(SIGHTINGS, Chosen(decisions=tuple(decisions)), VISITS, ())
    assert told == judged(SIGHTINGS, Chosen(decisions=tuple(mixed)), VISITS, ())
    assert {one.written_uid for one in told} <= {ONE, TWO, NEW, "2.25.9"}
    undone = {d.number for d in decisions} - {d.number for d in Chosen(decisions=tuple(decisions)).standing}
    assert not {d.number for one in told for d in one.decisions} & undone
    if not decisions:
        assert [replace(one, role=None, role_by="", role_because="") for one in told] == list(SIGHTINGS)
