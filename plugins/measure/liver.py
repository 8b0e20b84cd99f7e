"""The liver reference of PERCIST: a sphere of 3 cm in the right lobe, found only where that is beyond much doubt.

There is no organ model behind this. On a 5 mm grid in patient axes, every place is a candidate at which a whole 3 cm
sphere has an even uptake of the height that livers have. Where a CT of the same frame of reference covers the sphere,
it must also be even soft tissue there, with lung somewhere above it if the CT shows lungs. The candidates of a liver
make one large connected cloud on the right of the body; when the largest cloud is small, not on the right, or not
clearly larger than the next one, there is no reference, and the reason is told. Without a CT the image must show a
whole trunk.
A large even tumour on the right can still be taken for a liver: look at where the reference lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from plugins.contract import BoolArray, Flag, Mask, Point, Volume
from plugins.measure.uptake import sphere_weights

RADIUS_MM = 15.0
_STEP_MM = 5.0
_SUV_WITH_CT = (1.0, 4.0)
_SUV_ALONE = (1.3, 3.0)
_USUAL_SUV = (1.3, 3.0)
_MOST_VARIATION = 0.20
_HU = (20.0, 170.0)
_MOST_HU_SD = 25.0
_LUNG_HU = -600.0
_LUNG_ABOVE_MM = 200.0
_LEAST_CLOUD_ML = 40.0
_LEAST_CLOUD_ALONE_ML = 200.0
_LEAST_LENGTH_ALONE_MM = 300.0
_LEAST_WIDTH_ALONE_MM = 250.0
_LEAST_RIGHT_MM = 20.0
_BODY_SUV = 0.2
_LEAST_VOXELS = 20

Float = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class LiverReference:
    """The sphere of 3 cm that stands for the liver."""

    mask: Mask
    """Voxels of the PET grid whose centre lies in the sphere."""
    centre_mm: Point
    """Centre of the sphere, LPS mm."""
    mean: float
    """Mean SUV."""
    sd: float
    """Standard deviation of the voxels, SUV."""
    with_ct: bool
    """True when a CT showed soft tissue there; False when the uptake alone spoke for it."""
    flags: tuple[Flag, ...] = ()
    """`liver-uptake-unusual` outside SUV 1.3 to 3.0 (EANM), `liver-from-pet-alone`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Grid:
    """A grid in patient axes: index (z, y, x), 5 mm apart, z to the head, y to the back, x to the left."""

    start_mm: Float
    shape: tuple[int, int, int]

    def resample(self, volume: Volume, fill: float) -> Float:
        """Return the values of a volume on this grid, averaged over the step first; `fill` outside."""
        size = [
            max(1, min(round(_STEP_MM / s), n))
            for s, n in zip(volume.spacing_mm, volume.array.shape, strict=True)
        ]
        smooth = np.nan_to_num(_block_means(volume.array, size), nan=fill)
        to_block = np.eye(4)
        to_block[:3, :3] = np.diag(1.0 / np.array(size))
        to_block[:3, 3] = -(np.array(size) - 1) / 2 / np.array(size)
        to_index = to_block @ np.linalg.inv(volume.geometry.affine)
        step = np.zeros((3, 3))
        step[2, 0] = step[1, 1] = step[0, 2] = _STEP_MM  # (z, y, x) steps to (x, y, z) mm
        offset = to_index[:3, :3] @ self.start_mm + to_index[:3, 3]
        values = ndimage.affine_transform(
            smooth, to_index[:3, :3] @ step, offset, self.shape, order=1, mode="constant", cval=np.nan
        )
        return np.asarray(values, dtype=np.float64)

    def to_mm(self, index: tuple[int, int, int]) -> Point:
        """Return LPS mm of an index (z, y, x)."""
        x, y, z = self.start_mm + np.asarray(index[::-1], dtype=np.float64) * _STEP_MM
        return float(x), float(y), float(z)


