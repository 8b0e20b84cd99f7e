"""What a report is made of: studies, findings and numbers as they were written, and the truth when it is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from plugins.contract import Finding, Flag, Mask, Measurement, Point, Study, Volume

RESEARCH_USE = "For research use only"


@dataclass(frozen=True, kw_only=True)
class ShownMeasurement:
    """One number as people read it."""

    name: str
    """Our name: `long_axis`, `volume`, `suv_max`, ..."""
    value: float
    """The number, in `unit`."""
    unit: str
    """UCUM unit."""
    method: str
    """The convention in words."""
    meaning: str = ""
    """Meaning of the coded concept."""
    end_points_mm: tuple[Point, Point] | None = None
    """Where a length begins and ends, LPS mm."""

    @classmethod
    def of(cls, measurement: Measurement) -> ShownMeasurement:
        """Return a measurement of the contract as a report shows it."""
        derived = f", {measurement.derivation.meaning}" if measurement.derivation else ""
        return cls(
            name=measurement.name,
            value=measurement.value,
            unit=measurement.unit.value,
            method=measurement.method,
            meaning=f"{measurement.concept.meaning}{derived}",
            end_points_mm=measurement.end_points_mm,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownFinding:
    """One finding with its identity and its mask on the source grid."""

    label: str
    """What people read."""
    plugin: str
    """The analysis that found it."""
    tracking_uid: str
    """Tracking UID, as in SEG and SR."""
    series_instance_uid: str
    """The volume that the mask lies on."""
    measurements: tuple[ShownMeasurement, ...]
    """What was measured."""
    mask: Mask | None = None
    """The region; None when it is not at hand, then there is no picture."""
    centroid_mm: Point | None = None
    """Middle of the region, LPS mm; from the mask when not given."""
    confidence: float | None = None
    """0 to 1, when the analysis makes such a claim."""
    automatic: bool = True
    """False when a person drew the region."""
    flags: tuple[Flag, ...] = ()
    """Doubts about this finding, and notes."""

    @classmethod
    def of(cls, finding: Finding, *, plugin: str, tracking_uid: str) -> ShownFinding:
        """Return a finding of the contract as a report shows it."""
        return cls(
            label=finding.label,
            plugin=plugin,
            tracking_uid=tracking_uid,
            series_instance_uid=finding.series_instance_uid,
            measurements=tuple(ShownMeasurement.of(m) for m in finding.measurements),
            mask=finding.mask,
            confidence=finding.confidence,
            automatic=finding.automatic,
            flags=finding.flags,
        )

    def measurement(self, name: str) -> ShownMeasurement | None:
        """Return the measurement called `name`, or None."""
        return next((m for m in self.measurements if m.name == name), None)

    def centre_mm(self, volume: Volume) -> Point | None:
        """Return the middle of the region, LPS mm, or None when neither it nor the mask is known."""
        if self.centroid_mm is not None or self.mask is None or self.mask.count == 0:
            return self.centroid_mm
        return volume.centroid_mm(self.mask)


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyReport:
    """One study of the report."""

    study: Study
    """The study as it was read."""
    findings: tuple[ShownFinding, ...]
    """Everything found in it, by all analyses."""
    patient_name: str = ""
    """PatientName, for people; empty when it is not wanted on the page."""
    description: str = ""
    """StudyDescription."""
    refused: tuple[Flag, ...] = ()
    """What was refused, with its reason."""
    flags: tuple[Flag, ...] = ()
    """Doubts on what was accepted, and notes, beside those of the findings."""
    files: tuple[Path, ...] = ()
    """DICOM objects that were written for it."""
    provenance: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """For each analysis: version, model, hashes, start."""

    @property
    def date(self) -> str:
        """Return the study date as people read it."""
        return self.study.study_date.isoformat() if self.study.study_date else "date unknown"

    @property
    def doubts(self) -> tuple[Flag, ...]:
        """Return the doubts about the study and about its findings, each once."""
        return tuple(flag for flag in self._told if not flag.is_note)

    @property
    def notes(self) -> tuple[Flag, ...]:
        """Return what else is told of the study and of its findings, each once."""
        return tuple(flag for flag in self._told if flag.is_note)

    @property
    def _told(self) -> Iterable[Flag]:
        return dict.fromkeys((*self.flags, *(flag for f in self.findings for flag in f.flags)))

    def volume_of(self, finding: ShownFinding) -> Volume | None:
        """Return the volume that a finding lies on, or None when it is not among those read."""
        return next(
            (v for v in self.study.volumes if v.series_instance_uid == finding.series_instance_uid), None
        )


@dataclass(frozen=True, kw_only=True)
class TrueValues:
    """What is known of one thing on one kind of image."""

    role: str
    """Role of the volume: `ct`, `pet_suv`."""
    values: Mapping[str, float]
    """True value by measurement name, in the unit of the measurement."""


@dataclass(frozen=True, kw_only=True)
class TrueThing:
    """One thing whose truth is known, at one date."""

    name: str
    """Name that stays the same over the dates."""
    kind: str
    """`nodule`, `lung` or `reference`."""
    centre_mm: Point
    """Where it is, LPS mm."""
    tolerance_mm: float
    """How far from it the middle of a finding may be to be the same thing."""
    groups: tuple[TrueValues, ...]
    """What is known, by kind of image."""


Truth = tuple[TrueThing, ...]
