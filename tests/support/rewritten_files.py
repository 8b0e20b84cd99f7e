"""Files of a case that are written anew, with the hashes that they then have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from store.file_hash import sha256_of
from training.manifest import Case

Written = Callable[[NDArray[Any], NDArray[Any]], object]
"""Makes another file, or its bytes, of voxels and affine."""


def with_other(case: Case, root: Path, role: str, written: Written) -> Case:
    """Return the case after one of its files was written anew, with the hash that the file then has."""
    path = root / case.files[role]
    image: Any = nibabel.load(path)
    made = written(np.asarray(image.dataobj), image.affine)
    if isinstance(made, bytes):
        path.write_bytes(made)
    else:
        nibabel.save(made, path)
    return replace(case, sha256={**case.sha256, role: sha256_of(path)})


def moved(affine: NDArray[Any], mm: float) -> NDArray[Any]:
    """Return the affine of a grid that lies further along x."""
    return affine + mm * np.outer([1, 0, 0, 0], [0, 0, 0, 1])


def with_nan(voxels: NDArray[Any]) -> NDArray[Any]:
    """Return voxels of which the first is no number."""
    found = voxels.astype(np.float32)
    found[0, 0, 0] = np.nan
    return found
