"""What was injected into the patient, and when, by the header of a PET image."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from pydicom.dataset import Dataset

from plugins.contract import Flag
from plugins.errors import Refused
from store.dicom.values import instant, instant_offset, items, moment, number, text, utc_offset

HALF_LIFE_S = {
    ("F", 18): 6586.2,
    ("GA", 68): 4057.0,
    ("C", 11): 1223.0,
    ("N", 13): 598.0,
    ("O", 15): 122.24,
    ("RB", 82): 76.38,
    ("CU", 64): 45720.0,
    ("Y", 86): 53064.0,
    ("ZR", 89): 282276.0,
    ("I", 124): 360806.4,
}
"""Of each nuclide, s; from O-15 on by ICRP Publication 107 (2008). What is published for Ga-66 differs by 2 %."""
ELEMENTS = {
    "FLUORINE": "F",
    "GALLIUM": "GA",
    "CARBON": "C",
    "NITROGEN": "N",
    "OXYGEN": "O",
    "RUBIDIUM": "RB",
    "COPPER": "CU",
    "YTTRIUM": "Y",
    "ZIRCONIUM": "ZR",
    "IODINE": "I",
}
LEGACY_CODES = {
    "C-111A1": ("F", 18),
    "C-131A3": ("GA", 68),
    "C-105A1": ("C", 11),
    "C-107A1": ("N", 13),
    "C-B1038": ("O", 15),
    "C-159A2": ("RB", 82),
    "C-127A2": ("CU", 64),
    "C-162A3": ("Y", 86),
    "C-168A4": ("ZR", 89),
    "C-114A5": ("I", 124),
}
IN_MBQ = 1e4
"""A dose below is in MBq."""
LEAST_BQ, MOST_BQ = 1e6, 5e9
"""Of an injection for PET; beyond them a dose is in other units (kBq, GBq, uCi) or mistyped."""
MAX_HALF_LIVES = 12
DIFFERS = 0.01
IMPLAUSIBLE = 2
"""Times by which a half-life that is in other units than s differs at least."""
FURTHEST_EAST = timedelta(hours=13)
"""Local time is at most so far ahead of UTC; beyond it a time of day is that of another day."""
LONGEST_OF_A_DAY_S = 4 * 3600.0
"""A longer half-life (Cu-64, Zr-89, I-124) is imaged on later days too: a time of day does not tell which."""
SAME = timedelta(minutes=1)
SHORTLY = timedelta(hours=3)
"""By which a series may have been begun, and its decay corrected to, before the injection."""
TRACER = (
    "RadionuclideTotalDose",
    "RadionuclideHalfLife",
    "RadiopharmaceuticalStartTime",
    "RadiopharmaceuticalStartDateTime",
)


@dataclass(frozen=True, kw_only=True)
class Tracer:
    """What was injected."""

    dose_bq: float
    """Activity at injection, Bq."""
    half_life_s: float
    """Half-life, s."""

    @property
    def decay_per_s(self) -> float:
        """Return ln 2 / half-life, 1/s."""
        return math.log(2) / self.half_life_s


def tracer_of(header: Dataset, flags: list[Flag]) -> Tracer:
    """Return what was injected, with doubts added to `flags`. Refuses (`suv-bad-dose`, `suv-bad-half-life`, ...)."""
    tracers = items(header, "RadiopharmaceuticalInformationSequence")
    if not tracers:
        raise Refused(
            "suv-no-dose", "RadiopharmaceuticalInformationSequence is absent; values stay in activity"
        )
    if len(tracers) > 1:
        raise Refused(
            "suv-several-tracers", "more than one radiopharmaceutical is stated; values stay in activity"
        )
    dose = _dose_bq(tracers[0], flags)
    stated, known = number(tracers[0], "RadionuclideHalfLife"), _known_half_life(tracers[0])
    half_life = stated if stated and math.isfinite(stated) and stated > 0 else known
    if half_life is None:
        raise Refused("suv-no-half-life", "neither the half-life nor a known radionuclide is stated")
    if known and not known / IMPLAUSIBLE < half_life < known * IMPLAUSIBLE:
        raise Refused(
            "suv-bad-half-life",
            f"RadionuclideHalfLife {half_life:g} cannot be that of the stated nuclide ({known:g} s); state it in s",
        )
    if known and abs(half_life / known - 1) > DIFFERS:
        sentence = f"the half-life {half_life:g} s is not that of the stated nuclide ({known:g} s)"
        flags.append(Flag(code="suv-half-life-differs", sentence=sentence))
    return Tracer(dose_bq=dose, half_life_s=half_life)


def _dose_bq(tracer: Dataset, flags: list[Flag]) -> float:
    """Return the activity at injection. Refuses (`suv-no-dose`, `suv-bad-dose`)."""
    stated = number(tracer, "RadionuclideTotalDose")
    if not stated or not math.isfinite(stated) or stated < 0:
        raise Refused("suv-no-dose", "RadionuclideTotalDose is absent or 0; values stay in activity")
    dose = stated * 1e6 if stated < IN_MBQ else stated
    if not LEAST_BQ <= dose <= MOST_BQ:
        unit = "MBq" if stated < IN_MBQ else "Bq"
        raise Refused(
            "suv-bad-dose",
            f"RadionuclideTotalDose (0018,1074) {stated:.10g}, taken as {unit}, is not between 1 and 5000 MBq, as what "
            "is injected for PET; state it in Bq",
        )
    if stated < IN_MBQ:
        flags.append(
            Flag(code="suv-dose-in-mbq", sentence=f"RadionuclideTotalDose {stated:g} is taken as MBq")
        )
    return dose


def _known_half_life(tracer: Dataset) -> float | None:
    """Return the half-life by code value, or by the code's meaning (`^18^Fluorine`, `F-18`), else None."""
    for item in items(tracer, "RadionuclideCodeSequence"):
        if nuclide := LEGACY_CODES.get(text(item, "CodeValue")):
            return HALF_LIFE_S[nuclide]
        meaning = text(item, "CodeMeaning").upper()
        mass = re.search(r"\d{1,3}", meaning)
        letters = re.sub(r"[^A-Z]+", " ", meaning).split()
        if mass and letters:
            symbol = next((ELEMENTS[w] for w in letters if w in ELEMENTS), letters[0])
            return HALF_LIFE_S.get((symbol, int(mass.group())))
    return None


