"""RTSTRUCT and SEG to cases: every region, on its own images, and a reason for what becomes none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import derived, make_series
from drawn_regions import make_seg, structure_set

from plugins.contours import Contours
from plugins.contract import Finding
from plugins.errors import Refused
from store.dicom.series import read_study
from training.curate.curation import REPORT, Curation
from training.curate.regions import curate_regions
from training.curate.wanted import Wanted
from training.lidc import load_nodule
from training.manifest import patient_key, read_manifest
from training.sts import load_sarcoma

SHAPE = (6, 30, 40)


def square(k: int, row: int, column: int, size: int, mm: float = 1.0) -> tuple[str, Any, None]:
    """A closed contour around `size` x `size` pixels of slice k, 2 mm apart."""
    ends = [(row - 0.5, column - 0.5), (row - 0.5, column + size - 0.5)]
    ends += [(row + size - 0.5, column + size - 0.5), (row + size - 0.5, column - 0.5)]
    return "CLOSED_PLANAR", [(c * mm, r * mm, 2.0 * k) for r, c in ends], None


def ct(folder: Path, patient: str = "P1", **more: Any) -> np.ndarray:
    values = np.rint(np.random.default_rng(len(patient)).normal(-300, 200, SHAPE))
    make_series(folder / "ct", values, patient_id=patient, **more)
    return values


def curated(source: Path, out: Path, kind: str = "SEG", **wanted: Any) -> Curation:
    return curate_regions(source, out / "data", kind, Wanted(**wanted), "test")


def codes(found: Curation) -> dict[str, str]:
    """The reason for each file that was left out, by its name."""
    return {Path(one.where).name: one.code for one in found.left_out}


def test_every_segment_of_a_seg_is_a_case_however_the_frames_lie(tmp_path: Path) -> None:
    values = ct(tmp_path / "in")
    random = np.random.default_rng(1)
    truth = {n: random.random(SHAPE) > 0.7 for n in (1, 2, 3)}
    truth[2][:2] = False
    frames = [(k, n, truth[n][k]) for k in (3, 0, 5, 1, 4, 2) for n in (2, 3, 1) if truth[n][k].any()]
    make_seg(tmp_path / "in" / "seg", frames, labels=("lesion one", "lesion two", "lung"))
    found = curated(tmp_path / "in", tmp_path, margin_mm=0.0)
    assert [(one.region, one.voxels) for one in found.taken] == [
        ("lesion one", truth[1].sum()),
        ("lesion two", truth[2].sum()),
        ("lung", truth[3].sum()),
    ]
    assert found.left_out == ()
    for one, mask in zip(found.taken, truth.values(), strict=True):
        nodule = load_nodule(one.case, tmp_path / "data")
        first = 1 if one.region == "lesion two" else 0
        assert np.array_equal(nodule.mask, mask[first:])
        assert np.array_equal(nodule.image, values[first:])
        assert nodule.spacing_mm == pytest.approx((2.0, 1.0, 1.0))
        assert one.volume_ml == pytest.approx(mask.sum() * 0.002)
    tags = found.taken[0].case.tags
    assert tags["tracking_uid"] == "2.25.1"
    assert (tags["region"], tags["region_type"], tags["origin"]) == ("lesion one", "Mass", "SEG")
    assert (tags["scanner"], tags["slice_thickness_mm"]) == ("Phantom", 2.0)
    assert found.manifest == read_manifest(tmp_path / "data" / "manifest.json")
    assert json.loads((tmp_path / "data" / REPORT).read_text())["cases"][1]["voxels"] == truth[2].sum()


def test_regions_of_an_rtstruct_are_chosen_by_name_or_type_and_the_others_are_told(tmp_path: Path) -> None:
    ct(tmp_path / "in")
    rois = {"GTV 1": [square(2, 5, 5, 10)], "node": [square(3, 2, 2, 4)], "Lung": [square(3, 0, 0, 30)]}
    structure_set(tmp_path / "in" / "rt", {**rois, "nothing": []})
    (taken,) = curated(tmp_path / "in", tmp_path / "a", "RTSTRUCT", regions=("gtv",)).taken
    assert (taken.region, taken.voxels) == ("GTV 1", 100)  # by its type, which the others do not have
    found = curated(tmp_path / "in", tmp_path / "b", "RTSTRUCT", without=("l*ng",))
    assert {one.region: one.voxels for one in found.taken} == {"GTV 1": 100, "node": 16}
    assert [(one.code, one.region) for one in found.left_out] == [("empty-roi", ""), ("not-asked", "Lung")]
    assert "nothing" in found.left_out[0].sentence
    assert found.counts == {"empty-roi": 1, "not-asked": 1}


def test_a_region_on_a_pet_is_a_case_in_suv_with_the_ct_of_its_frame_beside_it(tmp_path: Path) -> None:
    ct(tmp_path / "in")
    pet = np.zeros((6, 10, 13)) + 1000.0
    pet[2, 4:7, 4:7] = 5000.0
    files = make_series(
        tmp_path / "in" / "pet",
        pet,
        modality="PT",
        series_number=2,
        spacing_mm=(2.0, 3.0, 3.0),
        frame_of_reference_uid=derived("frame", derived("study", "P1", "20250101")),
    )
    series = derived("series", derived("study", "P1", "20250101"), "PT", 2)
    structure_set(tmp_path / "in" / "rt", {"hot": [square(2, 4, 4, 3, 3.0)]}, series=series)
    found = curated(tmp_path / "in", tmp_path, "RTSTRUCT", modality="PT")
    sarcoma = load_sarcoma(found.taken[0].case, tmp_path / "data")
    volume = read_study(files).study.volumes[0]
    assert volume.role == "pet_suv"
    assert sarcoma.suv_max == pytest.approx(float(volume.array[2, 5, 5]))
    assert (found.taken[0].voxels, int(sarcoma.mask.sum())) == (9, 9)
    assert sarcoma.hu is not None and sarcoma.hu.mean() == pytest.approx(-300, abs=60)
    on_ct = curated(tmp_path / "in", tmp_path / "ct", "RTSTRUCT")
    assert [one.code for one in on_ct.left_out] == ["other-modality", "not-drawn-on"]
    assert on_ct.manifest is None and not (tmp_path / "ct" / "data" / "manifest.json").exists()
    make_series(
        tmp_path / "in" / "pet",
        pet,
        modality="PT",
        series_number=2,
        spacing_mm=(2.0, 3.0, 3.0),
        PatientWeight=None,
    )
    told = curated(tmp_path / "in", tmp_path / "none", "RTSTRUCT", modality="PT").left_out
    assert "no-real-values" in {one.code for one in told}


def test_a_seg_in_a_study_of_its_own_finds_its_images_and_one_of_another_patient_is_refused(
    tmp_path: Path,
) -> None:
    ct(tmp_path / "in")
    frames = [(2, 1, np.ones(SHAPE[1:]))]
    make_seg(tmp_path / "in" / "moved", frames, StudyInstanceUID="2.25.77")
    make_seg(tmp_path / "in" / "other", frames, PatientID="P2").rename(tmp_path / "in" / "other.dcm")
    lost = make_seg(tmp_path / "in" / "lost", frames, series="2.25.6")
    found = curated(tmp_path / "in", tmp_path)
    assert [one.where for one in found.taken if "doubts" not in one.case.tags] == ["moved/seg.dcm"]
    # what names a series that is not here, and fits another by its position, is told to be in doubt
    (placed,) = (one for one in found.taken if "doubts" in one.case.tags)
    assert (placed.where, placed.case.tags["doubts"]) == ("lost/" + lost.name, "seg-series-by-position")
    assert codes(found) == {"other.dcm": "mask-of-other-patient"}


def test_what_cannot_be_used_is_told_file_by_file(tmp_path: Path) -> None:
    source = tmp_path / "in"
    ct(source)
    ct(source / "bare", "P22", study_date="20250102")
    frames = [(2, 1, np.ones(SHAPE[1:]))]
    good = make_seg(source / "seg", frames)
    shutil.copy(good, source / "seg" / "again.dcm")
    make_seg(source / "own", frames, Manufacturer="Nadir").rename(source / "own.dcm")
    for n in (1, 2):
        made = make_seg(source / "twice", frames, SOPInstanceUID="2.25.5", SeriesNumber=n)
        made.rename(source / f"twice{n}.dcm")
    lost = make_seg(source / "lost", frames, series="2.25.6", FrameOfReferenceUID="2.25.7")
    lost.rename(source / "lost.dcm")
    (source / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    (source / "notes.txt").write_text("x")
    found = curated(source, tmp_path)
    assert [one.region for one in found.taken] == ["one"]
    told = codes(found)
    bare = derived("series", derived("study", "P22", "20250102"), "CT", 1)
    assert told == {
        "seg.dcm": "same-object",
        "own.dcm": "own-result",
        "twice1.dcm": "conflicting-instances",
        "twice2.dcm": "conflicting-instances",
        "lost.dcm": "no-image",
        "broken.dcm": "unreadable-file",
        "in": "other-files",
        bare: "not-drawn-on",
    }
    assert json.loads((tmp_path / "data" / REPORT).read_text())["reasons"]["conflicting-instances"] == 2


def test_pieces_of_a_region_become_cases_of_their_own_when_that_is_asked_for(tmp_path: Path) -> None:
    ct(tmp_path / "in")
    mask = np.zeros(SHAPE, dtype=bool)
    mask[1:3, 2:5, 2:5] = mask[4:6, 20:22, 30:35] = True
    make_seg(tmp_path / "in" / "seg", [(k, 1, mask[k]) for k in range(6)])
    whole = curated(tmp_path / "in", tmp_path / "whole")
    apart = curated(tmp_path / "in", tmp_path / "apart", apart=True)
    assert [one.voxels for one in whole.taken] == [38]
    assert sorted(one.voxels for one in apart.taken) == [18, 20]
    assert len({one.case.case_id for one in apart.taken}) == 2


def test_patients_are_named_by_a_hash_when_that_is_asked_for(tmp_path: Path) -> None:
    ct(tmp_path / "in", "P1")
    make_seg(tmp_path / "in" / "seg", [(2, 1, np.ones(SHAPE[1:]))])
    found = curated(tmp_path / "in", tmp_path, hashed=True)
    assert found.taken[0].case.patient_id == patient_key("P1")
    assert '"P1' not in (tmp_path / "data" / "manifest.json").read_text()
    assert not (tmp_path / "data" / REPORT).exists()
    assert not [path for path in (tmp_path / "data").rglob("*") if "P1" in path.name]


def test_images_without_a_patient_id_are_not_learned_from(tmp_path: Path) -> None:
    ct(tmp_path / "in", PatientID="")
    make_seg(tmp_path / "in" / "seg", [(2, 1, np.ones(SHAPE[1:]))], PatientID="")
    found = curated(tmp_path / "in", tmp_path)
    assert (found.taken, codes(found)) == ((), {"seg.dcm": "no-patient-id"})


def test_a_folder_without_regions_a_data_set_that_is_there_and_an_unknown_modality_are_refused(
    tmp_path: Path,
) -> None:
    ct(tmp_path / "in")
    with pytest.raises(Refused, match="no-regions"):
        curated(tmp_path / "in", tmp_path)
    make_seg(tmp_path / "in" / "seg", [(2, 1, np.ones(SHAPE[1:]))])
    curated(tmp_path / "in", tmp_path)
    with pytest.raises(Refused, match="data-set-there"):
        curated(tmp_path / "in", tmp_path)
    with pytest.raises(Refused, match="no-such-path"):
        curated(tmp_path / "nowhere", tmp_path / "b")
    with pytest.raises(Refused, match="unknown-modality"):
        Wanted(modality="US")


@pytest.mark.parametrize(
    ("case", "modality"),
    [
        ("sts_dicom/STS_002", "CT"),
        ("sts_dicom/STS_003", "PT"),
        pytest.param("ct_4dlung", "CT", marks=pytest.mark.long),
        pytest.param("pet_ge_sts001", "PT", marks=pytest.mark.long),
    ],
)
def test_real_regions_measure_as_cases_what_they_measure_in_a_study(
    data: Path, tmp_path: Path, case: str, modality: str
) -> None:
    found = curated(data / case, tmp_path, "RTSTRUCT", modality=modality)
    study = read_study((data / case).rglob("*.dcm")).study
    measured = {
        finding.label: finding
        for finding in Contours().run(study)
        if isinstance(finding, Finding) and study.volume(finding.series_instance_uid).modality == modality
    }
    assert {one.region for one in found.taken} == set(measured)
    for one in found.taken:
        finding = measured[one.region]
        assert one.voxels == finding.mask.count
        assert one.volume_ml == pytest.approx(finding.measurement("volume").value, rel=1e-6)
        if "node" not in finding.type.meaning.lower():
            assert one.case.size_mm == pytest.approx(finding.measurement("long_axis").value, abs=1e-6)
        if modality == "CT":
            nodule = load_nodule(one.case, tmp_path / "data")
            inside = nodule.image[nodule.mask]
            assert len(inside) * np.prod(nodule.spacing_mm) / 1000 == pytest.approx(one.volume_ml, rel=1e-5)
        else:
            sarcoma = load_sarcoma(one.case, tmp_path / "data")
            assert sarcoma.suv_max == pytest.approx(finding.measurement("suv_max").value, rel=1e-6)
            assert ("ct" in one.case.files) == (case != "pet_ge_sts001")


def test_all_segments_of_real_segs_of_others_are_found_and_every_other_file_has_its_reason(
    data: Path, tmp_path: Path
) -> None:
    source = data / "foreign" / "dcmqi"
    found = curated(source, tmp_path)
    partial = {one.region for one in found.taken if one.where.endswith("partial_overlaps_binary.dcm")}
    assert len(partial) == 5
    segs = {str(path.relative_to(source)) for path in source.rglob("seg_*.dcm")}
    assert len(segs) == 6
    assert segs <= {one.where for one in (*found.taken, *found.left_out)}
