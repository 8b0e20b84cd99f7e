from __future__ import annotations

from datetime import date

import pytest
from course_rows import ANATOMY, LUNG, NODE, Clock, Linked, lesion, patient_pk, visit
from hypothesis import given
from hypothesis import strategies as st
from ledger import at
from sqlmodel import Session, select

from plugins.errors import Refused
from store.analysed import Found
from store.course import Course, course
from store.database import Database
from store.model_tables import SeriesFact
from store.patients import find_patient, heads, merge, part, same_person
from store.priors import earlier
from store.response.history import Role, Status
from store.response.rules import Rules
from store.sighting import tenths
from store.tables import Job, Study
from store.told import doubts
from store.tracking.link import Kind

JANUARY, MARCH, MAY = date(2026, 1, 10), date(2026, 3, 10), date(2026, 5, 10)


@pytest.fixture
def database(sqlite: Database) -> Database:
    """Give SQLite: what is read of a course does not depend on the engine; one test asks PostgreSQL too."""
    return sqlite


def seen(course: Course, on: date, criteria: str = "recist1.1") -> dict[str, tuple[Status, int | None]]:
    """Return status and long axis of what the criteria are told of a date."""
    found = {v.date: v.seen for v in course.history(criteria).visits}[on]
    return {one.lesion: (one.status, one.long_axis_tenths) for one in found}


def followed(session: Session, kind: Kind, uid: str = "2.25.1", **more: object) -> Course:
    """Return the course of a lesion of 20 mm that is not drawn at the second visit, with this link."""
    clock = Clock()
    first = visit(session, clock, JANUARY, [lesion("2.25.1"), lesion("2.25.2", segment_number=2)])
    links = [
        Linked(kind=kind, uid=uid, earlier=["2.25.1"], study=first, is_drawn=False),
        Linked(kind=Kind.SAME, uid="2.25.2", earlier=["2.25.2"], study=first),
    ]
    visit(session, clock, MARCH, [lesion("2.25.2", 10.05)], links)
    return course(session, patient_pk(session))


def test_one_visit_is_one_date_and_a_study_without_a_date_is_none(database: Database) -> None:
    with database.transaction() as session:
        clock = Clock()
        visit(session, clock, MARCH, [lesion("2.25.3")])
        visit(session, clock, JANUARY, [lesion("2.25.1")])
        visit(session, clock, JANUARY, [lesion("2.25.2")], study="1.2.77")
        visit(session, clock, None, [lesion("2.25.4")])  # type: ignore[arg-type]
        found = course(session, patient_pk(session))
    assert [v.study_date for v in found.visits] == [JANUARY, JANUARY, MARCH]
    assert [v.date for v in found.history().visits] == [JANUARY, MARCH]
    assert set(seen(found, JANUARY)) == {"2.25.1", "2.25.2"}


def test_a_sighting_says_what_was_measured_and_what_made_it(database: Database) -> None:
    with database.transaction() as session:
        uid = visit(session, Clock(), JANUARY, [lesion("2.25.1", 12.25, volume=1.5)])
        found = course(session, patient_pk(session))
    (one,) = found.sightings
    assert (one.lesion, one.tracking_uid, one.study_instance_uid, one.label) == (
        "2.25.1",
        "2.25.1",
        uid,
        "Nodule .1",
    )
    assert (one.type, one.site, one.node, one.automatic, one.plugin) == (
        "Nodule",
        "Lung",
        False,
        True,
        "lung_nodule",
    )
    assert one.seg_sha256 is not None and one.segment_number == 1
    assert (one.measurements["long_axis"].value, one.measurements["volume"].unit) == (12.25, "ml")
    (row,) = found.history().visits[0].seen
    assert (row.long_axis_tenths, row.volume_mm3, row.long_axis_sd_mm) == (123, 1500.0, 0.5)
    assert row.volume_sd_mm3 == 500.0


