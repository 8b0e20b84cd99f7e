"""Places of high uptake on PET in SUV, and the liver reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.card import ModelCard
from models.petct import NAME as PETCT
from models.place import Places
from plugins import codes
from plugins.contract import BoolArray, Finding, Flag, Mask, Measurement, Point, Study, Volume
from plugins.edges import doubts_of_edge
from plugins.errors import Absent, Refused
from plugins.measure.axes import CONTOUR, Convention
from plugins.measure.components import components
from plugins.measure.lesion import measure_lesion, normalised_to_lean
from plugins.measure.liver import LiverReference, find_liver, sphere_mask
from plugins.measure.uptake import PeakVariant, Threshold
from plugins.measure.volume import MM3_PER_ML, volume_mm3
from plugins.pet_drawing import PetDrawing, current_petct
from plugins.pet_series import MOST, in_order, lies_in, several_pets, shown
from plugins.series_order import reformat_doubts

_MARGIN_MM = 30.0
_REACH_MM = 10.0
_VOXEL_METHOD = "all voxels in a sphere of 3 cm"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Spot:
    """One connected place above its threshold."""

    mask: Mask
    """Its voxels."""
    peak: tuple[int, int, int]
    """Index (k, r, c) of its hottest voxel; the first one when several are equal."""
    threshold: Threshold
    """The level that bounds it, in words."""
    flags: tuple[Flag, ...] = ()
    """Doubts about its bounds."""


@dataclass(frozen=True, kw_only=True)
class PetLesion:
    """Finds what lies above a threshold on PET in SUV: 26-connected, no smoothing, no filling.

    **Physiological uptake is not recognised.** Brain, heart, kidneys, ureters, bladder, bowel and inflammation are
    reported like tumour when they are above the threshold; the flag `physiological-uptake-not-recognised` goes with
    them, their type is `Lesion` and not `Neoplasm`, and their confidence is None: being above a threshold is no claim
    about what it is.

    Thresholds: `fixed` (SUV >= 4.0). `percent`: hot spots are the components above `floor_suv`; each is then cut at
    41 % of its SUVmax, pieces apart. Where 41 % lies below the floor the spot is grown beyond it, not into other spots,
    and left at the floor (flag `percent-threshold-leaks`) when it does not end within 3 cm.
    `percist`: 1.5 x liver mean + 2 SD in body-weight SUV; without a liver reference the study is refused.

    `outline = "learned"`: each place is drawn anew by the PET/CT network from its hottest voxel (one that lies in a
    drawn lesion is not drawn again); where the network sees nothing the threshold's outline stays (flag
    `drawn-by-threshold`).

    The liver reference is a finding of its own (type `Reference Region`), or a flag with the reason why there is none.
    """

    name: ClassVar[str] = "pet_lesion"
    version: ClassVar[str] = "1.1.0"
    title: ClassVar[str] = "Uptake on PET"

    threshold: Literal["fixed", "percent", "percist"] = "fixed"
    """How the level is found."""
    fixed_suv: float = 4.0
    """The level of `fixed`, SUVbw."""
    outline: Literal["threshold", "learned"] = "threshold"
    """Who draws the bounds of a place: the threshold that found it, or the PET/CT network."""
    hazard: bool = False
    """Tell the network's log hazard with each lesion that it draws; it was learned from simulated outcomes."""
    percent_of_maximum: float = 41.0
    """The level of `percent`, % of the SUVmax of each hot spot."""
    floor_suv: float = 2.5
    """What a hot spot of `percent` must be above, SUVbw."""
    minimum_volume_ml: float = 0.2
    """Smaller ones are left out."""
    minimum_voxels: int = 3
    """Those of fewer voxels are left out."""
    maximum_lesions: int = 100
    """At most so many of each series are reported, the largest; a flag tells of the rest."""
    convention: Convention = CONTOUR
    """Where the outline of a mask runs: `contour` or `pixel-centre`."""
    peak: PeakVariant = "global"
    """Which SUVpeak: `global`, `local` or `weighted`."""
    models: Places = field(default_factory=dict, hash=False)
    """Models made here that count instead of those of the release, by family; for the node to give."""

    def __post_init__(self) -> None:
        if self.threshold not in ("fixed", "percent", "percist"):
            raise ValueError(f"threshold is 'fixed', 'percent' or 'percist', not '{self.threshold}'")
        if self.outline not in ("threshold", "learned"):
            raise ValueError(f"outline is 'threshold' or 'learned', not '{self.outline}'")
        if not (self.fixed_suv > 0 and self.floor_suv > 0 and 0 < self.percent_of_maximum <= 100):
            raise ValueError("thresholds are above zero, and percentages at most 100")
        if self.minimum_voxels < 1 or self.maximum_lesions < 1:
            raise ValueError("minimum_voxels and maximum_lesions are at least 1")

    @property
    def families(self) -> tuple[str, ...]:
        """Return the families of learned models that these settings use."""
        return (PETCT,) if self.outline == "learned" else ()

    @property
    def model(self) -> ModelCard | None:
        """Return the card of the network; None when thresholds draw."""
        return current_petct(self.models).card if self.outline == "learned" else None

    def accepts(self, study: Study) -> bool:
        """Return True when the study has a PET in SUV."""
        return bool(study.by_role("pet_suv"))

    def looks_at(self, study: Study) -> tuple[Volume, ...]:
        """Return the PET in SUV, the one to measure first."""
        return in_order(study.by_role("pet_suv"))

    def run(self, study: Study) -> tuple[Finding | Flag, ...]:
        """Return the liver reference, if any, the lesions of each PET in SUV, the largest first, and doubts.

        Of several PETs that show one place the first of `looks_at` is measured (note `several-series`).
        Refuses `no-suv` without such a series; `no-liver-reference`, when `percist` is set and no series has one,
        is `Absent`.
        """
        pets = study.by_role("pet_suv")
        if not pets:
            raise Refused("no-suv", "there is no PET in SUV; see the refused series for what is missing")
        livers, measured = self._measured(study)
        if not measured:
            missing = " ".join(r.sentence for r in livers.values() if isinstance(r, Flag))
            raise Absent("no-liver-reference", f"the PERCIST threshold needs the liver. {missing}")
        taken = [pet for pet in pets if pet.series_instance_uid in livers]
        answer: list[Finding | Flag] = []
        for pet in taken:
            number = sum(isinstance(f, Finding) and f.type == codes.LESION for f in answer)
            first = measured[: measured.index(pet)] if pet in measured else []
            answer.extend(self._one_series(pet, livers[pet.series_instance_uid], number, study, first))
        left = [pet for pet in pets if pet not in taken]
        return (*answer, *several_pets(measured, left, self.name))

    def _measured(self, study: Study) -> tuple[dict[str, LiverReference | Flag], list[Volume]]:
        """Return the liver reference of each PET that shows a place of its own, and those to measure, in order."""
        livers: dict[str, LiverReference | Flag] = {}
        measured: list[Volume] = []
        for pet in self.looks_at(study):
            if shown(pet, measured) >= MOST:
                continue
            liver = livers[pet.series_instance_uid] = find_liver(pet, study.by_role("ct"))
            if self.threshold != "percist" or isinstance(liver, LiverReference):
                measured.append(pet)
        return livers, measured

    def _one_series(
        self, pet: Volume, liver: LiverReference | Flag, number: int, study: Study, first: Sequence[Volume]
    ) -> Iterator[Finding | Flag]:
        """Yield what a PET shows, without the lesions that those measured before it, `first`, show too."""
        yield _liver_finding(pet, liver) if isinstance(liver, LiverReference) else liver
        if isinstance(liver, Flag) and self.threshold == "percist":
            return
        own = (spot for spot in self._spots(pet, liver) if not lies_in(spot.mask, pet, first))
        spots = sorted(own, key=lambda s: (-s.mask.count, s.peak))
        if spots:
            words = "Normal uptake is not told apart from disease."
            yield _flag(pet, "physiological-uptake-not-recognised", words)
        if len(spots) > self.maximum_lesions:
            words = f"{len(spots)} places are above the threshold; the {self.maximum_lesions} largest are reported."
            yield _flag(pet, "too-many-lesions", words)
        spots = spots[: self.maximum_lesions]
        if self.outline == "learned":
            drawing = PetDrawing(pet, study.by_role("ct"), current_petct(self.models))
            spots = list(_redrawn(spots, drawing, self.hazard))
        for place, spot in enumerate(spots, start=number + 1):
            yield self._lesion(pet, spot, f"PET lesion {place}")
        yield from reformat_doubts(pet, study.by_role("pet_suv"), self.name)

    def segment_at(self, study: Study, series: str, point_mm: Point, label: str) -> Finding | None:
        """Return what is above 41 % (`percent_of_maximum`) of the hottest voxel within 1 cm of a point (LPS mm).

        None when that does not end within 3 cm or is too small: uptake that is not told apart from its surroundings.
        """
        pet = study.volume(series)
        ball = np.argwhere(sphere_mask(pet, point_mm, _REACH_MM).full())
        if not len(ball):
            return None
        k, r, c = (int(i) for i in ball[int(np.argmax(pet.array[tuple(ball.T)]))])
        labels = np.zeros(pet.array.shape, dtype=np.uint8)
        labels[k, r, c] = 1
        maximum = float(pet.array[k, r, c])
        level = self.percent_of_maximum / 100.0 * maximum
        box = (slice(k, k + 1), slice(r, r + 1), slice(c, c + 1))
        grown = _grow(pet, labels, 1, box, level) if level > 0 else None
        if grown is None:
            return None
        words = f"SUV >= {level:.2f} ({self.percent_of_maximum:g} % of hot spot's SUVmax {maximum:.2f})"
        spot = _spot(pet, *grown, Threshold(suv=level, words=words))
        return self._lesion(pet, spot, label) if self._is_large(pet, spot) else None

    def _lesion(self, pet: Volume, spot: _Spot, label: str) -> Finding:
        return Finding(
            key=f"{pet.series_instance_uid}:{','.join(map(str, spot.peak))}",
            label=label,
            series_instance_uid=pet.series_instance_uid,
            mask=spot.mask,
            category=codes.MORPHOLOGICALLY_ABNORMAL,
            type=codes.LESION,
            measurements=measure_lesion(
                spot.mask, pet, convention=self.convention, threshold=spot.threshold, peak=self.peak
            ),
            flags=(*spot.flags, *doubts_of_edge(spot.mask, pet)),
        )

    def _is_large(self, pet: Volume, spot: _Spot) -> bool:
        large = volume_mm3(spot.mask, pet) >= self.minimum_volume_ml * MM3_PER_ML
        return large and spot.mask.count >= self.minimum_voxels

    def _spots(self, pet: Volume, liver: LiverReference | Flag) -> Iterator[_Spot]:
        """Yield every place above the threshold that is large enough."""
        if self.threshold == "percent":
            found = self._percent_spots(pet)
        elif self.threshold == "percist" and isinstance(liver, LiverReference):
            found = _level_spots(pet, Threshold.percist(liver.mean, liver.sd))
        else:
            found = _level_spots(pet, Threshold.fixed(self.fixed_suv))
        yield from (spot for spot in found if self._is_large(pet, spot))

    def _percent_spots(self, pet: Volume) -> Iterator[_Spot]:
        labels = _label(pet.array >= self.floor_suv)
        for label, box in enumerate(ndimage.find_objects(labels), start=1):
            seed = labels[box] == label
            maximum = float(pet.array[box][seed].max())
            level = self.percent_of_maximum / 100.0 * maximum
            words = f"SUV >= {level:.2f} ({self.percent_of_maximum:g} % of hot spot's SUVmax {maximum:.2f})"
            threshold = Threshold(suv=level, words=words)
            if level >= self.floor_suv:
                yield from _components(pet, seed & (pet.array[box] >= level), box, threshold)
                continue
            grown = _grow(pet, labels, label, box, level)
            if grown is not None:
                yield _spot(pet, *grown, threshold)
                continue
            floor = Threshold.fixed(self.floor_suv)
            leaks = f"{threshold.words} does not end within 3 cm; it was left at SUV {self.floor_suv:g}."
            yield _spot(pet, seed, _start(box), floor, (_flag(pet, "percent-threshold-leaks", leaks),))


