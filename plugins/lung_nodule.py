"""Lung nodules on chest CT: lungs, blobs in them, each drawn by an exchangeable segmenter, judged and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from models.card import ModelCard
from models.malignancy import NAME as MALIGNANCY
from models.nodule_detector import NAME as DETECTOR
from models.nodule_detector import Search
from models.nodule_segmenter import NAME as SEGMENTER
from models.nodule_segmenter import LearnedNoduleSegmenter
from models.place import Places
from models.segmenter import ClassicalNoduleSegmenter, LesionSegmenter
from plugins import codes, nodule_drawing
from plugins.contract import Finding, Flag, Mask, Patient, Point, Study, Volume
from plugins.errors import Absent, Refused
from plugins.lungs import Lungs, lungs
from plugins.mass_search import Mass, masses
from plugins.measure.lesion import measure_lesion
from plugins.nodule_drawing import SEGMENTERS, Segmenters, choose
from plugins.nodule_rating import FLAG, RATINGS, Ratings, choose_rater, rated
from plugins.nodule_redrawing import Tried, apart, ball_diameter_mm, nodule_at, redrawn, shared, told
from plugins.nodule_search import DETECTORS, Detectors, Spot, choose_detector, spots
from plugins.nodule_shape import confidence_of
from plugins.patient_axes import PatientAxes
from plugins.series_order import preferred, reformat_doubts

BoolArray = NDArray[np.bool_]
Spacing = tuple[float, float, float]
Box = tuple[slice, slice, slice]
Index = tuple[int, int, int]


ALIKE = 0.6
"""A mass whose Dice with a nodule is more than this is that nodule, which stays as it was drawn."""
CERTAIN_MM = 20.0
"""The score of a mass rises to 1 as the radius of the largest ball in it rises to this."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawing:
    """One candidate after it was drawn."""

    mask: Mask
    """The lesion."""
    diameter_mm: float
    """Diameter of the ball of that volume."""
    confidence: float
    """0 to 1, see `LungNodule`."""
    seed: Index
    """The voxel that it was drawn from."""
    learned: nodule_drawing.Drawing | None = None
    """What the networks drew there; None when the classical procedure drew it."""