def test_lungs_are_no_lesions_and_lymph_nodes_are(database: Database) -> None:
    with database.transaction() as session:
        lungs = lesion("2.25.8", category=ANATOMY, type=LUNG)
        visit(
            session,
            Clock(),
            JANUARY,
            [lungs, lesion("2.25.9", category=ANATOMY, type=NODE, segment_number=2)],
        )
        found = course(session, patient_pk(session))
    assert [(one.lesion, one.node) for one in found.sightings] == [("2.25.9", True)]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (Kind.GONE, Status.ABSENT),
        (Kind.OUT_OF_VIEW, Status.NOT_EVALUABLE),
        (Kind.NOT_SEGMENTED, Status.NOT_EVALUABLE),
    ],
)
def test_a_lesion_that_is_not_drawn_is_what_the_tracking_says(
    database: Database, kind: Kind, status: Status
) -> None:
    with database.transaction() as session:
        found = followed(session, kind)
    assert seen(found, MARCH) == {"2.25.1": (status, None), "2.25.2": (Status.MEASURED, 101)}
    link = next(one.link for one in found.sightings if one.date == MARCH and one.lesion == "2.25.1")
    assert link is not None and (link.kind, link.confidence) == (kind, 0.9)


@pytest.mark.parametrize(("slice_mm", "role"), [(5.0, Role.TARGET), (8.0, Role.NON_TARGET)])
def test_a_lesion_below_twice_the_distance_of_its_slices_is_no_target(
    database: Database, slice_mm: float, role: Role
) -> None:
    with database.transaction() as session:
        visit(session, Clock(), JANUARY, [lesion("2.25.1", 13), lesion("2.25.2", 41, segment_number=2)])
        (job,) = session.exec(select(Job)).all()
        fact = {"job_pk": job.id, "series_instance_uid": "series", "at": job.created_at, "plugin": job.plugin}
        numbers = {"slice_distance_mm": slice_mm, "pixel_spacing_mm": 0.7, "slices": 40, "unit": "[hnsf'U]"}
        session.add(SeriesFact(**fact, **numbers, model_sha256="m", histogram="[]"))
        session.flush()
        found = course(session, patient_pk(session))
    assert {one.lesion: one.role for one in found.sightings} == {"2.25.1": role, "2.25.2": Role.TARGET}
    because = next(one.role_because for one in found.sightings if one.lesion == "2.25.1")
    assert ("not measurable below twice the 8 mm between its slices" in because) == (slice_mm == 8.0)


def test_fragments_are_added_up_and_stay_fragments(database: Database) -> None:
    with database.transaction() as session:
        clock = Clock()
        first = visit(session, clock, JANUARY, [lesion("2.25.1", 30)])
        second = visit(
            session,
            clock,
            MARCH,
            [lesion("2.25.1", 10.04), lesion("2.25.5", 8.06, segment_number=2)],
            [Linked(kind=Kind.SPLIT, uid=u, earlier=["2.25.1"], study=first) for u in ("2.25.1", "2.25.5")],
        )
        visit(
            session,
            clock,
            MAY,
            [lesion("2.25.5", 7)],
            [
                Linked(kind=Kind.SAME, uid="2.25.5", earlier=["2.25.5"], study=second),
                Linked(kind=Kind.GONE, uid="2.25.1", earlier=["2.25.1"], study=second, is_drawn=False),
            ],
        )
        found = course(session, patient_pk(session))
    assert seen(found, MARCH) == {"2.25.1": (Status.MEASURED, 100 + 81)}
    assert seen(found, MAY) == {"2.25.1": (Status.MEASURED, 70)}
    assert found.history().visits[1].seen[0].long_axis_sd_mm == pytest.approx(0.5 * 2**0.5)
    assert found.lesions == ("2.25.1",)


@pytest.mark.parametrize("uid", ["2.25.1", "2.25.7"])
def test_of_lesions_that_grew_together_one_is_measured_and_the_others_end(
    database: Database, uid: str
) -> None:
    with database.transaction() as session:
        clock = Clock()
        first = visit(session, clock, JANUARY, [lesion("2.25.1", 12), lesion("2.25.2", 11, segment_number=2)])
        both = [Linked(kind=Kind.MERGED, uid=uid, earlier=["2.25.1", "2.25.2"], study=first)]
        second = visit(session, clock, MARCH, [lesion(uid, 25)], both)
        same = [Linked(kind=Kind.SAME, uid=uid, earlier=[uid], study=second)]
        visit(session, clock, MAY, [lesion(uid, 26)], same)
        found = course(session, patient_pk(session))
    assert seen(found, MARCH) == {"2.25.1": (Status.MEASURED, 250), "2.25.2": (Status.COALESCED, None)}
    assert seen(found, MAY) == {"2.25.1": (Status.MEASURED, 260), "2.25.2": (Status.COALESCED, None)}
    ended = next(one for one in found.sightings if one.lesion == "2.25.2" and one.date == MAY)
    assert "grown together" in ended.note