def injection_time(
    header: Dataset,
    reference: datetime,
    half_life_s: float,
    flags: list[Flag],
    *,
    begin: datetime | None = None,
) -> datetime:
    """Return when the tracer was given, before the acquisition began (`begin`) and about the `reference` of decay.

    The date and time are preferred, but for midnight where the time says otherwise: that is a day alone. Else it is
    the time on the day of the reference, or of the day before when that would be after the scan; not so of a tracer
    that is imaged for days. Refuses (`suv-no-injection-time`, `suv-injection-day-unknown`, `suv-bad-injection-time`,
    `suv-injection-zone-unknown`).
    """
    tracer = items(header, "RadiopharmaceuticalInformationSequence")[0]
    scan, longest = max(reference, begin or reference), timedelta(seconds=MAX_HALF_LIVES * half_life_s)
    stated, zone = text(tracer, "RadiopharmaceuticalStartDateTime"), text(header, "TimezoneOffsetFromUTC")
    full = instant(stated, zone)
    clock = moment(reference.date(), text(tracer, "RadiopharmaceuticalStartTime"))
    if clock is not None and clock > scan:
        clock -= timedelta(days=1)
    _require_day(full, clock, half_life_s)
    offset = instant_offset(stated)
    if full is not None and offset is not None and utc_offset(zone) is None:
        full = _on_the_clock_of_the_scan(full, offset, clock, flags)
    elif full is not None and clock is not None:
        full = _not_at_midnight(full, stated, clock, flags)
    found = full
    if full is None or not _fits(full, reference, scan, longest):
        found = clock if half_life_s <= LONGEST_OF_A_DAY_S else None
    if found is None or not _fits(found, reference, scan, longest):
        raise Refused(
            "suv-bad-injection-time",
            "the injection is after the scan, many half-lives before it or hours after what its decay is corrected to",
        )
    _tell_injection(found, full, clock, reference, flags)
    return found


