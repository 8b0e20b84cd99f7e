"""Folders below the home folder that a killed process left: whole or half, and named by no row."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from sqlmodel import Session

from store import evaluations
from store.fsck.fault import NOT_OURS, Fault, shown, unreadable
from store.fsck.files import YOUNG_SECONDS


def unnamed_folders(
    home: Path, root: str, named: Collection[str], fault: Fault, *, now: datetime
) -> Iterator[Fault]:
    """Yield the fault for each folder `<root>/<family>/<name>` below `home` that is not `named`.

    What lies there and is no folder, and a folder that cannot be read, is another fault.
    """
    others: list[Fault] = []
    for family in _folders(home, root, fault.invariant, others):
        for name, changed_at in _folders(home, family, fault.invariant, others).items():
            if name not in named:
                yield replace(fault, subject=shown(name), young=now.timestamp() - changed_at < YOUNG_SECONDS)
    yield from others


def _folders(home: Path, parent: str, invariant: str, others: list[Fault]) -> dict[str, float]:
    """Return the folders in one, relative to `home`, and when each last changed; all else there goes to `others`."""
    found: dict[str, float] = {}
    try:
        with os.scandir(home / parent) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                name = f"{parent}/{entry.name}"
                with suppress(FileNotFoundError):  # a live node gave it its name meanwhile
                    if entry.is_dir():
                        found[name] = entry.stat().st_mtime
                    else:
                        others.append(_stray(name, invariant))
    except FileNotFoundError:
        pass  # nothing of the kind was ever made here
    except OSError as error:
        others.append(unreadable(parent, error))
    return found


def _stray(name: str, invariant: str) -> Fault:
    return Fault(
        invariant=invariant,
        code="unknown-file",
        subject=shown(name),
        sentence="Something that the node did not make lies in its folder.",
        todo=NOT_OURS,
    )


def check_evaluations(session: Session, home: Path, *, now: datetime) -> Iterator[Fault]:
    """Yield every folder of a kept evaluation that no row names."""
    fault = Fault(
        invariant="evaluations",
        code="evaluation-unnamed",
        subject="",
        sentence="Whoever kept this report was killed; no row names it, and it is shown nowhere.",
        todo="delete it; run nadir evaluate --keep again if the report is wanted",
    )
    yield from unnamed_folders(home, evaluations.FOLDER, evaluations.folders(session), fault, now=now)


__all__ = ["check_evaluations", "unnamed_folders"]
