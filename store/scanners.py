"""How a patient was scanned at each visit, where it changes what is measured: scanner, kernel, distance of slices."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from sqlmodel import Session, col, select

from store.model_tables import SeriesFact
from store.sightings import COUNTING, Dated
from store.tables import Job, Revision

LEAST_MM: Final = 0.25
"""Distances of slices that differ by less are one."""


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """A series that an analysis looked at."""

    date: date
    """Study Date."""
    plugin: str
    """The analysis."""
    modality: str
    """Modality."""
    scanner: str
    """Manufacturer and model, as the header says them; empty when it does not."""
    kernel: str
    """ConvolutionKernel; empty when the header has none."""
    slice_distance_mm: float
    """Between centres of slices."""

    @property
    def words(self) -> str:
        """Return it in words."""
        named = [self.scanner or "an unnamed scanner", *([f"kernel {self.kernel}"] if self.kernel else [])]
        return ", ".join((*named, f"slices every {self.slice_distance_mm:.1f} mm"))

    def is_like(self, other: Scanned) -> bool:
        """Return whether two series were made alike, as far as both tell."""
        pairs = ((self.scanner, other.scanner), (self.kernel, other.kernel))
        told = all(one == two for one, two in pairs if one and two)
        return told and abs(self.slice_distance_mm - other.slice_distance_mm) < LEAST_MM


def scanned(session: Session, studies: Sequence[Dated]) -> tuple[Scanned, ...]:
    """Return what the analyses of this node looked at, by date."""
    when = {pk: on for pk, _, on in studies}
    rows = session.exec(
        select(SeriesFact, Revision.study_pk)
        .join(Job, col(Job.id) == col(SeriesFact.job_pk))
        .join(Revision, col(Revision.id) == col(Job.revision_pk))
        .where(col(Revision.study_pk).in_(when), col(Job.state).in_(COUNTING))
        .order_by(col(SeriesFact.id))
    ).all()
    found = [
        Scanned(
            date=when[study_pk],
            plugin=fact.plugin,
            modality=fact.modality,
            scanner=f"{fact.manufacturer} {fact.manufacturer_model_name}".strip(),
            kernel=fact.convolution_kernel,
            slice_distance_mm=fact.slice_distance_mm,
        )
        for fact, study_pk in rows
    ]
    return tuple(sorted(dict.fromkeys(found), key=lambda one: one.date))


def changed(scans: Sequence[Scanned], plugins: Collection[str]) -> dict[date, str]:
    """Return a sentence for each date on which analyses looked at series unlike those of their first date."""
    told: dict[date, str] = {}
    first: dict[tuple[str, str], list[Scanned]] = {}
    for one in (one for one in scans if one.plugin in plugins):
        known = first.setdefault((one.plugin, one.modality), [])
        if not known or known[0].date == one.date:
            known.append(one)
        elif not any(one.is_like(other) for other in known):
            told.setdefault(
                one.date,
                f"The {one.modality} was made otherwise than that of {known[0].date}, which changes what is measured: "
                f"{known[0].words}; now {one.words}.",
            )
    return told


__all__ = ["Scanned", "changed", "scanned"]