def _redrawn(spots: Sequence[_Spot], drawing: PetDrawing, hazard: bool) -> Iterator[_Spot]:
    """Yield each spot with the network's outline; what lies in an outline already drawn is part of that lesion."""
    taken = np.zeros(drawing.pet.array.shape, dtype=np.bool_)
    for spot in spots:
        if taken[spot.peak]:
            continue
        drawn, log_hazard = drawing.at(spot.peak)
        drawn &= ~taken
        if drawn.any():
            taken |= drawn
            words = (
                f"Log hazard {log_hazard:.2f}, learned from simulated outcomes: of survival it tells nothing."
            )
            told = (_flag(drawing.pet, "simulated-hazard", words),) if hazard else ()
            yield replace(spot, mask=Mask.from_full(drawn), flags=(*spot.flags, *told))
        else:
            words = "The network saw no lesion here; the outline is the threshold's."
            yield replace(spot, flags=(*spot.flags, _flag(drawing.pet, "drawn-by-threshold", words)))


def _level_spots(pet: Volume, threshold: Threshold) -> Iterator[_Spot]:
    whole = (slice(0, pet.array.shape[0]), slice(0, pet.array.shape[1]), slice(0, pet.array.shape[2]))
    return _components(pet, pet.array >= threshold.level(0.0), whole, threshold)


