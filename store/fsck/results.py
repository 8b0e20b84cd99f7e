"""I6 in the bytes: what a result refers to is what its job was given, of one patient and one study."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from pydicom import Dataset, dcmread
from sqlalchemy import select, union_all
from sqlmodel import Session, col

from plugins.errors import Refused, Unavailable
from store import response_jobs
from store.database import Database
from store.fsck.fault import Fault
from store.objects import ObjectStore
from store.part10 import Header, scan_header
from store.patients import same_person
from store.studies import manifest_files
from store.tables import Instance, Job, Result, Revision, Series, Study

EVIDENCE = ("ReferencedSeriesSequence", "CurrentRequestedProcedureEvidenceSequence")
TAKE_BACK = "take the result back from the PACS, and send the study again"


@dataclass(frozen=True, kw_only=True)
class Computed:
    """A result, and what it says it was computed from."""

    pk: int
    """Row of the result."""
    sha256: str
    """Its object."""
    sop_instance_uid: str
    """Its SOP Instance UID."""
    job_pk: int
    """The job that made it."""
    revision_pk: int
    """What that job was given."""
    study_instance_uid: str
    """The study of that."""
    patient_pk: int
    """Whose study that is."""
    plugin: str
    """The analysis of the job."""


def check_results(database: Database, objects: ObjectStore) -> Iterator[Fault]:
    """Give a fault for each result that is not of its manifest; bytes that cannot be read are told of elsewhere."""
    with database.reading() as session:
        rows = session.execute(
            select(
                col(Result.id),
                col(Result.sha256),
                col(Result.sop_instance_uid),
                col(Result.job_pk),
                col(Job.revision_pk),
                col(Study.study_instance_uid),
                col(Study.patient_pk),
                col(Job.plugin),
            )
            .join(Job, col(Job.id) == col(Result.job_pk))
            .join(Revision, col(Revision.id) == col(Job.revision_pk))
            .join(Study, col(Study.id) == col(Revision.study_pk))
            .order_by(col(Job.revision_pk), col(Result.id))
        )
        names = [field.name for field in fields(Computed)]
        computed = [Computed(**dict(zip(names, row, strict=True))) for row in rows]
    of_job: dict[int, set[str]] = {}
    for one in computed:
        of_job.setdefault(one.job_pk, set()).add(one.sop_instance_uid)
    revision_pk = 0
    given: frozenset[str] = frozenset()
    patients: frozenset[tuple[str, str]] = frozenset()
    for one in computed:
        if one.revision_pk != revision_pk:
            revision_pk = one.revision_pk
            with database.reading() as session:
                files = manifest_files(session, revision_pk)
            given = frozenset(uid for uid, _ in files)
            patients = frozenset(_patients(objects, [sha256 for _, sha256 in files]))
            if len(patients) > 1:
                sentence = "Results were computed from images of more than one patient."
                yield _fault(f"revision {revision_pk}", "manifest-of-two-patients", sentence)
        known = given | of_job[one.job_pk]
        if one.plugin == response_jobs.PLUGIN:
            with database.reading() as session:
                known |= _of_person(session, one.patient_pk)
        yield from _result(objects, one, known, patients)


def _of_person(session: Session, patient_pk: int) -> frozenset[str]:
    """Return the SOP Instance UIDs of everything of a person: a report on the response tells of all visits."""
    members = same_person(session, patient_pk)
    images = (
        select(col(Instance.sop_instance_uid))
        .join(Series, col(Series.id) == col(Instance.series_pk))
        .join(Study, col(Study.id) == col(Series.study_pk))
        .where(col(Study.patient_pk).in_(members))
    )
    results = (
        select(col(Result.sop_instance_uid))
        .join(Job, col(Job.id) == col(Result.job_pk))
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .join(Study, col(Study.id) == col(Revision.study_pk))
        .where(col(Study.patient_pk).in_(members))
    )
    return frozenset(session.execute(union_all(images, results)).scalars())


def _patients(objects: ObjectStore, hashes: list[str]) -> Iterator[tuple[str, str]]:
    for sha256 in hashes:
        header = header_of(objects, sha256)
        if header is not None:
            yield _patient(header)


def _patient(header: Header) -> tuple[str, str]:
    # Without a PatientID a study has a patient of its own: see `store.instances`.
    return (header.patient_id, header.issuer if header.patient_id else header.study_instance_uid)


def header_of(objects: ObjectStore, sha256: str) -> Header | None:
    """Return the header of an object; None when it cannot be read or named, which is told of elsewhere."""
    try:
        path = objects.path(sha256)
        return scan_header(path) if path.is_file() else None
    except (Refused, Unavailable, OSError):
        return None


def _result(
    objects: ObjectStore, one: Computed, known: frozenset[str], patients: frozenset[tuple[str, str]]
) -> Iterator[Fault]:
    header = header_of(objects, one.sha256)
    if header is None:
        return
    subject = f"result {one.pk}"
    if header.study_instance_uid != one.study_instance_uid:
        yield _fault(subject, "result-of-another-study", "The result says that it is of another study.")
    if patients and header.patient_id not in {patient_id for patient_id, _ in patients}:
        yield _fault(subject, "result-of-another-patient", "The result says that it is of another patient.")
    if not _referenced(objects.path(one.sha256)) <= known:
        yield _fault(
            subject, "result-of-other-images", "The result refers to images that its job was not given."
        )


def _referenced(path: Path) -> set[str]:
    """Return the SOP Instance UIDs of the evidence; pixel data and frames are not read."""
    dataset = dcmread(path, specific_tags=list(EVIDENCE), stop_before_pixels=True)
    sequences = (item for name in EVIDENCE for item in dataset.get(name, ()))
    return {uid for item in sequences for uid in _uids(item)}


def _uids(item: Dataset) -> Iterator[str]:
    for element in item:
        if element.keyword == "ReferencedSOPInstanceUID":
            yield str(element.value)
        elif element.VR == "SQ":
            for inner in element.value:
                yield from _uids(inner)


def _fault(subject: str, code: str, sentence: str) -> Fault:
    return Fault(invariant="I6", code=code, subject=subject, sentence=sentence, todo=TAKE_BACK)


__all__ = ["check_results", "header_of"]
