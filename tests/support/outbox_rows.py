"""A study with results that wait to be delivered, as the worker would leave them, made in a few rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from dicom_series import make_series
from pydicom import dcmread
from sqlmodel import Session, select

from node.intake import Intake
from store import jobs, outbox, studies
from store.database import Database
from store.objects import ObjectStore
from store.tables import Delivery, Job, Result, Revision


def held_study(database: Database, objects: ObjectStore, folder: Path, *, patient_id: str = "P1") -> int:
    """Take in a study of one slice and settle it; returns the id of its first revision."""
    (path,) = make_series(folder / f"source-{patient_id}", np.zeros((1, 8, 8)), patient_id=patient_id)
    temporary = objects.temporary()
    temporary.write_bytes(path.read_bytes())
    recorded = Intake(database, objects).take(temporary, source="test")
    with database.transaction() as session:
        revision = studies.settle(session, recorded.study_pk, now=database.now(), forced=False)
    assert revision is not None and revision.id is not None
    return revision.id


def waiting_results(
    database: Database,
    objects: ObjectStore,
    folder: Path,
    destinations: Sequence[str],
    *,
    count: int = 3,
    patient_id: str = "P1",
    now: datetime | None = None,
) -> list[str]:
    """Leave `count` results of one job in the outbox; returns their SOP Instance UIDs in the order of writing.

    The results are slices of another series of the study, for what a destination keeps is not looked into here.
    """
    revision_pk = held_study(database, objects, folder, patient_id=patient_id)
    paths = make_series(
        folder / f"results-{patient_id}", np.zeros((count, 8, 8)), patient_id=patient_id, series_number=900
    )
    now = now or database.now()
    with database.transaction() as session:
        revision = session.get_one(Revision, revision_pk)
        identity = {"plugin": "p", "plugin_version": "1", "model_sha256": "", "config_sha256": ""}
        assert jobs.enqueue(session, revision, **identity, now=now) is not None
        job = jobs.claim(session, "test", now, 60)
        assert job is not None and job.id is not None
        uids = [_result(session, objects, path, job.id, destinations, now) for path in paths]
        assert jobs.finish(session, job.id, job.attempt, jobs.DELIVERING, now) == jobs.DELIVERING
    return uids


def deliveries(database: Database) -> list[Delivery]:
    """Return every delivery, in the order of writing."""
    with database.reading() as session:
        return list(session.exec(select(Delivery).order_by(Delivery.id)))  # type: ignore[arg-type]  # sqlmodel's typing


def job_state(database: Database) -> str:
    """Return the state of the only job."""
    with database.reading() as session:
        return session.exec(select(Job.state)).one()


def _result(
    session: Session,
    objects: ObjectStore,
    path: Path,
    job_pk: int,
    destinations: Sequence[str],
    now: datetime,
) -> str:
    header = dcmread(path, stop_before_pixels=True)
    kept = objects.put(path.read_bytes())
    result = Result(
        job_pk=job_pk,
        kind="seg",
        sop_instance_uid=header.SOPInstanceUID,
        sop_class_uid=header.SOPClassUID,
        series_instance_uid=header.SeriesInstanceUID,
        sha256=kept.sha256,
        size_bytes=kept.size_bytes,
        created_at=now,
    )
    session.add(result)
    session.flush()
    assert outbox.add(session, result, destinations, now) == len(destinations)
    return str(header.SOPInstanceUID)
