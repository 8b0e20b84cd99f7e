"""What a DICOMweb server answers to instances that are stored, read for each of them."""

from __future__ import annotations

import json

import httpx
import pytest
from scripted_pacs import scripted

from node.pacs import StowAnswer
from plugins.errors import NadirError, Refused, Unavailable

JSON = {"Content-Type": "application/dicom+json"}


def sequence(**reasons: int | None) -> list[dict[str, object]]:
    return [
        {
            "00081155": {"Value": [uid.replace("_", ".")[1:]]},
            **({} if why is None else {"00081197": {"Value": [why]}}),
        }
        for uid, why in reasons.items()
    ]


@pytest.mark.parametrize("status", [202, 409])
def test_stow_answers_are_read_for_each_instance(status: int) -> None:
    answer = {
        "00081199": {
            "Value": [
                {"00081155": {"Value": ["1.1"]}},
                {"00081155": {"Value": ["1.2"]}, "00081196": {"Value": [0xB000]}},
            ]
        },
        "00081198": {"Value": sequence(u1_3=0xA700, u1_4=0xC000, u1_5=None)},
    }
    pacs = scripted(lambda _: httpx.Response(status, content=json.dumps(answer), headers=JSON))
    assert {(a.sop_instance_uid, a.status) for a in pacs.store([])} == {
        ("1.1", 0), ("1.2", 0xB000), ("1.3", 0xA700), ("1.4", 0xC000), ("1.5", None),
    }  # fmt: skip


def test_a_bare_200_speaks_for_all_and_a_bare_202_for_none() -> None:
    assert scripted(lambda _: httpx.Response(200)).store([]) == ()
    with pytest.raises(Unavailable):
        scripted(lambda _: httpx.Response(202)).store([])
    assert StowAnswer(sop_instance_uid="1", status=0).status == 0


XML = '<NativeDicomModel><DicomAttribute tag="{}" vr="SQ"/></NativeDicomModel>'


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, "", ()),
        (204, "", ()),
        (200, "{}", ()),
        (200, "[]", ()),
        (200, " [{}] ", ()),
        (200, '{"00081190": {"vr": "UR", "Value": ["http://x/"]}}', ()),
        (200, '{"00081198": {"vr": "SQ"}, "0008119a": {"vr": "SQ", "Value": []}}', ()),
        (200, XML.format("00081199"), ()),
        (200, "\ufeff" + XML.format("00081199"), ()),
        (200, XML.format("00081198"), Unavailable),
        (200, XML.format("0008119A"), Unavailable),
        (200, "<html>log in</html>", Unavailable),
        (200, "{", Unavailable),
        pytest.param(200, "[" * 100_000, Unavailable, id="deep"),
        (200, '"stored"', Unavailable),
        (200, "[{}, {}]", Unavailable),
        (200, '{"error": "quota exceeded"}', Unavailable),
        (200, '{"00081198": "none"}', Unavailable),
        (200, '{"00081198": {"Value": "none"}}', Unavailable),
        (200, '{"00081198": {"Value": ["none"]}}', Unavailable),
        (200, '{"00081198": {"Value": [{"00081197": {"Value": [0]}}]}}', Unavailable),
        (202, "{}", Unavailable),
        (202, XML.format("00081199"), Unavailable),
        (409, "", Refused),
        (409, "{}", Refused),
        (409, '{"HttpError": "Conflict", "HttpStatus": 409}', Refused),
        (409, '{"00081198": {"Value": [{}]}}', Refused),
        (409, XML.format("00081198"), Refused),
        (409, "<html>", Refused),
    ],
)
@pytest.mark.parametrize("kind", ["application/dicom+json", "application/json", "text/html"])
def test_a_stow_answer_that_names_no_instance_is_success_only_where_nothing_can_have_failed(
    status: int, body: str, kind: str, expected: tuple[StowAnswer, ...] | type[NadirError]
) -> None:
    pacs = scripted(lambda _: httpx.Response(status, content=body, headers={"Content-Type": kind}))
    if isinstance(expected, tuple):
        assert pacs.store([]) == expected
    else:
        with pytest.raises(expected):
            pacs.store([])


@pytest.mark.parametrize("tag", ["00081198", "0008119A", "0008119a"])
@pytest.mark.parametrize(("reason", "status"), [(0xC000, 0xC000), ("272", 0x0110)])
def test_a_failure_that_names_no_instance_is_told_with_its_reason(
    tag: str, reason: int | str, status: int
) -> None:
    body = {tag: {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [reason]}}]}}
    pacs = scripted(lambda _: httpx.Response(200, content=json.dumps([body]), headers=JSON))
    assert pacs.store([]) == (StowAnswer(sop_instance_uid="", status=status),)


# --- multipart --------------------------------------------------------------------------------------------------
