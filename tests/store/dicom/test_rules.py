from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from small_results import Case, make_case, saved, with_finding

from plugins.errors import Refused
from store.dicom.rules import Violation, check, check_files

Change = Callable[[Dataset], None]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("ct"), shape=(12, 37, 41))


@pytest.fixture(scope="module")
def written(case: Case, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    folder = tmp_path_factory.mktemp("results")
    seg = case.seg()
    made = {
        "seg": seg,
        "volumetric": case.volumetric(seg),
        "planar": case.planar(seg),
        "nothing": case.nothing(),
    }
    return {name: saved(dataset, folder / f"{name}.dcm") for name, dataset in made.items()}


def _judge(
    written: dict[str, Dataset], case: Case, name: str, change: Change | None = None
) -> tuple[Violation, ...]:
    dataset = copy.deepcopy(written[name])
    if change is not None:
        change(dataset)
    companions = list(case.headers.values()) if name == "seg" else [written["seg"], *case.headers.values()]
    return check(dataset, companions)


@pytest.mark.parametrize("name", ["seg", "volumetric", "planar", "nothing"])
def test_what_we_write_breaks_no_rule(written: dict[str, Dataset], case: Case, name: str) -> None:
    assert _judge(written, case, name) == ()


def _named(item: Dataset, value: str) -> list[Dataset]:
    return [i for i in item.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == value]


def _group(sr: Dataset, number: int = 0) -> Dataset:
    return _named(_named(sr, "126010")[0], "125007")[number]


def _number(sr: Dataset, value: str) -> Dataset:
    return _named(_group(sr), value)[0]


def _without(value: str, where: Callable[[Dataset], Dataset] = lambda sr: sr) -> Change:
    def change(sr: Dataset) -> None:
        parent = where(sr)
        kept = [i for i in parent.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue != value]
        parent.ContentSequence = Sequence(kept)

    return change


def _set_value(value: str, factor: float) -> Change:
    def change(sr: Dataset) -> None:
        measured = _number(sr, value).MeasuredValueSequence[0]
        measured.NumericValue = float(measured.NumericValue) * factor
        if "FloatingPointValue" in measured:
            del measured.FloatingPointValue

    return change


def _relation(value: str, relation: str) -> Change:
    def change(sr: Dataset) -> None:
        _named(_group(sr), value)[0].RelationshipType = relation

    return change


def _unit(value: str, unit: str, scheme: str = "UCUM") -> Change:
    def change(sr: Dataset) -> None:
        code = _number(sr, value).MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0]
        code.CodeValue, code.CodingSchemeDesignator = unit, scheme

    return change


def _scheme(sr: Dataset) -> None:
    _number(sr, "118565006").ConceptNameCodeSequence[0].CodingSchemeDesignator = "MY-VERY-LONG-CODING-SCHEME"


def _meaning(sr: Dataset) -> None:
    _named(_group(sr), "121071")[0].ConceptCodeSequence[0].CodeMeaning = "m" * 65


def _long_unit(sr: Dataset) -> None:
    unit = _number(sr, "118565006").MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0]
    unit.CodeMeaning = "m" * 65


def _long_type(segment: Dataset) -> None:
    segment.SegmentedPropertyTypeCodeSequence[0].CodeValue = "1" * 17


def _same_tracking(sr: Dataset) -> None:
    _named(_group(sr, 1), "112040")[0].UID = _named(_group(sr, 0), "112040")[0].UID


def _illegal_tracking(sr: Dataset) -> None:
    with disable_value_validation():
        _named(_group(sr), "112040")[0].UID = "not a uid!"


def _illegal_segment(segment: Dataset) -> None:
    with disable_value_validation():
        segment.TrackingUID = "1.2.03"


def _foreign_uid_first(sr: Dataset) -> None:
    group = _group(sr)
    items = list(group.ContentSequence)
    series = next(i for i in items if i.ConceptNameCodeSequence[0].CodeValue == "121232")
    group.ContentSequence = Sequence([series, *(i for i in items if i is not series)])


def _second_region(sr: Dataset) -> None:
    group = _group(sr)
    group.ContentSequence.append(copy.deepcopy(_named(group, "111030")[0]))


