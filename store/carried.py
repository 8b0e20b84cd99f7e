"""Choices of one visit that name a lesion of a patient who was parted: what was drawn there has another name since."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from sqlmodel import Session

from store.overlap import same_place
from store.sighting import Decision, Sighting
from store.sightings import found_here, studies_of


def carried(
    session: Session, members: Sequence[int], decisions: Sequence[Decision], strangers: Collection[str]
) -> tuple[tuple[Decision, ...], frozenset[int]]:
    """Return a patient's choices, oldest first, by the names of now, and the numbers of those that say nothing now.

    A choice of a visit follows the drawing that it named to what the same analysis draws at its place. It says nothing
    where that draws nothing, and a relink says nothing whose lesion is a stranger's.
    """
    void = {one.number for one in decisions if one.kind == "relink" and one.value in strangers}
    studies = {one.study_instance_uid for one in decisions if one.tracking_uid in strangers} - {""}
    dated = [one for one in studies_of(session, members) if one[1] in studies]
    now = found_here(session, dated, members) if dated else ()
    before = found_here(session, dated, members, superseded=True) if dated else ()
    moved: dict[tuple[str, str], str] = {}
    found = []
    for one in decisions:
        study, uid = one.study_instance_uid, one.tracking_uid
        if study and uid in strangers:
            here, old = ([s for s in there if s.study_instance_uid == study] for there in (now, before))
            name = _name(uid, here, old) or moved.get((study, uid))
            if name is not None:
                one = replace(one, tracking_uid=name)
            elif any(_told_of(uid, each) for each in old):
                void.add(one.number)
        if one.kind == "relink" and one.value in strangers:
            moved[study, one.value] = one.tracking_uid
        found.append(one)
    return tuple(found), frozenset(void)


def _name(uid: str, here: Sequence[Sighting], old: Sequence[Sighting]) -> str | None:
    """Return how that is called at a visit which was called `uid` there; None where it is there no more."""
    same = [one for one in here if _is_called(uid, one)]
    for was in reversed(old):
        if not same and _is_called(uid, was):
            same = [one for one in here if _source(one) == _source(was) and same_place(one, was)]
    return same[0].choice_uid if same else None


def _is_called(uid: str, one: Sighting) -> bool:
    return uid in (one.written_uid, one.choice_uid)


def _told_of(uid: str, one: Sighting) -> bool:
    return _is_called(uid, one) or (one.link is not None and uid in one.link.earlier)


def _source(one: Sighting) -> tuple[str, str]:
    return (one.plugin, one.series_instance_uid)


__all__ = ["carried"]
