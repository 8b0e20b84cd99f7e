"""What a nodule detector learns from: nodules set into lungs where there were none, and places that are none.

Positives are nodule crops set into the lungs of whole scans (`training.pasting`). Negatives are the candidates of those
scans far from known lesions; and pieces without a nodule, taken from other scans or from crops beside their nodule, set
in just as nodules are, so that being set in tells nothing. Most crops have thinner slices than most scans: half of the
time a thick scan is sliced thinner before something is set in, so that thin slices tell nothing either. There are few
scans, so each is learned from at its own slices and at thicker ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.nodule_detector import DetectorView, Search, look
from models.patches import PatchGrid, cut
from plugins.nodule_candidates import Candidate, candidates
from training.lidc import Nodule
from training.pasting import Donor, Fade, Shape, donor_of, lung_level, set_in, shape_of, window_of
from training.scans import Scan

Array = NDArray[np.float32]
Floats = NDArray[np.float64]
Thing = TypeVar("Thing")
CLEAR_MM = 8.0
"""A place this far from the surface of every known lesion is none."""
DEPTH_MM = 2.0
"""Pieces are set in at least so deep in the lung."""
SLAB_SHARE = {True: 0.3, False: 0.7}
"""How often a nodule, and how often a piece without one, comes with all that its crop shows around it."""
THICK_MM, THIN_MM = 2.0, 1.25
"""Thicker slices are made thinner half of the time."""
ZOOM = 0.87, 1.15
"""A sample is shown so many times its size."""
PIECE_RADIUS_MM = 5.0
"""Pieces without nodule get the shape of nodules up to this radius, where most is lung: cut to the shape of a nodule,
a wall looks like one."""
PIECE_MM = 40.0
"""Half of what is cut out of a scan that gives a piece."""
LARGEST_PIECE_MM = 9.0
"""Larger blobs are not set in as pieces without nodule: cut to the shape of a nodule, a wall looks like one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Searched:
    """A scan with what the candidate stage finds in it."""

    scan: Scan
    """The scan."""
    none: tuple[Candidate, ...]
    """Candidates far from known lesions."""
    deep: NDArray[np.int32]
    """Voxels of the lung where pieces are set in, `(N, 3)`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A crop as donor: its nodule, its shape, and places in it that are none."""

    patient_id: str
    """Whose it is."""
    radius_mm: float
    """Half the size of the nodule, mm."""
    donor: Donor
    """The nodule."""
    shape: Shape
    """Its shape."""
    beside: tuple[Donor, ...]
    """Places in the crop without nodule that the candidate stage takes for blobs."""


def searched(scan: Scan, search: Search, seed: int = 0) -> Searched:
    """Return the candidates of a scan that are no known lesion, and where in its lungs pieces can be set in."""
    found = candidates(
        scan.hu,
        scan.inside,
        scan.spacing_mm,
        diameters_mm=search.diameters_mm,
        lowest_response_hu=search.lowest_response_hu,
        lowest_roundness=search.lowest_roundness,
        at_most=search.at_most,
    )
    deep = np.argwhere(ndimage.distance_transform_edt(scan.inside, sampling=scan.spacing_mm) >= DEPTH_MM)
    chosen = np.random.default_rng(seed).integers(0, len(deep), 20_000)
    return Searched(
        scan=scan,
        none=tuple(c for c in found if scan.away_mm(c.index) >= CLEAR_MM),
        deep=deep[chosen].astype(np.int32),
    )


def source_of(nodule: Nodule, search: Search) -> Source:
    """Return a crop as donor. The lung of a crop is guessed: what is aerated, closed."""
    aerated = nodule.image < -400
    inside = ndimage.binary_closing(np.pad(aerated, 6), iterations=5)[6:-6, 6:-6, 6:-6]
    shape = shape_of(nodule)
    found = candidates(
        nodule.image,
        inside,
        nodule.spacing_mm,
        diameters_mm=(search.diameters_mm[0], LARGEST_PIECE_MM),
        lowest_response_hu=search.lowest_response_hu,
        lowest_roundness=search.lowest_roundness,
        at_most=40,
    )
    steps = np.asarray(nodule.spacing_mm)
    held = np.argwhere(nodule.mask) * steps
    beside = [
        c
        for c in found
        if np.linalg.norm(held - np.asarray(c.index) * steps, axis=1).min() >= 5.0 + c.diameter_mm / 2
    ]
    return Source(
        patient_id=nodule.case.patient_id,
        radius_mm=nodule.case.size_mm / 2,
        donor=donor_of(nodule),
        shape=shape,
        beside=tuple(donor_of(nodule, c.index) for c in beside[:6]),
    )


def positive(
    sources: Sequence[Source], lungs: Sequence[Searched], view: DetectorView, rng: np.random.Generator
) -> Array:
    """Return what the network is shown of a nodule that was set into a lung, `(C, K, R, C)`."""
    source = _one(sources, rng)
    fade = _fade(True, rng)
    reach = rng.standard_normal(3) * (0.15 * source.radius_mm + 0.5)
    reach *= min(1.0, 0.7 * source.radius_mm / max(float(np.linalg.norm(reach)), 1e-6))
    return _set(source.donor, source.shape, _somewhere(lungs, rng), fade, reach * fade.zoom, view, rng)


