"""A volume thinned out to a few millimetres along the patient's axes, with what of it shows the body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from scipy import ndimage

from plugins.contract import Volume
from plugins.errors import Refused

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

CT_WINDOW_HU = (-1000.0, 250.0)
BODY_HU = -400.0
PADDING_HU = -1500.0
"""No tissue and no air is below: what is, was filled in by the scanner or by who wrote the images."""
AROUND = 4
"""Voxels around the body that are kept with it."""
BODY_SHARE = 0.03
"""Of the 99th percentile of a PET or MR: what is above belongs to the body."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Thinned:
    """One image on an isotropic grid along x, y, z; K along z, R along y, C along x, whatever the source's order."""

    values: Array
    """`(K, R, C)`, 0 (air) to 1, by a window that depends on the modality; 0 outside the view."""
    view: BoolArray
    """`(K, R, C)`: inside the source's grid and not padding."""
    body: BoolArray
    """`(K, R, C)`: the body with its lungs, without the table."""
    origin_mm: tuple[float, float, float]
    """LPS position of voxel (0, 0, 0)."""
    spacing_mm: float
    """Distance of voxel centres."""

    def image(self, array: NDArray[np.generic]) -> sitk.Image:
        """Return an array on this grid as a SimpleITK image in its place."""
        image = sitk.GetImageFromArray(array)
        image.SetOrigin(self.origin_mm)
        image.SetSpacing((self.spacing_mm,) * 3)
        return image

    @property
    def centre_mm(self) -> NDArray[np.float64]:
        """Return the centre of gravity of the body, LPS mm."""
        index = np.argwhere(self.body).mean(axis=0)[::-1]
        return np.asarray(index * self.spacing_mm + np.asarray(self.origin_mm), dtype=np.float64)

    def points(self) -> Array:
        """Return x, y, z `(3, K, R, C)`, LPS mm, of the voxel centres."""
        k, r, c = (np.arange(n, dtype=np.float32) * np.float32(self.spacing_mm) for n in self.values.shape)
        x, y, z = (np.float32(o) for o in self.origin_mm)
        return np.stack(np.broadcast_arrays(x + c[None, None], y + r[None, :, None], z + k[:, None, None]))

    def at(self, points_mm: Array) -> Array:
        """Return the values `(...)` at points x, y, z `(3, ...)`, LPS mm, linear between; NaN out of view."""
        origin = np.asarray(self.origin_mm, dtype=np.float32).reshape(3, *[1] * (points_mm.ndim - 1))
        index = (points_mm - origin)[::-1] / np.float32(self.spacing_mm)
        seen = np.where(self.view, self.values, np.float32(np.nan))
        return np.asarray(ndimage.map_coordinates(seen, index, order=1, cval=np.nan), dtype=np.float32)

    def around_body(self) -> Thinned:
        """Return the part that holds the body and a few voxels around it."""
        hit = np.argwhere(self.body)
        low = np.maximum(hit.min(axis=0) - AROUND, 0)
        high = np.minimum(hit.max(axis=0) + AROUND + 1, self.body.shape)
        box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        x, y, z = np.asarray(self.origin_mm) + low[::-1] * self.spacing_mm
        return Thinned(
            values=self.values[box],
            view=self.view[box],
            body=self.body[box],
            origin_mm=(float(x), float(y), float(z)),
            spacing_mm=self.spacing_mm,
        )

    def coarser(self, factor: int) -> Thinned:
        """Return the same at `factor` times the spacing."""
        factors = [min(factor, n) for n in self.values.shape]
        if len(set(factors)) > 1:
            return self
        shrunk = sitk.BinShrink(self.image(self.values), factors)
        body, view = (
            sitk.GetArrayFromImage(sitk.BinShrink(self.image(a.astype(np.float32)), factors)) >= 0.5
            for a in (self.body, self.view)
        )
        return Thinned(
            values=sitk.GetArrayFromImage(shrunk),
            view=view,
            body=body,
            origin_mm=shrunk.GetOrigin(),
            spacing_mm=self.spacing_mm * factor,
        )


def image_of(volume: Volume, array: NDArray[np.float32] | None = None) -> sitk.Image:
    """Return a volume, or another array `(K, R, C)` on its grid, as a SimpleITK image in its place."""
    affine = volume.geometry.affine
    spacing = np.asarray(volume.spacing_mm)
    cosines = (affine[:3, :3] / spacing)[:, ::-1]
    image = sitk.GetImageFromArray(volume.array if array is None else array)
    image.SetSpacing([float(s) for s in spacing[::-1]])
    image.SetOrigin([float(o) for o in affine[:3, 3]])
    image.SetDirection([float(v) for v in cosines.ravel()])
    return image


