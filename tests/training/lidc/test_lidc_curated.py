"""XML files and CT series to a data set: by image, told what was left out, through the command line."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_series import make_series
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from lidc_published import PublishedScan, moved, xml_of
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from node.cli import app
from plugins.errors import Refused
from training.curate.lidc_json import read_lidc_json
from training.curate.lidc_xml import read_lidc_xml
from training.lidc import load_nodule
from training.manifest import DataManifest, read_manifest

pytestmark = pytest.mark.xdist_group("lidc")

PATIENT = "LIDC-IDRI-0078"
GRADES = ("subtlety", "", "", "sphericity", "margin", "lobulation", "spiculation", "texture", "malignancy")
POINTS = """<unblindedReadNodule><noduleID>77</noduleID>
<roi><imageZposition>0</imageZposition><imageSOP_UID>{sop}</imageSOP_UID><inclusion>TRUE</inclusion>
<edgeMap><xCoord>4</xCoord><yCoord>6</yCoord></edgeMap></roi></unblindedReadNodule>
<nonNodule><nonNoduleID>78</nonNoduleID><imageZposition>0</imageZposition><imageSOP_UID>{sop}</imageSOP_UID>
<locus><xCoord>9</xCoord><yCoord>11</yCoord></locus></nonNodule>
<nonNodule><nonNoduleID>79</nonNoduleID><imageZposition>0</imageZposition><imageSOP_UID>1.2.3</imageSOP_UID>
<locus><xCoord>9</xCoord><yCoord>11</yCoord></locus></nonNodule>
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Set:
    """A scan of one nodule with its files."""

    scan: PublishedScan
    hu: NDArray[np.int64]
    xml: Path
    dicom: Path


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["curate", "lidc", *map(str, words)])


def written(scan: PublishedScan, folder: Path, **attributes: Any) -> Set:
    """Write the XML of a scan and a series of noise in which every voxel is known."""
    rows, columns = np.max([a.matrix.max(axis=0) for a in scan.annotations], axis=0)[:2] + 3
    hu = np.random.default_rng(1).integers(-1000, 400, (len(scan.zvals), rows, columns))
    make_series(
        folder / "dicom",
        hu,
        spacing_mm=(3.0, scan.pixel_mm, scan.pixel_mm),
        origin_mm=(-100.0, -120.0, float(scan.zvals[0])),
        patient_id=scan.patient_id,
        study_uid=scan.study_uid,
        series_uid=scan.series_uid,
        **{"SliceThickness": scan.thickness_mm, "ConvolutionKernel": "B30f", **attributes},
    )
    (folder / "xml" / "157").mkdir(parents=True)
    (folder / "xml" / "157" / "158.xml").write_text(xml_of(scan, beside=POINTS.format(sop=scan.sop_uid(2))))
    return Set(scan=scan, hu=hu, xml=folder / "xml", dicom=folder / "dicom")


@pytest.fixture(scope="module")
def lowest(scans: dict[str, PublishedScan]) -> PublishedScan:
    """Return the lowest nodule of 0078, which four readers outlined."""
    scan = scans[PATIENT]
    return moved(scan, scan.clusters()[0])


@pytest.fixture(scope="module")
def made(lowest: PublishedScan, tmp_path_factory: pytest.TempPathFactory) -> Set:
    return written(
        lowest, tmp_path_factory.mktemp("lidc"), Manufacturer="ACME", ManufacturerModelName="Ring 3"
    )


