"""The numbers of a finding as people look at them: those that an analysis measured, and a person's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, select

from store.sighting import Sighting
from store.tables import Measurement


@dataclass(frozen=True, kw_only=True)
class MeasurementView:
    """One number."""

    name: str
    """Our name."""
    meaning: str
    """What was measured, in words."""
    value: float
    """The number, in `unit`."""
    unit: str
    """UCUM code."""
    method: str
    """The convention."""
    uncertainty: float | None
    """One standard deviation, in `unit`; None when it is not known."""
    sop_instance_uid: str | None
    """Image on which its end points lie, if it has some."""


def measurements_of(session: Session, pks: Sequence[int]) -> dict[int, list[MeasurementView]]:
    """Return the numbers of findings, by the rows of these."""
    found: defaultdict[int, list[MeasurementView]] = defaultdict(list)
    statement = select(Measurement).where(col(Measurement.finding_pk).in_(pks)).order_by(col(Measurement.id))
    for row in session.exec(statement):
        derived = f", {row.derivation_meaning.lower()}" if row.derivation_meaning else ""
        found[row.finding_pk].append(
            MeasurementView(
                name=row.name,
                meaning=f"{row.concept_meaning}{derived}",
                value=row.value,
                unit=row.unit,
                method=row.method,
                uncertainty=row.uncertainty,
                sop_instance_uid=row.sop_instance_uid,
            )
        )
    return found


def measured_in(own: Sequence[Sighting]) -> Iterator[MeasurementView]:
    """Yield the numbers of what counts that were measured there, without those that it has from another analysis."""
    for one in own:
        for name, measured in one.measurements.items() if one.counts else ():
            if not measured.made_by:
                yield MeasurementView(
                    name=name,
                    meaning=measured.concept.meaning if measured.concept else name,
                    value=measured.value,
                    unit=measured.unit,
                    method=measured.method,
                    uncertainty=measured.uncertainty,
                    sop_instance_uid=measured.sop_instance_uid,
                )


__all__ = ["MeasurementView", "measured_in", "measurements_of"]
