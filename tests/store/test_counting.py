"""What counts of a lesion that fell apart, where analyses, the tracking and people speak of some of its fragments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from courses import decision, sighting, visit

from store.by_hand import PLUGIN as REPORT
from store.counting import MARKED, counted
from store.response.history import Status
from store.sighting import Sighting, Tracked
from store.told import status_of
from store.tracking.link import Kind

EARLIER, NOW = visit(1), visit(2)
WHOLE, PART = "2.25.1001", "2.25.1003"
"""The lesion, whose name its larger fragment keeps, and the smaller one."""
UNDRAWN = {
    Kind.OUT_OF_VIEW: Status.NOT_EVALUABLE,
    Kind.NOT_SEGMENTED: Status.NOT_EVALUABLE,
    Kind.GONE: Status.ABSENT,
}


def one(uid: str, long_mm: float = 18.0, **changes: Any) -> Sighting:
    return sighting(NOW, 1, long_mm, **{"tracking_uid": uid, **changes})


def undrawn(uid: str, kind: Kind, **changes: Any) -> Sighting:
    link = Tracked(kind=kind, confidence=0.9, reason="")
    return sighting(NOW, 1, None, tracking_uid=uid, status=UNDRAWN[kind], link=link, **changes)


FELL_APART = tuple(
    sighting(
        EARLIER,
        1,
        20.0,
        tracking_uid=uid,
        link=Tracked(kind=Kind.SPLIT, confidence=0.9, reason="", earlier=(WHOLE,)),
    )
    for uid in (WHOLE, PART)
)


def counting(*sightings: Sighting) -> tuple[Status, Mapping[str, float | None]]:
    """Return what the lesion is now, and the length of each fragment that counts."""
    own = [x for x in counted((*FELL_APART, *sightings)) if x.counts and x.date == NOW.study_date]
    sizes = {x.tracking_uid: m.value if (m := x.measurements.get("long_axis")) else None for x in own}
    assert len(sizes) == len(own)
    return status_of(own), sizes


@pytest.mark.parametrize("kind", UNDRAWN)
@pytest.mark.parametrize(("drawn", "other"), [(WHOLE, PART), (PART, WHOLE)])
def test_what_the_tracking_says_of_a_fragment_that_is_not_drawn_stands_beside_the_others(
    kind: Kind, drawn: str, other: str
) -> None:
    status = Status.MEASURED if kind is Kind.GONE else Status.NOT_EVALUABLE
    assert counting(one(drawn), undrawn(other, kind)) == (status, {drawn: 18.0, other: None})


def test_what_an_analysis_that_does_not_count_looked_for_in_vain_is_no_matter() -> None:
    lost = undrawn(PART, Kind.NOT_SEGMENTED, plugin="other")
    both = (one(WHOLE), one(PART, 16.0))
    other = one(WHOLE, plugin="other", confidence=0.5)
    assert counting(*both, other, lost) == (Status.MEASURED, {WHOLE: 18.0, PART: 16.0})
    assert counting(one(WHOLE, 30.0), other, lost) == (Status.MEASURED, {WHOLE: 30.0})


BY_PERSONS = {
    "report": {"plugin": REPORT, "automatic": False},
    "drawing": {"plugin": "contours", "automatic": False, "series_instance_uid": "1.2.8"},
    "mark": {"plugin": MARKED},
}


@pytest.mark.parametrize("how", BY_PERSONS)
def test_a_fragment_that_a_person_gave_anew_leaves_the_others_as_they_were(how: str) -> None:
    automatic = (one(WHOLE, 18.0), one(PART, 16.0), one(WHOLE, 40.0, plugin="other", confidence=0.1))
    assert counting(*automatic, one(PART, 17.0, **BY_PERSONS[how])) == (
        Status.MEASURED,
        {WHOLE: 18.0, PART: 17.0},
    )
    lost = undrawn(WHOLE, Kind.OUT_OF_VIEW)
    assert counting(one(PART, 16.0), lost, one(PART, 17.0, **BY_PERSONS[how])) == (
        Status.NOT_EVALUABLE,
        {PART: 17.0, WHOLE: None},
    )


def test_under_the_name_of_the_whole_a_report_measures_its_fragment_and_a_drawing_is_the_whole() -> None:
    automatic = (one(WHOLE, 18.0), one(PART, 16.0))
    measured = one(WHOLE, 20.0, **BY_PERSONS["report"])
    assert counting(*automatic, measured) == (Status.MEASURED, {WHOLE: 20.0, PART: 16.0})
    drawn = one(WHOLE, 33.0, **BY_PERSONS["drawing"])
    assert counting(*automatic, drawn) == (Status.MEASURED, {WHOLE: 33.0})


def test_a_word_of_a_person_on_the_whole_lesion_needs_no_fragment_that_was_not_drawn() -> None:
    word = replace(decision("status", "measured"), tracking_uid=WHOLE)
    lost = replace(undrawn(PART, Kind.NOT_SEGMENTED), decisions=(word,))
    assert counting(one(WHOLE, 18.0, decisions=(word,)), lost) == (Status.MEASURED, {WHOLE: 18.0})
