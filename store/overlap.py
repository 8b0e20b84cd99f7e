"""One lesion that two analyses, or an analysis and a person, drew at the same place of one study."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

from store.sighting import Sighting

MOST_VOLUMES = 8.0
"""Two drawings of one lesion differ less than that many times in volume."""


def same_place(one: Sighting, other: Sighting) -> bool:
    """Return whether two drawings of one study are of one lesion.

    Their centres lie no further apart than half of the smaller short axis, and their volumes are alike.
    """
    if one.centroid_mm is None or other.centroid_mm is None or not _same_space(one, other):
        return False
    widths = [axis for each in (one, other) if (axis := _width(each)) is not None]
    if len(widths) < 2 or math.dist(one.centroid_mm, other.centroid_mm) > min(widths) / 2:
        return False
    volumes = [m.value for each in (one, other) if (m := each.measurements.get("volume")) is not None]
    return len(volumes) < 2 or max(volumes) <= MOST_VOLUMES * min(volumes)


def twins(found: Sequence[Sighting]) -> list[tuple[str, str]]:
    """Return pairs of lesions (the other, the one it is), of which different analyses drew both at one place.

    Two that were drawn at one study at different places are two, wherever else they meet, and so are those that a
    person relinked. A person's lesion is the one; else that of the earlier visit, or of the lower Tracking UID.
    """
    studies: defaultdict[str, list[Sighting]] = defaultdict(list)
    for one in found:
        if one.centroid_mm is not None and not any(d.kind == "relink" for d in one.decisions):
            studies[one.study_instance_uid].append(one)
    pairs: dict[frozenset[str], list[tuple[bool, Sighting, Sighting]]] = defaultdict(list)
    for there in studies.values():
        for one, other in combinations(there, 2):
            if one.lesion != other.lesion and one.on_pet == other.on_pet and _same_space(one, other):
                pairs[frozenset((one.lesion, other.lesion))].append((same_place(one, other), one, other))
    order = {uid: number for number, uid in enumerate(dict.fromkeys(one.lesion for one in found))}
    twin: list[tuple[str, str]] = []
    for met in pairs.values():
        if all(is_same for is_same, _, _ in met) and any(one.plugin != other.plugin for _, one, other in met):
            _, one, other = met[0]
            first, second = sorted(
                (one, other), key=lambda each: (each.automatic, order[each.lesion], each.lesion)
            )
            twin.append((second.lesion, first.lesion))
    return twin


def _same_space(one: Sighting, other: Sighting) -> bool:
    if one.study_instance_uid != other.study_instance_uid:
        return False
    frames = {one.frame_of_reference_uid, other.frame_of_reference_uid}
    return one.series_instance_uid == other.series_instance_uid or (len(frames) == 1 and "" not in frames)


def _width(one: Sighting) -> float | None:
    axis = one.measurements.get("short_axis") or one.measurements.get("long_axis")
    return None if axis is None or axis.unit != "mm" else axis.value


__all__ = ["same_place", "twins"]
