from __future__ import annotations

import hashlib
import shutil
import subprocess
from math import pi
from pathlib import Path

import numpy as np
import pydicom
import pytest

from plugins.errors import Unavailable
from training import phantom_dicom
from training.phantom import (
    PET_GRID,
    Grid,
    Nodule,
    Thorax,
    nodules,
    paint_nodule,
    phantom,
)

SMALL_CT_GRID = Grid(shape=(60, 160, 160), spacing_mm=(5.0, 2.5, 2.5))


@pytest.fixture(scope="module")
def small() -> Thorax:
    return phantom(3, 1, ct_grid=SMALL_CT_GRID, pet_grid=PET_GRID)


@pytest.fixture(scope="module")
def written(small: Thorax, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return phantom_dicom.write_dicom(small, tmp_path_factory.mktemp("phantom"))


def lone_nodule(diameters_mm: tuple[float, float, float], angle_deg: float = 25.0) -> Nodule:
    return Nodule(
        name="lone",
        kind="solid",
        centre_mm=(1.3, -2.1, 0.7),
        diameters_mm=diameters_mm,
        angle_deg=angle_deg,
        hu=40.0,
        suv=5.0,
    )


@pytest.mark.parametrize("diameters_mm", [(8.0, 7.0, 7.5), (24.0, 18.0, 20.0), (40.0, 12.0, 16.0)])
def test_the_painted_share_adds_up_to_the_volume_in_closed_form(
    diameters_mm: tuple[float, float, float],
) -> None:
    nodule = lone_nodule(diameters_mm)
    grid = Grid(shape=(40, 80, 80), spacing_mm=(1.5, 0.7, 0.7))
    values = np.zeros(grid.shape, dtype=np.float32)
    paint_nodule(values, grid.axes_mm(), grid.spacing_mm, nodule, 1.0)
    volume_ml = float(values.sum()) * 1.5 * 0.7 * 0.7 / 1000
    assert nodule.volume_ml == pytest.approx(pi / 6 * np.prod(diameters_mm) / 1000)
    assert volume_ml == pytest.approx(nodule.volume_ml, rel=0.003)


def test_the_half_level_of_a_painted_nodule_has_its_axes() -> None:
    nodule = lone_nodule((24.0, 14.0, 20.0), angle_deg=25.0)
    grid = Grid(shape=(60, 100, 100), spacing_mm=(0.5, 0.5, 0.5))
    values = np.zeros(grid.shape, dtype=np.float32)
    paint_nodule(values, grid.axes_mm(), grid.spacing_mm, nodule, 1.0)
    inside = np.argwhere(values > 0.5)[:, ::-1] * 0.5 + np.asarray(grid.origin_mm)
    first, second = (np.asarray(p) for p in nodule.end_points_mm())
    along = (inside - first) @ (second - first) / nodule.long_axis_mm
    assert np.linalg.norm(second - first) == pytest.approx(24.0)
    assert (along.min(), along.max()) == pytest.approx((0.0, 24.0), abs=0.5)
    assert np.ptp(inside[:, 2]) == pytest.approx(20.0, abs=1.0)


def test_the_same_seed_gives_the_same_voxels_and_another_seed_others() -> None:
    coarse = Grid(shape=(30, 64, 64), spacing_mm=(10.0, 6.25, 6.25))
    first, again, other = (phantom(s, 0, ct_grid=coarse, pet_grid=coarse) for s in (1, 1, 2))
    assert np.array_equal(first.ct, again.ct)
    assert np.array_equal(first.pet, again.pet)
    assert not np.array_equal(first.ct, other.ct)


def test_a_third_date_is_refused() -> None:
    with pytest.raises(ValueError, match="two dates"):
        phantom(0, 2)


def test_one_nodule_shrinks_one_grows_two_stay_and_one_appears() -> None:
    before, after = ({n.name: n.volume_ml for n in nodules(d)} for d in (0, 1))
    assert set(after) - set(before) == {"Right middle"}
    assert after["Right upper"] < 0.5 * before["Right upper"]
    assert after["Left lateral"] > 2 * before["Left lateral"]
    assert after["Right lower"] == before["Right lower"]
    assert after["Left upper"] == before["Left upper"]


def test_every_nodule_lies_in_a_lung_and_has_its_density_and_uptake(small: Thorax) -> None:
    assert len(small.truth.nodules) == 5
    for nodule in small.truth.nodules:
        index = _index(small.ct_grid, nodule.centre_mm)
        assert small.lungs[index] == (1 if nodule.centre_mm[0] < 0 else 2)
        if nodule.diameter_mm > 10:
            assert small.ct[index] == pytest.approx(nodule.hu, abs=60)
            assert small.pet[_index(small.pet_grid, nodule.centre_mm)] == pytest.approx(nodule.suv, rel=1e-4)


def test_the_juxta_pleural_nodule_touches_the_wall_and_stays_whole(small: Thorax) -> None:
    nodule = next(n for n in small.truth.nodules if n.kind == "juxta-pleural")
    x, y, z = nodule.centre_mm
    half = nodule.short_axis_mm / 2
    assert small.lungs[_index(small.ct_grid, (x + half - 2, y, z))] == 2
    assert small.lungs[_index(small.ct_grid, (x + half + 4, y, z))] == 0


def test_the_share_of_emphysema_is_as_designed_and_other_lung_stays_above_950(small: Thorax) -> None:
    right, left = small.truth.lungs
    assert right.laa_950 == pytest.approx(11.0, abs=1.5)
    assert left.laa_950 == pytest.approx(6.0, abs=1.5)
    for truth, number in ((right, 1), (left, 2)):
        hu = small.ct[(small.lungs == number) & (small.ct < -500)]
        assert truth.laa_950 == pytest.approx(100 * np.mean(hu < -950))
        assert truth.perc_15 == np.percentile(hu, 15)
        assert 1500 < truth.volume_ml < 3500


def test_the_liver_has_the_uptake_that_the_truth_says(small: Thorax) -> None:
    index = _index(small.pet_grid, small.truth.liver_mm)
    block = small.pet[tuple(slice(i - 3, i + 4) for i in index)]
    assert float(block.mean()) == pytest.approx(small.truth.liver_suv, rel=0.05)


def test_suv_from_the_written_header_is_the_designed_one(small: Thorax, written: list[Path]) -> None:
    pet = [pydicom.dcmread(p) for p in written if p.parent.name == "PET"]
    first = pet[0]
    item = first.RadiopharmaceuticalInformationSequence[0]
    assert item.RadiopharmaceuticalStartDateTime == "20240603091700"
    assert first.SeriesTime == "101700"
    remaining = float(item.RadionuclideTotalDose) * 0.5 ** (3600 / float(item.RadionuclideHalfLife))
    factor = float(first.PatientWeight) * 1000 / remaining
    suv = np.stack([d.pixel_array * float(d.RescaleSlope) * factor for d in pet])
    assert len({d.RescaleSlope for d in pet}) > 10
    assert np.abs(suv - np.maximum(small.pet, 0)).max() < 3e-4


def test_the_written_ct_is_the_computed_one_in_its_place(small: Thorax, written: list[Path]) -> None:
    ct = [pydicom.dcmread(p) for p in written if p.parent.name == "CT"]
    hu = np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in ct])
    assert np.array_equal(hu, small.ct)
    assert [float(v) for v in ct[0].ImagePositionPatient] == pytest.approx(small.ct_grid.origin_mm)
    assert {d.FrameOfReferenceUID for d in ct} == {pydicom.dcmread(written[-1]).FrameOfReferenceUID}
    assert len({d.SOPInstanceUID for d in ct}) == len(ct)