def _mixed(sr: Dataset) -> None:
    group = _group(sr, 1)
    group.ContentSequence = Sequence([i for i in group.ContentSequence if i.ValueType != "SCOORD"])
    segment, image = Dataset(), Dataset()
    segment.ValueType, segment.RelationshipType = "IMAGE", "CONTAINS"
    name = Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = "121191", "DCM", "Referenced Segment"
    segment.ConceptNameCodeSequence = [name]
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.3"
    image.ReferencedSegmentNumber = 1
    segment.ReferencedSOPSequence = [image]
    group.ContentSequence.append(segment)


def _other_segment(number: int) -> Change:
    def change(sr: Dataset) -> None:
        _named(_group(sr), "121191")[0].ReferencedSOPSequence[0].ReferencedSegmentNumber = number

    return change


def _move_line(sr: Dataset) -> None:
    number = _number(sr, "103339001")
    line = next(i for i in number.ContentSequence if i.ValueType == "SCOORD")
    line.GraphicData = [line.GraphicData[0] + 1.0, *line.GraphicData[1:]]


def _evidence_lost(sr: Dataset) -> None:
    series = sr.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    del series[1 if len(series) > 1 else 0]


def _attribute(keyword: str, value: object = None) -> Change:
    def change(dataset: Dataset) -> None:
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)

    return change


REPORT_FAULTS: dict[str, tuple[str, Change, str]] = {
    "measurements removed": ("planar", _without("126010", lambda sr: sr), "sr-measurements"),
    "language removed": ("planar", _without("121049"), "sr-language"),
    "procedure removed": ("planar", _without("121058"), "sr-procedure"),
    "observer removed": ("planar", _without("121012"), "sr-observer"),
    "tracking uid removed": ("planar", _without("112040", _group), "sr-tracking"),
    "tracking identifier removed": ("volumetric", _without("112039", _group), "sr-tracking"),
    "tracking uid shared": ("planar", _same_tracking, "sr-tracking"),
    "tracking uid illegal": ("planar", _illegal_tracking, "sr-tracking"),
    "another uid first": ("volumetric", _foreign_uid_first, "sr-tracking"),
    "image region removed": ("planar", _without("111030", _group), "sr-region"),
    "segment removed": ("volumetric", _without("121191", _group), "sr-region"),
    "source series removed": ("volumetric", _without("121232", _group), "sr-region"),
    "two regions": ("planar", _second_region, "sr-region"),
    "templates mixed": ("planar", _mixed, "sr-mixed"),
    "scheme too long": ("planar", _scheme, "code-length"),
    "meaning too long": ("volumetric", _meaning, "code-length"),
    "meaning of a unit too long": ("planar", _long_unit, "code-length"),
    "seconds for millimetres": ("planar", _unit("103339001", "s"), "sr-unit"),
    "no unit for a length": ("volumetric", _unit("103340004", "1"), "sr-unit"),
    "a unit that is not ucum": ("volumetric", _unit("118565006", "ml", "99X"), "sr-unit"),
    "number contained by nothing": ("planar", _relation("118565006", "HAS PROPERTIES"), "sr-relationship"),
    "site contained": ("planar", _relation("363698007", "CONTAINS"), "sr-relationship"),
    "region inferred": ("planar", _relation("111030", "INFERRED FROM"), "sr-relationship"),
    "volume changed": ("volumetric", _set_value("118565006", 1.01), "sr-value"),
    "planar volume changed": ("planar", _set_value("118565006", 0.99), "sr-value"),
    "long axis changed": ("volumetric", _set_value("103339001", 1.01), "sr-value"),
    "short axis changed": ("planar", _set_value("103340004", 1.02), "sr-value"),
    "line moved": ("planar", _move_line, "sr-value"),
    "segment that is not there": ("volumetric", _other_segment(9), "sr-segment"),
    "segment of another lesion": ("volumetric", _other_segment(2), "sr-segment"),
    "evidence incomplete": ("planar", _evidence_lost, "sr-evidence"),
    "verified": ("planar", _attribute("VerificationFlag", "VERIFIED"), "sr-verified"),
    "template forgotten": ("planar", _attribute("ContentTemplateSequence"), "sr-template"),
    "algorithm removed": ("volumetric", _without("111001", _group), "sr-finding"),
    "finding removed": ("volumetric", _without("121071", _group), "sr-finding"),
    "equipment removed": ("volumetric", _attribute("ContributingEquipmentSequence"), "equipment"),
    "another patient": ("volumetric", _attribute("PatientID", "someone else"), "sr-patient"),
    "words removed": ("nothing", _without("C0034375"), "sr-measurements"),
    "seg not listed": ("volumetric", _evidence_lost, "sr-evidence"),
}


