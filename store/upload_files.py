"""The files of uploads: what became of each, counted and listed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlmodel import Session, and_, col, func, or_, select, update

from plugins.errors import Refused
from store.charset import storable
from store.database import insert_new
from store.tables import Instance, Patient, Result, Study
from store.upload_tables import (
    CLOSING,
    CONVERTING,
    DUE,
    KEPT,
    KNOWN,
    OPEN,
    REFUSED,
    SKIPPED,
    WAITING,
    Upload,
    UploadFile,
)

LONGEST_NAME = 255
EXAMPLES = 5


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why some files were not taken."""

    state: str
    """refused, skipped or known."""
    code: str
    """The reason."""
    sentence: str
    """One of its sentences."""
    count: int
    """How many files."""
    examples: tuple[str, ...]
    """Names of some."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """The files of an upload, counted."""

    counts: dict[str, int]
    """Files by state."""
    size_bytes: int
    """Bytes of the files that were sent (zip files, not what was in them)."""
    reasons: tuple[Reason, ...]
    """Why some were not taken, the most frequent first."""

    def of(self, *states: str) -> int:
        """Return how many files are in some of these states."""
        return sum(self.counts.get(state, 0) for state in states)


def note(
    session: Session, upload_pk: int, number: int, name: str, size_bytes: int, state: str, **values: Any
) -> UploadFile:
    """Return the row of a file after it was written down what became of it; `member`, `code`, ... by name."""
    member = int(values.pop("member", 0))
    given = {
        "name": kept_name(name),
        "size_bytes": size_bytes,
        "sha256": "",
        "state": state,
        "code": "",
        "sentence": "",
        "said": "",
        "study_pk": None,
        "instance_pk": None,
        **values,
    }
    where = {"upload_pk": upload_pk, "number": number, "member": member}
    if insert_new(session, UploadFile, {**where, **given}) is None:
        same = and_(*(col(getattr(UploadFile, key)) == value for key, value in where.items()))
        session.exec(update(UploadFile).where(same).values(given))
    row = file_at(session, upload_pk, number, member)
    if row is None:
        raise Refused("no-such-upload", f"there is no upload {upload_pk}")
    return row


def kept_name(name: str) -> str:
    """Return the name of a file as its row has it: its end, when it is long."""
    return storable(name)[-LONGEST_NAME:]


def change(session: Session, file_pk: int, **values: Any) -> None:
    """Write down what became of a file that is known."""
    session.exec(update(UploadFile).where(col(UploadFile.id) == file_pk).values(values))


def file_at(session: Session, upload_pk: int, number: int, member: int = 0) -> UploadFile | None:
    """Return the row of a file, None when nothing of it came yet."""
    statement = select(UploadFile).where(
        col(UploadFile.upload_pk) == upload_pk,
        col(UploadFile.number) == number,
        col(UploadFile.member) == member,
    )
    return session.exec(statement.execution_options(populate_existing=True)).first()


def file_of(session: Session, upload_pk: int, file_pk: int) -> UploadFile:
    """Return a file of an upload by its row. Refuses `no-such-file`."""
    row = session.get(UploadFile, file_pk)
    if row is None or row.upload_pk != upload_pk:
        raise Refused("no-such-file", f"upload {upload_pk} has no file {file_pk}")
    return row


def files(
    session: Session, upload_pk: int, *, after: int = 0, limit: int = 1000, states: Sequence[str] = ()
) -> list[UploadFile]:
    """Return files of an upload in the order in which they came, those behind row `after`."""
    statement = select(UploadFile).where(col(UploadFile.upload_pk) == upload_pk, col(UploadFile.id) > after)
    if states:
        statement = statement.where(col(UploadFile.state).in_(states))
    return list(session.exec(statement.order_by(col(UploadFile.id)).limit(limit)))


def count_files(session: Session, upload_pk: int, states: Sequence[str] = ()) -> int:
    """Return how many files of an upload there are, all or those in some states."""
    statement = select(func.count()).select_from(UploadFile).where(col(UploadFile.upload_pk) == upload_pk)
    if states:
        statement = statement.where(col(UploadFile.state).in_(states))
    return session.exec(statement).one()


def images(session: Session, upload_pk: int, *, limit: int) -> list[UploadFile]:
    """Return the NIfTI images of an upload of which somebody said what they are."""
    statement = select(UploadFile).where(col(UploadFile.upload_pk) == upload_pk, col(UploadFile.said) != "")
    return list(session.exec(statement.order_by(col(UploadFile.id)).limit(limit)))


def members(session: Session, upload_pk: int, number: int) -> set[int]:
    """Return which members of a zip file were dealt with."""
    statement = select(UploadFile.member).where(
        col(UploadFile.upload_pk) == upload_pk,
        col(UploadFile.number) == number,
        col(UploadFile.member) > 0,
        col(UploadFile.state) != CONVERTING,
    )
    return set(session.exec(statement))


def tally(session: Session, upload_pk: int) -> Tally:
    """Return the files of an upload, counted."""
    of_upload = col(UploadFile.upload_pk) == upload_pk
    counted = select(col(UploadFile.state), func.count()).where(of_upload).group_by(col(UploadFile.state))
    sent = select(func.sum(UploadFile.size_bytes)).where(of_upload, col(UploadFile.member) == 0)
    grouped = (
        select(col(UploadFile.state), col(UploadFile.code), func.min(UploadFile.sentence), func.count())
        .where(of_upload, col(UploadFile.code) != "", col(UploadFile.state).in_((REFUSED, SKIPPED, KNOWN)))
        .group_by(col(UploadFile.state), col(UploadFile.code))
        .order_by(func.count().desc(), col(UploadFile.code))
    )
    reasons = []
    for state, code, sentence, count in session.exec(grouped).all():
        named = select(UploadFile.name).where(
            of_upload, col(UploadFile.state) == state, col(UploadFile.code) == code
        )
        examples = tuple(session.exec(named.order_by(col(UploadFile.id)).limit(EXAMPLES)))
        reasons.append(Reason(state=state, code=code, sentence=sentence, count=count, examples=examples))
    return Tally(
        counts={state: count for state, count in session.exec(counted)},
        size_bytes=int(session.exec(sent).one() or 0),
        reasons=tuple(reasons),
    )


def studies(session: Session, upload_pk: int) -> list[tuple[int, str]]:
    """Return row and UID of the studies that files of an upload belong to, in the order in which they came."""
    statement = (
        select(col(Study.id), col(Study.study_instance_uid))
        .join(UploadFile, col(UploadFile.study_pk) == col(Study.id))
        .where(col(UploadFile.upload_pk) == upload_pk)
        .group_by(col(Study.id), col(Study.study_instance_uid))
        .order_by(func.min(UploadFile.id))
    )
    return [(int(pk or 0), uid) for pk, uid in session.exec(statement)]


def sop_classes(session: Session, upload_pk: int) -> dict[int, dict[str, int]]:
    """Return how many objects of which SOP Class an upload brought, by the row of their study."""
    statement = (
        select(col(UploadFile.study_pk), col(Instance.sop_class_uid), func.count())
        .join(Instance, col(Instance.id) == col(UploadFile.instance_pk))
        .where(col(UploadFile.upload_pk) == upload_pk, col(UploadFile.state) == KEPT)
        .group_by(col(UploadFile.study_pk), col(Instance.sop_class_uid))
        .order_by(col(UploadFile.study_pk))
    )
    found: dict[int, dict[str, int]] = {}
    for study_pk, sop_class_uid, count in session.exec(statement):
        found.setdefault(int(study_pk or 0), {})[sop_class_uid] = count
    return found


def result_hashes(session: Session, result_pks: Sequence[int]) -> dict[int, str]:
    """Return what the object store calls results, by their rows."""
    statement = select(col(Result.id), col(Result.sha256)).where(col(Result.id).in_(result_pks))
    return {int(pk or 0): sha256 for pk, sha256 in session.exec(statement)}


def next_due(session: Session) -> UploadFile | None:
    """Return the file that the node has to deal with next, None when there is none."""
    statement = (
        select(UploadFile)
        .join(Upload, col(Upload.id) == col(UploadFile.upload_pk))
        .where(col(UploadFile.state).in_(DUE), col(Upload.state).in_((OPEN, CLOSING)))
        .order_by(col(UploadFile.id))
        .limit(1)
    )
    return session.exec(statement).first()


def is_own(session: Session, upload: Upload, instance_pk: int, number: int, member: int) -> str:
    """Return what a file is whose bytes are held: kept by this very file, a second copy, or known from before.

    "kept" when the node ended between keeping it and saying so; "duplicate"; "known".
    """
    other = select(UploadFile.id).where(
        col(UploadFile.upload_pk) == upload.id,
        col(UploadFile.instance_pk) == instance_pk,
        or_(col(UploadFile.number) != number, col(UploadFile.member) != member),
    )
    if session.exec(other.limit(1)).first() is not None:
        return "duplicate"
    instance = session.get_one(Instance, instance_pk)
    is_ours = instance.source == source_of(upload.author) and instance.received_at >= upload.created_at
    return KEPT if is_ours else KNOWN


def say(session: Session, row: UploadFile, said: str) -> None:
    """Keep what a person said that an image is, so that it is written. Refuses `not-waiting` and `upload-ended`."""
    _require_waiting(session, row)
    change(session, int(row.id or 0), state=CONVERTING, said=storable(said))


def leave_out(session: Session, row: UploadFile) -> None:
    """Pass over an image of which nobody says what it is. Refuses `not-waiting` and `upload-ended`."""
    _require_waiting(session, row)
    change(session, int(row.id or 0), state=SKIPPED, code="left-out", sentence="it was left out on purpose")


def _require_waiting(session: Session, row: UploadFile) -> None:
    upload = session.get_one(Upload, row.upload_pk)
    if upload.state not in (OPEN, CLOSING):
        raise Refused("upload-ended", f"upload {row.upload_pk} is {upload.state}; begin another one")
    if row.state != WAITING:
        raise Refused("not-waiting", f"nobody has to say any more what '{row.name}' is: it is {row.state}")


def study_of_image(
    session: Session, row: UploadFile, *, modality: str, patient_label: str, study_date: date
) -> str | None:
    """Return the Study Instance UID that a NIfTI image belongs to by itself, None when it begins a study.

    Images of one upload with the same label and date are one study. An image of another upload is one of its own, since
    nobody said that they belong together; but the very same bytes, said to be the same, are the image that is here.
    """
    together = or_(
        col(UploadFile.upload_pk) == row.upload_pk,
        and_(col(UploadFile.sha256) != "", col(UploadFile.sha256) == row.sha256),
    )
    named = select(UploadFile).where(
        together, col(UploadFile.said) != "", col(UploadFile.state).in_((CONVERTING, KEPT, KNOWN))
    )
    for other in session.exec(named.order_by(col(UploadFile.id))):
        said = json.loads(other.said)
        if (said["patient_label"], said["study_date"]) != (patient_label, study_date.isoformat()):
            continue
        if other.upload_pk == row.upload_pk or said["modality"] == modality:
            return str(said["study_instance_uid"])
    return None


def study_named(session: Session, issuer: str, patient_id: str, study_date: date) -> str | None:
    """Return the Study Instance UID of the newest study of this label and date, None when there is none."""
    held = (
        select(Study.study_instance_uid)
        .join(Patient, col(Patient.id) == col(Study.patient_pk))
        .where(
            col(Patient.issuer) == issuer,
            col(Patient.patient_id) == patient_id,
            col(Study.study_date) == study_date,
        )
        .order_by(col(Study.id).desc())
    )
    return session.exec(held.limit(1)).first()


def source_of(author: str) -> str:
    """Return what the instances of an upload say of where they came from."""
    return f"upload by {author}"


__all__ = [
    "Reason",
    "Tally",
    "change",
    "count_files",
    "file_at",
    "file_of",
    "files",
    "images",
    "is_own",
    "kept_name",
    "leave_out",
    "members",
    "next_due",
    "note",
    "result_hashes",
    "say",
    "sop_classes",
    "source_of",
    "studies",
    "study_named",
    "study_of_image",
    "tally",
]
