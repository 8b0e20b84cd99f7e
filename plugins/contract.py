"""The contract between the node and an analysis: what an analysis is given and what it gives back.

Arrays are always `(K, R, C)` = slice, row, column. Positions are patient coordinates in millimetres, LPS.
Slices are sorted so that K grows along the normal `row_cosine x column_cosine` of the image orientation
(for an axial head-first series: from the feet to the head).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from functools import cached_property
from typing import Protocol, runtime_checkable

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom.sr.coding import Code

from models.card import ModelCard
from plugins.errors import OffContract
from plugins.flag_codes import INFORMING
from plugins.given_values import on_grid, share, writable
from plugins.measurement import Measurement, Point

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A doubt that is told and does not stop the analysis, a note, or the reason why something was refused."""

    code: str
    """Lower-case word with hyphens, stable across versions (`uneven-slices`)."""
    sentence: str
    """One sentence for people: what was found, where, what to do."""
    series_instance_uid: str | None = None
    """The series it speaks of, if one."""
    plugin: str | None = None
    """The analysis that said it, if one."""

    @property
    def is_note(self) -> bool:
        """Return whether it only informs, and is no doubt."""
        return self.code in INFORMING


@dataclass(frozen=True, kw_only=True, eq=False)
class Mask:
    """A region on the grid of a volume, kept as the box `(k, r, c)` that holds it."""

    shape: tuple[int, int, int]
    """Shape (K, R, C) of the whole grid."""
    origin: tuple[int, int, int]
    """Index of the first voxel of the box."""
    voxels: BoolArray
    """The box, boolean."""

    def __post_init__(self) -> None:
        if self.voxels.dtype != np.bool_ or self.voxels.ndim != 3:
            raise OffContract("a mask is a boolean array of three dimensions")
        for name in ("shape", "origin"):
            object.__setattr__(self, name, on_grid(getattr(self, name), f"the {name} of a mask"))
        if any(o + n > s for o, n, s in zip(self.origin, self.voxels.shape, self.shape, strict=True)):
            raise OffContract("the box of a mask must lie inside its grid")

    @classmethod
    def from_full(cls, array: BoolArray) -> Mask:
        """Return the mask of a whole-grid boolean array `(K, R, C)`, cropped to its bounding box."""
        shape = (int(array.shape[0]), int(array.shape[1]), int(array.shape[2]))
        bounds: list[slice] = []
        for axis in range(3):
            others = tuple(a for a in range(3) if a != axis)
            hit = np.flatnonzero(array.any(axis=others))
            if hit.size == 0:
                return cls(shape=shape, origin=(0, 0, 0), voxels=np.zeros((0, 0, 0), dtype=np.bool_))
            bounds.append(slice(int(hit[0]), int(hit[-1]) + 1))
        box = np.ascontiguousarray(array[tuple(bounds)].astype(np.bool_))
        return cls(shape=shape, origin=(bounds[0].start, bounds[1].start, bounds[2].start), voxels=box)

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """Return the slices that cut the box out of a whole-grid array."""
        k, r, c = (slice(o, o + n) for o, n in zip(self.origin, self.voxels.shape, strict=True))
        return (k, r, c)

    @cached_property
    def count(self) -> int:
        """Return the number of voxels."""
        return int(np.count_nonzero(self.voxels))

    def full(self) -> BoolArray:
        """Return the whole-grid boolean array `(K, R, C)`."""
        array = np.zeros(self.shape, dtype=np.bool_)
        array[self.box] = self.voxels
        return array


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """One image series on one regular grid, in real-world units."""

    array: Array
    """float32 `(K, R, C)` in `unit`; read-only in a node, where every analysis is given the same."""
    geometry: highdicom.VolumeGeometry
    """Affine from index (k, r, c) to LPS mm, and the frame of reference."""
    role: str
    """What the analyses ask for: `ct` (HU), `pet_suv` (SUVbw), `pet_activity` (no SUV could be made), `mr`, `other`."""
    unit: Code
    """UCUM unit of the voxel values."""
    modality: str
    """DICOM Modality."""
    series_instance_uid: str
    """Series Instance UID of the source."""
    sop_class_uid: str
    """SOP Class UID of the source instances."""
    sop_instance_uids: tuple[str, ...]
    """SOP Instance UID of each slice k (the same one K times for a multi-frame object)."""
    slice_positions: tuple[Point, ...]
    """ImagePositionPatient of each slice k, LPS mm, as the source says it (slightly uneven ones keep their truth)."""
    series_description: str = ""
    """SeriesDescription of the source."""
    series_number: int | None = None
    """SeriesNumber of the source."""
    convolution_kernel: str = ""
    """ConvolutionKernel, all that its slices state; densities of different kernels must not be compared."""
    is_reformatted: bool = False
    """Its images say that they were made of others: a reformat (MPR) or a projection (MIP)."""
    flags: tuple[Flag, ...] = ()
    """Doubts told by the geometry gate and by the conversion to real-world units."""
    suv: Mapping[str, float | str] = field(default_factory=dict)
    """Provenance of the SUV: path taken, inputs, factor; empty when not PET."""
    frame_numbers: tuple[int, ...] = ()
    """Which frame of its instance, from 1, each slice k is; empty for single-frame sources."""

    @property
    def frame_of_reference_uid(self) -> str | None:
        """Return the Frame of Reference UID."""
        uid = self.geometry.frame_of_reference_uid
        return None if uid is None else str(uid)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Return the distance between voxel centres along (k, r, c), mm."""
        k, r, c = self.geometry.spacing
        return (float(k), float(r), float(c))

    @property
    def voxel_volume_mm3(self) -> float:
        """Return |det(affine)|, mm^3."""
        return float(abs(np.linalg.det(self.geometry.affine[:3, :3])))

    def to_mm(self, index: NDArray[np.floating] | tuple[float, float, float]) -> NDArray[np.float64]:
        """Return the LPS position, mm, of index points `(..., 3)` in (k, r, c) order."""
        points = np.asarray(index, dtype=np.float64)
        return np.asarray(
            points @ self.geometry.affine[:3, :3].T + self.geometry.affine[:3, 3], dtype=np.float64
        )

    def to_index(self, mm: NDArray[np.floating] | Point) -> NDArray[np.float64]:
        """Return the index (k, r, c), fractional, of LPS points `(..., 3)` in mm."""
        inverse = np.linalg.inv(self.geometry.affine)
        points = np.asarray(mm, dtype=np.float64)
        return np.asarray(points @ inverse[:3, :3].T + inverse[:3, 3], dtype=np.float64)

    def centroid_mm(self, mask: Mask) -> Point:
        """Return the centre of gravity of a mask that is not empty, LPS mm."""
        x, y, z = self.to_mm(np.argwhere(mask.voxels).mean(axis=0) + np.asarray(mask.origin))
        return (float(x), float(y), float(z))


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """A region that came with the study: drawn by a person or written by another system."""

    label: str
    """ROIName or SegmentLabel."""
    mask: Mask
    """The region on the grid of the volume it was drawn on; read-only in a node, as images are."""
    series_instance_uid: str
    """The volume it lies on."""
    source: str
    """`RTSTRUCT`, `SEG` or `NIFTI`."""
    source_sop_instance_uid: str
    """SOP Instance UID of the object that holds it (a file's sha256 for NIfTI)."""
    number: int
    """ROINumber or SegmentNumber."""
    type_code: Code | None = None
    """SegmentedPropertyTypeCode or RT ROI Identification Code, if coded."""
    category_code: Code | None = None
    """SegmentedPropertyCategoryCode, if coded."""
    site_code: Code | None = None
    """Anatomic region, if coded."""
    interpreted_type: str | None = None
    """RTROIInterpretedType (GTV, ORGAN, ...), if given."""
    tracking_identifier: str | None = None
    """Tracking ID that the writer gave, if any."""
    tracking_uid: str | None = None
    """Tracking UID that the writer gave, if any."""
    flags: tuple[Flag, ...] = ()
    """Doubts about how it was read (`contour-clipped`, `seg-thresholded`, ...)."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A point at which somebody says that there is a lesion: asked for, or come with the study."""

    point_mm: Point
    """Where, LPS mm."""
    label: str
    """What it is called; empty when it has no name."""
    source: str
    """`SR`, `PR` (presentation state) or `request`."""
    made_by: str
    """Who marked it, in words for people."""
    source_sop_instance_uid: str = ""
    """SOP Instance UID of the object that holds it; empty for a request."""
    series_instance_uid: str | None = None
    """The volume that it was put on; None when only its place is known."""
    frame_of_reference_uid: str | None = None
    """Frame of reference of the place; None when it is not told."""
    extent_mm: float | None = None
    """Longest side of what was drawn around the point, mm; None for a bare point."""
    tracking_identifier: str | None = None
    """Tracking ID that the writer gave, if any."""
    tracking_uid: str | None = None
    """Tracking UID that the writer gave, if any."""


@dataclass(frozen=True, kw_only=True)
class Patient:
    """What an analysis may know of the patient."""

    patient_id: str
    """PatientID as received."""
    sex: str | None = None
    """PatientSex."""
    age_years: float | None = None
    """Age at the study."""
    weight_kg: float | None = None
    """PatientWeight, kg."""
    height_m: float | None = None
    """PatientSize, m."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """One study of one patient, read and judged."""

    study_instance_uid: str
    """Study Instance UID."""
    patient: Patient
    """The patient."""
    study_date: date | None
    """StudyDate."""
    volumes: tuple[Volume, ...]
    """Every series that passed the geometry gate."""
    drawn: tuple[Drawn, ...] = ()
    """Regions that came with the study."""
    marks: tuple[Mark, ...] = ()
    """Points that came with the study, or that were asked for."""
    refused: tuple[Flag, ...] = ()
    """Series, objects and conversions (to SUV) that were refused, each with its reason."""

    def by_role(self, role: str) -> tuple[Volume, ...]:
        """Return the volumes of one role, in series-number order."""
        return tuple(v for v in self.volumes if v.role == role)

    def volume(self, series_instance_uid: str) -> Volume:
        """Return the volume of one series; KeyError when it is not among the volumes."""
        for volume in self.volumes:
            if volume.series_instance_uid == series_instance_uid:
                return volume
        raise KeyError(series_instance_uid)


@dataclass(frozen=True, kw_only=True, eq=False)
class Finding:
    """One lesion or region: what it is, where, how large."""

    key: str
    """Identity within the plugin's run on this study, the same when the run is repeated."""
    label: str
    """What people read: `Nodule 1`, `Tumor_c40`, `Left lung`."""
    series_instance_uid: str
    """The volume whose grid the mask lies on."""
    mask: Mask
    """The region on the source grid; never empty."""
    category: Code
    """Segmented property category (PS3.16 CID 7150)."""
    type: Code
    """Segmented property type, and the finding of the SR."""
    measurements: tuple[Measurement, ...]
    """What was measured; never empty."""
    site: Code | None = None
    """Anatomic site."""
    laterality: Code | None = None
    """Laterality of the site."""
    confidence: float | None = None
    """0 to 1: how sure the plugin is that this is what it says; None when it makes no such claim."""
    automatic: bool = True
    """True when an algorithm drew the mask, False when a person did (then only the measuring is automatic)."""
    is_pointed_at: bool = False
    """True when a person showed the algorithm where to draw: then the segment is SEMIAUTOMATIC."""
    tracking_identifier: str | None = None
    """Tracking ID, when the source already has one; else the node decides it before writing."""
    tracking_uid: str | None = None
    """Tracking UID, likewise."""
    flags: tuple[Flag, ...] = ()
    """Doubts about this finding, and notes."""
    uncertainties: Mapping[str, float] = field(default_factory=dict)
    """How unsure a network was, by the names of `models.uncertainty.CaseUncertainty`: for statistics, in no result."""

    def __post_init__(self) -> None:
        if not isinstance(self.mask, Mask):
            raise OffContract(f"the mask of a finding is a {type(self.mask).__name__}, not a Mask")
        for name in ("category", "type", "site", "laterality"):
            if name in ("category", "type") or getattr(self, name) is not None:
                writable(getattr(self, name), f"the {name} of a finding")
        if self.confidence is not None:
            object.__setattr__(self, "confidence", share(self.confidence, "the confidence of a finding"))

    def measurement(self, name: str) -> Measurement:
        """Return the measurement called `name`; KeyError when there is none."""
        for measurement in self.measurements:
            if measurement.name == name:
                return measurement
        raise KeyError(name)


@runtime_checkable
class Plugin(Protocol):
    """An analysis. Pure: no network, no SQL, no files.

    A plugin is a frozen dataclass whose fields are its settings, each with a default, so that its
    configuration can be hashed. `name`, `version` and `title` are class attributes. A class attribute `needs` may name
    modalities: a node does not open a study for the analysis that holds no object of any of them. A method
    `segment_at(study, series_instance_uid, point_mm, label) -> Finding | None` lets the node ask for a lesion that was
    seen before and was not found again. A method `looks_at(study) -> tuple[Volume, ...]` tells which series it takes,
    the preferred one first: where nothing was found, that one counts as looked at, and without the method all do.
    One that uses learned models by family says which in a property `families` (names) and has a field
    `models: Places`: the node puts there where those lie that count instead of the ones of the release.
    """

    name: str
    version: str
    title: str

    @property
    def model(self) -> ModelCard | None:
        """Return the card of the model inside, or None when there is none."""

    def accepts(self, study: Study) -> bool:
        """Return True when the study holds what this analysis needs."""

    def run(self, study: Study) -> tuple[Finding | Flag, ...]:
        """Return what was found, and doubts about the study as a whole.

        A doubt about one finding belongs to its `flags`; one that holds for all of them, or that stands although
        nothing was found, is given once, beside the findings. Nothing found is a result: an empty tuple.
        Raises Refused, with the reason, when the study does not allow this analysis, and `Absent` when it merely does
        not show what the analysis looks at.
        """


def parted(told: Iterable[Finding | Flag]) -> tuple[tuple[Finding, ...], tuple[Flag, ...]]:
    """Return what `Plugin.run` gave as findings and doubts about the study, each in its order."""
    given = tuple(told)
    return tuple(g for g in given if not isinstance(g, Flag)), tuple(g for g in given if isinstance(g, Flag))


def plugin_settings(plugin: Plugin) -> dict[str, object]:
    """Return the settings of a plugin: the fields of its dataclass; of models made here only the hashes, if any."""
    settings = {f.name: getattr(plugin, f.name) for f in fields(plugin)}  # type: ignore[arg-type]
    if hasattr(plugin, "families") and (places := settings.pop("models")):
        settings["models"] = {family: place.sha256 for family, place in places.items()}
    return settings


__all__ = [
    "Array",
    "BoolArray",
    "Drawn",
    "Finding",
    "Flag",
    "Mark",
    "Mask",
    "Measurement",
    "Patient",
    "Plugin",
    "Point",
    "Study",
    "Volume",
    "parted",
    "plugin_settings",
]