@pytest.mark.filterwarnings("ignore:The value length")
@pytest.mark.parametrize("fault", REPORT_FAULTS)
def test_every_fault_of_a_report_is_caught(written: dict[str, Dataset], case: Case, fault: str) -> None:
    name, change, rule = REPORT_FAULTS[fault]
    assert rule in {violation.rule for violation in _judge(written, case, name, change)}


def test_another_title_is_caught(written: dict[str, Dataset], case: Case) -> None:
    def change(sr: Dataset) -> None:
        sr.ConceptNameCodeSequence[0].CodeValue = "126001"

    assert "sr-root" in {v.rule for v in _judge(written, case, "planar", change)}
    assert "sr-root" not in {v.rule for v in _judge(written, case, "nothing", change)}


def test_a_title_that_is_no_measurement_report_is_caught(written: dict[str, Dataset], case: Case) -> None:
    def change(sr: Dataset) -> None:
        sr.ConceptNameCodeSequence[0].CodeValue = "121144"

    assert "sr-root" in {v.rule for v in _judge(written, case, "nothing", change)}


def test_research_use_must_be_said(written: dict[str, Dataset], case: Case) -> None:
    def change(sr: Dataset) -> None:
        for item in _named(sr, "C0034375")[0].ContentSequence:
            if "TextValue" in item:
                item.TextValue = "approved"

    assert "research-use" in {v.rule for v in _judge(written, case, "nothing", change)}


def _first_frame(change: Change) -> Change:
    return lambda seg: change(seg.PerFrameFunctionalGroupsSequence[0])


def _first_segment(change: Change) -> Change:
    return lambda seg: change(seg.SegmentSequence[0])


def _shift(frame: Dataset) -> None:
    x, y, z = frame.PlanePositionSequence[0].ImagePositionPatient
    frame.PlanePositionSequence[0].ImagePositionPatient = [x, y, float(z) + 1.0]


def _twice(seg: Dataset) -> None:
    first, second = seg.PerFrameFunctionalGroupsSequence[:2]
    second.PlanePositionSequence = copy.deepcopy(first.PlanePositionSequence)


def _unlisted(seg: Dataset) -> None:
    del seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]


def _segment_number(frame: Dataset) -> None:
    frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 9


def _turned(seg: Dataset) -> None:
    plane = seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    plane.ImageOrientationPatient = [1, 0, 0, 0, -1, 0]


def _one_byte_a_pixel(seg: Dataset) -> None:
    seg.PixelData = b"\0" * (seg.NumberOfFrames * seg.Rows * seg.Columns)


def _shared_too(seg: Dataset) -> None:
    first = seg.PerFrameFunctionalGroupsSequence[0]
    shared = seg.SharedFunctionalGroupsSequence[0]
    shared.SegmentIdentificationSequence = copy.deepcopy(first.SegmentIdentificationSequence)


SEG_FAULTS: dict[str, tuple[Change, str]] = {
    "content label removed": (_attribute("ContentLabel"), "seg-header"),
    "research use removed": (_attribute("ContentDescription"), "research-use"),
    "type removed": (_attribute("SegmentationType"), "seg-type"),
    "referenced series removed": (_attribute("ReferencedSeriesSequence"), "seg-references"),
    "source not listed": (_unlisted, "seg-references"),
    "equipment removed": (_attribute("ContributingEquipmentSequence"), "equipment"),
    "algorithm type removed": (_first_segment(_attribute("SegmentAlgorithmType")), "seg-algorithm"),
    "algorithm name removed": (_first_segment(_attribute("SegmentAlgorithmName")), "seg-algorithm"),
    "label removed": (_first_segment(_attribute("SegmentLabel")), "seg-segments"),
    "colour removed": (_first_segment(_attribute("RecommendedDisplayCIELabValue")), "seg-colour"),
    "category removed": (_first_segment(_attribute("SegmentedPropertyCategoryCodeSequence")), "seg-codes"),
    "type code removed": (_first_segment(_attribute("SegmentedPropertyTypeCodeSequence")), "seg-codes"),
    "type code too long": (_first_segment(_long_type), "code-length"),
    "tracking uid removed": (_first_segment(_attribute("TrackingUID")), "seg-tracking"),
    "tracking id removed": (_first_segment(_attribute("TrackingID")), "seg-tracking"),
    "tracking uid illegal": (_first_segment(_illegal_segment), "seg-tracking"),
    "segments misnumbered": (_first_segment(_attribute("SegmentNumber", 7)), "seg-segments"),
    "frame of no segment": (_first_frame(_segment_number), "seg-frames"),
    "frame without source": (_first_frame(_attribute("DerivationImageSequence")), "seg-derivation"),
    "frame without place": (_first_frame(_attribute("PlanePositionSequence")), "seg-geometry"),
    "frame beside its source": (_first_frame(_shift), "seg-geometry"),
    "two frames at one place": (_twice, "seg-frames"),
    "turned over": (_turned, "seg-geometry"),
    "a group shared and not shared": (_shared_too, "seg-frames"),
    "frames miscounted": (_attribute("NumberOfFrames", 4), "seg-frames"),
    "unpacked": (_one_byte_a_pixel, "seg-pixels"),
    "another frame of reference": (_attribute("FrameOfReferenceUID", "1.2.3"), "seg-geometry"),
    "another patient": (_attribute("PatientID", "someone else"), "seg-geometry"),
}


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI", "ignore:The value length")
@pytest.mark.parametrize("fault", SEG_FAULTS)
def test_every_fault_of_a_seg_is_caught(written: dict[str, Dataset], case: Case, fault: str) -> None:
    change, rule = SEG_FAULTS[fault]
    assert rule in {violation.rule for violation in _judge(written, case, "seg", change)}


