"""One ball on several PETs of a study is one lesion, and what only one of them shows is measured there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from shapes import grid

from plugins import codes
from plugins.contract import Finding, Flag, Patient, Study, Volume, parted
from plugins.errors import Absent
from plugins.pet_lesion import PetLesion
from plugins.pet_series import in_order

Centre = tuple[float, float, float]
BALL, RADIUS_MM = (10.0, -20.0, 100.0), 15.0
TRUTH_ML = 4 / 3 * np.pi * RADIUS_MM**3 / 1000
UNSAID = (Flag(code="suv-corrections-unknown", sentence="CorrectedImage is absent; taken as corrected"),)


def pet(
    number: int,
    *,
    shape: Centre = (40, 64, 64),
    spacing: Centre = (3.0, 4.0, 4.0),
    centre: Centre = BALL,
    orientation: str = "axial",
    balls: tuple[Centre, ...] = (BALL,),
    frame: str = "1.2.3.4",
    **more: Any,
) -> Volume:
    """Return a PET of uptake 1 about a centre (LPS mm) with balls of uptake 8."""
    size: Any = tuple(int(n) for n in shape)
    made = grid(size, spacing, orientation, role="pet_suv", frame_of_reference_uid=frame)
    middle = made.geometry.affine[:3, :3] @ ((np.asarray(size) - 1) / 2)
    start: Any = tuple(np.asarray(centre) - middle)
    uid = f"1.2.{number}"
    made = grid(
        size,
        spacing,
        orientation,
        role="pet_suv",
        frame_of_reference_uid=frame,
        start_mm=start,
        series_instance_uid=uid,
    )
    made.array[...] = 1.0
    places = made.to_mm(np.stack(np.indices(size), axis=-1))
    for ball in balls:
        made.array[np.linalg.norm(places - ball, axis=-1) <= RADIUS_MM] = 8.0
    return replace(made, series_number=number, **more)


def told(*volumes: Volume, plugin: PetLesion | None = None) -> tuple[list[Finding], dict[str, Flag]]:
    study = Study(
        study_instance_uid="1.2.1", patient=Patient(patient_id="P"), study_date=None, volumes=volumes
    )
    found, flags = parted((plugin or PetLesion()).run(study))
    return [f for f in found if f.type == codes.LESION], {f.code: f for f in flags}


def names(*pets: Volume) -> list[int | None]:
    return [pet.series_number for pet in in_order(pets)]


CORONAL = pet(1, shape=(50, 30, 60), spacing=(2.0, 4.0, 4.0), orientation="coronal", is_reformatted=True)


def test_a_ball_on_an_axial_a_coronal_and_a_second_axial_pet_is_one_lesion_of_its_volume() -> None:
    (lesion,), flags = told(CORONAL, pet(4), pet(6))
    assert lesion.series_instance_uid == "1.2.4"
    assert lesion.measurement("mtv").value == pytest.approx(TRUTH_ML, rel=0.08)
    note = flags["several-series"]
    assert note.is_note
    assert note.sentence == (
        "of 3 PET series, series 4 was measured, and not series 1, series 6: where several show a place one is taken, "
        "so that a tumour counts once"
    )
    assert "reformatted" not in flags


def test_a_reformat_is_measured_for_want_of_another_and_says_so() -> None:
    (lesion,), flags = told(CORONAL)
    assert lesion.series_instance_uid == "1.2.1"
    assert flags["reformatted"].sentence.startswith("series 1 is a reformat, made of other images")
    assert "several-series" not in flags


def test_of_pets_alike_the_axial_the_corrected_and_the_lower_number_come_first() -> None:
    turned = replace(CORONAL, is_reformatted=False)
    assert names(CORONAL, turned, pet(2, flags=UNSAID), pet(4), pet(3)) == [3, 4, 2, 1, 1]
    assert names(pet(3), pet(5, shape=(60, 64, 64), spacing=(2.0, 4.0, 4.0))) == [5, 3]


def test_head_and_neck_in_finer_voxels_within_the_whole_body_is_left_out() -> None:
    neck = pet(2, shape=(60, 80, 80), spacing=(2.0, 2.0, 2.0))
    body = pet(3, shape=(150, 64, 64), spacing=(3.0, 4.0, 4.0), centre=(10.0, -20.0, 0.0))
    assert names(neck, body) == [3, 2]
    (lesion,), flags = told(neck, body)
    assert lesion.series_instance_uid == "1.2.3"
    assert lesion.measurement("mtv").value == pytest.approx(TRUTH_ML, rel=0.08)
    assert "series 3 was measured, and not series 2" in flags["several-series"].sentence


def test_two_bed_ranges_are_both_measured_and_a_ball_in_both_fields_counts_once() -> None:
    both, above, below = (0.0, 0.0, 0.0), (0.0, 0.0, 120.0), (0.0, 0.0, -120.0)
    balls = (both, above, below)
    head = pet(2, shape=(80, 40, 40), centre=(0.0, 0.0, 90.0), balls=balls)
    body = pet(3, shape=(80, 40, 40), centre=(0.0, 0.0, -90.0), balls=balls)
    lesions, flags = told(head, body)
    assert [(f.label, f.series_instance_uid) for f in lesions] == [
        ("PET lesion 1", "1.2.2"),
        ("PET lesion 2", "1.2.2"),
        ("PET lesion 3", "1.2.3"),
    ]
    volumes = {"1.2.2": head, "1.2.3": body}
    places = sorted(volumes[f.series_instance_uid].centroid_mm(f.mask)[2] for f in lesions)
    assert places == pytest.approx([-120.0, 0.0, 120.0], abs=0.5)
    assert "several-series" not in flags
    apart = pet(3, shape=(40, 40, 40), centre=(0.0, 0.0, -120.0), balls=balls)
    assert [f.series_instance_uid for f in told(head, apart)[0]] == ["1.2.2", "1.2.2", "1.2.3"]


def test_what_two_bed_ranges_show_together_no_reformat_of_both_shows_again() -> None:
    balls = ((0.0, 0.0, 120.0), (0.0, 0.0, -120.0))
    head = pet(2, shape=(80, 40, 40), centre=(0.0, 0.0, 100.0), balls=balls)
    body = pet(3, shape=(80, 40, 40), centre=(0.0, 0.0, -100.0), balls=balls)
    whole = pet(
        4, shape=(40, 100, 40), spacing=(4.0,) * 3, centre=(0.0,) * 3, orientation="coronal", balls=balls
    )
    lesions, flags = told(whole, head, body)
    assert [f.series_instance_uid for f in lesions] == ["1.2.2", "1.2.3"]
    assert "series 2, series 3 were measured, and not series 4" in flags["several-series"].sentence


def test_pets_in_other_or_unknown_frames_of_reference_are_each_measured() -> None:
    assert len(told(pet(1), pet(2, frame="1.2.9"))[0]) == 2
    nowhere = pet(2)
    geometry = type(nowhere.geometry)(nowhere.geometry.affine, nowhere.array.shape, "PATIENT")
    assert len(told(replace(pet(1), geometry=geometry), replace(nowhere, geometry=geometry))[0]) == 2


def test_percist_says_so_where_none_of_several_pets_has_a_liver() -> None:
    with pytest.raises(Absent, match="PERCIST threshold needs the liver"):
        told(pet(1), pet(2), plugin=PetLesion(threshold="percist"))
