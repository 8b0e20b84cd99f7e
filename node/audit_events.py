"""What Nadir tells the audit trail: one function an event, after PS3.15 A.5.3."""

from __future__ import annotations

import hmac
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from node import audit_message as am
from node.audit_message import AuditMessage, Participant, Subject


@dataclass(frozen=True, kw_only=True)
class Patients:
    """How patients are named in the trail: by a pseudonym that only this node can make, or as they are."""

    key: bytes
    """Key of the pseudonyms."""
    by_identity: bool = False
    """True to write PatientID and name, as PS3.15 has it, when the repository may hold them."""

    def subject(self, issuer: str, patient_id: str, name: str = "") -> Subject:
        """Return the patient as a participant object."""
        if self.by_identity:
            return Subject(
                id=patient_id, id_type=am.PATIENT_NUMBER, type_code="1", role="1", name=name or patient_id
            )
        known = f"{issuer}\\{patient_id}".encode("utf-8", "surrogatepass")
        pseudonym = hmac.new(self.key, known, "sha256").hexdigest()[:24]
        return Subject(id=pseudonym, id_type=am.PATIENT_NUMBER, type_code="1", role="1")


@dataclass(frozen=True, kw_only=True)
class Peer:
    """The other end of a transfer."""

    name: str
    """AE title, or the URL without its password."""
    address: str = ""
    """IP address or host name."""


def started(ae_title: str, roles: Sequence[str], settings: str) -> AuditMessage:
    """Tell that a process of the node answers; `settings` is a keyed hash, so that a change of them shows."""
    return _activity(am.APPLICATION_START, ae_title, roles, settings)


def stopped(ae_title: str, roles: Sequence[str], settings: str) -> AuditMessage:
    """Tell that it ends, on purpose."""
    return _activity(am.APPLICATION_STOP, ae_title, roles, settings)


def association_rejected(ae_title: str, reason: str, peer: Peer) -> AuditMessage:
    """Tell that somebody was not let in at the DICOM port."""
    return AuditMessage(
        event=am.SECURITY_ALERT,
        types=(am.NODE_AUTHENTICATION,),
        outcome=am.MINOR_FAILURE,
        description=f"association rejected: {reason}",
        participants=(_this(ae_title), _peer(peer, is_requestor=True)),
        subjects=(_alert(peer.address or peer.name, reason),),
    )


def instances_received(
    ae_title: str,
    peer: Peer,
    study: Subject | None,
    patient: Subject | None,
    *,
    refused: Mapping[str, int] | None = None,
    is_asked: bool = False,
) -> AuditMessage:
    """Tell what a peer brought of one study, or was asked for, and how much of it was refused by which code."""
    told = ", ".join(f"{count} {code}" for code, count in sorted((refused or {}).items()))
    return AuditMessage(
        event=am.INSTANCES_TRANSFERRED,
        action="C",
        outcome=am.MINOR_FAILURE if told else am.SUCCESS,
        description=f"refused: {told}" if told else "",
        participants=(
            _peer(peer, is_requestor=not is_asked, role=am.SOURCE_ROLE),
            _this(ae_title, is_requestor=is_asked, role=am.DESTINATION_ROLE),
        ),
        subjects=tuple(s for s in (study, patient) if s),
    )


def instances_sent(
    ae_title: str, peer: Peer, study: Subject, patient: Subject, *, failure: str = ""
) -> AuditMessage:
    """Tell that a destination has the results of one job, or will not take them."""
    return AuditMessage(
        event=am.INSTANCES_TRANSFERRED,
        action="R",
        outcome=am.SERIOUS_FAILURE if failure else am.SUCCESS,
        description=failure,
        participants=_from_us(ae_title, peer),
        subjects=(study, patient),
    )


def sending_begun(ae_title: str, peer: Peer, study: Subject, patient: Subject) -> AuditMessage:
    """Tell that results of a job begin to go to a destination."""
    return AuditMessage(
        event=am.BEGIN_TRANSFERRING, participants=_from_us(ae_title, peer), subjects=(study, patient)
    )


def imported(
    ae_title: str,
    author: str,
    upload: str,
    study: Subject | None,
    patient: Subject | None,
    *,
    refused: Mapping[str, int] | None = None,
) -> AuditMessage:
    """Tell what a person brought in from outside, by which upload, and how much of it was refused by which code."""
    person = Participant(user_id=author or "unknown", is_requestor=True, role=am.DESTINATION_ROLE)
    medium = Participant(user_id=upload, role=am.SOURCE_MEDIA, media=am.MEDIA_URI)
    received = instances_received(ae_title, Peer(name=author), study, patient, refused=refused)
    participants = (person, _this(ae_title, role=am.DESTINATION_ROLE), medium)
    return replace(received, event=am.IMPORT, participants=participants)


