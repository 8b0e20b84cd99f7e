"""Histories of lesions, written as one line of sizes a lesion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from store.response.history import History, Role, Seen, Status, Visit

START = date(2024, 1, 1)


@dataclass(frozen=True)
class Line:
    """A lesion at each visit: millimetres, a status in words, or None where the visit does not name it."""

    name: str
    role: Role
    sizes: Sequence[float | str | None]
    node: bool = False
    site: str = ""
    sd_mm: float | None = None


def target(
    name: str, *sizes: float | str | None, node: bool = False, site: str = "", sd_mm: float | None = None
) -> Line:
    return Line(name, Role.TARGET, sizes, node, site, sd_mm)


def non_target(name: str, *sizes: float | str | None, node: bool = False) -> Line:
    return Line(name, Role.NON_TARGET, sizes, node)


def new(name: str, *sizes: float | str | None, node: bool = False, site: str = "") -> Line:
    return Line(name, Role.NEW, sizes, node, site)


def course(*lines: Line, days: int = 56, dates: Sequence[date] | None = None) -> History:
    """Return a history with a visit every `days` days, or on `dates`."""
    visits = max(len(line.sizes) for line in lines)
    at = dates or [START + timedelta(days=days * index) for index in range(visits)]
    return History(
        patient="P1",
        visits=tuple(
            Visit(
                date=at[index],
                seen=tuple(
                    _seen(line, line.sizes[index])
                    for line in lines
                    if index < len(line.sizes) and line.sizes[index] is not None
                ),
            )
            for index in range(visits)
        ),
        treatment_start=at[0],
    )


def _seen(line: Line, size: float | str | None) -> Seen:
    tenths = None if isinstance(size, str) or size is None else round(size * 10)
    return Seen(
        lesion=line.name,
        role=line.role,
        status=Status(size) if isinstance(size, str) else Status.MEASURED,
        site=line.site,
        node=line.node,
        long_axis_tenths=tenths if not line.node or tenths is None else tenths + 20,
        short_axis_tenths=tenths if line.node else None,
        long_axis_sd_mm=line.sd_mm,
        short_axis_sd_mm=line.sd_mm,
    )
