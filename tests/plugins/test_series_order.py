"""Which of several series of a study is measured, and what is told where that is a reformat."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from thorax import ct_volume, study_of

from plugins.contract import Flag, Volume
from plugins.emphysema import _candidates
from plugins.lung_nodule import LungNodule
from plugins.pet_drawing import ct_beside
from plugins.series_order import frame_doubts, holds, preferred, reformat_doubts, several

AXIAL = ((0, 0, 1), (0, 1, 0), (1, 0, 0))
CORONAL = ((0, 0, 1), (1, 0, 0), (0, -1, 0))
CONSTANT = (Flag(code="constant-image", sentence="every voxel has the value 0"),)


def series(name: str, step_mm: float, planes: Any = AXIAL, slices: int = 40, **more: Any) -> Volume:
    """Return a CT from -40 to 40 mm along all axes that are not its own slices."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(planes, dtype=float) * (step_mm, 2.0, 2.0)
    affine[:3, 3] = -affine[:3, :3] @ [slices / 2, 20.0, 20.0]
    volume = ct_volume(np.zeros((slices, 41, 41), dtype=np.float32), affine)
    return replace(volume, series_instance_uid=name, **more)


def names(*volumes: Volume) -> list[str]:
    return [v.series_instance_uid for v in preferred(volumes)]


def test_what_was_acquired_comes_before_a_thinner_reformat_of_any_plane() -> None:
    axial, thin = series("9", 5.0), series("8", 2.5)
    called, turned = series("1", 1.0, is_reformatted=True), series("2", 1.0, CORONAL)
    assert names(called, turned, axial, thin) == ["8", "9", "1", "2"]
    assert names(series("3", 1.0, CORONAL, is_reformatted=True), called) == ["1", "3"]


def test_of_mr_every_plane_may_be_acquired() -> None:
    axial, coronal = (
        replace(series(name, 5.0, plane), role="mr") for name, plane in (("2", AXIAL), ("1", CORONAL))
    )
    assert names(axial, replace(coronal, is_reformatted=True)) == ["2", "1"]
    assert names(axial, coronal) == ["1", "2"]


def test_of_slices_as_thin_an_image_of_one_value_is_last_and_the_longer_first() -> None:
    empty = series("1", 1.0, slices=90, flags=CONSTANT)
    assert names(empty, series("2", 5.0), series("3", 1.0, is_reformatted=True)) == ["2", "3", "1"]
    assert names(series("1", 1.0, slices=40), series("2", 1.04, slices=41)) == ["2", "1"]
    assert names(series("1", 1.0, series_number=5), series("2", 1.0, series_number=4), series("0", 1.0)) == [
        "2",
        "1",
        "0",
    ]
    assert names(series("2", 1.0), series("1", 1.0)) == ["1", "2"]


def test_a_reformat_that_is_measured_says_so() -> None:
    axial, coronal = series("9", 5.0, series_number=2), series("1", 1.0, CORONAL, series_number=3)
    called = replace(coronal, is_reformatted=True)
    assert reformat_doubts(axial, (axial, called)) == ()
    assert reformat_doubts(coronal, (coronal,)) == (), "no other series tells it from an acquired one"
    elsewhere = replace(axial, flags=CONSTANT)
    assert reformat_doubts(coronal, (coronal, elsewhere)) == ()
    for volume, others in ((called, (called,)), (coronal, (coronal, axial))):
        (doubt,) = reformat_doubts(volume, others, "lung_nodule")
        assert (doubt.code, doubt.series_instance_uid, doubt.plugin) == ("reformatted", "1", "lung_nodule")
        assert doubt.sentence.startswith("series 3 is a reformat, made of other images")
        assert not doubt.is_note


def test_one_of_several_is_told_as_a_note_with_its_reason() -> None:
    axial, called = series("9", 5.0, series_number=2), series("1", 1.0, series_number=3, is_reformatted=True)
    assert several(axial, (axial,)) == ()
    (note,) = several(axial, (axial, called))
    assert (note.code, note.is_note) == ("several-series", True)
    assert (
        note.sentence == "of 2 CT series, series 2 was taken: the thinnest acquired one that shows the place"
    )
    (note,) = several(called, (called, replace(called, series_instance_uid="2")))
    assert note.sentence == "of 2 CT series, series 3 was taken: no acquired one shows the place"


def test_series_of_other_frames_of_reference_that_hold_the_point_are_a_doubt() -> None:
    taken, alike = series("9", 5.0, series_number=2), series("8", 5.0, series_number=3)
    elsewhere = ct_volume(taken.array, taken.geometry.affine, frame="1.2.9")
    others = [replace(elsewhere, series_instance_uid=uid, series_number=n) for uid, n in (("7", 4), ("6", 5))]
    assert frame_doubts(taken, (taken, alike)) == ()
    (doubt,) = frame_doubts(taken, (taken, alike, *others), "marked_lesion")
    assert (doubt.code, doubt.series_instance_uid, doubt.plugin) == (
        "several-frames-of-reference",
        "9",
        "marked_lesion",
    )
    assert doubt.sentence == (
        "the point says no frame of reference: series 2 was measured, and in that of series 4, series 5 it is another "
        "place; name a folder with one of them alone"
    )
    assert not doubt.is_note


def test_a_point_is_held_up_to_half_a_voxel_beyond_the_outer_centres() -> None:
    volume = series("1", 2.0)
    assert holds(volume, (40.9, 0.0, 38.9))
    assert not holds(volume, (41.1, 0.0, 0.0))


@pytest.mark.parametrize("marked", [True, False])
def test_lungs_and_nodules_are_looked_for_on_the_acquired_series(marked: bool) -> None:
    axial = series("9", 5.0)
    coronal = series("1", 2.5, CORONAL, is_reformatted=marked)
    study = study_of(coronal, axial)
    assert LungNodule().looks_at(study) == (axial, coronal)
    assert _candidates(study) == (axial, coronal)


def test_the_ct_beside_a_pet_is_the_first_that_was_acquired() -> None:
    pet = replace(series("5", 3.0), role="pet_suv", modality="PT")
    called, first, second = series("1", 1.0, is_reformatted=True), series("3", 5.0), series("2", 1.0)
    assert ct_beside(pet, (called, first, second)) is first
    assert ct_beside(pet, (called,)) is called
    assert ct_beside(pet, ()) is None
