"""Choices that people made in the objects that they sent: a SEG that says which lesion it drew, a report that says so.

A region drawn by a person under the Tracking UID of a lesion of the patient is that lesion, and so is what the analyses
drew at its place. A measurement group that a person observed, with such a Tracking UID, says the same of the segment of
ours that it refers to, and may say what the lesion is (DCM 112074, 112075, 112076, or `target lesion` in words).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final

from pydicom.dataset import Dataset
from sqlmodel import Session, col, select

from store.algorithm_type import algorithm_type
from store.by_hand import SIZES
from store.charset import storable
from store.choices import keep
from store.chosen import chosen
from store.course import Course, course
from store.dicom.items import items, text
from store.dicom.measured import MeasuredGroup, read_measured
from store.dicom.response_codes import ROLES
from store.dicom.values import integer
from store.object_header import header_of
from store.objects import ObjectStore
from store.overlap import same_place
from store.sighting import Sighting
from store.tables import Finding, Instance, Result, Series, Study

MODALITIES: Final = ("SEG", "SR", "RTSTRUCT")
WORDS: Final = {
    "target lesion": "target",
    "non target lesion": "non-target",
    "nontarget lesion": "non-target",
    "new lesion": "new",
}
"""Meanings of codes of other schemes that tell a role."""
Said = tuple[str, str, str]
"""Kind, Tracking UID (of a relink as it is written) and value of a choice."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a measurement group says of a lesion."""

    tracking_uid: str
    """The lesion."""
    role: str | None
    """`target`, `non-target` or `new`, when it says so."""
    is_measured: bool
    """Whether it gives a size."""
    segment_uid: str | None
    """`Sighting.choice_uid` of the segment of ours that it refers to, if it refers to one."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What an object of somebody else's says of lesions."""

    sop_instance_uid: str
    """SOP Instance UID."""
    modality: str
    """Modality."""
    author: str
    """Who says it; empty when no person does."""
    drawn: tuple[str, ...] = ()
    """Tracking UIDs of the regions that a person drew."""
    told: tuple[Told, ...] = ()
    """What its measurement groups say."""


def sent_to(session: Session, objects: ObjectStore, study_pk: int) -> tuple[Sent, ...]:
    """Return what the objects of a study say that others sent; files are read, so let no transaction wait for it."""
    statement = (
        select(Series.modality, Instance.sop_instance_uid, Instance.sha256)
        .join(Series, col(Series.id) == col(Instance.series_pk))
        .where(col(Series.study_pk) == study_pk, col(Instance.current), ~col(Instance.own))
        .where(col(Series.modality).in_(MODALITIES))
        .order_by(col(Instance.sop_instance_uid))
    )
    found = []
    for modality, source, sha256 in session.exec(statement).all():
        header = header_of(objects, sha256)
        if header is not None:
            read: Callable[[Dataset], Sent] = _drawing
            if modality == "SR":
                read = partial(_report, session, objects)
            found.append(replace(read(header), sop_instance_uid=source, modality=modality))
    return tuple(found)


def take_choices(
    session: Session, objects: ObjectStore, sent: Sequence[Sent], study_pk: int, now: datetime
) -> int:
    """Keep what was sent to a study and was not kept before, and return how many choices that were.

    To be called after each result of the study, because what was drawn at one place is known only then. What was taken
    back stays so: an object says a thing once.
    """
    study = session.get_one(Study, study_pk)
    uid, patient_pk = study.study_instance_uid, study.patient_pk
    count = 0
    for one in sent:
        if not one.author or not (one.drawn or one.told):
            continue
        known = course(session, patient_pk, objects)
        kept = {
            (d.kind, d.tracking_uid, d.value)
            for d in chosen(session, patient_pk).decisions
            if d.source == one.sop_instance_uid
        }
        for kind, lesion, value in dict.fromkeys((*_of_drawn(one, known, uid), *_of_told(one, known, uid))):
            if (kind, lesion, value) not in kept:
                at = "" if kind == "role" else uid
                source = one.sop_instance_uid
                keep(
                    session, patient_pk, kind, lesion, value, one.author, now, study_instance_uid=at, source=source
                )  # fmt: skip
                count += 1
    return count