def test_a_new_lesion_is_a_doubt_until_somebody_confirms_it_or_the_rules_do_not_ask(
    database: Database,
) -> None:
    with database.transaction() as session:
        clock = Clock()
        first = visit(session, clock, JANUARY, [lesion("2.25.1")])
        sure = lesion("2.25.2", 9, segment_number=2)
        faint = lesion("2.25.3", 9, segment_number=3, confidence=0.3)
        links = [Linked(kind=Kind.NEW, uid=u, study=first) for u in ("2.25.2", "2.25.3")]
        visit(session, clock, MARCH, [lesion("2.25.1"), sure, faint], links)
        pk = patient_pk(session)
        asked, counted = course(session, pk), course(session, pk, rules=Rules(unconfirmed_new="count"))
    assert set(seen(asked, MARCH)) == {"2.25.1"}
    assert ["confirm" in sentence for sentence in doubts(asked)[MARCH]] == [True, True]
    assert {one.role_by for one in asked.sightings if one.role is Role.NEW} == {"not confirmed"}
    new = {one.lesion: one.role for one in counted.history().visits[1].seen}
    assert new == {"2.25.1": Role.TARGET, "2.25.2": Role.NEW}
    assert "2.25.3"[-2:] in doubts(counted)[MARCH][0]


def test_the_largest_of_an_organ_are_proposed_as_targets_and_a_normal_node_is_none(
    database: Database,
) -> None:
    with database.transaction() as session:
        clock = Clock()
        sizes = {"2.25.1": 20, "2.25.2": 30, "2.25.3": 15, "2.25.4": 6}
        found = [lesion(uid, mm, segment_number=n) for n, (uid, mm) in enumerate(sizes.items(), start=1)]
        node = {"category": ANATOMY, "type": NODE, "site": None}
        found += [lesion("2.25.5", 12, segment_number=5, short_axis=8.0, **node)]
        visit(session, clock, JANUARY, found)
        visit(session, clock, MARCH, [lesion("2.25.5", 14, short_axis=12.0, **node)])
        told = course(session, patient_pk(session))
    roles = {one.lesion: one.role for one in told.sightings if one.date == JANUARY}
    assert roles == {
        "2.25.1": Role.TARGET,
        "2.25.2": Role.TARGET,
        "2.25.3": Role.NON_TARGET,
        "2.25.4": Role.NON_TARGET,
        "2.25.5": None,
    }
    assert told.sightings[0].role_by == "proposal" and "20.0 mm" in told.sightings[0].role_because
    assert "normal at the baseline" in doubts(told)[MARCH][0]


def test_a_lesion_that_a_person_drew_later_is_new_when_the_tracking_knows_of_no_earlier_one(
    database: Database,
) -> None:
    with database.transaction() as session:
        clock = Clock()
        first = visit(session, clock, JANUARY, [lesion("2.25.1", automatic=False)], plugin="contours")
        new = [Linked(kind=Kind.NEW, uid="2.25.2", study=first)]
        visit(session, clock, MARCH, [lesion("2.25.2", automatic=False)], new, plugin="contours")
        found = course(session, patient_pk(session))
    assert [one.role for one in found.history().visits[1].seen] == [Role.NEW]
    assert doubts(found) == {}


@pytest.mark.parametrize("rules", [Rules(), Rules(unconfirmed_new="count")], ids=["ask", "count"])
@pytest.mark.parametrize("automatic", [True, False], ids=["found", "drawn"])
def test_a_lesion_is_not_known_to_be_new_where_earlier_ones_could_not_be_compared(
    database: Database, automatic: bool, rules: Rules
) -> None:
    with database.transaction() as session:
        clock = Clock()
        first = visit(session, clock, JANUARY, [lesion("2.25.1", automatic=automatic)], plugin="contours")
        reason = "no earlier lesion is known; not all earlier lesions could be compared"
        new = [Linked(kind=Kind.NEW, uid="2.25.2", study=first, confidence=0.3, reason=reason)]
        visit(session, clock, MARCH, [lesion("2.25.2", automatic=automatic)], new, plugin="contours")
        found = course(session, patient_pk(session), rules=rules)
    (told,) = [one for one in found.sightings if one.lesion == "2.25.2"]
    assert (told.role, told.role_by) == (Role.NEW, "not confirmed")
    assert found.history().visits[1].seen == ()
    assert doubts(found)[MARCH][0] == (
        "'Nodule .2' (20.0 mm, confidence 0.90) could not be compared with all earlier lesions; nobody confirmed that "
        "it is a new lesion, which would be progression: 'nadir lesions confirm' or 'nadir lesions mark' decides."
    )


