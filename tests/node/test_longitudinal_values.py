from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from datetime import UTC, date, datetime
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from courses import course_of, decision, ordinary, response_of, sighting, tracked, visit

from node.lesion_lines import row
from node.report.longitudinal import words
from node.report.longitudinal.course_view import events_of, lesions_of, margins_in_words, visits_of
from node.report.longitudinal.pace import paces_of
from node.report.longitudinal.report import build
from node.report.longitudinal.sums import sums_of
from node.report.longitudinal.tables import write_csv, write_json
from node.report.longitudinal.view import Cell, LongitudinalReport, Who
from node.report.overlays import rounded
from node.web.study_words import role_line
from plugins.errors import Refused
from store.course import Course
from store.patients import Merged
from store.response.history import Role, Status
from store.response.verdict import Margin, TimePoint
from store.sighting import Measure, Sighting
from store.tracking.link import Kind

NOW = datetime(2024, 7, 1, 9, 0, tzinfo=UTC)


def nowhere(name: str) -> object:
    raise KeyError(name)


def reported(course: Course | None = None) -> LongitudinalReport:
    known, responses = ordinary()
    return build(course or known, responses, nowhere, made_at=NOW, software="Nadir 0")  # type: ignore[arg-type]


def cells(*sightings: Sighting, count: int = 2) -> tuple[Cell, ...]:
    visits = tuple(visit(n) for n in range(count))
    course = replace(course_of({}), visits=visits, sightings=sightings)
    (lesion,) = lesions_of(course, visits_of(course, ()))
    return lesion.cells


def test_lesions_have_short_names_by_their_role_and_changes_of_the_axis_that_counts() -> None:
    report = reported()
    by_code = {lesion.code: lesion for lesion in report.lesions}
    assert list(by_code) == ["T1", "T2", "T3", "N1", "New 1"]
    node = by_code["T3"]
    assert (node.node, node.role_by, node.site) == (True, "Dr. Grey", "Mediastinal lymph node")
    assert [cell.counted_mm for cell in node.cells] == [18.0, 12.0, 10.0, 11.5]
    assert node.cells[3].to_baseline_percent == pytest.approx(-100 * 6.5 / 18)
    assert node.cells[3].to_nadir_percent == pytest.approx(15.0)
    assert [c.status for c in by_code["New 1"].cells] == ["", "", "", "measured"]
    assert by_code["N1"].cells[3].words == "not evaluable, outside the field of view"


@pytest.mark.parametrize(
    ("percent", "said"),
    [
        (-29.97, "\N{MINUS SIGN}29.9 %"),
        (100 * (7 - 10) / 10, "\N{MINUS SIGN}30.0 %"),
        (19.99, "+19.9 %"),
        (-0.04, "0.0 %"),
    ],
)
def test_a_change_never_seems_to_reach_what_it_misses(percent: float, said: str) -> None:
    assert words.percent(percent) == said


def test_gone_counts_nothing_and_too_small_counts_five() -> None:
    gone = cells(sighting(visit(0), 1, 20.0), sighting(visit(1), 1, None, status=Status.ABSENT))
    assert (gone[1].counted_mm, gone[1].to_baseline_percent, gone[1].words) == (0.0, -100.0, "gone")
    small = cells(sighting(visit(0), 1, 20.0), sighting(visit(1), 1, None, status=Status.TOO_SMALL))
    assert (small[1].counted_mm, small[1].to_baseline_percent) == (5.0, -75.0)


def test_a_node_too_small_to_measure_counts_its_short_axis_and_says_so() -> None:
    node = sighting(visit(1), 1, 12.0, short_mm=7.4, status=Status.TOO_SMALL, node=True)
    (_, small) = cells(sighting(visit(0), 1, 20.0, node=True), node)
    assert (small.counted_mm, small.words) == (7.4, "too small to measure, counts 7.4 mm")
    course = replace(course_of({}), visits=(visit(1),), sightings=(node,))
    ((_, said),) = events_of(course, lesions_of(course, visits_of(course, ())), {})
    assert said.endswith(": too small to measure, counts 7.4 mm")


