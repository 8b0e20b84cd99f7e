"""Which sightings of a lesion count on a date, where analyses, the tracking and people speak of it; pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date
from functools import partial

from store.by_hand import PLUGIN as REPORT
from store.by_hand import with_rest
from store.identity import drawn
from store.response.history import Status
from store.sighting import Sighting
from store.tracking.link import Kind

MARKED = "marked_lesion"
"""The analysis that draws where a person pointed."""


def counted(sightings: Sequence[Sighting]) -> tuple[Sighting, ...]:
    """Return the sightings with what counts of each lesion on each date: one analysis, all of its fragments.

    What was drawn counts before what was not; then a person's drawing before an automatic one, what was drawn where a
    person pointed before what was searched for, and the surer before the less sure. Uptake and size stand side by
    side: a lesion may be measured on a PET and on a CT of one date. What a person or the tracking says of a fragment
    that was not drawn stands beside the others. What a person does not measure or draw anew stays as it was drawn: the
    other sizes, and the other fragments.
    """
    fragments = fragments_of(sightings)
    groups: defaultdict[tuple[str, date, bool], list[Sighting]] = defaultdict(list)
    for one in sightings:
        if one.counts:
            groups[one.lesion, one.date, one.on_pet].append(one)
    for (lesion, on, on_pet), group in list(groups.items()):
        # What was not drawn says something only where nothing was.
        if not on_pet and not any(map(drawn, group)) and (lesion, on, True) in groups:
            groups[lesion, on, True] += groups.pop((lesion, on, False))
    why: dict[int, str] = {}
    whole: dict[int, Sighting] = {}
    for group in groups.values():
        group.sort(key=partial(_rank, fragments=fragments), reverse=True)
        best = group[0]
        whole |= {id(one): with_rest(one, group) for one in group if one.plugin == REPORT}
        counting = {id(one) for one in _counting(group, fragments)}
        why |= {id(one): _words(best) for one in group if id(one) not in counting}
    judged = (
        replace(one, counts=False, note=why[id(one)]) if id(one) in why else whole.get(id(one), one)
        for one in sightings
    )
    return _completed(tuple(judged))


def _completed(sightings: Sequence[Sighting]) -> tuple[Sighting, ...]:
    """Return the sightings with the site that another one of their lesion tells where they tell none."""
    told = {one.lesion: one for one in reversed(sightings) if one.site}
    found = []
    for one in sightings:
        other = told.get(one.lesion)
        if other is not None and not one.site:
            one = replace(one, site=other.site, site_code=other.site_code, node=one.node or other.node)
        found.append(one)
    return tuple(found)


def fragments_of(sightings: Iterable[Sighting]) -> frozenset[str]:
    """Return the Tracking UIDs that lesions got when they fell apart, without those that they had before."""
    return frozenset(
        one.tracking_uid
        for one in sightings
        if one.link is not None
        and one.link.kind is Kind.SPLIT
        and one.tracking_uid not in (one.lesion, *one.link.earlier)
        and not any(d.kind == "relink" for d in one.decisions)
    )


def _counting(group: Sequence[Sighting], fragments: frozenset[str]) -> list[Sighting]:
    """Return those of one lesion on one date that count, where the first of them ranks highest."""
    best = group[0]
    found = [one for one in group if one is best or (drawn(best) and _source(one) == _source(best))]
    if drawn(best) and not _is_said_of_all(best, fragments):
        found += _other_fragments(found, group, fragments)
    return found + [one for one in group if _is_told_fragment(one, fragments)]


def _other_fragments(
    found: Sequence[Sighting], group: Sequence[Sighting], fragments: frozenset[str]
) -> list[Sighting]:
    """Return what is known of the fragments of a lesion of which the best source says nothing.

    Where a person measured or drew some fragments, the others as they would count without that; and what the tracking
    says of those that nobody drew. A person's drawing under the name of the whole lesion alone is the whole.
    """
    best, told = found[0], {one.tracking_uid for one in found}
    names = fragments | {best.lesion}
    if not any(one.tracking_uid in fragments for one in group):
        return []
    of_some = best.plugin == REPORT or bool(told & fragments and _is_by_person(best))
    rest = [one for one in group if _source(one) != _source(best)]
    others = _counting(rest, fragments) if of_some and rest else []
    others = [one for one in others if drawn(one) and one.tracking_uid in names - told]
    told |= {one.tracking_uid for one in group if drawn(one)}
    analyses = {one.plugin for one in (rest if of_some else found)}
    undrawn = {one.tracking_uid: one for one in reversed(rest) if not drawn(one) and one.plugin in analyses}
    return others + [one for uid, one in undrawn.items() if one.link is not None and uid in names - told]


def _is_by_person(one: Sighting) -> bool:
    return not one.automatic or one.plugin == MARKED


def _is_said_of_all(one: Sighting, fragments: frozenset[str]) -> bool:
    """Return whether a person said what a lesion is on that date, with all of its fragments."""
    return any(d.kind == "status" and d.tracking_uid not in fragments for d in one.decisions)


def _is_told_fragment(one: Sighting, fragments: frozenset[str]) -> bool:
    """Return whether a sighting is what a person said of a fragment that was not drawn."""
    said = any(d.kind == "status" and d.tracking_uid == one.tracking_uid for d in one.decisions)
    return said and one.tracking_uid in fragments and not drawn(one)


def _source(one: Sighting) -> tuple[str, str, str, bool]:
    return (one.plugin, one.study_instance_uid, one.series_instance_uid, one.automatic)


def _rank(one: Sighting, fragments: frozenset[str]) -> tuple[object, ...]:
    return (
        _is_said_of_all(one, fragments),
        drawn(one),
        not one.automatic,
        one.plugin == MARKED,
        one.status is not Status.ABSENT,
        one.confidence if one.confidence is not None else -1.0,
        one.study_instance_uid,
        one.plugin,
        one.series_instance_uid,
    )


def _words(best: Sighting) -> str:
    if any(d.kind == "status" for d in best.decisions):
        return "What a person said of this visit counts."
    if not drawn(best):
        return "Another analysis tells of it too."
    if best.plugin == REPORT:
        return "What a person measured by hand counts."
    if not best.automatic:
        return f"The drawing of a person counts ('{best.label}')."
    return f"It was measured by '{best.plugin}' too, whose measurement counts ('{best.label}')."


__all__ = ["MARKED", "counted", "fragments_of"]