def queried(ae_title: str, peer: Peer, sop_class_uid: str, what: str, patient: Subject) -> AuditMessage:
    """Tell that a PACS was asked for what it has of a patient; the values asked for are not told."""
    asked = Subject(id=sop_class_uid, id_type=am.SOP_CLASS_UID, type_code="2", role="3", name=what)
    return AuditMessage(event=am.QUERY, participants=_from_us(ae_title, peer), subjects=(asked, patient))


def instances_accessed(name: str, address: str, study: Subject, patient: Subject | None) -> AuditMessage:
    """Tell that somebody looked at a study, or fetched results of it."""
    return AuditMessage(
        event=am.INSTANCES_ACCESSED,
        action="R",
        participants=(Participant(user_id=name or "unknown", address=address, is_requestor=True),),
        subjects=tuple(s for s in (study, patient) if s),
    )


def stored(
    name: str, address: str, pacs: Peer, study: Subject | None, patient: Subject | None, *, failure: str = ""
) -> AuditMessage:
    """Tell that a person stored in the PACS what was drawn in the viewer."""
    return AuditMessage(
        event=am.INSTANCES_TRANSFERRED,
        action="C",
        outcome=am.MINOR_FAILURE if failure else am.SUCCESS,
        description=failure,
        participants=(
            Participant(user_id=name or "unknown", address=address, is_requestor=True, role=am.SOURCE_ROLE),
            _peer(pacs, is_requestor=False, role=am.DESTINATION_ROLE),
        ),
        subjects=tuple(s for s in (study, patient) if s),
    )


def lesion_chosen(
    name: str, address: str, patient: Subject, choices: Sequence[tuple[int, str]]
) -> AuditMessage:
    """Tell that a person decided of a patient's lesions: the number and the kind of each choice, not its words."""
    details = tuple(("Choice", f"{number} {kind}") for number, kind in choices)
    return AuditMessage(
        event=am.PATIENT_RECORD,
        action="U",
        participants=(Participant(user_id=name or "unknown", address=address, is_requestor=True),),
        subjects=(replace(patient, details=details),),
    )


def patient_read(name: str, address: str, patient: Subject) -> AuditMessage:
    """Tell that somebody looked at a patient's course."""
    return AuditMessage(
        event=am.PATIENT_RECORD,
        action="R",
        participants=(Participant(user_id=name or "unknown", address=address, is_requestor=True),),
        subjects=(patient,),
    )


def exported(name: str, address: str, what: str, patients: Sequence[Subject] = ()) -> AuditMessage:
    """Tell that somebody took data away as a file: what in words, and whose when it is not of many."""
    file = Subject(id="export", id_type=am.URI, type_code="2", role="3", name=what)
    return AuditMessage(
        event=am.EXPORT,
        action="R",
        participants=(
            Participant(user_id=name or "unknown", address=address, is_requestor=True, role=am.SOURCE_ROLE),
            Participant(user_id=what, address=address, role=am.DESTINATION_MEDIA, media=am.MEDIA_URI),
        ),
        subjects=(file, *patients),
    )


def signed_in(name: str, address: str, *, failure: str = "") -> AuditMessage:
    """Tell that a person signed in, or could not."""
    return _authentication(am.LOGIN, name, address, failure)


def signed_out(name: str, address: str) -> AuditMessage:
    """Tell that a person signed out."""
    return _authentication(am.LOGOUT, name, address, "")


def request_denied(status: int, name: str, address: str, what: str) -> AuditMessage:
    """Tell that an HTTP request was not let in."""
    return AuditMessage(
        event=am.SECURITY_ALERT,
        types=(am.RESTRICTED_FUNCTION,),
        outcome=am.MINOR_FAILURE,
        description=f"HTTP {status}: {what}",
        participants=(Participant(user_id=name or "unknown", address=address, is_requestor=True),),
        subjects=(_alert(address or "unknown", f"HTTP {status}"),),
    )