def test_a_part_too_small_to_measure_counts_five_beside_the_other() -> None:
    part = replace(sighting(visit(1), 2, 9.0, status=Status.TOO_SMALL), lesion="2.25.1001")
    (_, both) = cells(sighting(visit(0), 1, 20.0), sighting(visit(1), 1, 6.0), part)
    assert both.counted_mm == 11.0


def test_a_lesion_that_is_called_progressed_counts_its_axis_unless_a_part_of_it_is_not_evaluable() -> None:
    progressed = sighting(visit(1), 1, 26.0, status=Status.PROGRESSED)
    (_, grown) = cells(sighting(visit(0), 1, 20.0), progressed)
    assert (grown.counted_mm, grown.to_baseline_percent) == (26.0, 30.0)
    assert grown.words == "unequivocal progression"
    unknown = sighting(visit(1), 2, 9.0, status=Status.NOT_EVALUABLE)
    (_, partly) = cells(sighting(visit(0), 1, 20.0), progressed, replace(unknown, lesion="2.25.1001"))
    assert (partly.counted_mm, partly.words) == (None, "unequivocal progression, 2 parts")


def test_parts_of_a_lesion_are_added_up_and_their_errors_too() -> None:
    part = replace(sighting(visit(1), 2, 9.0, sd_mm=0.6), lesion="2.25.1001")
    (_, both) = cells(sighting(visit(0), 1, 20.0), sighting(visit(1), 1, 6.0, sd_mm=0.8), part)
    assert both.counted_mm == 15.0
    assert (both.numbers["long_axis"].value, both.numbers["long_axis"].sd) == (15.0, pytest.approx(1.0))
    assert both.words == "2 parts"


def test_a_lesion_on_pet_and_ct_has_the_length_of_the_ct_and_the_uptake_of_the_pet() -> None:
    uptake = {
        "long_axis": Measure(value=31.0, unit="mm"),
        "suv_peak": Measure(value=7.5, unit="g/ml{SUVlbm}"),
    }
    pet = sighting(visit(0), 1, None, measurements=uptake, plugin="pet_lesion")
    (cell,) = cells(sighting(visit(0), 1, 20.0), pet, count=1)
    assert (cell.counted_mm, cell.numbers["suv_peak"].value, cell.words) == (20.0, 7.5, "")
    assert cell.made_by == "lung_nodule 0.3.0, pet_lesion 0.3.0"


def test_one_length_is_the_same_number_wherever_it_is_written() -> None:
    seen = sighting(visit(0), 1, 12.25, short_mm=8.35, sd_mm=0.25)
    course = replace(course_of({}), visits=(visit(0),), sightings=(seen,))
    (lesion,) = lesions_of(course, visits_of(course, ()))
    (cell,) = lesion.cells
    assert (cell.counted_mm, words.glance(cell)[0]) == (12.3, "12.3")
    assert (words.length(cell, "long_axis"), words.length(cell, "short_axis")) == ("12.3 ± 0.3", "8.4 ± 0.3")
    assert words.caption(cell) == "12.3 × 8.4 mm"
    assert [rounded(value) for value in (12.25, 100.5, 0.125, -12.25)] == [
        "12.3",
        "101",
        "0.13",
        "\N{MINUS SIGN}12.3",
    ]
    assert "12.3 mm" in row(course, lesion.tracking_uid, "", [visit(0).study_date]).values()


def test_what_does_not_count_is_not_added() -> None:
    other = sighting(visit(0), 1, 26.0, counts=False, note="another analysis counts")
    (cell,) = cells(sighting(visit(0), 1, 20.0), other, count=1)
    assert cell.counted_mm == 20.0


def test_progression_is_the_larger_of_a_fifth_and_five_millimetres_in_whole_tenths() -> None:
    days = [date(2024, 1, 1), date(2024, 3, 1)]
    for baseline, least, criteria in (
        (20.0, 25.0, "recist1.1"),
        (38.1, 45.8, "irecist"),
        (300.0, 375.0, "who"),
    ):
        response = response_of(
            "P", list(zip(days, (baseline, baseline), strict=True)), [None, "SD"], criteria=criteria
        )
        sums = sums_of(response, ())
        assert sums.points[1].progression_from == least
    assert sums.response_to == 150.0
    volumes = sums_of(replace(response, criteria="volume"), ())
    assert (volumes.response_to, volumes.next_progression_from) == (102.9, 518.4)
    none = sums_of(replace(response, criteria="percist"), ())
    assert (none.next_progression_from, none.response_to) == (None, None)


