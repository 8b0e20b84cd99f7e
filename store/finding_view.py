"""The findings of a study as people look at them: measured how, how sure, which lesion, who decided what."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, func, select

from plugins import codes
from plugins.errors import Refused
from store.assessment import Assessment, assessment
from store.by_hand import PLUGIN as REPORT
from store.course import Course, course
from store.identity import drawn
from store.measurement_view import MeasurementView, measured_in, measurements_of
from store.model_tables import FindingDoubt
from store.objects import ObjectStore
from store.sighting import Decision, Sighting
from store.sightings import finding_is_lesion
from store.tables import Finding, Job, LesionLink, Refusal, Study


@dataclass(frozen=True, kw_only=True)
class IdentityView:
    """Which lesion of the patient it is."""

    tracking_uid: str
    """Its own Tracking UID after what people relinked."""
    lesion_uid: str
    """Tracking UID that the course counts it under: of a fragment that of the whole."""
    lesion_name: str
    """What the course calls it."""
    kind: str
    """What became of it since the time before (`store.tracking.link.Kind`); empty when nothing was compared."""
    confidence: float | None
    """0 to 1: how sure the tracking was."""
    reason: str
    """The numbers that decided it."""
    compared_with: str
    """Study Instance UID that it was compared with; empty for none."""


@dataclass(frozen=True, kw_only=True)
class FindingView:
    """One finding."""

    finding_pk: int
    """Row."""
    job_pk: int
    """Row of the job that found it."""
    patient_pk: int
    """Row of the patient."""
    study_instance_uid: str
    """Study."""
    series_instance_uid: str
    """Series that it was drawn on."""
    segment_number: int
    """Its segment in the SEG of its analysis."""
    label: str
    """What people read."""
    tracking_uid: str
    """Tracking UID as it is written in SEG and SR."""
    type: str
    """What it is, in words."""
    site: str
    """Organ with its side, in words, as people corrected it; empty when it is not known."""
    plugin: str
    """Analysis."""
    plugin_version: str
    """Its version."""
    model_sha256: str
    """Hash of its model; empty when it has none."""
    is_lesion: bool
    """False for organs and places to measure at."""
    is_automatic: bool
    """False when a person drew it."""
    is_superseded: bool
    """Whether a newer analysis counts instead."""
    confidence: float | None
    """0 to 1: how sure the analysis was that it is one; None when it made no claim."""
    measurements: tuple[MeasurementView, ...]
    """What was measured."""
    by_hand: tuple[MeasurementView, ...]
    """What a person measured of it in a report of theirs: counts instead."""
    remarks: tuple[str, ...]
    """What a reader should know of what a person measured of it: sentences."""
    said: tuple[str, ...]
    """Intervals and doubts that were told of it, in sentences."""
    doubts: Mapping[str, float]
    """How unsure the networks were, by the names of `models.uncertainty.CaseUncertainty`."""
    identity: IdentityView | None
    """Which lesion it is; None for what is not followed."""
    status: str
    """What was seen, as people corrected it; empty for what is not followed."""
    role: str
    """What it is to the criteria; empty for nothing."""
    role_by: str
    """Who said so."""
    role_because: str
    """Why, in words, when the rules of selection said so; else empty."""
    node: bool
    """Whether it counts as a lymph node."""
    counts: bool
    """False when another one of the same lesion counts instead, or it was rejected."""
    note: str
    """Why it does not count."""
    decisions: tuple[Decision, ...]
    """What people decided of it and still stands, oldest first."""
    assessment: Assessment
    """What a person made of it."""

    def measurement(self, name: str) -> MeasurementView | None:
        """Return a measurement by our name, None when there is none."""
        return next((one for one in self.measurements if one.name == name), None)

    def counting(self, name: str) -> MeasurementView | None:
        """Return the measurement of a name that counts, a person's before ours; None when there is none."""
        return next((one for one in (*self.by_hand, *self.measurements) if one.name == name), None)

    @property
    def key_image(self) -> str:
        """Return the SOP Instance UID of the image of its long axis; empty when that is not known."""
        axis = self.measurement("long_axis")
        return "" if axis is None else axis.sop_instance_uid or ""


