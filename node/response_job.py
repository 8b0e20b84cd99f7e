"""The job `response`: the longitudinal report of a patient, made anew whenever something of it changed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from sqlmodel import Session, col, select

from node.report.longitudinal.stored import ObjectFiles, objects_of
from node.settings import Settings
from plugins.errors import Refused
from store import jobs
from store.course import Course, course
from store.course_json import from_json, to_json
from store.objects import ObjectStore
from store.response.rules import Rules
from store.tables import Instance, Job, Result, Revision, RevisionInstance, Series, Study
from store.taken_back import takes_back

SR_KIND, PDF_KIND = "sr-response", "pdf-response"
PAGE = "response.html"


@dataclass(frozen=True, kw_only=True)
class ResponseTask:
    """What crosses into the child process: a patient's course, and where its images are."""

    job_key: str
    """Key of the job."""
    manifest_sha256: str
    """Hash of the newest study's manifest."""
    config_sha256: str
    """Hash of the state that is told."""
    criteria: str
    """Name of the criteria."""
    rules: dict[str, Any]
    """Fields of `store.response.rules.Rules`."""
    told: str
    """File that holds the course, and where its images are."""
    header: str
    """An image of the newest study in which a lesion counts."""
    predecessors: tuple[str, ...]
    """The report that the new one supersedes."""
    taken_back: bool = False
    """True when the earlier report is only taken back: it can no longer be told in this study."""
    out: str
    """An empty folder that the results are written to."""
    started_at: str
    """ISO 8601 time in the zone of this node."""
    time_zone: str = "UTC"
    """Name of the zone that times of corrections are told in."""

    def to_json(self) -> str:
        """Return the task as JSON; it says which kind of task it is."""
        return json.dumps({"task": "response", **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the task that `to_json` wrote."""
        raw = json.loads(text)
        del raw["task"]
        return cls(**{**raw, "predecessors": tuple(raw["predecessors"])})

    def read(self) -> tuple[Course, ObjectFiles]:
        """Return the course, and where its images are."""
        told = json.loads(Path(self.told).read_text())
        return from_json(told["course"]), ObjectFiles(files=told["files"], images=told["images"])


def response_task(
    session: Session, objects: ObjectStore, settings: Settings, job: Job, folder: Path, started_at: str
) -> ResponseTask:
    """Return what a job `response` is to tell. Refuses `object-missing` when no image of its study is here."""
    revision = session.get_one(Revision, job.revision_pk)
    study = session.get_one(Study, revision.study_pk)
    told = course(session, study.patient_pk, objects)
    file = folder / "course"
    file.write_text(json.dumps({"course": to_json(told), **asdict(objects_of(session, told, objects))}))
    return ResponseTask(
        job_key=job.key,
        manifest_sha256=revision.manifest_sha256,
        config_sha256=job.config_sha256,
        criteria=settings.response_criteria,
        rules=asdict(Rules()),
        told=str(file),
        header=_header(session, objects, told, study, job),
        predecessors=_predecessor(session, objects, job, study),
        taken_back=takes_back(session, job),
        out=str(folder),
        started_at=started_at,
        time_zone=settings.time_zone,
    )


def _header(session: Session, objects: ObjectStore, told: Course, study: Study, job: Job) -> str:
    """Return an image of the study, of a series that a lesion lies on where there is one."""
    on = {s.series_instance_uid for s in told.sightings if s.study_instance_uid == study.study_instance_uid}
    rows = session.exec(
        select(Instance.sha256, Series.series_instance_uid)
        .join(Series, col(Series.id) == col(Instance.series_pk))
        .join(RevisionInstance, col(RevisionInstance.instance_pk) == col(Instance.id))
        .where(col(RevisionInstance.revision_pk) == job.revision_pk)
        .order_by(col(Instance.sop_instance_uid))
    ).all()
    best_first = sorted(rows, key=lambda row: row[1] not in on)
    for sha256, _ in best_first:
        if objects.path(sha256).is_file():
            return str(objects.path(sha256))
    raise Refused("object-missing", "no object of the study is in the object store; mend it and retry")


def _predecessor(session: Session, objects: ObjectStore, job: Job, study: Study) -> tuple[str, ...]:
    """Return the file of the newest report on this study that was not taken back before it went out."""
    found = session.exec(
        select(Result)
        .join(Job, col(Job.id) == col(Result.job_pk))
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .where(col(Revision.study_pk) == study.id, col(Job.plugin) == job.plugin, col(Job.id) != job.id)
        .where(col(Result.kind) == SR_KIND, col(Job.state).in_((jobs.DELIVERING, jobs.DONE)))
        .order_by(col(Job.id).desc())
    ).first()
    return () if found is None else (str(objects.path(found.sha256)),)


__all__ = ["PAGE", "PDF_KIND", "SR_KIND", "ResponseTask", "response_task"]
