"""How dense the lungs were at each visit: what an analysis of emphysema measured, as it counts now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from sqlalchemy import exists
from sqlmodel import Session, col, select

from store.sighting import Measure
from store.sightings import COUNTING, Dated, measures_of
from store.tables import Finding, Job, Measurement

NAMES: Final = ("laa_950", "laa_910", "perc_15", "mean_lung_density")
"""Our names of the numbers, in the order in which they are shown."""


@dataclass(frozen=True, kw_only=True)
class Density:
    """The density of one region at one visit."""

    date: date
    """Study Date."""
    region: str
    """What people call it (`Left lung`)."""
    measurements: Mapping[str, Measure]
    """Those of `NAMES` that were measured."""
    made_by: str
    """The analysis with its version."""


def densities(session: Session, studies: Sequence[Dated]) -> tuple[Density, ...]:
    """Return the densities that were measured in these studies and count, by date and as they were found."""
    when = {pk: on for pk, _, on in studies}
    own = col(Measurement.finding_pk) == col(Finding.id)
    rows = session.exec(
        select(Finding, Job.plugin, Job.plugin_version)
        .join(Job, col(Job.id) == col(Finding.job_pk))
        .where(col(Finding.study_pk).in_(when), ~col(Finding.superseded), col(Job.state).in_(COUNTING))
        .where(exists().where(own, col(Measurement.name).in_(NAMES)))
        .order_by(col(Finding.id))
    ).all()
    measures = measures_of(session, [int(row.id or 0) for row, _, _ in rows])
    found = [
        Density(
            date=when[row.study_pk],
            region=row.label,
            measurements={
                name: measure for name, measure in measures.get(int(row.id or 0), {}).items() if name in NAMES
            },
            made_by=f"{plugin} {version}",
        )
        for row, plugin, version in rows
    ]
    return tuple(sorted(found, key=lambda one: one.date))


__all__ = ["NAMES", "Density", "densities"]