@dataclass(frozen=True, kw_only=True)
class Missed:
    """A lesion of an earlier date that was looked for and not drawn here."""

    label: str
    """What the course calls it."""
    tracking_uid: str
    """Its lesion."""
    kind: str
    """A `store.tracking.link.Kind` of what was not drawn."""
    status: str
    """What it is to the criteria, as people corrected it."""
    confidence: float
    """0 to 1."""
    reason: str
    """Why, in words."""
    decisions: tuple[Decision, ...]
    """What people decided of it."""


@dataclass(frozen=True, kw_only=True)
class FindingPage:
    """Some of the findings of a study."""

    findings: tuple[FindingView, ...]
    """Lesions first, in the order of the analyses, then as they were found."""
    total: int
    """How many there are in all."""
    others: int
    """How many there are of those that count no longer; of these how many count."""
    missed: tuple[Missed, ...]
    """Lesions of earlier dates that were not drawn here."""
    lesions: Mapping[str, str]
    """Names of all lesions of the patient by Tracking UID: what a finding may be relinked to."""


def findings_of(
    session: Session,
    study_pk: int,
    objects: ObjectStore | None = None,
    *,
    superseded: bool = False,
    offset: int = 0,
    limit: int = 50,
) -> FindingPage:
    """Return findings of a study with what people decided; `superseded` gives those that count no longer instead.

    With the object store as `store.course.course` tells of them: also with what came here in reports.
    """
    study = session.get_one(Study, study_pk)
    counting = (
        select(Finding.superseded, func.count())
        .where(col(Finding.study_pk) == study_pk)
        .group_by(col(Finding.superseded))
    )
    counts = {bool(gone): count for gone, count in session.exec(counting)}
    is_abnormal = col(Finding.category_value) == codes.MORPHOLOGICALLY_ABNORMAL.value
    rows = session.exec(
        select(Finding, Job)
        .join(Job, col(Job.id) == col(Finding.job_pk))
        .where(col(Finding.study_pk) == study_pk, col(Finding.superseded) == superseded)
        .order_by(is_abnormal.desc(), col(Job.plugin), col(Job.id).desc(), col(Finding.id))
        .offset(offset)
        .limit(limit)
    ).all()
    known = course(session, study.patient_pk, objects)
    return FindingPage(
        findings=_views(session, study.study_instance_uid, rows, known),
        total=counts.get(superseded, 0),
        others=counts.get(not superseded, 0),
        missed=() if superseded or offset else _missed(known, study.study_instance_uid),
        lesions=known.names,
    )


def findings_mark(session: Session, study_pk: int) -> str:
    """Return what changes whenever other findings of a study count."""
    counting = (col(Finding.study_pk) == study_pk, ~col(Finding.superseded))
    count, last = session.exec(select(func.count(), func.max(Finding.id)).where(*counting)).one()
    return f"{count}-{last or 0}"


def finding_view(session: Session, finding_pk: int, objects: ObjectStore | None = None) -> FindingView:
    """Return one finding, with the object store as `findings_of`. Refuses `no-such-finding`."""
    row = session.exec(
        select(Finding, Job, Study.study_instance_uid)
        .join(Job, col(Job.id) == col(Finding.job_pk))
        .join(Study, col(Study.id) == col(Finding.study_pk))
        .where(col(Finding.id) == finding_pk)
    ).first()
    if row is None:
        raise Refused("no-such-finding", "there is no such finding on this node")
    finding, job, study = row
    (view,) = _views(session, study, [(finding, job)], course(session, finding.patient_pk, objects))
    return view


def _views(
    session: Session, study: str, rows: Sequence[tuple[Finding, Job]], known: Course
) -> tuple[FindingView, ...]:
    pks = [int(finding.id or 0) for finding, _ in rows]
    measured = measurements_of(session, pks)
    said = _said(session, {finding.job_pk for finding, _ in rows})
    doubts: defaultdict[int, dict[str, float]] = defaultdict(dict)
    for row in session.exec(select(FindingDoubt).where(col(FindingDoubt.finding_pk).in_(pks))):
        doubts[row.finding_pk][row.name] = row.value
    links = {
        link.finding_pk: link
        for link in session.exec(select(LesionLink).where(col(LesionLink.finding_pk).in_(pks)))
    }
    here = [one for one in known.sightings if one.study_instance_uid == study]
    by_place = {(s.plugin, s.written_uid, s.series_instance_uid): s for s in here if drawn(s)}
    found = []
    for finding, job in rows:
        pk = int(finding.id or 0)
        place = (job.plugin, finding.tracking_uid, finding.series_instance_uid)
        seen = None if finding.superseded else by_place.get(place)
        names = tuple(f"'{name}'" for name in (finding.label, finding.tracking_identifier) if name)
        told = tuple(s for s in said[finding.job_pk] if s.startswith(names))
        found.append(
            _view(finding, job, study, seen, here, known, links.get(pk), measured[pk], told, doubts[pk])
        )
    return tuple(found)


