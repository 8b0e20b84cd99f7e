"""Audit messages as DICOM defines them (PS3.15 A.5.1): what happened, who took part, what it happened to.

Plain values in, one line of XML out; nothing here knows where a message goes. Coded values are of the DICOM Controlled
Terminology (PS3.16 Annex D, CID 400 to 405).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from xml.sax.saxutils import quoteattr

FORBIDDEN = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
ADDRESS = re.compile(r"[A-Za-z0-9._:%-]{1,255}")
LONGEST_TEXT = 500
"""Characters of a text that a message repeats: peers choose most of them, and a datagram holds 65,507 bytes."""
MOST_CLASSES = 20
"""SOP Classes that a message names of one study."""
Outcome = Literal["0", "4", "8", "12"]
SUCCESS: Outcome = "0"
MINOR_FAILURE: Outcome = "4"
SERIOUS_FAILURE: Outcome = "8"
Action = Literal["C", "R", "U", "D", "E"]


@dataclass(frozen=True)
class Code:
    """A coded value."""

    value: str
    """Code Value."""
    meaning: str
    """Code Meaning."""
    scheme: str = "DCM"
    """Coding Scheme Designator."""


APPLICATION_ACTIVITY = Code("110100", "Application Activity")
AUDIT_LOG_USED = Code("110101", "Audit Log Used")
BEGIN_TRANSFERRING = Code("110102", "Begin Transferring DICOM Instances")
INSTANCES_ACCESSED = Code("110103", "DICOM Instances Accessed")
INSTANCES_TRANSFERRED = Code("110104", "DICOM Instances Transferred")
EXPORT = Code("110106", "Export")
IMPORT = Code("110107", "Import")
PATIENT_RECORD = Code("110110", "Patient Record")
PROCEDURE_RECORD = Code("110111", "Procedure Record")
QUERY = Code("110112", "Query")
SECURITY_ALERT = Code("110113", "Security Alert")
USER_AUTHENTICATION = Code("110114", "User Authentication")

APPLICATION_START, APPLICATION_STOP = Code("110120", "Application Start"), Code("110121", "Application Stop")
LOGIN, LOGOUT = Code("110122", "Login"), Code("110123", "Logout")
NODE_AUTHENTICATION = Code("110126", "Node Authentication")
SOFTWARE_CONFIGURATION = Code("110131", "Software Configuration")
RESTRICTED_FUNCTION = Code("110132", "Use of Restricted Function")
ROLES_CHANGED = Code("110136", "Security Roles Changed")
USER_CHANGED = Code("110137", "User security Attributes Changed")

APPLICATION, APPLICATION_LAUNCHER = Code("110150", "Application"), Code("110151", "Application Launcher")
DESTINATION_MEDIA, SOURCE_MEDIA = Code("110154", "Destination Media"), Code("110155", "Source Media")
MEDIA_URI = Code("110037", "URI")
DESTINATION_ROLE, SOURCE_ROLE = Code("110152", "Destination Role ID"), Code("110153", "Source Role ID")
STUDY_INSTANCE_UID = Code("110180", "Study Instance UID")
SOP_CLASS_UID = Code("110181", "SOP Class UID")
NODE_ID = Code("110182", "Node ID")
PATIENT_NUMBER = Code("2", "Patient Number", "RFC-3881")
USER_IDENTIFIER = Code("11", "User Identifier", "RFC-3881")
URI = Code("12", "URI", "RFC-3881")


@dataclass(frozen=True, kw_only=True)
class Participant:
    """An Active Participant: a person or a process."""

    user_id: str
    """AE title, account, or name of a process."""
    other_id: str = ""
    """Another name of the same: an AE title, a process identifier."""
    is_requestor: bool = False
    """True for the one who began it."""
    address: str = ""
    """IP address or host name."""
    role: Code | None = None
    """Part that it played."""
    media: Code | None = None
    """What kind of medium it is, of a medium."""

    def xml(self) -> str:
        """Return the element."""
        attributes = {"UserID": self.user_id, "AlternativeUserID": self.other_id}
        attributes["UserIsRequestor"] = "true" if self.is_requestor else "false"
        if ADDRESS.fullmatch(self.address):
            is_ip = self.address[0].isdecimal() or ":" in self.address
            attributes |= {
                "NetworkAccessPointID": self.address,
                "NetworkAccessPointTypeCode": "2" if is_ip else "1",
            }
        inner = _code("RoleIDCode", self.role) if self.role else ""
        if self.media:
            inner += f"<MediaIdentifier>{_code('MediaType', self.media)}</MediaIdentifier>"
        return _element("ActiveParticipant", attributes, inner, keep=("UserID",))


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A Participant Object: a patient, a study, an account, a file, a query."""

    id: str
    """Its identifier."""
    id_type: Code
    """What kind of identifier that is."""
    type_code: Literal["1", "2", "3", "4"]
    """1 person, 2 system object."""
    role: str
    """Participant Object Type Code Role: 1 patient, 3 report, 11 security user entity, 13 security resource."""
    name: str = ""
    """What it is called; the identifier again when empty."""
    query: bytes | None = None
    """The query itself, in place of a name."""
    details: tuple[tuple[str, str], ...] = ()
    """Further pairs of type and value."""
    sop_classes: tuple[tuple[str, int], ...] = ()
    """SOP Class UID and number of instances, of a study; told are the 20 most frequent and the count of all others."""

    def xml(self) -> str:
        """Return the element."""
        attributes = {
            "ParticipantObjectID": self.id,
            "ParticipantObjectTypeCode": self.type_code,
            "ParticipantObjectTypeCodeRole": self.role,
        }
        inner = _code("ParticipantObjectIDTypeCode", self.id_type)
        if self.query is None:
            inner += f"<ParticipantObjectName>{_text(self.name or self.id)}</ParticipantObjectName>"
        else:
            inner += f"<ParticipantObjectQuery>{_base64(self.query)}</ParticipantObjectQuery>"
        for kind, value in self.details:
            said = _base64(_short(value).encode("utf-8", "surrogatepass"))
            inner += f'<ParticipantObjectDetail type={_quoted(kind)} value="{said}"/>'
        if self.sop_classes:
            classes = (
                _element("SOPClass", {"UID": uid, "NumberOfInstances": str(count)}, "")
                for uid, count in _most_frequent(self.sop_classes)
            )
            inner += f"<ParticipantObjectDescription>{''.join(classes)}</ParticipantObjectDescription>"
        return _element("ParticipantObjectIdentification", attributes, inner, keep=("ParticipantObjectID",))


