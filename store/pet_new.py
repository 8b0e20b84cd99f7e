"""New lesions that were seen on PET alone, for criteria of size: RECIST 1.1 (Eisenhauer 2009), section 4.3.5.

A positive FDG-PET after a negative one at the baseline is a new lesion, so progression. Without a PET at the baseline
it is one only when CT confirms a new site, and where CT knew a lesion before it is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

from store.identity import drawn
from store.lesions import is_unconfirmed
from store.response.history import Role, Seen, Status
from store.sighting import Sighting

if TYPE_CHECKING:
    from store.course import Course

CRITERIA: Final = frozenset({"recist1.1", "irecist"})
BASELINE: Final = timedelta(days=28)
"""A PET that far from the first visit at most belongs to the baseline, as all of its imaging (section 4.1)."""


@dataclass(frozen=True, kw_only=True)
class OnPet:
    """What a PET says of new lesions on one date."""

    date: date
    """Study Date of the PET."""
    seen: Seen | None
    """The new lesion; None when it does not count."""
    doubt: str
    """Why it counts, or why not."""


def new_on_pet(course: Course, baseline: date) -> Iterator[OnPet]:
    """Yield the confirmed new lesions that only a PET shows, and whether each counts beside a first visit."""
    counting = [one for one in course.sightings if one.counts and drawn(one)]
    elsewhere = {one.lesion for one in counting if not one.on_pet}
    for one in counting:
        if not one.on_pet or one.lesion in elsewhere or one.role is not Role.NEW or is_unconfirmed(one):
            continue
        looked = [on for on, plugin in course.analysed if plugin == one.plugin and on < one.date]
        before = next((on for on in looked if abs(on - baseline) <= BASELINE), None)
        known = next((other for other in counting if _is_there(one, other)), None)
        seen: Seen | None = None
        if known is not None:
            doubt = (
                f"'{one.label}' on PET lies at '{known.label}', which CT shows: by its size that one decides."
            )
        elif before is None:
            doubt = (
                f"'{one.label}' is new on PET alone and no PET belongs to the baseline: "
                "by RECIST 1.1 it is progression only when CT confirms a new site."
            )
        else:
            doubt = f"'{one.label}' is new on PET alone, and the PET of {before} was negative there: it counts as new."
            seen = Seen(lesion=one.lesion, role=Role.NEW, status=Status.PRESENT, site=one.site, node=one.node)
        yield OnPet(date=one.date, seen=seen, doubt=doubt)


def _is_there(one: Sighting, other: Sighting) -> bool:
    """Return whether a lesion that was measured on CT of the same study lies at the place of one on PET."""
    frames = {one.frame_of_reference_uid, other.frame_of_reference_uid}
    if other.on_pet or other.study_instance_uid != one.study_instance_uid or len(frames) > 1 or "" in frames:
        return False
    if one.centroid_mm is None or other.centroid_mm is None:
        return False
    axes = [m.value for each in (one, other) if (m := each.measurements.get("long_axis")) and m.unit == "mm"]
    return bool(axes) and math.dist(one.centroid_mm, other.centroid_mm) <= max(axes) / 2


__all__ = ["CRITERIA", "OnPet", "new_on_pet"]