@pytest.mark.parametrize(("criteria", "complete"), [("recist1.1", "CR"), ("irecist", "iCR")])
def test_after_a_complete_response_with_a_normal_node_no_sum_is_named_from_which_it_is_progression(
    criteria: str, complete: str
) -> None:
    days = [date(2024, 1, 1), date(2024, 3, 1), date(2024, 5, 1)]
    sizes = list(zip(days, (20.0, 8.0, 10.5), strict=True))
    sums = sums_of(response_of("P", sizes, [None, complete, "PD"], criteria=criteria), ())
    assert [point.progression_from for point in sums.points] == [None, 25.0, None]
    assert (sums.next_progression_from, sums.nadir, sums.response_to) == (None, 8.0, 14.0)
    by_volume = sums_of(response_of("P", sizes, [None, "CR", "PD"], criteria="volume"), ())
    assert by_volume.next_progression_from == 13.824


def test_margins_are_told_in_words_with_standard_deviations() -> None:
    margins = [
        Margin(lesion="2.25.1", quantity="long_axis", value=15, change=1.3, unit="mm", verdict="PD",
               standard_deviations=1.625),
        Margin(lesion="x", quantity="suv_peak", value=9, change=-0.25, unit="{SUVbw}g/ml", verdict="PMR"),
    ]  # fmt: skip
    assert margins_in_words(margins, {"2.25.1": "T2"}) == (
        "T2 would have to be 1.3 mm longer (1.6 standard deviations) for PD",
        "The uptake of x would have to be 0.2 lower for PMR",
    )


def test_what_happened_is_told_once_with_its_reason_and_uids_become_names() -> None:
    at = [visit(0), visit(1)]
    merged = sighting(at[1], 1, 25.0, link=tracked(Kind.MERGED, 0.8, [1, 2]))
    course = course_of({1: (10.0,), 2: (12.0,)}, more=[merged])
    report = build(
        replace(course, visits=tuple(at)),
        [response_of("P", [(v.study_date, 22.0) for v in at], [None, "SD"], because="2.25.1002 grew.")],
        nowhere, made_at=NOW,
    )  # type: ignore[arg-type]  # fmt: skip
    ((day, said),) = report.events
    assert (day, said.rpartition(": ")[0]) == (
        at[1].study_date, "T1 (Nodule 1): grown together (before: T1 and T2)",
    )  # fmt: skip
    assert report.response.time_points[1].because == "T2 grew."


def test_what_a_person_linked_is_told_as_that_and_what_does_not_count_only_why() -> None:
    first = sighting(visit(0), 1, 10.0)
    moved = sighting(visit(1), 1, 9.0, link=tracked(Kind.NEW), decisions=[decision("relink", "2.25.1001")])
    left = sighting(
        visit(1),
        1,
        None,
        status=Status.ABSENT,
        link=tracked(Kind.GONE),
        counts=False,
        note="Nodule 8 counts.",
    )
    course = replace(course_of({}), visits=(visit(0), visit(1)), sightings=(first, moved, left))
    report = reported(course)
    assert [said for _, said in report.events] == [
        "T1 (Nodule 1): linked by Dr. Grey",
        "T1 (Nodule 1): Nodule 8 counts.",
    ]
    assert report.lesions[0].cells[1].link == "linked by Dr. Grey"
    assert [c.words for c in report.corrections] == ["is the same lesion as T1"]


