"""What is done with files that people load up: judged, taken in as from any sender, unpacked, written as DICOM.

An object is taken in by `node.intake`, as one that came by C-STORE. What takes long (zip files, NIfTI images) is left
to `Uploads.tick`, which goes on after a restart where it was.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections import Counter
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import ZipFile, ZipInfo

from sqlmodel import Session

from node import audit_events
from node.audit import Record, patients_of, unheard
from node.audit_message import AuditMessage
from node.intake import Intake
from node.logs import line
from node.settings import Settings
from node.unzip import NESTED, extract, is_nifti_name, opened
from node.upload_kind import SKIPS, kind_of, require_wanted
from plugins.errors import NadirError, Refused, Unavailable
from store import upload_files, uploads
from store.file_hash import sha256_of
from store.instances import OpenAssociation, Recorded
from store.tables import Patient, Study
from store.upload_tables import (
    CANCELLED,
    EXPIRED,
    KEPT,
    KNOWN,
    REFUSED,
    SKIPPED,
    UNPACKED,
    UNPACKING,
    WAITING,
    Upload,
    UploadFile,
)

log = logging.getLogger(__name__)

FOLDER = "uploads"
LARGEST_UNPACKED_BYTES = 64 << 30
EXPIRES = timedelta(days=1)
SAME = {
    KNOWN: ("already-here", "this node has it already"),
    "duplicate": ("duplicate", "the same image came twice in this upload"),
}


class Uploads:
    """The files of uploads on their way into the store.

    Parameters
    ----------
    settings
        Of them: the home folder and the bounds of objects and disk.
    intake
        Takes objects in.
    record
        Takes what the audit trail is told.

    """

    def __init__(self, settings: Settings, intake: Intake, record: Record = unheard) -> None:
        self._settings = settings
        self._intake = intake
        self._database = intake.database
        self._record = record
        self._interrupted = threading.Event()

    def interrupt(self) -> None:
        """Leave what takes long for the next start."""
        self._interrupted.set()

    def tick(self, now: datetime) -> bool:
        """Return True after a zip file or an image was dealt with, False when there is none."""
        self._expire(now)
        with self._database.reading() as session:
            closed = uploads.closed(session)
        for upload_pk in closed:
            self.complete(upload_pk)
        with self._database.reading() as session:
            due = upload_files.next_due(session)
            upload = None if due is None else uploads.get(session, due.upload_pk)
        if due is None or upload is None or self._interrupted.is_set():
            return False
        work = self._unpack if due.state == UNPACKING else self._convert
        try:
            if not self.path(due).exists():
                raise Refused("gone", "it is no longer on this node's disk; send it again")
            values = work(upload, due)
        except Refused as refused:
            values = _refusal(refused)
        except NadirError:
            raise
        except Exception:  # the border: one file that breaks what reads it holds no other up
            log.exception(line("upload-failed", upload=due.upload_pk, file=due.number))
            sentence = "the node failed on it; its log says why"
            values = _refusal(Refused("failed", sentence))
        if values is None:
            return False  # interrupted, or the upload has ended
        with self._database.transaction() as session:
            upload_files.change(session, int(due.id or 0), **values)
        self.path(due).unlink(missing_ok=True)
        self.complete(due.upload_pk)
        return True

    def complete(self, upload_pk: int) -> None:
        """Let the studies of an upload settle when it was closed and nothing of it is left to do."""
        with self._database.transaction() as session:
            is_whole = uploads.complete(session, upload_pk, self._database.now())
            told = told_of(session, self._settings, upload_pk) if is_whole else []
        if is_whole:
            self.forget(upload_pk)
        for message in told:
            self._record(message)

    def cancel(self, upload_pk: int, state: str = CANCELLED) -> None:
        """End an upload; what was kept of it stays. Refuses what `store.uploads.end` refuses."""
        with self._database.transaction() as session:
            uploads.end(session, upload_pk, state, self._database.now())
            told = told_of(session, self._settings, upload_pk)
        self.forget(upload_pk)
        for message in told:
            self._record(message)

    def forget(self, upload_pk: int) -> None:
        """Delete what is left on disk of an upload that has ended."""
        shutil.rmtree(self.folder(upload_pk), ignore_errors=True)

    def folder(self, upload_pk: int) -> Path:
        """Return where files of an upload lie that are no objects yet."""
        return self._settings.home / FOLDER / str(upload_pk)

    def partial(self, upload_pk: int, number: int) -> Path:
        """Return where a file lies that comes in pieces; its folder is there."""
        folder = self.folder(upload_pk)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable("the file cannot be written; free or mend the disk") from error
        return folder / f"{number}.part"

    def path(self, row: UploadFile) -> Path:
        """Return where a zip file or NIfTI image lies until it is dealt with."""
        suffix = ".zip"
        if is_nifti_name(row.name):
            suffix = ".nii.gz" if row.name.lower().endswith(".gz") else ".nii"
        return self.folder(row.upload_pk) / f"{row.number}-{row.member}{suffix}"

    def require_room(self, more_bytes: int = 0) -> None:
        """Raise OSError (ENOSPC) when the disk would be filled beyond its reserve."""
        if self._intake.objects.free_bytes() - more_bytes < self._settings.reserve_bytes:
            raise OSError(28, "the disk is filled up to its reserve")

    def temporary(self) -> Path:
        """Return a path on the store's disk for a file that is arriving."""
        return self._intake.objects.temporary()

    def receive(self, upload: Upload, number: int, name: str, path: Path, *, member: int = 0) -> UploadFile:
        """Return what became of a file that has arrived; `path` is gone afterwards, whatever happens.

        An object is on disk with its row by then, and a zip file or image lies in the folder of the upload.
        Refuses `upload-ended` for what is to be dealt with later when the upload ended while it arrived. Raises
        Unavailable when disk or database cannot take it; then it has to be sent again.
        """
        size_bytes = path.stat().st_size
        digest = ""
        try:
            digest = sha256_of(path)
            kind = kind_of(path, name)
            if kind == "zip" and member:
                raise Refused("nested-zip", NESTED)
            if kind == "dicom":
                values = self._take(upload, number, member, path)
            else:
                values = {"state": UNPACKING if kind == "zip" else WAITING}
                self._put_by(upload, number, name, path, member)
        except Refused as refused:
            values = _refusal(refused)
        except OSError as error:
            raise Unavailable("the file cannot be written; free or mend the disk") from error
        finally:
            path.unlink(missing_ok=True)
        return self._note(upload, number, name, size_bytes, {**values, "sha256": digest}, member)

    def _note(
        self, upload: Upload, number: int, name: str, size_bytes: int, values: dict[str, Any], member: int
    ) -> UploadFile:
        pk = int(upload.id or 0)
        with self._database.transaction() as session:
            goes_on = uploads.touch(session, pk, self._database.now())
            if not goes_on and values["state"] in (UNPACKING, WAITING):
                self.forget(pk)
                raise Refused("upload-ended", f"upload {pk} has ended meanwhile; begin another one")
            return upload_files.note(session, pk, number, name, size_bytes, member=member, **values)

    def _take(self, upload: Upload, number: int, member: int, path: Path) -> dict[str, Any]:
        """Return what became of a DICOM object. Refuses what the intake refuses, and `too-large`."""
        if path.stat().st_size > self._settings.max_object_bytes:
            raise Refused("too-large", f"it is longer than {self._settings.max_object_bytes} bytes")
        recorded = self._intake.take(
            path,
            source=upload_files.source_of(upload.author),
            association=OpenAssociation(pk=upload.association_pk),
        )
        return self._became(upload, number, member, recorded)

    def _became(self, upload: Upload, number: int, member: int, recorded: Recorded) -> dict[str, Any]:
        where = {"study_pk": recorded.study_pk, "instance_pk": recorded.instance_pk}
        if recorded.outcome == "own":
            return {
                "state": KNOWN,
                "code": "own-result",
                "sentence": "it is a result of Nadir itself",
                **where,
            }
        if recorded.outcome != "identical":
            return {"state": KEPT, **where}
        with self._database.reading() as session:
            what = upload_files.is_own(session, upload, recorded.instance_pk, number, member)
        if what == KEPT:
            return {"state": KEPT, **where}
        code, sentence = SAME[what]
        return {"state": KNOWN, "code": code, "sentence": sentence, **where}

    def _put_by(self, upload: Upload, number: int, name: str, path: Path, member: int) -> None:
        """Lay a file into the folder of its upload, on disk for good."""
        row = UploadFile(
            upload_pk=int(upload.id or 0), number=number, member=member, name=name, size_bytes=0, state=""
        )
        target = self.path(row)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.move(path, target)  # to another disk that is a copy
        with target.open("rb") as file:
            os.fsync(file.fileno())
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _unpack(self, upload: Upload, row: UploadFile) -> dict[str, Any] | None:
        """Take in every member of a zip file that was not dealt with before; None when it was interrupted."""
        with self._database.reading() as session:
            done = upload_files.members(session, row.upload_pk, row.number)
        with opened(self.path(row), LARGEST_UNPACKED_BYTES) as (archive, infos):
            for member, info in enumerate(infos, start=1):
                if member in done:
                    continue
                if member % 20 == 1 and not self._goes_on(row.upload_pk):
                    return None
                self._take_out(upload, row, member, archive, info)
        return {"state": UNPACKED}

    def _take_out(
        self, upload: Upload, row: UploadFile, member: int, archive: ZipFile, info: ZipInfo
    ) -> None:
        """Take in one member of a zip file, or write down why not."""
        name = f"{row.name}/{info.filename}"
        path = self.temporary()
        try:
            require_wanted(info.filename)
            self.require_room(info.file_size)
            extract(archive, info, path)
        except Refused as refused:
            path.unlink(missing_ok=True)
            self._note(upload, row.number, name, info.file_size, _refusal(refused), member)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise Unavailable("the disk is filled up to its reserve; unpacking waits") from error
        else:
            self.receive(upload, row.number, name, path, member=member)

    def _convert(self, upload: Upload, row: UploadFile) -> dict[str, Any] | None:
        """Write a NIfTI image as DICOM and take it in; None when it was interrupted."""
        from store.dicom.from_nifti import Said, read_series

        series = read_series(self.path(row), Said.from_json(row.said))
        became: list[Recorded] = []
        for k in range(len(series)):
            if k % 20 == 0 and not self._goes_on(row.upload_pk):
                return None
            self.require_room()
            path = self.temporary()
            path.write_bytes(series.encoded(k))
            became.append(
                self._intake.take(
                    path,
                    source=upload_files.source_of(upload.author),
                    association=OpenAssociation(pk=upload.association_pk),
                )
            )
        where = {"study_pk": became[0].study_pk, "instance_pk": became[0].instance_pk}
        if all(one.outcome == "identical" for one in became):
            code, sentence = SAME[KNOWN]
            return {"state": KNOWN, "code": code, "sentence": sentence, **where}
        told = "; ".join((f"written as {len(series)} {series.said.modality} images", *series.told))
        return {"state": KEPT, "sentence": told, **where}

    def _goes_on(self, upload_pk: int) -> bool:
        if self._interrupted.is_set():
            return False
        with self._database.transaction() as session:
            return uploads.touch(session, upload_pk, self._database.now())

    def _expire(self, now: datetime) -> None:
        """End uploads that nobody went on with for a day, and delete what lies about of them."""
        with self._database.reading() as session:
            old = uploads.abandoned(session, now - EXPIRES)
        for upload_pk in old:
            self.cancel(upload_pk, EXPIRED)
            log.info(line("upload-expired", upload=upload_pk))


