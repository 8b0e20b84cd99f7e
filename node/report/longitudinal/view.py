"""What a longitudinal report shows, as plain values: the page, the document, JSON and CSV all read these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Self

from PIL import Image

from store.course import CoursePatient
from store.response.growth import Growth
from store.response.verdict import Response


@dataclass(frozen=True, kw_only=True)
class Who:
    """The patient."""

    patient_id: str
    """PatientID."""
    issuer: str = ""
    """Who gave it out."""
    name: str = ""
    """PatientName as received."""
    sex: str = ""
    """PatientSex."""
    birth_date: date | None = None
    """PatientBirthDate."""

    @classmethod
    def of(cls, patient: CoursePatient) -> Self:
        """Return the patient of a course."""
        return cls(
            patient_id=patient.patient_id,
            issuer=patient.issuer,
            name=patient.name,
            sex=patient.sex,
            birth_date=patient.birth_date,
        )


@dataclass(frozen=True, kw_only=True)
class When:
    """One visit."""

    date: date
    """Date of its studies."""
    days: int
    """Days since the first visit."""
    study_instance_uids: tuple[str, ...]
    """Its studies."""


@dataclass(frozen=True, kw_only=True)
class Number:
    """One measured number."""

    value: float
    """The number, in `unit`."""
    unit: str
    """UCUM unit."""
    sd: float | None = None
    """One standard deviation, when it is known."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How quickly the volume of a lesion changed between two visits."""

    since: date
    """The earlier one."""
    until: date
    """The later one."""
    doubling_days: float | None
    """Doubling time; negative: days to half; None when the volume did not change."""
    rate_per_day: float
    """Natural logarithm of the volumes' ratio over the days."""
    rate_interval: tuple[float, float] | None
    """95 % interval of the rate; None when a standard deviation is not known."""
    words: str
    """The same in words."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a viewer shows a lesion."""

    study_instance_uid: str
    """Study."""
    series_instance_uid: str = ""
    """Series that it was drawn on; empty when nothing was drawn."""
    sop_instance_uid: str = ""
    """Image of its long axis; empty when it is not known."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One lesion at one visit."""

    date: date
    """When."""
    status: str
    """`measured`, `absent`, ... of the criteria; empty when nothing is known of this lesion at this visit."""
    words: str
    """What stands where there is no number (`gone`, `not evaluable`); empty for a measured lesion."""
    numbers: Mapping[str, Number] = field(default_factory=dict)
    """What was measured, by our name."""
    counted_mm: float | None = None
    """The axis that counts in whole tenths, 0 when gone, 5 when too small; None when it is not known."""
    to_baseline_percent: float | None = None
    """Change of the axis that counts to that of the first visit at which it was measured."""
    to_nadir_percent: float | None = None
    """Change of that axis to the smallest one before this visit."""
    pace: Pace | None = None
    """Of the volume since the visit before at which it was known; None when it is not known at two."""
    confidence: float | None = None
    """0 to 1, of the analysis that found it."""
    link: str = ""
    """What became of it since the visit before, as the tracking said it; empty when it said nothing."""
    link_confidence: float | None = None
    """0 to 1, of the tracking."""
    reason: str = ""
    """The numbers that decided the link."""
    automatic: bool = True
    """False when a person drew the region."""
    made_by: str = ""
    """The analysis with its version."""
    place: Place | None = None
    """Where it is shown; None when nothing is known of it."""


@dataclass(frozen=True, kw_only=True)
class LesionCourse:
    """One lesion at all visits."""

    code: str
    """Short name on this report, by its role: T1, N1, New 1."""
    name: str
    """What people call it."""
    tracking_uid: str
    """Its identity."""
    role: str
    """`target`, `non-target` or `new`; empty when it has none."""
    role_by: str
    """Who gave it this role."""
    node: bool
    """True for a lymph node: its short axis counts."""
    site: str
    """Organ, in words; empty when it is not known."""
    cells: tuple[Cell, ...]
    """One a visit, in their order."""
    pace: Pace | None = None
    """Of the volume from the first visit at which it is known to the last; None when it is not known at two."""

    @property
    def axis(self) -> str:
        """Return the name of the axis that counts."""
        return "short_axis" if self.node else "long_axis"


