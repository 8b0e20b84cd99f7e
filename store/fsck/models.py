"""The models that were made here: what lies below the home folder, beside what the registry says of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

from sqlmodel import Session

from models.files import BadModel, verify
from store.fsck.fault import Fault
from store.fsck.folders import unnamed_folders
from store.model_folders import unnamed
from store.registry import versions


def check_models(session: Session, home: Path, *, now: datetime, quick: bool) -> Iterator[Fault]:
    """Yield every model whose files are not what was judged, and every folder that no row names.

    `quick` looks only whether the folder is there.
    """
    known = versions(session)
    for one in known:
        if _is_whole(home / one.folder, one.manifest_sha256, quick=quick):
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
    yield from unnamed_folders(home, unnamed(home, [one.folder for one in known]), left, now=now)


def _is_whole(folder: Path, sha256: str, *, quick: bool) -> bool:
    try:
        return folder.is_dir() if quick else bool(verify(folder, {sha256}, date.min))
    except BadModel:
        return False


__all__ = ["check_models"]
