"""Reports of evaluations that were made for this node: `evaluations/<family>/<time>-<hash>` below the home folder.

As with models (`store.model_folders`), a folder gets its name when every byte of it is on disk, and its row is
committed after that; a folder that no row names was left by a process that was killed, and is never shown.
Only this file writes `kept_evaluation`.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from sqlmodel import Field, Session, SQLModel, col, select

from plugins.errors import Refused, Unavailable
from store.database import aware_utc
from store.model_folders import sync_folder
from store.tables import UtcDateTime

FOLDER = "evaluations"
MOST_SHOWN = 100
"""So many of the newest reports of a model are listed."""


class KeptEvaluation(SQLModel, table=True):
    """One judgement of one model, with its report."""

    __tablename__ = "kept_evaluation"
    id: int | None = Field(default=None, primary_key=True)
    family: str
    manifest_sha256: str = Field(index=True, description="the model: what vouches for every file of it")
    data_name: str
    data_sha256: str = Field(description="hash of the manifest of the data")
    cases: int
    patients: int
    made_at: datetime = Field(sa_type=UtcDateTime, description="when it was judged")
    kept_at: datetime = Field(sa_type=UtcDateTime)
    author: str = Field(description="who, in words for people")
    folder: str = Field(description="relative to the home folder")
    kept_sha256: str = Field(description="hash of the file that the page is drawn from")


def stage(home: Path, family: str, files: Mapping[str, bytes], now: datetime) -> str:
    """Return the folder, relative to `home`, that files now lie in, on disk. Raises Unavailable for a disk."""
    name = f"{aware_utc(now):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    parent = home / FOLDER / family
    arriving, final = parent / f".arriving-{name}", parent / name
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        arriving.mkdir(mode=0o700)
        for file, content in files.items():
            with (arriving / file).open("xb") as written:
                written.write(content)
                written.flush()
                os.fsync(written.fileno())
        sync_folder(arriving)
        arriving.rename(final)
        sync_folder(parent)
    except OSError as error:
        shutil.rmtree(arriving, ignore_errors=True)
        raise Unavailable(
            f"the folder of evaluations cannot be written ({error.strerror}); mend the disk"
        ) from error
    return final.relative_to(home).as_posix()


def add(session: Session, row: KeptEvaluation) -> int:
    """Write a row whose files are on disk, and return its number."""
    session.add(row)
    session.flush()
    assert row.id is not None
    return row.id


def of_model(session: Session, manifest_sha256: str) -> Sequence[KeptEvaluation]:
    """Return what was kept of a model, the newest first."""
    rows = select(KeptEvaluation).where(col(KeptEvaluation.manifest_sha256) == manifest_sha256)
    return session.exec(rows.order_by(col(KeptEvaluation.id).desc()).limit(MOST_SHOWN)).all()


def get(session: Session, manifest_sha256: str, pk: int) -> KeptEvaluation:
    """Return one of a model. Refuses `no-such-evaluation`."""
    row = session.get(KeptEvaluation, pk)
    if row is None or row.manifest_sha256 != manifest_sha256:
        raise Refused("no-such-evaluation", f"there is no evaluation {pk} of this model")
    return row


def folders(session: Session) -> frozenset[str]:
    """Return every folder, relative to the home folder, that a row names."""
    return frozenset(session.exec(select(KeptEvaluation.folder)).all())


def read(home: Path, row: KeptEvaluation, name: str, *, sha256_of_it: str = "") -> bytes:
    """Return a file of a report. Refuses `no-such-document` and `changed-document`; raises Unavailable for a disk."""
    try:
        content = (home / row.folder / name).read_bytes()
    except FileNotFoundError:
        raise Refused("no-such-document", f"'{name}' of evaluation {row.id} is not there any more") from None
    except OSError as error:
        raise Unavailable(f"'{name}' of evaluation {row.id} cannot be read ({error.strerror})") from error
    if sha256_of_it and sha256(content).hexdigest() != sha256_of_it:
        raise Refused("changed-document", f"'{name}' of evaluation {row.id} is not the file that was kept")
    return content


__all__ = ["KeptEvaluation", "add", "folders", "get", "of_model", "read", "stage"]
