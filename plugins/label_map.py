"""What other people's models give: a picture of numbers, one for each kind of tissue, turned into findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cc3d
import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from plugins import codes
from plugins.contours import Kind, kind_of
from plugins.contract import Drawn, Finding, Mask, Volume
from plugins.errors import Refused
from plugins.measure.lesion import measure_lesion

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
LARGEST_SHIFT_MM = 0.01
AXES = ("long_axis", "short_axis")


def affine_ras(volume: Volume) -> NDArray[np.float64]:
    """Return the affine from index (c, r, k) to RAS mm: that of a NIfTI file whose first axis is the columns."""
    affine = LPS_TO_RAS @ np.asarray(volume.geometry.affine, dtype=np.float64)
    return np.column_stack([affine[:, 2], affine[:, 1], affine[:, 0], affine[:, 3]])


def write_nifti(volume: Volume, path: Path) -> None:
    """Write a volume as float32 NIfTI, axes (c, r, k), RAS mm."""
    nib.save(nib.Nifti1Image(np.ascontiguousarray(volume.array.transpose(2, 1, 0)), affine_ras(volume)), path)


def on_grid(labels: NDArray[Any], affine: NDArray[np.float64], volume: Volume) -> NDArray[np.int32]:
    """Return labels `(c, r, k)` with an affine to RAS mm as `(K, R, C)` on the grid of the volume.

    Refuses `other-grid` when the model gave them on a grid of its own (any of the corners more than 0.01 mm away).
    """
    corners = np.array([[*corner, 1.0] for corner in np.ndindex(2, 2, 2)]) * [*labels.shape, 1.0]
    lies, wanted = corners @ affine.T, corners @ affine_ras(volume).T
    if labels.shape == volume.array.shape[::-1] and not np.allclose(lies, wanted, atol=LARGEST_SHIFT_MM):
        away_mm = np.linalg.norm(lies - wanted, axis=1).max()
        raise Refused(
            "other-grid",
            f"the model gave labels of {labels.shape} voxels, as the image has, but with another origin or direction:"
            f" they lie up to {away_mm:.2f} mm from it; it has to keep the affine of the image (in MONAI: track_meta,"
            " and Invertd)",
        )
    if labels.shape != volume.array.shape[::-1]:
        raise Refused(
            "other-grid",
            f"the model gave labels of {labels.shape} voxels on a grid of its own; it has to bring them back to that"
            f" of the image, {volume.array.shape[::-1]} (in MONAI: Invertd)",
        )
    return np.ascontiguousarray(labels.transpose(2, 1, 0)).astype(np.int32, copy=False)


def findings_of(labels: NDArray[np.int32], names: Mapping[int, str], volume: Volume) -> tuple[Finding, ...]:
    """Return one finding for each organ, and one for each piece of what is a lesion, the largest first.

    `labels` is `(K, R, C)` on the grid of the volume, 0 is nothing, and `names` tells what the other numbers mean. What
    a label is, is read from its name, as it is for drawn regions. Organs get no axes. Refuses `unnamed-label` when
    something is drawn under a number that has no name.
    """
    findings: list[Finding] = []
    unnamed = np.count_nonzero(labels)
    for value, name in sorted(names.items()):
        mask = Mask.from_full(labels == value)
        if mask.count == 0 or value == 0:
            continue
        unnamed -= mask.count
        kind = _kind(name, mask, volume)
        if kind.category == codes.ANATOMICAL_STRUCTURE and kind.type != codes.LYMPH_NODE:
            findings.append(_finding(f"{value}", name, mask, kind, volume))
            continue
        pieces = _pieces(mask)
        for number, piece in enumerate(pieces, start=1):
            label = name if len(pieces) == 1 else f"{name} {number}"
            findings.append(_finding(f"{value}-{number}", label, piece, kind, volume))
    if unnamed:
        raise _unnamed(labels, names)
    return tuple(findings)


def _unnamed(labels: NDArray[np.int32], names: Mapping[int, str]) -> Refused:
    others = labels[~np.isin(labels, [0, *names])]
    numbers = ", ".join(f"{value}" for value in np.unique(others))
    named = ", ".join(f"{value}" for value in sorted(names) if value) or "none"
    return Refused(
        "unnamed-label",
        f"the model drew {others.size} voxels under number {numbers}, which its labels do not name; it names {named}:"
        " have the names in its folder completed",
    )


def _kind(name: str, mask: Mask, volume: Volume) -> Kind:
    drawn = Drawn(
        label=name,
        mask=mask,
        series_instance_uid=volume.series_instance_uid,
        source="MODEL",
        source_sop_instance_uid="",
        number=0,
    )
    return kind_of(drawn)


def _pieces(mask: Mask) -> list[Mask]:
    labels, count = cc3d.connected_components(mask.voxels, connectivity=26, return_N=True)
    pieces = []
    for value in range(1, count + 1):
        part = Mask.from_full(labels == value)
        origin = tuple(int(a + b) for a, b in zip(mask.origin, part.origin, strict=True))
        pieces.append(replace(part, shape=mask.shape, origin=(origin[0], origin[1], origin[2])))
    return sorted(pieces, key=lambda piece: (-piece.count, piece.origin))


def _finding(key: str, label: str, mask: Mask, kind: Kind, volume: Volume) -> Finding:
    measured = measure_lesion(mask, volume)
    if kind.category == codes.ANATOMICAL_STRUCTURE and kind.type != codes.LYMPH_NODE:
        measured = tuple(one for one in measured if one.name not in AXES)
    return Finding(
        key=key,
        label=label,
        series_instance_uid=volume.series_instance_uid,
        mask=mask,
        category=kind.category,
        type=kind.type,
        site=kind.site,
        laterality=kind.laterality,
        measurements=measured,
    )


__all__ = ["affine_ras", "findings_of", "on_grid", "write_nifti"]