def _refusal(refused: Refused) -> dict[str, Any]:
    """Return what is written down of a file that is not taken."""
    state = SKIPPED if refused.code in SKIPS else REFUSED
    return {"state": state, "code": refused.code, "sentence": refused.sentence}


def pseudonym(upload: Upload) -> str:
    """Return a label for the images of an upload that says nothing of anybody."""
    return f"UP-{sha256(f'{upload.id} {upload.created_at.isoformat()}'.encode()).hexdigest()[:8].upper()}"


def told_of(session: Session, settings: Settings, upload_pk: int) -> list[AuditMessage]:
    """Return what the audit trail is told of an upload that has ended: a message a study, refusals with the first."""
    upload = uploads.get(session, upload_pk)
    refused = Counter(
        {r.code: r.count for r in upload_files.tally(session, upload_pk).reasons if r.state == REFUSED}
    )
    whence, told = (settings.ae_title, upload.author, f"upload {upload_pk}"), []
    for study_pk, classes in upload_files.sop_classes(session, upload_pk).items():
        study = session.get_one(Study, study_pk)
        patient = session.get_one(Patient, study.patient_pk)
        who = patients_of(settings).subject(patient.issuer, patient.patient_id, patient.patient_name)
        subject = audit_events.study(study.study_instance_uid, classes)
        told.append(audit_events.imported(*whence, subject, who, refused=refused))
        refused = Counter()
    if refused:
        told.append(audit_events.imported(*whence, None, None, refused=refused))
    return told


__all__ = ["EXPIRES", "Uploads", "pseudonym"]