def test_who_corrected_what_is_told_once_by_time() -> None:
    again = replace(
        sighting(visit(1), 1, 9.0),
        decisions=(decision("role", "target"), decision("reject", "true", number=2)),
    )
    course = course_of({1: (10.0,)}, more=[again])
    report = reported(replace(course, visits=(visit(0), visit(1))))
    assert [(c.author, c.lesion, c.words) for c in report.corrections] == [
        ("Dr. Grey", "T1", "counts as target"),
        ("Dr. Grey", "T1", "is no lesion"),
    ]


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("reject", "true", "is no lesion"),
        ("reject", "false", "is a lesion after all"),
        ("confirm", "true", "is confirmed"),
        ("confirm", "false", "is not confirmed"),
    ],
)
def test_a_choice_is_not_told_as_its_contrary(kind: str, value: str, words: str) -> None:
    again = replace(sighting(visit(1), 1, 9.0), decisions=(decision(kind, value),))
    course = course_of({1: (10.0,)}, more=[again])
    report = reported(replace(course, visits=(visit(0), visit(1))))
    assert [one.words for one in report.corrections] == [words]


def test_csv_and_json_carry_the_numbers_of_the_course() -> None:
    course, _ = ordinary()
    report = reported()
    rows = list(csv.DictReader(StringIO(write_csv(report))))
    told = json.loads(write_json(report))
    lesions = {one["tracking_uid"]: one for one in told["lesions"]}
    measured = [s for s in course.sightings if s.measurements and not s.on_pet]
    assert len(measured) == 13
    for one in measured:
        row = next(r for r in rows if r["tracking_uid"] == one.lesion and r["date"] == one.date.isoformat())
        cell = next(c for c in lesions[one.lesion]["cells"] if c["date"] == one.date.isoformat())
        for name in ("long_axis", "short_axis"):
            assert float(row[f"{name}_mm"]) == pytest.approx(one.measurements[name].value, rel=1e-7)
            assert cell["numbers"][name]["value"] == one.measurements[name].value
        assert float(row["volume"]) == pytest.approx(one.measurements["volume"].value, rel=1e-7)
    assert [r["overall"] for r in rows if r["lesion"] == "T1"] == ["", "PR", "PR", "PD"]
    assert [p["sum"] for p in told["responses"][0]["time_points"]] == [60.0, 41.0, 38.0, 47.0]
    assert told["responses"][0]["best_overall"] == "PR"
    assert told["margins"][0] == "T2 would have to be 1.5 mm shorter (1.9 standard deviations) for PR"


def volumes(*millilitres: float | None, sd: float | None = None, **more: object) -> list[Sighting]:
    """Return a lesion with these volumes, one a visit every 56 days."""
    return [
        sighting(visit(n), 1, None, measurements={"volume": Measure(value=ml, unit="mL", uncertainty=sd)}, **more)
        for n, ml in enumerate(millilitres)
        if ml is not None
    ]  # fmt: skip


def test_a_volume_that_doubles_at_each_visit_doubles_between_visits() -> None:
    since_before, over_all = paces_of(volumes(1.0, 2.0, 4.0))
    assert [pace.doubling_days for pace in since_before.values()] == pytest.approx([56, 56])
    assert over_all is not None and over_all.doubling_days == pytest.approx(56)
    assert (over_all.since, over_all.until) == (visit(0).study_date, visit(2).study_date)
    assert over_all.words == "volume doubles in 56 days"


def test_a_pace_has_an_interval_where_both_deviations_are_known() -> None:
    _, over_all = paces_of(volumes(2.0, 1.0, sd=0.1))
    assert over_all is not None and over_all.doubling_days == pytest.approx(-56)
    half = 1.959964 * math.hypot(0.05, 0.1) / 56
    assert over_all.rate_interval == pytest.approx((-math.log(2) / 56 - half, -math.log(2) / 56 + half))
    _, over_all = paces_of([*volumes(2.0, sd=0.1), *volumes(None, 1.0)])
    assert over_all is not None and over_all.rate_interval is None


