"""What people made of each result: accepted, rejected or supplemented, as IHE AIRAI would have it kept.

Nothing is kept beside the choices and the drawings themselves; what counts is read from them each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from store.by_hand import PLUGIN as REPORT
from store.identity import drawn
from store.sighting import Decision, Sighting

Verdict = Literal["accepted", "rejected", "supplemented", "not-assessed"]
CHANGES = ("relink", "status", "node", "site")
"""Kinds of choices that say something else than the analysis did."""


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """What people made of one finding."""

    verdict: Verdict
    """rejected: no lesion; supplemented: changed, drawn or measured anew; accepted: right as it is."""
    author: str = ""
    """Who said so last."""
    at: datetime | None = None
    """When; None when nobody did, or a person drew it elsewhere."""
    note: str = ""
    """Why, in words."""


NOT_ASSESSED = Assessment(verdict="not-assessed")


def assessment(seen: Sighting | None, here: Sequence[Sighting]) -> Assessment:
    """Return what people made of a finding, given all that was seen at its study; None is what is not followed. Pure.

    A rejection outweighs all else, a change or a person's own drawing or measurement of the same lesion an approval.
    What a person drew is not assessed itself.
    """
    if seen is None or not seen.automatic:
        return NOT_ASSESSED
    if said := _newest(seen, "reject", "true"):
        return _of("rejected", said)
    changed = [
        d for d in seen.decisions if d.kind in CHANGES or (d.kind, d.value) == ("outline", "not-approved")
    ]
    if changed:
        return _of("supplemented", changed[-1])
    by_hand = [one for one in here if one.lesion == seen.lesion and drawn(one) and not one.automatic]
    if by_hand:
        one = by_hand[0]
        words = "measured by a person" if one.plugin == REPORT else f"drawn by a person: '{one.label}'"
        return Assessment(verdict="supplemented", note=words)
    if said := _newest(seen, "outline", "approved") or _newest(seen, "confirm", "true"):
        return _of("accepted", said)
    return NOT_ASSESSED


def _newest(seen: Sighting, kind: str, value: str) -> Decision | None:
    """Return the newest choice of a kind when it says this."""
    said = [d for d in seen.decisions if d.kind == kind][-1:]
    return said[0] if said and said[0].value == value else None


def _of(verdict: Verdict, said: Decision) -> Assessment:
    return Assessment(verdict=verdict, author=said.author, at=said.at, note=said.note)


__all__ = ["NOT_ASSESSED", "Assessment", "Verdict", "assessment"]
