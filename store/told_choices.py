"""Choices that people made in the objects that they sent: a SEG that says which lesion it drew, a report that says so.

A region drawn by a person under the Tracking UID of a lesion of the patient is that lesion, and so is what the analyses
drew at its place. A measurement group that a person observed, with such a Tracking UID, says the same of the segment of
ours that it refers to, and may say what the lesion is (DCM 112074, 112075, 112076).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from pydicom.dataset import Dataset
from sqlmodel import Session, col, select

from plugins.errors import Refused
from store.charset import storable
from store.choices import keep
from store.chosen import chosen
from store.course import Course, course
from store.dicom.files import read_file
from store.dicom.items import items, text
from store.dicom.measured import MeasuredGroup, read_measured
from store.dicom.response_codes import ROLES
from store.dicom.values import integer, quiet
from store.objects import ObjectStore
from store.overlap import same_place
from store.sighting import Sighting
from store.tables import Instance, Result, Series, Study

MODALITIES: Final = ("SEG", "SR", "RTSTRUCT")
Said = tuple[str, str, str]
"""Kind, Tracking UID (of a relink as it is written) and value of a choice."""


def take_choices(session: Session, objects: ObjectStore, study_pk: int, now: datetime) -> int:
    """Keep what the objects of a study say that was not kept before, and return how many choices that were.

    To be called after each result of the study, because what was drawn at one place is known only then. What was taken
    back stays so: an object says a thing once.
    """
    study = session.get_one(Study, study_pk)
    uid, patient_pk = study.study_instance_uid, study.patient_pk
    statement = (
        select(Series.modality, Instance.sop_instance_uid, Instance.sha256)
        .join(Series, col(Series.id) == col(Instance.series_pk))
        .where(col(Series.study_pk) == study_pk, col(Instance.current), ~col(Instance.own))
        .where(col(Series.modality).in_(MODALITIES))
        .order_by(col(Instance.sop_instance_uid))
    )
    rows = session.exec(statement).all()
    count = 0
    for modality, source, sha256 in rows:
        header = _header(objects, sha256)
        if header is None:
            continue
        known = course(session, patient_pk, objects)
        kept = {
            (d.kind, d.tracking_uid, d.value)
            for d in chosen(session, patient_pk).decisions
            if d.source == source and d.study_instance_uid in ("", uid)
        }
        who, said = (
            _of_report(session, objects, header, known, uid)
            if modality == "SR"
            else _of_drawing(header, known, uid)
        )
        for kind, lesion, value in dict.fromkeys(said):
            if who and (kind, lesion, value) not in kept:
                at = "" if kind == "role" else uid
                keep(session, patient_pk, kind, lesion, value, who, now, study_instance_uid=at, source=source)
                count += 1
    return count


def _header(objects: ObjectStore, sha256: str) -> Dataset | None:
    path = objects.path(sha256)
    if not path.is_file():
        return None
    with quiet():
        try:
            file = read_file(path)
        except Refused:
            return None
    return None if file is None else file.header


def _of_drawing(header: Dataset, known: Course, study: str) -> tuple[str, list[Said]]:
    """Return who drew a SEG or structure set, and what follows from the Tracking UIDs that the regions have."""
    names = [_name(header, keyword) for keyword in ("ContentCreatorName", "OperatorsName")]
    equipment = " ".join(
        filter(None, (text(header, key) for key in ("Manufacturer", "ManufacturerModelName")))
    )
    who = next(filter(None, names), equipment)
    regions = [
        *(s for s in items(header, "SegmentSequence") if text(s, "SegmentAlgorithmType") != "AUTOMATIC"),
        *items(header, "RTROIObservationsSequence"),
    ]
    said: list[Said] = []
    for lesion in dict.fromkeys(text(region, "TrackingUID") for region in regions):
        if _is_known(known, lesion, study):
            said.append(("drawn", lesion, text(header, "Modality")))
            said += [("relink", other.written_uid, lesion) for other in _beneath(known, lesion, study)]
    return storable(who), said


def _is_known(known: Course, lesion: str, study: str) -> bool:
    """Return whether a Tracking UID is that of a lesion that was seen before somebody drew it at this study."""
    return bool(lesion) and any(
        lesion in (one.lesion, one.tracking_uid) and (one.study_instance_uid != study or one.automatic)
        for one in known.sightings
    )


def _beneath(known: Course, lesion: str, study: str) -> Iterator[Sighting]:
    """Yield what analyses drew at the place of a person's drawing of a lesion and called something else."""
    there = [one for one in known.sightings if one.study_instance_uid == study and one.series_instance_uid]
    drawn = [one for one in there if not one.automatic and one.tracking_uid == lesion]
    for other in there:
        # A person who moved it already has said the last word.
        moved = any(d.kind == "relink" for d in other.decisions)
        is_other = other.automatic and other.tracking_uid != lesion and not moved
        if is_other and any(same_place(one, other) for one in drawn):
            yield other


def _of_report(
    session: Session, objects: ObjectStore, header: Dataset, known: Course, study: str
) -> tuple[str, list[Said]]:
    """Return the person who observed a report, and what follows from its groups."""
    report = read_measured(header)
    said: list[Said] = []
    for group in report.groups:
        if not _is_known(known, group.tracking_uid, study):
            continue
        for code in group.said:
            role = next((r for r, of in ROLES.items() if (of.value, of.scheme_designator) == code[:2]), None)
            if role is not None:
                said.append(("role", group.tracking_uid, role))
        segment = _segment_of(session, objects, group, known, study)
        if segment is not None and segment.tracking_uid != group.tracking_uid:
            said.append(("relink", segment.written_uid, group.tracking_uid))
    return storable(report.person), said


def _segment_of(
    session: Session, objects: ObjectStore, group: MeasuredGroup, known: Course, study: str
) -> Sighting | None:
    """Return what a group refers to when that is a segment of ours at this study, also of a SEG that was superseded."""
    if group.segment is None:
        return None
    seg, number = group.segment
    tables = (select(table.sha256).where(col(table.sop_instance_uid) == seg) for table in (Result, Instance))
    sha256 = next((found for one in tables if (found := session.exec(one).first())), None)
    header = None if sha256 is None else _header(objects, sha256)
    segments = () if header is None else items(header, "SegmentSequence")
    written = {text(one, "TrackingUID") for one in segments if integer(one, "SegmentNumber") == number} - {""}
    there = (one for one in known.sightings if one.study_instance_uid == study and one.automatic)
    return next((one for one in there if one.written_uid in written and one.series_instance_uid), None)


def _name(header: Dataset, keyword: str) -> str:
    return " ".join(text(header, keyword).replace("^", " ").split())


__all__ = ["take_choices"]
