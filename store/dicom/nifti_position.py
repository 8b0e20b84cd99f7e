"""Where a NIfTI image lies: what its sform, its qform and its unit of length say."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugins.errors import Refused

MM = {1: 1000.0, 3: 0.001}
"""Millimetres of the units other than mm: metre, micron. An image that names none is taken to be in mm."""
UNIT_OF_LENGTH = 7
"""The bits of `xyzt_units` that are the unit of length."""
EQUAL_SIZE = 0.01
"""Voxel sizes that differ by less than this part are one."""
EQUAL_PLACE_MM = 1.0
LEAST_MM3 = 1e-9

FloatArray = NDArray[np.float64]


def read_position(header: Any, name: str) -> FloatArray:
    """Return the affine from index (i, j, k) to RAS mm that a NIfTI header says, of its sform where it has one.

    Refuses `without-position`, `bad-position` (an affine that places nothing) and `two-positions` (sform and qform
    differ by more than 1 % of a voxel size, or by more than 1 mm anywhere).
    """
    from nibabel.spatialimages import HeaderDataError

    forms = [form for form in ("sform", "qform") if int(header[f"{form}_code"]) > 0]
    if not forms:
        raise Refused("without-position", f"{name} does not say where it lies (no qform or sform)")
    to_mm = np.diag([MM.get(int(header["xyzt_units"]) & UNIT_OF_LENGTH, 1.0)] * 3 + [1.0])
    affine = to_mm @ np.asarray(header.get_best_affine(), dtype=np.float64)
    _require_place(affine, forms[0], name)
    if len(forms) > 1:
        with suppress(HeaderDataError, ValueError):  # a qform that is no turn places nothing
            _require_one_place(affine, to_mm @ header.get_qform(), header.get_data_shape()[:3], name)
    return affine


def _require_place(affine: FloatArray, form: str, name: str) -> None:
    """Refuse `bad-position`: an affine with what is no number, or that maps all voxels onto a plane."""
    why = ""
    if not np.isfinite(affine).all():
        why = "holds what is no number"
    elif abs(np.linalg.det(affine[:3, :3])) < LEAST_MM3:
        why = "has no volume"
    if why:
        sentence = f"{name} does not say where it lies: its {form} {why}; convert its source again"
        raise Refused("bad-position", sentence)


def _require_one_place(sform: FloatArray, qform: FloatArray, shape: tuple[int, ...], name: str) -> None:
    """Refuse `two-positions`."""
    sizes = [np.linalg.norm(affine[:3, :3], axis=0) for affine in (sform, qform)]
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(3, -1)
    apart = (sform - qform)[:3] @ np.vstack([corners, np.ones(corners.shape[1])])
    most_mm = float(np.linalg.norm(apart, axis=0).max())
    if most_mm <= EQUAL_PLACE_MM and (abs(sizes[0] - sizes[1]) <= EQUAL_SIZE * sizes[0]).all():
        return
    first, second = (" x ".join(f"{mm:.3g}" for mm in size) for size in sizes)
    raise Refused(
        "two-positions",
        f"{name} says two places: by its sform voxels of {first} mm, by its qform of {second} mm, up to {most_mm:.1f} "
        "mm apart; set the code of the wrong one to 0",
    )


__all__ = ["read_position"]
