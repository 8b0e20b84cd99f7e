"""Lesions of other time points brought to the grid of this one."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from plugins import codes
from plugins.contract import Flag, Mask, Study, Volume
from plugins.errors import Refused
from plugins.series_order import preferred
from store.dicom.common_voxels import overlaps
from store.dicom.values import text
from store.overlap import MOST_VOLUMES
from store.tracking.earlier import EarlierSeries, Region
from store.tracking.lesion import EarlierLesion
from store.tracking.motion import Motion, Trust
from store.tracking.overlap import ball_radius_mm
from store.tracking.pairing import Gates
from store.tracking.propagation import propagate
from store.tracking.registration import register

LEAST_SD_MM = 3.0
"""A lesion moves so much against its surroundings from one breath to the next."""


class Standing(StrEnum):
    """What time a lesion comes from."""

    EARLIER = "earlier"
    LATER = "later"


@dataclass(frozen=True, kw_only=True, eq=False)
class Brought:
    """A lesion of another time point and where it is expected at this one."""

    standing: Standing
    """What time it comes from."""
    series: EarlierSeries
    """The series that it was found on."""
    region: Region
    """What its SEG says of it."""
    lesion: EarlierLesion
    """Where it is expected."""
    volume: Volume | None
    """The series of this study that it was brought to; None when there is none."""
    reason: str = ""
    """Why there is none, in words."""
    mask: Mask | None = None
    """Its mask on its own series; None when that was not read."""
    motion: Motion | None = None
    """How it was brought; None when it was not."""


class Motions:
    """Motions between image series, each registered once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Motion] = {}

    def between(self, fixed: Volume, moving: Volume) -> Motion:
        """Return the motion from an earlier series to a new one. Refuses what cannot be compared."""
        key = (fixed.series_instance_uid, moving.series_instance_uid)
        if key not in self._known:
            self._known[key] = register(fixed, moving)
        return self._known[key]


@dataclass(kw_only=True)
class Scene:
    """What other time points know of the lesions of this study.

    Lesions are taken in from the nearest time point to the farthest; one that is there already is not taken again.
    """

    study: Study
    """The new study."""
    looked_at: Collection[str]
    """Series on which something was found now."""
    motions: Motions
    """Registrations."""
    lesions: dict[str, Brought] = field(default_factory=dict)
    """By Tracking UID."""
    flags: list[Flag] = field(default_factory=list)
    """What could not be compared."""
    incomplete: set[str] = field(default_factory=set)
    """Series of this study that were not compared with all that they should have been."""

    def take(self, series: Sequence[EarlierSeries], standing: Standing) -> None:
        """Take in the lesions of one study that are not known yet."""
        wanted = [s for s in series if any(r.tracking_uid not in self.lesions for r in s.lesions)]
        pairs = list(self._pairs(wanted))
        for one, volume in pairs:
            for brought in self._compared(one, volume, standing):
                if (seen := self._once(brought, series)) is not None:
                    self.lesions.setdefault(seen.lesion.tracking_uid, seen)
        given = {volume.series_instance_uid for _, volume in pairs if volume is not None}
        for volume in self.study.volumes:
            if volume.series_instance_uid in set(self.looked_at) - given:
                self._bring_what_is_not_in_view(pairs, volume, standing)

    def _compared(self, one: EarlierSeries, volume: Volume | None, standing: Standing) -> list[Brought]:
        """Return the lesions of an earlier series on one of this study; nowhere, and told so, if they cannot be."""
        try:
            return self._brought(one, volume, standing)
        except Refused as refusal:
            sentence = f"The lesions of {one.study_date} were not compared: {refusal.sentence}"
            self.flags.append(Flag(code="earlier-not-compared", sentence=sentence))
            self.incomplete.update([volume.series_instance_uid] if volume else [])
            return [_nowhere(one, region, standing, refusal.sentence) for region in one.lesions]

    def _once(self, brought: Brought, series: Sequence[EarlierSeries]) -> Brought | None:
        """Return a lesion, or None for a second drawing of one that is here, on another series of its study.

        One that only reaches over the place of such a lesion can be compared with nothing, and is nowhere.
        """
        frame = _frame_of(brought.series)
        beside = [s for s in series if s is not brought.series and frame and _frame_of(s) == frame]
        known = [self.lesions.get(region.tracking_uid) for one in beside for region in one.lesions]
        for other in (b for b in known if b is not None and b.volume is not None):
            if other.volume is not brought.volume or not _overlap(brought.lesion, other.lesion):
                continue
            if _is_drawn_twice(brought.lesion, other.lesion):
                return None
            name = other.lesion.tracking_identifier
            words = f"it reaches over the place of '{name}', drawn on another series of its study"
            return _nowhere(brought.series, brought.region, brought.standing, words)
        return brought

    def _bring_what_is_not_in_view(
        self,
        pairs: Sequence[tuple[EarlierSeries, Volume | None]],
        volume: Volume,
        standing: Standing,
    ) -> None:
        """Bring lesions to a series without an earlier one of its own, where it shows more of them than theirs."""
        for series in (s for s, _ in pairs if s.modality in ("", volume.modality)):
            theirs = (self.lesions.get(region.tracking_uid) for region in series.lesions)
            hidden = {
                b.lesion.tracking_uid: b
                for b in theirs
                if b is not None and b.series is series and b.volume is not None
                if b.lesion.in_view < Gates().in_view
            }
            if not hidden:
                continue
            for uid in hidden:
                del self.lesions[uid]
            found = {b.lesion.tracking_uid: b for b in self._compared(series, volume, standing)}
            for uid, old in hidden.items():
                new = found.get(uid, old)
                self.lesions[uid] = new if new.lesion.in_view > old.lesion.in_view else old

    def on(self, volume: Volume) -> list[Brought]:
        """Return the lesions that were brought to one series."""
        return [b for b in self.lesions.values() if b.volume is volume]

    def _pairs(self, series: Sequence[EarlierSeries]) -> Iterator[tuple[EarlierSeries, Volume | None]]:
        """Yield each earlier series with the new one that is most like it, one for one as far as they go.

        Those that are left over share the new one that is most like them.
        """
        volumes = {v.series_instance_uid: v for v in self.study.volumes}
        likeness = {
            (s.series_instance_uid, uid): (uid in self.looked_at) + (s.description == v.series_description)
            for s in series
            for uid, v in volumes.items()
            if s.modality in ("", v.modality)
        }
        left = {s.series_instance_uid: s for s in series}
        free = set(volumes)
        place = {v.series_instance_uid: n for n, v in enumerate(preferred(self.study.volumes))}
        order = sorted(likeness, key=lambda pair: (-likeness[pair], place[pair[1]], pair))
        for earlier, new in order:
            if earlier in left and new in free:
                free.discard(new)
                yield left.pop(earlier), volumes[new]
        for earlier, new in order:
            if earlier in left:
                yield left.pop(earlier), volumes[new]
        yield from ((s, None) for s in left.values())

    def _brought(self, series: EarlierSeries, volume: Volume | None, standing: Standing) -> list[Brought]:
        lesions = [r for r in series.lesions if r.tracking_uid not in self.lesions]
        if volume is None:
            words = (
                f"the study holds no {series.modality or 'image'} series like the one on which it was seen"
            )
            return [_nowhere(series, region, standing, words) for region in lesions]
        there = series.volume
        masks = series.masks(there)
        motion = self.motions.between(volume, there)
        if motion.quality.trust is Trust.FAILED:
            sentence = f"the images cannot be laid on each other: {motion.quality.sentence}"
            raise Refused("earlier-not-registered", sentence)
        found = []
        for region in {r.tracking_uid: r for r in reversed(lesions)}.values():
            parts = [
                masks[r.number]
                for r in lesions
                if r.tracking_uid == region.tracking_uid and r.number in masks
            ]
            if not parts:
                continue
            mask = parts[0] if len(parts) == 1 else joined(parts)
            place = propagate(mask, there, volume, motion)
            lesion = replace(
                still(series, region, mask, there),
                expected_mm=place.expected_mm,
                expected_mask=place.mask,
                in_view=place.in_view,
                expected_sd_mm=max(LEAST_SD_MM, motion.quality.residual_mm or 0.0),
            )
            found.append(
                Brought(
                    standing=standing,
                    series=series,
                    region=region,
                    lesion=lesion,
                    volume=volume,
                    mask=mask,
                    motion=motion,
                )
            )
        return found