@dataclass(frozen=True, kw_only=True)
class LungNodule:
    """Nodules of 4 mm and more in the lungs of a chest CT, the largest first.

    What is reported is drawn by learned networks where they can run, each with its doubt; what was tried is drawn by
    the classical procedure.
    Classical: a multi-scale blob detector in the closed lungs and a segmenter that grows from the blob. It is a
    second pair of eyes of modest skill: vessels that branch, scars and folds of the pleura are reported as nodules,
    ground glass is often missed, and a mass that is broadly joined to mediastinum or chest wall is cut by a guess.
    `confidence` of a finding is not a probability of cancer. With the learned detector it is what its networks give the
    candidate, among candidates like those they learned from; else it is no probability but a score of shape, 0 to 1:
    how round the drawing is, how little of it goes on into other tissue, how much of it borders on air.
    Masses that are at least 20 mm thick are found and drawn by their thickness (`plugins.mass_search`) where nothing
    else drew them; their flags tell, and their `confidence` is their thickness alone.
    """

    name: ClassVar[str] = "lung_nodule"
    version: ClassVar[str] = "0.4.0"
    title: ClassVar[str] = "Lung nodules on CT"

    min_diameter_mm: float = 4.0
    """Smaller ones (diameter of the ball of equal volume) are not reported, nor those under 1.3 slice distances."""
    max_diameter_mm: float = 80.0
    """Larger ones are not reported, but for masses that `plugins.mass_search` finds."""
    min_confidence: float = 0.35
    """Less round or less isolated ones are not reported; masses are."""
    min_response_hu: float = 200.0
    """Least contrast, as the blob detector answers it."""
    min_roundness: float = 0.2
    """Least ratio of the weakest to the strongest curvature of the blob."""
    max_candidates: int = 400
    """At most so many blobs are drawn and judged."""
    max_nodules: int = 30
    """At most so many findings beside masses, the most confident ones; a flag tells when there were more."""
    detector: Detectors = "best"
    """Who tells nodules from other blobs: `learned` networks, `classical` (the shape of what is drawn), or the best."""
    segmenter: Segmenters = "best"
    """Who draws what is reported: `learned` networks, the `classical` procedure, or the best that can run here."""
    max_slice_mm: float = 6.0
    """A CT with thicker slices is not analysed."""
    malignancy: Ratings = "calibrated"
    """Whether nodules carry the likelihood of a malignant rating: `calibrated` (see `choose_rater`), `on` or `off`."""
    models: Places = field(default_factory=dict, hash=False)
    """Models made here that count instead of those of the release, by family; for the node to give."""

    def __post_init__(self) -> None:
        if self.detector not in DETECTORS:
            raise ValueError(f"detector is one of {', '.join(DETECTORS)}, not '{self.detector}'")
        if self.segmenter not in SEGMENTERS:
            raise ValueError(f"segmenter is one of {', '.join(SEGMENTERS)}, not '{self.segmenter}'")
        if self.malignancy not in RATINGS:
            raise ValueError(f"malignancy is one of {', '.join(RATINGS)}, not '{self.malignancy}'")

    @property
    def search(self) -> Search:
        """Return where the classical procedure looks."""
        return Search(
            diameters_mm=(self.min_diameter_mm, self.max_diameter_mm / 1.5),
            lowest_response_hu=self.min_response_hu,
            lowest_roundness=self.min_roundness,
            at_most=self.max_candidates,
        )

    @cached_property
    def drawer(self) -> LesionSegmenter:
        """Return what draws the nodules that are reported."""
        # Of many findings that nobody pointed at: more mirror images add little, and each costs as much.
        return choose(self.segmenter, mirrors=1, models=self.models)

    @property
    def families(self) -> tuple[str, ...]:
        """Return the families of learned models that these settings use."""
        used = {
            SEGMENTER: self.segmenter != "classical",
            DETECTOR: self.detector != "classical",
            MALIGNANCY: self.malignancy != "off",
        }
        return tuple(family for family, is_used in used.items() if is_used)

    @property
    def model(self) -> ModelCard | None:
        """Return the card of what draws."""
        return self.drawer.card

    def accepts(self, study: Study) -> bool:
        """Return True when the study holds a CT that may show lungs."""
        return bool(self.looks_at(study))

    def run(self, study: Study) -> tuple[Finding | Flag, ...]:
        """Return the nodules of the first CT of `looks_at` that shows lungs, largest first, and doubts about that CT.

        Refuses `no-ct`; `no-lungs` is `Absent`.
        """
        series = self.looks_at(study)
        if not series:
            limit = f"at least 8 slices, 60 mm, slices up to {self.max_slice_mm:g} mm apart"
            raise Refused("no-ct", f"the study holds no CT series to look for nodules on ({limit})")
        reason: Absent | None = None
        for volume in series:
            try:
                found = self.find(volume, study.patient)
                return (*found, *reformat_doubts(volume, series, self.name))
            except Absent as error:
                reason = reason or error
        why = f": {reason.sentence}" if reason else ""
        raise Absent("no-lungs", f"no CT series shows lungs{why}")

    def segment_at(self, study: Study, series: str, point_mm: Point, label: str) -> Finding | None:
        """Return the nodule at a point (LPS mm) of a series; None when none is seen there. Refuses `point-outside`."""
        return nodule_at(study.volume(series), point_mm, label, self.drawer, self.max_diameter_mm)

    def find(self, volume: Volume, patient: Patient) -> tuple[Finding | Flag, ...]:
        """Return the nodules of one CT, largest first, and doubts about it. Refuses (`no-lungs`, `not-ct`)."""
        found = lungs(volume)
        box = _joint_box(found)
        inside, between = _regions(found, box, volume)
        hu = volume.array[box]
        detector = choose_detector(self.detector, self.models)
        places = spots(hu, inside, volume.spacing_mm, self.search, detector, self.max_candidates)
        drawings = self._drawn(places, hu, (inside, between), volume.spacing_mm)
        flags = found.flags
        if len(drawings) > self.max_nodules:
            sentence = (
                f"{len(drawings)} nodules passed; only the {self.max_nodules} most confident are reported"
            )
            flags += (
                Flag(code="many-nodules", sentence=sentence, series_instance_uid=volume.series_instance_uid),
            )
        start = (box[0].start, box[1].start, box[2].start)
        best = [_placed(d, start, volume.array.shape) for d in drawings[: self.max_nodules]]
        if isinstance(self.drawer, LearnedNoduleSegmenter):
            best = self._drawn_again(best, volume, self.drawer)
        best = _with_masses(best, masses(volume, found), volume)
        ordered = sorted(best, key=lambda d: (-d.mask.count, d.mask.origin))
        findings = [_finding(n, d, found, volume) for n, d in enumerate(ordered, start=1)]
        if (rater := choose_rater(self.malignancy, self.drawer, self.models)) is not None:
            drawn = [d.learned is not None and d.learned.uncertainty is not None for d in ordered]
            wanted = [by_networks or self.malignancy == "on" for by_networks in drawn]
            findings = [
                rated(f, volume, rater, patient) if also else f
                for f, also in zip(findings, wanted, strict=True)
            ]
            if any(wanted):
                flags += (replace(FLAG, series_instance_uid=volume.series_instance_uid),)
        return (*findings, *(replace(flag, plugin=self.name) for flag in flags))

    def _drawn_again(
        self, drawings: Sequence[Drawing], volume: Volume, segmenter: LearnedNoduleSegmenter
    ) -> list[Drawing]:
        """Return the nodules as the networks draw them, without those that are parts of others."""
        tried = [Tried(mask=d.mask, seed=d.seed) for d in drawings]
        sizes_mm = (self.min_diameter_mm, self.max_diameter_mm)
        return [
            replace(d, mask=new.mask, diameter_mm=ball_diameter_mm(new.mask, volume), learned=new)
            for d, new in zip(drawings, redrawn(tried, volume, segmenter, sizes_mm), strict=True)
            if new is not None
        ]

    def looks_at(self, study: Study) -> tuple[Volume, ...]:
        """Return the CT series that may show lungs, the one to measure first."""

        def length_mm(volume: Volume) -> float:
            return int(volume.array.shape[0]) * volume.spacing_mm[0]

        fit = [v for v in study.by_role("ct") if v.array.shape[0] >= 8 and length_mm(v) >= 60.0]
        return preferred(v for v in fit if max(v.spacing_mm) <= self.max_slice_mm)

    def _drawn(
        self,
        places: tuple[Spot, ...],
        hu: NDArray[np.float32],
        regions: tuple[BoolArray, BoolArray],
        spacing_mm: Spacing,
    ) -> list[Drawing]:
        """Return the drawings that pass, on the grid of `hu`; where they overlap, the most confident one."""
        inside, between = regions
        least_mm = max(self.min_diameter_mm, 1.3 * max(spacing_mm))
        passed: list[Drawing] = []
        for spot in places:
            mask = self._draw(spot.candidate.index, hu, inside, spacing_mm)
            diameter_mm = float((6.0 * mask.count * np.prod(spacing_mm) / np.pi) ** (1.0 / 3.0))
            if not least_mm <= diameter_mm <= self.max_diameter_mm:
                continue
            confidence = spot.probability
            if confidence is None:
                confidence = confidence_of(mask, hu, inside, between, spacing_mm)
            if spot.probability is not None or confidence >= self.min_confidence:
                seed = spot.candidate.index
                passed.append(Drawing(mask=mask, diameter_mm=diameter_mm, confidence=confidence, seed=seed))
        taken = np.zeros(inside.shape, dtype=np.bool_)
        kept: list[Drawing] = []
        for drawing in sorted(passed, key=lambda d: (-d.confidence, -d.mask.count, d.mask.origin)):
            if not bool((taken[drawing.mask.box] & drawing.mask.voxels).any()):
                taken[drawing.mask.box] |= drawing.mask.voxels
                kept.append(drawing)
        return kept

    def shape_score(
        self, at: Index, hu: NDArray[np.float32], regions: tuple[BoolArray, BoolArray], spacing_mm: Spacing
    ) -> float:
        """Return the score of shape of what is drawn from a voxel (`confidence_of`); 0 where nothing is."""
        mask = self._draw(at, hu, regions[0], spacing_mm)
        return confidence_of(mask, hu, *regions, spacing_mm) if mask.count else 0.0

    def _draw(self, at: Index, hu: NDArray[np.float32], inside: BoolArray, spacing_mm: Spacing) -> Mask:
        """Return the drawing from one voxel on the grid of `hu`; a small window first, for speed."""
        mask = Mask.from_full(np.zeros((1, 1, 1), dtype=np.bool_))
        for half_mm in (20.0, 0.75 * self.max_diameter_mm):
            half = [max(2, int(np.ceil(half_mm / s))) for s in spacing_mm]
            window = tuple(
                slice(max(0, i - h), min(n, i + h + 1)) for i, h, n in zip(at, half, hu.shape, strict=True)
            )
            seed = (
                at[0] - window[0].start,
                at[1] - window[1].start,
                at[2] - window[2].start,
            )
            lesion = (
                ClassicalNoduleSegmenter().segment(hu[window], spacing_mm, seed, inside[window])
                & inside[window]
            )
            local = Mask.from_full(lesion)
            mask = _moved(local, (window[0].start, window[1].start, window[2].start), hu.shape)
            if not _cut_by(local, window, hu.shape):
                break
        return mask


