"""The files under a folder, and the folders under it that cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

from plugins.errors import Refused


def files_under(folder: Path) -> tuple[list[Path], list[Refused]]:
    """Return the files under a folder, sorted, and for each folder that cannot be read a `closed-folder`.

    Links to folders are not followed; what is no file (pipes, devices) is passed over.
    """
    closed: list[Refused] = []

    def tell(error: OSError) -> None:
        closed.append(
            Refused(
                "closed-folder",
                f"{error.filename} cannot be read ({error.strerror}): what is in it is missing",
            )
        )

    found = [
        path
        for place, _, names in os.walk(folder, onerror=tell)
        for name in names
        if (path := Path(place, name)).is_file()
    ]
    return sorted(found), closed


__all__ = ["files_under"]
