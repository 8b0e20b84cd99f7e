"""The motion between two images of one patient: rigid first, then deformable."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from plugins.contract import Volume
from plugins.errors import Refused
from store.tracking.deforming import deform
from store.tracking.motion import Motion, Quality, Trust
from store.tracking.thinned import Thinned, thinned

Floats = NDArray[np.float64]

SPACING_MM = 4.0
COARSE = 2
THREADS = 2
"""Work is always dealt to as many threads, so that sums are the same on every machine."""
LEAST_OVERLAPS = (0.6, 0.25)
"""Shares of the smaller image that must lie on the other one for a place to be thought of."""
LEAST_VOXELS = 200


def register(fixed: Volume, moving: Volume, *, deformable: bool = True) -> Motion:
    """Return the motion from the earlier image `moving` to the new one `fixed`.

    Both are windowed, thinned out to 4 mm along the patient's axes and freed of the table. The rigid motion begins at
    the headers' positions, at the best of all shifts (masked correlation by FFT: Padfield, IEEE TIP 21 (2012) 2706)
    and at the centres of both bodies; the best of them after a coarse trial is refined. A motion that cannot be
    believed says so in its `quality`. Refuses `not-comparable` (images of different kind) and `empty-image`.
    """
    if fixed.role != moving.role:
        sentence = f"an image of kind {moving.role} cannot be laid on one of kind {fixed.role}"
        raise Refused("not-comparable", sentence)
    new, earlier = thinned(fixed, SPACING_MM), thinned(moving, SPACING_MM)
    matrix = _rigid(new, earlier)
    deformation = deform(new, earlier, matrix) if deformable else None
    return Motion(matrix=matrix, deformation=deformation, quality=_judge(new, earlier, matrix))


def _rigid(new: Thinned, earlier: Thinned) -> Floats:
    """Return the rigid motion (4, 4), earlier to new, LPS mm."""
    small_new, small_earlier = new.coarser(COARSE), earlier.coarser(COARSE)
    if min(int(small_new.body.sum()), int(small_earlier.body.sum())) < LEAST_VOXELS:
        return np.eye(4)
    tries = [np.eye(4), *(_shift(s) for s in _best_shifts(small_new, small_earlier))]
    tries.append(_shift(small_new.centre_mm - small_earlier.centre_mm))
    refined = [_refine(small_new, small_earlier, start, 40) for start in tries]
    best = max(range(len(refined)), key=lambda i: _worth(small_new, small_earlier, refined[i]))
    return _refine(new, earlier, refined[best], 60)


def _shift(mm: Sequence[float] | Floats) -> Floats:
    matrix = np.eye(4)
    matrix[:3, 3] = mm
    return matrix


def _best_shifts(new: Thinned, earlier: Thinned) -> list[Floats]:
    """Return the shifts, mm, earlier to new, at which the images correlate best with much and with little overlap."""
    images = [
        sitk.GetImageFromArray(np.ascontiguousarray(a.astype(np.float32)))
        for a in (new.values, earlier.values, new.view, earlier.view)
    ]
    origin = np.asarray(new.origin_mm) - np.asarray(earlier.origin_mm)
    shifts = []
    for least in LEAST_OVERLAPS:
        map_ = sitk.GetArrayFromImage(sitk.MaskedFFTNormalizedCorrelation(*images, 0, least))
        peak = np.array(np.unravel_index(int(map_.argmax()), map_.shape)) - (
            np.array(earlier.values.shape) - 1
        )
        shifts.append(origin + peak[::-1] * new.spacing_mm)
    return shifts


def _refine(new: Thinned, earlier: Thinned, start: Floats, iterations: int) -> Floats:
    """Return the rigid motion near `start` at which the images correlate best."""
    transform = sitk.Euler3DTransform()
    transform.SetCenter([float(v) for v in earlier.centre_mm])
    transform.SetMatrix([float(v) for v in start[:3, :3].ravel()])
    centre = np.asarray(transform.GetCenter())
    transform.SetTranslation([float(v) for v in start[:3, :3] @ centre + start[:3, 3] - centre])
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(THREADS)
    method.SetMetricAsCorrelation()
    method.SetMetricFixedMask(earlier.image(earlier.body.astype(np.uint8)))
    method.SetMetricMovingMask(new.image(new.view.astype(np.uint8)))
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=new.spacing_mm, minStep=0.01, numberOfIterations=iterations, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(earlier.image(earlier.values), new.image(new.values))
    except RuntimeError:
        return start
    found = np.eye(4)
    found[:3, :3] = np.asarray(transform.GetMatrix()).reshape(3, 3)
    found[:3, 3] = np.asarray(transform.GetTranslation()) + centre - found[:3, :3] @ centre
    return found


def _transform(matrix: Floats) -> sitk.Transform:
    transform = sitk.AffineTransform(3)
    transform.SetMatrix([float(v) for v in matrix[:3, :3].ravel()])
    transform.SetTranslation([float(v) for v in matrix[:3, 3]])
    return transform


def laid_on(new: Thinned, earlier: Thinned, matrix: Floats) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the new image's values and view on the earlier one's grid, by a rigid motion."""
    grid = earlier.image(earlier.values)
    values = sitk.Resample(new.image(new.values), grid, _transform(matrix), sitk.sitkLinear, 0.0)
    view = sitk.Resample(
        new.image(new.view.astype(np.uint8)), grid, _transform(matrix), sitk.sitkNearestNeighbor, 0
    )
    return sitk.GetArrayFromImage(values), sitk.GetArrayFromImage(view).astype(np.bool_)


def similarity(new: Thinned, earlier: Thinned, matrix: Floats) -> tuple[float, float]:
    """Return the correlation of both images in the earlier body, and the share of that body in the new view."""
    values, view = laid_on(new, earlier, matrix)
    both = earlier.body & view
    overlap = float(both.sum() / earlier.body.sum())
    return correlation(values[both], earlier.values[both]), overlap


def correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return Pearson's correlation of two arrays of one length; 0 when one of them has one value only."""
    if a.size < 2:
        return 0.0
    x, y = a - a.mean(dtype=np.float64), b - b.mean(dtype=np.float64)
    size = float(np.sqrt(np.sum(x * x) * np.sum(y * y)))
    return float(np.sum(x * y) / size) if size > 1e-9 else 0.0


def _worth(new: Thinned, earlier: Thinned, matrix: Floats) -> float:
    """Return the correlation, less where little overlaps."""
    value, overlap = similarity(new, earlier, matrix)
    return value * sqrt(min(1.0, overlap / 0.3))


def _judge(new: Thinned, earlier: Thinned, matrix: Floats) -> Quality:
    before, _ = similarity(new, earlier, np.eye(4))
    after, overlap = similarity(new, earlier, matrix)
    centre = earlier.centre_mm
    way = float(np.linalg.norm(matrix[:3, :3] @ centre + matrix[:3, 3] - centre))
    angle = float(np.degrees(np.arccos(np.clip((np.trace(matrix[:3, :3]) - 1) / 2, -1, 1))))
    trust = Trust.GOOD if after > 0.85 else Trust.DOUBTFUL if after > 0.6 else Trust.FAILED
    return Quality(
        trust=trust,
        sentence=f"the images agree with a correlation of {after:.2f} ({before:.2f} before)",
        confidence={Trust.GOOD: 0.95, Trust.DOUBTFUL: 0.6, Trust.FAILED: 0.2}[trust],
        similarity_before=before,
        similarity_rigid=after,
        similarity=after,
        overlap=overlap,
        translation_mm=way,
        rotation_deg=angle,
    )


__all__ = ["register"]
