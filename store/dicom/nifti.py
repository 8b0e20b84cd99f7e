"""NIfTI label images to masks on the grid of a volume.

NIfTI positions are RAS, DICOM's LPS: x and y change sign. Axes may come in any order and direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugins.contract import Drawn, Flag, Mask, Volume
from plugins.errors import Refused
from store.dicom.nifti_file import one_volume, open_nifti
from store.dicom.nifti_position import read_position
from store.dicom.regions import grid_shape, mask_of_box
from store.file_hash import sha256_of

ON_GRID = 0.25
MAX_LABELS = 1024
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
REAL_NUMBERS = "biuf"
"""Kinds of NumPy data that are real numbers."""

FloatArray = NDArray[np.float64]
Labels = NDArray[np.int64]


def is_nifti(path: Path) -> bool:
    """Return True when the name says NIfTI."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def read_nifti(path: Path, volumes: Sequence[Volume]) -> tuple[Drawn, ...]:
    """Return one region for each label value 1..n, on the volume whose grid the image has.

    An image on another grid is resampled (nearest neighbour, flagged `mask-resampled`) when there is one volume only.
    Refuses `unreadable-mask`, `too-large`, `mask-not-3d`, what `read_position` refuses, `mask-not-labels`,
    `empty-mask`, `mask-outside`, `mask-ambiguous`.
    """
    labels, affine, flags = _load(path)
    if not labels.any():
        raise Refused("empty-mask", f"{path.name} holds no region")
    volume, placed, origin = _onto_grid(labels, affine, volumes, flags)
    found = [int(n) for n in np.unique(placed) if n > 0]
    digest = sha256_of(path)
    return tuple(
        Drawn(
            label=f"label {number}",
            mask=mask_of_box(volume, origin, placed == number),
            series_instance_uid=volume.series_instance_uid,
            source="NIFTI",
            source_sop_instance_uid=digest,
            number=number,
            flags=tuple(flags),
        )
        for number in found
    )


def _load(path: Path) -> tuple[Labels, FloatArray, list[Flag]]:
    """Return label values `(i, j, k)`, the affine from their index to LPS mm, and doubts."""
    with open_nifti(path, "unreadable-mask") as (header, voxels):
        data = one_volume(np.asarray(voxels), "mask-not-3d", path.name)
    affine = RAS_TO_LPS @ read_position(header, path.name)
    flags: list[Flag] = []
    return whole_labels(data, path.name, flags), affine, flags


def whole_labels(data: NDArray[Any], name: str, flags: list[Flag]) -> Labels:
    """Return whole label values; probabilities are cut at 0.5, which `flags` is told. Refuses `mask-not-labels`."""
    if data.dtype.kind not in REAL_NUMBERS:
        raise Refused(
            "mask-not-labels",
            f"{name} holds colours or complex numbers; save it with a whole number for each voxel",
        )
    if not np.isfinite(data).all() or data.min() < 0:
        raise Refused("mask-not-labels", f"{name} holds values that are no labels (negative or not numbers)")
    whole = np.rint(data).astype(np.int64)
    if np.abs(data - whole).max() > 1e-3:
        if data.max() > 1:
            raise Refused("mask-not-labels", f"{name} holds values that are no labels (not whole)")
        flags.append(Flag(code="mask-thresholded", sentence="its values between 0 and 1 were cut at 0.5"))
        whole = (data >= 0.5).astype(np.int64)
    if len(np.unique(whole)) > MAX_LABELS:
        raise Refused("mask-not-labels", f"{name} holds more than {MAX_LABELS} values; it is no label image")
    return np.asarray(whole, dtype=np.int64)