def find_liver(pet: Volume, cts: Sequence[Volume]) -> LiverReference | Flag:
    """Return the liver reference of a PET in SUV, or a flag with the reason why there is none.

    `cts` are CT volumes of the study; those of another frame of reference are left aside.
    Reasons: `no-liver-candidate`, `liver-too-small`, `liver-not-on-the-right`, `liver-ambiguous`,
    `field-too-small`, `grid-too-coarse`.
    Source: PERCIST 1.0 (3 cm sphere in the right lobe); EANM doi 10.1007/s00259-022-05977-5 for the usual range.
    """
    grid = _grid_of(pet)
    uptake = grid.resample(pet, 0.0)
    kernel = sphere_weights((_STEP_MM,) * 3, weighted=False, radius_mm=RADIUS_MM)
    mean, sd = _sphere_statistics(uptake, kernel)
    tissue, covered = _soft_tissue(grid, pet, cts, kernel)
    low = np.where(covered, _SUV_WITH_CT[0], _SUV_ALONE[0])
    high = np.where(covered, _SUV_WITH_CT[1], _SUV_ALONE[1])
    with np.errstate(invalid="ignore"):
        candidate = (mean >= low) & (mean <= high) & (sd <= _MOST_VARIATION * mean) & tissue
    chosen = _place(candidate, uptake, covered, pet)
    if isinstance(chosen, Flag):
        return chosen
    centre_mm = grid.to_mm(chosen)
    mask = sphere_mask(pet, centre_mm, RADIUS_MM)
    if mask.count < _LEAST_VOXELS:
        return _reason(pet, "grid-too-coarse", f"the sphere holds {mask.count} voxels of this image")
    values = pet.array[mask.box][mask.voxels].astype(np.float64)
    with_ct = bool(covered[chosen])
    return LiverReference(
        mask=mask,
        centre_mm=centre_mm,
        mean=float(values.mean()),
        sd=float(values.std()),
        with_ct=with_ct,
        flags=_doubts(float(values.mean()), with_ct, pet),
    )


def sphere_mask(volume: Volume, centre_mm: Point, radius_mm: float) -> Mask:
    """Return the voxels whose centre lies within a sphere around a point in LPS mm; empty when none does."""
    centre = volume.to_index(centre_mm)
    reach = [radius_mm / s for s in volume.spacing_mm]
    low = [
        min(max(0, int(np.ceil(x - n))), size)
        for x, n, size in zip(centre, reach, volume.array.shape, strict=True)
    ]
    high = [
        max(o, min(size, int(np.floor(x + n)) + 1))
        for o, size, x, n in zip(low, volume.array.shape, centre, reach, strict=True)
    ]
    index = np.stack(
        np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), axis=-1
    )
    inside = np.linalg.norm(volume.to_mm(index) - np.asarray(centre_mm), axis=-1) <= radius_mm
    k, r, c = (int(n) for n in volume.array.shape)
    return Mask(shape=(k, r, c), origin=(low[0], low[1], low[2]), voxels=np.asarray(inside))


def _grid_of(pet: Volume) -> _Grid:
    """Return the 5 mm grid that covers a volume."""
    ends = np.stack(np.meshgrid(*([0, n - 1] for n in pet.array.shape), indexing="ij"), axis=-1).reshape(
        -1, 3
    )
    corners = pet.to_mm(ends.astype(np.float64))
    start, stop = corners.min(axis=0), corners.max(axis=0)
    x, y, z = (int(n) + 1 for n in np.floor((stop - start) / _STEP_MM))
    return _Grid(start_mm=start, shape=(z, y, x))