def joined(parts: Sequence[Mask]) -> Mask:
    """Return the union of masks of one grid: fragments that a person called one lesion."""
    whole = parts[0].full()
    for part in parts[1:]:
        whole[part.box] |= part.voxels
    return Mask.from_full(whole)


def still(series: EarlierSeries, region: Region, mask: Mask, volume: Volume) -> EarlierLesion:
    """Return a lesion where it was, on the series `volume` that it was found on."""
    return EarlierLesion(
        tracking_uid=region.tracking_uid,
        tracking_identifier=region.tracking_identifier or region.label,
        study_instance_uid=series.study_instance_uid,
        expected_mm=volume.centroid_mm(mask),
        expected_mask=mask,
        volume_mm3=mask.count * volume.voxel_volume_mm3,
        in_view=1.0,
        site=region.site.value if region.site else None,
        type=region.type.value if region.type else None,
        node=region.type == codes.LYMPH_NODE,
    )


def _nowhere(series: EarlierSeries, region: Region, standing: Standing, reason: str) -> Brought:
    lesion = EarlierLesion(
        tracking_uid=region.tracking_uid,
        tracking_identifier=region.tracking_identifier or region.label,
        study_instance_uid=series.study_instance_uid,
        expected_mm=(0.0, 0.0, 0.0),
        expected_mask=None,
        volume_mm3=0.0,
        in_view=0.0,
    )
    return Brought(standing=standing, series=series, region=region, lesion=lesion, volume=None, reason=reason)


def _frame_of(series: EarlierSeries) -> str:
    return text(series.segmentation.header, "FrameOfReferenceUID")


def _overlap(one: EarlierLesion, other: EarlierLesion) -> bool:
    """Return whether two lesions are expected in the same voxels of one grid."""
    first, second = one.expected_mask, other.expected_mask
    return first is not None and second is not None and overlaps(first, second)


def _is_drawn_twice(one: EarlierLesion, other: EarlierLesion) -> bool:
    """Return whether the centres lie within half the smaller's radius as a ball, and the volumes are alike."""
    small, large = sorted((one.volume_mm3, other.volume_mm3))
    reach_mm = ball_radius_mm(small) / 2
    return large <= MOST_VOLUMES * small and math.dist(one.expected_mm, other.expected_mm) <= reach_mm


__all__ = ["Brought", "Motions", "Scene", "Standing", "joined", "still"]
