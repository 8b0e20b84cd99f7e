"""The objects that were written of a study, as files to take away; the trail is told of each."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import FileResponse, Response
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from sqlmodel import Session, col, select
from starlette.exceptions import HTTPException

from node import audit_events
from node.audit import patients_of
from node.web.site import Site
from store.tables import Job, Patient, Result, Revision, Study


def result_file(
    site: Site, request: Request, study_instance_uid: str, result_pk: int, *, document: bool
) -> Response:
    """Return an object as it is kept; with `document` the PDF inside. Raises 404 when there is none, or it is gone."""
    with site.database.reading() as session:
        study, patient, result = _found(session, study_instance_uid, result_pk)
    path = site.objects.path(result.sha256)
    if not path.is_file():
        raise HTTPException(
            404, "the file of this result is no longer on this node; 'nadir fsck' lists what is gone"
        )
    subjects = (
        audit_events.study(study_instance_uid, {result.sop_class_uid: 1}),
        patients_of(site.settings).subject(patient.issuer, patient.patient_id, patient.patient_name),
    )
    name = request.state.identity.name
    site.record(audit_events.exported(name, request.state.address, f"result {result.kind}", subjects))
    on = study.study_date.isoformat() if study.study_date else "undated"
    file = f"{result.kind}-{on}-{result_pk}"
    if not document:
        return FileResponse(path, media_type="application/dicom", filename=f"{file}.dcm")
    try:
        written = dcmread(path)
    except (InvalidDicomError, OSError) as error:
        raise HTTPException(404, "the file of this result cannot be read; 'nadir fsck' tells more") from error
    inside = written.get("EncapsulatedDocument")
    if not inside:
        raise HTTPException(404, "there is no document inside this result")
    named = {"Content-Disposition": f'attachment; filename="{file}.pdf"'}
    length = int(written.get("EncapsulatedDocumentLength") or len(inside))  # one byte of padding may follow
    return Response(bytes(inside)[:length], media_type="application/pdf", headers=named)


def _found(session: Session, study_instance_uid: str, result_pk: int) -> tuple[Study, Patient, Result]:
    row = session.exec(
        select(Study, Patient, Result)
        .join(Patient, col(Patient.id) == col(Study.patient_pk))
        .join(Revision, col(Revision.study_pk) == col(Study.id))
        .join(Job, col(Job.revision_pk) == col(Revision.id))
        .join(Result, col(Result.job_pk) == col(Job.id))
        .where(col(Study.study_instance_uid) == study_instance_uid, col(Result.id) == result_pk)
    ).first()
    if row is None:
        raise HTTPException(404, "the study has no such result")
    return row


__all__ = ["result_file"]
