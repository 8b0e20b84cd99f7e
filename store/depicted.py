"""What a picture of a finding is made of: its numbers, its SEG, and the images that its analysis saw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session, col, func, select

from plugins.errors import Refused
from store.objects import ObjectStore
from store.sighting import Measure, Point
from store.sightings import measures_of
from store.tables import Finding, Instance, Job, Result, Revision, RevisionInstance, Series, Study


@dataclass(frozen=True, kw_only=True)
class Depicted:
    """A finding as a picture needs it."""

    finding_pk: int
    """Row."""
    study_instance_uid: str
    """Study."""
    revision_pk: int
    """Revision of the study that its analysis saw."""
    manifest_sha256: str
    """Hash of that revision's content."""
    series_instance_uid: str
    """Series that it was drawn on."""
    segment_number: int
    """Its segment."""
    seg_sha256: str
    """Object store name of the SEG that holds it; empty when none was written."""
    centroid_mm: Point
    """Centre, LPS mm."""
    measurements: Mapping[str, Measure]
    """By our names."""


def depicted(session: Session, finding_pk: int) -> Depicted:
    """Return what a picture of a finding is made of. Refuses `no-such-finding`."""
    row = session.exec(
        select(Finding, Revision, Study.study_instance_uid)
        .join(Job, col(Job.id) == col(Finding.job_pk))
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .join(Study, col(Study.id) == col(Finding.study_pk))
        .where(col(Finding.id) == finding_pk)
    ).first()
    if row is None:
        raise Refused("no-such-finding", "there is no such finding on this node")
    finding, revision, study = row
    return Depicted(
        finding_pk=finding_pk,
        study_instance_uid=study,
        revision_pk=int(revision.id or 0),
        manifest_sha256=revision.manifest_sha256,
        series_instance_uid=finding.series_instance_uid,
        segment_number=finding.segment_number,
        seg_sha256=_seg(session, finding),
        centroid_mm=(finding.centroid_x_mm, finding.centroid_y_mm, finding.centroid_z_mm),
        measurements=measures_of(session, [finding_pk]).get(finding_pk, {}),
    )


def images(session: Session, objects: ObjectStore, what: Depicted) -> tuple[tuple[str, Path], ...]:
    """Return SOP Instance UID and file of each image of the series as the analysis saw it; a file may be gone."""
    statement = (
        select(Instance.sop_instance_uid, Instance.sha256)
        .join(RevisionInstance, col(RevisionInstance.instance_pk) == col(Instance.id))
        .join(Series, col(Series.id) == col(Instance.series_pk))
        .where(
            col(RevisionInstance.revision_pk) == what.revision_pk,
            col(Series.series_instance_uid) == what.series_instance_uid,
        )
        .order_by(col(Instance.sop_instance_uid))
    )
    return tuple((uid, objects.path(sha256)) for uid, sha256 in session.exec(statement))


def _seg(session: Session, finding: Finding) -> str:
    """Return the SEG of a finding: a job writes one for each source series, in the order of its findings."""
    order = (
        select(Finding.series_instance_uid)
        .where(col(Finding.job_pk) == finding.job_pk)
        .group_by(col(Finding.series_instance_uid))
        .order_by(func.min(Finding.id))
    )
    place = list(session.exec(order)).index(finding.series_instance_uid)
    segs = select(Result.sha256).where(col(Result.job_pk) == finding.job_pk, col(Result.kind) == "seg")
    return session.exec(segs.order_by(col(Result.id)).offset(place).limit(1)).first() or ""


__all__ = ["Depicted", "depicted", "images"]
