"""What a workitem says and is told: read without trust, written by the table of PS3.4, asked for where it should be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from worklist_manager import dataset, lacking, values

from node import ups
from node.settings import Settings
from node.ups_rs import Worklist
from plugins.errors import Refused
from store.asked import Output

NOON = datetime(2026, 3, 1, 12, 30, 5, 250000, tzinfo=timezone(timedelta(hours=1)))
TAGS = [
    f"{tag_for_keyword(k):08X}"
    for k in ("SOPInstanceUID", "InputInformationSequence", "ScheduledWorkitemCodeSequence")
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*TAGS, "Value", "vr"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(TAGS), json_values, max_size=3))
def test_whatever_a_worklist_says_is_read_or_refused(row: dict[str, Any]) -> None:
    try:
        step = ups.read(row)
    except Refused as refused:
        assert refused.code == "bad-workitem"
    else:
        assert ups.UID.fullmatch(step.uid)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("20260301", datetime(2026, 3, 1, tzinfo=UTC)),
        ("202603011230", datetime(2026, 3, 1, 12, 30, tzinfo=UTC)),
        ("20260301123005.25-0330", datetime(2026, 3, 1, 16, 0, 5, 250000, tzinfo=UTC)),
        ("20260301123005+0100", datetime(2026, 3, 1, 11, 30, 5, tzinfo=UTC)),
        ("20261301", None),
        ("20200101080000+9999", None),
        ("20200101080000-2400", None),
        ("20200101080000+2359", datetime(2019, 12, 31, 8, 1, tzinfo=UTC)),
        ("tomorrow", None),
    ],
)
def test_a_time_is_read_with_its_offset_or_in_the_zone_of_the_site(
    text: str, instant: datetime | None
) -> None:
    row = dataset(SOPInstanceUID="1.2", ScheduledProcedureStepStartDateTime=text)
    assert ups.read(row).start == instant


def test_the_study_is_that_of_the_workitem_then_of_its_request_then_of_its_input() -> None:
    given_study = {"SOPInstanceUID": "1.2", "ReferencedRequestSequence": dataset(StudyInstanceUID="1.8")}
    by_input = dataset(StudyInstanceUID="1.9", SeriesInstanceUID="1.9.1", TypeOfInstances="DICOM")
    assert ups.read(dataset(StudyInstanceUID="1.7", **given_study)).study == "1.7"
    assert ups.read(dataset(**given_study)).study == "1.8"
    assert ups.read(dataset(SOPInstanceUID="1.2", InputInformationSequence=by_input)).study == "1.9"
    assert ups.read(dataset(SOPInstanceUID="1.2", StudyInstanceUID="../etc")).study == ""


def test_the_study_is_one_of_the_input_that_the_workitem_or_its_request_names_or_the_only_one() -> None:
    first, second = (dataset(StudyInstanceUID=uid, SeriesInstanceUID=f"{uid}.1") for uid in ("1.8", "1.9"))
    request = {"ReferencedRequestSequence": dataset(StudyInstanceUID="1.8")}

    def study(*inputs: dict[str, Any], **more: Any) -> str:
        return ups.read(dataset(SOPInstanceUID="1.2", InputInformationSequence=list(inputs), **more)).study

    assert study(second, **request) == "1.9"
    assert study(second, StudyInstanceUID="1.7") == "1.9"
    assert study(second, first, **request) == "1.8"
    assert study(first, second, StudyInstanceUID="1.9", **request) == "1.9"
    assert study(first, second) == ""
    assert study(first, second, StudyInstanceUID="1.7") == ""
    assert study(first, first) == "1.8"


def output(number: int, series: str, *places: str) -> Output:
    return Output(
        kind="seg",
        sop_class_uid="1.2.3",
        sop_instance_uid=f"1.5.{number}",
        series_instance_uid=series,
        places=places,
    )


def test_every_object_stands_in_one_item_with_the_places_where_it_lies() -> None:
    what = ups.Performed(
        station="NADIR", codes=(ups.Code(value="c", scheme="99X"),), study="1.7", began=NOON, ended=NOON,
        description="x" * 80, comments="y" * 2000,
        outputs=[output(1, "1.6", "http://pacs/rs"), output(2, "1.6", "http://pacs/rs"), output(3, "1.7", "PACS@h:1", "http://pacs/rs")],
    )  # fmt: skip
    plain = ups.performed(what, ups.progress(100, "done")).to_json_dict()
    (item,) = values(plain, "UnifiedProcedureStepPerformedProcedureSequence")
    told = [
        (
            [
                values(one, "ReferencedSOPInstanceUID")[0]
                for one in values(reference, "ReferencedSOPSequence")
            ],
            [values(one, "RetrieveURL")[0] for one in values(reference, "WADORSRetrievalSequence")],
            [values(one, "RetrieveAETitle")[0] for one in values(reference, "DICOMRetrievalSequence")],
        )
        for reference in values(item, "OutputInformationSequence")
    ]
    assert told == [
        (["1.5.1", "1.5.2"], ["http://pacs/rs/studies/1.7/series/1.6"], []),
        (["1.5.3"], ["http://pacs/rs/studies/1.7/series/1.7"], ["PACS"]),
    ]
    assert values(item, "PerformedProcedureStepStartDateTime") == ["20260301113005.250000+0000"]
    assert len(values(item, "PerformedProcedureStepDescription")[0]) == 64


def test_the_checker_and_a_second_reading_of_the_table_agree_on_what_is_missing() -> None:
    whole = dataset(
        SOPClassUID="1.2", SOPInstanceUID="1.2", ScheduledProcedureStepPriority="LOW", InputReadinessState="READY",
        ScheduledProcedureStepModificationDateTime="20260301", ScheduledProcedureStepStartDateTime="20260301",
        ProcedureStepState="IN PROGRESS",
    )  # fmt: skip
    codes = (ups.Code(value="c", scheme="99X"),)
    begun = ups.Performed(station="N", codes=codes, study="1.7", began=NOON, description="d")
    for state, update in (
        ("COMPLETED", ups.performed(begun)),
        ("COMPLETED", ups.performed(ups.Performed(**{**vars(begun), "ended": NOON}))),
        ("CANCELED", ups.progress(10, "x")),
        ("CANCELED", ups.cancelled("failed", "why", NOON, 10)),
    ):
        both = {**whole, **update.to_json_dict()}
        mine = ups.lacking(Dataset.from_json(both), state)
        assert {path.rpartition(".")[2] for path in mine} == set(lacking(both, state))


def test_a_worklist_needs_a_destination_and_its_password_stands_in_a_file() -> None:
    with pytest.raises(Refused, match="need a destination"):
        Settings.load(worklist={"url": "http://pacs/rs"})
    with pytest.raises(Refused, match="credentials_file") as caught:
        Settings.load(destinations=("A@h:1",), worklist={"url": "http://me:secret@pacs/rs"})
    assert "secret" not in str(caught.value)
    with pytest.raises(Refused, match="SCHEME:VALUE"):
        Settings.load(
            destinations=("A@h:1",), worklist={"url": "http://pacs/rs", "codes": {"CAD": "lung_nodule"}}
        )


@pytest.mark.parametrize(
    ("root", "told", "address"),
    [
        ("http://pacs:8080/rs", "ws://pacs:8080/ws/x", "ws://pacs:8080/ws/x"),
        ("http://pacs/rs", "ws://pacs:80/x", "ws://pacs/x"),
        ("http://pacs/rs", "/rs/subscribers/NADIR", "ws://pacs/rs/subscribers/NADIR"),
        ("https://pacs/rs", "https://pacs:443/x", "wss://pacs/x"),
        ("http://pacs/rs", "ws://pacs:8080/x", None),
        ("https://pacs/rs", "ws://pacs/x", None),
        ("http://pacs/rs", "wss://pacs/x", None),
        ("http://pacs/rs", "ws://169.254.169.254/x", None),
        ("http://pacs/rs", "file:///etc/passwd", None),
        ("http://pacs/rs", "", None),
    ],
)
def test_events_are_listened_to_at_the_origin_of_the_worklist_only(
    root: str, told: str, address: str | None
) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(201, headers={"Content-Location": told}))
    worklist = Worklist(root, "NADIR", client=httpx.Client(transport=transport))
    assert worklist.subscribe("1.2.3") == address
    worklist.close()


def test_another_server_tells_events_when_the_settings_name_it() -> None:
    headers = {"Content-Location": "ws://pacs:8081/x"}
    client = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(201, headers=headers)))
    named = Worklist("http://pacs:8080/rs", "NADIR", events_url="ws://pacs:8081", client=client)
    assert named.subscribe("1.2.3") == "ws://pacs:8081/x"
    other = Worklist("http://pacs:8080/rs", "NADIR", events_url="ws://pacs:8082", client=client)
    assert other.subscribe("1.2.3") is None
    with pytest.raises(Refused, match="ws://HOST:PORT"):
        Settings.load(destinations=("A@h:1",), worklist={"url": "http://pacs/rs", "events_url": "pacs:8081"})
    named.close()
