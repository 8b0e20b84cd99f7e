"""What an analysis found, as plain values that cross a process border; no SQL is loaded for them."""

from __future__ import annotations

import json
import math
import types
import typing
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Self

from plugins.errors import Broken

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.dataset import Dataset

Point = tuple[float, float, float]

CENTROID_COLUMNS = ("centroid_x_mm", "centroid_y_mm", "centroid_z_mm")
END_COLUMNS = ("x1_mm", "y1_mm", "z1_mm", "x2_mm", "y2_mm", "z2_mm")
"""What the parts of a centroid and of two end points are called wherever a finding is a flat row."""


@dataclass(frozen=True, kw_only=True)
class Coded:
    """A coded concept."""

    value: str
    """Code value."""
    scheme: str
    """Coding scheme designator."""
    meaning: str
    """Code meaning."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One number of a finding."""

    name: str
    """Our name (`long_axis`)."""
    concept: Coded
    """What was measured."""
    value: float
    """The number; finite."""
    unit: str
    """UCUM code."""
    method: str
    """The convention in words."""
    derivation_meaning: str | None = None
    """Meaning of the derivation (`Mean`), when there is one."""
    uncertainty: float | None = None
    """One standard deviation, in `unit`."""
    end_points_mm: tuple[Point, Point] | None = None
    """Where a length begins and ends, LPS mm."""
    sop_instance_uid: str | None = None
    """Image on which the end points lie."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise Broken(f"The measurement {self.name} is not a finite number.")


@dataclass(frozen=True, kw_only=True)
class Found:
    """One lesion or region."""

    label: str
    """What people read."""
    tracking_identifier: str
    """Tracking ID, as in SEG and SR."""
    tracking_uid: str
    """Tracking UID, as in SEG and SR."""
    before_uid: str = ""
    """What it would be without a person's relink of this very drawing; empty where nobody relinked it."""
    series_instance_uid: str
    """The series that it lies on."""
    segment_number: int
    """Its segment in the SEG of that series."""
    category: Coded
    """Segmented property category."""
    type: Coded
    """Segmented property type."""
    site: Coded | None = None
    """Anatomic site."""
    laterality: Coded | None = None
    """Laterality of the site."""
    confidence: float | None = None
    """0 to 1, or None when no claim is made."""
    automatic: bool = True
    """False when a person drew it."""
    centroid_mm: Point
    """Centre, LPS mm."""
    measurements: tuple[Measured, ...] = ()
    """What was measured."""
    flags: tuple[Told, ...] = ()
    """Doubts about this finding."""
    uncertainties: tuple[tuple[str, float], ...] = ()
    """How unsure the networks were, by the names of `models.uncertainty.CaseUncertainty`; finite."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """A refusal or a doubt, with its coded reason."""

    code: str
    """Lower-case word with hyphens."""
    sentence: str
    """One sentence for people."""
    series_instance_uid: str | None = None
    """The series it speaks of, if one."""
    refused: bool = False
    """True when something was refused, False when it is a doubt about something accepted."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """A DICOM object that the analysis wrote."""

    kind: str
    """seg, sr-volumetric, sr-planar, capture or pdf."""
    sop_instance_uid: str
    """Its SOP Instance UID."""
    sop_class_uid: str
    """Its SOP Class UID."""
    series_instance_uid: str
    """Its series."""
    path: str
    """Where the analysis put the file."""

    @classmethod
    def of(cls, kind: str, dataset: Dataset, path: Path) -> Written:
        """Return what is known of an object of a kind that lies at `path`."""
        return cls(
            kind=kind,
            sop_instance_uid=dataset.SOPInstanceUID,
            sop_class_uid=dataset.SOPClassUID,
            series_instance_uid=dataset.SeriesInstanceUID,
            path=str(path),
        )


@dataclass(frozen=True, kw_only=True)
class Linked:
    """What became of a lesion from an earlier time point to this one."""

    kind: str
    """A `store.tracking.link.Kind`."""
    tracking_uid: str
    """The lesion."""
    tracking_identifier: str
    """Its Tracking ID."""
    is_found: bool
    """True when a finding has this Tracking UID."""
    earlier: tuple[str, ...]
    """Tracking UIDs of what it was before."""
    study_instance_uid: str
    """The study it was compared with; empty when there was none."""
    confidence: float
    """0 to 1."""
    reason: str
    """The numbers that decided it, in words."""
    expected_mm: Point | None = None
    """Where it was expected, LPS mm."""


@dataclass(frozen=True, kw_only=True)
class SeriesFacts:
    """What a series was like that an analysis looked at; nothing in it is of the patient."""

    series_instance_uid: str
    """The series."""
    modality: str
    """Modality."""
    manufacturer: str
    """Manufacturer of the scanner."""
    manufacturer_model_name: str
    """ManufacturerModelName."""
    convolution_kernel: str
    """ConvolutionKernel of a CT."""
    slice_distance_mm: float
    """Between slice centres."""
    pixel_spacing_mm: float
    """Between rows."""
    slices: int
    """How many."""
    unit: str
    """UCUM code of the voxels."""
    histogram: tuple[float, ...]
    """Shares of the voxels between the edges of `store.facts.EDGES` for the unit; empty without such edges."""


@dataclass(frozen=True, kw_only=True)
class AnalysedFindings:
    """All that one job made."""

    found: tuple[Found, ...] = ()
    """Findings, in the order of the segments."""
    told: tuple[Told, ...] = ()
    """Refusals and doubts about the study."""
    written: tuple[Written, ...] = ()
    """Objects, in the order in which they are to be sent."""
    links: tuple[Linked, ...] = ()
    """What became of lesions since earlier time points; none when there was nothing to compare with."""
    series: tuple[SeriesFacts, ...] = ()
    """What the series were like that it looked at."""

    def to_json(self) -> str:
        """Return it as JSON; `from_json` gives an equal value back."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the value of a JSON text. Raises Broken when it is not one of ours."""
        try:
            value = build(cls, json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Broken("The analysis handed over something that cannot be read.") from error
        assert isinstance(value, cls)
        return value


def build(kind: Any, value: Any) -> Any:
    """Return `value`, plain JSON, as the dataclass, tuple or scalar that `kind` names."""
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        (kind,) = [option for option in typing.get_args(kind) if option is not types.NoneType]
        return build(kind, value)
    if origin is tuple:
        options = typing.get_args(kind)
        if options[-1] is Ellipsis:
            return tuple(build(options[0], item) for item in value)
        return tuple(build(option, item) for option, item in zip(options, value, strict=True))
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{field.name: build(hints[field.name], value[field.name]) for field in fields(kind)})  # type: ignore[operator]
    return float(value) if kind is float else kind(value)
