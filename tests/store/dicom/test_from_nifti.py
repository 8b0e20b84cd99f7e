"""NIfTI images as DICOM series: voxels and places are the same, others' checkers find no fault, nothing is guessed."""

from __future__ import annotations

from datetime import date
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_checkers import iod_errors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import dcmread
from scipy.spatial.transform import Rotation

from plugins.errors import Refused
from store.dicom import from_nifti
from store.dicom.from_nifti import ImageSeries, Said, read_series
from store.dicom.series import ReadStudy, read_study

SAID = Said(modality="CT", patient_label="UP-1", study_date=date(2024, 3, 4), study_instance_uid="2.25.7")
PET = Said(modality="PT", patient_label="UP-1", study_date=date(2024, 3, 4), study_instance_uid="2.25.7")
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
QUICK = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def nifti(path: Path, values: NDArray[np.float32], affine: NDArray[np.float64] | None = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    return path


def written(series: ImageSeries, folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{k}.dcm" for k in range(len(series))]
    for k, path in enumerate(paths):
        path.write_bytes(series.encoded(k))
    return paths


def read(series: ImageSeries, folder: Path) -> ReadStudy:
    return read_study(written(series, folder))


@QUICK
@given(
    order=st.sampled_from(list(permutations(range(3)))),
    flips=st.sampled_from(list(product([1.0, -1.0], repeat=3))),
    angles=st.tuples(*[st.floats(-44, 44)] * 3),
    spacing=st.tuples(*[st.floats(0.4, 5)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    seed=st.integers(0, 99),
)
def test_every_voxel_of_any_grid_lies_where_it_lay_with_its_value(
    tmp_path: Path,
    order: tuple[int, ...],
    flips: tuple[float, ...],
    angles: tuple[float, ...],
    spacing: tuple[float, ...],
    origin: tuple[float, ...],
    seed: int,
) -> None:
    values = np.random.default_rng(seed).integers(-1000, 1500, (3, 4, 5)).astype(np.float32)
    affine = np.eye(4)
    turned = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()[:, order]
    affine[:3, :3] = turned * np.array(flips) * np.array(spacing)
    affine[:3, 3] = origin
    (volume,) = read(
        read_series(nifti(tmp_path / "a.nii", values, affine), SAID), tmp_path / "out"
    ).study.volumes
    inverse = np.linalg.inv(volume.geometry.affine)
    for index in np.ndindex(values.shape):
        at_mm = RAS_TO_LPS @ affine @ [*index, 1]
        place = inverse @ at_mm
        k, r, c = np.rint(place[:3]).astype(int)
        assert np.abs(place[:3] - (k, r, c)).max() < 1e-3
        assert volume.array[k, r, c] == values[index]
    for path in tmp_path.rglob("*.dcm"):
        path.unlink()


def test_a_pet_in_suv_is_read_as_suv_within_half_a_step_of_each_slice(tmp_path: Path) -> None:
    values = np.random.default_rng(1).gamma(1, 2, (8, 9, 5)).astype(np.float32)
    values[:, :, 4] = 0
    values[0, 0, 0] = -0.5
    series = read_series(nifti(tmp_path / "a.nii.gz", values), PET)
    found = read(series, tmp_path / "out")
    (volume,) = found.study.volumes
    assert (volume.role, volume.suv["path"], found.study.refused) == ("pet_suv", "GML with SUVType BW", ())
    expected = np.clip(series.volume.array, 0, None)
    step = expected.max(axis=(1, 2), keepdims=True) / 32767
    assert (np.abs(volume.array - expected) <= step * 0.501 + 1e-6).all()
    assert series.told[0] == "1 values below 0 were set to 0"


def test_values_of_a_ct_are_rounded_to_whole_hounsfield_units_and_it_is_told(tmp_path: Path) -> None:
    values = np.linspace(-1000.4, 400.25, 60, dtype=np.float32).reshape(3, 4, 5)
    series = read_series(nifti(tmp_path / "a.nii", values), SAID)
    (volume,) = read(series, tmp_path / "out").study.volumes
    assert np.array_equal(volume.array, np.rint(series.volume.array))
    assert series.told[0].startswith("values were rounded to whole HU")


@pytest.mark.parametrize("said", [SAID, PET], ids=["CT", "PET"])
def test_dciodvfy_finds_no_error(tmp_path: Path, said: Said) -> None:
    values = np.random.default_rng(2).uniform(0, 9, (4, 4, 3)).astype(np.float32)
    values -= 500 if said.modality == "CT" else 0
    values[0, 0, 0] += 20
    paths = written(read_series(nifti(tmp_path / "a.nii", values), said), tmp_path / "out")
    assert iod_errors(paths[1]) == []


def test_the_same_file_said_to_be_the_same_gives_the_same_bytes_and_another_one_others(
    tmp_path: Path,
) -> None:
    values = np.full((3, 3, 3), -500, dtype=np.float32)
    values[0] = 100
    one = read_series(nifti(tmp_path / "a.nii", values), SAID)
    again = read_series(nifti(tmp_path / "b.nii", values), Said.from_json(SAID.to_json()))
    assert one.encoded(1) == again.encoded(1)
    other = read_series(nifti(tmp_path / "c.nii", values + 1), SAID)
    assert other.series_instance_uid != one.series_instance_uid


def test_identity_is_the_label_with_an_issuer_of_its_own_and_coordinates_are_shared_only_when_said(
    tmp_path: Path,
) -> None:
    values = np.full((3, 3, 3), -500, dtype=np.float32)
    values[0] = 100
    series = read_series(nifti(tmp_path / "a.nii", values), SAID)
    alone = read_series(
        nifti(tmp_path / "b.nii", values + 2),
        Said(**{**SAID.__dict__, "is_aligned": False}),
    )
    first, other = (
        dcmread(path) for path in (written(series, tmp_path / "1")[0], written(alone, tmp_path / "2")[0])
    )
    assert (first.PatientID, first.IssuerOfPatientID, first.StudyDate) == (
        "UP-1",
        "NIfTI upload",
        "20240304",
    )
    assert first.StudyInstanceUID == other.StudyInstanceUID
    assert first.FrameOfReferenceUID != other.FrameOfReferenceUID


@pytest.mark.parametrize(
    ("modality", "change", "code"),
    [
        ("CT", "shear", "sheared"),
        ("CT", "positive", "not-hounsfield"),
        ("CT", "nan", "bad-values"),
        ("PT", "counts", "not-suv"),
        ("CT", "two", "not-3d"),
        ("CT", "huge", "too-large"),
        ("CT", "cut", "unreadable-image"),
    ],
)
def test_what_cannot_be_written_faithfully_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modality: str, change: str, code: str
) -> None:
    values = np.linspace(-900, 300, 60, dtype=np.float32).reshape(3, 4, 5)
    affine = np.eye(4)
    if change == "shear":
        affine[0, 1] = 0.2
    if change == "positive":
        values += 2000
    if change == "nan":
        values[0, 0, 0] = np.nan
    if change == "counts":
        values = np.abs(values) * 100
    if change == "two":
        values = np.stack([values, values], axis=3)
    if change == "huge":
        monkeypatch.setattr(from_nifti, "MOST_VOXELS", 59)
    path = nifti(tmp_path / "a.nii.gz", values, affine)
    if change == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(Refused) as caught:
        read_series(path, SAID if modality == "CT" else PET)
    assert caught.value.code == code
