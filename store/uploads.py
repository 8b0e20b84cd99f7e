"""What people loaded up by the pages: who, when, which files, and what became of each of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import BigInteger, UniqueConstraint
from sqlmodel import Field, Session, SQLModel, and_, col, func, or_, select, update

from plugins.errors import Refused
from store.charset import storable
from store.database import aware_utc, insert_new
from store.instances import RECEIVING, beat, close_association, open_association
from store.tables import (
    Association,
    Instance,
    Patient,
    Result,
    Revision,
    RevisionInstance,
    Study,
    UtcDateTime,
)

OPEN, CLOSING, WHOLE, CANCELLED, EXPIRED = "open", "closing", "whole", "cancelled", "expired"
ARRIVING, UNPACKING, WAITING, CONVERTING = "arriving", "unpacking", "waiting", "converting"
KEPT, KNOWN, REFUSED, SKIPPED, UNPACKED = "kept", "known", "refused", "skipped", "unpacked"
DUE = (UNPACKING, CONVERTING)
"""States of files that the node has still to deal with."""
ENDED = (KEPT, KNOWN, REFUSED, SKIPPED, UNPACKED)
ISSUER = "NIfTI upload"
"""Issuer of the labels that people give, so that none is ever taken for the patient of that number."""
LONGEST_NAME = 255
EXAMPLES = 5


class Upload(SQLModel, table=True):
    """One upload. Only `store.uploads` writes it."""

    id: int | None = Field(default=None, primary_key=True)
    author: str = Field(description="account or token that began it")
    state: str = Field(default=OPEN, description="open, closing, whole, cancelled or expired")
    delivered: bool = Field(default=True, description="whether its results go to the destinations")
    association_pk: int = Field(
        foreign_key="association.id", description="holds its studies back while it is open"
    )
    created_at: datetime = Field(sa_type=UtcDateTime)
    touched_at: datetime = Field(sa_type=UtcDateTime, index=True, description="last sign of life")
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class UploadFile(SQLModel, table=True):
    """One file of an upload, or one member of a zip file. Only `store.uploads` writes it."""

    __tablename__ = "upload_file"
    __table_args__ = (UniqueConstraint("upload_pk", "number", "member"),)
    id: int | None = Field(default=None, primary_key=True)
    upload_pk: int = Field(foreign_key="upload.id")
    number: int = Field(description="which file, as the sender counts")
    member: int = Field(default=0, description="which member of the zip file, from 1; 0 for the file itself")
    name: str = Field(description="as the sender calls it; never a path here")
    size_bytes: int = Field(sa_type=BigInteger)
    state: str = Field(
        description="arriving, unpacking, waiting (nobody said what it is), converting, "
        "kept, known (held already), refused, skipped or unpacked"
    )
    code: str = Field(default="", description="why it was refused or skipped")
    sentence: str = Field(default="", description="the same for people, or what is to be known of it")
    said: str = Field(default="", description="JSON: what a person said that a NIfTI image is")
    study_pk: int | None = Field(default=None, foreign_key="study.id", index=True)
    instance_pk: int | None = Field(default=None, foreign_key="instance.id", index=True)


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


def begin(session: Session, author: str, *, delivered: bool, now: datetime) -> Upload:
    """Return a new upload."""
    now = aware_utc(now)
    association_pk = open_association(session, "UPLOAD", "", now)
    upload = Upload(
        author=storable(author),
        delivered=delivered,
        association_pk=association_pk,
        created_at=now,
        touched_at=now,
    )
    session.add(upload)
    session.flush()
    return upload


def get(session: Session, upload_pk: int) -> Upload:
    """Return an upload. Refuses `no-such-upload`."""
    upload = session.get(Upload, upload_pk)
    if upload is None:
        raise Refused("no-such-upload", f"there is no upload {upload_pk}")
    return upload


def touch(session: Session, upload_pk: int, now: datetime) -> Upload:
    """Return an open upload after a sign of life was noted. Refuses `no-such-upload` and `upload-ended`."""
    now = aware_utc(now)
    open_now = and_(col(Upload.id) == upload_pk, col(Upload.state) == OPEN)
    session.exec(update(Upload).where(open_now).values(touched_at=now))
    upload = get(session, upload_pk)
    session.refresh(upload)
    if upload.state != OPEN:
        raise Refused("upload-ended", f"upload {upload_pk} is {upload.state}; begin another one")
    reopen = and_(col(Association.id) == upload.association_pk, col(Association.closed_at).is_not(None))
    session.exec(update(Association).where(reopen).values(closed_at=None))
    beat(session, upload.association_pk, now)
    return upload


def is_live(session: Session, upload_pk: int, now: datetime) -> bool:
    """Return whether an upload goes on, and hold its studies back a while longer when it does."""
    upload = get(session, upload_pk)
    session.refresh(upload)
    if upload.state not in (OPEN, CLOSING):
        return False
    beat(session, upload.association_pk, now)
    return True


def note(
    session: Session, upload_pk: int, number: int, name: str, size_bytes: int, state: str, **values: Any
) -> UploadFile:
    """Return the row of a file after it was written down what became of it; `member`, `code`, ... by name."""
    member = int(values.pop("member", 0))
    given = {
        "name": storable(name)[-LONGEST_NAME:],
        "size_bytes": size_bytes,
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


def images(session: Session, upload_pk: int, *, limit: int) -> list[UploadFile]:
    """Return the NIfTI images of an upload of which somebody said what they are."""
    statement = select(UploadFile).where(col(UploadFile.upload_pk) == upload_pk, col(UploadFile.said) != "")
    return list(session.exec(statement.order_by(col(UploadFile.id)).limit(limit)))


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


def recent(session: Session, *, limit: int = 20, before: int | None = None) -> list[Upload]:
    """Return the newest uploads, those before row `before` when it is given."""
    statement = select(Upload).order_by(col(Upload.id).desc()).limit(limit)
    if before is not None:
        statement = statement.where(col(Upload.id) < before)
    return list(session.exec(statement))


def count(session: Session) -> int:
    """Return how many uploads there are."""
    return int(session.exec(select(func.count()).select_from(Upload)).one())


def close(session: Session, upload_pk: int, now: datetime, *, delivered: bool | None = None) -> Upload:
    """Return an upload after the sender said that this is all; `complete` lets its studies settle.

    `delivered` says anew whether results go to the destinations. Again for one that is closed changes nothing.
    Refuses `no-such-upload`, `upload-ended` when it was cancelled or has expired, and `still-arriving`.
    """
    upload = get(session, upload_pk)
    if upload.state in (CLOSING, WHOLE):
        return upload
    upload = touch(session, upload_pk, now)
    if first := files(session, upload_pk, limit=1, states=(ARRIVING,)):
        sentence = f"'{first[0].name}' has not arrived whole; send the rest, or cancel the upload"
        raise Refused("still-arriving", sentence)
    upload.state = CLOSING
    upload.delivered = upload.delivered if delivered is None else delivered
    session.add(upload)
    session.flush()
    return upload


def complete(session: Session, upload_pk: int, now: datetime) -> bool:
    """Return whether an upload that was closed has become whole by now; then its studies may settle at once.

    It is not while a zip file is still to be unpacked, or somebody has to say what an image is.
    """
    upload = get(session, upload_pk)
    if upload.state != CLOSING or files(session, upload_pk, limit=1, states=(WAITING, *DUE)):
        return False
    upload.state, upload.ended_at = WHOLE, aware_utc(now)
    session.add(upload)
    session.flush()
    close_association(session, upload.association_pk, now)
    receiving = and_(
        col(Study.id).in_([pk for pk, _ in studies(session, upload_pk)]), col(Study.state) == RECEIVING
    )
    session.exec(
        update(Study).where(receiving).values(settle_now=True),
        execution_options={"synchronize_session": False},
    )
    return True


def say(session: Session, row: UploadFile, said: str) -> None:
    """Keep what a person said that an image is, so that it is written. Refuses `not-waiting` and `upload-ended`."""
    _require_waiting(session, row)
    change(session, int(row.id or 0), state=CONVERTING, said=storable(said))


def leave_out(session: Session, row: UploadFile) -> None:
    """Pass over an image of which nobody says what it is. Refuses `not-waiting` and `upload-ended`."""
    _require_waiting(session, row)
    change(session, int(row.id or 0), state=SKIPPED, code="left-out", sentence="it was left out on purpose")


def _require_waiting(session: Session, row: UploadFile) -> None:
    upload = get(session, row.upload_pk)
    if upload.state not in (OPEN, CLOSING):
        raise Refused("upload-ended", f"upload {row.upload_pk} is {upload.state}; begin another one")
    if row.state != WAITING:
        raise Refused("not-waiting", f"nobody has to say any more what '{row.name}' is: it is {row.state}")


def study_named(session: Session, issuer: str, patient_id: str, study_date: date) -> str | None:
    """Return the Study Instance UID under which images of this label and date are kept, or are about to be."""
    held = (
        select(Study.study_instance_uid)
        .join(Patient, col(Patient.id) == col(Study.patient_pk))
        .where(
            col(Patient.issuer) == issuer,
            col(Patient.patient_id) == patient_id,
            col(Study.study_date) == study_date,
        )
        .order_by(col(Study.id))
    )
    if uid := session.exec(held.limit(1)).first():
        return uid
    coming = select(UploadFile.said).where(col(UploadFile.state) == CONVERTING)
    for said in map(json.loads, session.exec(coming)):
        if (said["patient_label"], said["study_date"]) == (patient_id, study_date.isoformat()):
            return str(said["study_instance_uid"])
    return None


def end(session: Session, upload_pk: int, state: str, now: datetime) -> Upload:
    """Return an upload after it was cancelled or has expired; what was kept of it stays, as with any other sender.

    Refuses `no-such-upload` and `upload-ended`.
    """
    upload = get(session, upload_pk)
    if upload.state not in (OPEN, CLOSING):
        raise Refused("upload-ended", f"upload {upload_pk} is {upload.state} already")
    upload.state, upload.ended_at = state, aware_utc(now)
    session.add(upload)
    session.flush()
    close_association(session, upload.association_pk, now)
    left = and_(col(UploadFile.upload_pk) == upload_pk, col(UploadFile.state).in_((ARRIVING, WAITING, *DUE)))
    said = {"state": SKIPPED, "code": state, "sentence": f"the upload was {state} before it was dealt with"}
    session.exec(update(UploadFile).where(left).values(said))
    return upload


def abandoned(session: Session, before: datetime) -> list[int]:
    """Return the open uploads without a sign of life since a time."""
    statement = select(Upload.id).where(col(Upload.state) == OPEN, col(Upload.touched_at) < aware_utc(before))
    return [int(pk or 0) for pk in session.exec(statement)]


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


def source_of(author: str) -> str:
    """Return what the instances of an upload say of where they came from."""
    return f"upload by {author}"


def is_withheld(session: Session, revision_pk: int) -> bool:
    """Return whether the results of a revision stay here.

    So it is when it came by uploads whose results are not to be sent, and always when somebody made up whose images
    they are: an archive of patients must not learn of a patient that there is not.
    """
    of_study = (
        select(Upload.author, Upload.delivered)
        .join(UploadFile, col(UploadFile.upload_pk) == col(Upload.id))
        .join(Revision, col(Revision.study_pk) == col(UploadFile.study_pk))
        .where(col(Revision.id) == revision_pk)
        .distinct()
    )
    issuer = (
        select(Patient.issuer)
        .join(Study, col(Study.patient_pk) == col(Patient.id))
        .join(Revision, col(Revision.study_pk) == col(Study.id))
        .where(col(Revision.id) == revision_pk)
    )
    if session.exec(issuer).first() == ISSUER:
        return True
    uploads = list(session.exec(of_study))
    if not uploads or any(is_delivered for _, is_delivered in uploads):
        return False
    others = (
        select(Instance.id)
        .join(RevisionInstance, col(RevisionInstance.instance_pk) == col(Instance.id))
        .where(
            col(RevisionInstance.revision_pk) == revision_pk,
            col(Instance.source).not_in([source_of(author) for author, _ in uploads]),
        )
    )
    return session.exec(others.limit(1)).first() is None


__all__ = [
    "ARRIVING",
    "CANCELLED",
    "CLOSING",
    "CONVERTING",
    "DUE",
    "ENDED",
    "EXPIRED",
    "ISSUER",
    "KEPT",
    "KNOWN",
    "OPEN",
    "REFUSED",
    "SKIPPED",
    "UNPACKED",
    "UNPACKING",
    "WAITING",
    "WHOLE",
    "Reason",
    "Tally",
    "Upload",
    "UploadFile",
    "abandoned",
    "begin",
    "change",
    "close",
    "complete",
    "count",
    "end",
    "file_at",
    "file_of",
    "files",
    "get",
    "images",
    "is_live",
    "is_own",
    "is_withheld",
    "leave_out",
    "members",
    "next_due",
    "note",
    "recent",
    "result_hashes",
    "say",
    "sop_classes",
    "source_of",
    "studies",
    "study_named",
    "tally",
    "touch",
]
