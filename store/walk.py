"""The files under a folder, the folders under it that cannot be read, and which paths are of files in it."""

from __future__ import annotations

import errno
import os
from pathlib import Path, PurePosixPath

from plugins.errors import Refused


def files_under(folder: Path) -> tuple[list[Path], list[Refused]]:
    """Return the files under a folder, sorted, and for each folder that cannot be read a `closed-folder`.

    Links to folders are not followed; what is no file (pipes, devices) is passed over.
    """
    closed: list[Refused] = []

    def tell(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # somebody took it away meanwhile
            sentence = f"{error.filename} cannot be read ({error.strerror}): what is in it is missing"
            closed.append(Refused("closed-folder", sentence))

    found = []
    for place, folders, names in os.walk(folder, onerror=tell):
        if not os.access(place, os.X_OK):  # its names may be read, and nothing else of what is in it
            tell(PermissionError(errno.EACCES, os.strerror(errno.EACCES), place))
            folders.clear()
            continue
        found += [path for name in names if (path := Path(place, name)).is_file()]
    return sorted(found), closed


def all_files_under(folder: Path) -> list[Path]:
    """Return the files under a folder, sorted. Refuses `closed-folder`: of what is there some cannot be read."""
    found, closed = files_under(folder)
    for one in closed:
        raise Refused(
            one.code, f"{one.sentence}; let the user that runs nadir read it, or name another folder"
        )
    return found


def is_inside(file: str) -> bool:
    """Return whether a path is one within the folder that it is relative to: never absolute, and never upwards."""
    path = PurePosixPath(file)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in file


__all__ = ["all_files_under", "files_under", "is_inside"]