@dataclass(frozen=True, kw_only=True)
class AuditMessage:
    """One audit message."""

    event: Code
    """EventID."""
    types: tuple[Code, ...] = ()
    """EventTypeCode."""
    action: Action = "E"
    """Create, read, update, delete, execute."""
    outcome: Outcome = "0"
    """0 success, 4 minor, 8 serious, 12 major failure."""
    description: str = ""
    """What went wrong, in a sentence."""
    participants: tuple[Participant, ...]
    """At least one."""
    subjects: tuple[Subject, ...] = ()
    """What it happened to."""

    def xml(self, at: datetime, source: str) -> str:
        """Return the message on one line: it happened at `at`, aware, and `source` tells of it."""
        attributes = {
            "EventActionCode": self.action,
            "EventDateTime": at.isoformat(timespec="milliseconds"),
            "EventOutcomeIndicator": self.outcome,
        }
        inner = _code("EventID", self.event) + "".join(_code("EventTypeCode", c) for c in self.types)
        if self.description:
            inner += f"<EventOutcomeDescription>{_text(self.description)}</EventOutcomeDescription>"
        parts = [
            _element("EventIdentification", attributes, inner),
            *_all(self.participants),
            _element(
                "AuditSourceIdentification",
                {"AuditSourceID": source},
                '<AuditSourceTypeCode csd-code="4"/>',
                keep=("AuditSourceID",),
            ),
            *_all(self.subjects),
        ]
        return "<AuditMessage>" + "".join(parts) + "</AuditMessage>"


def _most_frequent(classes: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
    """Return the classes that a message names, and the instances of all others under no UID."""
    if len(classes) <= MOST_CLASSES:
        return classes
    ranked = sorted(classes, key=lambda one: -one[1])
    others = sum(count for _, count in ranked[MOST_CLASSES:])
    return (*sorted(ranked[:MOST_CLASSES]), ("", others))


def _all(items: Iterable[Participant | Subject]) -> Iterable[str]:
    return (item.xml() for item in items)


def _code(name: str, code: Code) -> str:
    attributes = {"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning}
    return _element(name, attributes, "")


def _element(name: str, attributes: dict[str, str], inner: str, *, keep: tuple[str, ...] = ()) -> str:
    said = "".join(f" {k}={_quoted(v)}" for k, v in attributes.items() if v or k in keep)
    return f"<{name}{said}>{inner}</{name}>" if inner else f"<{name}{said}/>"


def _quoted(value: str) -> str:
    return quoteattr(_clean(value), {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})


def _text(value: str) -> str:
    return _clean(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ")


def _clean(value: str) -> str:
    """Return text without what XML cannot hold: a peer chooses AE titles and UIDs."""
    return FORBIDDEN.sub("\ufffd", _short(value))


def _short(value: str) -> str:
    return value if len(value) <= LONGEST_TEXT else f"{value[: LONGEST_TEXT - 1]}…"


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
