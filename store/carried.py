"""Choices whose lesion has another name since: tracking named it anew, as when patients were merged, or were parted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from sqlmodel import Session, col, select

from store.overlap import same_place
from store.sighting import Decision, Sighting
from store.sightings import found_here, studies_of
from store.tables import Finding, Study

RELINK = "relink"


def carried(
    session: Session, members: Sequence[int], decisions: Sequence[Decision], strangers: Collection[str]
) -> tuple[tuple[Decision, ...], frozenset[int]]:
    """Return a patient's choices, oldest first, by the names of now, and the numbers of those that say nothing now.

    A choice follows the drawing that it named, or the last one of its lesion, to what the same analysis draws at its
    place; so does the lesion that a relink gave, unless it is a stranger's: that relink says nothing. A choice of a
    visit that names a stranger says nothing either where nothing is drawn at that place.
    """
    void = {one.number for one in decisions if one.kind == RELINK and one.value in strangers}
    if not strangers and _are_drawn(session, members, decisions):
        return tuple(decisions), frozenset()
    dated = studies_of(session, members)
    drawings = _Drawings(
        here=found_here(session, dated, members), old=found_here(session, dated, members, superseded=True)
    )
    given = {one.value for one in decisions if one.kind == RELINK}
    moved: dict[tuple[str, str], str] = {}
    found = []
    for one in decisions:
        study, uid = one.study_instance_uid, one.tracking_uid
        if study and uid in strangers:
            name = drawings.name(uid, study) or moved.get((study, uid))
            if name is not None:
                one = replace(one, tracking_uid=name)
            elif drawings.told_once(uid, study):
                void.add(one.number)
        elif one.kind not in (RELINK, "undo") and uid not in given:
            one = replace(one, tracking_uid=drawings.name_since(uid, study) or uid)
        if one.kind == RELINK and one.value in strangers:
            moved[study, one.value] = one.tracking_uid
        elif one.kind == RELINK:
            one = replace(one, value=drawings.name_since(one.value, before_relinks=True) or one.value)
        found.append(one)
    return tuple(found), frozenset(void)


@dataclass(frozen=True, kw_only=True)
class _Drawings:
    """What counts of the lesions of a patient, and what counted before."""

    here: tuple[Sighting, ...]
    old: tuple[Sighting, ...]

    def name(self, uid: str, study: str) -> str | None:
        """Return how that is called at a visit which was called `uid` there; None where it is there no more."""
        same = next(
            (one for one in self.here if one.study_instance_uid == study and _is_called(uid, one)), None
        )
        return self._name_at_its_place(uid, study) if same is None else same.choice_uid

    def name_since(self, uid: str, study: str = "", *, before_relinks: bool = False) -> str | None:
        """Return the name that what was called `uid` has now, at one visit or at any; None while something bears it."""
        here = (one for one in self.here if study in ("", one.study_instance_uid))
        if any(uid == one.choice_uid if before_relinks else _told_of(uid, one) for one in here):
            return None
        return self._name_at_its_place(uid, study)

    def told_once(self, uid: str, study: str) -> bool:
        """Return whether something that counted at a visit before told of `uid`."""
        return any(one.study_instance_uid == study and _told_of(uid, one) for one in self.old)

    def _name_at_its_place(self, uid: str, study: str) -> str | None:
        """Return the name of what is drawn where `uid` was drawn last."""
        for was in reversed(self.old):
            if study in ("", was.study_instance_uid) and _is_called(uid, was):
                for one in self.here:
                    if _source(one) == _source(was) and same_place(one, was):
                        return one.choice_uid
        return None


def _are_drawn(session: Session, members: Sequence[int], decisions: Sequence[Decision]) -> bool:
    """Return whether each lesion that is named is drawn, under that name, at the visit or at any."""
    rows = session.exec(
        select(Study.study_instance_uid, Finding.tracking_uid, Finding.before_uid)
        .join(Study, col(Study.id) == col(Finding.study_pk))
        .where(col(Finding.patient_pk).in_(members), ~col(Finding.superseded))
    ).all()
    drawn = {(study, before or uid) for study, uid, before in rows}
    drawn |= {(study, uid) for study, uid, _ in rows} | {("", uid) for _, uid in drawn}
    return all(
        (one.study_instance_uid, one.tracking_uid) in drawn
        and (one.kind != RELINK or ("", one.value) in drawn)
        for one in decisions
        if one.kind != "undo" and one.tracking_uid
    )


def _is_called(uid: str, one: Sighting) -> bool:
    return uid in (one.written_uid, one.choice_uid)


def _told_of(uid: str, one: Sighting) -> bool:
    return _is_called(uid, one) or (one.link is not None and uid in one.link.earlier)


def _source(one: Sighting) -> tuple[str, str, str]:
    return (one.study_instance_uid, one.plugin, one.series_instance_uid)


__all__ = ["carried"]
