"""How quickly the volume of a lesion changes between visits: doubling and halving times."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from itertools import pairwise

from node.report.longitudinal.view import Pace
from store.dicom.units import MM3
from store.response.growth import doubling_time
from store.response.history import Status
from store.sighting import Sighting

Volume = tuple[float, float | None]
"""Of a lesion at one visit with its standard deviation, mm3."""


def paces_of(sightings: Sequence[Sighting]) -> tuple[Mapping[date, Pace], Pace | None]:
    """Return the pace of a lesion since the volume before, by visit, and from its first volume to its last.

    Volumes drawn on a PET are compared only when there are no others; there is no pace with fewer than two, and none
    across a visit at which the lesion was absent or too small to measure.
    """
    counting = [s for s in sightings if s.counts and s.status is Status.MEASURED]
    volumes = _volumes([s for s in counting if not s.on_pet]) or _volumes([s for s in counting if s.on_pet])
    days = list(volumes)
    missed = [s for s in sightings if s.counts and s.status in (Status.ABSENT, Status.TOO_SMALL)]
    gone = {s.date for s in missed} - volumes.keys()

    def is_whole(since: date, until: date) -> bool:
        return not any(since < day < until for day in gone)

    since_before = {b: _pace(volumes, a, b) for a, b in pairwise(days) if is_whole(a, b)}
    over_all = len(days) > 1 and is_whole(days[0], days[-1])
    return since_before, _pace(volumes, days[0], days[-1]) if over_all else None


def _volumes(sightings: Sequence[Sighting]) -> dict[date, Volume]:
    """Return the volume at each date, oldest first; parts are added up, and none is told when one of them lacks it."""
    parts: defaultdict[date, list[Sighting]] = defaultdict(list)
    for one in sightings:
        parts[one.date].append(one)
    volumes: dict[date, Volume] = {}
    for day in sorted(parts):
        found = [s.measurements["volume"] for s in parts[day] if "volume" in s.measurements]
        known = [v for v in found if v.unit in MM3]
        total = sum(v.value * MM3[v.unit] for v in known)
        sds = [v.uncertainty * MM3[v.unit] for v in known if v.uncertainty is not None]
        if len(known) == len(parts[day]) and 0 < total < math.inf:
            volumes[day] = (total, math.hypot(*sds) if len(sds) == len(known) else None)
    return volumes


def _pace(volumes: Mapping[date, Volume], since: date, until: date) -> Pace:
    (before, before_sd), (after, after_sd) = volumes[since], volumes[until]
    found = doubling_time(
        before, after, (until - since).days, earlier_sd_mm3=before_sd, later_sd_mm3=after_sd
    )
    return Pace(
        since=since,
        until=until,
        doubling_days=found.days if math.isfinite(found.days) else None,
        rate_per_day=found.rate_per_day,
        rate_interval=found.rate_interval,
        words=found.because,
    )


__all__ = ["paces_of"]
