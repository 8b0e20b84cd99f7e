"""PERCIST and Lugano over the rows of a database: SULpeak of the lesions beside the liver of the same PET."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from course_rows import LUNG, Clock, Linked, lesion, liver, patient_pk, visit
from ledger import at
from sqlmodel import select

from plugins.errors import Refused
from store.analysed import Found
from store.choices import choose, give_reference, undo
from store.course import Course, course
from store.course_json import from_json, to_json
from store.database import Database
from store.model_tables import SeriesFact
from store.response.history import Reference, Role
from store.response.verdict import Response
from store.scanners import Scanned
from store.tables import Job
from store.told import doubts, judge
from store.tracking.link import Kind

JANUARY, MARCH = date(2026, 1, 10), date(2026, 3, 10)
LIVER = {"sul_mean": 1.6, "sul_sd": 0.2, "uptake_time": 60, "injected_activity": 300}


@pytest.fixture
def database(sqlite: Database) -> Database:
    return sqlite


def two_pets(database: Database, then: Sequence[Found], now: Sequence[Found]) -> Course:
    """Return the course of a patient with two PETs, the lesion 2.25.1 being the same on both."""
    with database.transaction() as session:
        clock = Clock()
        first = visit(session, clock, JANUARY, then, plugin="pet_lesion")
        same = [Linked(kind=Kind.SAME, uid="2.25.1", earlier=["2.25.1"], study=first)]
        visit(session, clock, MARCH, now, same, plugin="pet_lesion")
        return course(session, patient_pk(session))


def hot(sul: float, **more: Any) -> Found:
    """Return the lesion 2.25.1 with this SULpeak, SUVpeak a quarter above."""
    return lesion("2.25.1", 30, suv_peak=1.25 * sul, sul_peak=sul, tlg=40, **more)


def last_of(response: Response) -> tuple[str | None, str, str]:
    point = response.time_points[-1]
    return point.overall, point.because, " ".join(point.doubts)


@pytest.mark.parametrize(("now", "word"), [(4.0, "PMR"), (7.0, "SMD"), (11.0, "PMD"), (1.2, "CMR")])
def test_percist_is_judged_by_what_the_node_measured(database: Database, now: float, word: str) -> None:
    found = two_pets(
        database,
        [liver("2.25.8", **LIVER), hot(8.0)],
        [liver("2.25.9", **LIVER | {"sul_mean": 1.7}), hot(now)],
    )
    baseline, after = found.history("percist").visits
    assert (baseline.seen[0].suv_peak, after.seen[0].suv_peak) == (8.0, now)
    assert baseline.seen[0].tlg == 32.0, "40 g of SUVbw, of which 8 of 10 are SUL"
    assert baseline.reference == Reference(
        liver_mean=1.6, liver_sd=0.2, uptake_minutes=60.0, injected_mbq=300.0
    )
    response = judge(found, "percist")
    overall, because, doubts = last_of(response)
    assert overall == word, because
    assert "measurable, as at least 1.5 x liver mean 1.60 g/ml" in response.time_points[0].because
    assert "not normalised" not in doubts and "liver" not in doubts


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"sul_mean": 2.1}, "liver mean 1.60 g/ml then 2.10 g/ml"),
        ({"uptake_time": 80}, "uptake times 60 and 80 minutes"),
    ],
)
def test_scans_that_do_not_compare_are_not_evaluable(
    database: Database, changed: dict[str, float], words: str
) -> None:
    found = two_pets(
        database, [liver("2.25.8", **LIVER), hot(8.0)], [liver("2.25.9", **LIVER | changed), hot(4.0)]
    )
    overall, because, _ = last_of(judge(found, "percist"))
    assert overall == "NE"
    assert words in because


def test_another_activity_is_a_doubt(database: Database) -> None:
    more = LIVER | {"injected_activity": 400}
    found = two_pets(database, [liver("2.25.8", **LIVER), hot(8.0)], [liver("2.25.9", **more), hot(4.0)])
    overall, _, doubts = last_of(judge(found, "percist"))
    assert overall == "PMR"
    assert "Injected 300 MBq, then 400 MBq" in doubts


def test_without_height_the_course_is_not_evaluable_and_says_why(database: Database) -> None:
    short = {"uptake_time": 60, "injected_activity": 300}
    bare = lesion("2.25.1", 30, suv_peak=10.0)
    found = two_pets(database, [liver("2.25.8", **short), bare], [liver("2.25.9", **short), bare])
    response = judge(found, "percist")
    overall, because, doubts = last_of(response)
    assert (overall, response.best_overall) == ("NE", "NE")
    assert because == "NE: no SULpeak at any visit."
    assert "g/ml{SUVbw}, not normalised to lean body mass (SUL)" in doubts
    assert "needs weight, height and sex of the patient" in doubts


def test_a_visit_without_height_is_not_evaluable_beside_a_baseline_with_it(database: Database) -> None:
    found = two_pets(database, [liver("2.25.8", **LIVER), hot(8.0)], [lesion("2.25.1", 30, suv_peak=10.0)])
    overall, because, doubts = last_of(judge(found, "percist"))
    assert overall == "NE"
    assert "no SULpeak at this visit" in because
    assert "needs weight, height and sex" in doubts


@pytest.mark.parametrize(("pet_at", "word"), [(JANUARY, "PD"), (date(2026, 2, 20), "SD"), (None, "SD")])
def test_a_lesion_that_is_new_on_pet_alone_is_progression_by_recist_after_a_negative_pet_at_the_baseline(
    database: Database, pet_at: date | None, word: str
) -> None:
    with database.transaction() as session:
        clock = Clock()
        first = visit(session, clock, JANUARY, [lesion("2.25.5", 30)])
        pet = hot(4.0, site=LUNG)
        if pet_at is not None:
            study = first if pet_at == JANUARY else ""
            visit(session, clock, pet_at, [pet], plugin="pet_lesion", study=study)
        same = [Linked(kind=Kind.SAME, uid="2.25.5", earlier=["2.25.5"], study=first)]
        study = visit(session, clock, MARCH, [lesion("2.25.5", 29)], same)
        new = lesion("2.25.6", 20, suv_peak=10.0, sul_peak=8.0)
        visit(session, clock, MARCH, [pet, new], plugin="pet_lesion", study=study)
        pk = patient_pk(session)
        assert last_of(judge(course(session, pk), "recist1.1"))[0] == "SD"  # nobody confirmed it
        choose(session, pk, "role", "2.25.6", "new", author="Dr. Grey", now=at(900))
        overall, because, doubts = last_of(judge(course(session, pk), "recist1.1"))
    assert overall == word, because
    assert ("the PET of 2026-01-10 was negative there" in doubts) == (word == "PD")
    assert ("only when CT confirms a new site" in doubts) == (word == "SD")


def test_the_sentence_on_a_lesion_of_pet_alone_knows_the_first_visit_that_showed_nothing(
    database: Database,
) -> None:
    with database.transaction() as session:
        clock = Clock()
        first = visit(session, clock, JANUARY, [])
        pet = hot(4.0, site=LUNG)
        visit(session, clock, JANUARY, [pet], plugin="pet_lesion", study=first)
        study = visit(session, clock, MARCH, [lesion("2.25.5", 29)])
        new = lesion("2.25.6", 20, suv_peak=10.0, sul_peak=8.0)
        visit(session, clock, MARCH, [pet, new], plugin="pet_lesion", study=study)
        pk = patient_pk(session)
        choose(session, pk, "role", "2.25.6", "new", author="Dr. Grey", now=at(900))
        found = course(session, pk)
    assert [one.lesion for one in found.history("recist1.1").visits[-1].seen if one.role is Role.NEW] == [
        "2.25.6"
    ]
    assert "the PET of 2026-01-10 was negative there" in " ".join(doubts(found)[MARCH])


def test_glycolysis_in_sul_decides_and_without_lean_body_mass_it_is_not_known(database: Database) -> None:
    def grown(tlg: float, suv: float) -> Found:
        return lesion("2.25.1", 30, suv_peak=suv, sul_peak=8.0, tlg=tlg)

    pets = [liver("2.25.8", **LIVER), grown(50.0, 10.0)], [liver("2.25.9", **LIVER), grown(80.0, 8.8)]
    found = two_pets(database, *pets)
    assert [visit.seen[0].tlg for visit in found.history("percist").visits] == pytest.approx(
        [40.0, 72.727], abs=1e-3
    )
    overall, because, _ = last_of(judge(found, "percist"))
    assert (overall, "total lesion glycolysis 40.0 then 72.7 g" in because) == ("PMD", True)
    bare = replace(
        found,
        sightings=tuple(
            replace(s, measurements={n: m for n, m in s.measurements.items() if n != "sul_peak"})
            for s in found.sightings
        ),
    )
    assert [visit.seen[0].tlg for visit in bare.history("percist").visits] == [None, None]


def test_normal_tissue_that_a_person_entered_is_what_counts_and_is_told(database: Database) -> None:
    two_pets(database, [hot(8.0)], [liver("2.25.9", **LIVER), hot(4.0)])
    about = {"author": "Dr. Grey", "now": at(900)}
    with database.transaction() as session:
        pk = patient_pk(session)
        bare = course(session, pk)
        assert "'nadir lesions reference --liver-mean' enters it" in doubts(bare, "percist")[JANUARY][0]
        assert "'nadir lesions reference --mediastinum'" in "".join(doubts(bare, "lugano")[MARCH])
        for values, words in (
            ({}, "at least one"),
            ({"liver": 1.0}, "at least one"),
            ({"liver_mean": 0.0}, "from 0.01"),
        ):
            with pytest.raises(Refused, match=words):
                give_reference(session, pk, "1.2.1", values, **about)
        give_reference(session, pk, "1.2.1", {"liver_mean": 9.0, "liver_sd": 0.2}, **about)
        give_reference(session, pk, "1.2.1", {"liver_mean": 1.6}, **about, note="right lobe")
        number = give_reference(session, pk, "1.2.2", {"liver_mean": 2.4}, **about).number
        known = course(session, pk)
        assert from_json(to_json(known)) == known
        references = [visit.reference for visit in known.history("percist").visits]
        assert references == [
            Reference(liver_mean=1.6, liver_sd=0.2),
            Reference(liver_mean=2.4, liver_sd=0.2, uptake_minutes=60.0, injected_mbq=300.0),
        ]
        assert (
            "Entered by Dr. Grey on 2026-03-01: liver mean 1.60 g/ml (right lobe)."
            in doubts(known, "percist")[JANUARY]
        )
        assert last_of(judge(known, "percist"))[0] == "NE"  # 1.60 then 2.40 do not compare
        undo(session, pk, number, **about)
        assert last_of(judge(course(session, pk), "percist"))[0] == "PMR"


def test_another_scanner_kernel_or_distance_of_slices_is_told_beside_the_verdict(database: Database) -> None:
    found = two_pets(database, [hot(8.0)], [hot(7.0)])
    scan = Scanned(
        date=JANUARY, plugin="pet_lesion", modality="PT", scanner="Maker A", kernel="", slice_distance_mm=3.0
    )
    alike = replace(scan, date=MARCH, kernel="B30", slice_distance_mm=3.1)
    other = replace(scan, date=MARCH, scanner="Maker B", slice_distance_mm=5.0)
    stranger = replace(other, plugin="lungs")
    told = [
        [
            words
            for words in doubts(replace(found, scans=(scan, *more)), "percist").get(MARCH, ())
            if "otherwise" in words
        ]
        for more in ((alike,), (other, stranger))
    ]
    assert told == [
        [],
        [
            "The PT was made otherwise than that of 2026-01-10, which changes what is measured: Maker A, slices every "
            "3.0 mm; now Maker B, slices every 5.0 mm."
        ],
    ]
    with database.transaction() as session:
        pk = int(session.exec(select(Job.id)).first() or 0)
        session.add(
            SeriesFact(
                job_pk=pk,
                series_instance_uid="1.2",
                at=at(1),
                plugin="pet_lesion",
                model_sha256="",
                modality="PT",
                manufacturer="Maker",
                manufacturer_model_name="A",
                slice_distance_mm=3.0,
                pixel_spacing_mm=4.0,
                slices=9,
                unit="g/ml{SUVbw}",
                histogram="[]",
            )
        )
        session.flush()
        assert course(session, patient_pk(session)).scans == (scan,)


def test_the_liver_is_that_of_the_pet_of_the_hottest_lesion(database: Database) -> None:
    other = liver("2.25.7", **LIVER | {"sul_mean": 2.9}, series_instance_uid="another")
    found = two_pets(
        database,
        [other, liver("2.25.8", **LIVER), hot(8.0)],
        [other, hot(8.0), lesion("2.25.2", sul_peak=3.0, series_instance_uid="another")],
    )
    livers = [visit.reference and visit.reference.liver_mean for visit in found.history("percist").visits]
    assert livers == [1.6, 2.9]
    assert [visit.reference for visit in found.history().visits] == []


def test_lean_body_masses_of_two_formulas_are_a_doubt(database: Database) -> None:
    james = lesion("2.25.1", 30, sul_peak=4.0)
    (peak,) = [m for m in james.measurements if m.name == "sul_peak"]
    by_james = replace(james, measurements=(replace(peak, name="suv_peak", unit="g/ml{SUVlbm}"),))
    found = two_pets(database, [liver("2.25.8", **LIVER), hot(8.0)], [by_james])
    assert "after James, that of the first PET after Janmahasatian" in last_of(judge(found, "percist"))[2]


def test_deauville_scores_come_from_the_liver_of_the_node(database: Database) -> None:
    found = two_pets(database, [liver("2.25.8", **LIVER), hot(8.0)], [liver("2.25.9", **LIVER), hot(1.5)])
    response = judge(found, "lugano")
    assert response.time_points[0].sum == 5
    overall, because, _ = last_of(response)
    assert overall == "CMR", because