@pytest.mark.filterwarnings("ignore:.*ISO.IR")
@pytest.mark.parametrize("name", ["seg", "volumetric"])
def test_an_undefined_or_missing_character_set_is_named(
    written: dict[str, Dataset], case: Case, name: str
) -> None:
    def state(term: str | list[str] | None) -> Change:
        def change(dataset: Dataset) -> None:
            dataset.SpecificCharacterSet, dataset.PatientName = term, "Müller"

        return change

    for term, where in (
        ("ISO-IR 100", "SpecificCharacterSet"),
        (["ISO_IR 192", "ISO_IR 100"], "SpecificCharacterSet"),
        (None, "PatientName"),
    ):
        (found,) = _judge(written, case, name, state(term))
        assert (found.rule, found.where) == ("character-set", where)
    for term in ("ISO_IR 100", "GB18030", ["", "ISO 2022 IR 87"]):
        assert _judge(written, case, name, state(term)) == ()


def test_a_changed_voxel_is_caught_by_the_volume_of_the_report(written: dict[str, Dataset]) -> None:
    seg = copy.deepcopy(written["seg"])
    seg.PixelData = bytes([seg.PixelData[0], *seg.PixelData[1:]][: len(seg.PixelData)])
    assert check(written["volumetric"], [seg]) == ()
    first = next(i for i, byte in enumerate(seg.PixelData) if byte)
    seg.PixelData = seg.PixelData[:first] + b"\0" + seg.PixelData[first + 1 :]
    assert "sr-value" in {v.rule for v in check(written["volumetric"], [seg])}


def test_rules_for_our_own_are_left_out_for_others(written: dict[str, Dataset]) -> None:
    seg = copy.deepcopy(written["seg"])
    seg.Manufacturer = "Somebody"
    del seg.ContentDescription
    del seg.ContributingEquipmentSequence
    for segment in seg.SegmentSequence:
        del segment.TrackingID, segment.TrackingUID, segment.RecommendedDisplayCIELabValue
    assert check(seg) == ()


def test_without_companions_only_the_object_itself_is_judged(written: dict[str, Dataset]) -> None:
    for dataset in written.values():
        assert check(dataset) == ()


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, -1, 0), (0.8, 0.6, 0, -0.48, 0.64, 0.6)])
def test_values_are_found_again_in_every_orientation(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    case = make_case(tmp_path, orientation=orientation, spacing_mm=(2.5, 0.6, 0.9), shape=(9, 31, 37))
    seg = case.seg()
    companions = [seg, *case.headers.values()]
    assert check(seg, companions[1:]) == ()
    assert check(case.volumetric(seg), companions) == ()
    assert check(case.planar(seg), companions) == ()


def test_a_node_is_measured_again_by_its_own_rule(case: Case) -> None:
    from plugins.measure.lesion import measure_lesion

    mask = case.findings[0].finding.mask
    node = with_finding(case, 1, measurements=measure_lesion(mask, case.volume, node=True))
    assert check(node.volumetric(node.seg()), [node.seg()]) == ()


def _foreign(data: Path) -> list[Path]:
    return [p for p in sorted((data / "foreign").rglob("*.dcm")) if _modality(p) in ("SEG", "SR")]


def _modality(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).Modality)