def _onto_grid(
    labels: Labels, affine: FloatArray, volumes: Sequence[Volume], flags: list[Flag]
) -> tuple[Volume, Labels, tuple[int, int, int]]:
    """Return the volume, the labels in its axes (cropped to what is not 0), and the index of their first voxel."""
    labels, affine = _cropped(labels, affine)
    exact = [(v, *fit) for v in volumes if (fit := _turned(labels, affine, v)) is not None]
    inside = [found for found in exact if _is_inside(found[1].shape, found[2], found[0])]
    if inside:
        if len(inside) > 1:
            sentence = f"several series have its grid; it was put on series {inside[0][0].series_number}"
            flags.append(Flag(code="mask-series-by-position", sentence=sentence))
        return inside[0]
    if exact or not volumes:
        raise Refused("mask-outside", "a part of the mask lies outside the images")
    if len(volumes) > 1:
        raise Refused(
            "mask-ambiguous", "the mask has the grid of no series; resample it to the one it belongs to"
        )
    flags.append(
        Flag(code="mask-resampled", sentence="its grid is not that of the images; nearest voxels were taken")
    )
    return (volumes[0], *_resampled(labels, affine, volumes[0]))


def _cropped(labels: Labels, affine: FloatArray) -> tuple[Labels, FloatArray]:
    """Return the labels cut to what is not 0, with the affine moved along."""
    tight: Mask = Mask.from_full(labels != 0)
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ np.array(tight.origin)
    return labels[tight.box], moved


def _turned(labels: Labels, affine: FloatArray, volume: Volume) -> tuple[Labels, tuple[int, int, int]] | None:
    """Return the labels in the axes of a volume and the index of their first voxel; None when the grids differ."""
    link = np.linalg.inv(volume.geometry.affine) @ affine
    turn = np.rint(link[:3, :3])
    if not ((np.abs(turn).sum(axis=0) == 1).all() and (np.abs(turn).sum(axis=1) == 1).all()):
        return None
    ends = np.array(labels.shape) - 1
    first = np.rint(link[:3, 3])
    drift = np.abs(link[:3, :3] - turn) @ ends + np.abs(link[:3, 3] - first)
    if (drift > ON_GRID).any():
        return None
    order = [int(np.flatnonzero(turn[axis])[0]) for axis in range(3)]
    signs = turn.sum(axis=1).astype(int)
    turned = labels.transpose(order)[tuple(slice(None, None, int(s)) for s in signs)]
    k, r, c = np.minimum(first, first + turn @ ends).astype(int)
    return turned, (int(k), int(r), int(c))


def _is_inside(shape: Sequence[int], origin: tuple[int, int, int], volume: Volume) -> bool:
    return all(o >= 0 and o + n <= s for o, n, s in zip(origin, shape, grid_shape(volume), strict=True))


def _resampled(labels: Labels, affine: FloatArray, volume: Volume) -> tuple[Labels, tuple[int, int, int]]:
    """Return the nearest label at each voxel of the part of a volume that the labels cover, and its first index."""
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in labels.shape], indexing="ij")).reshape(3, -1)
    covered = volume.to_index((affine[:3, :3] @ corners + affine[:3, 3:4]).T)
    if (covered < -1).any() or (covered > np.array(grid_shape(volume))).any():
        raise Refused("mask-outside", "a part of the mask lies outside the images")
    low = np.clip(np.floor(covered.min(axis=0)), 0, None).astype(int)
    high = np.minimum(np.ceil(covered.max(axis=0)).astype(int) + 1, grid_shape(volume))
    link = np.linalg.inv(affine) @ volume.geometry.affine
    grid = np.stack(
        np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high, strict=True)], indexing="ij"), axis=-1
    )
    index = np.rint(grid @ link[:3, :3].T + link[:3, 3]).astype(np.int64)
    is_in = ((index >= 0) & (index < np.array(labels.shape))).all(axis=-1)
    index = np.clip(index, 0, np.array(labels.shape) - 1)
    sampled = np.where(is_in, labels[index[..., 0], index[..., 1], index[..., 2]], 0)
    if not sampled.any():
        raise Refused("empty-mask", "the mask is smaller than the voxels of the images")
    return sampled, (int(low[0]), int(low[1]), int(low[2]))
