"""One lesion drawn from one point on a CT, by whichever segmenter this installation has, measured with its doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.extras import how_to_install
from models.files import BadModel
from models.nodule_segmenter import AERATED, NAME, LearnedNoduleSegmenter, NoduleAnswer, runs_here
from models.place import NOWHERE, Places, open_current
from models.segmenter import ClassicalNoduleSegmenter, LesionSegmenter
from models.surroundings import aeration
from models.uncertainty import CaseUncertainty
from plugins.contract import Flag, Mask, Measurement, Point, Volume
from plugins.edges import doubt, doubts_of_edge
from plugins.errors import Refused
from plugins.measure.lesion import measure_lesion
from plugins.measure.volume import MM3_PER_ML

Segmenters = Literal["best", "learned", "classical"]
SEGMENTERS: tuple[Segmenters, ...] = ("best", "learned", "classical")
Interval = tuple[float, float]
NINETY = 1.645
"""A 90 % interval of a normal distribution reaches so many standard deviations to either side."""
STEADY = 0.06
"""A drawing that is less steady may be of no lesion: of held-out nodules 1 in 25 is, of what is drawn in plain lung and
in vessels 4 in 5 (`python -m training.steadiness`)."""
PARTS = frozenset({"larger-than-patch", "cut-at-box"})
"""Doubts of a lesion of which only a part was drawn: no interval around what was measured holds the whole. The edge of
the image is none of them: it cuts two of three of the crops that the intervals were learned from."""
BOX_MARGIN_MM = 2.0
"""A drawing may go so far beyond a box that was put around a lesion, or a quarter of the side, if that is more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawing:
    """A lesion on the grid of a volume."""

    mask: Mask
    """The lesion; empty when there is none at the point."""
    measurements: tuple[Measurement, ...] = ()
    """What was measured of it."""
    intervals: tuple[tuple[str, Interval], ...] = ()
    """Where the true value lies with 90 % coverage, by the measurement's name, in its unit; none of `PARTS`."""
    uncertainty: CaseUncertainty | None = None
    """How unsure the networks were; None when the segmenter does not tell."""
    flags: tuple[Flag, ...] = ()
    """Doubts about the drawing."""

    @property
    def uncertainties(self) -> dict[str, float]:
        """Return `uncertainty` by the names of its fields."""
        return {} if self.uncertainty is None else asdict(self.uncertainty)


def choose(which: Segmenters, mirrors: int | None = None, models: Places = NOWHERE) -> LesionSegmenter:
    """Return what draws lesions: the learned networks, the classical procedure, or the best that can run here.

    `mirrors`: how many mirror images each network is shown; None for what its card says. `models` are those made here
    that count.
    Refuses `no-segmenter` when the learned one is asked for and cannot run.
    """
    if which not in SEGMENTERS:
        raise ValueError(f"segmenter is one of {', '.join(SEGMENTERS)}, not '{which}'")
    if which == "classical" or (which == "best" and not runs_here()):
        return ClassicalNoduleSegmenter()
    try:
        if not runs_here():
            raise BadModel("not-installed", f"torch or monai is not installed: {how_to_install('learn')}")
        return LearnedNoduleSegmenter(model=open_current(NAME, models), mirrors=mirrors, fastest=True)
    except BadModel as bad:
        if which == "best" and bad.code == "not-shipped":
            return ClassicalNoduleSegmenter()
        raise Refused("no-segmenter", f"the learned nodule segmenter cannot be used: {bad.sentence}") from bad


def draw_at(
    volume: Volume,
    point_mm: Point,
    segmenter: LesionSegmenter,
    *,
    extent_mm: float | None = None,
    corners_mm: tuple[Point, Point] | None = None,
) -> Drawing:
    """Return the lesion of a CT at a point (LPS mm).

    `extent_mm` is how long it is expected to be; `corners_mm` are opposite corners of a box that it does not leave by
    more than a quarter of the box's side. Refuses `point-outside`.
    """
    point = volume.to_index(point_mm)
    shape = volume.array.shape
    if not all(-0.5 <= p <= n - 0.5 for p, n in zip(point, shape, strict=True)):
        raise Refused("point-outside", f"the point {_words(point_mm)} lies outside of the images")
    flags: list[Flag] = []
    answer: NoduleAnswer | None = None
    if isinstance(segmenter, LearnedNoduleSegmenter):
        answer = segmenter.answer(volume.array, volume.spacing_mm, point.tolist(), extent_mm)
        mask = _on_grid(answer, shape)
        if not answer.fits:
            flags.append(doubt("larger-than-patch", "it is too large to be drawn whole", volume))
        if segmenter.is_coarse(answer.voxel_mm):
            learned = (
                "it is larger than what the networks learned, and how far off they are there is not known"
            )
            words = f"{learned}: it was drawn on voxels of {answer.voxel_mm:.1f} mm"
            flags.append(doubt("drawn-coarsely", words, volume))
        elif answer.unsteadiness > STEADY:
            flags.append(_hardly(answer.unsteadiness, volume))
        flags.extend(doubts_of_border(answer.aerated, volume))
    else:
        seed = [min(max(round(float(p)), 0), n - 1) for p, n in zip(point, shape, strict=True)]
        drawn = segmenter.segment(volume.array, volume.spacing_mm, (seed[0], seed[1], seed[2]))
        mask = Mask.from_full(drawn)
        flags.extend(doubts_of_border(aeration(volume.array, drawn, volume.spacing_mm), volume))
    if corners_mm is not None:
        mask = _within(mask, volume, corners_mm, flags)
    if mask.count == 0:
        sentence = f"no lesion is seen at {_words(point_mm)}"
        return Drawing(mask=mask, flags=(Flag(code="no-lesion", sentence=sentence),))
    flags.extend(doubts_of_edge(mask, volume, None if answer is None else answer.measured))
    measurements = measure_lesion(mask, volume)
    if answer is None:
        return Drawing(mask=mask, measurements=measurements, flags=tuple(flags))
    assert isinstance(segmenter, LearnedNoduleSegmenter)
    return _doubted(mask, measurements, answer, segmenter, flags)


