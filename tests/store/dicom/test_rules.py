from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from broken_results import REPORT_FAULTS, SEG_FAULTS, Change, named, set_value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from small_results import Case, make_case, saved, with_finding

from plugins.errors import Refused
from store.dicom.rules import Violation, check, check_files


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
        for item in named(sr, "C0034375")[0].ContentSequence:
            if "TextValue" in item:
                item.TextValue = "approved"

    assert "research-use" in {v.rule for v in _judge(written, case, "nothing", change)}


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
    set_value("118565006", 2.0)(wrong)
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
