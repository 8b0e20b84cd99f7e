"""What the JSON of uploads says and is told."""

from __future__ import annotations

from datetime import date
from typing import Literal
from uuid import uuid4

from pydantic import BaseModel, Field
from sqlmodel import Session

from node.uploads import pseudonym
from node.web.api import form
from plugins.errors import Refused
from store import upload_files, uploads
from store.upload_tables import Upload, UploadFile

MOST_FILES = 200_000
MOST_SKIPPED = 500


class Begun(BaseModel):
    """What an upload begins with; said again at its end, the last word counts."""

    delivered: bool = Field(default=True, description="Whether results go to the destinations of the node")


class Reason(BaseModel):
    """Why some files were not taken."""

    state: str = Field(description="refused, skipped or known")
    code: str = Field(description="The reason, for programs")
    sentence: str = Field(description="The reason, for people")
    count: int = Field(description="How many files")
    examples: list[str] = Field(description="Names of some of them")


class UploadAnswer(BaseModel):
    """An upload."""

    id: int = Field(description="Its number")
    author: str = Field(description="Who began it")
    state: str = Field(
        description="open; closing: all is sent, zip files or images are being dealt with; whole, cancelled, expired"
    )
    delivered: bool = Field(description="Whether results go to the destinations of the node")
    created_at: form.Instant
    touched_at: form.Instant
    ended_at: form.Instant | None
    size_bytes: int = Field(description="Bytes that were sent")
    counts: dict[str, int] = Field(
        description="Files by state: kept, known (held already), refused, skipped, unpacked (zip files), "
        "arriving, unpacking, waiting (say what the image is), converting"
    )
    reasons: list[Reason] = Field(description="Why some were not taken, the most frequent first")
    studies: list[str] = Field(description="Study Instance UIDs")


class FileAnswer(BaseModel):
    """One file, or one member of a zip file."""

    id: int = Field(description="Row")
    number: int
    member: int = Field(description="Which member of the zip file, from 1; 0 for the file itself")
    name: str
    size_bytes: int
    received_bytes: int = Field(description="How much of it is here")
    sha256: str = Field(
        description="Of the bytes that are here, as they were sent: another file of this name and size is told by it. "
        "Empty of what was not sent, and of what is arriving unless asked for alone"
    )
    state: str
    code: str = Field(description="Why it was not taken; empty when it was")
    sentence: str


class UploadList(form.Listed):
    """Uploads, the newest first."""

    uploads: list[UploadAnswer]


class FileList(form.Listed):
    """Files in the order in which they came."""

    files: list[FileAnswer]


class SkippedFile(BaseModel):
    """A file that the sender passes over by itself."""

    number: int = Field(ge=1, le=MOST_FILES)
    name: str = Field(max_length=4000)
    size_bytes: int = Field(ge=0, le=form.MOST_PK)
    code: Literal["hidden", "dicomdir", "not-dicom", "misnamed", "empty"]


class SkippedFiles(BaseModel):
    """Files that the sender passes over by itself."""

    files: list[SkippedFile] = Field(max_length=MOST_SKIPPED)


class ImageSaid(BaseModel):
    """What a NIfTI image is."""

    modality: Literal["CT", "PT"] = Field(description="CT in Hounsfield units, or PT in SUV by body weight")
    study_date: date = Field(ge=date(1900, 1, 1), description="When it was made")
    patient_label: str = Field(
        default="",
        max_length=64,
        pattern=r"^[^\\\x00-\x1f\x7f*?]*$",
        description="Pseudonym of the patient, no real name; one is made up when it is empty",
    )
    is_aligned: bool = Field(
        default=True, description="Whether it lies in the same coordinates as the other images of its study"
    )
    joins_earlier: bool = Field(
        default=False,
        description="Whether it belongs to the study of this label and date of an earlier upload. Otherwise only "
        "images of one upload become one study; the very same image of an earlier upload is known again either way",
    )


def answer_of(session: Session, upload: Upload) -> UploadAnswer:
    """Return an upload as JSON tells it."""
    pk = int(upload.id or 0)
    tally = upload_files.tally(session, pk)
    return UploadAnswer(
        id=pk,
        author=upload.author,
        state=upload.state,
        delivered=upload.delivered,
        created_at=upload.created_at,
        touched_at=upload.touched_at,
        ended_at=upload.ended_at,
        size_bytes=tally.size_bytes,
        counts=tally.counts,
        reasons=[
            Reason(state=r.state, code=r.code, sentence=r.sentence, count=r.count, examples=list(r.examples))
            for r in tally.reasons
        ],
        studies=[uid for _, uid in upload_files.studies(session, pk)],
    )


def file_answer(row: UploadFile, received_bytes: int | None = None, sha256: str = "") -> FileAnswer:
    """Return a file as JSON tells it; `received_bytes` and their `sha256` of one that is arriving."""
    return FileAnswer(
        id=int(row.id or 0),
        number=row.number,
        member=row.member,
        name=row.name,
        size_bytes=row.size_bytes,
        received_bytes=row.size_bytes if received_bytes is None else received_bytes,
        sha256=row.sha256 or sha256,
        state=row.state,
        code=row.code,
        sentence=row.sentence,
    )


def keep_said(session: Session, upload_pk: int, file_pk: int, said: ImageSaid) -> None:
    """Keep what a person said that an image is. Refuses what `store.upload_files.say` refuses, and `no-such-study`.

    Which images become one study is told by `store.upload_files.study_of_image`.
    """
    from store.dicom.from_nifti import Said

    label = said.patient_label.strip() or pseudonym(uploads.get(session, upload_pk))
    row = upload_files.file_of(session, upload_pk, file_pk)
    known = upload_files.study_of_image(
        session, row, modality=said.modality, patient_label=label, study_date=said.study_date
    )
    if known is None and said.joins_earlier:
        known = upload_files.study_named(session, uploads.ISSUER, label, said.study_date)
        if known is None:
            raise Refused(
                "no-such-study", f"no study of '{label}' of {said.study_date} is here that it could join"
            )
    plain = Said(
        modality=said.modality,
        patient_label=label,
        study_date=said.study_date,
        study_instance_uid=known or f"2.25.{uuid4().int}",
        is_aligned=said.is_aligned,
    )
    upload_files.say(session, row, plain.to_json())


__all__ = [
    "Begun",
    "FileAnswer",
    "FileList",
    "ImageSaid",
    "Reason",
    "SkippedFile",
    "SkippedFiles",
    "UploadAnswer",
    "UploadList",
    "answer_of",
    "file_answer",
    "keep_said",
]
