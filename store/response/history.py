"""What was seen of each lesion at each visit: all that the response criteria know of a patient."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from itertools import pairwise

from plugins.errors import Refused


class Role(StrEnum):
    """What a lesion is to the criteria."""

    TARGET = "target"
    NON_TARGET = "non-target"
    NEW = "new"


class Status(StrEnum):
    """What was seen of a lesion at a visit."""

    MEASURED = "measured"
    ABSENT = "absent"
    TOO_SMALL = "too-small"
    NOT_EVALUABLE = "NE"
    PRESENT = "present"
    PROGRESSED = "unequivocal-progression"
    COALESCED = "coalesced"
    """Grown together with another lesion whose size counts for both: it adds nothing, and is not gone."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One lesion at one visit."""

    lesion: str
    """Name of the lesion, the same at every visit."""
    role: Role
    """What it is to the criteria."""
    status: Status
    """What was seen."""
    site: str = ""
    """Organ, in words; empty when it is not known."""
    node: bool = False
    """True for a lymph node: its short axis counts."""
    long_axis_tenths: int | None = None
    """Longest diameter, tenths of a millimetre."""
    short_axis_tenths: int | None = None
    """Longest diameter across it, tenths of a millimetre."""
    volume_mm3: float | None = None
    """Volume."""
    suv_peak: float | None = None
    """Peak of the uptake, normalised to lean body mass (SULpeak), g/ml."""
    tlg: float | None = None
    """Total lesion glycolysis, ml times g/ml."""
    deauville: int | None = None
    """Deauville score, 1 to 5."""
    long_axis_sd_mm: float | None = None
    """One standard deviation of the long axis, mm, when it is known."""
    short_axis_sd_mm: float | None = None
    """One standard deviation of the short axis, mm, when it is known."""
    volume_sd_mm3: float | None = None
    """One standard deviation of the volume, when it is known."""
    suv_peak_sd: float | None = None
    """One standard deviation of the peak, when it is known."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the uptake of a PET is compared with; g/ml of SUL."""

    liver_mean: float | None = None
    """Mean of a 3 cm sphere in the right lobe of the liver."""
    liver_sd: float | None = None
    """Standard deviation inside it."""
    blood_pool_mean: float | None = None
    """Mean in the descending aorta."""
    blood_pool_sd: float | None = None
    """Standard deviation inside it."""
    mediastinum: float | None = None
    """Uptake of the mediastinum, for the Deauville score."""
    uptake_minutes: float | None = None
    """From injection to acquisition."""
    injected_mbq: float | None = None
    """Injected activity."""
    scanner: str = ""
    """Scanner and reconstruction, in words."""


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One time point."""

    date: date
    """When."""
    seen: tuple[Seen, ...]
    """The lesions; one that is not named was not assessed."""
    reference: Reference | None = None
    """Normal tissue of a PET."""


@dataclass(frozen=True, kw_only=True)
class History:
    """A patient's visits."""

    patient: str
    """Who."""
    visits: tuple[Visit, ...]
    """By date, one a date; the first is the baseline."""
    treatment_start: date | None = None
    """When treatment began; the date of the baseline when it is not known."""


def in_order(history: History) -> tuple[Visit, ...]:
    """Return the visits by date, the baseline first; what one visit calls a lymph node is one at all of them.

    Refuses a history without a visit (`no-visit`), two visits of one date (`date-twice`), a lesion that a visit
    names twice (`lesion-twice`; parts of a broken lesion are added up before), a length below zero
    (`negative-length`), and a volume or uptake that is below zero or no number (`bad-number`).
    """
    visits = tuple(sorted(history.visits, key=lambda visit: visit.date))
    if not visits:
        raise Refused("no-visit", f"{history.patient} has no visit; give the baseline and what followed.")
    for earlier, later in pairwise(visits):
        if earlier.date == later.date:
            sentence = f"{history.patient} has two visits of {later.date}; make them one."
            raise Refused("date-twice", sentence)
    for visit in visits:
        _check(history.patient, visit)
    nodes = {seen.lesion for visit in visits for seen in visit.seen if seen.node}
    return tuple(
        replace(visit, seen=tuple(replace(seen, node=seen.lesion in nodes) for seen in visit.seen))
        if any(seen.node is not (seen.lesion in nodes) for seen in visit.seen)
        else visit
        for visit in visits
    )


def _check(patient: str, visit: Visit) -> None:
    names = set()
    for seen in visit.seen:
        where = f"lesion {seen.lesion} of {patient} on {visit.date}"
        if seen.lesion in names:
            raise Refused(
                "lesion-twice", f"There are two entries for {where}; leave one, or add its parts up."
            )
        names.add(seen.lesion)
        for length in (seen.long_axis_tenths, seen.short_axis_tenths):
            if length is not None and length < 0:
                raise Refused("negative-length", f"The length {length / 10:g} mm of {where} is below zero.")
        for name in ("volume_mm3", "suv_peak", "tlg"):
            value = getattr(seen, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise Refused("bad-number", f"{name} {value:g} of {where} is below zero or no number.")


__all__ = ["History", "Reference", "Role", "Seen", "Status", "Visit", "in_order"]
