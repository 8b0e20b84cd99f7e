"""A node that drew three lesions in small CTs of some patients, by the functions of the pipeline; no process runs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import numpy as np
import pytest
from dicom_series import derived, make_series
from ledger import START, at
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from skimage.measure import find_contours
from small_node import SmallNode
from sqlmodel import col, select

from models.card import ModelCard
from node import pipeline
from node.intake import Intake
from node.task import Identity, Task
from plugins import codes
from plugins.contract import Finding, Mask, Plugin, Study
from plugins.measure.lesion import measure_lesion
from store import findings, jobs, studies
from store.database import Database
from store.dicom.uids import derive_uid
from store.instances import Recorded
from store.objects import ObjectStore
from store.tables import Result
from store.tables import Study as StudyRow

SHAPE = (14, 44, 40)
SPACING_MM = (2.0, 0.9, 0.9)
SEATS = ((4, 12, 11), (7, 30, 13), (9, 18, 28))
"""Centre (k, r, c) of each lesion."""
RADII_MM = (4.2, 3.6, 5.0)
Array = NDArray[np.bool_]
CARD = ModelCard(name="Seeing", version="1", kind="learned", intended_use="Tests.", weights_sha256="a" * 64)
LATER = at(1000)


def truth(number: int, more_mm: float = 0.0) -> Array:
    """Return the voxels of a lesion (1, 2, 3), `more_mm` wider than it is."""
    far = np.linalg.norm(
        (np.indices(SHAPE).reshape(3, -1).T - SEATS[number - 1]) * SPACING_MM, axis=1
    ).reshape(SHAPE)
    return np.asarray(far <= RADII_MM[number - 1] + more_mm)


def tracking_uid(patient_id: str, number: int) -> str:
    """Return the Tracking UID of a lesion of a patient, the same at all visits."""
    return derive_uid("test lesion", patient_id, str(number))


@dataclass(frozen=True)
class Seeing:
    """An analysis that draws every lesion that it is told of, wider or narrower than it is."""

    numbers: tuple[int, ...] = (1, 2, 3)
    more_mm: float = 0.0
    model: ModelCard | None = CARD
    name: ClassVar[str] = "lung_nodule"
    version: ClassVar[str] = "1"
    title: ClassVar[str] = "Seeing"

    def accepts(self, study: Study) -> bool:
        return bool(study.by_role("ct"))

    def run(self, study: Study) -> tuple[Finding, ...]:
        ct = study.by_role("ct")[0]
        masks = {n: Mask.from_full(truth(n, self.more_mm)) for n in self.numbers}
        return tuple(
            Finding(
                key=f"nodule-{n}", label=f"Nodule {n}", series_instance_uid=ct.series_instance_uid, mask=mask,
                category=codes.MORPHOLOGICALLY_ABNORMAL, type=codes.NODULE, site=codes.LUNG, confidence=0.9,
                measurements=measure_lesion(mask, ct)[:3],
                tracking_uid=tracking_uid(study.patient.patient_id, n), tracking_identifier=f"Nodule {n}",
            )
            for n, mask in masks.items()
        )  # fmt: skip


SEEING = Seeing()


@dataclass(frozen=True, kw_only=True)
class Visited:
    """One study, with the SEG of it."""

    patient_id: str
    study_instance_uid: str
    images: tuple[Dataset, ...]
    """With pixels, from feet to head."""
    seg: Dataset


@dataclass(frozen=True, kw_only=True)
class LabelledNode(SmallNode):
    """A node with steps for what happens to it."""

    def copy(self, home: Path, *, objects: bool = False) -> LabelledNode:
        """Return the same node in another folder, with the same object store unless that is to be copied too."""
        self.database.dispose()
        home.mkdir(parents=True)
        for file in (path for path in self.home.iterdir() if path.is_file()):
            shutil.copyfile(file, home / file.name)
        if objects:
            shutil.copytree(self.objects.root, home / "store")
        database = Database(f"sqlite:///{home / 'nadir.sqlite'}", sync=False)
        store = ObjectStore(home / "store", sync=False) if objects else self.objects
        return LabelledNode(home=home, database=database, objects=store)

    def take(self, dataset: Dataset, now: datetime = LATER) -> Recorded:
        """Take in an object as somebody sends it."""
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        buffer = BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        temporary = self.objects.temporary()
        temporary.write_bytes(buffer.getvalue())
        intake = Intake(self.database, self.objects, clock=lambda: now)
        return intake.take(temporary, source="PACS@127.0.0.1")

    def visit(
        self, patient_id: str, date: str = "20260110", now: datetime = START, **more: object
    ) -> Visited:
        """Bring a study and analyse it."""
        noise = np.random.default_rng(int(date)).normal(0, 15, SHAPE)
        inside = np.any([truth(n) for n in (1, 2, 3)], axis=0)
        with TemporaryDirectory() as folder:
            paths = make_series(
                Path(folder), np.where(inside, 40.0, -850.0) + noise, spacing_mm=SPACING_MM,
                patient_id=patient_id, study_date=date, ConvolutionKernel="B45f", Manufacturer="ACME",
                ManufacturerModelName="Scan 1", **more,  # type: ignore[arg-type]
            )  # fmt: skip
            images = tuple(dcmread(path) for path in paths)
        for image in images:
            self.take(image, now)
        study = str(images[0].StudyInstanceUID)
        return Visited(
            patient_id=patient_id, study_instance_uid=study, images=images, seg=self.analyse(study, now)
        )

    def analyse(self, study_instance_uid: str, now: datetime, plugin: Plugin = SEEING) -> Dataset:
        """Analyse what a study holds now by the pipeline, keep what comes of it, and return the SEG."""
        with self.database.transaction() as session:
            row = select(StudyRow).where(col(StudyRow.study_instance_uid) == study_instance_uid)
            study_pk = int(session.exec(row).one().id or 0)
            revision = studies.settle(session, study_pk, now=now, forced=False)
            assert revision is not None
            identity = Identity.of(plugin)
            jobs.enqueue(
                session, revision, plugin=plugin.name, plugin_version=plugin.version,
                model_sha256=identity.model_sha256, config_sha256=identity.config_sha256, now=now,
            )  # fmt: skip
            job = jobs.claim(session, "worker", now, 60)
            assert job is not None
            with TemporaryDirectory() as out, pytest.MonkeyPatch.context() as patch:
                patch.setattr(pipeline, "load_plugins", lambda *_, **__: [plugin])
                task = Task(
                    files=tuple(
                        str(self.objects.path(s)) for _, s in studies.manifest_files(session, job.revision_pk)
                    ),
                    manifest_sha256=revision.manifest_sha256, plugins=(plugin.name,), plugin_settings={},
                    out=out, started_at=now.isoformat(), predecessors={},
                )  # fmt: skip
                (analysed,) = pipeline.analyse(task).analysed
                assert analysed.error_code is None, analysed.error_text
                written = analysed.results.written
                kept = {w.sop_instance_uid: self.objects.put(Path(w.path).read_bytes()) for w in written}
            findings.save(session, job, analysed.results, kept, now)
            jobs.finish(session, int(job.id or 0), job.attempt, jobs.DONE, now)
            (seg,) = session.exec(
                select(Result.sha256).where(Result.job_pk == job.id, col(Result.kind) == "seg")
            )
        return dcmread(self.objects.path(seg))


def renamed(seg: Dataset, number: int = 1) -> Dataset:
    """Return a SEG as it comes back under other UIDs, all else as it was."""
    made = dcmread(BytesIO(_bytes(seg)))
    made.SOPInstanceUID = derived("renamed", seg.SOPInstanceUID, number)
    made.SeriesInstanceUID = derived("renamed series", seg.SOPInstanceUID, number)
    return made


def repainted(seg: Dataset, other: Dataset) -> Dataset:
    """Return a SEG with everything that it says of itself, and the frames of another one of the same segments."""
    made = renamed(seg, 2)
    groups = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
    for keyword in ("PixelData", "NumberOfFrames", *groups):
        made[keyword] = other[keyword]
    made["PixelData"].VR = "OB"
    return made


def contoured(visited: Visited, masks: Mapping[int, Array], **more: object) -> Dataset:
    """Return an RTSTRUCT whose contours enclose exactly these voxels of lesions, with their Tracking UIDs."""
    image = visited.images[0]
    made = Dataset()
    for keyword in (
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "StudyInstanceUID",
        "StudyDate",
    ):
        setattr(made, keyword, image.get(keyword, ""))
    made.SOPClassUID, made.Modality = "1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT"
    made.SOPInstanceUID = derived("contoured", image.StudyInstanceUID, sorted(masks), *more)
    made.SeriesInstanceUID = derived("contoured series", made.SOPInstanceUID)
    made.Manufacturer = "Planner"
    made.StructureSetROISequence, made.ROIContourSequence, made.RTROIObservationsSequence = [], [], []
    for number, mask in masks.items():
        roi, shape, observed = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, f"Nodule {number}"
        roi.ReferencedFrameOfReferenceUID = image.FrameOfReferenceUID
        shape.ReferencedROINumber = observed.ReferencedROINumber = number
        observed.TrackingUID = tracking_uid(visited.patient_id, number)
        shape.ContourSequence = [
            _contour(visited.images[k], line)
            for k in range(len(mask))
            for line in find_contours(mask[k] * 1.0, 0.5)
        ]
        made.StructureSetROISequence.append(roi)
        made.ROIContourSequence.append(shape)
        made.RTROIObservationsSequence.append(observed)
    for keyword, value in more.items():
        setattr(
            made if keyword != "ROIGenerationAlgorithm" else made.StructureSetROISequence[0], keyword, value
        )
    return made


def _contour(image: Dataset, line: NDArray[np.float64]) -> Dataset:
    made, named = Dataset(), Dataset()
    named.ReferencedSOPInstanceUID, named.ReferencedSOPClassUID = image.SOPInstanceUID, image.SOPClassUID
    x, y, z = (float(mm) for mm in image.ImagePositionPatient)
    rows, columns = (float(mm) for mm in image.PixelSpacing)
    made.ContourImageSequence, made.ContourGeometricType = [named], "CLOSED_PLANAR"
    made.NumberOfContourPoints = len(line) - 1
    points = [(x + c * columns, y + r * rows, z) for r, c in line[:-1]]
    made.ContourData = [f"{mm:.4f}" for point in points for mm in point]
    return made


def _bytes(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


__all__ = ["LabelledNode", "Seeing", "Visited", "contoured", "renamed", "repainted", "tracking_uid", "truth"]
