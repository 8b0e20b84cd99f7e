"""What people drew or approved of a patient's lesions: the masks that a model may learn from.

A label is what a person drew (a region that somebody sent under the Tracking UID of a lesion of the patient, with other
voxels than Nadir's) or approved by a choice. What Nadir drew never is one by itself, under whatever UIDs it comes back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from sqlmodel import Session, col, select

from plugins.contract import Mask
from store.choices import APPROVED, OUTLINE
from store.chosen import Chosen, decided_of
from store.counting import MARKED
from store.course import Course
from store.dicom.common_voxels import overlaps
from store.dicom.uids import derive_uid
from store.drawings import CONTOURS, Drawing, why_not_a_persons
from store.identity import drawn as was_drawn
from store.labelled_study import LabelledStudy, Ours, Sent, read_labelled, sent_objects, uids_in
from store.objects import ObjectStore
from store.patient_key import patient_key
from store.patients import same_person
from store.person import Person, person
from store.sighting import Decision, Sighting
from store.sightings import is_lesion
from store.tables import Finding, Study

Origin = Literal["corrected", "approved", "drawn"]


@dataclass(frozen=True, kw_only=True)
class Label:
    """One mask of one lesion at one visit, by a person."""

    patient_pk: int
    """Row of the patient that speaks for all rows of the person."""
    patient_key: str
    """What stands for that patient (`store.patient_key`)."""
    study_instance_uid: str
    """Study."""
    series_instance_uid: str
    """Series of the images that it lies on."""
    modality: str
    """Modality of that series."""
    sop_instance_uid: str
    """The SEG or RTSTRUCT that holds the mask."""
    sha256: str
    """Object store name of that object."""
    number: int
    """Segment or ROI number in it."""
    tracking_uid: str
    """The lesion, as the course calls it now."""
    origin: Origin
    """corrected: drawn anew, or drawn where Nadir missed it at this visit; approved: what Nadir drew, as it is;
    drawn: a lesion that Nadir did not know."""
    author: str
    """Who, in words for people."""
    at: datetime
    """When it came here, or was approved; aware UTC."""
    plugin: str
    """Analysis that found the lesion; empty when none did."""
    model_sha256: str
    """Hash of its model; empty when it is not known."""


@dataclass(frozen=True, kw_only=True)
class Left:
    """Something that a person drew or approved and that is no label."""

    sop_instance_uid: str
    """The object; empty when none is here."""
    sentence: str
    """Why, for people; names no patient."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """What stands now."""

    labels: tuple[Label, ...]
    """By patient, study, series, lesion and region."""
    left: tuple[Left, ...]
    """What was left out."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Candidate:
    """A label with what decides whether another one takes its place."""

    label: Label
    lesion: str
    mask: Mask
    made_at: datetime


def labels(
    session: Session, objects: ObjectStore, study_pks: Collection[int] | None = None
) -> tuple[Label, ...]:
    """Return every label that stands now; see `labelled`."""
    return labelled(session, objects, study_pks=study_pks).labels


def labelled(
    session: Session, objects: ObjectStore, *, drawn: bool = False, study_pks: Collection[int] | None = None
) -> Labelled:
    """Return every label that stands now, and what was left out of what people drew or approved.

    Of one lesion at one visit on one series the newest counts, whoever drew it: of two objects by the clocks of their
    writers, of an object and an approval by when they came here. Lesions are called as they are after relinks. What was
    rejected is left out. With `drawn` also what people drew that Nadir did not know: regions without a Tracking UID of
    ours that are coded as lesions, or have no code and lie in an object beside a correction. With `study_pks` only
    those of these studies.
    """
    sent: defaultdict[int, list[Sent]] = defaultdict(list)
    for one in sent_objects(session, study_pks):
        sent[one.study_pk].append(one)
    owners = {pk: session.get_one(Study, pk).patient_pk for pk in sent}
    approving = set(decided_of(session, kind=OUTLINE))
    meant = {*owners.values(), *approving}
    decided = approving if study_pks is None else decided_of(session, study_pks)
    people = {same_person(session, pk) for pk in (*owners.values(), *decided)}
    people = {members for members in people if not meant.isdisjoint(members)}
    found: list[Label] = []
    left: list[Left] = []
    for members in sorted(people):
        own = {pk: many for pk, many in sent.items() if owners[pk] in members}
        found += _of_person(session, objects, members, own, drawn, left, study_pks)
    return Labelled(labels=tuple(found), left=tuple(left))


