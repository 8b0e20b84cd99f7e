"""Which PETs of a study are measured: of those that show one place a single one, so that a tumour counts once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from plugins.contract import BoolArray, Flag, Mask, Volume
from plugins.flag_codes import SEVERAL_SERIES
from plugins.patient_axes import PatientAxes
from plugins.series_order import Standing, name_of, preferred, standing

MOST = 0.9
"""A series of whose body others show so much shows no place of its own."""
BODY_SUV = 0.1
"""Where the uptake is less, there is air."""
_POINTS = 100_000


def in_order(pets: Iterable[Volume]) -> tuple[Volume, ...]:
    """Return PETs, the one to measure first.

    First by `standing`, what lies across the body, and what says that it was corrected; of those alike, one that lies
    within a larger one stands behind (head and neck in the whole body); then as `preferred` has them.
    """
    wanted = preferred(pets)

    def is_part(pet: Volume) -> bool:
        alike = (p for p in wanted if p is not pet and _rank(p) == _rank(pet))
        return any(shown(pet, [p]) >= MOST > shown(p, [pet]) for p in alike)

    return tuple(sorted(wanted, key=lambda pet: (_rank(pet), is_part(pet))))


def shown(pet: Volume, others: Sequence[Volume]) -> float:
    """Return the share of the body on a PET that lies in the fields of others; 0 in other frames of reference."""
    beside = _beside(pet, others)
    if not beside:
        return 0.0
    places = _body_mm(pet)
    return float(np.logical_or.reduce([_in_field(places, other) for other in beside]).mean())


def lies_in(mask: Mask, pet: Volume, others: Sequence[Volume]) -> bool:
    """Return whether a region of a PET lies wholly in the field of one of the others."""
    beside = _beside(pet, others)
    if not beside:
        return False
    places = pet.to_mm(np.argwhere(mask.voxels) + np.asarray(mask.origin))
    return any(bool(_in_field(places, other).all()) for other in beside)


def several_pets(taken: Sequence[Volume], left: Sequence[Volume], plugin: str) -> tuple[Flag, ...]:
    """Return the notes `several-series` on which PETs of each frame of reference were measured, and which were not."""
    notes: dict[str | None, Flag] = {}
    for frame in dict.fromkeys(pet.frame_of_reference_uid for pet in left):
        ours = [p for p in taken if p.frame_of_reference_uid == frame]
        theirs = [p for p in left if p.frame_of_reference_uid == frame]
        sentence = (
            f"of {len(ours) + len(theirs)} PET series, {', '.join(map(name_of, ours))} "
            f"{'was' if len(ours) == 1 else 'were'} measured, and not {', '.join(map(name_of, theirs))}: where several "
            "show a place one is taken, so that a tumour counts once"
        )
        uid = ours[0].series_instance_uid
        notes[frame] = Flag(code=SEVERAL_SERIES, sentence=sentence, series_instance_uid=uid, plugin=plugin)
    return tuple(notes.values())


def _rank(pet: Volume) -> tuple[Standing, bool, bool]:
    is_unsaid = any(flag.code == "suv-corrections-unknown" for flag in pet.flags)
    return (standing(pet), PatientAxes.of(pet).order[0] != 0, is_unsaid)


def _beside(pet: Volume, others: Sequence[Volume]) -> list[Volume]:
    frame = pet.frame_of_reference_uid
    return [] if frame is None else [o for o in others if o.frame_of_reference_uid == frame]


def _body_mm(pet: Volume) -> NDArray[np.float64]:
    """Return places of the body, LPS mm, evenly thinned; those of the whole field when nothing is taken up."""
    step = max(1, int(np.cbrt(pet.array.size / _POINTS)))
    thinned = pet.array[::step, ::step, ::step]
    body = np.argwhere(thinned >= BODY_SUV)
    index = body if len(body) else np.argwhere(np.ones(thinned.shape, dtype=np.bool_))
    return pet.to_mm(index * float(step))


def _in_field(places_mm: NDArray[np.float64], pet: Volume) -> BoolArray:
    index = pet.to_index(places_mm)
    inside: BoolArray = np.all((index >= -0.5) & (index <= np.asarray(pet.array.shape) - 0.5), axis=-1)
    return inside


__all__ = ["BODY_SUV", "MOST", "in_order", "lies_in", "several_pets", "shown"]
