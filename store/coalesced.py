"""Which lesion the size of a whole counts for that several have grown into, once their roles are known; pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date

from store.response.history import Role, Status
from store.sighting import Sighting, sum_tenths
from store.told import status_of

SHARED = (Status.MEASURED, Status.TOO_SMALL, Status.PRESENT)
"""What was seen of a whole that is told of one lesion only."""


def settled(sightings: Sequence[Sighting]) -> tuple[Sighting, ...]:
    """Return the sightings with the size of each whole counted once (RECIST 1.1: of coalesced lesions one diameter).

    It counts for the lesion that the whole goes on as when that is a target, else for the largest of the targets that
    grew into it, else for no sum. The others are coalesced: they add nothing and are gone only when the whole is. What
    a person said of one of them at a visit counts.
    """
    ended: defaultdict[tuple[date, str], list[Sighting]] = defaultdict(list)
    for one in sightings:
        if one.counts and one.whole and not _is_decided(one):
            ended[one.date, one.whole].append(one)
    names = {one.lesion: one.label for one in sorted(reversed(sightings), key=lambda one: one.counts)}
    now: dict[int, tuple[Sighting, ...]] = {}
    for (on, whole), parents in ended.items():
        heirs = [one for one in sightings if one.counts and one.lesion == whole and one.date == on]
        now |= {id(one): told for one, told in _told(parents, heirs, sightings, names)}
    return tuple(told for one in sightings for told in now.get(id(one), (one,)))


def _told(
    parents: Sequence[Sighting],
    heirs: Sequence[Sighting],
    sightings: Sequence[Sighting],
    names: Mapping[str, str],
) -> Iterator[tuple[Sighting, tuple[Sighting, ...]]]:
    """Yield each sighting of one whole that is to be told otherwise, with what takes its place."""
    seen = status_of(heirs) if heirs else Status.NOT_EVALUABLE
    if seen in (Status.ABSENT, Status.NOT_EVALUABLE):
        fate = "is gone" if seen is Status.ABSENT else "is not evaluable here"
        for one in parents:
            yield one, (replace(one, status=seen, note=_grown(names[one.whole], f"which {fate}")),)
        return
    targets = [one for one in parents if one.role is Role.TARGET]
    carrier = max(targets, key=lambda one: (_tenths_before(one, sightings), one.lesion), default=None)
    if heirs[0].role is Role.TARGET or carrier is None:
        for one in parents:
            yield one, (_coalesced(one, one.whole, names),)
        return
    yield carrier, tuple(_carried(carrier, heir, names) for heir in heirs)
    for one in (*parents, *heirs):
        if one is not carrier and (one.whole or one.status in SHARED):
            yield one, (_coalesced(one, carrier.lesion, names),)


def _coalesced(one: Sighting, whole: str, names: Mapping[str, str]) -> Sighting:
    note = _grown(names[whole], "whose size counts for both")
    return replace(one, status=Status.COALESCED, whole=whole, note=note)


def _carried(carrier: Sighting, heir: Sighting, names: Mapping[str, str]) -> Sighting:
    """Return a lesion with the numbers of the whole; the drawing stays that of the other."""
    return replace(
        carrier,
        study_instance_uid=heir.study_instance_uid,
        status=heir.status,
        measurements=heir.measurements,
        centroid_mm=heir.centroid_mm,
        confidence=heir.confidence,
        automatic=heir.automatic,
        plugin=heir.plugin,
        plugin_version=heir.plugin_version,
        model_sha256=heir.model_sha256,
        made_at=heir.made_at,
        note=_grown(names[carrier.whole], "and the size of both counts here, for the target"),
    )


def _grown(name: str, rest: str) -> str:
    return f"It has grown together with '{name}', {rest}."


def _tenths_before(one: Sighting, sightings: Sequence[Sighting]) -> int:
    """Return the axis that counts of a lesion at the last visit at which it was measured alone, tenths of mm."""
    own = [s for s in sightings if s.lesion == one.lesion and s.counts and not s.whole and s.date < one.date]
    axis = "short_axis" if one.node else "long_axis"
    sizes = {
        s.date: size
        for s in own
        if (size := sum_tenths([o for o in own if o.date == s.date], axis)) is not None
    }
    return sizes[max(sizes)] if sizes else 0


def _is_decided(one: Sighting) -> bool:
    return any(d.kind == "status" for d in one.decisions)


__all__ = ["settled"]