def test_volumes_are_compared_across_visits_without_one_and_never_from_ct_to_pet() -> None:
    gone = sighting(visit(3), 1, None, status=Status.ABSENT)
    since_before, over_all = paces_of([*volumes(1.0, None, 4.0), gone])
    assert list(since_before) == [visit(2).study_date]
    assert over_all is not None and over_all.doubling_days == pytest.approx(56)
    on_pet = {"volume": Measure(value=9.0, unit="mL"), "suv_max": Measure(value=5.0, unit="g/ml")}
    pet = sighting(visit(1), 1, None, measurements=on_pet)
    assert paces_of([*volumes(1.0), pet]) == ({}, None)
    # A part without a volume leaves the whole without one.
    assert paces_of([*volumes(1.0, 2.0), sighting(visit(1), 1, None)]) == ({}, None)
    assert paces_of(volumes(1.0, 0.0)) == ({}, None)


@pytest.mark.parametrize("status", [Status.ABSENT, Status.TOO_SMALL])
def test_no_pace_goes_across_a_visit_at_which_the_lesion_was_gone_or_too_small(status: Status) -> None:
    gone = sighting(visit(1), 1, None, status=status)
    since_before, over_all = paces_of([*volumes(1.0, None, 4.0, 8.0), gone])
    assert list(since_before) == [visit(3).study_date] and over_all is None


def test_the_rates_of_a_course_are_told_in_words_and_in_tables() -> None:
    at = [visit(n) for n in range(5)]
    course = replace(course_of({}), visits=tuple(at), sightings=tuple(volumes(1.0, 2.0, 4.0, sd=0.001)))
    exact = [10 * math.exp(0.004 * (1 + 56 * n)) for n in range(5)]
    noise = (1.0, 1.01, 0.99, 1.01, 0.99)
    sums = [(v.study_date, a * b) for v, a, b in zip(at, exact, noise, strict=True)]
    grows = response_of("P", sums, [None, "SD", "PD", "PD", "PD"])
    unknown = response_of("P", [(v.study_date, None) for v in at], [None, "NE", "NE", "NE", "NE"])
    score = replace(grows, criteria="lugano", unit="1")
    report = build(course, [grows, unknown, score], nowhere, made_at=NOW)  # type: ignore[arg-type]
    growth, *others = report.growth
    assert growth is not None and growth.chosen is not None and others == [None, None]
    assert growth.chosen.estimates["g"].value == pytest.approx(0.004, rel=0.02)
    said = words.growth_of(growth, grows)
    assert said.startswith("Growth of the sum of diameters, 5 of 5 visits: growth alone (model gx), g = 0.00")
    row = list(csv.DictReader(StringIO(write_csv(report))))[-1]
    assert (row["growth_model"], row["growth_d_per_day"]) == ("gx", "")
    assert float(row["growth_g_per_day"]) == pytest.approx(0.004, rel=0.02)
    assert (row["doubling_since"], float(row["doubling_days"])) == ("2024-03-06", pytest.approx(56))
    assert float(row["course_doubling_days"]) == pytest.approx(56)
    assert float(row["course_volume_rate_low_per_day"]) < math.log(2) / 56
    told = json.loads(write_json(report))
    assert told["responses"][0]["growth"]["chosen"]["model"] == "gx"
    assert told["lesions"][0]["pace"]["doubling_days"] == pytest.approx(56)
    assert words.pace_of(report.lesions[0]) == (
        "From 2024-03-06 to 2024-05-01: volume doubles in 56 days (95 %: 56 to 56 days). "
        "From 2024-01-10 to 2024-05-01: volume doubles in 56 days (95 %: 56 to 56 days)."
    )


def test_without_rates_it_is_told_why() -> None:
    days = [visit(n).study_date for n in range(2)]
    response = response_of("P", list(zip(days, (20.0, 21.0), strict=True)), [None, "SD"])
    (growth,) = build(course_of({1: (20.0, 21.0)}), [response], nowhere, made_at=NOW).growth  # type: ignore[arg-type]
    assert growth is not None
    assert words.growth_of(growth, response) == (
        "No growth rate of the sum of diameters: two points that differ by less than 20 % (20 and 21)."
    )


