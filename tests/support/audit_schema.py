"""The schema of audit messages (PS3.15 A.5.1.1) and their events (A.5.3), written as tables, and judges of messages."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import datetime
from xml.etree import ElementTree

CODE = {"csd-code": r"\S+", "codeSystemName": r"\S+", "displayName?": r".+", "originalText": r".+"}
ROLES = "|".join(str(n) for n in range(1, 27))
ATTRIBUTES: Mapping[str, Mapping[str, str]] = {
    "AuditMessage": {},
    "EventIdentification": {
        "EventActionCode?": "[CRUDE]",
        "EventDateTime": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)",
        "EventOutcomeIndicator": "0|4|8|12",
    },
    "EventID": CODE,
    "EventTypeCode": CODE,
    "EventOutcomeDescription": {},
    "ActiveParticipant": {
        "UserID": r"(?s).*",
        "AlternativeUserID?": r"(?s).*",
        "UserName?": r"(?s).*",
        "UserIsRequestor": "true|false",
        "NetworkAccessPointID?": r"\S+",
        "NetworkAccessPointTypeCode?": "[1-5]",
    },
    "RoleIDCode": CODE,
    "MediaIdentifier": {},
    "MediaType": CODE,
    "AuditSourceIdentification": {"AuditEnterpriseSiteID?": r".+", "AuditSourceID": r".+"},
    "AuditSourceTypeCode": {"csd-code": "[1-9]"},
    "ParticipantObjectIdentification": {
        "ParticipantObjectID": r"(?s).*",
        "ParticipantObjectTypeCode?": "[1-4]",
        "ParticipantObjectTypeCodeRole?": ROLES,
        "ParticipantObjectDataLifeCycle?": "1[0-5]|[1-9]",
        "ParticipantObjectSensitivity?": r".+",
    },
    "ParticipantObjectIDTypeCode": CODE,
    "ParticipantObjectName": {},
    "ParticipantObjectQuery": {},
    "ParticipantObjectDetail": {"type": r".+", "value": r"[A-Za-z0-9+/=]*"},
    "ParticipantObjectDescription": {},
    "SOPClass": {"UID?": r"[0-9.]+", "NumberOfInstances": r"\d+"},
}
CHILDREN: Mapping[str, str] = {
    "AuditMessage": r"EventIdentification (ActiveParticipant )+AuditSourceIdentification "
    r"(ParticipantObjectIdentification )*",
    "EventIdentification": r"EventID (EventTypeCode )*(EventOutcomeDescription )?",
    "ActiveParticipant": r"(RoleIDCode )*(MediaIdentifier )?",
    "MediaIdentifier": r"MediaType ",
    "AuditSourceIdentification": r"(AuditSourceTypeCode )*",
    "ParticipantObjectIdentification": r"ParticipantObjectIDTypeCode (ParticipantObjectName |ParticipantObjectQuery )"
    r"(ParticipantObjectDetail )*(ParticipantObjectDescription )*",
    "ParticipantObjectDescription": r"(SOPClass )*",
}
SENT, RECEIVED = {"110153": "1"}, {"110152": "1"}
EVENTS: Mapping[str, tuple[str, str, Mapping[str, str]]] = {
    "110100": ("E", "110120|110121", {"110150": "1", "110151": "[0-9]+"}),
    "110101": ("R", "", {"": "[12]"}),
    "110102": ("E", "", SENT | RECEIVED),
    "110103": ("[CRUD]", "", {"": "[12]"}),
    "110104": ("[CRU]", "", SENT | RECEIVED),
    "110106": ("R", "", {"110152": "[0-9]+", "110153": "[12]", "110154": "1"}),
    "110107": ("C", "", {"110152": "[1-9]", "110155": "1", "110153": "[0-9]+"}),
    "110110": ("[CRUD]", "", {"": "[12]"}),
    "110111": ("[CRUD]", "", {"": "[12]"}),
    "110112": ("E", "", SENT | RECEIVED),
    "110113": ("E", "1101[23][0-9]", {"": "[12]"}),
    "110114": ("E", "11012[23]", {"": "[12]"}),
}
"""By EventID: action, type, and how many participants of each role (PS3.15 A.5.3)."""
MEDIA = {"110154", "110155"}
OBJECTS = {"1 1 2": "patient", "2 3 110180": "study", "2 3 110181": "query", "2 3 12": "file", "2 13 12": "log",
           "2 13 110182": "node", "1 11 11": "account"}  # fmt: skip
"""Type, role and kind of identifier of every object that may be named."""


def judge_event(root: ElementTree.Element) -> None:
    """Fail where a message departs from what PS3.15 A.5.3 says of its event."""
    event, participants = root[0], root.findall("ActiveParticipant")
    action, kind, roles = EVENTS[event[0].attrib["csd-code"]]
    assert re.fullmatch(action, event.attrib["EventActionCode"])
    types = [one.attrib["csd-code"] for one in event.findall("EventTypeCode")]
    assert re.fullmatch(kind, " ".join(types)), types
    played = []
    for one in participants:
        code = one.find("RoleIDCode")
        played.append("" if code is None else code.attrib["csd-code"])
        is_medium = played[-1] in MEDIA
        assert (one.find("MediaIdentifier") is not None) == is_medium
        assert not (is_medium and one.attrib["UserIsRequestor"] == "true")
    if "" in roles:
        assert re.fullmatch(roles[""], str(len(played)))
    else:
        assert set(played) <= set(roles), played
        assert all(re.fullmatch(many, str(played.count(role))) for role, many in roles.items()), played
    if event[0].attrib["csd-code"] in {"110106", "110107"}:
        assert [one.attrib["UserIsRequestor"] for one in participants].count("true") == 1
    for thing in root.findall("ParticipantObjectIdentification"):
        named = [thing.attrib["ParticipantObjectTypeCode"], thing.attrib["ParticipantObjectTypeCodeRole"]]
        assert " ".join([*named, thing[0].attrib["csd-code"]]) in OBJECTS


def judge(xml: str) -> ElementTree.Element:
    """Return the message, parsed; fails where it departs from the schema."""
    root = ElementTree.fromstring(xml)
    assert root.tag == "AuditMessage"
    _judge(root)
    datetime.fromisoformat(root[0].attrib["EventDateTime"])
    return root


def _judge(element: ElementTree.Element) -> None:
    assert element.tag in ATTRIBUTES, f"the schema has no element {element.tag}"
    allowed = ATTRIBUTES[element.tag]
    names = {name.rstrip("?") for name in allowed}
    assert set(element.attrib) <= names, f"{element.tag} has {set(element.attrib) - names}"
    for name, pattern in allowed.items():
        value = element.attrib.get(name.rstrip("?"))
        assert value is not None or name.endswith("?"), f"{element.tag} lacks {name}"
        assert value is None or re.fullmatch(pattern, value), f"{element.tag} {name}: {value!r}"
    children = "".join(f"{child.tag} " for child in element)
    assert re.fullmatch(CHILDREN.get(element.tag, ""), children), f"{element.tag} holds {children}"
    if element.tag == "ParticipantObjectQuery":
        base64.b64decode(element.text or "", validate=True)
    for child in element:
        _judge(child)


def told(xml: str) -> tuple[str, str, str]:
    """Return event, type and outcome of a message, as words."""
    root = judge(xml)
    event = root[0]
    types = [code.attrib["originalText"] for code in event.findall("EventTypeCode")]
    return (
        event[0].attrib["originalText"],
        ", ".join(types),
        event.attrib["EventOutcomeIndicator"],
    )