def _require_day(full: datetime | None, clock: datetime | None, half_life_s: float) -> None:
    """Refuse an injection that is not stated, or by its time of day alone where that may be of any day."""
    if full is None and clock is None:
        raise Refused("suv-no-injection-time", "no injection time is stated; values stay in activity")
    if full is None and half_life_s > LONGEST_OF_A_DAY_S:
        raise Refused(
            "suv-injection-day-unknown",
            f"a tracer with a half-life of {half_life_s / 3600:.3g} h is imaged for days, and only the time of day of "
            "its injection is stated; add RadiopharmaceuticalStartDateTime (0018,1078)",
        )


def _fits(injected: datetime, reference: datetime, scan: datetime, longest: timedelta) -> bool:
    return injected <= scan and -SHORTLY <= reference - injected <= longest


def _tell_injection(
    found: datetime, full: datetime | None, clock: datetime | None, reference: datetime, flags: list[Flag]
) -> None:
    """Tell that the two times that are stated differ, and that the injection is after the reference of decay."""
    if full is not None and found != full:
        sentence = "the stated date and time of the injection do not fit the scan; RadiopharmaceuticalStartTime is used"
        flags.append(Flag(code="suv-injection-date-ignored", sentence=sentence))
    elif clock is not None and not _is_same_time(found, clock):
        sentence = f"two injection times are stated; {found:%H:%M:%S} is used"
        flags.append(Flag(code="suv-injection-times-differ", sentence=sentence))
    if found > reference:
        sentence = (
            f"the injection at {found:%H:%M:%S} is after {reference:%H:%M:%S}, to which the values are corrected for "
            "decay; the dose is brought back to that time"
        )
        flags.append(Flag(code="suv-injection-after-reference", sentence=sentence))


def _is_same_time(one: datetime, other: datetime | None) -> bool:
    """Return whether two times tell the same time of day."""
    half = timedelta(hours=12)
    return other is not None and abs((one - other + half) % timedelta(days=1) - half) <= SAME


def _not_at_midnight(full: datetime, stated: str, clock: datetime, flags: list[Flag]) -> datetime:
    """Return `full`, or where it is `stated` as midnight and the time of day of `clock` differs, that on its day."""
    written = instant(stated)
    if written is None or written.time() != time.min or _is_same_time(full, clock):
        return full
    sentence = (
        f"the injection is stated at midnight, as a day alone is; {clock:%H:%M:%S} of RadiopharmaceuticalStartTime is "
        "used"
    )
    flags.append(Flag(code="suv-injection-times-differ", sentence=sentence))
    return datetime.combine(written.date(), clock.time())


def _on_the_clock_of_the_scan(
    full: datetime, offset: timedelta, clock: datetime | None, flags: list[Flag]
) -> datetime:
    """Return a date and time with an `offset` from UTC as the scan's clock, whose zone is not stated, tells it.

    That is the time of day of `clock`, which has no offset either, on the day that the offset tells. Without `clock`
    an offset is taken for the scanner's own; 0 may be a time that was brought to UTC, and is refused.
    """
    if clock is None and offset:
        sentence = "the scan states no zone; that of RadiopharmaceuticalStartDateTime is taken for its own"
        flags.append(Flag(code="suv-injection-zone-taken", sentence=sentence))
        return full
    if clock is None:
        raise Refused(
            "suv-injection-zone-unknown",
            "RadiopharmaceuticalStartDateTime has an offset from UTC and the scan's time has none; add "
            "TimezoneOffsetFromUTC or RadiopharmaceuticalStartTime",
        )
    found = clock + timedelta(days=math.floor((full - offset + FURTHEST_EAST - clock) / timedelta(days=1)))
    if abs(found - full) > SAME:
        sentence = (
            f"the injection is stated with an offset from UTC, the scan without; {found:%H:%M:%S} of "
            "RadiopharmaceuticalStartTime is used"
        )
        flags.append(Flag(code="suv-injection-times-differ", sentence=sentence))
    return found
