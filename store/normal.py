"""Normal tissue that the uptake of a PET is compared with: the liver references that the analyses measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from sqlmodel import Session, col, select

from plugins import codes
from store.response.history import Reference
from store.sighting import Measure
from store.sightings import COUNTING, Dated, measures_of
from store.tables import Finding, Job

SUL: Final[Mapping[str, str]] = {
    "g/ml{SUVlbm}": "James",
    "{SUVlbm}g/ml": "James",
    "g/ml{SUVlbm(James128)}": "James, 128",
    "{SUVlbm(James128)}g/ml": "James, 128",
    "g/ml{SUVlbm(Janma)}": "Janmahasatian",
    "{SUVlbm(Janma)}g/ml": "Janmahasatian",
}
"""Whose lean body mass an uptake is normalised to, by its unit (PS3.16 CID 85, and as it was written before)."""


@dataclass(frozen=True, kw_only=True)
class NormalTissue:
    """The liver reference of one PET."""

    date: date
    """Study Date."""
    series_instance_uid: str
    """The PET."""
    measurements: Mapping[str, Measure]
    """By our names (`sul_mean`, `sul_sd`, `uptake_time`, `injected_activity`)."""

    @property
    def reference(self) -> Reference:
        """Return it as the criteria know it: uptake only where it is SUL; which scanner it was is not kept."""
        return Reference(
            liver_mean=self._value("sul_mean", SUL),
            liver_sd=self._value("sul_sd", SUL),
            uptake_minutes=self._value("uptake_time", ("min",)),
            injected_mbq=self._value("injected_activity", ("MBq",)),
        )

    def _value(self, name: str, units: Mapping[str, str] | Sequence[str]) -> float | None:
        measure = self.measurements.get(name)
        return None if measure is None or measure.unit not in units else measure.value


def normal_tissue(session: Session, studies: Sequence[Dated]) -> tuple[NormalTissue, ...]:
    """Return the liver references of these studies that count, as they were found."""
    when = {pk: on for pk, _, on in studies}
    rows = session.exec(
        select(Finding)
        .join(Job, col(Job.id) == col(Finding.job_pk))
        .where(col(Finding.study_pk).in_(when), ~col(Finding.superseded), col(Job.state).in_(COUNTING))
        .where(
            col(Finding.type_value) == codes.REFERENCE_REGION.value,
            col(Finding.type_scheme) == codes.REFERENCE_REGION.scheme_designator,
            col(Finding.site_value) == codes.LIVER.value,
            col(Finding.site_scheme) == codes.LIVER.scheme_designator,
        )
        .order_by(col(Finding.id))
    ).all()
    measures = measures_of(session, [int(row.id or 0) for row in rows])
    return tuple(
        NormalTissue(
            date=when[row.study_pk],
            series_instance_uid=row.series_instance_uid,
            measurements=measures.get(int(row.id or 0), {}),
        )
        for row in rows
    )


def reference_of(tissue: Sequence[NormalTissue], series: Sequence[str]) -> Reference | None:
    """Return the reference of the first of these series that has one; without series the first there is, or None."""
    if not series:
        return next((one.reference for one in tissue), None)
    by_series = {one.series_instance_uid: one.reference for one in reversed(tissue)}
    return next((by_series[uid] for uid in series if uid in by_series), None)


__all__ = ["SUL", "NormalTissue", "normal_tissue", "reference_of"]
