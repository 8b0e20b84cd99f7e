"""Rows that the tests of the ledger begin with: an instance that arrived, a settled study, a queued job."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlmodel import Session, select

from store import findings, instances, jobs, studies
from store.findings import AnalysedFindings, Coded, Found
from store.objects import Kept
from store.part10 import Header
from store.tables import Finding, Job, Result, Revision

START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
LESION = Coded(value="52988006", scheme="SCT", meaning="Lesion")


def at(seconds: float) -> datetime:
    """Return the clock `seconds` after the start."""
    return START + timedelta(seconds=seconds)


def header(number: int = 1, study: str = "1.2.3", **changes: object) -> Header:
    """Return the header of the `number`th image of a study."""
    values: dict[str, object] = {
        "sop_instance_uid": f"{study}.1.{number}",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "study_instance_uid": study,
        "series_instance_uid": f"{study}.1",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "patient_id": "P1",
        "modality": "CT",
    }
    return Header(**{**values, **changes})  # type: ignore[arg-type]


def kept(text: str) -> Kept:
    """Return a kept object whose bytes are `text`; no file is made."""
    data = text.encode()
    return Kept(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data), path=Path(text))


def arrive(
    session: Session, number: int = 1, study: str = "1.2.3", seconds: float = 0.0
) -> instances.Recorded:
    """Record one image of a study."""
    one = header(number, study)
    return instances.record(session, one, kept(one.sop_instance_uid), source="CT1@127.0.0.1", now=at(seconds))


def settled(session: Session, number: int = 1, study: str = "1.2.3", seconds: float = 0.0) -> Revision:
    """Record one new image and settle the study."""
    recorded = arrive(session, number, study, seconds)
    revision = studies.settle(session, recorded.study_pk, now=at(seconds), forced=False)
    assert revision is not None
    return revision


def queued(session: Session, revision: Revision, plugin: str = "contours", max_attempts: int = 5) -> Job:
    """Enqueue one job."""
    job = jobs.enqueue(
        session,
        revision,
        plugin=plugin,
        plugin_version="1",
        model_sha256="m",
        config_sha256="c",
        now=revision.settled_at,
        max_attempts=max_attempts,
    )
    assert job is not None
    return job


def result(session: Session, job: Job, number: int = 1) -> Result:
    """Write one result row of a job."""
    row = Result(
        job_pk=int(job.id or 0),
        kind="seg",
        sop_instance_uid=f"2.25.{job.id}.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
        series_instance_uid=f"2.25.{job.id}",
        sha256=kept(f"{job.id}-{number}").sha256,
        size_bytes=1,
        created_at=START,
    )
    session.add(row)
    session.flush()
    return row


def found(label: str) -> AnalysedFindings:
    """Return one finding of this label."""
    one = Found(
        label=label,
        tracking_identifier=label,
        tracking_uid="2.25.1",
        series_instance_uid="1.2.3.1",
        segment_number=1,
        category=LESION,
        type=LESION,
        centroid_mm=(1.0, 2.0, 3.0),
    )
    return AnalysedFindings(found=(one,))


def run(session: Session, seconds: float, owner: str = "w", state: str = jobs.DONE) -> str:
    """Claim, save one finding and finish."""
    job = jobs.claim(session, owner, at(seconds), 60)
    assert job is not None
    assert job.id is not None
    findings.save(session, job, found(f"of job {job.id}"), {}, at(seconds))
    return jobs.finish(session, job.id, job.attempt, state, at(seconds))


def labels(session: Session) -> list[str]:
    """Return what counts."""
    return list(session.exec(select(Finding.label).where(~Finding.superseded)))  # type: ignore[operator]