def set_in_negative(
    sources: Sequence[Source], lungs: Sequence[Searched], view: DetectorView, rng: np.random.Generator
) -> Array:
    """Return what the network is shown of a piece without nodule that was set into a lung, `(C, K, R, C)`."""
    shaped = _small(sources, rng)
    fade = _fade(False, rng)
    donor = _piece(sources, lungs, rng)
    while not _mostly_lung(donor):
        donor = _piece(sources, lungs, rng)
    reach = rng.standard_normal(3) * 0.7
    return _set(donor, shaped.shape, _somewhere(lungs, rng), fade, reach, view, rng)


def _one(of: Sequence[Thing], rng: np.random.Generator) -> Thing:
    return of[int(rng.integers(len(of)))]


def _small(sources: Sequence[Source], rng: np.random.Generator) -> Source:
    source = _one(sources, rng)
    while source.radius_mm > PIECE_RADIUS_MM:
        source = _one(sources, rng)
    return source


def _piece(sources: Sequence[Source], lungs: Sequence[Searched], rng: np.random.Generator) -> Donor:
    """Return a place without nodule: of a crop, or of a scan."""
    source = _one(sources, rng)
    if source.beside and rng.random() < 0.8:
        return _one(source.beside, rng)
    place = _pick(lungs, rng)
    small = [c.index for c in place.none if c.diameter_mm <= LARGEST_PIECE_MM]
    hu, at = window_of(place.scan, _one(small, rng), PIECE_MM)
    k, r, c = at.tolist()
    return Donor(hu=hu, spacing_mm=place.scan.spacing_mm, point=(k, r, c), lung_hu=lung_level(hu))


def _mostly_lung(donor: Donor) -> bool:
    box = tuple(
        slice(max(0, round(p - PIECE_RADIUS_MM / s)), round(p + PIECE_RADIUS_MM / s) + 1)
        for p, s in zip(donor.point, donor.spacing_mm, strict=True)
    )
    return bool(np.mean(donor.hu[box] < -500) > 0.6)


def negative(lungs: Sequence[Searched], view: DetectorView, rng: np.random.Generator) -> Array:
    """Return what the network is shown of a candidate of a scan that is no known lesion, `(C, K, R, C)`."""
    place = _pick(lungs, rng)
    one = _one(place.none, rng)
    at = np.asarray(one.index) + rng.standard_normal(3) * 0.5 / np.asarray(place.scan.spacing_mm)
    k, r, c = np.asarray(place.scan.spacing_mm) * rng.uniform(*ZOOM)
    return look(view, place.scan.hu, (k, r, c), at.tolist())


def _pick(lungs: Sequence[Searched], rng: np.random.Generator) -> Searched:
    """Return a scan, the more often the more candidates it has (by the square root)."""
    weights = np.sqrt([len(one.none) for one in lungs])
    return lungs[int(rng.choice(len(lungs), p=weights / weights.sum()))]


def _somewhere(lungs: Sequence[Searched], rng: np.random.Generator) -> tuple[Scan, Floats]:
    """Return a place in a lung, far from known lesions."""
    place = _pick(lungs, rng)
    while True:
        point = place.deep[int(rng.integers(len(place.deep)))].astype(np.float64)
        if place.scan.away_mm(point) >= CLEAR_MM * 2:
            return place.scan, point


def _fade(nodule: bool, rng: np.random.Generator) -> Fade:
    mirrored = (rng.random() < 0.5, rng.random() < 0.5, rng.random() < 0.5)
    slab = rng.random() < SLAB_SHARE[nodule]
    return Fade(
        whole_mm=rng.uniform(5, 14) if slab else rng.uniform(1, 4),
        fade_mm=rng.uniform(1.5, 4),
        mirrored=mirrored,
        zoom=rng.uniform(*ZOOM),
    )


def _set(
    donor: Donor,
    shape: Shape,
    where: tuple[Scan, Floats],
    fade: Fade,
    off_mm: Floats,
    view: DetectorView,
    rng: np.random.Generator,
) -> Array:
    """Return what the network is shown `off_mm` from the middle of a piece that was set into a lung."""
    scan, point = where
    hu, at = window_of(scan, point, view.half_mm + 4.0)
    spacing = scan.spacing_mm
    if spacing[0] > THICK_MM and rng.random() < 0.5:
        slices = len(hu)
        count = int((slices - 1) * spacing[0] / THIN_MM) + 1
        grid = PatchGrid(shape=(count, *hu.shape[1:]), spacing_mm=(THIN_MM, *spacing[1:]))
        hu = cut(hu, spacing, [(n - 1) / 2 for n in hu.shape], grid)
        at[0] = (count - 1) / 2 + (at[0] - (slices - 1) / 2) * spacing[0] / THIN_MM
        spacing = grid.spacing_mm
    set_in(hu, spacing, at, donor, shape, fade)
    return look(view, hu, spacing, (at + off_mm / np.asarray(spacing)).tolist())


__all__ = [
    "Searched",
    "Source",
    "negative",
    "positive",
    "searched",
    "set_in_negative",
    "source_of",
]
