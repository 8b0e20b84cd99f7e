"""The files of a node's home that a backup holds, and the links there that it cannot hold.

A link at the top of the home leads to another disk (`models`, `training`): what lies there belongs to the node. Any
other link may lead anywhere and round in circles; it is told.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from store.walk import all_files_under

LEFT_OUT = re.compile(r"nadir\.sqlite.*|store|scratch|cache|pictures|\..*")
"""Of the home: rows and objects, which have their own way, and what is made again when it is missing."""
MADE_AGAIN = re.compile(r"training/[^/]+/\d+/learn/replay\d+")
"""Links to curated data, which a run of retraining makes anew from its settings."""


def home_files(home: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Return the files of a home that a backup holds, and the paths in it of links that are not followed.

    Refuses `closed-folder`.
    """
    files: list[Path] = []
    links: list[str] = []
    for top in _tops(home):
        if top.is_symlink() and not _leads_elsewhere(top, home):
            links.append(top.name)
        elif top.is_dir():
            files += (path for path in all_files_under(top) if not path.is_symlink())
            links += sorted(name for name in _links_under(top, home) if not MADE_AGAIN.fullmatch(name))
        elif top.is_file():
            files.append(top)
    return files, tuple(links)


def followed_links(home: Path) -> list[Path]:
    """Return the links of a home behind which a backup copies."""
    return [top for top in _tops(home) if top.is_symlink() and _leads_elsewhere(top, home)]


def _tops(home: Path) -> list[Path]:
    return sorted(top for top in home.iterdir() if not LEFT_OUT.fullmatch(top.name))


def _leads_elsewhere(link: Path, home: Path) -> bool:
    """Return whether a link leads to a file or folder that neither lies in the home nor holds it."""
    if not (os.path.isdir(link) or os.path.isfile(link)):
        return False
    target, inside = link.resolve(), home.resolve()
    return not target.is_relative_to(inside) and not inside.is_relative_to(target)


def _links_under(folder: Path, home: Path) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            if (path := Path(place, name)).is_symlink():
                yield path.relative_to(home).as_posix()


__all__ = ["followed_links", "home_files"]
