"""The messages of the audit trail: what each says, of whom, and that it keeps to the schema."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest
from audit_schema import judge, judge_event

from node import audit_events
from node.audit import pseudonym_key, settings_hash
from node.audit_events import Patients, Peer
from node.audit_message import AuditMessage
from node.settings import Settings
from plugins.errors import Unavailable

pytestmark = pytest.mark.sec
NOON = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
EVIL = "X\"><script>&'\x00\x1b\n]]>\ud800é"
PEER = Peer(name="CT1", address="10.0.0.7")
PATIENTS = Patients(key=b"k")


def every_message(text: str) -> list[AuditMessage]:
    """Return one of each event, with a text from outside wherever one may come."""
    peer = Peer(name=text, address="10.0.0.7")
    patient = PATIENTS.subject("", text, text)
    named = Patients(key=b"k", by_identity=True).subject("", text, text)
    study = audit_events.study("1.2.3", {"1.2.840.10008.5.1.4.1.1.2": 20})
    return [
        audit_events.started(text, ("listener", "web"), "ab12"),
        audit_events.stopped(text, ("listener",), "ab12"),
        audit_events.association_rejected(text, text, peer),
        audit_events.instances_received(text, peer, study, patient, refused={text: 3}),
        audit_events.instances_received(text, peer, None, None, refused={"no-data-set": 1}),
        audit_events.instances_sent(text, peer, study, named),
        audit_events.instances_sent(text, peer, study, patient, failure=text),
        audit_events.sending_begun(text, peer, study, patient),
        audit_events.instances_received(text, peer, study, patient, is_asked=True),
        audit_events.imported(text, text, text, study, patient, refused={text: 2}),
        audit_events.stored(text, text, peer, study, patient, failure=text),
        audit_events.patient_read(text, text, patient),
        audit_events.exported(text, text, text, [study, patient]),
        audit_events.queried(text, peer, "1.2.840.10008.5.1.4.1.2.2.1", text, patient),
        audit_events.instances_accessed(text, text, study, patient),
        audit_events.lesion_chosen(text, text, named, [(1, text)]),
        audit_events.signed_in(text, "::1"),
        audit_events.signed_in(text, text, failure=text),
        audit_events.signed_out(text, "10.0.0.1"),
        audit_events.request_denied(403, text, text, text),
        audit_events.access_changed(text, text, text),
        audit_events.access_changed(text, text, text, is_role=True),
        audit_events.model_changed(text, text, text, text),
        audit_events.operated(text, "1.2.3", text, text),
        audit_events.operated(text, text, text),
        audit_events.trail_read(text),
    ]


@pytest.mark.parametrize("text", ["ADA", EVIL, "", "x" * 5000])
def test_every_message_keeps_to_the_schema_whatever_text_comes_from_outside(text: str) -> None:
    for message in every_message(text):
        xml = message.xml(NOON, "NADIR")
        judge_event(judge(xml))
        assert "\n" not in xml
        xml.encode()


def test_a_message_is_what_the_standard_says_of_its_event() -> None:
    study = audit_events.study("1.2.3", {"1.2.840.10008.5.1.4.1.1.2": 20})
    message = audit_events.instances_received("NADIR", PEER, study, PATIENTS.subject("H", "P1"))
    root = judge(message.xml(NOON, "NADIR"))
    event = root[0]
    assert event.attrib == {
        "EventActionCode": "C",
        "EventDateTime": "2026-03-01T12:00:00.250+00:00",
        "EventOutcomeIndicator": "0",
    }
    assert event[0].attrib["csd-code"] == "110104"
    source, destination = root.findall("ActiveParticipant")
    assert (source.attrib["UserID"], source.attrib["AlternativeUserID"]) == ("CT1", "AETITLES=CT1")
    assert (source.attrib["NetworkAccessPointID"], source.attrib["NetworkAccessPointTypeCode"]) == (
        "10.0.0.7",
        "2",
    )
    assert [p[0].attrib["csd-code"] for p in (source, destination)] == ["110153", "110152"]
    assert [p.attrib["UserIsRequestor"] for p in (source, destination)] == ["true", "false"]
    about_study, about_patient = root.findall("ParticipantObjectIdentification")
    assert about_study.attrib["ParticipantObjectID"] == "1.2.3"
    assert about_study.find("ParticipantObjectDescription/SOPClass").attrib == {  # type: ignore[union-attr]
        "UID": "1.2.840.10008.5.1.4.1.1.2",
        "NumberOfInstances": "20",
    }
    assert about_patient.attrib["ParticipantObjectTypeCodeRole"] == "1"


def test_a_message_of_a_study_names_the_twenty_most_frequent_classes_and_counts_the_others() -> None:
    classes = {f"1.2.840.99999.{'1' * 40}.{n}": 1 for n in range(1200)} | {"1.2.840.10008.5.1.4.1.1.2": 300}
    study = audit_events.study("1.2.3", classes)
    xml = audit_events.instances_received("NADIR", PEER, study, None).xml(NOON, "NADIR")
    told = [one.attrib for one in judge(xml).iter("SOPClass")]
    assert [one["UID"] for one in told[:-1]] == sorted(one["UID"] for one in told[:-1])
    assert len(told) == 21 and {"UID": "1.2.840.10008.5.1.4.1.1.2", "NumberOfInstances": "300"} in told
    assert told[-1] == {"NumberOfInstances": "1181"}
    assert sum(int(one["NumberOfInstances"]) for one in told) == 1500


@pytest.mark.parametrize("text", ["é" * 70_000, '"' * 70_000, "1.2." * 20_000])
def test_no_text_from_outside_makes_a_message_longer_than_a_datagram(text: str) -> None:
    for message in every_message(text):
        assert len(message.xml(NOON, text).encode()) < 60_000
    study = audit_events.study(text, {f"{n}.{text}": n for n in range(1200)})
    named = Patients(key=b"k", by_identity=True).subject("", text, text)
    xml = audit_events.instances_received(text, Peer(name=text), study, named).xml(NOON, "NADIR")
    assert len(xml.encode()) < 65_000


def test_an_export_names_who_took_it_and_the_file_that_it_went_into() -> None:
    patient = PATIENTS.subject("H", "P1")
    root = judge_event_of(audit_events.exported("ANNA", "10.0.0.9", "course of a patient as pdf", [patient]))
    assert played(root) == [
        ("ANNA", "110153", "true"), ("course of a patient as pdf", "110154", "false"),
    ]  # fmt: skip
    file, whose = root.findall("ParticipantObjectIdentification")
    assert file.findtext("ParticipantObjectName") == "course of a patient as pdf"
    assert whose.attrib["ParticipantObjectID"] == patient.id


def test_an_import_names_who_brought_it_in_the_node_and_the_upload() -> None:
    study = audit_events.study("1.2.3", {"1.2.840.10008.5.1.4.1.1.2": 20})
    root = judge_event_of(
        audit_events.imported("NADIR", "ANNA", "upload 7", study, PATIENTS.subject("H", "P1"))
    )
    own = str(os.getpid())
    assert played(root) == [
        ("ANNA", "110152", "true"), (own, "110152", "false"), ("upload 7", "110155", "false"),
    ]  # fmt: skip


@pytest.mark.parametrize("is_asked", [False, True])
def test_of_what_is_transferred_the_one_who_began_it_is_the_requestor(is_asked: bool) -> None:
    root = judge_event_of(audit_events.instances_received("NADIR", PEER, None, None, is_asked=is_asked))
    said = {True: "true", False: "false"}
    assert [one[1:] for one in played(root)] == [("110153", said[not is_asked]), ("110152", said[is_asked])]


def judge_event_of(message: AuditMessage) -> Element:
    root = judge(message.xml(NOON, "NADIR"))
    judge_event(root)
    return root


def played(root: Element) -> list[tuple[str, str, str]]:
    """Return name, role and whether it began it of each participant."""
    return [
        (one.attrib["UserID"], one[0].attrib["csd-code"], one.attrib["UserIsRequestor"])
        for one in root.findall("ActiveParticipant")
    ]


def test_a_patient_has_one_pseudonym_under_one_key_and_another_under_another() -> None:
    mine, other = Patients(key=b"k"), Patients(key=b"l")
    names = [
        patients.subject(issuer, patient_id).id
        for patients, issuer, patient_id in (
            (mine, "", "P1"),
            (mine, "", "P1"),
            (other, "", "P1"),
            (mine, "H", "P1"),
            (mine, "", "P2"),
        )
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 4
    assert "P1" not in names[0]


def test_the_key_of_the_pseudonyms_is_made_once_for_the_owner_only(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    key = pseudonym_key(settings)
    assert pseudonym_key(settings) == key and len(key) == 64
    assert (tmp_path / "audit.key").stat().st_mode & 0o777 == 0o600
    assert pseudonym_key(Settings(home=tmp_path, audit_key="given")) == b"given"
    with pytest.raises(Unavailable, match=r"audit\.key"):
        pseudonym_key(Settings(home=tmp_path / "audit.key"))


def test_other_settings_show_and_what_they_are_does_not() -> None:
    home = Path("/h")
    one, same, other = (Settings(home=home, hook_token=token) for token in ("a", "a", "b"))
    hashes = [settings_hash(settings, b"k") for settings in (one, same, other)]
    assert hashes[0] == hashes[1] != hashes[2]
