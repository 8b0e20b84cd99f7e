"""Masses of some centimetres in a whole chest CT: dense tissue that is thick where lung is expected.

It knows thickness, density and place alone, on voxels of about 2.5 mm: no network, and no word on what a mass is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.mass_outline import less_its_edge
from plugins.contract import Mask, Volume
from plugins.edges import doubt, doubts_of_edge
from plugins.lungs import Lungs, block_means
from plugins.measure.lesion import measure_lesion
from plugins.nodule_drawing import Drawing, doubts_of_border
from plugins.patient_axes import PatientAxes
from plugins.shapes import bounding_box, closing_by_ball

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Spacing = tuple[float, float, float]
Index = tuple[int, int, int]

GRID_MM = 2.5
CLOSING_MM = 36.0
"""Lung is expected wherever a ball of this radius does not fit between lung and lung."""
DENSE_HU = -300.0
CONTRAST_HU = 120.0
"""What is denser is a vessel full of contrast, or bone."""
THICK_MM = 12.0
"""Radius of the largest ball in a mass at least; aorta and healthy hila have up to 11.3 in the scans at hand."""
THIN_MM, BULKY_ML = 10.0, 40.0
"""A thinner one with so much volume is one too."""
SHRUNK_MM = 6.0
"""What a ball of this radius, or of half that of the largest ball, does not fit in is no part of a mass: vessels."""
IN_LUNG = {True: 0.7, False: 0.85}
"""Share of a thick and of a bulky one that the narrowly closed lungs hold at least; of heart and aorta less."""
ON_DIAPHRAGM = 0.7
"""What goes on in other tissue below so much of its lower face may be the dome of the diaphragm."""
LOW = 1.6
"""It is when its mean height above that tissue is less than so many radii of the largest ball in it."""
DOUBT = (
    "it was found and drawn by its thickness alone, as dense tissue where lung is expected; consolidated or collapsed "
    "lung and a large hilum look the same"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Mass:
    """Dense tissue that is thick where lung is expected."""

    drawing: Drawing
    """Its outline on the grid of the volume, measured, with its doubts."""
    seed: Index
    """The voxel of the volume at the middle of the largest ball in it."""
    radius_mm: float
    """Radius of that ball."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Thick:
    """A mass on the coarse grid `(Z, Y, X)`."""

    voxels: BoolArray
    """With a layer towards lung, in which its edge lies."""
    peak: Index
    radius_mm: float
    aerated: float


def masses(volume: Volume, found: Lungs) -> tuple[Mass, ...]:
    """Return the masses of a CT whose lungs are `found` (closed, with `include_pleural`), the thickest first.

    A mass holds a ball of 12 mm radius (10 when it has 40 ml) in the lungs as a ball of 36 mm closes them. It is drawn
    as the opening by a ball of half that radius, at the edge of lung half-way between both densities, at mediastinum
    and wall where the closing ends: an approximation there, which its flags tell.
    """
    axes = PatientAxes.of(volume)
    spacing = axes.spacing(volume.spacing_mm)
    factors = [max(1, min(round(GRID_MM / s), n)) for s, n in zip(spacing, volume.array.shape, strict=True)]
    hu = block_means(axes.to_patient(volume.array), factors)
    sides = [block_means(axes.to_patient(side.full()), factors) > 0.5 for side in (found.left, found.right)]
    steps = (spacing[0] * factors[0], spacing[1] * factors[1], spacing[2] * factors[2])
    expected = sides[0] | sides[1]
    narrow = expected.copy()
    for side in sides:
        if side.any():
            expected |= closing_by_ball(side, CLOSING_MM, steps)
    drawn = (_mass(one, factors, volume, axes) for one in thick(hu, expected, narrow, steps))
    return tuple(mass for mass in drawn if mass is not None)


