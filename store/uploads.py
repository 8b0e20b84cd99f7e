"""What people load up by the pages: who, when, whether results go out, and when it is whole."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Session, and_, col, exists, func, select, update

from plugins.errors import Refused
from store.charset import storable
from store.database import aware_utc
from store.instances import RECEIVING, UPLOAD, beat, close_association, open_association
from store.tables import Instance, Patient, Revision, RevisionInstance, Study
from store.upload_files import files, source_of, studies
from store.upload_tables import ARRIVING, CLOSING, DUE, OPEN, SKIPPED, WAITING, WHOLE, Upload, UploadFile

ISSUER = "NIfTI upload"
"""Issuer of the labels that people give, so that none is ever taken for the patient of that number."""


def begin(session: Session, author: str, *, delivered: bool, now: datetime) -> Upload:
    """Return a new upload."""
    now = aware_utc(now)
    association_pk = open_association(session, UPLOAD, "", now)
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


def require_open(session: Session, upload_pk: int) -> Upload:
    """Return an upload that takes more files. Refuses `no-such-upload` and `upload-ended`."""
    upload = get(session, upload_pk)
    session.refresh(upload)
    if upload.state != OPEN:
        raise Refused("upload-ended", f"upload {upload_pk} is {upload.state}; begin another one")
    return upload


def touch(session: Session, upload_pk: int, now: datetime) -> bool:
    """Return whether an upload goes on, after a sign of life was noted: its studies are held back a while longer."""
    now = aware_utc(now)
    goes_on = and_(col(Upload.id) == upload_pk, col(Upload.state).in_((OPEN, CLOSING)))
    if session.exec(update(Upload).where(goes_on).values(touched_at=now)).rowcount == 0:
        return False
    beat(session, get(session, upload_pk).association_pk, now)
    return True


def recent(session: Session, *, limit: int = 20, before: int | None = None) -> list[Upload]:
    """Return the newest uploads, those before row `before` when it is given."""
    statement = select(Upload).order_by(col(Upload.id).desc()).limit(limit)
    if before is not None:
        statement = statement.where(col(Upload.id) < before)
    return list(session.exec(statement))


def count(session: Session) -> int:
    """Return how many uploads there are."""
    return int(session.exec(select(func.count()).select_from(Upload)).one())


def close(session: Session, upload_pk: int, *, delivered: bool | None = None) -> Upload:
    """Return an upload after the sender said that this is all; `complete` lets its studies settle.

    `delivered` says anew whether results go to the destinations. Again for one that is closed changes nothing.
    Refuses `no-such-upload`, `upload-ended` when it was cancelled or has expired, and `still-arriving`.
    """
    upload = get(session, upload_pk)
    if upload.state in (CLOSING, WHOLE):
        return upload
    upload = require_open(session, upload_pk)
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
    session.refresh(upload, with_for_update=True)  # whoever notes a file of it touches it before
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


def closed(session: Session) -> list[int]:
    """Return the uploads that were closed and have nothing left to do: the node ended before it said so."""
    left = exists().where(
        col(UploadFile.upload_pk) == col(Upload.id), col(UploadFile.state).in_((WAITING, *DUE))
    )
    statement = select(Upload.id).where(col(Upload.state) == CLOSING, ~left)
    return [int(pk or 0) for pk in session.exec(statement)]


def abandoned(session: Session, before: datetime) -> list[int]:
    """Return the open uploads without a sign of life since a time."""
    statement = select(Upload.id).where(col(Upload.state) == OPEN, col(Upload.touched_at) < aware_utc(before))
    return [int(pk or 0) for pk in session.exec(statement)]


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
    "ISSUER",
    "abandoned",
    "begin",
    "close",
    "closed",
    "complete",
    "count",
    "end",
    "get",
    "is_withheld",
    "recent",
    "require_open",
    "touch",
]
