"""SEG to masks: files of other writers, and our own in every arrangement of frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_series import make_series, write
from drawn_regions import make_seg
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sr.coding import Code
from pydicom.uid import SurfaceSegmentationStorage

from plugins.contract import Study
from store.dicom.series import read_study
from store.dicom.values import code

SHAPE = (6, 10, 11)  # 110 pixels a frame: not a multiple of 8
BLANK = np.zeros(SHAPE)


def truth(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(SHAPE) > 0.6


def read(folder: Path) -> Study:
    return read_study(folder.rglob("*")).study


@pytest.fixture
def images(tmp_path: Path) -> Path:
    make_series(tmp_path / "ct", BLANK)
    return tmp_path


def test_a_binary_segment_comes_back_voxel_by_voxel_from_frames_in_any_order(images: Path) -> None:
    mask = truth()
    make_seg(images / "seg", [(k, 1, mask[k]) for k in (3, 0, 5, 1, 4, 2)])
    (drawn,) = read(images).drawn
    np.testing.assert_array_equal(drawn.mask.full(), mask)
    assert (drawn.label, drawn.number, drawn.source) == ("one", 1, "SEG")
    assert drawn.type_code is not None
    assert drawn.type_code.value == "4147007"
    assert (drawn.tracking_identifier, drawn.tracking_uid, drawn.flags) == ("lesion 1", "2.25.1", ())


def test_overlapping_segments_and_left_out_frames_are_read(images: Path) -> None:
    one, two = truth(1), truth(2)
    frames = [(2, 1, one[2]), (2, 2, two[2]), (3, 2, two[3])]
    make_seg(images / "seg", frames, labels=("one", "two"))
    first, second = read(images).drawn
    np.testing.assert_array_equal(first.mask.full()[2], one[2])
    np.testing.assert_array_equal(second.mask.full()[2:4], two[2:4])
    assert first.mask.count == one[2].sum()
    assert second.mask.count == two[2:4].sum()


def test_a_label_map_is_one_region_for_each_number(images: Path) -> None:
    labels = np.random.default_rng(4).integers(0, 3, SHAPE)
    frames = [(k, None, labels[k]) for k in range(6)]
    make_seg(images / "seg", frames, kind="LABELMAP", labels=("one", "two"))
    drawn = read(images).drawn
    for number, region in enumerate(drawn, start=1):
        np.testing.assert_array_equal(region.mask.full(), labels == number)


def test_fractions_of_nothing_or_all_are_a_mask_and_others_are_cut_at_a_half_with_a_flag(
    images: Path,
) -> None:
    mask = truth()
    make_seg(images / "seg", [(k, 1, mask[k] * 200) for k in range(6)], kind="FRACTIONAL")
    (drawn,) = read(images).drawn
    np.testing.assert_array_equal(drawn.mask.full(), mask)
    assert drawn.flags == ()
    ramp = np.linspace(0, 200, 110).reshape(10, 11)
    make_seg(images / "seg", [(k, 1, ramp) for k in range(6)], kind="FRACTIONAL")
    (drawn,) = read(images).drawn
    np.testing.assert_array_equal(drawn.mask.full()[0], ramp.astype(np.uint8) >= 100)
    assert [f.code for f in drawn.flags] == ["seg-thresholded"]


def test_frames_turned_upside_down_are_turned_back(images: Path) -> None:
    mask = truth()
    flipped = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
    make_seg(
        images / "seg",
        [(k, 1, mask[k, ::-1, ::-1]) for k in range(6)],
        orientation=flipped,
        origin=(10.0, 9.0),
    )
    np.testing.assert_array_equal(read(images).drawn[0].mask.full(), mask)


def test_frames_with_rows_and_columns_changed_are_turned_back(images: Path) -> None:
    mask = truth()
    swapped = (0.0, 1.0, 0.0, 1.0, 0.0, 0.0)
    make_seg(images / "seg", [(k, 1, mask[k].T) for k in range(6)], orientation=swapped)
    np.testing.assert_array_equal(read(images).drawn[0].mask.full(), mask)


def test_frames_cut_to_a_part_of_the_image_fall_on_that_part(images: Path) -> None:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[:, 3:7, 2:8] = truth()[:, 3:7, 2:8]
    make_seg(images / "seg", [(k, 1, mask[k, 3:7, 2:8]) for k in range(6)], origin=(2.0, 3.0))
    np.testing.assert_array_equal(read(images).drawn[0].mask.full(), mask)


def test_frames_larger_than_the_image_are_cut_where_they_are_empty(images: Path) -> None:
    mask = truth()
    make_seg(images / "seg", [(k, 1, np.pad(mask[k], 3)) for k in range(6)], origin=(-3.0, -3.0))
    np.testing.assert_array_equal(read(images).drawn[0].mask.full(), mask)


def test_an_rle_label_map_is_read(images: Path) -> None:
    from dicom_series import _rle

    labels = np.random.default_rng(4).integers(0, 2, SHAPE).astype(np.uint8)
    path = make_seg(images / "seg", [(k, None, labels[k]) for k in range(6)], kind="LABELMAP")
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([_rle(frame) for frame in labels])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    write(dataset, path, "1.2.840.10008.1.2.5")
    np.testing.assert_array_equal(read(images).drawn[0].mask.full(), labels == 1)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"spacing": (0.5, 0.5)}, "seg-other-grid"),
        ({"origin": (0.5, 0.0)}, "seg-other-grid"),
        ({"orientation": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)}, "seg-other-grid"),
        ({"orientation": (0.8, 0.6, 0.0, -0.6, 0.8, 0.0)}, "seg-other-grid"),
        ({"origin": (400.0, 0.0)}, "seg-off-plane"),
        ({"dz": 1.0}, "seg-off-plane"),
        ({"dz": 100.0}, "seg-off-plane"),
        ({"series": "1.2.3", "FrameOfReferenceUID": "1.2.3"}, "seg-without-image"),
        ({"series": "1.2.3", "spacing": (0.5, 0.5)}, "seg-without-image"),
        ({"TotalPixelMatrixRows": 100}, "seg-microscopy"),
        ({"NumberOfFrames": 7}, "truncated-pixel-data"),
        ({"PerFrameFunctionalGroupsSequence": []}, "seg-without-image"),
    ],
)
def test_a_seg_that_does_not_fall_on_its_images_is_refused(
    images: Path, options: dict[str, Any], code: str
) -> None:
    mask = np.ones(SHAPE, dtype=bool)
    make_seg(images / "seg", [(k, 1, mask[k]) for k in range(6)], **options)
    study = read(images)
    assert study.drawn == ()
    assert [f.code for f in study.refused] == [code]
    assert len(study.volumes) == 1


def test_a_seg_of_surfaces_is_refused_as_such(images: Path) -> None:
    path = make_seg(images / "seg", [(0, 1, truth()[0])])
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.SOPClassUID = SurfaceSegmentationStorage
    write(dataset, path)
    (refusal,) = read(images).refused
    assert refusal.code == "seg-surface"
    assert "it is drawn as surfaces, which are not read; send it as a SEG of voxels" in refusal.sentence


def test_an_empty_segment_is_refused_and_the_other_is_read(images: Path) -> None:
    mask = truth()
    make_seg(images / "seg", [(0, 1, mask[0]), (0, 2, mask[0] & False)], labels=("one", "two"))
    study = read(images)
    assert [d.label for d in study.drawn] == ["one"]
    assert [f.code for f in study.refused] == ["empty-segment"]


def test_a_seg_that_names_no_image_is_put_on_the_series_of_its_grid_with_a_flag(images: Path) -> None:
    mask = truth()
    make_seg(images / "seg", [(k, 1, mask[k]) for k in range(6)], series=None)
    (drawn,) = read(images).drawn
    np.testing.assert_array_equal(drawn.mask.full(), mask)
    assert [f.code for f in drawn.flags] == ["seg-series-by-position"]


LABELS = {
    "liver_ct_3slice/seg_liver_binary.dcm": ["liver_ct_3slice/labels/liver_seg.nrrd"],
    "phantom_23x38x3/seg_binary.dcm": ["phantom_23x38x3/label.nrrd"],
    "phantom_24x38x3/seg_binary.dcm": ["phantom_24x38x3/label.nrrd"],
    "phantom_24x38x3/seg_labelmap_sparse_noppv.dcm": ["phantom_24x38x3/label_sparse_noppv.nrrd"],
    "phantom_24x38x3/seg_labelmap_sparse_ppv5.dcm": ["phantom_24x38x3/label_sparse_ppv5.nrrd"],
}


@pytest.mark.parametrize("seg", LABELS)
def test_segments_of_dcmqi_have_the_voxels_of_the_label_images_they_were_made_from(
    data: Path, seg: str
) -> None:
    root = data / "foreign" / "dcmqi"
    folder = (root / seg).parent
    study = read_study([*(folder / "ct").iterdir(), root / seg]).study
    assert study.refused == ()
    grid = study.volumes[0]
    for drawn, name in zip(study.drawn[:1], LABELS[seg], strict=True):
        image = SimpleITK.ReadImage(str(root / name))
        labels = SimpleITK.GetArrayFromImage(image)
        present = [int(n) for n in np.unique(labels) if n not in (0, 5)]  # 5 is padding in one of them
        assert sorted(int((labels == n).sum()) for n in present) == sorted(d.mask.count for d in study.drawn)
        index = np.argwhere(labels == present[0]).mean(axis=0)
        there = np.array(image.TransformContinuousIndexToPhysicalPoint(index[::-1].tolist()))
        here = grid.to_mm(np.argwhere(drawn.mask.full()).mean(axis=0))
        np.testing.assert_allclose(here, there, atol=0.05)


@pytest.mark.filterwarnings("ignore:The value length")
def test_a_code_that_no_result_could_hold_counts_as_absent_and_a_long_meaning_is_cut() -> None:
    def read(scheme: str, meaning: str) -> Code | None:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", scheme, meaning
        segment = Dataset()
        segment.SegmentedPropertyTypeCodeSequence = [item]
        return code(segment, "SegmentedPropertyTypeCodeSequence")

    assert read("MY-VERY-LONG-CODING-SCHEME", "Cyst") is None
    assert read("S" * 16, "m" * 70) == Code("1", "S" * 16, "m" * 64)
