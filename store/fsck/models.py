"""The models that were made here: what lies below the home folder, beside what the registry says of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

from sqlmodel import Session

from models.files import BadModel, verify
from store.fsck.fault import Fault, unreadable
from store.fsck.folders import unnamed_folders
from store.model_folders import FOLDER
from store.registry import versions


def check_models(session: Session, home: Path, *, now: datetime, quick: bool) -> Iterator[Fault]:
    """Yield every model whose files are not what was judged, and every folder that no row names.

    `quick` looks only whether the folder is there.
    """
    known = versions(session)
    for one in known:
        try:
            if _is_whole(home / one.folder, one.manifest_sha256, quick=quick):
                continue
        except OSError as error:
            yield unreadable(one.folder, error)
            continue
        yield Fault(
            invariant="models",
            code="model-damaged",
            subject=f"{one.family} {one.number}",
            sentence=f"The model in {one.folder} is not there as it was judged: no analysis will use it.",
            todo=f"put its files back; if it counts, run nadir models rollback {one.family}",
        )
    left = Fault(
        invariant="models",
        code="model-unnamed",
        subject="",
        sentence="A run that was killed left this model; no row names it, and nothing uses it.",
        todo="delete it",
    )
    yield from unnamed_folders(home, FOLDER, {one.folder for one in known}, left, now=now)


def _is_whole(folder: Path, sha256: str, *, quick: bool) -> bool:
    """Return whether a model is there, and whether its files are what was judged.

    Raises OSError when that cannot be known.
    """
    try:
        os.listdir(folder)
        return quick or bool(verify(folder, {sha256}, date.min))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except BadModel as bad:
        if isinstance(bad.__cause__, OSError) and bad.__cause__.errno in (errno.EACCES, errno.EIO):
            raise bad.__cause__ from bad
        return False


__all__ = ["check_models"]
