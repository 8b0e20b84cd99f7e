"""One lesion at one visit, as plain values: what was seen and measured, and who or what said so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Decimal

from pydicom.sr.coding import Code

from store.response.burden import TOO_SMALL_TENTHS
from store.response.history import Role, Status
from store.tracking.link import Kind

Point = tuple[float, float, float]
SIZED = (Status.MEASURED, Status.PROGRESSED)
"""What a lesion is called whose size is what was drawn."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number of a lesion."""

    value: float
    """The number, in `unit`."""
    unit: str
    """UCUM code."""
    uncertainty: float | None = None
    """One standard deviation, in `unit`; None when it is not known."""
    end_points_mm: tuple[Point, Point] | None = None
    """Where a length begins and ends, LPS mm."""
    sop_instance_uid: str | None = None
    """Image on which the end points lie."""
    method: str = ""
    """The convention in words."""
    concept: Code | None = None
    """What was measured; None when it is not coded."""
    made_by: str = ""
    """Analysis and version that measured it; empty when it is that of the sighting."""


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """How the tracking came to what it says of a lesion."""

    kind: Kind
    """What became of it."""
    confidence: float
    """0 to 1."""
    reason: str
    """The numbers that decided it, in words."""
    earlier: tuple[str, ...] = ()
    """Tracking UIDs of what it was before, as the course calls them."""
    earlier_study_instance_uid: str = ""
    """The study it was compared with."""
    expected_mm: Point | None = None
    """Where it was expected, LPS mm."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A choice of a person that changed something here."""

    number: int
    """Number of the choice."""
    at: datetime
    """When."""
    author: str
    """Who."""
    kind: str
    """A key of `store.choices.VALUES`."""
    value: str
    """What was decided."""
    tracking_uid: str = ""
    """The lesion, as it was called when it was decided, or since a patient was parted; of a relink
    `Sighting.choice_uid`."""
    study_instance_uid: str = ""
    """The visit it speaks of; empty for all of them."""
    source: str
    """`command`, `page`, or the SOP Instance UID of the object that told it."""
    note: str = ""
    """Why, in words."""


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """One lesion at one study: something drawn, or what the tracking says of a lesion that was not drawn."""

    lesion: str
    """Tracking UID that the course counts it under: its own, that of the whole for a fragment, after relinks."""
    tracking_uid: str
    """Its own Tracking UID after relinks."""
    written_uid: str
    """Tracking UID that is in the SEG and the SR."""
    before_uid: str = ""
    """What would be written without a person's relink; empty where that is the same."""
    label: str
    """What people read: its Tracking ID, or its Tracking UID where it has none."""
    study_instance_uid: str
    """Study."""
    date: date
    """Study Date."""
    series_instance_uid: str = ""
    """Series that it was drawn on; empty when nothing was drawn."""
    frame_of_reference_uid: str = ""
    """Frame of reference of the series; empty when it is not known."""
    slice_mm: float | None = None
    """Distance of the slices of the series; None when no analysis looked at it."""
    segment_number: int | None = None
    """Its segment in the SEG; None when nothing was drawn, or no SEG tells."""
    seg_sha256: str | None = None
    """Object store name of the SEG that holds it; None when it is not here."""
    type: str = ""
    """What it is, in words."""
    type_code: Code | None = None
    """What it is, coded; None when only words are known."""
    site_code: Code | None = None
    """Organ, coded; None when only words are known, or a person changed it."""
    site: str = ""
    """Organ, in words; empty when it is not known."""
    node: bool = False
    """True for a lymph node."""
    role: Role | None = None
    """What it is to the criteria; None when nothing: ignored, rejected, or a new one that nobody confirmed."""
    role_by: str = ""
    """Who said so: `proposal`, `first seen here`, `drawn by a person`, `not confirmed`, or the author of a choice."""
    role_because: str = ""
    """Why it was proposed so, in words."""
    status: Status = Status.MEASURED
    """What was seen."""
    whole: str = ""
    """Lesion that it has grown together with, as the course counts that; empty when it is none of such."""
    measurements: Mapping[str, Measure] = field(default_factory=dict)
    """By our names (`long_axis`, `volume`, `suv_peak`)."""
    centroid_mm: Point | None = None
    """Centre, LPS mm."""
    confidence: float | None = None
    """0 to 1: how sure the analysis was that this is a lesion; None when it made no claim."""
    automatic: bool = True
    """False when a person drew it."""
    link: Tracked | None = None
    """What the tracking said; None when it said nothing."""
    plugin: str = ""
    """Analysis that found it; as far as known for results made elsewhere."""
    plugin_version: str = ""
    """Its version."""
    model_sha256: str = ""
    """Hash of its model; empty when it is not known."""
    made_at: datetime | None = None
    """When the analysis began, so which choices it knew; None for results made elsewhere."""
    counts: bool = True
    """False when another sighting of the same lesion on this date counts instead, or it was rejected."""
    note: str = ""
    """Why it does not count, in words."""
    remarks: tuple[str, ...] = ()
    """What a reader should know of what a person measured of it: sentences."""
    decisions: tuple[Decision, ...] = ()
    """Choices that changed something of it, oldest first."""

    @property
    def choice_uid(self) -> str:
        """Return the Tracking UID by which a relink speaks of what was drawn: what it was before any relink."""
        return self.before_uid or self.written_uid

    @property
    def on_pet(self) -> bool:
        """Return whether uptake was measured, so that its lengths are those of a PET."""
        return any(name.startswith(("suv_", "sul_")) for name in self.measurements)


def tenths(mm: float) -> int:
    """Return a length in whole tenths of a millimetre, half up as it is written in decimals."""
    return int((Decimal(repr(mm)) * 10).quantize(Decimal(1), ROUND_HALF_UP))


def sum_tenths(fragments: Sequence[Sighting], axis: str) -> int | None:
    """Return an axis of a lesion as criteria count it, tenths of mm, over the fragments that are there.

    One that is too small to measure adds 5 mm, a node its own short axis where it was drawn; one that is called
    progressed adds its axis. None when nothing was measured or called too small, or when a measured one lacks the axis.
    """
    values = [_tenths(one, axis) for one in fragments if one.status in (*SIZED, Status.TOO_SMALL)]
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def is_sized(status: Status, fragments: Sequence[Sighting]) -> bool:
    """Return whether a lesion of this status has the size of its fragments: one that has progressed may lack some."""
    unknown = (Status.NOT_EVALUABLE, Status.PRESENT)
    return status in SIZED and not any(one.status in unknown for one in fragments)


def _tenths(one: Sighting, axis: str) -> int | None:
    measure = one.measurements.get(axis)
    own = None if measure is None or measure.unit != "mm" else tenths(measure.value)
    if one.status is not Status.TOO_SMALL:
        return own
    return own if own is not None and one.node and axis == "short_axis" else TOO_SMALL_TENTHS


__all__ = ["SIZED", "Decision", "Measure", "Point", "Sighting", "Tracked", "is_sized", "sum_tenths", "tenths"]