def test_writing_twice_gives_the_same_bytes_and_tells_progress(small: Thorax, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    first = phantom_dicom.write_dicom(
        small, tmp_path / "a", progress=lambda done, total: told.append((done, total))
    )
    second = phantom_dicom.write_dicom(small, tmp_path / "b")
    assert [_sha256(p) for p in first] == [_sha256(p) for p in second]
    assert told[-1] == (len(first), len(first))
    assert pydicom.dcmread(first[0]).StudyInstanceUID == phantom_dicom.study_instance_uid(small)


def test_a_folder_that_cannot_be_written_is_told_in_one_sentence(small: Thorax, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot be written"):
        phantom_dicom.write_dicom(small, tmp_path / "file")


@pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy is not installed (Debian: dicom3tools)"
)
@pytest.mark.parametrize("name", ["CT", "PET"])
def test_dciodvfy_finds_no_error_and_no_warning(written: list[Path], name: str) -> None:
    path = next(p for p in written if p.parent.name == name)
    done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0
    assert "Error" not in said and "Warning" not in said, said


def _index(grid: Grid, centre_mm: tuple[float, float, float]) -> tuple[int, int, int]:
    found = [
        round((c - o) / s)
        for c, o, s in zip(centre_mm[::-1], grid.origin_mm[::-1], grid.spacing_mm, strict=True)
    ]
    return (found[0], found[1], found[2])


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
