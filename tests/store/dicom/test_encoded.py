"""What is encoded once and filled in equals what highdicom and pydicom write item by item, byte for byte."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from plain_results import plain_planar, plain_seg, plain_volumetric
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.sr.coding import Code
from pydicom.uid import ImplicitVRLittleEndian
from small_results import Case, balls, case_of, identify, make_case, nodule, with_finding

from plugins import codes
from plugins.contract import Finding, Flag, Mask, Measurement
from plugins.measure.lesion import measure_lesion
from store.dicom.encoded import Form, encode
from store.dicom.series import read_study
from store.dicom.sr import Report

FLAGS = (Flag(code="uneven-slices", sentence="The slices are not quite evenly spaced."),)
REFUSED = (Flag(code="missing-slices", sentence="Two slices are missing; send the missing slices."),)


def octets(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def plain_case(tmp_path: Path) -> Case:
    return make_case(tmp_path)


def many(tmp_path: Path) -> Case:
    """Findings alike and unlike: other types and sites, values, words, uncertainty, none at all."""
    case = make_case(tmp_path)
    rng = np.random.default_rng(2)
    findings = []
    for i in range(1, 15):
        k, r, c = rng.integers(1, 8), rng.integers(2, 28), rng.integers(2, 25)
        mask = Mask(
            shape=case.volume.array.shape,
            origin=(int(k), int(r), int(c)),
            voxels=np.ones((2, int(rng.integers(2, 9)), int(rng.integers(2, 9))), dtype=np.bool_),
        )
        finding = nodule(case.volume, mask, i).finding
        if i % 3 == 0:
            finding = replace(finding, site=codes.LIVER, laterality=None, type=codes.LUNG)
        if i % 4 == 0:
            finding = replace(finding, measurements=tuple(_doubted(m, i) for m in finding.measurements))
        if i % 5 == 0:
            finding = replace(finding, measurements=finding.measurements[2:], confidence=0.1 * (i % 7))
        if i % 6 == 0:  # the same codes in other words, and in the scheme that SNOMED had before
            finding = replace(
                finding,
                type=Code("27925004", "SCT", f"Nodule of kind {i}"),
                measurements=tuple(
                    replace(m, concept=m.concept._replace(meaning=f"{m.concept.meaning} {i}"))
                    for m in finding.measurements
                ),
            )
        if i == 13:
            finding = replace(finding, site=Code("T-28000", "SRT", "Lung"))
        if i == 7:
            finding = replace(finding, measurements=(), confidence=None)
        findings.append(identify(replace(finding, key=f"n{i}", label=f"Finding {i}"), i))
    return replace(case, findings=tuple(findings))


def _doubted(measurement: Measurement, number: int) -> Measurement:
    words = (
        f"{measurement.method}, told at some length so that the words are a comment of their own: {number}"
    )
    return replace(measurement, uncertainty=0.01 * number, method=words)


def not_ascii(tmp_path: Path) -> Case:
    return with_finding(make_case(tmp_path), 1, label="Tumor größer 3 cm", type=Code("T1", "99X", "Größe"))


def latin_source(tmp_path: Path) -> Case:
    return make_case(
        tmp_path,
        transfer_syntax=ImplicitVRLittleEndian,
        SpecificCharacterSet="ISO_IR 100",
        PatientName="Müller",
    )


def multi_frame(tmp_path: Path) -> Case:
    """A source in one file, whose frames are referred to by number."""
    paths = sorted(p for p in _written(tmp_path))
    dataset = dcmread(paths[0])
    groups = []
    for path in paths:
        single = dcmread(path)
        frame, place, measures, turned, values = Dataset(), Dataset(), Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = single.ImagePositionPatient
        measures.PixelSpacing, measures.SliceThickness = single.PixelSpacing, single.SliceThickness
        turned.ImageOrientationPatient = single.ImageOrientationPatient
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = "1", "-1024", "HU"
        frame.PlanePositionSequence, frame.PixelMeasuresSequence = [place], [measures]
        frame.PlaneOrientationSequence, frame.PixelValueTransformationSequence = [turned], [values]
        groups.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = Items(groups)
    dataset.NumberOfFrames = len(groups)
    dataset.PixelData = b"".join(dcmread(path).PixelData for path in paths)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"):
        delattr(dataset, keyword)
    for path in paths:
        path.unlink()
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    dataset.save_as(tmp_path / "enhanced.dcm")
    read = read_study([tmp_path / "enhanced.dcm"])
    volume = read.study.volumes[0]
    return case_of(volume, dict(read.headers), balls(volume.array.shape))


def _written(folder: Path) -> list[Path]:
    make_case(folder)
    return list(folder.iterdir())


CASES = (plain_case, many, not_ascii, latin_source, multi_frame)


@pytest.mark.parametrize("make", CASES)
def test_results_are_those_of_highdicom_byte_for_byte(make: type, tmp_path: Path) -> None:
    case: Case = make(tmp_path / "ct")
    seg = case.seg()
    assert octets(seg) == octets(plain_seg(case))
    predecessor = case.volumetric(seg)
    for number, encode_, plain in (
        (802, case.volumetric, plain_volumetric),
        (803, case.planar, plain_planar),
    ):
        given = {"flags": FLAGS, "refused": REFUSED, "predecessors": [predecessor]}
        report: Report = case.report(number, **given)
        assert octets(encode_(seg, **given)) == octets(plain(case, plain_seg(case), report))


def test_making_results_changes_nothing_in_the_headers_of_the_source(tmp_path: Path) -> None:
    case = make_case(tmp_path, modality="PT", SpecificCharacterSet="ISO_IR 100", Units="BQML")
    for header in case.headers.values():
        list(header)  # converted elements are shared with what is made of them
    before = {uid: str(header) for uid, header in case.headers.items()}
    case = with_finding(case, 1, label="größer")
    seg = case.seg()
    case.volumetric(seg), case.planar(seg), case.nothing()
    assert {uid: str(header) for uid, header in case.headers.items()} == before


def test_an_encoded_result_can_be_read_and_changed_before_it_is_written(tmp_path: Path) -> None:
    case = make_case(tmp_path)
    seg, changed = case.seg(), case.seg()
    assert (
        changed.PerFrameFunctionalGroupsSequence[0].SegmentIdentificationSequence[0].ReferencedSegmentNumber
        == 1
    )
    assert octets(changed) == octets(seg)
    changed.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3"
    assert dcmread(BytesIO(octets(changed))).ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.3"


def test_a_form_fills_in_values_of_every_kind() -> None:
    def item(
        uid: str, size: list[int], words: str, spot: list[float], position: list[float], inner: int
    ) -> Dataset:
        nested, whole = Dataset(), Dataset()
        nested.ReferencedSegmentNumber = inner
        whole.ReferencedSOPInstanceUID, whole.DimensionIndexValues, whole.TextValue = uid, size, words
        whole.GraphicData, whole.ImagePositionPatient = spot, position
        whole.SegmentIdentificationSequence = [nested, Dataset()]
        whole.Modality = "CT"
        return whole

    first = item("1.2", [1, 2], "a", [0.5, 1.5], [1, 2, 3], 1)
    names = (
        "ReferencedSOPInstanceUID",
        "DimensionIndexValues",
        "TextValue",
        "GraphicData",
        "ImagePositionPatient",
    )
    inner = first.SegmentIdentificationSequence[0]["ReferencedSegmentNumber"]
    form = Form(first, [*(first[name] for name in names), inner])
    for values in (
        ("1.2.345", [7], "größer", [1.0] * 6, [0.5, -1.25, 3], 9),
        ("2.25.1", [1, 2, 3], "", [0.1], [1], 2),
    ):
        assert form.fill(*values) == encode(item(*values))  # type: ignore[arg-type]


def test_forms_are_made_once_for_findings_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(tmp_path)
    mask = case.findings[1].finding.mask
    measured = measure_lesion(mask, case.volume)
    alike = [replace(case.findings[1].finding, key=f"n{i}", measurements=measured) for i in range(40)]
    case = replace(case, findings=tuple(identify(f, i) for i, f in enumerate(alike, start=1)))
    assert all(isinstance(f, Finding) for f in alike)
    calls = []
    from store.dicom import group_forms

    made = group_forms.number_item
    monkeypatch.setattr(group_forms, "number_item", lambda *a, **k: calls.append(a) or made(*a, **k))
    case.volumetric(case.seg())
    assert len(calls) == len(measured)
