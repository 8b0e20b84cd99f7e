"""Which commit of Nadir computes: written down with every run and every judgement."""

from __future__ import annotations

import subprocess
from pathlib import Path

HERE = Path(__file__)
NAME = ("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")


def commit(file: Path = HERE) -> str | None:
    """Return the commit that `file` is of, with `-dirty` when any file of its checkout was changed since.

    None when no checkout holds it, as what was installed.
    """
    if _git(file, "ls-files", "--error-unmatch", file.name) is None:
        return None
    return _git(file, *NAME)


def _git(file: Path, *words: str) -> str | None:
    """Return what git says in the folder of a file; None when it fails, or is not there."""
    try:
        told = subprocess.run(
            ["git", *words],  # noqa: S607
            cwd=file.parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return told.stdout.strip() or None if told.returncode == 0 else None


__all__ = ["commit"]