def _components(
    pet: Volume, above: BoolArray, box: tuple[slice, slice, slice], threshold: Threshold
) -> Iterator[_Spot]:
    """Yield the 26-connected components of a box `(k, r, c)` of the grid."""
    for component in components(above):
        k, r, c = (o + s for o, s in zip(_start(box), component.origin, strict=True))
        yield _spot(pet, component.voxels, (k, r, c), threshold)


def _label(above: BoolArray) -> NDArray[np.integer]:
    """Return 26-connected components, numbered from 1; of bytes, since cc3d 4.1 fails on some thin boolean arrays."""
    return np.asarray(cc3d.connected_components(above.view(np.uint8), connectivity=26))


def _grow(
    pet: Volume, labels: NDArray[np.integer], label: int, box: tuple[slice, slice, slice], level: float
) -> tuple[BoolArray, tuple[int, int, int]] | None:
    """Return what is connected to a spot above a level below its floor, and where its box begins; None when it leaks.

    Other spots are walls. It leaks when it comes to the border of a box 3 cm larger, unless that is the image's.
    """
    margin = [int(np.ceil(_MARGIN_MM / s)) for s in pet.spacing_mm]
    low = [max(0, s.start - m) for s, m in zip(box, margin, strict=True)]
    high = [min(n, s.stop + m) for s, m, n in zip(box, margin, pet.array.shape, strict=True)]
    crop = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    own = labels[crop] == label
    open_ = (pet.array[crop] >= level) & ((labels[crop] == 0) | own)
    regions = _label(open_)
    grown = np.asarray(regions == regions[own][0])
    for axis, (a, b, size) in enumerate(zip(low, high, pet.array.shape, strict=True)):
        if (a > 0 and grown.take(0, axis=axis).any()) or (b < size and grown.take(-1, axis=axis).any()):
            return None
    return grown, (low[0], low[1], low[2])


