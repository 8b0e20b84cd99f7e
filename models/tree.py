"""The hash of a whole folder: what is vouched for when a model is a program and not only numbers."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection
from pathlib import Path

from models.files import SHA256, BadModel

MOST_FILES = 10_000


def tree_sha256(folder: Path) -> str:
    """Return the sha256 over name and sha256 of every file below `folder`, in the order of their names.

    Raises BadModel: `not-a-folder`, `empty-folder`, `link` (also for what is no plain file), `too-many-files`.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise BadModel("not-a-folder", f"'{folder}' is no folder; archives are not unpacked here")
    lines = []
    for path in sorted(_files(folder), key=lambda path: path.relative_to(folder).as_posix()):
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            lines.append(
                f"{path.relative_to(folder).as_posix()}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n"
            )
    if not lines:
        raise BadModel("empty-folder", f"'{folder}' holds no file")
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def verify_tree(folder: Path, trusted: Collection[str]) -> str:
    """Return the hash of a folder that somebody vouches for; nothing in it is opened as anything but bytes.

    Raises BadModel as `tree_sha256` does, `bad-hash` for a list that holds what is no sha256, and `not-trusted`.
    """
    if wrong := next((one for one in trusted if SHA256.fullmatch(one) is None), None):
        raise BadModel("bad-hash", f"{wrong!r} is no sha256: 64 lower-case hexadecimal digits")
    sha256 = tree_sha256(folder)
    if sha256 not in trusted:
        raise BadModel(
            "not-trusted", f"nobody vouches for the folder '{folder.name}' with the sha256 {sha256}"
        )
    return sha256


def _files(folder: Path) -> list[Path]:
    found = []
    for parent, folders, names in os.walk(folder, followlinks=False):
        for name in [*folders, *names]:
            path = Path(parent) / name
            mode = path.lstat().st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise BadModel("link", f"'{path.relative_to(folder)}' is a link, or no plain file")
        found += [Path(parent) / name for name in names]
        if len(found) > MOST_FILES:
            raise BadModel("too-many-files", f"the folder holds more than {MOST_FILES} files")
    return found


__all__ = ["tree_sha256", "verify_tree"]