def test_a_rate_of_two_visits_has_no_uncertainty() -> None:
    days = [visit(n).study_date for n in range(2)]
    response = response_of("P", list(zip(days, (20.0, 40.0), strict=True)), [None, "PD"])
    report = build(course_of({1: (20.0, 40.0)}), [response], nowhere, made_at=NOW)  # type: ignore[arg-type]
    (growth,) = report.growth
    assert growth is not None
    assert words.growth_of(growth, response) == (
        "Growth of the sum of diameters, 2 of 2 visits: growth alone (model gx), "
        "g = 0.01238 a day (doubles in 56 days); two points: no uncertainty can be told."
    )
    (estimate,) = json.loads(write_json(report))["responses"][0]["growth"]["chosen"]["estimates"].values()
    assert (estimate["standard_error"], estimate["p_value"]) == (None, None)


@pytest.mark.parametrize(
    ("overall", "because", "said"),
    [
        ("PD", "PD: Targets PD.", "Targets PD."),
        ("NON-CR/NON-PD", "NON-CR/NON-PD: Non-target lesions.", "Non-target lesions."),
        (None, "Baseline. Targets: 1.", "Targets: 1."),
        ("SD", "Targets SD.", "Targets SD."),
    ],
)
def test_a_verdict_stands_once_before_its_reason(overall: str | None, because: str, said: str) -> None:
    point = TimePoint(
        date=NOW.date(), sum=None, nadir=None, target=None, non_target=None, new=False, overall=overall,
        because=because,
    )  # fmt: skip
    assert words.why(point) == said


def test_who_declared_patients_to_be_one_stands_among_the_corrections() -> None:
    course, responses = ordinary()
    when = datetime(2024, 5, 1, 8, 0, tzinfo=UTC)
    merge = Merged(
        at=when, author="A. Clerk", patient_id="A-17", into_patient_id="P-0001", into_issuer="HOSP", note="typed",
    )  # fmt: skip
    report = build(replace(course, merges=(merge,)), responses, nowhere, made_at=NOW)  # type: ignore[arg-type]
    first = report.corrections[0]
    assert (first.at, first.author, first.lesion) == (when, "A. Clerk", "")
    assert first.words == "A-17 is the patient P-0001 (HOSP) (typed)"
    assert len(report.corrections) == 3


def test_a_course_without_a_verdict_is_refused() -> None:
    with pytest.raises(Refused, match="no visit to report on"):
        build(course_of({}), [], nowhere, made_at=NOW)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "said", "alphabetic"),
    [
        ("Doe^Jane^^Dr", "Doe Jane Dr", "Doe Jane Dr"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada Tarou (山田 太郎)", "Yamada Tarou"),
        ("=洪^吉洞", "洪 吉洞", "洪 吉洞"),
        ("", "no name", "no name"),
        ("A\x00^B", "A  B", "A  B"),
    ],
)
def test_names_are_written_as_people_read_them(name: str, said: str, alphabetic: str) -> None:
    who = Who(patient_id="1", name=name)
    assert (words.called(who), words.called(who, alphabetic=True)) == (said, alphabetic)


def test_a_new_lesion_that_nobody_confirmed_is_called_so() -> None:
    new = sighting(visit(0), 1, 9.0, role=Role.NEW, role_by="not confirmed", link=tracked(Kind.NEW, 0.7))
    course = replace(course_of({}), visits=(visit(0),), sightings=(new,))
    (lesion,) = lesions_of(course, visits_of(course, ()))
    assert words.role_of(lesion) == "new, not confirmed by a person"


@pytest.mark.parametrize(
    ("role_by", "report", "page"),
    [
        ("drawn by a person", "new (drawn by a person)", "new: drawn by a person"),
        ("first seen here", "new (first seen here)", "new: first seen here"),
        ("Dr. Grey", "new (by Dr. Grey)", "new, says Dr. Grey"),
        ("proposal", "new (by proposal)", "new: proposed by the rules of selection"),
    ],
)
def test_who_says_what_a_lesion_is_stands_behind_it(role_by: str, report: str, page: str) -> None:
    course = course_of({}, more=[sighting(visit(0), 1, 9.0, role=Role.NEW, role_by=role_by)])
    (lesion,) = lesions_of(course, visits_of(course, ()))
    assert words.role_of(lesion) == report
    view: Any = SimpleNamespace(role="new", role_by=role_by, role_because="")
    assert role_line(view) == page