def _doubted(
    mask: Mask,
    measurements: Sequence[Measurement],
    answer: NoduleAnswer,
    segmenter: LearnedNoduleSegmenter,
    flags: Sequence[Flag],
) -> Drawing:
    """Return the drawing with the intervals that the card's quantiles give, and the spread that belongs to them.

    On voxels coarser than those that taught the quantiles there are none, nor of a part of a lesion.
    """
    unknown = segmenter.is_coarse(answer.voxel_mm) or any(flag.code in PARTS for flag in flags)
    doubt, unsure = segmenter.doubt, answer.uncertainty
    intervals: dict[str, Interval] = {}
    for one in () if unknown else measurements:
        if one.name == "volume":
            low, high = doubt.volume_interval_mm3(one.value * MM3_PER_ML, unsure.entropy)
            intervals[one.name] = (low / MM3_PER_ML, high / MM3_PER_ML)
        elif one.name == "long_axis":
            intervals[one.name] = doubt.long_axis_interval_mm(one.value, unsure.entropy)
    return Drawing(
        mask=mask,
        measurements=tuple(_with_spread(m, intervals.get(m.name)) for m in measurements),
        intervals=tuple(intervals.items()),
        uncertainty=unsure,
        flags=tuple(flags),
    )


def _with_spread(measurement: Measurement, interval: Interval | None) -> Measurement:
    """Return a measurement with the standard deviation of the normal distribution that has such a 90 % interval."""
    if interval is None or not np.isfinite(interval).all():
        return measurement
    return replace(measurement, uncertainty=(interval[1] - interval[0]) / 2 / NINETY)


def interval_words(drawing: Drawing) -> str | None:
    """Return one sentence that tells the intervals; None when there are none."""
    units = {m.name: m.unit.value for m in drawing.measurements}
    told = [
        f"{name.replace('_', ' ')} {low:.3g} to {high:.3g} {units[name]}"
        for name, (low, high) in drawing.intervals
        if np.isfinite([low, high]).all()
    ]
    return f"with 90 % coverage on held-out lesions: {', '.join(told)}" if told else None


def _on_grid(answer: NoduleAnswer, shape: Sequence[int]) -> Mask:
    inner = Mask.from_full(answer.mask)
    k, r, c = (o + side.start for o, side in zip(inner.origin, answer.box, strict=True))
    if inner.count == 0:
        k, r, c = 0, 0, 0
    return Mask(shape=(shape[0], shape[1], shape[2]), origin=(k, r, c), voxels=inner.voxels)


def _within(mask: Mask, volume: Volume, corners_mm: tuple[Point, Point], flags: list[Flag]) -> Mask:
    """Return the part of a mask that does not leave a box by more than its margin."""
    low, high = np.minimum(*corners_mm), np.maximum(*corners_mm)
    margin = np.maximum(BOX_MARGIN_MM, (high - low) / 4)
    inside = np.argwhere(mask.voxels)
    mm = volume.to_mm(inside + np.asarray(mask.origin))
    kept = ((mm >= low - margin) & (mm <= high + margin)).all(axis=1) if len(inside) else np.zeros(0, bool)
    if kept.all():
        return mask
    flags.append(doubt("cut-at-box", "it goes on beyond the box, where it was cut", volume))
    voxels = np.zeros_like(mask.voxels)
    voxels[tuple(inside[kept].T)] = True
    full = np.zeros(mask.shape, dtype=np.bool_)
    full[mask.box] = voxels
    return Mask.from_full(full)


def _hardly(unsteadiness: float, volume: Volume) -> Flag:
    """Return the doubt whether there is a lesion at all."""
    words = (
        f"its mirror images are drawn differently (Dice {1 - unsteadiness:.2f}), as those of vessels and plain lung "
        "are, and of few nodules: look whether there is a lesion at all"
    )
    return Flag(code="hardly-a-lesion", sentence=words, series_instance_uid=volume.series_instance_uid)


def doubts_of_border(aerated: float, volume: Volume) -> tuple[Flag, ...]:
    """Return the doubt about an outline of whose surroundings the share `aerated` is lung; none when it is much."""
    if aerated >= AERATED:
        return ()
    words = f"only {aerated:.0%} of what surrounds it is lung, so its outline is a guess"
    return (doubt("little-lung-around", words, volume),)


def _words(point_mm: Sequence[float] | NDArray[np.float64]) -> str:
    return ", ".join(f"{float(x):g}" for x in point_mm) + " mm"


__all__ = [
    "SEGMENTERS",
    "Drawing",
    "Segmenters",
    "choose",
    "doubts_of_border",
    "draw_at",
    "interval_words",
]