def test_the_drawing_of_a_person_counts_before_an_automatic_one(database: Database) -> None:
    with database.transaction() as session:
        clock = Clock()
        uid = visit(session, clock, JANUARY, [lesion("2.25.1", 20)])
        drawn = lesion("2.25.1", 24, automatic=False, confidence=None)
        visit(session, clock, JANUARY, [drawn], study=uid, plugin="contours")
        found = course(session, patient_pk(session))
    assert seen(found, JANUARY) == {"2.25.1": (Status.MEASURED, 240)}
    other = next(one for one in found.sightings if one.automatic)
    assert not other.counts and "person" in other.note


def test_what_a_person_and_an_analysis_drew_at_one_place_is_one_lesion(database: Database) -> None:
    with database.transaction() as session:
        clock = Clock()
        near, far = (1.0, 2.0, 6.0), (1.0, 2.0, 90.0)
        uid = visit(
            session,
            clock,
            JANUARY,
            [lesion("2.25.1", 20), lesion("2.25.2", centroid_mm=far, segment_number=2)],
        )
        gtv = lesion("2.25.7", 22, automatic=False, label="GTV", centroid_mm=near)
        visit(session, clock, JANUARY, [gtv], study=uid, plugin="contours")
        links = [Linked(kind=Kind.SAME, uid=u, earlier=[u], study=uid) for u in ("2.25.1", "2.25.2")]
        visit(session, clock, MARCH, [lesion("2.25.1", 25), lesion("2.25.2", segment_number=2)], links)
        found = course(session, patient_pk(session))
    assert seen(found, JANUARY) == {"2.25.7": (Status.MEASURED, 220), "2.25.2": (Status.MEASURED, 200)}
    assert seen(found, MARCH) == {"2.25.7": (Status.MEASURED, 250), "2.25.2": (Status.MEASURED, 200)}
    assert found.names["2.25.7"] == "GTV"


def test_a_lesion_is_called_as_in_the_seg_however_people_called_the_region(database: Database) -> None:
    with database.transaction() as session:
        clock = Clock()
        drawn = [("2.25.1", "Lesion 1", "Lesion 1"), ("2.25.2", "Lesion 2", "Lesion 2")]
        visit(session, clock, JANUARY, [_called(*one) for one in drawn], plugin="contours")
        then = [("2.25.3", "Lesion 1", "Lesion 3"), ("2.25.1", "Lesion 2", "Lesion 1")]
        visit(session, clock, MARCH, [_called(*one) for one in then], plugin="contours")
        found = course(session, patient_pk(session))
    assert found.names == {"2.25.1": "Lesion 1", "2.25.2": "Lesion 2", "2.25.3": "Lesion 3"}
    assert {(one.lesion, one.label) for one in found.sightings} == set(found.names.items())


def test_lesions_of_one_tracking_id_are_numbered_apart_from_all_others(database: Database) -> None:
    with database.transaction() as session:
        named = [("2.25.1", "Lesion"), ("2.25.2", "Lesion"), ("2.25.3", "Lesion (2)"), ("2.25.4", "")]
        drawn = [_called(uid, "Lesion", name) for uid, name in named]
        visit(session, Clock(), JANUARY, drawn, plugin="contours")
        found = course(session, patient_pk(session))
    assert found.names == {
        "2.25.1": "Lesion",
        "2.25.2": "Lesion (3)",
        "2.25.3": "Lesion (2)",
        "2.25.4": "Lesion (4)",
    }


def _called(uid: str, label: str, identifier: str) -> Found:
    """Return what a person drew and called `label`, with the Tracking ID that was written."""
    number = int(uid[-1])
    place = (0.0, 0.0, 50.0 * number)
    return lesion(
        uid,
        automatic=False,
        label=label,
        tracking_identifier=identifier,
        centroid_mm=place,
        segment_number=number,
    )


def test_uptake_stands_beside_size_and_only_sul_is_told(database: Database) -> None:
    with database.transaction() as session:
        clock = Clock()
        uid = visit(session, clock, JANUARY, [lesion("2.25.1", 20)])
        visit(session, clock, JANUARY, [lesion("2.25.1", 33, suv_peak=7.0)], study=uid, plugin="pet_lesion")
        found = course(session, patient_pk(session))
    assert seen(found, JANUARY) == {"2.25.1": (Status.MEASURED, 200)}
    (row,) = found.history("percist").visits[0].seen
    assert (row.suv_peak, row.long_axis_tenths) == (None, 330)
    assert "SUL" in doubts(found, "percist")[JANUARY][0]