def thick(hu: Array, expected: BoolArray, narrow: BoolArray, spacing_mm: Spacing) -> Iterator[_Thick]:
    """Yield the masses of a CT `(Z, Y, X)` in HU, Z to the head, where lung is `expected`; `narrow` closes less."""
    box = bounding_box(expected, 3)
    hu, expected, narrow = hu[box], expected[box], narrow[box]
    dense = ndimage.gaussian_filter(hu, [1.0 / s for s in spacing_mm]) > DENSE_HU
    room = dense & expected
    depth = ndimage.distance_transform_edt(room, sampling=spacing_mm)
    taken = np.zeros(room.shape, dtype=np.bool_)
    places = np.argwhere(depth >= THIN_MM)
    for place in places[np.argsort(-depth[tuple(places.T)], kind="stable")]:
        z, y, x = place.tolist()
        if taken[z, y, x]:
            continue
        radius = float(depth[z, y, x])
        body, core = _opened(room, depth, (z, y, x), max(SHRUNK_MM, radius / 2), spacing_mm)
        new = body & ~taken
        taken |= body
        ml = np.count_nonzero(new) * float(np.prod(spacing_mm)) / 1000.0
        is_thick = radius >= THICK_MM
        if (
            (is_thick or ml >= BULKY_ML)
            and float(np.median(hu[core])) < CONTRAST_HU
            and np.count_nonzero(new & narrow) >= IN_LUNG[is_thick] * np.count_nonzero(new)
            and not _is_dome(new, dense & ~expected, radius, spacing_mm)
        ):
            shell = ndimage.binary_dilation(new) & ~new
            aerated = float(np.mean(~dense[shell]))
            whole = np.zeros([s.stop for s in box], dtype=np.bool_)
            whole[box] = new | (ndimage.binary_dilation(new) & expected & ~dense)
            k, r, c = (n + s.start for n, s in zip((z, y, x), box, strict=True))
            yield _Thick(voxels=whole, peak=(k, r, c), radius_mm=radius, aerated=aerated)


def _opened(
    room: BoolArray, depth: NDArray[np.float64], peak: Index, radius_mm: float, spacing_mm: Spacing
) -> tuple[BoolArray, BoolArray]:
    """Return the piece of the opening of `room` by a ball that lies at its peak, and the middles of its balls."""
    labels = cc3d.connected_components(depth >= radius_mm, connectivity=26)
    core = labels == labels[peak]
    margin = int(np.ceil(radius_mm / min(spacing_mm))) + 2
    box = bounding_box(core, margin)
    body = np.zeros_like(core)
    away = ndimage.distance_transform_edt(~core[box], sampling=spacing_mm)
    body[box] = room[box] & (away <= radius_mm + max(spacing_mm) / 2)
    return body, core


def _is_dome(body: BoolArray, beyond: BoolArray, radius_mm: float, spacing_mm: Spacing) -> bool:
    """Return whether a body lies on what is `beyond` the lungs as the dome of the diaphragm does: broad and low."""
    below = np.zeros_like(body)
    below[:-1] = body[1:]
    below &= ~body
    base = int(np.count_nonzero(below & beyond))
    height_mm = int(np.count_nonzero(body)) / max(1, base) * spacing_mm[0]
    return base >= ON_DIAPHRAGM * int(np.count_nonzero(below)) and height_mm < LOW * radius_mm


def _mass(one: _Thick, factors: list[int], volume: Volume, axes: PatientAxes) -> Mass | None:
    """Return a mass on the grid of the volume, its edge towards lung drawn again there; None when none is left."""
    shape = axes.to_patient(volume.array).shape
    coarse = np.zeros([-(-n // f) + 1 for n, f in zip(shape, factors, strict=True)], dtype=np.bool_)
    coarse[tuple(slice(0, n) for n in one.voxels.shape)] = one.voxels
    box = bounding_box(coarse, 1)
    wide = coarse[box]
    for axis, factor in enumerate(factors):
        wide = np.repeat(wide, factor, axis=axis)
    full = np.zeros(shape, dtype=np.bool_)
    place = tuple(slice(s.start * f, min(s.stop * f, n)) for s, f, n in zip(box, factors, shape, strict=True))
    full[place] = wide[tuple(slice(0, p.stop - p.start) for p in place)]
    spacing = axes.spacing(volume.spacing_mm)
    part = axes.to_patient(volume.array)[place]
    left = less_its_edge(full[place], part, spacing)
    if not left.any():
        return None
    labels = cc3d.connected_components(left, connectivity=6)
    counts = np.bincount(labels.ravel())
    counts[0] = 0
    full[place] = labels == int(counts.argmax())
    mask = Mask.from_full(axes.from_patient(full))
    z, y, x = (min(i * f + f // 2, n - 1) for i, f, n in zip(one.peak, factors, shape, strict=True))
    told = (doubt("drawn-by-shape", DOUBT, volume), *doubts_of_border(one.aerated, volume))
    drawing = Drawing(
        mask=mask, measurements=measure_lesion(mask, volume), flags=(*told, *doubts_of_edge(mask, volume))
    )
    return Mass(drawing=drawing, seed=axes.index((z, y, x), shape), radius_mm=one.radius_mm)


__all__ = ["Mass", "masses", "thick"]
