"""Candidates that passed, drawn again by the learned networks: many places are tried quickly, few are drawn well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.nodule_segmenter import LearnedNoduleSegmenter
from models.segmenter import LesionSegmenter
from plugins import codes
from plugins.contract import Finding, Flag, Mask, Point, Volume
from plugins.flag_codes import INTERVAL
from plugins.measure.lesion import measure_lesion
from plugins.nodule_drawing import Drawing, draw_at, interval_words


@dataclass(frozen=True, kw_only=True, eq=False)
class Tried:
    """A nodule as it was drawn at first."""

    mask: Mask
    """The first drawing, on the grid of the volume."""
    seed: tuple[int, int, int]
    """The voxel that it was drawn from."""


def redrawn(
    tried: Sequence[Tried], volume: Volume, segmenter: LearnedNoduleSegmenter, sizes_mm: tuple[float, float]
) -> list[Drawing | None]:
    """Return the learned drawing of each nodule, the first of them first where they meet.

    None for what turns out to be a part of one before it. Where the networks see nothing, or something that is not of
    these sizes (diameter of the ball of equal volume, mm), the first drawing stays and a flag says so.
    """
    out: list[Drawing | None] = []
    for one in tried:
        x, y, z = volume.to_mm(np.asarray(one.seed, dtype=np.float64)).tolist()
        drawing = draw_at(volume, (x, y, z), segmenter)
        if not sizes_mm[0] <= ball_diameter_mm(drawing.mask, volume) <= sizes_mm[1]:
            drawing = _as_tried(one, volume)
        earlier = [d.mask for d in out if d is not None]
        out.append(apart(drawing, earlier, volume))
    return out


def nodule_at(
    volume: Volume, point_mm: Point, label: str, segmenter: LesionSegmenter, largest_mm: float
) -> Finding | None:
    """Return the nodule at a point (LPS mm), also a small one; None when none up to `largest_mm` is seen there."""
    drawing = draw_at(volume, point_mm, segmenter)
    diameter_mm = ball_diameter_mm(drawing.mask, volume)
    if not 0.0 < diameter_mm <= largest_mm:
        return None
    return Finding(
        key="at-" + ",".join(f"{x:.1f}" for x in point_mm),
        label=label,
        series_instance_uid=volume.series_instance_uid,
        mask=drawing.mask,
        category=codes.MORPHOLOGICALLY_ABNORMAL,
        type=codes.NODULE if diameter_mm <= 30.0 else codes.MASS,
        site=codes.LUNG,
        measurements=drawing.measurements,
        flags=told(label, drawing, "lung_nodule", volume),
        uncertainties=drawing.uncertainties,
    )


def ball_diameter_mm(mask: Mask, volume: Volume) -> float:
    """Return the diameter of the ball of that volume."""
    return float((6.0 * mask.count * volume.voxel_volume_mm3 / np.pi) ** (1.0 / 3.0))


def told(label: str, drawing: Drawing, plugin: str, volume: Volume) -> tuple[Flag, ...]:
    """Return the doubts about a drawing, and the note of its intervals, as those of a finding of that name."""
    flags = [replace(f, sentence=f"'{label}': {f.sentence}") for f in drawing.flags]
    if (words := interval_words(drawing)) is not None:
        flags.append(Flag(code=INTERVAL, sentence=f"'{label}': {words}"))
    return tuple(replace(f, plugin=plugin, series_instance_uid=volume.series_instance_uid) for f in flags)


def _as_tried(one: Tried, volume: Volume) -> Drawing:
    sentence = (
        "the networks see no nodule of these sizes here; the outline is that of the classical procedure"
    )
    flag = Flag(code="drawn-classically", sentence=sentence)
    return Drawing(mask=one.mask, measurements=measure_lesion(one.mask, volume), flags=(flag,))


def apart(drawing: Drawing, earlier: Sequence[Mask], volume: Volume) -> Drawing | None:
    """Return the drawing without voxels of earlier ones; None when less than half of it is left."""
    left = drawing.mask.voxels.copy()
    for mask in earlier:
        if (boxes := _common(drawing.mask, mask)) is not None:
            left[boxes[0]] &= ~mask.voxels[boxes[1]]
    count = int(np.count_nonzero(left))
    if count == drawing.mask.count:
        return drawing
    if 2 * count < drawing.mask.count:
        return None
    tight = Mask.from_full(left)
    k, r, c = (o + t for o, t in zip(drawing.mask.origin, tight.origin, strict=True))
    mask = Mask(shape=drawing.mask.shape, origin=(k, r, c), voxels=tight.voxels)
    return replace(drawing, mask=mask, measurements=measure_lesion(mask, volume), intervals=())


def shared(first: Mask, second: Mask) -> int:
    """Return how many voxels two masks of one grid share."""
    boxes = _common(first, second)
    return 0 if boxes is None else int(np.count_nonzero(first.voxels[boxes[0]] & second.voxels[boxes[1]]))


def _common(first: Mask, second: Mask) -> tuple[tuple[slice, ...], tuple[slice, ...]] | None:
    """Return where the boxes of two masks of one grid meet, cut out of each; None when they do not."""
    low = np.maximum(first.origin, second.origin)
    high = np.minimum(np.add(first.origin, first.voxels.shape), np.add(second.origin, second.voxels.shape))
    if (high <= low).any():
        return None
    here, there = (
        tuple(slice(int(a - o), int(b - o)) for a, b, o in zip(low, high, mask.origin, strict=True))
        for mask in (first, second)
    )
    return here, there


__all__ = ["Tried", "apart", "ball_diameter_mm", "nodule_at", "redrawn", "shared", "told"]
