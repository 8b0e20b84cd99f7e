from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_checkers import dcmqi_segments, iod_errors
from dicom_series import make_series
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom.dataset import Dataset
from small_results import NOW, PROVENANCE, Case, case_of, make_case, saved, with_finding

from plugins import codes
from plugins.contract import Mask
from plugins.errors import Broken
from store.dicom.common_voxels import overlaps
from store.dicom.equipment import device_uid
from store.dicom.frames import pack_frames
from store.dicom.groups import identify_algorithm
from store.dicom.seg import PALETTE, encode_seg
from store.dicom.series import read_study

OBLIQUE = (0.8, 0.6, 0.0, -0.48, 0.64, 0.6)
ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "negated-column": (1, 0, 0, 0, -1, 0),
    "negated-row": (-1, 0, 0, 0, 1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "oblique": OBLIQUE,
}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("ct"))


def _masks_back(seg: Dataset, case: Case) -> list[np.ndarray]:
    """Read every segment with highdicom, by source image, on the grid of the volume."""
    read = highdicom.seg.Segmentation.from_dataset(seg)
    stack = read.get_pixels_by_source_instance(
        list(case.volume.sop_instance_uids), assert_missing_frames_are_empty=True
    )
    return [stack[..., i] > 0 for i in range(stack.shape[-1])]


@pytest.mark.parametrize("shape", [(12, 40, 36), (9, 37, 41)], ids=["whole-bytes", "frames-inside-a-byte"])
@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_every_voxel_comes_back_in_highdicom_at_its_source_image(
    tmp_path: Path, orientation: tuple[float, ...], shape: tuple[int, int, int]
) -> None:
    case = make_case(tmp_path / "ct", shape=shape, orientation=orientation, spacing_mm=(2.5, 0.7, 0.9))
    seg = saved(case.seg(), tmp_path / "seg.dcm")
    for back, identified in zip(_masks_back(seg, case), case.findings, strict=True):
        assert np.array_equal(back, identified.finding.mask.full())


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_dcmqi_reads_the_same_voxels_at_the_same_places(
    tmp_path: Path, orientation: tuple[float, ...]
) -> None:
    case = make_case(tmp_path / "ct", shape=(9, 37, 41), orientation=orientation, origin_mm=(-20, 31, 7.5))
    case.seg().save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    read = dcmqi_segments(tmp_path / "seg.dcm", tmp_path / "out")
    assert len(read) == 3
    for (array, image), identified in zip(read, case.findings, strict=True):
        mask = identified.finding.mask
        assert int(np.count_nonzero(array)) == mask.count
        index = np.argwhere(array)[:, ::-1].astype(float)
        centroid = np.array(image.TransformContinuousIndexToPhysicalPoint(index.mean(axis=0).tolist()))
        truth = case.volume.to_mm(np.argwhere(mask.full()).mean(axis=0))
        assert np.allclose(centroid, truth, atol=1e-3)


@pytest.mark.parametrize("segments", [1, 2, 3])
def test_dciodvfy_finds_no_error(case: Case, tmp_path: Path, segments: int) -> None:
    seg = replace(case, findings=case.findings[:segments]).seg()
    seg.save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    assert iod_errors(tmp_path / "seg.dcm") == []


