"""A lesion that was drawn twice at one place of one study counts once."""

from __future__ import annotations

from courses import sighting, visit

from store.chosen import Chosen
from store.counting import counted
from store.identity import named
from store.overlap import twins
from store.sighting import Sighting

JANUARY, MARCH = visit(0), visit(1)
NEAR, FAR = (1.0, 2.0, 5.0), (1.0, 2.0, 90.0)


def pet(lesion: int, series: str, place: tuple[float, float, float], **more: object) -> Sighting:
    values = {"plugin": "pet_lesion", "frame_of_reference_uid": "space", "centroid_mm": place, **more}
    return sighting(JANUARY, lesion, 20.0, series_instance_uid=series, **values)  # type: ignore[arg-type]


def test_what_one_analysis_drew_at_one_place_on_two_series_is_one_lesion() -> None:
    first, second, other = pet(1, "ac", (1.0, 2.0, 3.0)), pet(2, "tof", NEAR), pet(3, "tof", FAR)
    assert twins([first, second, other]) == [(second.lesion, first.lesion)]
    gone = sighting(MARCH, 2, None, link=None)
    later = sighting(MARCH, 1, 25.0)
    told = counted(named([first, second, other, later, gone], Chosen()))
    assert {one.lesion for one in told} == {first.lesion, other.lesion}
    there = [(one.date, one.lesion) for one in told if one.counts]
    assert sorted(there) == [
        (JANUARY.study_date, first.lesion),
        (JANUARY.study_date, other.lesion),
        (MARCH.study_date, first.lesion),
    ]


def test_two_of_one_series_of_other_spaces_or_by_a_persons_hand_stay_two() -> None:
    first = pet(1, "ac", (1.0, 2.0, 3.0))
    for second in (
        pet(2, "ac", NEAR),
        pet(2, "tof", NEAR, frame_of_reference_uid="elsewhere"),
        pet(2, "tof", NEAR, automatic=False),
    ):
        assert twins([first, second]) == []