def thinned(volume: Volume, spacing_mm: float) -> Thinned:
    """Return a volume on a grid of `spacing_mm` along the patient's axes that covers it.

    Refuses (`empty-image`) when all its values are the same or are no numbers.
    """
    grid = _grid_around(volume, spacing_mm)
    values = _resampled(volume, _windowed(volume), grid)
    view = _resampled(volume, np.where(_padding(volume), np.float32(0), np.float32(1)), grid)
    made = Thinned(
        values=values,
        view=view >= 0.5,
        body=np.ones(values.shape, dtype=np.bool_),
        origin_mm=grid.GetOrigin(),
        spacing_mm=spacing_mm,
    )
    body = _body(made, volume.role)
    if not body.any():
        raise Refused(
            "empty-image", f"series {volume.series_instance_uid} shows no body; nothing can be followed in it"
        )
    values[~ndimage.binary_dilation(body)] = 0
    return Thinned(values=values, view=made.view, body=body, origin_mm=made.origin_mm, spacing_mm=spacing_mm)


def _padding(volume: Volume) -> BoolArray:
    """Return which voxels show nothing: padding, no numbers, slices of one value."""
    padding = volume.array < PADDING_HU if volume.role == "ct" else ~np.isfinite(volume.array)
    planes = volume.array.reshape(len(volume.array), -1)
    padding[planes.min(axis=1) == planes.max(axis=1)] = True
    return np.asarray(padding, dtype=np.bool_)


def _resampled(volume: Volume, array: Array, grid: sitk.Image) -> Array:
    """Return an array of the volume's grid on another one: means of blocks, then linear between them."""
    image = image_of(volume, array)
    spacings = zip(image.GetSpacing(), image.GetSize(), strict=True)
    shrunk = sitk.BinShrink(image, [max(1, min(int(grid.GetSpacing()[0] / s), n)) for s, n in spacings])
    made = sitk.GetArrayFromImage(sitk.Resample(shrunk, grid, sitk.Transform(), sitk.sitkLinear, 0.0))
    return np.asarray(made, dtype=np.float32)


def _grid_around(volume: Volume, spacing_mm: float) -> sitk.Image:
    """Return an empty image along x, y, z that covers the volume."""
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in volume.array.shape])).reshape(3, -1).T
    low, high = (f(volume.to_mm(corners), axis=0) for f in (np.min, np.max))
    size = [max(1, int(n)) for n in np.round((high - low) / spacing_mm)]
    grid = sitk.Image(size, sitk.sitkUInt8)
    grid.SetSpacing((spacing_mm,) * 3)
    grid.SetOrigin([float(v) for v in (low + high) / 2 - (np.asarray(size) - 1) * spacing_mm / 2])
    return grid


def _windowed(volume: Volume) -> Array:
    """Return the values from 0 to 1 by which images of one role are compared. Refuses `empty-image`."""
    if volume.role == "ct":
        low, high = CT_WINDOW_HU
        values = np.clip(np.nan_to_num(volume.array, nan=low), low, high)
    else:
        values = np.nan_to_num(volume.array, nan=0.0, posinf=0.0, neginf=0.0)
        low, high = 0.0, float(np.percentile(values, 99.5))
        values = np.clip(values, low, max(high, 1e-6))
    if float(np.ptp(values)) == 0:
        sentence = (
            f"series {volume.series_instance_uid} has one value everywhere; nothing can be followed in it"
        )
        raise Refused("empty-image", sentence)
    values -= np.float32(low)
    values /= np.float32(max(high, 1e-6) - low)
    return np.asarray(values if volume.role == "ct" else np.sqrt(values), dtype=np.float32)


def _body(image: Thinned, role: str) -> BoolArray:
    """Return the largest connected part that is denser than air, closed slice by slice; thin tables are cut off."""
    if role == "ct":
        low, high = CT_WINDOW_HU
        threshold = (BODY_HU - low) / (high - low)
    else:
        threshold = BODY_SHARE**0.5 * float(np.percentile(image.values, 99))
    dense = image.values > threshold
    opened = ndimage.binary_opening(dense, np.ones((1, 3, 3))) if min(dense.shape[1:]) > 8 else dense
    labels, count = ndimage.label(opened if opened.any() else dense)
    if count == 0:
        return np.zeros(dense.shape, dtype=np.bool_)
    largest = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    for plane in largest:
        ndimage.binary_fill_holes(plane, output=plane)
    return np.asarray(largest & image.view, dtype=np.bool_)


__all__ = ["Thinned", "image_of", "thinned"]