def test_positions_and_spacing_are_those_of_the_source(case: Case, tmp_path: Path) -> None:
    seg = saved(case.seg(), tmp_path / "seg.dcm")
    shared = seg.SharedFunctionalGroupsSequence[0]
    measures = shared.PixelMeasuresSequence[0]
    assert (measures.SpacingBetweenSlices, measures.SliceThickness) == (2.0, 2.0)
    assert list(measures.PixelSpacing) == [1.0, 1.0]
    assert list(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        header = case.headers[source.ReferencedSOPInstanceUID]
        assert frame.PlanePositionSequence[0].ImagePositionPatient == header.ImagePositionPatient
        assert source.SpatialLocationsPreserved == "YES"
    assert seg.FrameOfReferenceUID == case.volume.frame_of_reference_uid


def test_only_the_images_that_have_a_frame_are_referenced(case: Case) -> None:
    alone = replace(case, findings=case.findings[:1])
    seg = alone.seg()
    used = np.flatnonzero(alone.findings[0].finding.mask.full().any(axis=(1, 2)))
    listed = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == case.volume.series_instance_uid
    assert [i.ReferencedSOPInstanceUID for i in listed] == [case.volume.sop_instance_uids[k] for k in used]
    assert seg.NumberOfFrames == len(used) < len(case.volume.sop_instance_uids)


def test_empty_frames_are_written_when_asked_for(case: Case, tmp_path: Path) -> None:
    seg = saved(case.seg(omit_empty_frames=False), tmp_path / "seg.dcm")
    assert seg.NumberOfFrames == 3 * 12
    for back, identified in zip(_masks_back(seg, case), case.findings, strict=True):
        assert np.array_equal(back, identified.finding.mask.full())


def test_a_segment_says_what_where_who_and_which(case: Case) -> None:
    first, second, lung = case.seg().SegmentSequence
    assert first.SegmentLabel == "Nodule 1"
    assert first.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeValue == "27925004"
    region = first.AnatomicRegionSequence[0]
    assert (region.CodeValue, region.AnatomicRegionModifierSequence[0].CodeValue) == ("39607008", "24028007")
    assert first.SegmentAlgorithmType == "AUTOMATIC"
    assert first.SegmentAlgorithmName == "nodule model"
    assert first.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == "3"
    assert (first.TrackingID, first.TrackingUID) == ("Nodule 1", case.findings[0].tracking_uid)
    assert second.SegmentAlgorithmType == "MANUAL"
    assert "SegmentAlgorithmName" not in second
    kind = lung.SegmentedPropertyTypeCodeSequence[0]
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    colours = [tuple(s.RecommendedDisplayCIELabValue) for s in (first, second, lung)]
    assert len(set(colours)) == 3


def test_a_learned_model_is_named_as_artificial_intelligence(case: Case) -> None:
    learned = replace(case, provenance=replace(PROVENANCE, model_kind="learned"))
    for which, family in ((learned, "123110"), (case, "123104")):
        item = which.seg().SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
        assert item.AlgorithmFamilyCodeSequence[0].CodeValue == family
    assert device_uid(learned.provenance) == device_uid(case.provenance)


def test_the_header_says_research_use_and_names_the_algorithm_with_its_device_uid(case: Case) -> None:
    seg = case.seg()
    assert "For research use only" in seg.ContentDescription
    assert (seg.Manufacturer, seg.ContentLabel, seg.Modality) == ("Nadir", "NADIR_SEG", "SEG")
    ours = [e for e in seg.ContributingEquipmentSequence if e.Manufacturer == "Nadir"]
    purpose = ours[0].PurposeOfReferenceCodeSequence[0]
    assert (purpose.CodeValue, purpose.CodingSchemeDesignator) == ("Newcode1", "99IHE")
    assert ours[0].DeviceUID.startswith("2.25.")
    retrained = replace(case, provenance=replace(PROVENANCE, model_sha256="e" * 64)).seg()
    theirs = [e for e in retrained.ContributingEquipmentSequence if e.Manufacturer == "Nadir"]
    assert theirs[0].DeviceUID != ours[0].DeviceUID


def test_an_analysis_without_a_model_names_none(case: Case) -> None:
    fixed = replace(case, provenance=replace(PROVENANCE, model_sha256="")).seg()
    for seg, begins, names in (
        (
            case.seg(),
            f"For research use only. Model {PROVENANCE.model_sha256}, settings ",
            ["model", "settings"],
        ),
        (fixed, "For research use only. Settings ", ["settings"]),
    ):
        (ours,) = [e for e in seg.ContributingEquipmentSequence if e.Manufacturer == "Nadir"]
        assert ours.ContributionDescription.startswith(begins)
        (algorithm,) = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
        told = [part.partition("=")[0] for part in algorithm.AlgorithmParameters.split(",")]
        assert told == [*names, "voxels"]
    told = identify_algorithm(replace(PROVENANCE, model_sha256=""))
    assert [item.TextValue for item in told if "=" in item.TextValue] == [
        f"settings={PROVENANCE.config_sha256}"
    ]


def test_the_same_input_gives_the_same_bytes(case: Case, tmp_path: Path) -> None:
    for name in ("a", "b"):
        case.seg().save_as(tmp_path / name, enforce_file_format=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_one_segment_of_one_voxel_comes_back(case: Case, tmp_path: Path) -> None:
    point = np.zeros(case.volume.array.shape, dtype=np.bool_)
    point[3, 39, 35] = True
    alone = with_finding(replace(case, findings=case.findings[:1]), 1, mask=Mask.from_full(point))
    seg = saved(alone.seg(), tmp_path / "seg.dcm")
    assert np.array_equal(_masks_back(seg, alone)[0], point)
    assert iod_errors(tmp_path / "seg.dcm") == []
    ((array, _),) = dcmqi_segments(tmp_path / "seg.dcm", tmp_path / "out")
    assert int(np.count_nonzero(array)) == 1


def test_another_job_has_other_uids_and_another_series_too(case: Case) -> None:
    other = replace(case, provenance=replace(PROVENANCE, job_key="e" * 64)).seg()
    seg = case.seg()
    assert other.SOPInstanceUID != seg.SOPInstanceUID
    assert other.SeriesInstanceUID != seg.SeriesInstanceUID
    assert seg.SeriesInstanceUID != seg.SOPInstanceUID


def test_dates_come_from_the_clock_that_was_passed_in(case: Case) -> None:
    seg = case.seg()
    assert (seg.ContentDate, seg.ContentTime) == ("20250301", "100000")
    assert (seg.SeriesDate, seg.SeriesTime) == ("20250301", "100000")
    assert (seg.InstanceCreationDate, seg.InstanceCreationTime) == ("20250301", "100500")


def test_dates_are_in_the_zone_of_the_source(tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct", TimezoneOffsetFromUTC="-0500")
    seg = encode_seg(
        case.findings,
        case.volume,
        case.headers,
        replace(PROVENANCE, started_at="2025-03-01T02:00:00+00:00"),
        801,
        datetime(2025, 3, 1, 5, 30, tzinfo=UTC),
    )
    assert seg.TimezoneOffsetFromUTC == "-0500"
    assert (seg.ContentDate, seg.ContentTime) == ("20250228", "210000")
    assert (seg.InstanceCreationDate, seg.InstanceCreationTime) == ("20250301", "003000")


def test_patient_and_study_are_the_sources_to_the_byte(tmp_path: Path) -> None:
    taken = {
        "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
        "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう",
        "PatientID": "0012 345",
        "IssuerOfPatientID": "HOSPITAL",
        "PatientSex": "",
        "AccessionNumber": "A-77",
        "StudyDescription": "Thorax",
        "StudyID": "S9",
    }
    case = make_case(tmp_path / "ct", **taken)
    case.seg().save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    seg, source = pydicom.dcmread(tmp_path / "seg.dcm"), next(iter(case.headers.values()))
    raw, original = seg.PatientName, source.PatientName
    assert str(raw) == str(original) == taken["PatientName"]
    assert raw.original_string == original.original_string
    for keyword in (*taken, "PatientBirthDate", "StudyDate", "StudyTime", "StudyInstanceUID"):
        assert seg[keyword].value == source[keyword].value, keyword


def test_a_label_outside_the_sources_character_set_makes_the_result_utf_8(tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct", SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg")
    seg = saved(with_finding(case, 1, label="腫瘍").seg(), tmp_path / "seg.dcm")
    assert seg.SpecificCharacterSet == "ISO_IR 192"
    assert seg.SegmentSequence[0].SegmentLabel == "腫瘍"
    assert str(seg.PatientName) == "Müller^Jörg"


@pytest.mark.filterwarnings("ignore:.*ISO.IR")
@pytest.mark.parametrize(
    "stated",
    [None, "", "ISO-IR 100", "ISO_IR 6", ["ISO_IR 100", "ISO 2022 IR 87"]],
    ids=["none", "empty", "misspelt", "not defined", "not together"],
)
def test_texts_of_a_source_with_an_unusable_character_set_are_written_in_utf_8(
    tmp_path: Path, stated: str | list[str] | None
) -> None:
    case = make_case(tmp_path / "ct", SpecificCharacterSet=stated, PatientName="Müller^Jörg")
    assert b"M\xfcller^J\xf6rg" in next((tmp_path / "ct").iterdir()).read_bytes()
    seg = saved(case.seg(), tmp_path / "seg.dcm")
    assert seg.SpecificCharacterSet == "ISO_IR 192"
    assert "Müller^Jörg".encode() in (tmp_path / "seg.dcm").read_bytes()
    assert iod_errors(tmp_path / "seg.dcm") == []


def test_a_source_in_ascii_without_a_character_set_gives_a_result_without_one(tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct", SpecificCharacterSet=None)
    assert "SpecificCharacterSet" not in case.seg()


def test_a_source_without_optional_and_with_broken_attributes_still_has_its_seg(tmp_path: Path) -> None:
    gone = dict.fromkeys(("StudyID", "AccessionNumber", "StudyTime", "ReferringPhysicianName", "PatientSize"))
    case = make_case(tmp_path / "ct", **gone, PatientSex="Y", PatientBirthDate=None)
    seg = saved(case.seg(), tmp_path / "seg.dcm")
    assert seg.PatientSex == "Y"
    assert seg.StudyTime in (None, "")
    assert iod_errors(tmp_path / "seg.dcm") == [
        e for e in iod_errors(tmp_path / "seg.dcm") if "PatientSex" in e
    ]


def test_labels_are_one_line_and_at_most_64_characters(case: Case) -> None:
    seg = with_finding(case, 1, label="left\\upper\nlobe " + "x" * 80).seg()
    label = seg.SegmentSequence[0].SegmentLabel
    assert label.startswith("left/upper lobe x")
    assert len(label) == 64


def test_overlapping_segments_are_said_to_overlap(case: Case) -> None:
    assert case.seg().SegmentsOverlap == "YES"
    assert replace(case, findings=case.findings[:2]).seg().SegmentsOverlap == "NO"


def test_a_multi_frame_source_is_referenced_by_its_frames(tmp_path: Path) -> None:
    case = make_case(tmp_path / "ct")
    uid = "1.2.3.4.5"
    positions = [list(p) for p in case.volume.slice_positions]
    header = Dataset()
    header.update(next(iter(case.headers.values())))
    del header.ImagePositionPatient
    header.SOPInstanceUID, header.SOPClassUID = uid, "1.2.840.10008.5.1.4.1.1.2.1"
    groups = []
    for position in reversed(positions):
        plane, group = Dataset(), Dataset()
        plane.ImagePositionPatient = position
        group.PlanePositionSequence = [plane]
        groups.append(group)
    header.PerFrameFunctionalGroupsSequence = groups
    volume = replace(
        case.volume,
        sop_instance_uids=(uid,) * len(positions),
        sop_class_uid=header.SOPClassUID,
        frame_numbers=tuple(range(len(positions), 0, -1)),
    )
    seg = encode_seg(case.findings[:1], volume, {uid: header}, PROVENANCE, 5, NOW)
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        place = list(frame.PlanePositionSequence[0].ImagePositionPatient)
        assert groups[source.ReferencedFrameNumber - 1].PlanePositionSequence[0].ImagePositionPatient == place
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1


def test_a_source_without_frame_of_reference_gets_one_that_is_always_the_same(case: Case) -> None:
    geometry = highdicom.VolumeGeometry(
        case.volume.geometry.affine, case.volume.array.shape, coordinate_system="PATIENT"
    )
    lost = replace(case, volume=replace(case.volume, geometry=geometry))
    assert lost.seg().FrameOfReferenceUID == lost.seg().FrameOfReferenceUID
    assert lost.seg().FrameOfReferenceUID.startswith("2.25.")


@pytest.mark.parametrize("numbers", [(1, 1, 2), (2, 3, 4), (1, 2, 4)])
def test_segment_numbers_with_gaps_or_repeats_are_our_fault(case: Case, numbers: tuple[int, ...]) -> None:
    findings = tuple(replace(f, segment_number=n) for f, n in zip(case.findings, numbers, strict=True))
    with pytest.raises(Broken, match="numbered 1 to n"):
        replace(case, findings=findings).seg()


def test_no_finding_is_no_seg(case: Case) -> None:
    with pytest.raises(Broken, match="empty SEG"):
        replace(case, findings=()).seg()


def test_a_mask_of_another_grid_is_our_fault(case: Case) -> None:
    other = Mask.from_full(np.ones((3, 4, 5), dtype=np.bool_))
    with pytest.raises(Broken, match="shape of the volume"):
        with_finding(case, 1, mask=other).seg()


def test_the_palette_has_twenty_different_colours() -> None:
    assert len(set(PALETTE)) == 20


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_packed_frames_are_the_bits_of_all_frames_in_a_row(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=3, max_size=3)))
    full = data.draw(arrays(np.bool_, shape))
    packed = pack_frames([(k, Mask.from_full(full)) for k in range(shape[0])], shape[1], shape[2])
    assert len(packed) % 2 == 0
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), bitorder="little")
    assert np.array_equal(bits[: full.size].astype(bool), full.ravel())
    assert not bits[full.size :].any()


