"""What a search of the node's own studies has to match: keys that are matched, and those that cannot be."""

from __future__ import annotations

from datetime import date

import pytest
from starlette.exceptions import HTTPException

from node.web.study_query import INSTANCE_KEYS, SERIES_KEYS, match_keys, study_query
from store.held import StudyQuery


def test_a_patient_is_named_with_the_issuer_by_keyword_or_tag() -> None:
    wanted = StudyQuery(patient_id="Q", issuer="X")
    for issuer in ("IssuerOfPatientID", "00100021"):
        for patient_id in ("PatientID", "00100020"):
            assert study_query({issuer: "X", patient_id: "Q"}) == wanted


def test_a_tag_may_be_written_in_small_letters() -> None:
    assert study_query({"0020000d": "1.2"}) == StudyQuery(study_instance_uids=("1.2",))
    assert match_keys({"0020000e": "1.2"}, SERIES_KEYS, of="series") == {"SeriesInstanceUID": "1.2"}


def test_what_the_study_list_of_ohif_sends_is_matched() -> None:
    sent = {
        "PatientName": "*Doe*",
        "00100020": "*17*",
        "AccessionNumber": "*A1*",
        "StudyDescription": "*thorax*",
        "ModalitiesInStudy": "CT\\PT",
        "limit": "101",
        "offset": "0",
        "fuzzymatching": "false",
        "includefield": "00081030,00080060",
        "StudyDate": "20260101-20260131",
    }
    assert study_query(sent) == StudyQuery(
        patient_name="*Doe*",
        patient_id="*17*",
        accession_number="*A1*",
        study_description="*thorax*",
        modalities=("CT", "PT"),
        since=date(2026, 1, 1),
        until=date(2026, 1, 31),
    )
    assert match_keys({"includefield": "0008103E,00080021"}, SERIES_KEYS, of="series") == {}


@pytest.mark.parametrize("between", [",", "\\"])
def test_several_studies_may_be_named_at_once(between: str) -> None:
    assert study_query({"StudyInstanceUID": f"1.2{between}1.3"}).study_instance_uids == ("1.2", "1.3")


@pytest.mark.parametrize("value", ["", "*"])
def test_a_key_without_a_value_matches_everything_whatever_it_is(value: str) -> None:
    keys = ("StudyID", "ReferringPhysicianName", "00080030", "StudyDate", "StudyInstanceUID")
    assert study_query(dict.fromkeys(keys, value)) == StudyQuery()


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("StudyID", "StudyID"),
        ("ReferringPhysicianName", "ReferringPhysicianName"),
        ("00080030", "StudyTime"),
        ("PatientId", "PatientId"),
        ("00091001", "00091001"),
        ("SeriesInstanceUID", "SeriesInstanceUID"),
        ("RequestAttributesSequence.ScheduledProcedureStepID", "RequestAttributesSequence.Sched"),
    ],
)
def test_a_key_that_is_not_matched_is_refused_with_those_that_are(key: str, named: str) -> None:
    with pytest.raises(HTTPException) as caught:
        study_query({key: "17", "PatientID": "Q"})
    assert caught.value.status_code == 400
    assert f"studies cannot be searched by {named}" in caught.value.detail
    assert "IssuerOfPatientID, PatientName" in caught.value.detail


def test_series_are_not_searched_by_what_only_instances_have() -> None:
    assert match_keys({"SOPInstanceUID": "1.2"}, INSTANCE_KEYS, of="instances") == {"SOPInstanceUID": "1.2"}
    with pytest.raises(HTTPException, match="series cannot be searched by SOPInstanceUID"):
        match_keys({"SOPInstanceUID": "1.2"}, SERIES_KEYS, of="series")