def _with_masses(nodules: Sequence[Drawing], found: Sequence[Mass], volume: Volume) -> list[Drawing]:
    """Return nodules and masses: one that no drawing shares most of, instead of those that lie mostly in it."""
    kept, out = list(nodules), list[Drawing]()
    for mass in found:
        mask = mass.drawing.mask
        alike = (2 * shared(mask, n.mask) > ALIKE * (mask.count + n.mask.count) for n in kept)
        if any(alike):
            continue
        beside = [n for n in kept if 2 * shared(mask, n.mask) <= n.mask.count]
        drawing = apart(mass.drawing, [n.mask for n in (*beside, *out)], volume)
        if drawing is None:
            continue
        kept = beside
        out.append(
            Drawing(
                mask=drawing.mask,
                diameter_mm=ball_diameter_mm(drawing.mask, volume),
                confidence=min(1.0, mass.radius_mm / CERTAIN_MM),
                seed=mass.seed,
                learned=drawing,
            )
        )
    return kept + out


def _moved(mask: Mask, offset: tuple[int, int, int], shape: tuple[int, ...]) -> Mask:
    """Return a mask of a window on the grid of `shape` that the window was cut from at `offset`."""
    k, r, c = (o + n for o, n in zip(mask.origin, offset, strict=True))
    if mask.count == 0:
        k, r, c = 0, 0, 0
    return Mask(shape=(int(shape[0]), int(shape[1]), int(shape[2])), origin=(k, r, c), voxels=mask.voxels)