def _of_person(
    session: Session,
    objects: ObjectStore,
    members: Sequence[int],
    sent: dict[int, list[Sent]],
    drawn: bool,
    left: list[Left],
    study_pks: Collection[int] | None,
) -> list[Label]:
    known = person(session, objects, members)
    if not known.head.patient_id:
        left += [
            _left(one, "its patient has no PatientID, so nobody knows who it is")
            for own in sent.values()
            for one in own
        ]
        return []
    found: list[Label] = []
    statement = select(Study.id, Study.study_instance_uid).where(col(Study.patient_pk).in_(members))
    if study_pks is not None:
        statement = statement.where(col(Study.id).in_(study_pks))
    for study_pk, study in session.exec(statement.order_by(col(Study.study_instance_uid))).all():
        own = sent.get(int(study_pk or 0), [])
        wanted = [one for one in own if _may_hold(session, objects, one, known, drawn, left)]
        approved = list(_approved(known.course, study))
        if wanted or approved:
            there = read_labelled(session, objects, int(study_pk or 0), wanted)
            # What people call a region may be a name, and this is told in logs.
            left += [_left(one, flag.sentence.rpartition("': ")[2]) for one, flag in there.refused]
            candidates = [
                *_corrected(known, study, there, left),
                *_of_approvals(known, study, there, approved, left),
            ]
            if drawn:
                candidates += _missed(known, study, there, candidates, left)
            found += _standing(candidates)
    return found


def _left(sent: Sent, sentence: str) -> Left:
    return Left(sop_instance_uid=sent.sop_instance_uid, sentence=sentence)


def _may_hold(
    session: Session, objects: ObjectStore, sent: Sent, known: Person, drawn: bool, left: list[Left]
) -> bool:
    """Return whether an object may hold labels, by what its header says."""
    uids = uids_in(objects, sent)
    if uids is None:
        left.append(_left(sent, "it is no longer in the object store, or cannot be read"))
        return False
    others = select(Finding.id).where(col(Finding.tracking_uid).in_(uids - known.uids))
    if session.exec(others.where(col(Finding.patient_pk).not_in(known.members))).first() is not None:
        left.append(_left(sent, "it names a lesion of another patient"))
    return drawn or bool(uids & known.uids)


def _corrected(known: Person, study: str, there: LabelledStudy, left: list[Left]) -> Iterator[_Candidate]:
    """Yield what people drew of lesions that Nadir knows."""
    for sent, drawing in there.theirs:
        uid = drawing.region.tracking_uid or ""
        if uid in known.uids:
            yield from _candidate(known, study, there, sent, drawing, uid, "corrected", left)


def _missed(
    known: Person, study: str, there: LabelledStudy, found: Collection[_Candidate], left: list[Left]
) -> Iterator[_Candidate]:
    """Yield what people drew of lesions that Nadir does not know."""
    beside = {one.label.sop_instance_uid for one in found if one.label.origin == "corrected"}
    for sent, drawing in there.theirs:
        region = drawing.region
        uid = region.tracking_uid or ""
        coded = is_lesion(region.type_code, region.category_code)
        is_meant = coded or (region.type_code is None and sent.sop_instance_uid in beside)
        if uid in known.uids or not is_meant or drawing.algorithm_type == "AUTOMATIC":
            continue
        # What `contours` calls a region that has no Tracking UID.
        key = f"{sent.sop_instance_uid}:{region.number}"
        uid = uid or derive_uid(study, "tracking", CONTOURS, region.series_instance_uid, key)
        yield from _candidate(known, study, there, sent, drawing, uid, "drawn", left)


def _candidate(
    known: Person,
    study: str,
    there: LabelledStudy,
    sent: Sent,
    drawing: Drawing,
    uid: str,
    origin: Origin,
    left: list[Left],
) -> Iterator[_Candidate]:
    """Yield the label that a region is, if it is one; else note why it is none."""
    why = why_not_a_persons(drawing, [one.drawing for one in there.ours])
    tracking, lesion = known.name(uid, study)
    if why is None and (who := known.rejected_by(tracking, lesion, study)) is not None:
        why = f"{who} said that it is no lesion"
    if why is not None:
        if not (drawing.is_ours and drawing.is_as_made):  # what came back as it went is nobody's
            left.append(_left(sent, f"region {drawing.region.number}: {why}"))
        return
    here = [(o.plugin, o.model_sha256) for o in there.ours if o.drawing.region.tracking_uid == uid]
    seen = [(s.plugin, s.model_sha256) for s in known.course.sightings if s.lesion == lesion and s.automatic]
    by = (*here[-1:], *([known.made_by[uid]] if uid in known.made_by else []), *seen[-1:], ("", ""))[0]
    received = sent.received_at.astimezone(UTC)
    label = _label(known, study, drawing, tracking, origin, drawing.author, received, by)
    made_at = drawing.made_at or received.replace(tzinfo=None)
    yield _Candidate(label=label, lesion=lesion, mask=drawing.mask, made_at=made_at)