def _view(
    finding: Finding,
    job: Job,
    study: str,
    seen: Sighting | None,
    here: Sequence[Sighting],
    known: Course,
    link: LesionLink | None,
    measured: Sequence[MeasurementView],
    said: tuple[str, ...],
    doubts: Mapping[str, float],
) -> FindingView:
    site = finding.site_meaning or "" if seen is None else seen.site
    side = finding.laterality_meaning if site == finding.site_meaning else None
    is_lesion = seen is not None or finding_is_lesion(finding)
    own = [one for one in here if seen and one.tracking_uid == seen.tracking_uid and one.plugin == REPORT]
    return FindingView(
        finding_pk=int(finding.id or 0),
        job_pk=finding.job_pk,
        patient_pk=finding.patient_pk,
        study_instance_uid=study,
        series_instance_uid=finding.series_instance_uid,
        segment_number=finding.segment_number,
        label=finding.label,
        tracking_uid=finding.tracking_uid,
        type=finding.type_meaning,
        site=f"{side} {site}".lower() if side else site,
        plugin=job.plugin,
        plugin_version=job.plugin_version,
        model_sha256=job.model_sha256,
        is_lesion=is_lesion,
        is_automatic=finding.automatic,
        is_superseded=finding.superseded,
        confidence=finding.confidence,
        measurements=tuple(measured),
        by_hand=tuple(measured_in(own)),
        remarks=() if seen is None else (*seen.remarks, *(words for one in own for words in one.remarks)),
        said=said,
        doubts=doubts,
        identity=_identity(finding, seen, known, link) if is_lesion else None,
        status="" if seen is None else seen.status.value,
        role="" if seen is None or seen.role is None else seen.role.value,
        role_by="" if seen is None else seen.role_by,
        role_because="" if seen is None else seen.role_because,
        node=seen is not None and seen.node,
        counts=seen is None or seen.counts,
        note="" if seen is None else seen.note,
        decisions=() if seen is None else seen.decisions,
        assessment=assessment(seen, here),
    )


def _identity(
    finding: Finding, seen: Sighting | None, known: Course, link: LesionLink | None
) -> IdentityView:
    lesion = finding.tracking_uid if seen is None else seen.lesion
    return IdentityView(
        tracking_uid=finding.tracking_uid if seen is None else seen.tracking_uid,
        lesion_uid=lesion,
        lesion_name=known.names.get(lesion, finding.label),
        kind="" if link is None else link.kind,
        confidence=None if link is None else link.confidence,
        reason="" if link is None else link.reason,
        compared_with="" if link is None else link.earlier_study_instance_uid,
    )


def _said(session: Session, job_pks: set[int]) -> dict[int, list[str]]:
    """Return the doubts of each job; one about a finding begins with its label or its Tracking ID."""
    found: defaultdict[int, list[str]] = defaultdict(list)
    statement = select(Refusal.job_pk, Refusal.sentence).where(
        col(Refusal.job_pk).in_(job_pks), ~col(Refusal.refused)
    )
    for job_pk, sentence in session.exec(statement.order_by(col(Refusal.id))):
        found[job_pk].append(sentence)
    return found


def _missed(known: Course, study: str) -> tuple[Missed, ...]:
    return tuple(
        Missed(
            label=known.names.get(one.lesion, one.label),
            tracking_uid=one.tracking_uid,
            kind=one.link.kind.value,
            status=one.status.value,
            confidence=one.link.confidence,
            reason=one.link.reason,
            decisions=one.decisions,
        )
        for one in known.sightings
        if one.study_instance_uid == study and not drawn(one) and one.link is not None
    )


__all__ = [
    "FindingPage", "FindingView", "IdentityView", "MeasurementView", "Missed", "finding_view", "findings_mark",
    "findings_of",
]  # fmt: skip