def _cut_by(mask: Mask, window: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    """Return True when the mask touches a face of its window that is not a face of the grid."""
    return mask.count > 0 and any(
        (o == 0 and w.start > 0) or (o + v == s and w.stop < n)
        for o, v, s, w, n in zip(mask.origin, mask.voxels.shape, mask.shape, window, shape, strict=True)
    )


def _joint_box(found: Lungs) -> Box:
    parts = [m for m in (found.left, found.right) if m.count]
    low = np.min([m.origin for m in parts], axis=0)
    high = np.max([np.add(m.origin, m.voxels.shape) for m in parts], axis=0)
    k, r, c = (
        slice(max(0, int(a) - 2), min(n, int(b) + 2))
        for a, b, n in zip(low, high, parts[0].shape, strict=True)
    )
    return (k, r, c)


def _regions(found: Lungs, box: Box, volume: Volume) -> tuple[BoolArray, BoolArray]:
    """Return the closed lungs and what lies between them, row by row of the patient, both cut to the box."""
    axes = PatientAxes.of(volume)
    left, right = (np.ascontiguousarray(m.full()[box]) for m in (found.left, found.right))
    to_left, to_right = axes.to_patient(left), axes.to_patient(right)[:, :, ::-1]
    between = ~np.logical_or.accumulate(to_left, axis=2) & to_left.any(axis=2, keepdims=True)
    middle = _innermost(to_left), to_right.shape[2] - 1 - _innermost(to_right)
    centre = round(sum(middle) / 2.0)
    between[:, :, :centre] = False
    from_right = ~np.logical_or.accumulate(to_right, axis=2) & to_right.any(axis=2, keepdims=True)
    from_right = from_right[:, :, ::-1]
    from_right[:, :, centre:] = False
    return left | right, np.ascontiguousarray(axes.from_patient(between | from_right))


def _innermost(lung: BoolArray) -> int:
    """Return the first index along X at which a lung is seen; the middle of the grid when there is none."""
    seen = np.flatnonzero(lung.any(axis=(0, 1)))
    return int(seen[0]) if seen.size else lung.shape[2] // 2


def _finding(number: int, drawing: Drawing, found: Lungs, volume: Volume) -> Finding:
    on_left = shared(drawing.mask, found.left)
    on_right = shared(drawing.mask, found.right)
    label, learned = f"Nodule {number}", drawing.learned
    return Finding(
        key=f"nodule-{number}",
        label=label,
        series_instance_uid=volume.series_instance_uid,
        mask=drawing.mask,
        category=codes.MORPHOLOGICALLY_ABNORMAL,
        type=codes.NODULE if drawing.diameter_mm <= 30.0 else codes.MASS,
        site=codes.LUNG,
        laterality=codes.LEFT if on_left >= on_right else codes.RIGHT,
        confidence=round(drawing.confidence, 3),
        measurements=measure_lesion(drawing.mask, volume) if learned is None else learned.measurements,
        flags=() if learned is None else told(label, learned, LungNodule.name, volume),
        uncertainties={} if learned is None else learned.uncertainties,
    )


def _placed(drawing: Drawing, start: Index, shape: tuple[int, ...]) -> Drawing:
    """Return a drawing on the grid that its own was cut from."""
    k, r, c = (i + s for i, s in zip(drawing.seed, start, strict=True))
    return replace(drawing, mask=_moved(drawing.mask, start, shape), seed=(k, r, c))
