"""Which lesion each sighting is: what was written, what people relinked, what was split and what grew together.

A relink speaks of one drawing at one study. What the tracking linked to that drawing before it was relinked follows it;
what was linked to it afterwards was linked under its new name already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from store.chosen import Chosen
from store.overlap import twins
from store.response.history import Status
from store.sighting import Sighting
from store.tracking.link import Kind

FOLLOWING = frozenset({Kind.SAME, Kind.CUT, Kind.REDRAWN, Kind.GONE, Kind.OUT_OF_VIEW, Kind.NOT_SEGMENTED})
"""Links whose lesion is the one that it was before."""


class Names:
    """What sightings were called at any time."""

    def __init__(self, sightings: Sequence[Sighting], chosen: Chosen) -> None:
        self._chosen: dict[datetime | None, Chosen] = {None: chosen}
        self._known: dict[tuple[int, datetime | None], str] = {}
        self._at: dict[str, list[Sighting]] = {}
        self._were_relinked = any(one.kind == "relink" for one in chosen.decisions)
        self._named: dict[tuple[str, datetime], dict[str, list[Sighting]]] = {}
        for one in sightings:
            self._at.setdefault(one.study_instance_uid, []).append(one)

    def name(self, one: Sighting, at: datetime | None = None) -> str:
        """Return the Tracking UID of a sighting as of a time, now by default."""
        key = (id(one), at)
        if key not in self._known:
            self._known[key] = self._name(one, at)
        return self._known[key]

    def earlier(self, one: Sighting, uid: str, at: datetime | None = None) -> str:
        """Return what a lesion is called that a link names as it was called when the link was made."""
        study = "" if one.link is None else one.link.earlier_study_instance_uid
        there = self._at.get(study, ())
        # A study that came late is compared with later ones too; those have their names from elsewhere.
        if one.made_at is None or not there or there[0].date > one.date or self._follows(study, one):
            return uid
        called = self._called(study, one.made_at).get(uid, ())
        # What was drawn there, where a later look says beside it that the lesion it was called is gone.
        now = {self.name(e, at) for e in [e for e in called if drawn(e)] or called}
        return now.pop() if len(now) == 1 else uid

    def _follows(self, study: str, one: Sighting) -> bool:
        """Return whether a study was itself compared with that of a sighting: of one date, the later one asks."""
        own = one.study_instance_uid
        links = (e.link for e in self._at[study] if e.date == one.date and e.link is not None)
        return study == own or any(link.earlier_study_instance_uid == own for link in links)

    def _called(self, study: str, at: datetime) -> dict[str, list[Sighting]]:
        """Return the sightings of a study by what they were called at a time."""
        if (study, at) not in self._named:
            found: dict[str, list[Sighting]] = {}
            for one in self._at.get(study, ()):
                found.setdefault(self.name(one, at), []).append(one)
            self._named[study, at] = found
        return self._named[study, at]

    def _name(self, one: Sighting, at: datetime | None) -> str:
        if at is not None and at not in self._chosen:
            self._chosen[at] = self._chosen[None].until(at)
        relinks = self._chosen[at].relinks
        decided = relinks.get((one.choice_uid, one.study_instance_uid))
        if decided is not None and drawn(one):
            return decided.value
        # Also when all was taken back: what is written may be from before that.
        if self._were_relinked and one.link is not None and one.link.kind in FOLLOWING:
            return self.earlier(one, one.choice_uid, at)
        return one.choice_uid


def drawn(one: Sighting) -> bool:
    """Return whether something was drawn, or measured, of the lesion there."""
    return bool(one.series_instance_uid)


def named(sightings: Sequence[Sighting], chosen: Chosen) -> tuple[Sighting, ...]:
    """Return the sightings with `lesion`, `tracking_uid` and the earlier ones of their links as they are now.

    A fragment is counted under the lesion that it is of, a lesion that others grew into under the first of them, and
    what was drawn at the place of another one under that (`store.overlap`). For each lesion that ended in another one
    there is a sighting more at every visit from then on, coalesced as long as the whole is seen; what counts then is
    said once roles are known (`store.coalesced`).
    """
    names = Names(sightings, chosen)
    found = [_renamed(one, names, chosen) for one in sightings]
    parents = _parents(found)
    found = [replace(one, lesion=_root(parents, one.tracking_uid)) for one in found]
    for uid, other in twins(found):
        if _root(parents, uid) != _root(parents, other):
            parents[_root(parents, uid)] = _root(parents, other)
    found = [replace(one, lesion=_root(parents, one.tracking_uid)) for one in found]
    found += _ended(found, parents)
    return tuple(sorted(found, key=lambda one: (one.date, one.study_instance_uid)))


def _renamed(one: Sighting, names: Names, chosen: Chosen) -> Sighting:
    link = one.link
    if link is not None:
        link = replace(link, earlier=tuple(names.earlier(one, uid) for uid in link.earlier))
    decided = chosen.relinks.get((one.choice_uid, one.study_instance_uid)) if drawn(one) else None
    decisions = one.decisions if decided is None else (*one.decisions, decided)
    return replace(one, tracking_uid=names.name(one), link=link, decisions=decisions)


def _was_relinked(one: Sighting) -> bool:
    return any(d.kind == "relink" for d in one.decisions)


def _parents(found: Sequence[Sighting]) -> dict[str, str]:
    """Return the lesion that each fragment is of, and the one that each coalesced lesion with a new name goes on as."""
    parents: dict[str, str] = {}
    for one in found:
        link = one.link
        if link is None or not link.earlier or _was_relinked(one):
            continue
        is_fragment = link.kind is Kind.SPLIT
        is_whole = link.kind is Kind.MERGED and one.tracking_uid not in link.earlier
        if is_fragment or is_whole:
            first = link.earlier[0]
            if one.tracking_uid not in (first, *parents) and _root(parents, first) != one.tracking_uid:
                parents[one.tracking_uid] = first
    return parents


def _root(parents: dict[str, str], uid: str) -> str:
    while uid in parents:
        uid = parents[uid]
    return uid


def _ended(found: Sequence[Sighting], parents: dict[str, str]) -> list[Sighting]:
    """Return what is to be told of the lesions that ended in another one, from that visit on."""
    ended: list[Sighting] = []
    last = {one.lesion: one for one in found if drawn(one)}
    # The newest first: what has ended takes along what ended in it before.
    for merged in reversed(found):
        if merged.link is None or merged.link.kind is not Kind.MERGED or _was_relinked(merged):
            continue
        others = {_root(parents, uid) for uid in merged.link.earlier} - {merged.lesion}
        for whole in (*found, *ended):
            if whole.lesion != merged.lesion or whole.date < merged.date:
                continue
            own = {one.lesion for one in found if one.date == whole.date and drawn(one)}
            for uid in sorted(others - own):
                ended.append(_coalesced(uid, whole, merged, last.get(uid)))
    first: dict[tuple[str, str], Sighting] = {}
    for one in ended:
        first.setdefault((one.lesion, one.study_instance_uid), one)
    return list(first.values())


def _coalesced(uid: str, whole: Sighting, merged: Sighting, before: Sighting | None) -> Sighting:
    return Sighting(
        lesion=uid,
        tracking_uid=uid,
        written_uid=uid,
        label=uid if before is None else before.label,
        study_instance_uid=whole.study_instance_uid,
        date=whole.date,
        type="" if before is None else before.type,
        site="" if before is None else before.site,
        node=before is not None and before.node,
        status=Status.COALESCED if drawn(whole) else whole.status,
        whole=whole.whole or whole.lesion,
        link=merged.link,
        plugin=whole.plugin,
        plugin_version=whole.plugin_version,
        model_sha256=whole.model_sha256,
        made_at=whole.made_at,
    )


__all__ = ["FOLLOWING", "Names", "drawn", "named"]
