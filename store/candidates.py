"""What people could look at next: every lesion that Nadir drew, how unsure it was of it, and whether anybody looked.

A finding was reviewed when a mask of a person stands for it (`store.labels`), or when somebody confirmed it, judged its
outline or rejected it; a study without one when somebody drew in it what was not found.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from sqlalchemy import ColumnElement, or_, select
from sqlmodel import Session, col

from plugins import codes
from store.chosen import Chosen, chosen, decided_of
from store.labels import Label
from store.model_tables import FindingDoubt, SeriesFact
from store.patient_key import patient_key
from store.sides import Side, Sides
from store.sightings import COUNTING, LESIONS
from store.tables import Finding, Job, Measurement, Patient, Refusal, Revision, Study

REVIEWS: Final = {"confirm": ("true",), "reject": ("true",), "outline": ()}
"""Choices that say that a person looked at a finding, and what they have to say for it; nothing listed for anything."""
DOUBTS: Final = ("entropy", "dice_deficit", "disagreement")
"""Uncertainties that are read."""
UNSEEN: Final = "drawn-classically"
"""Code of what is told of a finding that the classical procedure drew because the networks see nothing there."""


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What a series was like."""

    scanner: str
    """Manufacturer and model."""
    kernel: str
    """ConvolutionKernel."""
    slice_distance_mm: float
    """Between slice centres."""
    unit: str
    """UCUM code of the voxels."""
    histogram: tuple[float, ...]
    """Shares of voxels as in `store.facts.EDGES`; empty without."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A lesion that was drawn, or a study in which an analysis found none."""

    patient_id: str
    """PatientID; empty when nobody knows who it is."""
    issuer: str = ""
    """IssuerOfPatientID."""
    person: str
    """The same for all identifiers of a person."""
    side: Side | None = None
    """On which side of learning and judging the person stands; None before the lot was drawn."""
    study_instance_uid: str
    """Study."""
    study_date: date | None = None
    """Its date."""
    series_instance_uid: str = ""
    """Series that was looked at."""
    plugin: str
    """Analysis."""
    model_sha256: str = ""
    """Hash of its model; empty when nothing in it is learned."""
    label: str = ""
    """The finding as people read it; empty when nothing was found."""
    tracking_uid: str = ""
    """Its Tracking UID as it is written; empty when nothing was found."""
    long_axis_mm: float | None = None
    """Its long axis."""
    site: str = ""
    """Its organ, in words."""
    uncertainties: Mapping[str, float] = field(default_factory=dict)
    """How unsure the networks were, by the names of `DOUBTS`."""
    is_unseen: bool = False
    """Whether the networks see nothing where the classical procedure drew it."""
    traits: Traits | None = None
    """What the series was like; None when that was not kept."""
    is_labelled: bool = False
    """Whether a mask of a person stands for it."""
    is_reviewed: bool = False
    """Whether a person looked at it, with or without a mask."""


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Everything that was drawn, and what series people drew on."""

    found: tuple[Candidate, ...]
    """By study and number of the finding."""
    labelled: tuple[Traits, ...]
    """Of every series that a mask of a person stands on, once for each mask."""


def candidates(session: Session, labels: Collection[Label], sides: Sides) -> Candidates:
    """Return what counts of every study, with the labels that stand and the sides of the persons."""
    facts = _facts(session)
    doubts, axes, unseen = _doubts(session), _long_axes(session), _unseen(session)
    reviewed = _reviewed(session, labels)
    found = []
    for row in _rows(session):
        is_labelled, is_reviewed = reviewed.of(row.study_instance_uid, row.tracking_uid)
        found.append(
            Candidate(
                **_whose(row, sides),
                series_instance_uid=row.series_instance_uid,
                label=row.label,
                tracking_uid=row.tracking_uid,
                long_axis_mm=axes.get(row.id),
                site=row.site_meaning or "",
                uncertainties=doubts.get(row.id, {}),
                is_unseen=any(said.startswith(f"'{row.label}':") for said in unseen.get(row.job_pk, ())),
                traits=facts.get((row.job_pk, row.series_instance_uid)),
                is_labelled=is_labelled,
                is_reviewed=is_reviewed,
            )
        )
    for row in _empty(session):
        was_seen = row.study_instance_uid in reviewed.drawn_in
        found.append(
            Candidate(
                **_whose(row, sides),
                series_instance_uid=row.series_instance_uid,
                traits=facts[row.job_pk, row.series_instance_uid],
                is_labelled=was_seen,
                is_reviewed=was_seen,
            )
        )
    of_series = {series: traits for (_, series), traits in facts.items()}
    on = [of_series[one.series_instance_uid] for one in labels if one.series_instance_uid in of_series]
    return Candidates(found=tuple(found), labelled=tuple(on))


def looked_at(
    session: Session, labels: Collection[Label], study_pks: Collection[int]
) -> dict[str, tuple[tuple[bool, ...], bool]]:
    """Return of each of these studies, by its UID, what `candidates` says of whether a person looked at it.

    First whether somebody looked at each lesion that was drawn, then whether at a lesion or where none was found.
    """
    reviewed = _reviewed(session, labels, study_pks)
    lesions: defaultdict[str, list[bool]] = defaultdict(list)
    for row in _rows(session, study_pks):
        lesions[row.study_instance_uid].append(reviewed.of(row.study_instance_uid, row.tracking_uid)[1])
    empty = {row.study_instance_uid for row in _empty(session, study_pks)} & reviewed.drawn_in
    return {uid: (tuple(lesions[uid]), any(lesions[uid]) or uid in empty) for uid in (*lesions, *empty)}


def _whose(row: Any, sides: Sides) -> dict[str, Any]:
    key = patient_key(row.patient_id) if row.patient_id else f"row {row.patient_pk}"
    return {
        "patient_id": row.patient_id,
        "issuer": row.issuer,
        "person": sides.person.get(key, key),
        "side": sides.of(key),
        "study_instance_uid": row.study_instance_uid,
        "study_date": row.study_date,
        "plugin": row.plugin,
        "model_sha256": row.model_sha256,
    }


WHOSE: Final = (
    col(Patient.patient_id),
    col(Patient.issuer),
    col(Study.patient_pk),
    col(Study.study_instance_uid),
    col(Study.study_date),
    col(Job.plugin),
    col(Job.model_sha256),
)


def _rows(session: Session, study_pks: Collection[int] | None = None) -> list[Any]:
    """Return the lesions that count, of some studies or of all."""
    lesion = or_(
        col(Finding.category_value) == codes.MORPHOLOGICALLY_ABNORMAL.value,
        col(Finding.type_value).in_([code.value for code in LESIONS]),
    )
    statement = (
        select(
            *WHOSE,
            col(Finding.id),
            col(Finding.job_pk),
            col(Finding.series_instance_uid),
            col(Finding.label),
            col(Finding.tracking_uid),
            col(Finding.site_meaning),
        )
        .join(Job, col(Job.id) == col(Finding.job_pk))
        .join(Study, col(Study.id) == col(Finding.study_pk))
        .join(Patient, col(Patient.id) == col(Study.patient_pk))
        .where(~col(Finding.superseded), col(Finding.automatic), lesion, col(Job.state).in_(COUNTING))
        .where(*_among(study_pks))
        .order_by(col(Study.id), col(Finding.id))
    )
    return list(session.execute(statement))


def _among(study_pks: Collection[int] | None) -> tuple[ColumnElement[bool], ...]:
    return () if study_pks is None else (col(Study.id).in_(study_pks),)


def _empty(session: Session, study_pks: Collection[int] | None = None) -> list[Any]:
    """Return the newest revisions that an analysis looked at and found nothing in, with the first series of each."""
    statement = (
        select(*WHOSE, col(SeriesFact.job_pk), col(SeriesFact.series_instance_uid))
        .join(Job, col(Job.id) == col(SeriesFact.job_pk))
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .join(Study, col(Study.id) == col(Revision.study_pk))
        .join(Patient, col(Patient.id) == col(Study.patient_pk))
        .outerjoin(Finding, col(Finding.job_pk) == col(Job.id))
        .where(
            col(Finding.id).is_(None),
            col(Job.state).in_(COUNTING),
            col(Revision.number) == col(Study.revision),
            *_among(study_pks),
        )
        .order_by(col(SeriesFact.id).desc())
    )
    return list({(row.study_instance_uid, row.plugin): row for row in session.execute(statement)}.values())[
        ::-1
    ]


def _facts(session: Session) -> dict[tuple[int, str], Traits]:
    statement = select(
        col(SeriesFact.job_pk),
        col(SeriesFact.series_instance_uid),
        col(SeriesFact.manufacturer),
        col(SeriesFact.manufacturer_model_name),
        col(SeriesFact.convolution_kernel),
        col(SeriesFact.slice_distance_mm),
        col(SeriesFact.unit),
        col(SeriesFact.histogram),
    ).order_by(col(SeriesFact.id))
    return {
        (job_pk, series): Traits(
            scanner=f"{maker} {model}".strip(),
            kernel=kernel,
            slice_distance_mm=slice_mm,
            unit=unit,
            histogram=tuple(json.loads(shares)),
        )
        for job_pk, series, maker, model, kernel, slice_mm, unit, shares in session.execute(statement)
    }


def _doubts(session: Session) -> dict[int, dict[str, float]]:
    found: defaultdict[int, dict[str, float]] = defaultdict(dict)
    columns = (col(FindingDoubt.finding_pk), col(FindingDoubt.name), col(FindingDoubt.value))
    for finding_pk, name, value in session.execute(select(*columns).where(columns[1].in_(DOUBTS))):
        found[finding_pk][name] = value
    return found


def _long_axes(session: Session) -> dict[int, float]:
    columns = (col(Measurement.finding_pk), col(Measurement.value))
    rows = session.execute(select(*columns).where(col(Measurement.name) == "long_axis"))
    return {finding_pk: value for finding_pk, value in rows}


def _unseen(session: Session) -> dict[int, list[str]]:
    found: defaultdict[int, list[str]] = defaultdict(list)
    rows = session.execute(
        select(col(Refusal.job_pk), col(Refusal.sentence)).where(col(Refusal.code) == UNSEEN)
    )
    for job_pk, sentence in rows:
        found[job_pk].append(sentence)
    return found


@dataclass(frozen=True, kw_only=True)
class _Reviewed:
    """What people said of the findings."""

    looked: frozenset[tuple[str, str]]
    """Study (empty for all) and Tracking UID, as written or as the course calls it."""
    names: Mapping[tuple[str, str], str]
    """What a finding is called after relinks, by study and Tracking UID as written."""
    known: frozenset[tuple[str, str]]
    """Study and Tracking UID of the masks of people."""
    drawn_in: frozenset[str]
    """Studies of these."""

    def of(self, study: str, uid: str) -> tuple[bool, bool]:
        """Return of a finding, as it is written, whether a mask of a person stands for it, and whether one looked."""
        names = {uid, self.names.get((study, uid), uid)}
        is_labelled = any((study, name) in self.known for name in names)
        return is_labelled, is_labelled or any(
            (at, name) in self.looked for at in (study, "") for name in names
        )


def _reviewed(
    session: Session, labels: Collection[Label], study_pks: Collection[int] | None = None
) -> _Reviewed:
    looked, names = set(), {}
    for patient_pk in decided_of(session, study_pks):
        said: Chosen = chosen(session, patient_pk)
        for one in said.counting:
            wanted = REVIEWS.get(one.kind)
            if wanted is not None and (not wanted or one.value in wanted):
                looked.add((one.study_instance_uid, one.tracking_uid))
        for (uid, study), decision in said.relinks.items():
            names[study, uid] = decision.value
    return _Reviewed(
        looked=frozenset(looked),
        names=names,
        known=frozenset((one.study_instance_uid, one.tracking_uid) for one in labels),
        drawn_in=frozenset(one.study_instance_uid for one in labels),
    )


__all__ = ["DOUBTS", "Candidate", "Candidates", "Traits", "candidates", "looked_at"]
