"""Of which of several series a SEG is, and what is told when its frames do not follow one another there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import make_series
from drawn_regions import make_seg
from marked_images import reference
from pydicom.dataset import Dataset

from plugins.contract import Study
from store.dicom.series import read_study

SHAPE = (6, 10, 11)


def truth() -> np.ndarray:
    return np.random.default_rng(0).random(SHAPE) > 0.6


def read(folder: Path) -> Study:
    return read_study(folder.rglob("*")).study


@pytest.fixture
def images(tmp_path: Path) -> Path:
    make_series(tmp_path / "ct", np.zeros(SHAPE))
    return tmp_path


def step_of(path: Path, z_mm: Sequence[float], spacing_mm: float | None) -> None:
    """Put the frames of a SEG at other heights, and say how far apart its slices are."""
    dataset = pydicom.dcmread(path)
    for group, z in zip(dataset.PerFrameFunctionalGroupsSequence, z_mm, strict=True):
        group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, z]
    if spacing_mm is not None:
        measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        measures.SpacingBetweenSlices = spacing_mm
    dataset.save_as(path)


@pytest.mark.parametrize("spacing_mm", [None, 4.0])
def test_of_a_thin_and_a_thick_series_a_seg_goes_by_position_onto_the_one_whose_step_it_has(
    images: Path, spacing_mm: float | None
) -> None:
    make_series(images, truth()[::2], spacing_mm=(4.0, 1.0, 1.0), series_number=2, prefix="thick")
    path = make_seg(images / "seg", [(k, 1, truth()[2 * k]) for k in range(3)], series=None)
    step_of(path, [0, 4, 8], spacing_mm)
    study = read(images)
    (drawn,) = study.drawn
    thick = next(v for v in study.volumes if v.series_number == 2)
    assert drawn.series_instance_uid == thick.series_instance_uid
    np.testing.assert_array_equal(drawn.mask.full(), truth()[::2])
    assert [f.code for f in drawn.flags] == ["seg-series-by-position"]


def test_a_seg_of_thick_slices_is_not_put_onto_thin_ones_by_its_position_alone(images: Path) -> None:
    path = make_seg(images / "seg", [(k, 1, truth()[2 * k]) for k in range(3)], series=None)
    step_of(path, [0, 4, 8], 4.0)
    study = read(images)
    assert study.drawn == ()
    (flag,) = study.refused
    assert flag.code == "seg-without-image"
    assert "its frames lie 4.0 mm apart and the slices of the images here 2.0 mm" in flag.sentence


def test_a_segment_on_every_second_slice_of_its_series_says_so(images: Path) -> None:
    make_seg(images / "seg", [(k, 1, truth()[k]) for k in (0, 2, 4)])
    (drawn,) = read(images).drawn
    assert [(f.code, f.sentence) for f in drawn.flags] == [
        ("seg-gaps", "only one slice in 2 has pixels of it; nothing was filled in between")
    ]


LEFT, RIGHT = np.zeros(SHAPE[1:], dtype=bool), np.zeros(SHAPE[1:], dtype=bool)
LEFT[2:8, 1:5], RIGHT[2:8, 6:10] = True, True


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        (
            {0: LEFT, 1: LEFT, 3: LEFT, 4: LEFT},
            ["1 slice between two that have pixels of it at the same place has none"],
        ),
        (
            {0: LEFT, 1: LEFT, 3: LEFT, 5: LEFT},
            ["2 slices between two that have pixels of it at the same place have none"],
        ),
        (
            {0: LEFT, 1: LEFT, 3: LEFT | RIGHT, 5: RIGHT},
            ["2 slices between two that have pixels of it at the same place have none"],
        ),
        ({0: LEFT, 1: LEFT, 3: RIGHT, 4: RIGHT}, []),
        ({0: LEFT, 1: LEFT, 4: LEFT, 5: LEFT}, []),
        ({0: LEFT, 1: LEFT, 2: RIGHT}, []),
        (
            {0: LEFT, 1: LEFT, 2: ~LEFT & LEFT, 3: LEFT},
            ["1 slice between two that have pixels of it at the same place has none"],
        ),
    ],
    ids=["one", "two", "in two parts", "two lesions", "two slices", "none", "an empty frame"],
)
def test_an_empty_slice_amid_a_segment_is_told_where_the_slices_beside_it_overlap(
    images: Path, frames: dict[int, np.ndarray], says: list[str]
) -> None:
    make_seg(images / "seg", [(k, 1, pixels) for k, pixels in frames.items()])
    (drawn,) = read(images).drawn
    assert drawn.mask.count == sum(pixels.sum() for pixels in frames.values())
    assert [(f.code, f.sentence) for f in drawn.flags] == [
        ("seg-gaps", f"{said}; nothing was filled in between") for said in says
    ]


def test_a_seg_in_another_frame_of_reference_than_its_images_says_so(images: Path) -> None:
    make_seg(images / "seg", [(k, 1, truth()[k]) for k in range(6)], FrameOfReferenceUID="1.2.3.4")
    (drawn,) = read(images).drawn
    assert [f.code for f in drawn.flags] == ["frame-of-reference-differs"]


def test_a_seg_is_of_the_images_that_its_frames_come_from_whatever_else_it_lists(images: Path) -> None:
    ct = sorted((images / "ct").glob("*.dcm"))
    pet = make_series(
        images, truth()[:3, ::2, ::2], modality="PT", spacing_mm=(2, 2, 2), series_number=2, prefix="pt"
    )
    pixels = truth()[0, ::2, ::2]
    path = make_seg(images / "seg", [(0, 1, pixels), (1, 1, pixels)], series=None, spacing=(2.0, 2.0))
    dataset = pydicom.dcmread(path)
    dataset.ReferencedSeriesSequence = [listed(ct), listed(pet)]
    for group, source in zip(dataset.PerFrameFunctionalGroupsSequence, pet, strict=False):
        group.DerivationImageSequence = [Dataset()]
        group.DerivationImageSequence[0].SourceImageSequence = [reference(source)]
    dataset.save_as(path)
    study = read(images)
    (drawn,) = study.drawn
    assert (
        drawn.series_instance_uid == next(v for v in study.volumes if v.modality == "PT").series_instance_uid
    )
    assert drawn.flags == ()


def listed(paths: Sequence[Path]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = pydicom.dcmread(paths[0]).SeriesInstanceUID
    item.ReferencedInstanceSequence = [reference(path) for path in paths]
    return item
