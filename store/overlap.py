"""One lesion that was drawn twice at the same place of one study: by two analyses, a person, or on two series."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, product

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
    """Return pairs of lesions (the other, the one it is) that were drawn at one place.

    By different analyses, or by one of them on different series; what a person drew is compared with analyses alone.

    Two that were drawn at one study at different places are two, wherever else they meet, and so are those that a
    person relinked. A person's lesion is the one; else that of the earlier visit, or of the lower Tracking UID.
    """
    studies: defaultdict[str, defaultdict[str, list[Sighting]]] = defaultdict(lambda: defaultdict(list))
    for one in found:
        if one.centroid_mm is not None and not any(d.kind == "relink" for d in one.decisions):
            studies[one.study_instance_uid][one.lesion].append(one)
    met: dict[frozenset[str], tuple[Sighting, Sighting]] = {}
    for there in studies.values():
        by_source: defaultdict[tuple[str, str], list[Sighting]] = defaultdict(list)
        for one in (one for own in there.values() for one in own):
            by_source[one.plugin, one.series_instance_uid].append(one)
        for some, others in combinations(by_source.values(), 2):
            for one, other in product(some, others):
                if one.plugin == other.plugin and not (one.automatic and other.automatic):
                    continue
                if one.lesion != other.lesion and one.on_pet == other.on_pet and same_place(one, other):
                    met.setdefault(frozenset((one.lesion, other.lesion)), (one, other))
    order = {uid: number for number, uid in enumerate(dict.fromkeys(one.lesion for one in found))}
    twin: list[tuple[str, str]] = []
    for pair in met.values():
        first, second = sorted(pair, key=lambda each: (each.automatic, order[each.lesion], each.lesion))
        if not _apart(first.lesion, second.lesion, studies.values()):
            twin.append((second.lesion, first.lesion))
    return twin


def _apart(lesion: str, other: str, studies: Iterable[Mapping[str, Sequence[Sighting]]]) -> bool:
    """Return whether two lesions were drawn at different places of one study."""
    return any(
        one.on_pet == two.on_pet and _same_space(one, two) and not same_place(one, two)
        for there in studies
        if lesion in there and other in there
        for one, two in product(there[lesion], there[other])
    )


def _same_space(one: Sighting, other: Sighting) -> bool:
    if one.study_instance_uid != other.study_instance_uid:
        return False
    frames = {one.frame_of_reference_uid, other.frame_of_reference_uid}
    return one.series_instance_uid == other.series_instance_uid or (len(frames) == 1 and "" not in frames)


def _width(one: Sighting) -> float | None:
    axis = one.measurements.get("short_axis") or one.measurements.get("long_axis")
    return None if axis is None or axis.unit != "mm" else axis.value


__all__ = ["same_place", "twins"]
