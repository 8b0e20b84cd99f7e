"""Which lesion of the new time point is which of the earlier one, decided from places, shapes and volumes alone.

An earlier lesion and a present one cost `distance / 20 mm + (1 - IoU of the dilated masks) + w |log volume ratio|`; the
assignment of least total cost decides, where leaving a lesion without partner has a price as well. It is done twice:
the first time tells by how much the registration is off near each lesion. What is left over is asked whether it lies
in, or covers, a lesion that has a partner: then that one was split, or some were merged.
Every earlier lesion has exactly one fate and every present one exactly one origin; no Tracking UID is given twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

import highdicom
import numpy as np
from scipy.optimize import linear_sum_assignment

from plugins.contract import Point
from store.tracking import confidence
from store.tracking.lesion import EarlierLesion, PresentLesion
from store.tracking.link import Kind, Link
from store.tracking.pairing import Bodies, Expected, Gates, Pairs, as_neighbours_tell, as_told

ALONE = 1e-6
"""What leaving two lesions without partner costs: a little more than the dearest pair."""

NewIdentity = Callable[[PresentLesion], tuple[str, str]]
"""Returns the Tracking UID and the Tracking ID of a present lesion that needs its own."""


def match(
    earlier: Sequence[EarlierLesion],
    present: Sequence[PresentLesion],
    *,
    geometry: highdicom.VolumeGeometry,
    new_identity: NewIdentity,
    gates: Gates | None = None,
) -> tuple[Link, ...]:
    """Return where each present lesion comes from, by key, then what became of the earlier ones without successor.

    All are of one frame of reference, their masks on the grid of `geometry`; the order in which they are given is of no
    importance. A present lesion whose drawing brought the Tracking UID of an earlier one is that lesion, with
    confidence 1. `new_identity` gives the Tracking UID and the Tracking ID of a new lesion, and of the smaller parts of
    one that was split; a new lesion that brought an identity of its own keeps it.
    Raises ValueError when the Tracking UIDs of the earlier or the keys of the present lesions are not all different,
    and when `new_identity` gives an identity that is taken.
    """
    limits = gates or Gates()
    before = sorted(earlier, key=lambda lesion: lesion.tracking_uid)
    now = sorted(present, key=lambda lesion: lesion.key)
    if len({e.tracking_uid for e in before}) < len(before) or len({p.key for p in now}) < len(now):
        raise ValueError("earlier lesions must differ in their Tracking UID, present ones in their key")
    told, bodies = _told(before, now), Bodies(before, now, geometry)
    first = _assigned(bodies.pairs(as_told(before, limits), limits), told, len(before), len(now))
    expected = as_neighbours_tell(before, now, told | first, limits)
    pairs = bodies.pairs(expected, limits)
    families = _families(pairs, told | _assigned(pairs, told, len(before), len(now)), limits)
    return _Telling(before, now, expected, pairs, told, families, limits).links(new_identity)


def _told(before: Sequence[EarlierLesion], now: Sequence[PresentLesion]) -> dict[int, int]:
    """Return which earlier lesion a present one is by what its drawing says; the largest where two say the same."""
    places = {lesion.tracking_uid: i for i, lesion in enumerate(before)}
    told: dict[int, int] = {}
    for j in sorted(range(len(now)), key=lambda j: (-now[j].volume_mm3, now[j].key)):
        i = places.get(now[j].tracking_uid or "")
        if i is not None and i not in told.values():
            told[j] = i
    return told


def _assigned(pairs: Pairs, told: Mapping[int, int], earlier: int, present: int) -> dict[int, int]:
    """Return the earlier lesion of each present one that has one, by the assignment of least cost.

    A forbidden pair costs as much as leaving both without partner, so dummies need no rows of their own.
    """
    rows = [i for i in range(earlier) if i not in told.values()]
    columns = [j for j in range(present) if j not in told]
    costs = np.array([[pairs[i, j].cost if pairs[i, j].may_be else ALONE for j in columns] for i in rows])
    matrix = costs.reshape(len(rows), len(columns))
    chosen = ((rows[r], columns[c]) for r, c in zip(*linear_sum_assignment(matrix), strict=True))
    return {j: i for i, j in chosen if pairs[i, j].may_be}


def _families(pairs: Pairs, chosen: Mapping[int, int], gates: Gates) -> frozenset[tuple[int, int]]:
    """Return all (earlier, present) that belong together: the chosen, and what was split off or merged into them.

    A lesion without origin that lies in one that has a partner is a part of it; one without fate that is covered by a
    lesion that has an origin has merged into it. The surest go first; what was split is not merged as well.
    """
    found = {(i, j) for j, i in chosen.items()}
    offers = [
        (pair.overlap.covered if j in chosen else pair.overlap.held, i, j)
        for (i, j), pair in pairs.items()
        if pair.may_be and (i, j) not in found
    ]
    split, merged, with_fate, with_origin = set[int](), set[int](), set(chosen.values()), set(chosen)
    for share, i, j in sorted(offers, key=lambda offer: (-offer[0], *offer[1:])):
        merges = j in chosen
        if share < gates.inside or (i in with_fate) == merges or (j in with_origin and not merges):
            continue
        kin = {(chosen[j], j)} if merges else {(a, b) for a, b in found if a == i}
        if any(pairs[pair].overlap.iou == 0 for pair in kin):
            continue
        ratios = [ratio for pair in kin | {(i, j)} if (ratio := pairs[pair].ratio) is not None]
        if merges and chosen[j] not in split and min(ratios, default=1.0) * gates.whole >= 1:
            merged.add(j)
        elif not merges and not merged & {b for _, b in kin} and max(ratios, default=1.0) <= gates.whole:
            split.add(i)
        else:
            continue
        found.add((i, j))
        with_origin.add(j)
        with_fate.add(i)
    return frozenset(found)


@dataclass(frozen=True)
class _Telling:
    """What is needed to tell each decision."""

    before: Sequence[EarlierLesion]
    now: Sequence[PresentLesion]
    expected: Expected
    pairs: Pairs
    told: Mapping[int, int]
    families: frozenset[tuple[int, int]]
    gates: Gates

    def links(self, new_identity: NewIdentity) -> tuple[Link, ...]:
        identities = self._identities(new_identity)
        origins = [self._origin(j, *identities[j]) for j in range(len(self.now))]
        with_fate = {i for i, _ in self.families}
        return (*origins, *(self._fate(i) for i in range(len(self.before)) if i not in with_fate))

    def _at_mm(self, i: int) -> Point:
        x, y, z = self.expected.at_mm[i].tolist()
        return (x, y, z)

    def _parents(self, j: int) -> list[int]:
        return sorted(i for i, present in self.families if present == j)

    def _children(self, i: int) -> list[int]:
        return sorted(j for earlier, j in self.families if earlier == i)

    def _identities(self, new_identity: NewIdentity) -> list[tuple[str, str]]:
        """Return Tracking UID and Tracking ID of each present lesion."""
        taken = {lesion.tracking_uid for lesion in self.before}
        identities: list[tuple[str, str]] = []
        for j, lesion in enumerate(self.now):
            i = self._kept(j)
            if i is not None:
                identities.append((self.before[i].tracking_uid, self.before[i].tracking_identifier))
                continue
            uid, identifier = lesion.tracking_uid, lesion.tracking_identifier or lesion.label
            if not uid or uid in taken or self._parents(j):
                uid, identifier = new_identity(lesion)
            if uid in taken:
                raise ValueError(f"the Tracking UID {uid} of '{lesion.label}' belongs to another lesion")
            taken.add(uid)
            identities.append((uid, identifier))
        return identities

    def _kept(self, j: int) -> int | None:
        """Return the earlier lesion whose identity a present one keeps: of several the largest, to the largest."""
        parents = self._parents(j)
        if not parents:
            return None
        first = self.told.get(j, max(parents, key=lambda i: (self.before[i].volume_mm3, -i)))
        children = self._children(first)
        heir = next(
            (k for k in children if self.told.get(k) == first),
            max(children, key=lambda k: (self.now[k].volume_mm3, -k)),
        )
        return first if heir == j else None

    def _origin(self, j: int, uid: str, identifier: str) -> Link:
        parents, lesion = self._parents(j), self.now[j]
        kind = Kind.NEW if not parents else Kind.SAME if len(parents) == 1 else Kind.MERGED
        if kind is Kind.SAME and len(self._children(parents[0])) > 1:
            kind = Kind.SPLIT
        if kind is Kind.SAME and self._is_cut(parents[0], j):
            kind = Kind.CUT
        at = self._kept(j)
        first = at if at is not None else parents[0] if parents else None
        return Link(
            kind=kind,
            tracking_uid=uid,
            tracking_identifier=identifier,
            finding=lesion.key,
            earlier=tuple(self.before[i].tracking_uid for i in parents),
            study_instance_uid=self.before[first].study_instance_uid if first is not None else "",
            confidence=1.0 if j in self.told else self._confidence(j, parents),
            reason=self._why(j, kind, parents),
            expected_mm=None if first is None else self._at_mm(first),
        )

    def _is_cut(self, i: int, j: int) -> bool:
        """Return whether much of an earlier lesion lies beyond the grid, and the present one reaches its border."""
        mask = self.now[j].mask
        ends = zip(mask.origin, mask.voxels.shape, mask.shape, strict=True)
        return self.before[i].in_view < self.gates.in_view and any(
            o == 0 or o + n == size for o, n, size in ends
        )

    def _why(self, j: int, kind: Kind, parents: Sequence[int]) -> str:
        words = "; ".join(self.pairs[i, j].words for i in parents)
        if kind is Kind.CUT:
            words += f"; {self.before[parents[0]].in_view:.0%} of where it was is in view"
        if j in self.told:
            return f"the drawing carries its Tracking UID; {words}"
        if kind is Kind.SPLIT:
            parts, held = len(self._children(parents[0])), self.pairs[parents[0], j].overlap.held
            return f"one of {parts} lesions where one was, {held:.0%} of it inside; {words}"
        if kind is Kind.MERGED:
            return f"one lesion where {len(parents)} were: {words}"
        if kind in (Kind.SAME, Kind.CUT):
            return words
        near = [(self.pairs[i, j].distance_mm, i) for i in range(len(self.before))]
        if not near:
            return "no earlier lesion is known"
        distance_mm, i = min(near)
        called = self.before[i].tracking_identifier
        told = f"no earlier lesion fits: the nearest, '{called}', was expected {distance_mm:.1f} mm away"
        over = (f"'{self.before[k].tracking_identifier}'" for k in self._overrun(j))
        return "; ".join(
            (told, *(f"it reaches over the place of {name} and may be a part of it" for name in over))
        )

    def _confidence(self, j: int, parents: Sequence[int]) -> float:
        if not parents:
            alone = self._alone({(i, j) for i in range(len(self.before))})
            return min(alone, confidence.OVERRUN) if self._overrun(j) else alone
        kin = {(i, k) for i in parents for k in self._children(i)}
        rivals = {(i, j) for i in range(len(self.before))} | {
            (i, k) for i in parents for k in range(len(self.now))
        }
        rival = min((self.pairs[pair].cost for pair in rivals - kin), default=inf)
        cost, sd_mm = max((self.pairs[i, j].cost, float(self.expected.sd_mm[i])) for i in parents)
        return confidence.of_link(cost, rival, sd_mm)

    def _overrun(self, j: int) -> list[int]:
        """Return the earlier lesions most of whose expected place a present one covers."""
        pairs = ((i, self.pairs[i, j]) for i in range(len(self.before)))
        return [i for i, pair in pairs if pair.may_be and pair.overlap.covered >= self.gates.inside]

    def _alone(self, possible: set[tuple[int, int]]) -> float:
        """Return how sure it is that none of the possible pairs is one."""
        busy_before, busy_now = {i for i, _ in self.families}, {j for _, j in self.families}
        free = [self.pairs[i, j].cost for i, j in possible if i not in busy_before and j not in busy_now]
        nearest = min((self.pairs[pair].cost for pair in possible), default=inf)
        return confidence.of_alone(min(free, default=inf), nearest)

    def _fate(self, i: int) -> Link:
        lesion, limits = self.before[i], self.gates
        seen = f"{lesion.in_view:.0%} of it was expected in the field of view"
        looked = (
            ""
            if lesion.visible is None
            else f"something like it is seen there with a score of {lesion.visible:.2f}"
        )
        if lesion.in_view < limits.in_view:
            kind, sure, reason = (
                Kind.OUT_OF_VIEW,
                min(1 - lesion.in_view / 2, confidence.MOST),
                f"only {seen}",
            )
        elif lesion.visible is not None and lesion.visible >= limits.visible:
            kind, sure, reason = Kind.NOT_SEGMENTED, lesion.visible, f"no finding fits; {looked}"
        else:
            alone = self._alone({(i, j) for j in range(len(self.now))})
            kind, sure = Kind.GONE, confidence.of_gone(alone, lesion.in_view, lesion.visible)
            reason = "; ".join(word for word in ("no finding fits", seen, looked) if word)
        return Link(
            kind=kind,
            tracking_uid=lesion.tracking_uid,
            tracking_identifier=lesion.tracking_identifier,
            finding=None,
            earlier=(lesion.tracking_uid,),
            study_instance_uid=lesion.study_instance_uid,
            confidence=sure,
            reason=reason,
            expected_mm=self._at_mm(i),
        )


__all__ = ["NewIdentity", "match"]
