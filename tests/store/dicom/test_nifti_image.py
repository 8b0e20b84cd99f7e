"""NIfTI images of a CT: what their headers and values say, and label images that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from dicom_series import make_series

from plugins.contract import Mask, Volume
from plugins.errors import Refused
from store.dicom.nifti_image import read_ct, read_image, write_labels
from store.dicom.series import read_study

SHAPE = (4, 10, 11)
SPACING = (0.7, 0.8, 2.0)


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    make_series(tmp_path / "ct", np.zeros(SHAPE))
    return read_study((tmp_path / "ct").iterdir()).study.volumes[0]


def labels(number: int) -> np.ndarray:
    return np.full(SHAPE, number, dtype=np.uint8)


def image(affine: np.ndarray | None = None, values: np.ndarray | None = None) -> nibabel.Nifti1Image:
    """Return a CT with one affine for sform and qform."""
    if values is None:
        values = np.linspace(-900, 300, 440).reshape(11, 10, 4)
    made = nibabel.Nifti1Image(
        values.astype(np.int16), np.diag([*SPACING, 1.0]) if affine is None else affine
    )
    made.set_qform(made.affine, code=1)
    made.header.set_xyzt_units("mm")
    return made


def save(made: nibabel.Nifti1Image, path: Path) -> Path:
    nibabel.save(made, path)
    return path


def rewrite(path: Path, **fields: object) -> Path:
    """Put fields of the header of a NIfTI file into it as they are given."""
    raw = path.read_bytes()
    header = nibabel.Nifti1Header(raw[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock + raw[348:])
    return path


@pytest.mark.parametrize(
    ("scale", "shift_mm", "is_refused"),
    [(1.0, 0.0, False), (1.005, 0.0, False), (1.02, 0.0, True), (1.0, 0.9, False), (1.0, 1.1, True)],
)
def test_two_positions_of_a_nifti_that_differ_are_refused(
    tmp_path: Path, scale: float, shift_mm: float, is_refused: bool
) -> None:
    made = image()
    other = made.affine @ np.diag([1.0, 1.0, scale, 1.0])
    other[1, 3] += shift_mm
    made.set_qform(other, code=1)
    path = save(made, tmp_path / "ct.nii")
    if not is_refused:
        assert read_ct(path).volume.spacing_mm == pytest.approx((2.0, 0.8, 0.7))
        return
    with pytest.raises(Refused) as refusal:
        read_ct(path)
    assert refusal.value.code == "two-positions"
    assert refusal.value.sentence == (
        "ct.nii says two places: by its sform voxels of 0.7 x 0.8 x 2 mm, by its qform of "
        f"0.7 x 0.8 x {2 * scale:.3g} mm, up to {max(shift_mm, 3 * 2 * (scale - 1)):.1f} mm apart; "
        "set the code of the wrong one to 0"
    )


def test_a_position_without_a_code_or_without_a_turn_does_not_count(tmp_path: Path) -> None:
    made = image()
    made.set_qform(made.affine @ np.diag([2.0, 1.0, 1.0, 1.0]), code=0)
    path = save(made, tmp_path / "ct.nii")
    assert read_ct(path).volume.spacing_mm == pytest.approx((2.0, 0.8, 0.7))
    rewrite(path, qform_code=1, quatern_b=1.0, quatern_c=1.0)
    assert read_ct(path).volume.spacing_mm == pytest.approx((2.0, 0.8, 0.7))


@pytest.mark.parametrize(("unit", "mm"), [("meter", 1000.0), ("micron", 0.001), ("unknown", 1.0)])
def test_metres_and_microns_become_mm(volume: Volume, tmp_path: Path, unit: str, mm: float) -> None:
    affine = np.diag([*(n / mm for n in SPACING), 1.0])
    affine[:3, 3] = np.array([10.0, 20.0, 30.0]) / mm
    made = image(affine)
    made.header.set_xyzt_units(unit)
    read = read_ct(save(made, tmp_path / "ct.nii"))
    assert read.volume.spacing_mm == pytest.approx((2.0, 0.8, 0.7))
    assert read.volume.centroid_mm(Mask.from_full(np.ones(SHAPE, dtype=bool))) == pytest.approx(
        (-10 - 5 * 0.7, -20 - 4.5 * 0.8, 30 + 1.5 * 2.0), abs=1e-4
    )
    write_labels(tmp_path / "mask.nii", np.ones(SHAPE, dtype=np.uint8), read.volume, read)
    mask = nibabel.load(tmp_path / "mask.nii")
    assert mask.header.get_xyzt_units()[0] == "mm"
    assert mask.header.get_zooms() == pytest.approx(SPACING)


@pytest.mark.parametrize(
    ("row", "words"),
    [([0.0] * 4, "its sform has no volume"), ([np.nan] * 4, "its sform holds what is no number")],
)
def test_an_affine_that_places_nothing_is_told_as_such(tmp_path: Path, row: list[float], words: str) -> None:
    path = rewrite(save(image(), tmp_path / "ct.nii"), srow_z=row, qform_code=0)
    with pytest.raises(Refused) as refusal:
        read_ct(path)
    assert refusal.value.code == "bad-position"
    assert refusal.value.sentence == f"ct.nii does not say where it lies: {words}; convert its source again"


def test_a_nifti_that_says_no_place_is_refused(tmp_path: Path) -> None:
    path = rewrite(save(image(), tmp_path / "ct.nii"), sform_code=0, qform_code=0)
    with pytest.raises(Refused, match=r"without-position: .* \(no qform or sform\)"):
        read_ct(path)


def test_padding_below_air_does_not_make_an_offset_to_hounsfield_units(tmp_path: Path) -> None:
    values = np.linspace(24, 1324, 440).reshape(11, 10, 4)
    values[0] = -2000
    with pytest.raises(Refused, match=r"not-hounsfield: ct.nii has values from [0-9]+ to 1324"):
        read_ct(save(image(values=values), tmp_path / "ct.nii"))
    values[1:] -= 1024
    assert read_ct(save(image(values=values), tmp_path / "ct.nii")).volume.array.min() == -2000
    lung = np.full((11, 10, 4), -1500.0)
    lung[0] = -1100
    assert read_ct(save(image(values=lung), tmp_path / "ct.nii")).volume.array.max() == -1100


@pytest.mark.parametrize(("low", "high"), [(-1000, -1000), (0, 0), (40, 40), (0, 1), (-1, 1)])
def test_a_flat_image_is_told_as_one(tmp_path: Path, low: float, high: float) -> None:
    values = np.full((11, 10, 4), float(low))
    values[0] = high
    with pytest.raises(Refused, match="not-hounsfield") as refusal:
        read_ct(save(image(values=values), tmp_path / "ct.nii"))
    assert refusal.value.sentence == (
        f"ct.nii has values from {low} to {high}: a CT in Hounsfield units spans 10 or more; is it empty, or scaled?"
    )


def test_the_lowest_value_of_16_bits_is_padding_and_becomes_air(tmp_path: Path) -> None:
    values = np.linspace(-900, 882, 440).reshape(11, 10, 4)
    values[0] = -32768
    read = read_ct(save(image(values=values), tmp_path / "ct.nii")).volume.array
    assert (np.count_nonzero(read == -1024), read.max()) == (40, 882)
    assert np.unique(read)[1] == int(values[1].min())
    values[0, 0, 0] = 32767
    assert read_ct(save(image(values=values), tmp_path / "ct.nii")).volume.array.max() == 32767


@pytest.mark.parametrize(
    ("modality", "spoiled", "says"),
    [
        (
            "CT",
            np.nan,
            r"ct.nii holds 40 voxels that are no numbers, beside values from -[0-9.]+ to 300; .* -1024",
        ),
        ("CT", np.inf, r"ct.nii holds 40 voxels that are no numbers"),
        ("PT", np.nan, r"ct.nii holds 40 voxels that are no numbers, .* write 0 there"),
        ("MR", -np.inf, r"ct.nii holds 40 voxels that are no numbers, .* write 0 there"),
        (
            "CT",
            -40000.0,
            r"ct.nii has values from -40000 to 300, and Hounsfield units here are from -32768 to 32767; .*convert",
        ),
    ],
)
def test_values_that_cannot_be_are_counted_and_told_what_to_write(
    tmp_path: Path, modality: str, spoiled: float, says: str
) -> None:
    values = np.linspace(-900, 300, 440, dtype=np.float32).reshape(11, 10, 4)
    values[0] = spoiled
    path = save(nibabel.Nifti1Image(values, np.diag([*SPACING, 1.0])), tmp_path / "ct.nii")
    with pytest.raises(Refused, match=f"bad-values: {says}"):
        read_image(path, modality)


def test_an_image_without_a_single_number_is_refused(tmp_path: Path) -> None:
    values = np.full((11, 10, 4), np.nan, dtype=np.float32)
    path = save(nibabel.Nifti1Image(values, np.diag([*SPACING, 1.0])), tmp_path / "ct.nii")
    with pytest.raises(Refused, match=r"bad-values: ct.nii holds no voxel that is a number"):
        read_ct(path)


@pytest.mark.parametrize("dtype", [[("R", "u1"), ("G", "u1"), ("B", "u1")], np.complex64])
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_an_image_of_colours_or_complex_numbers_is_refused(tmp_path: Path, dtype: Any, modality: str) -> None:
    values = np.zeros((11, 10, 4), dtype=dtype)
    values[2:5] = np.ones((), dtype=dtype)
    path = save(nibabel.Nifti1Image(values, np.diag([*SPACING, 1.0])), tmp_path / "ct.nii")
    with pytest.raises(Refused, match=r"unreadable-image: ct\.nii holds colours or complex numbers"):
        read_image(path, modality)


def test_a_write_that_fails_leaves_the_mask_of_before_and_no_other_file(
    volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "mask.nii.gz"
    write_labels(out, labels(1), volume)
    before = out.read_bytes()

    def fill_disk(image: object, path: Path) -> None:
        assert path.parent == out.parent and path.name.startswith(".") and path.name.endswith(".nii.gz")
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(nibabel, "save", fill_disk)
        with pytest.raises(Refused, match=r"bad-output: .*/mask.nii.gz cannot be written: No space left on"):
            write_labels(out, labels(2), volume)
    assert out.read_bytes() == before
    assert list(out.parent.iterdir()) == [out]
    write_labels(out, labels(2), volume)
    assert np.unique(np.asarray(nibabel.load(out).dataobj)).tolist() == [2]
    assert list(out.parent.iterdir()) == [out]


def test_a_mask_is_written_through_a_link_and_in_capitals(volume: Volume, tmp_path: Path) -> None:
    link, target = tmp_path / "link.nii", tmp_path / "TARGET.NII"
    link.symlink_to(target)
    write_labels(link, labels(3), volume)
    assert link.is_symlink()
    assert np.unique(np.asarray(nibabel.load(target).dataobj)).tolist() == [3]


def test_a_folder_in_the_place_of_the_mask_is_refused_and_stays(volume: Volume, tmp_path: Path) -> None:
    (tmp_path / "out" / "mask.nii").mkdir(parents=True)
    with pytest.raises(Refused, match=r"bad-output: .*/mask.nii cannot be written: Is a directory"):
        write_labels(tmp_path / "out" / "mask.nii", labels(1), volume)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mask.nii"]