def _spot(
    pet: Volume,
    voxels: BoolArray,
    start: tuple[int, int, int],
    threshold: Threshold,
    flags: tuple[Flag, ...] = (),
) -> _Spot:
    """Return a spot from the voxels of a box that begins at `start`, cropped."""
    inner = ndimage.find_objects(voxels.astype(np.uint8))[0]
    origin = tuple(o + s.start for o, s in zip(start, inner, strict=True))
    k, r, c = (int(n) for n in pet.array.shape)
    mask = Mask(
        shape=(k, r, c), origin=(origin[0], origin[1], origin[2]), voxels=np.ascontiguousarray(voxels[inner])
    )
    hottest = np.unravel_index(
        int(np.argmax(np.where(mask.voxels, pet.array[mask.box], -np.inf))), mask.voxels.shape
    )
    peak = tuple(o + int(i) for o, i in zip(mask.origin, hottest, strict=True))
    return _Spot(mask=mask, peak=(peak[0], peak[1], peak[2]), threshold=threshold, flags=flags)


def _start(box: tuple[slice, slice, slice]) -> tuple[int, int, int]:
    return (box[0].start, box[1].start, box[2].start)


def _liver_finding(pet: Volume, liver: LiverReference) -> Finding:
    by = "placed on PET and CT" if liver.with_ct else "placed on PET alone"
    level = Threshold.percist(liver.mean, liver.sd)
    mean = Measurement(
        name="suv_mean",
        concept=codes.SUV_BW,
        value=liver.mean,
        unit=pet.unit,
        method=f"{_VOXEL_METHOD}, {by}",
        derivation=codes.MEAN,
    )
    sd = Measurement(
        name="suv_sd",
        concept=codes.SUV_BW,
        value=liver.sd,
        unit=pet.unit,
        method=f"{_VOXEL_METHOD}, {by}, by n",
        derivation=codes.STANDARD_DEVIATION,
    )
    threshold = Measurement(
        name="liver_threshold",
        concept=codes.LIVER_THRESHOLD,
        value=level.level(0.0),
        unit=pet.unit,
        method="1.5 x liver mean + 2 SD (PERCIST-style, SUVbw)",
    )
    return Finding(
        key=f"{pet.series_instance_uid}:liver",
        label="Liver reference",
        series_instance_uid=pet.series_instance_uid,
        mask=liver.mask,
        category=codes.SPATIAL_CONCEPT,
        type=codes.REFERENCE_REGION,
        site=codes.LIVER,
        measurements=(mean, sd, threshold, *_comparable(pet, mean, sd)),
        flags=liver.flags,
    )


def _comparable(pet: Volume, mean: Measurement, sd: Measurement) -> Iterator[Measurement]:
    """Yield what PERCIST asks of a scan before it compares it with another one, as far as it is known."""
    yield from normalised_to_lean("sul_mean", mean.value, pet, codes.MEAN, mean.method)
    yield from normalised_to_lean("sul_sd", sd.value, pet, codes.STANDARD_DEVIATION, sd.method)
    for name, note, concept, unit, words in (
        ("uptake_time", "uptake_minutes", codes.UPTAKE_TIME, codes.MINUTE, "injection to the first acquisition"),
        ("injected_activity", "injected_mbq", codes.ADMINISTERED_ACTIVITY, codes.MEGABECQUEREL, "as the series says"),
    ):  # fmt: skip
        value = pet.suv.get(note)
        if isinstance(value, float):
            yield Measurement(name=name, concept=concept, value=value, unit=unit, method=words)


def _flag(pet: Volume, code: str, sentence: str) -> Flag:
    return Flag(
        code=code, sentence=sentence, series_instance_uid=pet.series_instance_uid, plugin="pet_lesion"
    )