def _block_means(array: NDArray[np.float32], size: list[int]) -> NDArray[np.float32]:
    """Return the means of blocks of `size` voxels `(k, r, c)`; the rest at the far ends is left out."""
    k, r, c = (n // s for n, s in zip(array.shape, size, strict=True))
    whole = array[: k * size[0], : r * size[1], : c * size[2]]
    blocks = whole.reshape(k, size[0], r, size[1], c, size[2])
    return np.asarray(blocks.mean(axis=5).mean(axis=3).mean(axis=1), dtype=np.float32)


def _sphere_statistics(values: Float, kernel: Float) -> tuple[Float, Float]:
    """Return mean and SD of the sphere around every point of the grid; NaN where it leaves the image."""
    from scipy import signal  # as in `plugins.measure.uptake`

    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    if any(n < m for n, m in zip(values.shape, kernel.shape, strict=True)):
        nothing = np.full(values.shape, np.nan)
        return nothing, nothing
    total = kernel.sum()
    mean = signal.fftconvolve(filled, kernel, mode="same") / total
    square = signal.fftconvolve(filled * filled, kernel, mode="same") / total
    whole = signal.fftconvolve(known.astype(np.float64), kernel, mode="same") > total - 0.5
    sd = np.sqrt(np.maximum(square - mean * mean, 0.0))
    return np.where(whole, mean, np.nan), np.where(whole, sd, np.nan)


def _soft_tissue(
    grid: _Grid, pet: Volume, cts: Sequence[Volume], kernel: Float
) -> tuple[BoolArray, BoolArray]:
    """Return where the CT does not speak against liver, and where a CT covers the sphere."""
    allowed = np.ones(grid.shape, dtype=np.bool_)
    covered = np.zeros(grid.shape, dtype=np.bool_)
    for ct in cts:
        if pet.frame_of_reference_uid is None or ct.frame_of_reference_uid != pet.frame_of_reference_uid:
            continue
        hu = grid.resample(ct, -1000.0)
        mean, sd = _sphere_statistics(hu, kernel)
        here = np.isfinite(mean)
        with np.errstate(invalid="ignore"):
            tissue = (mean >= _HU[0]) & (mean <= _HU[1]) & (sd <= _MOST_HU_SD)
        lung = _lungs(hu)
        if lung.any():
            reach = int(_LUNG_ABOVE_MM / _STEP_MM)
            tissue &= ndimage.maximum_filter1d(lung, 2 * reach + 1, axis=0, origin=-reach).astype(np.bool_)
        allowed &= tissue | ~here
        covered |= here
    return allowed, covered


def _lungs(hu: Float) -> BoolArray:
    """Return air that no slice's border touches: lungs, for the most part."""
    known = np.where(np.isfinite(hu), hu, -1000.0)
    air = known < _LUNG_HU
    outside = np.zeros_like(air)
    for k in range(air.shape[0]):
        labels, count = ndimage.label(air[k])
        if count:
            edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
            outside[k] = np.isin(labels, edge[edge > 0])
    inner = ndimage.binary_opening(air & ~outside, iterations=2)
    return np.asarray(inner, dtype=np.bool_)


def _place(
    candidate: BoolArray, uptake: Float, covered: BoolArray, pet: Volume
) -> tuple[int, int, int] | Flag:
    """Return the index (z, y, x) of the middle of the sphere, or the reason why there is none."""
    labels, count = cc3d.connected_components(candidate.view(np.uint8), connectivity=6, return_N=True)
    if count == 0:
        return _reason(pet, "no-liver-candidate", "no 3 cm sphere with the even uptake of a liver was found")
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest = int(np.argmax(sizes))
    cloud = np.asarray(labels == largest)
    alone = not covered[cloud].any()
    cloud_ml = float(sizes[largest]) * _STEP_MM**3 / 1000.0
    if cloud_ml < (_LEAST_CLOUD_ALONE_ML if alone else _LEAST_CLOUD_ML):
        return _reason(pet, "liver-too-small", f"even uptake fills only {cloud_ml:.0f} ml of sphere centres")
    sizes[largest] = 0
    if sizes.max() * 2 > np.count_nonzero(cloud):
        return _reason(pet, "liver-ambiguous", "two places look alike: neither can be taken for the liver")
    low, high = _body_ends(cloud, uptake)
    length_mm, width_mm = uptake.shape[0] * _STEP_MM, (high - low) * _STEP_MM
    if alone and (length_mm < _LEAST_LENGTH_ALONE_MM or width_mm < _LEAST_WIDTH_ALONE_MM):
        return _reason(
            pet, "field-too-small", "without a CT it is looked for only where a whole trunk is in the image"
        )
    centre_x = float(np.argwhere(cloud)[:, 2].mean())
    if ((low + high) / 2 - centre_x) * _STEP_MM < _LEAST_RIGHT_MM:
        return _reason(
            pet, "liver-not-on-the-right", "the largest even uptake does not lie on the right of the body"
        )
    depth = ndimage.distance_transform_edt(np.pad(cloud, 1))[1:-1, 1:-1, 1:-1]
    depth[..., int(np.ceil(centre_x)) + 1 :] = 0.0
    k, r, c = (int(i) for i in np.unravel_index(int(np.argmax(depth)), depth.shape))
    return k, r, c


def _body_ends(cloud: BoolArray, uptake: Float) -> tuple[float, float]:
    """Return the first and last x of the body in the slices of the cloud; those of the image when there is none."""
    slices = np.flatnonzero(cloud.any(axis=(1, 2)))
    with np.errstate(invalid="ignore"):
        inside = np.flatnonzero((uptake[slices[0] : slices[-1] + 1] > _BODY_SUV).any(axis=(0, 1)))
    return (float(inside[0]), float(inside[-1])) if len(inside) else (0.0, uptake.shape[2] - 1.0)


def _reason(pet: Volume, code: str, words: str) -> Flag:
    sentence = f"There is no liver reference: {words}."
    return Flag(
        code=code, sentence=sentence, series_instance_uid=pet.series_instance_uid, plugin="pet_lesion"
    )


def _doubts(mean: float, with_ct: bool, pet: Volume) -> tuple[Flag, ...]:
    flags: list[Flag] = []
    if not _USUAL_SUV[0] <= mean <= _USUAL_SUV[1]:
        words = f"The liver reference has a mean SUV of {mean:.2f}, outside the usual 1.3 to 3.0: check dose and time."
        flags.append(
            Flag(code="liver-uptake-unusual", sentence=words, series_instance_uid=pet.series_instance_uid)
        )
    if not with_ct:
        words = "The liver reference was placed by uptake alone, without a CT: look at where it lies."
        flags.append(
            Flag(code="liver-from-pet-alone", sentence=words, series_instance_uid=pet.series_instance_uid)
        )
    return tuple(flags)
