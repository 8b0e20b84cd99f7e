"""A node without processes: intake, settling, a worker that needs no pixels and a sender to a scripted PACS.

Every step is the node's own function on real rows and real files, so that a test may stop between any two of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, SegmentationStorage
from sqlmodel import Session

from node.intake import Intake
from node.sender import Sender, Transport
from node.settle import Settler
from node.task import Identity
from store import findings, jobs, outbox, studies
from store.analysed import AnalysedFindings, Coded, Found, Measured, Written
from store.database import Database
from store.dicom.uids import derive_uid
from store.instances import OpenAssociation, Recorded
from store.objects import ObjectStore
from store.tables import Job, Revision, Study

START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
NODULE = Coded(value="27925004", scheme="SCT", meaning="Nodule")
MILLIMETRES = Coded(value="103339001", scheme="SCT", meaning="Long Axis")
ANALYSIS = Identity(
    plugin="lung_nodule",
    plugin_version="1",
    model_name="m",
    model_version="1",
    model_sha256="a" * 64,
    config_sha256="b" * 64,
)


def image(study: int, number: int, content: int = 0, *, patient_id: str = "") -> bytes:
    """Return the file of one image of a study; another `content` is other bytes under the same UID."""
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = f"1.2.{study}.1.{number}"
    dataset.Modality = "CT"
    dataset.PatientName = f"Phantom^{study}"
    dataset.PatientID = patient_id or f"P{study}"
    dataset.StudyInstanceUID = f"1.2.{study}"
    dataset.SeriesInstanceUID = f"1.2.{study}.1"
    dataset.ImageComments = f"content {content}"
    return encoded(dataset)


def seg(study_uid: str, patient_id: str, job_key: str, sources: Iterable[str], attempt: int) -> Dataset:
    """Return what a job writes: a result that refers to its images, other bytes on another attempt, the same UID."""
    dataset = Dataset()
    dataset.SOPClassUID = SegmentationStorage
    dataset.SOPInstanceUID = derive_uid(job_key, "seg")
    dataset.Modality, dataset.Manufacturer = "SEG", "Nadir"
    dataset.PatientID = patient_id
    dataset.StudyInstanceUID = study_uid
    dataset.SeriesInstanceUID = derive_uid(job_key, "series")
    dataset.ImageComments = f"attempt {attempt}"
    series = Dataset()
    series.SeriesInstanceUID = f"{study_uid}.1"
    series.ReferencedInstanceSequence = []
    for uid in sources:
        item = Dataset()
        item.ReferencedSOPInstanceUID = uid
        series.ReferencedInstanceSequence.append(item)
    dataset.ReferencedSeriesSequence = [series]
    return dataset


def encoded(dataset: Dataset) -> bytes:
    """Return a data set as the bytes of a Part 10 file."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    out = BytesIO()
    dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()


@dataclass(frozen=True, kw_only=True)
class WholeNode:
    """What a node keeps, and its steps."""

    database: Database
    """Its rows."""
    objects: ObjectStore
    """Its bytes."""
    destinations: tuple[str, ...] = ("PACS@pacs:104",)
    """Where its results go."""

    def take(self, data: bytes, now: datetime = START, association_pk: int | None = None) -> Recorded:
        """Take in one file, as the listener does."""
        temporary = self.objects.temporary()
        temporary.write_bytes(data)
        intake = Intake(self.database, self.objects, clock=lambda: now)
        association = None if association_pk is None else OpenAssociation(pk=association_pk)
        return intake.take(temporary, source="CT1@127.0.0.1", association=association)

    def settle(self, now: datetime) -> int:
        """Settle what is due; returns how many studies did."""
        settler = Settler(
            self.database, [ANALYSIS], quiet_seconds=60, hard_cap_seconds=5400, objects=self.objects
        )
        return len(settler.tick(now))

    def claim(self, now: datetime, owner: str = "worker") -> Job | None:
        """Claim a job."""
        with self.database.transaction() as session:
            return jobs.claim(session, owner, now, 60)

    def write(self, job: Job) -> tuple[AnalysedFindings, dict[str, object]]:
        """Do what a worker does before its transaction: write the result's bytes into the object store."""
        with self.database.reading() as session:
            files = studies.manifest_files(session, job.revision_pk)
            study_uid, patient_id = self._whose(session, job)
        dataset = seg(study_uid, patient_id, job.key, [uid for uid, _ in files], job.attempt)
        kept = self.objects.put(encoded(dataset))
        written = Written(
            kind="seg",
            sop_instance_uid=str(dataset.SOPInstanceUID),
            sop_class_uid=str(dataset.SOPClassUID),
            series_instance_uid=str(dataset.SeriesInstanceUID),
            path="",
        )
        found = AnalysedFindings(found=(_found(f"{study_uid}.1"),), written=(written,))
        return found, {written.sop_instance_uid: kept}

    def finish(self, job: Job, found: AnalysedFindings, kept: dict[str, object], now: datetime) -> str:
        """Do the worker's transaction; returns the state of the job."""
        with self.database.transaction() as session:
            results = findings.save(session, job, found, kept, now)  # type: ignore[arg-type]
            for result in results:
                outbox.add(session, result, self.destinations, now)
            return jobs.finish(session, int(job.id or 0), job.attempt, jobs.DELIVERING, now)

    def analyse(self, now: datetime) -> int:
        """Work off the queue; returns how many jobs were finished."""
        count = 0
        while (job := self.claim(now)) is not None:
            self.finish(job, *self.write(job), now)
            count += 1
        return count

    def send(self, now: datetime, transport: Transport, destination: str = "") -> bool:
        """Send the next result; returns whether there was one."""
        to = destination or self.destinations[0]
        return Sender(self.database, self.objects, to, transport=transport).tick(now)

    def _whose(self, session: Session, job: Job) -> tuple[str, str]:
        revision = session.get_one(Revision, job.revision_pk)
        study = session.get_one(Study, revision.study_pk)
        return study.study_instance_uid, f"P{study.study_instance_uid.removeprefix('1.2.')}"


def _found(series_uid: str) -> Found:
    measured = Measured(name="long_axis", concept=MILLIMETRES, value=12.0, unit="mm", method="as drawn")
    return Found(
        label="Nodule 1",
        tracking_identifier="Nodule 1",
        tracking_uid=derive_uid(series_uid, "nodule"),
        series_instance_uid=series_uid,
        segment_number=1,
        category=NODULE,
        type=NODULE,
        site=None,
        laterality=None,
        confidence=None,
        automatic=True,
        centroid_mm=(1.0, 2.0, 3.0),
        measurements=(measured,),
    )