@settings(max_examples=60, deadline=None)
@given(arrays(np.bool_, (3, 4, 5)), arrays(np.bool_, (3, 4, 5)))
def test_masks_overlap_when_they_share_a_voxel(a: np.ndarray, b: np.ndarray) -> None:
    assert overlaps(Mask.from_full(a), Mask.from_full(b)) == bool((a & b).any())


def test_drawn_regions_of_a_real_study_come_back_voxel_for_voxel(data: Path, tmp_path: Path) -> None:
    read = read_study(sorted((data / "ct_4dlung").rglob("*.dcm")))
    volume = read.study.volumes[0]
    drawn = {d.label: d.mask for d in read.study.drawn}
    names = ("Tumor_c40", "LN_c40", "Vertebra_c40")
    case = case_of(volume, dict(read.headers), [drawn[n].full() for n in names])
    seg = saved(case.seg(), tmp_path / "seg.dcm")
    for (array, _), name in zip(dcmqi_segments(tmp_path / "seg.dcm", tmp_path / "out"), names, strict=True):
        assert int(np.count_nonzero(array)) == drawn[name].count
    for back, name in zip(_masks_back(seg, case), names, strict=True):
        assert np.array_equal(back, drawn[name].full())
    assert iod_errors(tmp_path / "seg.dcm") == []


def test_a_pet_has_its_seg_too(tmp_path: Path) -> None:
    array = np.zeros((5, 11, 13))
    array[2, 5, 5] = 9000.0
    read = read_study(make_series(tmp_path / "pet", array, modality="PT", rescale=(0.5, 0)))
    mask = np.zeros((5, 11, 13), dtype=np.bool_)
    mask[1:4, 3:8, 4:8] = True
    case = case_of(read.study.volumes[0], dict(read.headers), [mask, np.roll(mask, 4, axis=2), mask])
    seg = saved(case.seg(), tmp_path / "seg.dcm")
    assert np.array_equal(_masks_back(seg, case)[0], mask)
    assert "(PT)" in seg.SeriesDescription
    assert seg.SegmentSequence[2].SegmentedPropertyTypeCodeSequence[0].CodeValue == codes.LUNG.value
