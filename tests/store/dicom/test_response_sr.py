"""The report on response, as other readers take it and as its numbers are."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import highdicom
import pytest
from dicom_checkers import dcmqi_report, dsrdump, iod_errors
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from small_results import PROVENANCE, Case, make_case, saved

from plugins import codes
from plugins.contract import Measurement
from plugins.errors import Broken
from store.dicom.response_codes import TIME_OFFSET
from store.dicom.response_sr import (
    ReportedLesion,
    ReportedResponse,
    ReportedVisit,
    SegmentOf,
    encode_response,
)
from store.dicom.rules import check
from store.response.history import Role, Status

OTHER_STUDY = SegmentOf(
    study_instance_uid="1.2.3", sop_instance_uid="1.2.3.4.5", seg_series_instance_uid="1.2.3.4",
    number=1, series_instance_uid="1.2.3.9",
)  # fmt: skip
RESPONSE = ReportedResponse(
    criteria="recist1.1", quantity="sum of diameters", unit=codes.MM, overall="PD", target="PD",
    non_target="NON-CR/NON-PD", best="SD", reasons=("60.0 mm is 20 % and 10.0 mm more than the nadir of 50.0 mm.",),
)  # fmt: skip


def _length(value: float) -> Measurement:
    return Measurement(
        name="long_axis", concept=codes.LONG_AXIS, value=value, unit=codes.MM, method="0.5-level contour"
    )


def _lesion(
    number: int, length: float | None, segment: SegmentOf | None = None, **more: object
) -> ReportedLesion:
    values: dict[str, object] = {
        "role": Role.TARGET,
        "status": Status.MEASURED,
        "summed": "long_axis",
        **more,
    }
    return ReportedLesion(
        tracking_uid=f"2.25.{number}",
        tracking_identifier=f"Nodule {number}",
        measurements=() if length is None else (_length(length),),
        segment=segment,
        **values,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("ct"))


@pytest.fixture(scope="module")
def visits(case: Case) -> list[ReportedVisit]:
    seg = case.seg()
    own = SegmentOf(
        study_instance_uid=seg.StudyInstanceUID, sop_instance_uid=seg.SOPInstanceUID,
        seg_series_instance_uid=seg.SeriesInstanceUID, number=1,
        series_instance_uid=case.volume.series_instance_uid,
    )  # fmt: skip
    gone: dict[str, object] = {"role": Role.NON_TARGET, "status": Status.ABSENT, "summed": None}
    return [
        ReportedVisit(date=date(2026, 1, 5), lesions=(_lesion(1, 30.0, OTHER_STUDY), _lesion(2, 20.0)), sum=50.0),
        ReportedVisit(
            date=date(2026, 3, 5),
            lesions=(
                _lesion(1, 40.0, own),
                _lesion(2, 20.0),
                _lesion(3, 0.0, None, **gone),
                _lesion(4, None, summed=None),
            ),
            sum=60.0,
        ),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def written(
    case: Case, visits: list[ReportedVisit], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Dataset, Path]:
    path = tmp_path_factory.mktemp("sr") / "response.dcm"
    return saved(_encode(case, visits), path), path


def _encode(case: Case, visits: list[ReportedVisit], response: ReportedResponse = RESPONSE) -> Dataset:
    header = next(iter(case.headers.values()))
    when = datetime(2026, 3, 6, 12, tzinfo=UTC)
    return encode_response(visits, response, header, PROVENANCE, 5, when)


def _values(sr: Dataset, code: Code) -> list[Dataset]:
    found = []
    for item in sr.get("ContentSequence", ()):
        name = item.get("ConceptNameCodeSequence")
        if name and (name[0].CodeValue, name[0].CodingSchemeDesignator) == (
            code.value,
            code.scheme_designator,
        ):
            found.append(item)
        found += _values(item, code)
    return found


def test_other_readers_take_it_without_an_error(written: tuple[Dataset, Path]) -> None:
    sr, path = written
    assert iod_errors(path) == []
    assert "Time Point Order" in dsrdump(path)
    highdicom.sr.srread(path)
    assert check(sr) == ()


def test_viewers_are_not_led_to_draw_several_time_points_as_one(written: tuple[Dataset, Path]) -> None:
    sr = deepcopy(written[0])
    assert sr.ConceptNameCodeSequence[0].CodeValue == codes.ONCOLOGY_MEASUREMENT_REPORT.value
    sr.ConceptNameCodeSequence[0].CodeValue = codes.IMAGING_MEASUREMENT_REPORT.value
    assert [violation.rule for violation in check(sr)] == ["sr-root"]


def test_a_report_whose_lesions_were_all_seen_at_one_time_point_keeps_the_rules(
    case: Case, visits: list[ReportedVisit]
) -> None:
    nothing = ReportedVisit(date=date(2026, 3, 5), lesions=(_lesion(4, None, summed=None),))
    assert check(_encode(case, [visits[0], nothing])) == ()


def test_another_reader_gets_every_lesion_segment_and_time_point(
    written: tuple[Dataset, Path], tmp_path: Path
) -> None:
    read = json.loads(dcmqi_report(written[1], tmp_path / "read.json"))["Measurements"]
    told = [(g["TrackingUniqueIdentifier"], g["timePoint"], g.get("ReferencedSegment")) for g in read]
    assert told == [
        ("2.25.1", "baseline", 1),
        ("2.25.2", "baseline", None),
        ("2.25.1", "follow-up 1", 1),
        ("2.25.2", "follow-up 1", None),
        ("2.25.3", "follow-up 1", None),
    ]


def test_a_visit_before_the_baseline_is_told_as_that(
    case: Case, visits: list[ReportedVisit], tmp_path: Path
) -> None:
    before = ReportedVisit(date=date(2025, 12, 6), lesions=(_lesion(1, 30.0, OTHER_STUDY),))
    sr = saved(_encode(case, [before, *visits], replace(RESPONSE, before_baseline=1)), tmp_path / "late.dcm")
    assert (iod_errors(tmp_path / "late.dcm"), check(sr)) == ([], ())
    points = [item.TextValue for item in _values(sr, Code("C2348792", "UMLS", "Time Point"))]
    assert list(dict.fromkeys(points)) == ["1 before the baseline", "baseline", "follow-up 1"]
    offsets = [int(n.MeasuredValueSequence[0].NumericValue) for n in _values(sr, TIME_OFFSET)]
    assert list(dict.fromkeys(offsets)) == [-30, 0, 59]


def test_every_lesion_has_one_identity_and_its_own_value_at_each_time_point(
    written: tuple[Dataset, Path],
) -> None:
    sr, _ = written
    groups = _values(sr, codes.MEASUREMENT_GROUP)
    told = [
        (
            _values(g, codes.TRACKING_UNIQUE_IDENTIFIER)[0].UID,
            _values(g, Code("126070", "DCM", ""))[0].TextValue,
            float(_values(g, codes.LONG_AXIS)[0].MeasuredValueSequence[0].NumericValue),
        )
        for g in groups
    ]
    assert told == [
        ("2.25.1", "2026-01-05", 30.0),
        ("2.25.2", "2026-01-05", 20.0),
        ("2.25.1", "2026-03-05", 40.0),
        ("2.25.2", "2026-03-05", 20.0),
        ("2.25.3", "2026-03-05", 0.0),
    ]
    offsets = [float(i.MeasuredValueSequence[0].NumericValue) for i in _values(sr, Code("128740", "DCM", ""))]
    assert set(offsets) == {0.0, 59.0}


def test_a_sum_tells_the_numbers_that_it_adds_up_and_whose_they_are(written: tuple[Dataset, Path]) -> None:
    sr, _ = written
    sums = _values(sr, Code("112051", "DCM", ""))
    told = []
    for number in sums:
        addends = [i for i in number.ContentSequence if i.RelationshipType == "INFERRED FROM"]
        values = [float(i.MeasuredValueSequence[0].NumericValue) for i in addends]
        assert sum(values) == float(number.MeasuredValueSequence[0].NumericValue)
        told.append([_values(i, codes.TRACKING_UNIQUE_IDENTIFIER)[0].UID for i in addends])
    assert [float(s.MeasuredValueSequence[0].NumericValue) for s in sums] == [50.0, 60.0]
    assert told == [["2.25.1", "2.25.2"]] * 2


def test_the_verdict_is_coded_and_its_reason_is_told(written: tuple[Dataset, Path]) -> None:
    sr, _ = written
    said = {c: [i.ConceptCodeSequence[0].CodeValue for i in _values(sr, Code(c, "DCM", ""))] for c in (
        "112021", "112048", "112049", "112020")}  # fmt: skip
    assert said == {
        "112021": ["126081"],
        "112048": ["C35571"],
        "112049": ["C18213"],
        "112020": ["112043", "112046"],
    }
    assert RESPONSE.reasons[0] in [i.TextValue for i in _values(sr, codes.COMMENT)]


def test_the_segments_of_earlier_studies_are_pertinent_other_evidence(written: tuple[Dataset, Path]) -> None:
    sr, _ = written
    (own,), (other,) = sr.CurrentRequestedProcedureEvidenceSequence, sr.PertinentOtherEvidenceSequence
    assert own.StudyInstanceUID == sr.StudyInstanceUID
    assert other.StudyInstanceUID == "1.2.3"
    assert other.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.5"


def test_words_that_no_standard_has_are_private_codes(case: Case, visits: list[ReportedVisit]) -> None:
    sr = _encode(
        case, visits, replace(RESPONSE, criteria="irecist", overall="iUPD", target=None, non_target="NE")
    )
    (overall,) = _values(sr, Code("112048", "DCM", ""))
    code = overall.ConceptCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning) == ("iUPD", "99NADIR", "iUPD")
    assert _values(sr, Code("112020", "DCM", "")) == []


def test_nothing_seen_makes_no_report(case: Case) -> None:
    with pytest.raises(Broken, match="needs a lesion"):
        _encode(case, [ReportedVisit(date=date(2026, 1, 5), lesions=())])