def _of_drawn(sent: Sent, known: Course, study: str) -> Iterator[Said]:
    for lesion in sent.drawn:
        if _is_known(known, lesion, study):
            yield "drawn", lesion, sent.modality
            for other in _beneath(known, lesion, study):
                yield "relink", other.choice_uid, lesion


def _of_told(sent: Sent, known: Course, study: str) -> Iterator[Said]:
    there = [one for one in known.sightings if one.study_instance_uid == study and one.automatic]
    for told in sent.told:
        if not _is_known(known, told.tracking_uid, study):
            continue
        if told.is_measured:
            yield "drawn", told.tracking_uid, sent.modality
        if told.role is not None:
            yield "role", told.tracking_uid, told.role
        for one in there:
            is_meant = one.series_instance_uid and one.choice_uid == told.segment_uid
            if is_meant and one.tracking_uid != told.tracking_uid:
                yield "relink", one.choice_uid, told.tracking_uid


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


def _drawing(header: Dataset) -> Sent:
    names = [_name(header, keyword) for keyword in ("ContentCreatorName", "OperatorsName")]
    equipment = " ".join(
        filter(None, (text(header, key) for key in ("Manufacturer", "ManufacturerModelName")))
    )
    regions = [
        *(s for s in items(header, "SegmentSequence") if algorithm_type(header, s) != "AUTOMATIC"),
        *items(header, "RTROIObservationsSequence"),
    ]
    uids = dict.fromkeys(text(region, "TrackingUID") for region in regions)
    author = storable(next(filter(None, names), equipment))
    return Sent(sop_instance_uid="", modality="", author=author, drawn=tuple(filter(None, uids)))


def _report(session: Session, objects: ObjectStore, header: Dataset) -> Sent:
    report = read_measured(header)
    told = [
        Told(
            tracking_uid=group.tracking_uid,
            role=_role(group),
            is_measured=any(number.name in SIZES for number in group.numbers),
            segment_uid=_segment_uid(session, objects, group) if report.person else None,
        )
        for group in report.groups
        if group.tracking_uid
    ]
    return Sent(sop_instance_uid="", modality="", author=storable(report.person), told=tuple(told))


def _role(group: MeasuredGroup) -> str | None:
    """Return the role that a group gives its lesion: by code, else by what the code means in words."""
    for code in group.said:
        for role, known in ROLES.items():
            if (code.value, code.scheme_designator) == (known.value, known.scheme_designator):
                return role
    words = [" ".join(code.meaning.casefold().replace("-", " ").split()) for code in group.said]
    return next((WORDS[said] for said in words if said in WORDS), None)


def _segment_uid(session: Session, objects: ObjectStore, group: MeasuredGroup) -> str | None:
    """Return `Sighting.choice_uid` of the segment that a group refers to, also of a SEG that was superseded."""
    if group.segment is None:
        return None
    seg, number = group.segment
    tables = (select(table.sha256).where(col(table.sop_instance_uid) == seg) for table in (Result, Instance))
    sha256 = next((found for one in tables if (found := session.exec(one).first())), None)
    header = None if sha256 is None else header_of(objects, sha256)
    segments = () if header is None else items(header, "SegmentSequence")
    written = (text(one, "TrackingUID") for one in segments if integer(one, "SegmentNumber") == number)
    uid = next(filter(None, written), None)
    ours = (
        select(Finding.before_uid)
        .join(Result, col(Result.job_pk) == col(Finding.job_pk))
        .where(col(Result.sop_instance_uid) == seg, col(Finding.tracking_uid) == uid)
    )
    return session.exec(ours).first() or uid


def _name(header: Dataset, keyword: str) -> str:
    return " ".join(text(header, keyword).replace("^", " ").split())


__all__ = ["Sent", "Told", "sent_to", "take_choices"]