@dataclass(frozen=True, kw_only=True)
class SumPoint:
    """What the criteria added up at one visit."""

    days: int
    """Days since the baseline; negative before it."""
    date: date
    """When."""
    sum: float | None
    """The sum; None when something of it was not assessed."""
    sd: float | None
    """One standard deviation of the sum; None when that of a part is not known."""
    verdict: str
    """The verdict; `baseline` at that visit, `none` where the criteria give none."""
    progression_from: float | None
    """The smallest sum that is progression at this visit; None at the baseline, without a nadir, or where any is."""


@dataclass(frozen=True, kw_only=True)
class SumCourse:
    """The sum over time, with what it is judged by."""

    criteria: str
    """Name of the criteria."""
    quantity: str
    """What the sum is, in words."""
    unit: str
    """Unit of the sums."""
    points: tuple[SumPoint, ...]
    """One a visit."""
    response_to: float | None
    """The largest sum that is a partial response; None when the criteria give no such sum."""
    next_progression_from: float | None
    """The smallest sum that would be progression at the next visit; None when there is no such sum, or any is."""
    nadir: float | None
    """The smallest sum so far."""
    nadir_date: date | None
    """When that was."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """One lesion at one date."""

    image: Image.Image | None
    """The picture; None when it cannot be made."""
    words: str
    """What it shows, or why there is none."""
    mm_per_pixel: float | None = None
    """Its scale."""


@dataclass(frozen=True, kw_only=True)
class DensityCourse:
    """One number of the density of a region at all visits at which it was measured."""

    region: str
    """What people call it."""
    name: str
    """Our name of the number."""
    quantity: str
    """The number in words."""
    unit: str
    """Its unit, as people read it."""
    method: str
    """The convention, in words."""
    values: Mapping[date, float]
    """By date, oldest first."""
    made_by: tuple[str, ...]
    """The analyses with their versions; values of several do not quite compare."""


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What a person decided."""

    at: datetime
    """When."""
    author: str
    """Who."""
    lesion: str
    """Of which lesion: its short name, or its Tracking UID when it is not on the report; empty: of the patient."""
    words: str
    """What, in words."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """An analysis whose numbers stand in the report."""

    plugin: str
    """Its name."""
    version: str
    """Its version."""
    model_sha256: str
    """Hash of its model; empty when it has none."""
    dates: tuple[date, ...]
    """The visits that it measured."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LongitudinalReport:
    """One patient's course."""

    patient: Who
    """The patient."""
    visits: tuple[When, ...]
    """By date."""
    responses: tuple[Response, ...]
    """The verdicts, one set of criteria each; the first is the report's own."""
    sums: tuple[SumCourse, ...]
    """The sums of each of them, in the same order."""
    growth: tuple[Growth | None, ...]
    """The rates of each of them; None for a score, before a second visit and without a sum."""
    margins: tuple[str, ...]
    """How near the last verdict of the first criteria is to another one, in words, nearest first."""
    lesions: tuple[LesionCourse, ...]
    """Targets first, then the others."""
    events: tuple[tuple[date, str], ...]
    """What is new, gone, split, merged or could not be evaluated, in words, by date."""
    pictures: Mapping[tuple[str, date], Picture]
    """By Tracking UID and date."""
    corrections: tuple[Correction, ...]
    """What people decided, by time."""
    made: tuple[Made, ...]
    """The analyses."""
    densities: tuple[DensityCourse, ...]
    """How dense the lungs were."""
    software: str
    """Nadir and its version."""
    made_at: datetime
    """When the report was made, aware."""
    missing: tuple[str, ...] = ()
    """What the report could not show, in sentences."""

    @property
    def response(self) -> Response:
        """Return the verdicts by the report's own criteria."""
        return self.responses[0]


__all__ = [
    "Cell",
    "Correction",
    "DensityCourse",
    "LesionCourse",
    "LongitudinalReport",
    "Made",
    "Number",
    "Pace",
    "Picture",
    "Place",
    "SumCourse",
    "SumPoint",
    "When",
    "Who",
]
