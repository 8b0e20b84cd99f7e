"""What each lesion of a course is to the criteria; pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any, NamedTuple

from store.by_hand import PLUGIN as REPORT
from store.chosen import Chosen
from store.counting import fragments_of
from store.identity import drawn
from store.response.history import Role, Status
from store.response.rules import Rules
from store.response.selection import Candidate, propose
from store.sighting import Decision, Sighting, sum_tenths
from store.tracking.link import Kind, was_compared

PROPOSAL = "proposal"
FIRST_SEEN = "first seen here"
BY_HAND = "drawn by a person"
UNCONFIRMED = "not confirmed"
"""`role_by` of a lesion that nobody confirmed to be new."""
OF_A_FRAGMENT = frozenset({"status", "reject", "outline"})
"""Kinds of choices that speak of a fragment alone when they name it; the others speak of the lesion that it is of."""


def decided(
    sightings: Sequence[Sighting], chosen: Chosen, studies: Mapping[str, date]
) -> tuple[Sighting, ...]:
    """Return the sightings as people corrected them: status, node, site, rejected; roles come later.

    A status of a lesion that nothing tells of at a study (one of `studies`, by Study Instance UID) makes a sighting.
    """
    found = list(sightings)
    last = {uid: one for one in found if drawn(one) for uid in (one.lesion, one.tracking_uid)}
    called = _called(found)
    for decision in chosen.counting:
        if decision.kind != "status" or decision.study_instance_uid not in studies:
            continue
        told = any(_speaks_of(decision, one, chosen, called) for one in found)
        uid = decision.tracking_uid
        lesion = next((one for one, all_names in called.names.items() if uid in all_names), None)
        if not told and lesion is not None:
            own = uid if uid in called.fragments else lesion
            found.append(_told(decision, lesion, own, last.get(own), studies[decision.study_instance_uid]))
    found = [_corrected(one, chosen, called) for one in found]
    return tuple(sorted(found, key=lambda one: (one.date, one.study_instance_uid)))


def with_roles(
    sightings: Sequence[Sighting],
    chosen: Chosen,
    analysed: Iterable[tuple[date, str]],
    rules: Rules,
) -> tuple[Sighting, ...]:
    """Return the sightings with the role of their lesion and who said so.

    A person's word counts; then, of lesions seen at the baseline, what `store.response.selection` proposes. The
    baseline of what is measured on PET is the first PET that was looked at, that of all else the first other study. A
    lesion first seen later is new. Such a one counts when a person drew it beside the earlier drawings of its analysis,
    or confirmed it; until then it is a doubt, unless the rules say otherwise. `analysed`: when which analysis was run.
    """
    names = _names(sightings)
    ran = set(analysed) | {(one.date, one.plugin) for one in sightings}
    on_pet = {one.plugin for one in sightings if one.on_pet}
    elsewhere = {one.plugin for one in sightings if drawn(one) and not one.on_pet}
    baselines = {
        True: min((on for on, plugin in ran if plugin in on_pet), default=None),
        False: min((on for on, plugin in ran if plugin not in on_pet - elsewhere), default=None),
    }
    counting: defaultdict[str, list[Sighting]] = defaultdict(list)
    for one in sightings:
        if one.counts:
            counting[one.lesion].append(one)
    drawings: defaultdict[str, list[Sighting]] = defaultdict(list)
    for one in sightings:
        if drawn(one) and not any(d.kind == "reject" and d.value == "true" for d in one.decisions):
            drawings[one.lesion].append(one)
    said = {lesion: chosen.of("role", own) for lesion, own in names.items()}
    at_baseline = {
        lesion: own for lesion, own in counting.items() if own[0].date == baselines[_on_pet_only(own)]
    }
    proposal = _proposal(at_baseline.values(), said, rules)
    roles: dict[str, dict[str, Any]] = {}
    for lesion, own_names in names.items():
        own, word = counting[lesion], said[lesion]
        confirmed = _confirmed(own, own_names, chosen)
        role: dict[str, Any] = {"role": None, "role_by": ""}
        if word is not None:
            value = None if word.value == "ignore" else Role(word.value)
            role = {"role": value, "role_by": word.author}
        elif lesion in at_baseline:
            role = proposal.get(lesion, {"role": Role.NON_TARGET, "role_by": PROPOSAL})
        elif own:
            first = [one for one in drawings[lesion] if one.date == own[0].date] or own[:1]
            looked = _has_looked(first, ran, drawings)
            role = {"role": Role.NEW, "role_by": _new_by(first, confirmed, looked, rules)}
        roles[lesion] = {**role, "touched": [d for d in (word, confirmed) if d is not None]}
    return tuple(_with_role(one, **roles[one.lesion]) for one in sightings)


def _on_pet_only(own: Sequence[Sighting]) -> bool:
    return all(one.on_pet for one in own if drawn(one)) and any(map(drawn, own))


def _proposal(
    lesions: Iterable[Sequence[Sighting]], said: Mapping[str, Decision | None], rules: Rules
) -> dict[str, dict[str, Any]]:
    """Return what the lesions of the baseline are proposed to be, by their sizes on anything but a PET."""
    candidates = []
    for own in lesions:
        there = [
            one for one in own if one.date == own[0].date and one.status is Status.MEASURED and not one.on_pet
        ]
        sizes = {axis: sum_tenths(there, axis) for axis in ("long_axis", "short_axis")}
        word = said[own[0].lesion]
        if there and (word is None or word.value != "ignore"):
            candidates.append(
                Candidate(
                    lesion=own[0].lesion,
                    site=next((one.site for one in there if one.site), ""),
                    node=any(one.node for one in there),
                    long_axis_tenths=sizes["long_axis"],
                    short_axis_tenths=sizes["short_axis"],
                    slice_mm=max((one.slice_mm for one in there if one.slice_mm is not None), default=None),
                    said=None if word is None else Role(word.value),
                )
            )
    return {
        one.lesion: {"role": one.role, "role_by": PROPOSAL, "role_because": one.because}
        for one in propose(candidates, rules)
    }


def is_unconfirmed(one: Sighting) -> bool:
    """Return whether a sighting is that of a new lesion that nobody confirmed."""
    return one.role is Role.NEW and one.role_by == UNCONFIRMED


def _new_by(first: Sequence[Sighting], confirmed: Decision | None, looked_before: bool, rules: Rules) -> str:
    """Return who says that a lesion is new: an author, a drawing, the rules, or nobody.

    `first` is what was drawn of it on the date of its first sighting, also what does not count.
    """
    if confirmed is not None:
        return confirmed.author
    new = [one.link for one in first if one.link is not None and one.link.kind is Kind.NEW]
    if not any(was_compared(link.reason) for link in new) and (new or not looked_before):
        return UNCONFIRMED
    if not all(one.automatic for one in first):
        return BY_HAND
    is_sure = any((one.confidence or 0.0) >= rules.least_new_confidence for one in first)
    lengths = [m.value for one in first if (m := one.measurements.get("long_axis")) is not None]
    is_large = max(lengths, default=0.0) >= rules.least_new_mm
    return FIRST_SEEN if rules.unconfirmed_new == "count" and is_sure and is_large else UNCONFIRMED


def _has_looked(
    first: Sequence[Sighting], ran: set[tuple[date, str]], drawings: Mapping[str, Sequence[Sighting]]
) -> bool:
    """Return whether an analysis that drew a lesion looked before, and was compared with what it drew then."""
    if any(_is_uncompared(one, drawings) for one in first):
        return False
    return any(on < one.date and plugin == one.plugin for on, plugin in ran for one in first)


def _is_uncompared(one: Sighting, drawings: Mapping[str, Sequence[Sighting]]) -> bool:
    """Return whether a drawing was laid beside none of those that its analysis has of earlier dates.

    What one of them is called at the study too, by its drawings alone, has been compared.
    """
    if one.link is not None or one.plugin == REPORT or any(d.kind == "relink" for d in one.decisions):
        return False
    same = [other for own in drawings.values() for other in own if other.plugin == one.plugin]
    earlier = {other.choice_uid for other in same if other.date < one.date}
    here = {other.choice_uid for other in same if other.study_instance_uid == one.study_instance_uid}
    return bool(earlier) and not earlier & here


def _confirmed(own: Sequence[Sighting], names: frozenset[str], chosen: Chosen) -> Decision | None:
    studies = {"", *(one.study_instance_uid for one in own)}
    found = [
        d
        for d in chosen.counting
        if d.kind == "confirm" and d.tracking_uid in names and d.study_instance_uid in studies
    ]
    return found[-1] if found and found[-1].value == "true" else None


def _names(sightings: Iterable[Sighting]) -> dict[str, frozenset[str]]:
    """Return every Tracking UID by which each lesion is known, its own and those of its fragments."""
    names: defaultdict[str, set[str]] = defaultdict(set)
    for one in sightings:
        names[one.lesion] |= {one.lesion, one.tracking_uid}
    return {lesion: frozenset(own) for lesion, own in names.items()}


class _Called(NamedTuple):
    """By what choices mean lesions and fragments."""

    names: Mapping[str, frozenset[str]]
    """Every Tracking UID of each lesion."""
    fragments: frozenset[str]
    """Those that are of a fragment only."""


def _called(sightings: Sequence[Sighting]) -> _Called:
    return _Called(names=_names(sightings), fragments=fragments_of(sightings))


def _speaks_of(decision: Decision, one: Sighting, chosen: Chosen, called: _Called) -> bool:
    """Return whether a decision means a sighting: by what it was called when it was decided."""
    if decision.study_instance_uid not in ("", one.study_instance_uid):
        return False
    relinks = chosen.moves.get((one.choice_uid, one.study_instance_uid), [])
    if decision.study_instance_uid and drawn(one) and any(d.number > decision.number for d in relinks):
        before = [d.value for d in relinks if d.number < decision.number]
        return decision.tracking_uid == (before[-1] if before else one.choice_uid)
    if decision.kind in OF_A_FRAGMENT and decision.tracking_uid in called.fragments:
        return decision.tracking_uid == one.tracking_uid
    return decision.tracking_uid in called.names[one.lesion]


def _corrected(one: Sighting, chosen: Chosen, called: _Called) -> Sighting:
    newest = {
        d.kind: d
        for d in chosen.counting
        if d.kind in ("status", "node", "site", "reject", "confirm", "outline", "drawn")
        and _speaks_of(d, one, chosen, called)
    }
    changes: dict[str, object] = {}
    if "status" in newest:
        status = Status(newest["status"].value)
        if status is not Status.MEASURED or one.measurements:
            changes["status"] = status
    if "node" in newest:
        changes["node"] = newest["node"].value == "true"
    if "site" in newest:
        changes["site"], changes["site_code"] = newest["site"].value, None
    if "reject" in newest and newest["reject"].value == "true":
        changes["counts"] = False
        changes["note"] = f"Rejected by {newest['reject'].author}: no lesion."
    known = {d.number for d in one.decisions}
    decisions = (*one.decisions, *(d for d in newest.values() if d.number not in known))
    changes["decisions"] = tuple(sorted(decisions, key=lambda d: d.number))
    return replace(one, **changes)  # type: ignore[arg-type]


def _told(decision: Decision, lesion: str, uid: str, before: Sighting | None, on: date) -> Sighting:
    return Sighting(
        lesion=lesion,
        tracking_uid=uid,
        written_uid=uid,
        label=uid if before is None else before.label,
        study_instance_uid=decision.study_instance_uid,
        date=on,
        type="" if before is None else before.type,
        type_code=None if before is None else before.type_code,
        site="" if before is None else before.site,
        site_code=None if before is None else before.site_code,
        node=before is not None and before.node,
        status=Status.PRESENT,
        automatic=False,
    )


def _with_role(one: Sighting, role: Role | None, touched: Sequence[Decision], **why: Any) -> Sighting:
    known = {d.number for d in one.decisions}
    decisions = (*one.decisions, *(d for d in touched if d.number not in known))
    ignored = one.counts and any((d.kind, d.value) == ("role", "ignore") for d in touched)
    return replace(
        one,
        role=role,
        decisions=tuple(sorted(decisions, key=lambda d: d.number)),
        note=f"To be ignored, says {why['role_by']}." if ignored else one.note,
        **why,
    )


__all__ = [
    "BY_HAND",
    "FIRST_SEEN",
    "PROPOSAL",
    "UNCONFIRMED",
    "decided",
    "is_unconfirmed",
    "with_roles",
]
