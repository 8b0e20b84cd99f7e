"""Whole studies: real ones, other writers' files, multi-frame objects, and what the values mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import derived, make_series

from plugins import codes
from plugins.errors import Refused
from store.dicom.series import group_by_study, read_study

RNG = np.random.default_rng(11)
CT = np.rint(RNG.normal(40, 300, (6, 9, 10)))


def test_a_legacy_converted_ct_equals_the_images_it_was_made_from(data: Path) -> None:
    folder = data / "foreign" / "dcmqi" / "phantom_23x38x3"
    single = read_study((folder / "ct").iterdir()).study.volumes[0]
    multi = read_study([folder / "ct_enhanced_multiframe.dcm"]).study.volumes[0]
    np.testing.assert_array_equal(single.array, multi.array)
    np.testing.assert_allclose(single.geometry.affine, multi.geometry.affine)
    assert single.slice_positions == multi.slice_positions


def test_each_slice_has_a_rescale_of_its_own(tmp_path: Path) -> None:
    truth = np.stack([np.full((4, 4), 100.0 * k) + np.arange(16).reshape(4, 4) * (k + 1) for k in range(5)])
    make_series(tmp_path, truth, modality="PT", rescale=[(2.0**-k, 0.0) for k in range(5)])
    (volume,) = read_study(tmp_path.iterdir()).study.volumes
    factor = float(volume.suv["factor_first"])
    np.testing.assert_allclose(volume.array, truth * factor, rtol=1e-6, atol=1e-6)
    assert volume.unit == codes.SUV_BW_UNIT


def test_pixels_that_are_not_square_keep_rows_and_columns_apart(tmp_path: Path) -> None:
    make_series(tmp_path, CT, spacing_mm=(3.0, 0.5, 1.25), origin_mm=(10, 20, 30))
    (volume,) = read_study(tmp_path.iterdir()).study.volumes
    assert volume.spacing_mm == (3.0, 0.5, 1.25)
    np.testing.assert_allclose(volume.to_mm((1, 2, 4)), [10 + 4 * 1.25, 20 + 2 * 0.5, 33])


@pytest.mark.parametrize(
    "orientation",
    [
        (1, 0, 0, 0, 1, 0),
        (-1, 0, 0, 0, -1, 0),
        (1, 0, 0, 0, -1, 0),
        (0, 1, 0, 0, 0, -1),
        (0.6, 0.8, 0, 0, 0, -1),
    ],
)
def test_any_orientation_keeps_each_voxel_at_its_place(
    orientation: tuple[float, ...], tmp_path: Path
) -> None:
    paths = make_series(
        tmp_path, CT, orientation=orientation, origin_mm=(-7, 5, 3), spacing_mm=(2, 0.5, 0.75)
    )
    (volume,) = read_study(reversed(paths)).study.volumes
    np.testing.assert_allclose(volume.array, CT)
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    expected = np.array([-7, 5, 3]) + 2 * 4 * np.cross(row, column) + 0.5 * 3 * column + 0.75 * 8 * row
    np.testing.assert_allclose(volume.to_mm((4, 3, 8)), expected, atol=1e-6)


def test_padding_becomes_air(tmp_path: Path) -> None:
    truth = CT.copy()
    truth[:, 0, :] = -2000 - 1024
    make_series(tmp_path, truth, PixelPaddingValue=-2000)
    (volume,) = read_study(tmp_path.iterdir()).study.volumes
    assert (volume.array[:, 0, :] == -1024).all()
    np.testing.assert_array_equal(volume.array[:, 1:], truth[:, 1:])
    assert "60 voxels" in volume.flags[0].sentence


def test_a_range_of_padding_in_mr_becomes_the_lowest_value(tmp_path: Path) -> None:
    truth = np.abs(CT) + 100
    truth[0, 0, :3] = [1, 2, 3]
    make_series(tmp_path, truth, modality="MR", PixelPaddingValue=1, PixelPaddingRangeLimit=3)
    (volume,) = read_study(tmp_path.iterdir()).study.volumes
    assert (volume.array[0, 0, :3] == truth[truth > 3].min()).all()


def test_padding_of_a_ct_that_is_not_in_hounsfield_units_becomes_the_lowest_value(tmp_path: Path) -> None:
    truth = np.abs(CT) + 1
    truth[:, 0, :] = -2000
    make_series(tmp_path, truth, rescale=(1, 0), RescaleType="MGML", PixelPaddingValue=-2000)
    (volume,) = read_study(tmp_path.iterdir()).study.volumes
    assert (volume.role, [f.code for f in volume.flags]) == ("other", ["not-hounsfield", "pixel-padding"])
    assert (volume.array[:, 0, :] == truth[:, 1:].min()).all()
    np.testing.assert_array_equal(volume.array[:, 1:], truth[:, 1:])


def test_a_rectangle_of_values_in_mr_needs_no_rescale(tmp_path: Path) -> None:
    make_series(tmp_path, np.abs(CT), modality="MR", RescaleSlope=None, RescaleIntercept=None)
    (volume,) = read_study(tmp_path.iterdir()).study.volumes
    assert (volume.role, volume.flags) == ("mr", ())


def test_activity_is_kept_when_no_suv_can_be_made(tmp_path: Path) -> None:
    make_series(tmp_path, np.abs(CT), modality="PT", PatientWeight=None)
    (volume,) = read_study(tmp_path.iterdir()).study.volumes
    assert (volume.role, volume.unit, volume.suv) == ("pet_activity", codes.BQ_PER_ML, {})
    np.testing.assert_array_equal(volume.array, np.abs(CT))


def test_volumes_come_in_order_of_series_number(tmp_path: Path) -> None:
    for number in (3, 1, 2):
        make_series(tmp_path / str(number), CT, series_number=number)
    assert [v.series_number for v in read_study(tmp_path.rglob("*")).study.volumes] == [1, 2, 3]


def test_a_refused_series_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    make_series(tmp_path / "a", CT, series_number=1)
    make_series(tmp_path / "b", CT, series_number=2, PixelSpacing=None)
    study = read_study(tmp_path.rglob("*")).study
    assert [v.series_number for v in study.volumes] == [1]
    assert [(f.code, "series 2" in f.sentence) for f in study.refused] == [("missing-pixel-spacing", True)]


def test_studies_of_a_folder_are_grouped(tmp_path: Path) -> None:
    first = make_series(tmp_path / "a", CT, study_date="20250101")
    second = make_series(tmp_path / "b", CT, study_date="20250601")
    (tmp_path / "note.txt").write_text("hello")
    groups = group_by_study(tmp_path.rglob("*"))
    assert groups == {
        derived("study", "P1", "20250101"): first,
        derived("study", "P1", "20250601"): second,
    }


def test_an_unreadable_file_is_told_of_by_every_study_of_its_folder(tmp_path: Path) -> None:
    make_series(tmp_path / "a", CT, study_date="20250101")
    make_series(tmp_path / "b", CT, study_date="20250601")
    (tmp_path / "broken.dcm").write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI\xff\xff")
    groups = group_by_study(tmp_path.rglob("*"))
    assert [[f.code for f in read_study(g).study.refused] for g in groups.values()] == [
        ["unreadable-file"]
    ] * 2
    (alone,) = group_by_study([tmp_path / "broken.dcm"]).values()
    with pytest.raises(Refused, match="unreadable-file"):
        read_study(alone)


def test_charsets_and_blanks_in_a_patient_id_do_not_make_two_patients(tmp_path: Path) -> None:
    make_series(tmp_path, CT, PatientID=lambda k: "P1 " if k % 2 else "P1")
    assert read_study(tmp_path.iterdir()).study.patient.patient_id == "P1"


@pytest.mark.parametrize("charset", ["ISO_IR 6", "ISO_IR 100", "ISO_IR 144", "GB18030", "NO SUCH SET"])
def test_any_character_set_is_read(charset: str, tmp_path: Path) -> None:
    for path in make_series(tmp_path, CT, PatientName="Ab^Cd"):
        path.write_bytes(path.read_bytes().replace(b"ISO_IR 192", charset.encode().ljust(10)[:10]))
    assert len(read_study(tmp_path.iterdir()).study.volumes) == 1


def test_dates_that_are_none_leave_the_study_without_a_date(tmp_path: Path) -> None:
    for path in make_series(tmp_path, CT):
        path.write_bytes(path.read_bytes().replace(b"20250101", b"20259999"))
    study = read_study(tmp_path.iterdir()).study
    assert (study.study_date, study.patient.age_years) == (None, None)
    assert len(study.volumes) == 1


def test_bytes_changed_anywhere_give_a_study_or_a_refusal_and_never_another_error(tmp_path: Path) -> None:
    path = make_series(tmp_path / "one", CT[:2])[0]
    sound = path.read_bytes()
    for seed in range(150):
        rng = np.random.default_rng(seed)
        data = bytearray(sound)
        for at in rng.integers(128, len(data), 8):
            data[at] = rng.integers(0, 256)
        path.write_bytes(bytes(data[: rng.integers(140, len(data) + 1)] if seed % 3 == 0 else data))
        try:
            study = read_study((tmp_path / "one").iterdir()).study
        except Refused as refused:
            assert refused.code
            continue
        assert study.volumes or study.refused


FOREIGN: dict[str, tuple[list[str], dict[str, Any]]] = {
    "liver and its overlapping segments": (
        ["dcmqi/liver_ct_3slice"],
        {
            "roles": ["ct"],
            "drawn": {
                "Liver": 107098,
                "GREEN": 9602,
                "ORANGE": 11888,
                "PURPLE": 10743,
                "LIGHT_BLUE": 6693,
                "DARK_BLUE": 4713,
            },
        },
    ),
    "phantom in single and multi-frame": (
        ["dcmqi/phantom_23x38x3"],
        {"roles": ["ct", "ct"], "drawn": {"Liver": 322}},
    ),
    "two label maps of one SOP instance UID": (
        ["dcmqi/phantom_24x38x3"],
        {"roles": ["ct", "ct"], "drawn": {"Liver": 315}, "refused": ["conflicting-instances"]},
    ),
    "one CT image and its segment": (
        ["highdicom/ct_image.dcm", "highdicom/seg_image_ct_binary_single_frame.dcm"],
        {"roles": ["ct"], "count": 1},
    ),
    "one CT image and its report": (
        [
            "highdicom/ct_image.dcm",
            "highdicom/sr_document.dcm",
            "highdicom/sr_document_with_multiple_groups.dcm",
        ],
        {"refused": ["single-slice"]},
    ),
    "segments without their images": (
        [
            "highdicom/seg_image_ct_binary.dcm",
            "highdicom/seg_image_ct_binary_fractional.dcm",
            "highdicom/seg_image_ct_binary_overlap.dcm",
            "highdicom/seg_image_ct_true_fractional.dcm",
        ],
        {"refused": ["seg-without-image"] * 4},
    ),
    "a segment of a radiograph": (["highdicom/seg_image_cr_binary.dcm"], {"refused": ["seg-without-image"]}),
    "microscopy": (
        [
            "highdicom/sm_image.dcm",
            "highdicom/seg_image_sm_control.dcm",
            "highdicom/seg_image_sm_control_labelmap.dcm",
            "highdicom/seg_image_sm_control_labelmap_palette_color.dcm",
            "highdicom/seg_image_sm_dots.dcm",
            "highdicom/seg_image_sm_dots_tiled_full.dcm",
            "highdicom/seg_image_sm_numbers.dcm",
        ],
        {"refused": ["seg-microscopy"] * 6 + ["unsupported-modality"]},
    ),
    "structures and their images": (
        ["rt_utils/mock_data/ct_1.dcm", "rt_utils/mock_data/ct_2.dcm", "rt_utils/mock_data/rt.dcm"],
        {"roles": ["ct"], "drawn": {"ROI-1": 1443}},
    ),
    "structures that reference what is not there": (
        [
            "rt_utils/mock_data/ct_1.dcm",
            "rt_utils/mock_data/ct_2.dcm",
            "rt_utils/mock_data/non_existent_reference_rt.dcm",
        ],
        {"roles": ["ct"]},
    ),
    "one set of structures under two names": (
        [
            "rt_utils/mock_data/ct_1.dcm",
            "rt_utils/mock_data/ct_2.dcm",
            "rt_utils/mock_data/dummy_rt.dcm",
            "rt_utils/mock_data/invalid_reference_rt.dcm",
        ],
        {"roles": ["ct"]},
    ),
    "slices of one series in three studies": (["rt_utils/oriented_ct"], {"raised": "several-studies"}),
    "reports alone": (["sr_tid1500_dataset1"], {"raised": "no-images"}),
    "a report of another patient": (["dcmjs/sample-sr.dcm"], {"raised": "no-images"}),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_other_writers_are_read_or_refused_with_a_code(data: Path, name: str) -> None:
    parts, expected = FOREIGN[name]
    paths = [
        p
        for part in parts
        for p in (
            (data / "foreign" / part).rglob("*") if not part.endswith(".dcm") else [data / "foreign" / part]
        )
    ]
    if code := expected.get("raised"):
        with pytest.raises(Refused) as refused:
            read_study(paths)
        assert refused.value.code == code
        return
    study = read_study(paths).study
    assert [v.role for v in study.volumes] == expected.get("roles", [])
    assert sorted(f.code for f in study.refused) == sorted(
        expected.get("refused", [f.code for f in study.refused])
    )
    counts = {d.label: d.mask.count for d in study.drawn}
    assert counts == expected.get("drawn", counts)
    assert len(counts) >= expected.get("count", 0)
    assert study.volumes or study.refused


def test_every_foreign_file_is_in_the_table(data: Path) -> None:
    root = data / "foreign"
    named = {
        p for parts, _ in FOREIGN.values() for part in parts for p in [root / part, *(root / part).rglob("*")]
    }
    missing = [p for p in root.rglob("*.dcm") if p not in named]
    assert missing == []
