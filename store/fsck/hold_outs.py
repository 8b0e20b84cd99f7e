"""The hold-outs that finished runs of retraining judged on: the newest of each family is kept by the next run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlmodel import Session

from store import runs
from store.file_hash import sha256_of
from store.fsck.fault import Fault, shown, unreadable
from store.walk import is_inside

FOLDER, MANIFEST = "judge", "manifest.json"


def check_hold_outs(session: Session, home: Path, *, quick: bool) -> Iterator[Fault]:
    """Yield the newest hold-out of each family when it is not what was judged on: no later run keeps such a one.

    `quick` looks only whether its files are there.
    """
    newest = {}
    for run in runs.list_runs(session, states=runs.LEARNED):
        if run.folder and _is_there(home / run.folder / FOLDER):
            newest[run.family] = run
    for family, run in sorted(newest.items()):
        name = f"{run.folder}/{FOLDER}"
        try:
            damaged = next(_damaged(home / name, run.judged_sha256, quick=quick), None)
        except OSError as error:
            yield unreadable(name, error)
            continue
        if damaged is not None:
            yield Fault(
                invariant="training",
                code="hold-out-damaged",
                subject=name,
                sentence=f"{shown(damaged)} is not there as models were judged on it: {family} is not retrained.",
                todo=f"bring {name} back from another backup, or remove it: then the hold-out before it, if any, is "
                "kept",
            )


def _is_there(folder: Path) -> bool:
    try:
        folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # who reads it tells of that
    return True


def _damaged(folder: Path, judged_sha256: str, *, quick: bool) -> Iterator[str]:
    """Yield the files of a hold-out that are not what was judged on. Raises OSError when that cannot be known."""
    files = _files(folder / MANIFEST, judged_sha256)
    if files is None:
        yield MANIFEST
        return
    for name, said in files.items():
        try:
            if not (folder / name).is_file() or not (quick or sha256_of(folder / name) == said):
                yield name
        except FileNotFoundError:
            yield name


def _files(manifest: Path, judged_sha256: str) -> dict[str, str] | None:
    """Return the hash of each file that a manifest of data names; None for one that was not judged on."""
    try:
        plain: Any = json.loads(manifest.read_bytes())
        said = plain.pop("sha256")
        if not said == judged_sha256 == sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest():
            return None
        files = {
            name: case["sha256"][role] for case in plain["cases"] for role, name in case["files"].items()
        }
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return files if all(map(is_inside, files)) else None


__all__ = ["check_hold_outs"]
