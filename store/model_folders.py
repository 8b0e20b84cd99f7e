"""The folders of models that were made here: `models/<family>/<number>-<hash>` below the home folder.

A folder gets its name when every byte of it is on disk, and its row is committed after that. One that no row names was
left by a process that was killed, and is never used.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from models.files import MANIFEST, BadModel
from models.shipped import Model, open_model
from plugins.errors import Refused, Unavailable
from store.failpoint import reach

FOLDER = "models"
FAMILY = re.compile(r"[a-z][a-z0-9_]{0,63}")
ARRIVING = ".arriving-"
"""Beginning of the name of a folder that is not whole yet."""
SHORT = 12
"""Digits of the manifest's hash in the name of a folder."""


@dataclass(frozen=True, kw_only=True)
class Staged:
    """A model whose files are on disk below the home folder, without a number yet."""

    home: Path
    """The home folder."""
    family: str
    """Which model by its purpose."""
    model: Model
    """What was copied, as it was held against its manifest."""


def stage(home: Path, family: str, folder: Path) -> Staged:
    """Return the model of a folder after it was copied below `home` and is on disk; `folder` stays as it is.

    Refuses `bad-family`, `other-family`, and what `models.files.verify` does. Raises Unavailable for a disk.
    """
    if FAMILY.fullmatch(family) is None:
        raise Refused("bad-family", f"{family!r} is no name of a family of models")
    try:
        model = _opened(folder, _vouched_by_itself(folder))
        _require_family(model, family)
        with _unavailable():
            target = _parent(home, family) / f"{ARRIVING}{model.manifest.sha256[:SHORT]}"
            shutil.rmtree(target, ignore_errors=True)  # of one that was killed while it copied
            target.mkdir(mode=0o700)
            for name in (MANIFEST, *model.manifest.files):
                _copy(folder / name, target / name)
            sync_folder(target)
        return Staged(home=home, family=family, model=_opened(target, model.manifest.sha256))
    except BadModel as bad:
        raise Refused(bad.code, f"the model in {folder} cannot be taken: {bad.sentence}") from bad


def folder_of(staged: Staged, number: int) -> str:
    """Return the folder, relative to the home folder, that a staged model gets with a number."""
    return f"{FOLDER}/{staged.family}/{number}-{staged.model.manifest.sha256[:SHORT]}"


def give_name(staged: Staged, number: int) -> None:
    """Give a staged model its folder; when this returns, the name is on disk. Raises Unavailable."""
    final = staged.home / folder_of(staged, number)
    with _unavailable():
        if final.exists():  # of one that was killed before its row was there
            shutil.rmtree(final)
        os.rename(staged.model.folder, final)
        sync_folder(final.parent)
    reach("model-folder-named")


def unnamed(home: Path, named: Collection[str]) -> list[str]:
    """Return the folders of models, relative to `home`, that none of `named` is."""
    found = (path.relative_to(home).as_posix() for path in (home / FOLDER).glob("*/*"))
    return sorted(set(found) - set(named))


def _require_family(model: Model, family: str) -> None:
    """Raise BadModel (`other-family`) when the card of a model says that it is of another family."""
    experiment = model.card.get("experiment")
    said = experiment.get("model") if isinstance(experiment, dict) else model.manifest.name
    if said != family:
        raise BadModel("other-family", f"it is a model of {said}, not of {family}")


def _vouched_by_itself(folder: Path) -> str:
    """Return the hash of the manifest in a folder that whoever names it vouches for."""
    try:
        return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    except OSError as error:
        raise BadModel("missing-file", f"'{MANIFEST}' cannot be read: {error.strerror}") from error


def _opened(folder: Path, sha256: str) -> Model:
    return open_model(folder, {sha256}, date.min)


def _parent(home: Path, family: str) -> Path:
    parent = home / FOLDER / family
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return parent


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("xb") as written:
        shutil.copyfileobj(read, written, 1 << 20)
        written.flush()
        os.fsync(written.fileno())
    target.chmod(0o440)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"the folder of models cannot be written ({error.strerror}); mend the disk"
        ) from error


__all__ = ["Staged", "folder_of", "give_name", "stage", "sync_folder", "unnamed"]