def access_changed(what: str, subject: str, by: str, *, is_role: bool = False) -> AuditMessage:
    """Tell that an account or a token was made, changed or ended."""
    return AuditMessage(
        event=am.SECURITY_ALERT,
        types=(am.ROLES_CHANGED if is_role else am.USER_CHANGED,),
        participants=(Participant(user_id=by, is_requestor=True),),
        subjects=(
            Subject(
                id=subject,
                id_type=am.USER_IDENTIFIER,
                type_code="1",
                role="11",
                details=(("Alert Description", what),),
            ),
        ),
    )


def model_changed(what: str, model: str, sha256: str, by: str) -> AuditMessage:
    """Tell that a learned model (`nodule_segmenter/3`) was registered, approved or rolled back."""
    return AuditMessage(
        event=am.SECURITY_ALERT,
        types=(am.SOFTWARE_CONFIGURATION,),
        participants=(Participant(user_id=by, is_requestor=True),),
        subjects=(
            Subject(
                id=f"models/{model}",
                id_type=am.URI,
                type_code="2",
                role="13",
                details=(("Alert Description", what), ("SHA-256", sha256)),
            ),
        ),
    )


def operated(what: str, subject: str, by: str, address: str = "") -> AuditMessage:
    """Tell that a person had something done: `what` was done, `subject` is a Study Instance UID or a destination."""
    is_study = subject.replace(".", "").isdecimal()
    return AuditMessage(
        event=am.PROCEDURE_RECORD,
        action="U",
        participants=(Participant(user_id=by, address=address, is_requestor=True),),
        subjects=(
            Subject(
                id=subject,
                id_type=am.STUDY_INSTANCE_UID if is_study else am.NODE_ID,
                type_code="2",
                role="3" if is_study else "13",
                details=(("Alert Description", what),),
            ),
        ),
    )


def trail_read(by: str) -> AuditMessage:
    """Tell that the audit trail itself was read."""
    log = Subject(id="audit_record", id_type=am.URI, type_code="2", role="13", name="Security Audit Log")
    return AuditMessage(
        event=am.AUDIT_LOG_USED,
        action="R",
        participants=(Participant(user_id=by, is_requestor=True),),
        subjects=(log,),
    )


def study(study_instance_uid: str, sop_classes: Mapping[str, int]) -> Subject:
    """Return a study as a participant object, with how many instances of which class."""
    return Subject(
        id=study_instance_uid,
        id_type=am.STUDY_INSTANCE_UID,
        type_code="2",
        role="3",
        sop_classes=tuple(sorted(sop_classes.items())),
    )


def _activity(kind: am.Code, ae_title: str, roles: Sequence[str], settings: str) -> AuditMessage:
    process = Participant(
        user_id=str(os.getpid()),
        other_id=f"AETITLES={ae_title}",
        address=socket.gethostname(),
        role=am.APPLICATION,
    )
    launcher = Participant(
        user_id=f"nadir serve {','.join(roles)}",
        other_id=f"settings {settings}",
        is_requestor=True,
        role=am.APPLICATION_LAUNCHER,
    )
    return AuditMessage(event=am.APPLICATION_ACTIVITY, types=(kind,), participants=(process, launcher))


def _authentication(kind: am.Code, name: str, address: str, failure: str) -> AuditMessage:
    return AuditMessage(
        event=am.USER_AUTHENTICATION,
        types=(kind,),
        outcome=am.MINOR_FAILURE if failure else am.SUCCESS,
        description=failure,
        participants=(Participant(user_id=name, address=address, is_requestor=True),),
    )


def _from_us(ae_title: str, peer: Peer) -> tuple[Participant, Participant]:
    return (
        _this(ae_title, is_requestor=True, role=am.SOURCE_ROLE),
        _peer(peer, is_requestor=False, role=am.DESTINATION_ROLE),
    )


def _this(ae_title: str, *, is_requestor: bool = False, role: am.Code | None = None) -> Participant:
    other, host = f"AETITLES={ae_title}", socket.gethostname()
    return Participant(
        user_id=str(os.getpid()), other_id=other, address=host, is_requestor=is_requestor, role=role
    )


def _peer(peer: Peer, *, is_requestor: bool, role: am.Code | None = None) -> Participant:
    other = f"AETITLES={peer.name}" if peer.name else ""
    return Participant(
        user_id=peer.name or peer.address,
        other_id=other,
        address=peer.address,
        is_requestor=is_requestor,
        role=role,
    )


def _alert(subject: str, why: str) -> Subject:
    details = (("Alert Description", why),)
    return Subject(id=subject, id_type=am.NODE_ID, type_code="2", role="13", details=details)