def test_the_first_ct_is_the_baseline_of_what_is_measured_on_ct_and_the_first_pet_of_the_others(
    database: Database,
) -> None:
    with database.transaction() as session:
        clock = Clock()
        visit(session, clock, JANUARY, [lesion("2.25.1", 33, suv_peak=7.0)], plugin="pet_lesion")
        visit(session, clock, MARCH, [lesion("2.25.2", 20)])
        visit(session, clock, MAY, [])
        found = course(session, patient_pk(session))
    assert [v.date for v in found.history().visits] == [MARCH, MAY]
    assert [v.date for v in found.history("percist").visits] == [JANUARY]
    assert {one.lesion: (one.role, one.role_by) for one in found.sightings} == {
        "2.25.1": (Role.NON_TARGET, "proposal"),
        "2.25.2": (Role.TARGET, "proposal"),
    }


def test_a_patient_without_a_row_is_refused(database: Database) -> None:
    with database.reading() as session, pytest.raises(Refused, match="no patient"):
        course(session, 17)


def test_merged_patients_have_one_course_until_they_are_parted(database_url: str) -> None:
    database = Database(database_url)
    with database.transaction() as session:
        clock = Clock()
        visit(session, clock, JANUARY, [lesion("2.25.1")])
        visit(session, clock, MARCH, [lesion("2.25.1")], patient={"patient_id": "Q9"})
        one, other = patient_pk(session), patient_pk(session, "Q9")
        assert len(course(session, one).visits) == 1
        merge(session, other, one, "Dr. Grey", at(100))
        assert [v.study_date for v in course(session, other).visits] == [JANUARY, MARCH]
        declared = course(session, one).merges
        assert [(m.patient_id, m.into_patient_id, m.author, m.at) for m in declared] == [
            ("Q9", "P1", "Dr. Grey", at(100))
        ]
        assert course(session, other) == course(session, one)
        assert same_person(session, other) == (one, other)
        assert find_patient(session, "Q9").id == one
        assert [e.study_date for e in earlier(session, course(session, one).visits[1].study_pk)] == [JANUARY]
        assert heads(session) == (one,)
        with pytest.raises(Refused, match="one patient already"):
            merge(session, one, other, "Dr. Grey", at(101))
        part(session, other, "Dr. Grey", at(102))
        assert len(course(session, one).visits) == 1
        assert course(session, one).merges == ()
        with pytest.raises(Refused, match="not merged"):
            part(session, other, "Dr. Grey", at(103))
    database.dispose()


def test_an_identifier_of_several_issuers_asks_for_one(database: Database) -> None:
    with database.transaction() as session:
        clock = Clock()
        visit(session, clock, JANUARY, [lesion("2.25.1")], patient={"issuer": "A"})
        visit(session, clock, JANUARY, [lesion("2.25.2")], patient={"issuer": "B"})
        with pytest.raises(Refused, match="--issuer"):
            find_patient(session, "P1")
        assert find_patient(session, "P1", "B").issuer == "B"
        with pytest.raises(Refused, match="no patient"):
            find_patient(session, "", None)


@given(length=st.integers(0, 100_000))
def test_a_length_in_hundredths_becomes_tenths_half_up(length: int) -> None:
    assert tenths(float(f"{length / 100:.2f}")) == (length + 5) // 10


def test_what_was_found_for_another_patient_is_no_visit_of_whoever_the_study_is_now(
    database: Database,
) -> None:
    with database.transaction() as session:
        clock = Clock()
        visit(session, clock, JANUARY, [lesion("2.25.1")])
        visit(session, clock, MARCH, [lesion("2.25.2")], patient={"patient_id": "P2"})
        other = session.exec(select(Study).where(Study.study_date == MARCH)).one()
        other.patient_pk = patient_pk(session)
        session.flush()
        found = course(session, patient_pk(session))
        assert [(one.lesion, one.date) for one in found.sightings] == [("2.25.1", JANUARY)]
        assert found.analysed == ((JANUARY, "lung_nodule"),)
        merge(session, patient_pk(session, "P2"), patient_pk(session), "A", at(90))
        found = course(session, patient_pk(session))
        assert [one.lesion for one in found.sightings] == ["2.25.1", "2.25.2"]