@pytest.fixture(scope="module")
def curated(made: Set, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("curated")
    return folder, run(made.xml, "--dicom", made.dicom, "--out", folder, "--margin", 4, "--json")


def manifest_of(folder: Path) -> DataManifest:
    return read_manifest(folder / "manifest.json")


def reader_masks(folder: Path) -> list[int]:
    """Return the voxels of each reader's mask of the only case."""
    (case,) = manifest_of(folder).cases
    roles = sorted(role for role in case.files if role.startswith("mask_reader"))
    return [int(np.asarray(nibabel.load(folder / case.files[role]).dataobj).sum()) for role in roles]


def test_a_nodule_becomes_a_case_in_the_training_form(made: Set, curated: tuple[Path, Result]) -> None:
    folder, said = curated
    assert said.exit_code == 0, said.output
    (case,) = manifest_of(folder).cases
    nodule = load_nodule(case, folder)
    assert nodule.mask.sum() == 1903 and reader_masks(folder) == [1879, 1890, 1542, 1803]
    assert nodule.spacing_mm == pytest.approx((3.0, 0.65, 0.65))
    low, high = np.array([2, 2, 1]), np.array(made.hu.shape)[[1, 2, 0]] - (3, 3, 2)
    votes = np.mean([a.boolean_mask(low, high) for a in made.scan.annotations], axis=0)
    truth = np.pad((votes >= 0.5).transpose(2, 0, 1), ((1, 1), (2, 2), (2, 2)))
    assert np.array_equal(nodule.mask, truth) and np.array_equal(nodule.image, made.hu)
    assert 15 < case.size_mm < 30 and case.patient_id == PATIENT
    ratings = np.array([a.ratings for a in made.scan.annotations])
    assert case.tags == {
        "spacing_x_mm": pytest.approx(0.65),
        "spacing_z_mm": pytest.approx(3.0),
        "slice_thickness_mm": 3.0,
        "scanner": "ACME Ring 3",
        "kernel": "B30f",
        "series_instance_uid": made.scan.series_uid,
        "origin": "LIDC-IDRI",
        "readers": 4,
        "malignancy_class": "malignant",
        **{name: ratings[:, n].mean() for n, name in enumerate(GRADES) if name},
        "internal_structure": 1.0,
        "calcification": 6.0,
    }


def test_every_reader_s_own_figures_are_told(made: Set, curated: tuple[Path, Result]) -> None:
    folder, said = curated
    (nodule,) = json.loads((folder / "nodules.json").read_text())
    told = nodule["outlines"]
    assert [one["mask_voxels"] for one in told] == [1879, 1890, 1542, 1803]
    assert [one["polygon_diameter_mm"] for one in told] == pytest.approx(
        [19.5, 27.65, 27.98, 20.65], abs=5e-3
    )
    volumes = [2621.8, 2703.6, 2260.6, 2479.2]
    assert [one["polygon_volume_mm3"] for one in told] == pytest.approx(volumes, abs=0.05)
    assert [one["reader"] for one in told] == ["anon0", "anon1", "anon2", "anon3"]
    assert nodule["voxels_krc"] == [6, 34, 44] and nodule["first_voxel_krc"] == [1, 2, 2]
    assert nodule["mask_volume_mm3"] == pytest.approx(1903 * 0.65 * 0.65 * 3.0)
    assert nodule["case_id"] == manifest_of(folder).cases[0].case_id
    assert json.loads(said.stdout)["nodules"] == 1
    kept = read_lidc_json(folder / "json" / f"{made.scan.series_uid}.json")
    assert kept == read_lidc_xml(made.xml / "157" / "158.xml")


def test_a_folder_that_holds_a_data_set_is_not_written_over(made: Set, curated: tuple[Path, Result]) -> None:
    folder, said = curated
    told = json.loads(said.stdout)
    assert json.loads((folder / "curation.json").read_text()) | {"folder": str(folder)} == told
    assert told["manifest_sha256"] == manifest_of(folder).sha256
    again = run(made.xml, "--dicom", made.dicom, "--out", folder)
    assert isinstance(again.exception, Refused) and again.exception.code == "data-set-there"


def test_points_are_kept_where_they_lie(made: Set, curated: tuple[Path, Result]) -> None:
    folder, said = curated
    small, other = json.loads((folder / "marks.json").read_text())
    assert (small["kind"], small["krc"], small["session"]) == ("small-nodule", [2, 6, 4], 1)
    assert (other["kind"], other["krc"]) == ("non-nodule", [2, 11, 9])
    z = made.scan.zvals[0] + 6.0
    assert small["position_mm"] == pytest.approx([-100 + 4 * 0.65, -120 + 6 * 0.65, z])
    (left_out,) = json.loads(said.stdout)["left_out"]
    assert left_out["code"] == "mark-without-image" and "'79'" in left_out["sentence"]


def test_outlines_go_to_the_images_that_they_name_whatever_z_they_state(
    lowest: PublishedScan, tmp_path: Path
) -> None:
    one = written(lowest, tmp_path)
    path = one.xml / "157" / "158.xml"
    path.write_text(re.sub(r"(?<=<imageZposition>)[^<]*", "7", path.read_text()))
    assert run(one.xml, "--dicom", one.dicom, "--out", tmp_path / "out").exit_code == 0
    assert reader_masks(tmp_path / "out") == [1879, 1890, 1542, 1803]


def test_of_two_images_at_one_place_either_may_be_named(lowest: PublishedScan, tmp_path: Path) -> None:
    one = written(lowest, tmp_path)
    named = sorted(one.dicom.iterdir())[3]
    header = pydicom.dcmread(named)
    again = "1.2.99"
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = again
    header.InstanceNumber = 99
    header.save_as(one.dicom / "again.dcm")
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = "1.2.98"
    header.ImageType, header.ImagePositionPatient = ["ORIGINAL", "PRIMARY", "LOCALIZER"], [0, 0, 900]
    header.save_as(one.dicom / "localizer.dcm")
    path = one.xml / "157" / "158.xml"
    first, *rest = path.read_text().split(lowest.sop_uid(3))
    path.write_text(first + again + lowest.sop_uid(3).join(rest))
    said = run(one.xml, "--dicom", one.dicom, "--out", tmp_path / "out")
    assert said.exit_code == 0, said.output
    assert reader_masks(tmp_path / "out") == [1879, 1890, 1542, 1803]


def test_frames_of_one_instance_cannot_be_told_apart(lowest: PublishedScan, tmp_path: Path) -> None:
    one = written(lowest, tmp_path)
    slices = [pydicom.dcmread(path) for path in sorted(one.dicom.iterdir())]
    joined = LegacyConvertedEnhancedCTImage(slices, lowest.series_uid, 1, "1.2.97", 1)
    shutil.rmtree(one.dicom)
    one.dicom.mkdir()
    joined.save_as(one.dicom / "joined.dcm")
    said = run(one.xml, "--dicom", one.dicom, "--out", tmp_path / "out")
    assert said.exit_code == 1 and "(multi-frame)" in said.stderr


def test_outlines_on_images_that_are_not_in_the_series_are_told_and_left_out(
    lowest: PublishedScan, tmp_path: Path
) -> None:
    one = written(lowest, tmp_path)
    path = one.xml / "157" / "158.xml"
    path.write_text(path.read_text().replace(lowest.sop_uid(6), "1.2.99"))
    said = run(one.xml, "--dicom", one.dicom, "--out", tmp_path / "out")
    assert "1.2.99 (contour-without-image)" in said.stderr
    missing = sum(any(c.k == 6 for c in a.contours) for a in lowest.annotations)
    assert f"left out: {missing}, the first: " in said.stderr
    drawn = [a for a in lowest.annotations if all(c.k != 6 for c in a.contours)]
    assert said.exit_code == (0 if drawn else 1)


def test_one_bad_file_does_not_stop_the_others(made: Set, tmp_path: Path) -> None:
    folder = tmp_path / "xml"
    shutil.copytree(made.xml, folder)
    good = (folder / "157" / "158.xml").read_text()
    (folder / "bad.XML").write_text(good[: len(good) // 2])
    (folder / "chest.xml").write_text("<IdriReadMessage xmlns='http://www.nih.gov/idri'/>")
    (folder / "copy.xml").write_text(good)
    (folder / "other.xml").write_text(good.replace("anon0", "somebody"))
    (folder / "elsewhere.xml").write_text(good.replace(made.scan.series_uid, "1.2.7"))
    said = run(folder, "--dicom", made.dicom, "--out", tmp_path / "out")
    assert said.exit_code == 1
    assert [line.partition(":")[2].strip() for line in said.stderr.splitlines()][1:] == [
        next(line for line in said.stderr.splitlines() if "bad.XML, line" in line).partition(":")[2].strip(),
        next(line for line in said.stderr.splitlines() if "(two-readings)" in line).partition(":")[2].strip(),
    ]
    assert "2 readings in" in said.stdout and "1 readings without their series" in said.stdout
    assert "1 files passed over (not-lidc-ct)" in said.stdout
    assert "1 files passed over (same-reading)" in said.stdout
    assert reader_masks(tmp_path / "out") == [1879, 1890, 1542, 1803]


def test_json_alone_needs_no_images(made: Set, tmp_path: Path) -> None:
    assert run(made.xml, "--out", tmp_path / "out").exit_code == 2
    said = run(made.xml / "157" / "158.xml", "--json-only", "--out", tmp_path / "out")
    assert said.exit_code == 0, said.output
    assert [
        p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*") if p.is_file()
    ] == [f"json/{made.scan.series_uid}.json"]


def test_a_folder_without_xml_or_without_the_series_is_refused(made: Set, tmp_path: Path) -> None:
    said = run(made.dicom, "--dicom", made.dicom, "--out", tmp_path / "out")
    assert isinstance(said.exception, Refused) and said.exception.code == "no-xml"
    said = run(made.xml, "--dicom", made.xml, "--out", tmp_path / "out")
    assert isinstance(said.exception, Refused) and said.exception.code == "no-series"


def test_two_series_of_a_patient_are_in_one_fold_and_have_cases_of_their_own(
    lowest: PublishedScan, tmp_path: Path
) -> None:
    for number in (1, 2):
        written(replace(lowest, series_uid=f"1.2.{number}"), tmp_path / str(number))
    said = run(tmp_path, "--dicom", tmp_path, "--out", tmp_path / "out", "--json")
    assert said.exit_code == 0, said.output
    cases = manifest_of(tmp_path / "out").cases
    assert len({case.case_id for case in cases}) == 2 and len({case.fold for case in cases}) == 1


def test_nodules_of_fewer_readers_than_asked_for_become_no_case(
    lowest: PublishedScan, tmp_path: Path
) -> None:
    one = written(moved(lowest, [0, 1]), tmp_path)
    said = run(one.xml, "--dicom", one.dicom, "--out", tmp_path / "three", "--readers", 3)
    assert said.exit_code == 1 and "2 readers outlined it, 3 are asked for" in said.stderr
    assert run(one.xml, "--dicom", one.dicom, "--out", tmp_path / "two", "--readers", 2).exit_code == 0
    assert len(reader_masks(tmp_path / "two")) == 2


def test_outlines_that_cannot_be_told_apart_become_no_case(
    scans: dict[str, PublishedScan], tmp_path: Path
) -> None:
    scan = scans["LIDC-IDRI-0252"]
    one = written(moved(scan, range(len(scan.annotations))), tmp_path)
    said = run(one.xml, "--dicom", one.dicom, "--out", tmp_path / "out", "--json")
    assert said.exit_code == 1
    told = json.loads(said.stdout)
    assert (told["nodules"], told["cases"]) == (1, 0)
    assert "too-many-outlines" in [flag["code"] for flag in told["left_out"]]


def test_a_series_that_is_no_regular_grid_is_told_and_left_out(lowest: PublishedScan, tmp_path: Path) -> None:
    one = written(lowest, tmp_path)
    sorted(one.dicom.iterdir())[3].unlink()
    (one.dicom / "damaged.dcm").write_bytes(b"\0" * 128 + b"DICMxxxx")
    said = run(one.xml, "--dicom", one.dicom, "--out", tmp_path / "out")
    assert said.exit_code == 1
    assert "(missing-slices)" in said.stderr and "damaged.dcm" in said.stderr
