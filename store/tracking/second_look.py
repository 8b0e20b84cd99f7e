"""A second look where an earlier lesion is expected and nothing was found: whether it is there, and can be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from plugins.contract import Finding, Plugin, Point, Study
from plugins.errors import Refused
from plugins.series_order import holds, reformat_doubts
from store.tracking.brought import Brought, Scene
from store.tracking.link import Kind, Link
from store.tracking.propagation import visible

ONCE_MORE = 0.5
"""A drawing of which so much was found already is that finding."""
FACTORS = (0.05, 5.0)
"""A drawing is the earlier lesion when its volume is so many times the earlier one's."""
NEAR_MM = 10.0
"""And when its centre is so near to where something like it was seen, or nearer than its own radius."""
MOST_DRAWN = 8
"""So many lesions are drawn anew at most, the largest: each may cost seconds."""


@runtime_checkable
class Draws(Protocol):
    """An analysis that can be asked for a lesion at a point."""

    def segment_at(
        self, study: Study, series_instance_uid: str, point_mm: Point, label: str
    ) -> Finding | None:
        """Return the lesion at a point (LPS mm) of a series under a name; None when none is seen there."""


@dataclass(frozen=True, kw_only=True)
class SecondLook:
    """What came of it."""

    links: tuple[Link, ...]
    """The links, told anew where something was seen."""
    redrawn: tuple[Finding, ...]
    """What was drawn, by the Tracking ID of its lesion, with its Tracking UID."""


def second_look(
    plugin: Plugin,
    study: Study,
    findings: Sequence[Finding],
    links: Sequence[Link],
    scene: Scene,
    rejected: Sequence[str] = (),
) -> SecondLook:
    """Return the links after a look at each lesion that seemed gone, and what was drawn anew.

    Nobody looks for a lesion that a person called none, and only the largest are asked for.
    """
    told: list[Link] = []
    redrawn: list[Finding] = []
    gone = [k.tracking_uid for k in links if k.kind is Kind.GONE and k.tracking_uid not in rejected]
    largest = sorted(gone, key=lambda uid: -scene.lesions[uid].lesion.volume_mm3)[:MOST_DRAWN]
    for link in links:
        if link.tracking_uid not in gone:
            told.append(link)
            continue
        brought = scene.lesions[link.tracking_uid]
        drawer = plugin if link.tracking_uid in largest and isinstance(plugin, Draws) else None
        finding, seen = _looked(drawer, study, [*findings, *redrawn], link, brought)
        told.append(seen)
        redrawn += [finding] if finding else []
    return SecondLook(links=tuple(told), redrawn=tuple(redrawn))


def _looked(
    drawer: Draws | None, study: Study, findings: Sequence[Finding], link: Link, brought: Brought
) -> tuple[Finding | None, Link]:
    assert brought.mask is not None and brought.volume is not None and brought.motion is not None
    seen = visible(brought.mask, brought.series.volume, brought.volume, brought.motion)
    reason = f"{link.reason}; {seen.sentence}"
    if not seen.visible:
        return None, replace(link, reason=reason, confidence=link.confidence * (1.0 - seen.score))
    link = replace(link, kind=Kind.NOT_SEGMENTED, reason=reason, confidence=seen.score)
    if drawer is None:
        return None, link
    try:
        uid = brought.volume.series_instance_uid
        drawn = drawer.segment_at(study, uid, seen.found_mm, link.tracking_identifier)
    except Refused:
        return None, link
    if drawn is None or not _is_it(drawn, brought, seen.found_mm) or _is_known(drawn, findings):
        return None, link
    held = [v for v in study.volumes if holds(v, seen.found_mm)]
    finding = replace(
        drawn,
        laterality=drawn.laterality or brought.region.laterality,
        tracking_uid=link.tracking_uid,
        tracking_identifier=link.tracking_identifier,
        flags=(*drawn.flags, *reformat_doubts(brought.volume, held)),
    )
    return finding, replace(link, kind=Kind.REDRAWN, finding=drawn.key)


def _is_it(drawn: Finding, brought: Brought, seen_mm: Point) -> bool:
    """Return True when a drawing is where the lesion was seen, and of such a size that it may be the lesion."""
    assert brought.volume is not None
    if drawn.series_instance_uid != brought.volume.series_instance_uid or not drawn.mask.count:
        return False
    volume_mm3 = drawn.mask.count * brought.volume.voxel_volume_mm3
    radius_mm = (3 * volume_mm3 / (4 * np.pi)) ** (1 / 3)
    away_mm = np.linalg.norm(np.subtract(brought.volume.centroid_mm(drawn.mask), seen_mm))
    low, high = (factor * brought.lesion.volume_mm3 for factor in FACTORS)
    return bool(low <= volume_mm3 <= high and away_mm <= max(NEAR_MM, radius_mm))


def _is_known(drawn: Finding, findings: Sequence[Finding]) -> bool:
    """Return True when much of a drawing belongs to another lesion of the series, or all of that one to it."""
    full = drawn.mask.full()
    for other in findings:
        if other.series_instance_uid == drawn.series_instance_uid and other.category == drawn.category:
            shared = int(np.count_nonzero(full[other.mask.box] & other.mask.voxels))
            if shared >= ONCE_MORE * min(drawn.mask.count, other.mask.count):
                return True
    return False


__all__ = ["Draws", "SecondLook", "second_look"]