def test_objects_of_other_makers_are_judged_without_stumbling(data: Path) -> None:
    judged = {path.name: check(pydicom.dcmread(path)) for path in _foreign(data)}
    assert len(judged) >= 20
    told = {name: {v.rule for v in violations} for name, violations in judged.items() if violations}
    assert told == {
        "sample-sr.dcm": {"sr-unit"},
        "sr_document_with_multiple_groups.dcm": {"sr-mixed"},
    }
    assert not [v for violations in judged.values() for v in violations if "cannot be judged" in v.sentence]


def test_something_else_is_said_to_be_something_else(case: Case) -> None:
    (violation,) = check(next(iter(case.headers.values())))
    assert violation.rule == "class"
    assert check(Dataset())[0].rule == "class"


def test_files_are_judged_with_one_another_as_companions(
    written: dict[str, Dataset], case: Case, tmp_path: Path
) -> None:
    wrong = copy.deepcopy(written["volumetric"])
    _set_value("118565006", 2.0)(wrong)
    saved(wrong, tmp_path / "sr.dcm")
    saved(written["seg"], tmp_path / "seg.dcm")
    result = check_files([tmp_path / "sr.dcm", tmp_path / "seg.dcm"])
    assert [path.name for path, _ in result] == ["sr.dcm", "seg.dcm"]
    assert [v.rule for v in result[0][1]] == ["sr-value"]
    assert result[1][1] == ()
    assert check_files([tmp_path / "sr.dcm"])[0][1] == ()


def test_a_seg_of_another_job_is_no_companion(
    written: dict[str, Dataset], case: Case, tmp_path: Path
) -> None:
    other = replace(case, provenance=replace(case.provenance, job_key="f" * 64), findings=case.findings[:1])
    saved(other.seg(), tmp_path / "other.dcm")
    for name in ("seg", "volumetric", "planar"):
        saved(written[name], tmp_path / f"{name}.dcm")
    assert {violations for _, violations in check_files(sorted(tmp_path.glob("*.dcm")))} == {()}


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"this is no DICOM file" * 20)
    with pytest.raises(Refused) as refused:
        check_files([tmp_path / "a.dcm"])
    assert refused.value.code == "unreadable-file"
    with pytest.raises(Refused, match="unreadable-file"):
        check_files([tmp_path / "missing.dcm"])


def test_images_alone_are_nothing_to_check(case: Case, tmp_path: Path) -> None:
    make_case(tmp_path / "ct")
    with pytest.raises(Refused, match="nothing-to-check"):
        check_files(sorted((tmp_path / "ct").glob("*.dcm")))


def _places(dataset: Dataset) -> list[tuple[Dataset, int]]:
    """Every element of a data set, at every depth, but the class by which it is known."""
    found = []
    for element in dataset:
        if element.keyword != "SOPClassUID":
            found.append((dataset, int(element.tag)))
        if element.VR == "SQ":
            for item in element.value:
                found += _places(item)
    return found


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_data_set_with_holes_never_makes_the_check_stumble(
    written: dict[str, Dataset], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(["seg", "volumetric", "planar", "nothing"]))
    broken = copy.deepcopy(written[name])
    places = _places(broken)
    for at in data.draw(st.lists(st.integers(0, len(places) - 1), min_size=1, max_size=8)):
        parent, tag = places[at]
        if tag in parent:
            if data.draw(st.booleans()):
                del parent[tag]
            else:
                parent[tag].clear()
    check(broken, [written["seg"]])
    check(written["volumetric"], [broken])


def test_a_violation_reads_as_one_line() -> None:
    assert str(Violation(rule="sr-unit", where="1.2", sentence="is wrong")) == "sr-unit at 1.2: is wrong"
    assert str(Violation(rule="sr-unit", where="", sentence="is wrong")) == "sr-unit: is wrong"


def test_predecessors_and_flags_break_no_rule(case: Case) -> None:
    seg = case.seg()
    old = case.planar(seg)
    newer = replace(case, provenance=replace(case.provenance, job_key="f" * 64))
    assert check(newer.planar(newer.seg(), predecessors=[old]), [newer.seg()]) == ()
