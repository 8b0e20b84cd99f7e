"""Results of another node of Nadir that came from the PACS."""

from __future__ import annotations

from datetime import date
from io import BytesIO

from ledger import at
from pydicom import Dataset
from sqlmodel import Session

from store import instances
from store.objects import Kept, ObjectStore
from store.part10 import Header


def bring(session: Session, objects: ObjectStore, result: Dataset, **changes: object) -> Kept:
    """Take in a result as an earlier study's that came from the PACS."""
    buffer = BytesIO()
    result.save_as(buffer, enforce_file_format=True)
    kept = objects.put(buffer.getvalue())
    one = Header(
        sop_instance_uid=result.SOPInstanceUID,
        sop_class_uid=result.SOPClassUID,
        study_instance_uid=result.StudyInstanceUID,
        series_instance_uid=result.SeriesInstanceUID,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        patient_id="P1",
        modality=result.Modality,
        study_date=date(2026, 1, 10),
        own=True,
        **changes,  # type: ignore[arg-type]
    )
    instances.record(session, one, kept, source="PACS@127.0.0.1", now=at(1))
    return kept
