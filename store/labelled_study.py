"""What lies on the images of one study: what Nadir drew of lesions, and the regions that others sent."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session, col, select

from plugins.contract import Flag
from plugins.errors import Refused
from store.dicom.files import read_file
from store.dicom.series import REGIONS, read_grids
from store.dicom.values import quiet
from store.drawings import Drawing, read_drawings, tracking_uids
from store.objects import ObjectStore
from store.sightings import finding_is_lesion
from store.tables import Finding, Instance, Job, Result, Revision, Series


@dataclass(frozen=True, kw_only=True)
class Sent:
    """An object with regions that came here and that is no result of this node."""

    study_pk: int
    """Row of its study."""
    sop_instance_uid: str
    """SOP Instance UID."""
    sha256: str
    """Object store name."""
    received_at: datetime
    """When it came."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ours:
    """A region that Nadir drew by itself."""

    drawing: Drawing
    """Where."""
    plugin: str
    """Analysis that drew it; as far as known for one of another node."""
    model_sha256: str
    """Hash of its model; empty when it is not known."""
    at: datetime
    """When it was written, or came here."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledStudy:
    """The regions of one study."""

    ours: tuple[Ours, ...]
    """What Nadir drew, also what a newer analysis has taken the place of, in the order in which it was written."""
    theirs: tuple[tuple[Sent, Drawing], ...]
    """What others sent."""
    refused: tuple[tuple[Sent, Flag], ...]
    """What of that cannot be used."""


def sent_objects(session: Session, study_pks: Collection[int] | None = None) -> tuple[Sent, ...]:
    """Return every current object with regions that this node did not write, of some studies or of all."""
    statement = (
        select(Series.study_pk, Instance.sop_instance_uid, Instance.sha256, Instance.received_at)
        .join(Series, col(Series.id) == col(Instance.series_pk))
        .where(col(Series.modality).in_(REGIONS), col(Instance.current))
        .where(col(Instance.sha256).not_in(select(Result.sha256)))
        .order_by(col(Instance.sop_instance_uid))
    )
    if study_pks is not None:
        statement = statement.where(col(Series.study_pk).in_(study_pks))
    return tuple(
        Sent(study_pk=study_pk, sop_instance_uid=uid, sha256=sha256, received_at=at)
        for study_pk, uid, sha256, at in session.exec(statement)
    )


def uids_in(objects: ObjectStore, sent: Sent) -> frozenset[str] | None:
    """Return the Tracking UIDs in an object; None when it is gone or broken."""
    try:
        with quiet():
            file = read_file(objects.path(sent.sha256))
            return None if file is None else tracking_uids(file.header)
    except Refused:
        return None


def read_labelled(
    session: Session, objects: ObjectStore, study_pk: int, sent: Collection[Sent]
) -> LabelledStudy:
    """Return the regions of one study on the grids of its images, whose values are not read."""
    images = (
        select(Instance.sha256)
        .join(Series, col(Series.id) == col(Instance.series_pk))
        .where(col(Series.study_pk) == study_pk, col(Instance.current), ~col(Instance.own))
        .where(col(Series.modality).not_in(REGIONS))
    )
    grids = read_grids([objects.path(sha256) for sha256 in session.exec(images)])
    ours: list[Ours] = []
    for result, job in _results(session, study_pk):
        for drawing in read_drawings(objects.path(result.sha256), result.sha256, grids)[0]:
            # What `contours` wrote is a copy of what somebody drew.
            if drawing.algorithm_type == "AUTOMATIC":
                made_by = {"plugin": job.plugin, "model_sha256": job.model_sha256}
                ours.append(Ours(drawing=drawing, at=result.created_at, **made_by))
    theirs: list[tuple[Sent, Drawing]] = []
    refused: list[tuple[Sent, Flag]] = []
    for one in sent:
        drawings, flags = read_drawings(objects.path(one.sha256), one.sha256, grids)
        refused += [(one, flag) for flag in flags]
        for drawing in drawings:
            theirs.append((one, drawing))
            if drawing.is_as_made:
                plugin = drawing.model if drawing.is_ours else ""
                model = drawing.model_sha256
                ours.append(Ours(drawing=drawing, plugin=plugin, model_sha256=model, at=one.received_at))
    return LabelledStudy(ours=tuple(ours), theirs=tuple(theirs), refused=tuple(refused))


def _results(session: Session, study_pk: int) -> list[tuple[Result, Job]]:
    """Return the SEGs that this node wrote of a study with a lesion in them, oldest first."""
    statement = (
        select(Result, Job)
        .join(Job, col(Job.id) == col(Result.job_pk))
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .where(col(Revision.study_pk) == study_pk, col(Result.kind) == "seg")
        .order_by(col(Result.created_at), col(Result.id))
    )
    found = session.exec(select(Finding).where(col(Finding.study_pk) == study_pk))
    drew = {finding.job_pk for finding in found if finding_is_lesion(finding)}
    return [(result, job) for result, job in session.exec(statement) if job.id in drew]


__all__ = ["LabelledStudy", "Ours", "Sent", "read_labelled", "sent_objects", "uids_in"]
