"""A folder in, files out: what `analyse` and `measure` answer, and what they leave on disk."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from html import unescape
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_series import make_series
from node_process import nadir, nadir_json
from numpy.typing import NDArray
from pydicom import dcmread

from node.offline import analyse_folder
from node.settings import Settings
from plugins.errors import Refused

SPACING_MM = (3.0, 2.0, 1.5)
ORIGIN_MM = (-20.0, -30.0, 100.0)


@pytest.fixture
def ct(tmp_path: Path) -> Path:
    """Return a folder with a CT of 8 slices, in which a box of 4 x 6 x 10 voxels has 40 HU and the rest 0."""
    array = np.zeros((8, 24, 32))
    array[box()] = 40.0
    make_series(tmp_path / "ct", array, spacing_mm=SPACING_MM, origin_mm=ORIGIN_MM, patient_id="P1")
    return tmp_path / "ct"


def box() -> tuple[slice, slice, slice]:
    return (slice(2, 6), slice(5, 11), slice(7, 17))


def nifti(path: Path, mask: NDArray[np.uint8], *, spacing_mm: tuple[float, float, float] = SPACING_MM) -> str:
    """Write a mask (K, R, C) on the grid of the series as NIfTI, whose axes are RAS."""
    dk, dr, dc = spacing_mm
    affine = np.diag([-dc, -dr, dk, 1.0])
    affine[:3, 3] = (-ORIGIN_MM[0], -ORIGIN_MM[1], ORIGIN_MM[2])
    nibabel.Nifti1Image(mask.transpose(2, 1, 0), affine).to_filename(path)
    return str(path)


def box_mask() -> NDArray[np.uint8]:
    mask = np.zeros((8, 24, 32), dtype=np.uint8)
    mask[box()] = 1
    return mask


def test_a_mask_is_measured_with_value_unit_and_method(tmp_path: Path, ct: Path) -> None:
    report = nadir_json("measure", str(ct), "--mask", nifti(tmp_path / "mask.nii.gz", box_mask()))
    assert set(report) == {"findings", "refused", "flags", "outputs", "failed"}
    assert (report["refused"], report["outputs"], report["failed"]) == ([], [], False)
    (finding,) = report["findings"]
    assert {"label", "plugin", "tracking_uid", "confidence", "centroid_mm", "measurements"} <= set(finding)
    assert finding["plugin"] == "contours"
    assert finding["centroid_mm"] == pytest.approx([-20 + 11.5 * 1.5, -30 + 7.5 * 2, 100 + 3.5 * 3])
    measured = finding["measurements"]
    assert {"value", "unit", "method"} <= set(measured["volume"])
    assert measured["volume"]["value"] == pytest.approx(4 * 6 * 10 * 9 / 1000)
    assert measured["volume"]["unit"] == "ml"
    assert measured["long_axis"]["unit"] == "mm"
    assert measured["long_axis"]["value"] == pytest.approx(np.hypot(15, 12), abs=3)
    assert measured["hu_mean"]["value"] == pytest.approx(40)
    again = nadir_json("measure", str(ct), "--mask", str(tmp_path / "mask.nii.gz"))
    assert again == report


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("other-shape", "mask-ambiguous"),
        ("nothing-drawn", "empty-mask"),
        ("junk", "unreadable-mask"),
        ("image", "unknown-mask"),
        ("far-away", "mask-outside"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_with_its_code(
    tmp_path: Path, ct: Path, what: str, code: str
) -> None:
    path = tmp_path / "mask.nii"
    if what == "other-shape":
        make_series(ct / "second", np.zeros((5, 20, 20)), series_number=2)
        nifti(path, np.ones((3, 4, 5), dtype=np.uint8), spacing_mm=(1.0, 1.0, 1.0))
    elif what == "nothing-drawn":
        nifti(path, box_mask() * 0)
    elif what == "junk":
        path.write_bytes(b"\x00junk" * 100)
    elif what == "image":
        path = ct / "slice_0001.dcm"
    else:
        nibabel.Nifti1Image(box_mask(), np.diag([1.0, 1.0, 1.0, 1.0]) + 1e4 * np.eye(4, k=3)).to_filename(
            path
        )
    report = nadir_json("measure", str(ct), "--mask", str(path), status=1)
    assert (report["findings"], report["failed"]) == ([], True)
    assert [r["code"] for r in report["refused"]] == [code]
    assert report["refused"][0]["sentence"]


def test_a_refused_study_is_told_as_json_and_on_standard_error(tmp_path: Path, ct: Path) -> None:
    (ct / "slice_0003.dcm").unlink()
    done = nadir("analyse", str(ct), "--out", str(tmp_path / "out"), "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert [r["code"] for r in report["refused"]] == ["missing-slices"]
    assert f"({report['refused'][0]['code']})" in done.stderr
    assert report["failed"] is True
    assert str(tmp_path / "out" / "report.html") in report["outputs"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert report["refused"][0]["sentence"] in unescape(page)
    assert "No series of this study could be used" in page and "Nothing was found" not in page


def test_a_truncated_file_and_one_without_pixels_are_refused(tmp_path: Path, ct: Path) -> None:
    short = ct / "slice_0002.dcm"
    short.write_bytes(short.read_bytes()[:-500])
    report = nadir_json("analyse", str(ct), "--out", str(tmp_path / "out"), status=1)
    assert [r["code"] for r in report["refused"]] == ["truncated-pixel-data"]
    bare = dcmread(ct / "slice_0004.dcm")
    del bare.PixelData
    shutil.rmtree(ct)
    ct.mkdir()
    bare.save_as(ct / "slice_0004.dcm")
    report = nadir_json("analyse", str(ct), "--out", str(tmp_path / "out"), status=1)
    assert [r["code"] for r in report["refused"]] == ["no-pixel-data"]


def test_a_study_that_no_analysis_applies_to_is_no_success(tmp_path: Path, ct: Path) -> None:
    report = nadir_json(
        "analyse", str(ct), "--out", str(tmp_path / "out"), "--plugin", "contours", status=1
    )  # fmt: skip
    assert [r["code"] for r in report["refused"]] == ["nothing-to-analyse"]
    assert (report["flags"], report["failed"]) == ([], True)


@pytest.mark.long  # test_main_path sends results back, too
def test_results_are_the_same_when_the_folder_is_analysed_again_with_them_inside(
    tmp_path: Path, ct: Path, trouble: Path
) -> None:
    out = ct / "results"
    first = nadir_json("analyse", str(ct), "--out", str(out), "--plugin", "trouble")
    assert sorted(first["outputs"]) == sorted(str(p) for p in out.rglob("*") if p.is_file())
    uids = [dcmread(p).SOPInstanceUID for p in sorted(out.glob("*.dcm"))]
    (out / "note.txt").write_text("a person's own")
    second = nadir_json("analyse", str(ct), "--out", str(out), "--plugin", "trouble")
    assert second == first
    assert [dcmread(p).SOPInstanceUID for p in sorted(out.glob("*.dcm"))] == uids
    assert (out / "note.txt").read_text() == "a person's own"
    assert not list(out.glob(".nadir*"))


@pytest.mark.long  # the demo has two studies
def test_each_of_several_studies_has_its_own_folder_and_its_own_refusals(
    tmp_path: Path, ct: Path, trouble: Path
) -> None:
    make_series(ct / "later", np.zeros((4, 16, 16)), study_date="20250601")
    make_series(ct / "mr", np.zeros((1, 16, 16)), study_date="20250801", modality="MR")
    (ct / "readme.txt").write_text("no image")
    out = tmp_path / "out"
    report = nadir_json("analyse", str(ct), "--out", str(out), "--plugin", "trouble", status=1)
    studies = [f["study_instance_uid"] for f in report["findings"]]
    assert len(set(studies)) == 2
    assert {r["study_instance_uid"] for r in report["refused"]}.isdisjoint(studies)
    folders = {Path(p).relative_to(out).parts[0] for p in report["outputs"] if p.endswith(".dcm")}
    assert len(folders) == 2
    assert folders < {"study-1", "study-2", "study-3"}
    assert all(Path(p).is_file() for p in report["outputs"])


def test_an_analysis_that_crashes_is_a_refusal_and_leaves_nothing(
    tmp_path: Path, ct: Path, trouble: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NADIR_PLUGINS", json.dumps({"trouble": {"mode": "segfault"}}))
    out = tmp_path / "out"
    report = nadir_json("analyse", str(ct), "--out", str(out), "--plugin", "trouble", status=1)
    assert [r["code"] for r in report["refused"]] == ["analysis-crashed"]
    assert list(out.iterdir()) == []


def test_modules_in_the_folder_of_the_data_are_not_imported(
    tmp_path: Path, ct: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = nifti(tmp_path / "mask.nii.gz", box_mask())
    for name in ("node", "json", "numpy", "plugins"):
        (ct / f"{name}.py").write_text("raise SystemExit('taken over')")
    monkeypatch.chdir(ct)
    assert len(nadir_json("measure", ".", "--mask", os.path.relpath(mask))["findings"]) == 1


def test_names_that_are_no_text_are_no_trouble(tmp_path: Path, ct: Path, trouble: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff [bold]out")
    done = nadir("analyse", str(ct), "--out", odd, "--plugin", "trouble")
    assert done.returncode == 0, done.stderr
    assert "\\udcff [bold]out" in done.stdout
    assert hashlib.sha256((Path(odd) / "trouble-seg-1.dcm").read_bytes()).hexdigest()


def test_drawn_tumours_of_a_real_ct_have_their_volumes(data: Path) -> None:
    expected = json.loads((data / "ct_4dlung" / "expected.json").read_text())["rois"]
    mask = data / "ct_4dlung" / "RTSTRUCT" / "rtstruct.dcm"
    report = nadir_json("measure", str(data / "ct_4dlung" / "CT"), "--mask", str(mask))
    measured = {f["label"]: f["measurements"] for f in report["findings"]}
    assert set(measured) == set(expected)
    for label, values in expected.items():
        assert measured[label]["volume"]["value"] == pytest.approx(values["volume_ml"], rel=0.03)
        assert measured[label]["hu_mean"]["value"] == pytest.approx(values["mean"], abs=0.01)
        assert measured[label]["hu_max"]["value"] == pytest.approx(values["max"])


@pytest.mark.parametrize(
    ("images", "mask"),
    [
        ("dcmqi/liver_ct_3slice/ct", "dcmqi/liver_ct_3slice/seg_liver_binary.dcm"),
        ("dcmqi/phantom_24x38x3/ct", "dcmqi/phantom_24x38x3/seg_labelmap_sparse_ppv5.dcm"),
    ],
)
def test_a_segmentation_of_another_maker_is_measured(data: Path, images: str, mask: str) -> None:
    foreign = data / "foreign"
    report = nadir_json("measure", str(foreign / images), "--mask", str(foreign / mask))
    assert report["findings"]
    assert all(f["measurements"]["volume"]["value"] > 0 for f in report["findings"])
    assert len({f["tracking_uid"] for f in report["findings"]}) == len(report["findings"])


def test_a_segmentation_of_its_own_measures_as_it_was_written(
    tmp_path: Path, ct: Path, trouble: Path
) -> None:
    out = tmp_path / "out"
    (written,) = nadir_json("analyse", str(ct), "--out", str(out), "--plugin", "trouble")["findings"]
    (read,) = nadir_json("measure", str(ct), "--mask", str(out / "trouble-seg-1.dcm"))["findings"]
    assert read["tracking_uid"] == written["tracking_uid"]
    assert read["centroid_mm"] == pytest.approx(written["centroid_mm"])
    for name in ("long_axis", "short_axis", "volume"):
        assert read["measurements"][name]["value"] == pytest.approx(written["measurements"][name]["value"])


@pytest.mark.parametrize("patient", ["STS_002", pytest.param("STS_003", marks=pytest.mark.long)])
def test_pet_and_ct_regions_of_a_real_study_are_measured_on_their_own_grids(data: Path, patient: str) -> None:
    expected = json.loads((data / "sts_dicom" / "expected.json").read_text())[patient]
    folder = data / "sts_dicom" / patient
    for modality in ("CT", "PET"):
        mask = folder / "RTSTRUCT" / f"rtstruct_{modality.lower()}.dcm"
        report = nadir_json("measure", str(folder), "--mask", str(mask))
        measured = {f["label"]: f["measurements"] for f in report["findings"]}
        prefix = "hu" if modality == "CT" else "suv"
        for label, values in expected[modality]["rois"].items():
            assert measured[label]["volume"]["value"] == pytest.approx(values["volume_ml"], rel=0.03)
            assert measured[label][f"{prefix}_max"]["value"] == pytest.approx(values["max"], rel=1e-3)
            assert measured[label][f"{prefix}_mean"]["value"] == pytest.approx(values["mean"], rel=2e-3)


@pytest.mark.parametrize("case", ["DRO_0_0", "DRO_2_3"])
@pytest.mark.parametrize("mask", ["mask.nii.gz", "RTSTRUCT/rtstruct.dcm"])
def test_suv_of_a_reference_object_is_measured_under_either_mask(data: Path, case: str, mask: str) -> None:
    expected = json.loads((data / "suv_dro" / "expected.json").read_text())["expected"][case]
    folder = data / "suv_dro" / case
    (finding,) = nadir_json("measure", str(folder / "PET"), "--mask", str(folder / mask))["findings"]
    for name in ("suv_min", "suv_median", "suv_max"):
        assert finding["measurements"][name]["value"] == pytest.approx(
            expected[name], abs=expected["absolute_tolerance"]
        )


def test_a_foreign_plugin_that_cannot_be_loaded_is_told_beside_what_the_others_found(
    tmp_path: Path, trouble: Path, small_study: list[Path]
) -> None:
    (trouble / "trouble-1.0.dist-info" / "entry_points.txt").write_text(
        "[nadir.plugins]\ntrouble = trouble:Trouble\nforeign = nowhere_at_all:Foreign\n"
    )
    settings = Settings(enabled=("trouble", "foreign"))
    report = analyse_folder(small_study[0].parent, tmp_path / "out", settings)
    assert len(report["findings"]) == 1
    assert not report["failed"]
    assert "broken-plugin" in {refused["code"] for refused in report["refused"]}
    with pytest.raises(Refused, match="nowhere_at_all"):
        analyse_folder(small_study[0].parent, tmp_path / "out", settings, plugins=["foreign"])
