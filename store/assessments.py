"""What people made of many findings: the assessments of all lesions that analyses found, page by page."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sqlmodel import Session, col, func, or_, select

from plugins import codes
from store.assessment import Assessment, assessment
from store.by_hand import REPORTS
from store.chosen import chosen
from store.course import course
from store.findings import Wanted, wanted_findings
from store.identity import drawn
from store.objects import ObjectStore
from store.patients import same_person
from store.sighting import Sighting
from store.sightings import LESIONS
from store.tables import Finding, Instance, Job, Patient, Result, Series, Study


def assessments(
    session: Session,
    wanted: Wanted,
    objects: ObjectStore | None = None,
    *,
    after: int = 0,
    limit: int = 100,
) -> tuple[list[dict[str, Any]], int, int | None]:
    """Return what people made of at most `limit` lesions after finding `after`, how many there are, the last of more.

    Of what counts and what an analysis drew; a course is read only where a person decided or drew something, or, with
    the object store, where reports came here.
    """
    is_lesion = or_(
        col(Finding.category_value) == codes.MORPHOLOGICALLY_ABNORMAL.value,
        col(Finding.type_value).in_([one.value for one in LESIONS]),
    )
    clauses = (*wanted_findings(wanted), is_lesion, col(Finding.automatic))
    total = session.exec(select(func.count()).select_from(Finding).where(*clauses)).one()
    rows = session.exec(
        select(Finding, Job, Patient, Study.study_instance_uid)
        .join(Job, col(Job.id) == col(Finding.job_pk))
        .join(Patient, col(Patient.id) == col(Finding.patient_pk))
        .join(Study, col(Study.id) == col(Finding.study_pk))
        .where(*clauses, col(Finding.id) > after)
        .order_by(col(Finding.id))
        .limit(limit + 1)
    ).all()
    shown = rows[:limit]
    courses = _Courses(session, objects)
    results: defaultdict[int, list[str]] = defaultdict(list)
    written = select(Result.job_pk, Result.sop_instance_uid).where(
        col(Result.job_pk).in_({finding.job_pk for finding, *_ in shown})
    )
    for job_pk, uid in session.exec(written.order_by(col(Result.id))):
        results[job_pk].append(uid)
    found = [
        {
            "finding": int(finding.id or 0),
            "patient_id": patient.patient_id,
            "issuer": patient.issuer,
            "study_instance_uid": study,
            "series_instance_uid": finding.series_instance_uid,
            "label": finding.label,
            "tracking_uid": finding.tracking_uid,
            "plugin": job.plugin,
            "plugin_version": job.plugin_version,
            "model_sha256": job.model_sha256,
            "results": results[finding.job_pk],
            **vars(courses.assessment(finding, job, study)),
        }
        for finding, job, patient, study in shown
    ]
    return found, total, found[-1]["finding"] if len(rows) > limit else None


class _Courses:
    """The courses of the patients of one page, each read once."""

    def __init__(self, session: Session, objects: ObjectStore | None) -> None:
        self._session = session
        self._objects = objects
        self._seen: dict[int, tuple[Sighting, ...]] = {}

    def assessment(self, finding: Finding, job: Job, study: str) -> Assessment:
        """Return what people made of a finding."""
        here = [one for one in self._sightings(finding.patient_pk) if one.study_instance_uid == study]
        place = (job.plugin, finding.tracking_uid, finding.series_instance_uid)
        seen = [s for s in here if drawn(s) and (s.plugin, s.written_uid, s.series_instance_uid) == place]
        return assessment(seen[0] if seen else None, here)

    def _sightings(self, patient_pk: int) -> tuple[Sighting, ...]:
        if patient_pk not in self._seen:
            members = same_person(self._session, patient_pk)
            by_hand = (
                col(Finding.patient_pk).in_(members),
                ~col(Finding.automatic),
                ~col(Finding.superseded),
            )
            drew = select(Finding.id).where(*by_hand).limit(1)
            chose = chosen(self._session, patient_pk).decisions
            came = (
                select(Instance.id)
                .join(Series, col(Series.id) == col(Instance.series_pk))
                .join(Study, col(Study.id) == col(Series.study_pk))
                .where(col(Study.patient_pk).in_(members), col(Instance.current))
                .where(col(Instance.sop_class_uid).in_(REPORTS))
                .where(col(Instance.sop_instance_uid).not_in(select(Result.sop_instance_uid)))
                .limit(1)
            )
            asked = (drew,) if self._objects is None else (drew, came)
            is_touched = bool(chose) or any(self._session.exec(one).first() is not None for one in asked)
            found = course(self._session, patient_pk, self._objects).sightings if is_touched else ()
            self._seen[patient_pk] = found
        return self._seen[patient_pk]


__all__ = ["assessments"]
