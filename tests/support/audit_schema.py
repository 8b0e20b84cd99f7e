"""The schema of audit messages (PS3.15 A.5.1.1), written as a table, and a judge of messages by it."""

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
    "AuditSourceIdentification": r"(AuditSourceTypeCode )*",
    "ParticipantObjectIdentification": r"ParticipantObjectIDTypeCode (ParticipantObjectName |ParticipantObjectQuery )"
    r"(ParticipantObjectDetail )*(ParticipantObjectDescription )*",
    "ParticipantObjectDescription": r"(SOPClass )*",
}


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
