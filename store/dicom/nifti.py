"""NIfTI masks on the grid of a volume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plugins.contract import Drawn, Volume


def is_nifti(path: Path) -> bool:
    """Return True when the name says NIfTI."""
    return path.name.endswith((".nii", ".nii.gz"))


def read_nifti(path: Path, volumes: Sequence[Volume]) -> tuple[Drawn, ...]:
    """Return the regions of a label image."""
    return ()
