"""Folders below the home folder that a killed process left: whole or half, and named by no row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from sqlmodel import Session

from store import evaluations
from store.fsck.fault import Fault
from store.fsck.files import YOUNG_SECONDS


def unnamed_folders(home: Path, folders: Iterable[str], fault: Fault, *, now: datetime) -> Iterator[Fault]:
    """Yield the fault with each of these folders, relative to `home`, as its subject."""
    for name in folders:
        with suppress(FileNotFoundError):  # a live node gave it its name meanwhile
            age = now.timestamp() - (home / name).stat().st_mtime
            yield replace(fault, subject=name, young=age < YOUNG_SECONDS)


def check_evaluations(session: Session, home: Path, *, now: datetime) -> Iterator[Fault]:
    """Yield every folder of a kept evaluation that no row names."""
    fault = Fault(
        invariant="evaluations",
        code="evaluation-unnamed",
        subject="",
        sentence="Whoever kept this report was killed; no row names it, and it is shown nowhere.",
        todo="delete it; run nadir evaluate --keep again if the report is wanted",
    )
    yield from unnamed_folders(home, evaluations.unnamed(session, home), fault, now=now)


__all__ = ["check_evaluations", "unnamed_folders"]
