"""The page of each patient, where people find it: `reports/patient-NUMBER.html` at home."""

from __future__ import annotations

import os
from pathlib import Path

from sqlmodel import Session, col, select

from node.settings import Settings
from store.course import course
from store.objects import ObjectStore
from store.response_jobs import told_in
from store.tables import Finding, Job, Revision, Study
from store.taken_back import takes_back


def keep_page(session: Session, objects: ObjectStore, settings: Settings, job: Job, page: Path) -> None:
    """Put the page that a job wrote in its place; where it wrote none, take away what holds no longer.

    After a report was taken back that is the page of whoever the study is or was, unless a response is told of him.
    """
    study_pk = session.get_one(Revision, job.revision_pk).study_pk
    patients = {session.get_one(Study, study_pk).patient_pk}
    if takes_back(session, job):
        patients |= set(session.exec(select(Finding.patient_pk).where(col(Finding.study_pk) == study_pk)))
        known = {pk: course(session, pk, objects) for pk in patients}
        patients = {pk for pk in patients if not told_in(known[pk], settings.response_criteria)}
    reports = settings.home / "reports"
    reports.mkdir(exist_ok=True, mode=0o700)
    for kept in (reports / f"patient-{pk}.html" for pk in patients):
        if page.is_file():
            os.replace(page, kept)
        else:
            kept.unlink(missing_ok=True)


__all__ = ["keep_page"]
