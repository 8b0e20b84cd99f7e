"""The motion between two images of one patient: rigid first, then deformable."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from plugins.contract import Volume
from plugins.errors import Refused
from store.tracking.deforming import Level, deform
from store.tracking.motion import Motion, Quality, Trust
from store.tracking.thinned import Thinned, thinned
from store.tracking.trust import LEAST_OVERLAP, judge, likeness, residual_mm

Floats = NDArray[np.float64]

SPACING_MM = 4.0
COARSE = 2
FINE_STEP_MM, COARSE_STEP_MM = 1.5, 5.0
STEPS = 60
THREADS = 1
"""Sums are the same on every machine when one thread makes them."""
LEAST_OVERLAPS = (0.6, 0.25)
"""Shares of the smaller image that must lie on the other one for a place to be thought of."""
LEAST_VOXELS = 200
"""A body of fewer voxels of 8 mm has no shape to go by."""
BACK = (Level(factor=2, iterations=15), Level(factor=1, iterations=15))
UNJUDGED = Quality(
    trust=Trust.DOUBTFUL,
    sentence="",
    confidence=0.0,
    similarity_before=0.0,
    similarity_rigid=0.0,
    similarity=0.0,
    overlap=0.0,
    translation_mm=0.0,
    rotation_deg=0.0,
)


def register(fixed: Volume, moving: Volume, *, deformable: bool = True) -> Motion:
    """Return the motion from the earlier image `moving` to the new one `fixed`.

    Both are windowed, thinned out to 4 mm along the patient's axes and freed of the table. The rigid motion begins at
    the headers' positions, at the best of all shifts (masked correlation by FFT: Padfield, IEEE TIP 21 (2012) 2706)
    and at the centres of both bodies; the best of them after a coarse trial is refined, and a deformation added when it
    makes the images more alike. A coarse registration the other way round tells how far both agree. A motion that
    cannot be believed says so in its `quality`; it is the identity when both images have one frame of reference, else
    the best rigid motion. Refuses `not-comparable` (images of different kind) and `empty-image`.
    """
    if fixed.modality != moving.modality or (fixed.role == "ct") != (moving.role == "ct"):
        sentence = f"an image of kind {moving.modality} cannot be laid on one of kind {fixed.modality}"
        raise Refused("not-comparable", sentence)
    new, earlier = thinned(fixed, SPACING_MM), thinned(moving, SPACING_MM)
    same_frame = fixed.frame_of_reference_uid is not None
    same_frame = same_frame and fixed.frame_of_reference_uid == moving.frame_of_reference_uid
    small = (new.coarser(COARSE), earlier.coarser(COARSE))
    start = _coarse(*small)
    before = likeness(new, earlier, np.eye(4))
    matrix = np.eye(4) if start is None else _refine(new, earlier, start, FINE_STEP_MM)
    rigid = after = likeness(new, earlier, matrix)
    deformation = None
    if deformable and rigid.overlap > LEAST_OVERLAP:
        deformation = deform(new, earlier, matrix)
        after = likeness(new, earlier, matrix, deformation)
        if after.local <= rigid.local:
            deformation, after = None, rigid
    motion = Motion(matrix=matrix, deformation=deformation, quality=UNJUDGED)
    residual = None if start is None else _to_and_fro(motion, *small)
    quality = judge(before, rigid, after, motion, earlier, residual)
    if quality.trust is Trust.FAILED:
        return Motion(matrix=np.eye(4) if same_frame else matrix, deformation=None, quality=quality)
    return Motion(matrix=matrix, deformation=deformation, quality=quality)


def _to_and_fro(motion: Motion, new: Thinned, earlier: Thinned) -> float | None:
    """Return how far a coarse registration the other way round brings positions back from where they were, mm."""
    matrix = _coarse(earlier, new)
    if matrix is None:
        return None
    deformation = None if motion.deformation is None else deform(earlier, new, matrix, BACK)
    back = Motion(matrix=matrix, deformation=deformation, quality=UNJUDGED)
    return residual_mm(motion, back, new, earlier)


def _coarse(new: Thinned, earlier: Thinned) -> Floats | None:
    """Return the best of several rigid motions (4, 4), earlier to new, LPS mm; None when too little is seen for one."""
    if min(int(new.body.sum()), int(earlier.body.sum())) < LEAST_VOXELS:
        return None
    shifts = [np.zeros(3), *_best_shifts(new, earlier), new.centre_mm - earlier.centre_mm]
    tries: list[Floats] = []
    for matrix in map(_shift, shifts):
        apart = [float(np.linalg.norm((matrix - other)[:3, 3])) for other in tries]
        if (
            min(apart, default=np.inf) > new.spacing_mm
            and likeness(new, earlier, matrix).overlap > LEAST_OVERLAP
        ):
            tries.append(matrix)
    refined = [_refine(new, earlier, start, COARSE_STEP_MM) for start in tries]
    return max(refined, key=lambda matrix: _worth(new, earlier, matrix), default=None)


def _shift(mm: Sequence[float] | Floats) -> Floats:
    matrix = np.eye(4)
    matrix[:3, 3] = mm
    return matrix


def _best_shifts(new: Thinned, earlier: Thinned) -> list[Floats]:
    """Return the shifts, mm, earlier to new, at which the images correlate best with much and with little overlap."""
    new, earlier = new.coarser(COARSE), earlier.coarser(COARSE)
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


def _refine(new: Thinned, earlier: Thinned, start: Floats, step_mm: float) -> Floats:
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
        learningRate=step_mm, minStep=step_mm / 200, numberOfIterations=STEPS, relaxationFactor=0.7
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


def _worth(new: Thinned, earlier: Thinned, matrix: Floats) -> float:
    """Return the correlation, less where little overlaps."""
    found = likeness(new, earlier, matrix)
    return found.correlation * sqrt(min(1.0, found.overlap / 0.3))


__all__ = ["register"]