def _label(
    known: Person,
    study: str,
    drawing: Drawing,
    tracking_uid: str,
    origin: Origin,
    author: str,
    at: datetime,
    by: tuple[str, str],
) -> Label:
    plugin, model_sha256 = ("", "") if origin == "drawn" else by
    return Label(
        patient_pk=int(known.head.id or 0),
        patient_key=patient_key(known.head.patient_id),
        study_instance_uid=study,
        series_instance_uid=drawing.region.series_instance_uid,
        modality=drawing.modality,
        sop_instance_uid=drawing.region.source_sop_instance_uid,
        sha256=drawing.sha256,
        number=drawing.region.number,
        tracking_uid=tracking_uid,
        origin=origin,
        author=author,
        at=at,
        plugin=plugin,
        model_sha256=model_sha256,
    )


def _approved(known: Course, study: str) -> Iterator[tuple[Sighting, Decision]]:
    """Yield what Nadir drew at a study that somebody approved, first what was drawn where a person pointed."""
    there = [s for s in known.sightings if s.study_instance_uid == study and s.automatic and was_drawn(s)]
    for one in sorted(there, key=lambda s: (s.counts, s.plugin == MARKED, s.confidence or 0.0), reverse=True):
        said = [d for d in one.decisions if d.kind == OUTLINE]
        if said and said[-1].value == APPROVED:
            yield one, said[-1]


def _of_approvals(
    known: Person,
    study: str,
    there: LabelledStudy,
    approved: Sequence[tuple[Sighting, Decision]],
    left: list[Left],
) -> Iterator[_Candidate]:
    """Yield what was approved: of each lesion one mask a series, the one that was there when it was approved."""
    done: set[tuple[str, str]] = set()
    for sighting, decision in approved:
        options = [
            one
            for one in there.ours
            if one.drawing.region.tracking_uid == _called(sighting, study, one.at, known.chosen)
            and one.plugin in (sighting.plugin, "")
            and one.at <= decision.at
        ]
        named = f"what {decision.author} approved of '{sighting.label}'"
        if not options:
            left.append(Left(sop_instance_uid="", sentence=f"{named}: the SEG or its images are not here"))
            continue
        best = options[-1]
        place = (sighting.tracking_uid, best.drawing.region.series_instance_uid)
        if place in done:
            continue
        done.add(place)
        if (who := known.rejected_by(sighting.tracking_uid, sighting.lesion, study)) is not None:
            sop = best.drawing.region.source_sop_instance_uid
            left.append(Left(sop_instance_uid=sop, sentence=f"{named}: {who} said that it is no lesion"))
            continue
        yield _approval(known, study, best, sighting, decision)


def _called(sighting: Sighting, study: str, at: datetime, decided: Chosen) -> str:
    """Return what a drawing of Nadir was called in a SEG of a time: after the relinks of it that were made by then."""
    made = [d.value for d in decided.moves.get((sighting.choice_uid, study), ()) if d.at <= at]
    return made[-1] if made else sighting.choice_uid


def _approval(known: Person, study: str, best: Ours, sighting: Sighting, decision: Decision) -> _Candidate:
    by = (best.plugin, best.model_sha256)
    author, at = decision.author, decision.at.astimezone(UTC)
    label = _label(known, study, best.drawing, sighting.tracking_uid, "approved", author, at, by)
    made_at = at.replace(tzinfo=None)
    return _Candidate(label=label, lesion=sighting.lesion, mask=best.drawing.mask, made_at=made_at)


def _standing(candidates: Sequence[_Candidate]) -> list[Label]:
    """Return the newest of each lesion, by series and Tracking UID."""
    order = sorted(candidates, key=lambda c: (c.made_at, c.label.at, c.label.sop_instance_uid), reverse=True)
    kept: list[_Candidate] = []
    for one in (c for c in order if c.label.origin != "approved"):
        if not any(_same_lesion(one, other) for other in kept):
            kept.append(one)
    for one in (c for c in order if c.label.origin == "approved"):
        rivals = [other for other in kept if _same_lesion(one, other)]
        if all(one.label.at > other.label.at for other in rivals):
            kept = [*(other for other in kept if other not in rivals), one]
    found = [one.label for one in kept]
    return sorted(found, key=lambda c: (c.series_instance_uid, c.tracking_uid, c.sop_instance_uid, c.number))


def _same_lesion(one: _Candidate, other: _Candidate) -> bool:
    """Return whether two labels of a visit are of one lesion: by name, or by name of the whole and common voxels."""
    a, b = one.label, other.label
    if a.series_instance_uid != b.series_instance_uid:
        return False
    if a.tracking_uid == b.tracking_uid and a.sop_instance_uid != b.sop_instance_uid:
        return True
    unknown = "drawn" in (a.origin, b.origin)
    return (unknown or one.lesion == other.lesion) and overlaps(one.mask, other.mask)


__all__ = ["Label", "Labelled", "Left", "labelled", "labels"]
