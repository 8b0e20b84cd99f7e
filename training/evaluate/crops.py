"""Nodule crops put to a segmenter, in settings that a crop alone would hide.

A crop leaks: its extent is nearly the nodule's, and a network that has only seen crops is unconstrained outside them.
So each crop is asked about as it is, and standing in a larger volume: its own edge repeated, and aerated lung all
around. Figures are made inside the crop; what is drawn outside it counts against the open Dice. A model's segmenter
takes the repeated edge for the padding that it is (`models.measured`), so that row tells whether it does, and only the
one in aerated lung how it draws what goes on; networks of a run are asked without that.
"""

from __future__ import annotations

import zlib

import numpy as np

from plugins.contract import Array, BoolArray
from plugins.shapes import Spacing
from training.evaluate.judged import Box
from training.lidc import Nodule

MARGIN_MM = 25.0
LUNG_HU, NOISE_HU = -860.0, 35.0
POINT_OFF_MM = 3.0

AS_GIVEN, EDGE, LUNG, OFF = (
    "the crop alone",
    "edge repeated around it",
    "in aerated lung",
    f"point {POINT_OFF_MM:g} mm off",
)
SETTINGS = (AS_GIVEN, EDGE, LUNG, OFF)
Point = tuple[float, float, float]


def asked(nodule: Nodule, setting: str) -> tuple[Array, BoolArray, Point, Box | None]:
    """Return image, truth `(K, R, C)`, point (voxel index, not whole) and the box where the crop stands.

    The point is the voxel of the mask nearest to its centre of gravity; `OFF` moves it in a direction that depends on
    the case only, and not out of the crop. The box is None where the crop stands alone.
    """
    image, truth, point = nodule.image, nodule.mask, inner_point(nodule.mask, nodule.spacing_mm)
    if setting == AS_GIVEN:
        return image, truth, point, None
    random = np.random.default_rng(zlib.crc32(nodule.case.case_id.encode()))
    if setting == OFF:
        away = random.normal(size=3)
        away *= POINT_OFF_MM / np.linalg.norm(away) / np.asarray(nodule.spacing_mm)
        moved = np.clip(np.asarray(point) + away, 0, np.asarray(image.shape) - 1)
        return image, truth, (float(moved[0]), float(moved[1]), float(moved[2])), None
    margin = [int(np.ceil(MARGIN_MM / s)) for s in nodule.spacing_mm]
    around = [(m, m) for m in margin]
    box = (
        slice(margin[0], margin[0] + image.shape[0]),
        slice(margin[1], margin[1] + image.shape[1]),
        slice(margin[2], margin[2] + image.shape[2]),
    )
    large = np.pad(image, around, mode="edge")
    if setting == LUNG:
        inside = large[box].copy()
        large = random.normal(LUNG_HU, NOISE_HU, large.shape).astype(np.float32)
        large[box] = inside
    k, r, c = (p + m for p, m in zip(point, margin, strict=True))
    return large, np.pad(truth, around), (k, r, c), box


def inner_point(mask: BoolArray, spacing_mm: Spacing) -> Point:
    """Return the voxel (k, r, c) of a mask that is nearest to its centre of gravity."""
    inside = np.argwhere(mask)
    away = np.linalg.norm((inside - inside.mean(axis=0)) * np.asarray(spacing_mm), axis=1)
    k, r, c = inside[int(np.argmin(away))].tolist()
    return (float(k), float(r), float(c))
