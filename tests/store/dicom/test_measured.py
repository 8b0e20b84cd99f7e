"""Reports read back: ours give what was measured, others what they say, broken ones nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from small_results import PROVENANCE, Case, make_case, with_finding

from plugins import codes
from store.dicom.measured import read_measured


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    made = make_case(tmp_path_factory.mktemp("measured"))
    axis, *others = made.findings[0].finding.measurements
    return with_finding(made, 1, measurements=(replace(axis, uncertainty=0.25), *others))


@pytest.fixture(scope="module")
def volumetric(case: Case) -> Dataset:
    return case.volumetric(case.seg())


def test_a_report_of_ours_gives_back_what_was_measured(case: Case, volumetric: Dataset) -> None:
    read = read_measured(volumetric)
    assert (read.device, read.version, read.model_sha256) == ("lung_nodule", "1.2", PROVENANCE.model_sha256)
    assert read.made_at is not None and read.made_at.isoformat() == "2025-03-01T10:00:00"
    assert (read.person, read.replaces) == ("", ())
    assert [group.tracking_uid for group in read.groups] == [one.tracking_uid for one in case.findings]
    for number, (group, one) in enumerate(zip(read.groups, case.findings, strict=True), start=1):
        numbers = {n.name: n for n in group.numbers}
        confidence = numbers.pop("confidence", None)
        assert (confidence.value if confidence else None) == (87.5 if number == 1 else None)
        assert list(numbers) == [m.name for m in one.finding.measurements]
        for measurement in one.finding.measurements:
            told = numbers[measurement.name]
            assert told.value == pytest.approx(measurement.value, rel=1e-9)
            assert (told.unit, told.uncertainty) == (measurement.unit.value, measurement.uncertainty)
        assert (group.finding, group.category) == (one.finding.type, one.finding.category)
        assert group.segment == (read_seg_uid(volumetric), number)
        assert group.series_instance_uid == one.finding.series_instance_uid
        assert group.site == one.finding.site


def read_seg_uid(report: Dataset) -> str:
    """Return the SEG that a report refers to."""
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    return str(
        next(
            one.ReferencedSOPInstanceUID
            for series in study.ReferencedSeriesSequence
            for one in series.ReferencedSOPSequence
            if one.ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4"
        )
    )


def test_a_planar_report_says_on_which_image_a_length_was_drawn(case: Case) -> None:
    read = read_measured(case.planar(case.seg()))
    (long_axis,) = [n for n in read.groups[0].numbers if n.name == "long_axis"]
    assert long_axis.sop_instance_uid in case.volume.sop_instance_uids
    assert read.groups[0].segment is None


def test_a_report_that_supersedes_names_its_predecessor(case: Case, volumetric: Dataset) -> None:
    read = read_measured(case.volumetric(case.seg(), predecessors=[volumetric]))
    assert read.replaces == (str(volumetric.SOPInstanceUID),)
    assert read_measured(case.nothing()).groups == ()


def test_a_foreign_report_is_read_with_its_person(data: Path) -> None:
    reports = [dcmread(p) for p in sorted((data / "foreign").rglob("*.dcm"))]
    read = [read_measured(one) for one in reports if one.get("Modality") == "SR"]
    groups = [group for one in read for group in one.groups]
    assert groups and any(n.name in ("long_axis", "volume") for group in groups for n in group.numbers)
    assert any(one.person for one in read)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    gone=st.lists(st.sampled_from(["ConceptNameCodeSequence", "MeasuredValueSequence", "UID", "TextValue"]))
)
def test_what_is_missing_is_empty_and_raises_nothing(volumetric: Dataset, gone: list[str]) -> None:
    broken = Dataset.from_json(volumetric.to_json())
    for number, element in enumerate(list(broken.iterall())):
        if gone and element.keyword == gone[number % len(gone)]:
            element.value = None
    read_measured(broken)
    read_measured(Dataset())


def test_lean_body_mass_and_body_weight_are_told_apart_by_their_unit() -> None:
    report, group = Dataset(), Dataset()
    group.ConceptNameCodeSequence = [coded(codes.MEASUREMENT_GROUP)]
    number, value, peak = Dataset(), Dataset(), Dataset()
    value.NumericValue = "7.5"
    value.MeasurementUnitsCodeSequence = [coded(codes.SUV_BW_UNIT)]
    peak.ConceptNameCodeSequence = [coded(codes.DERIVATION)]
    peak.ConceptCodeSequence = [coded(codes.PEAK)]
    number.ValueType = "NUM"
    number.ConceptNameCodeSequence = [coded(codes.SUV_BW)]
    number.MeasuredValueSequence = [value]
    number.ContentSequence = [peak]
    group.ContentSequence = [number]
    report.ContentSequence = [group]
    (read,) = read_measured(report).groups[0].numbers
    assert (read.name, read.value, read.unit) == ("suv_peak", 7.5, "g/ml{SUVbw}")


def coded(code: codes.Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = (
        code.value,
        code.scheme_designator,
        code.meaning,
    )
    return item
