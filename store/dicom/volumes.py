"""One series to one Volume: the gate, the pixels, the real-world values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)

from plugins import codes
from plugins.contract import Flag, Volume
from plugins.errors import Refused
from store.dicom.comparable import comparable
from store.dicom.decode import is_lossy
from store.dicom.files import File
from store.dicom.geometry import Arrangement, arrange
from store.dicom.reconstructions import kernel_doubts, kernels_of, require_one_reconstruction
from store.dicom.slices import Slice, slices_of
from store.dicom.suv import suv_scale
from store.dicom.values import integer, text, texts
from store.dicom.voxels import read_voxels

ROLES = {"CT": "ct", "PT": "pet_suv", "MR": "mr"}
CLASSES: dict[str, str] = {
    CTImageStorage: "CT",
    EnhancedCTImageStorage: "CT",
    MRImageStorage: "MR",
    EnhancedMRImageStorage: "MR",
    PositronEmissionTomographyImageStorage: "PT",
    EnhancedPETImageStorage: "PT",
}
PROJECTIONS = frozenset({"MIP", "MINIP", "REPROJECTION"})
MAX_VOXELS = 1 << 29
MAX_HU = 32767.0
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
ARBITRARY_UNIT = Code("[arb'U]", "UCUM", "arbitrary unit")


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """What the voxel values of a series mean."""

    role: str
    """Role of the volume."""
    unit: Code
    """Unit of its values."""
    factors: tuple[float, ...]
    """Factor of each slice on top of its rescale."""
    flags: tuple[Flag, ...] = ()
    """Doubts."""
    suv: tuple[tuple[str, float | str], ...] = ()
    """Provenance of the SUV."""


def name_series(header: Dataset) -> str:
    """Return how a series is called in sentences: its number, modality and description."""
    number = text(header, "SeriesNumber")
    words = f"series {number}" if number else "a series without number"
    description = text(header, "SeriesDescription")
    return f"{words} ({text(header, 'Modality') or 'no modality'}{', ' + description if description else ''})"


def read_volume(files: Sequence[File]) -> Volume:
    """Return the volume of one image series, `(K, R, C)` float32 in HU, SUVbw, Bq/ml or arbitrary units.

    Refuses with a code whatever the geometry gate, the pixel data or the rescale do not allow.
    """
    header = files[0].header
    flags: list[Flag] = []
    ordered, arranged = _arranged(files, flags)
    flags += arranged.flags
    flags += _header_doubts(ordered)
    kernels = kernels_of(ordered)
    flags += kernel_doubts(kernels)
    quantity = judge_values(ordered, arranged)
    flags += quantity.flags
    voxels = read_voxels(ordered, quantity.factors, quantity.role)
    if voxels.padded:
        sentence = f"{voxels.padded} voxels are padding and were set to air or to the lowest value"
        flags.append(Flag(code="pixel-padding", sentence=sentence))
    quantity = _check_values(voxels.lowest, voxels.highest, quantity, flags)
    uid = files[0].series_instance_uid
    named = name_series(header)
    return Volume(
        array=voxels.array,
        geometry=arranged.geometry,
        role=quantity.role,
        unit=quantity.unit,
        modality=text(header, "Modality"),
        series_instance_uid=uid,
        sop_class_uid=files[0].sop_class_uid,
        sop_instance_uids=tuple(s.plane.sop_instance_uid for s in ordered),
        slice_positions=arranged.positions_mm,
        series_description=text(header, "SeriesDescription"),
        series_number=integer(header, "SeriesNumber"),
        convolution_kernel=", ".join(kernels),
        is_reformatted=all(s.is_reformatted for s in ordered),
        flags=tuple(replace(f, sentence=f"{named}: {f.sentence}", series_instance_uid=uid) for f in flags),
        suv=dict(quantity.suv),
        frame_numbers=_frame_numbers(ordered),
    )


def read_grid(files: Sequence[File]) -> Volume:
    """Return an image series without its values: `(K, R, C)` zeros that take no memory. Refuses as `read_volume`."""
    header = files[0].header
    ordered, arranged = _arranged(files, [])
    plane = ordered[0].plane
    return Volume(
        array=np.broadcast_to(np.float32(0), (len(ordered), plane.rows, plane.columns)),
        geometry=arranged.geometry,
        role="other",
        unit=codes.NO_UNITS,
        modality=text(header, "Modality"),
        series_instance_uid=files[0].series_instance_uid,
        sop_class_uid=files[0].sop_class_uid,
        sop_instance_uids=tuple(s.plane.sop_instance_uid for s in ordered),
        slice_positions=arranged.positions_mm,
        series_number=integer(header, "SeriesNumber"),
        frame_numbers=_frame_numbers(ordered),
    )


def _frame_numbers(slices: Sequence[Slice]) -> tuple[int, ...]:
    """Return which frame of its instance each slice is, from 1; empty unless all are of multi-frame objects."""
    if not all("PerFrameFunctionalGroupsSequence" in s.file.header for s in slices):
        return ()
    return tuple(s.plane.frame + 1 for s in slices)


def _arranged(files: Sequence[File], flags: list[Flag]) -> tuple[list[Slice], Arrangement]:
    """Return the slices of a series in their order, and how they lie. Refuses `several-acquisitions` too."""
    require_readable(files)
    slices = _without_localizers([s for file in files for s in slices_of(file)], flags)
    _require_no_projection(slices)
    arranged = arrange([s.plane for s in slices])
    ordered = [slices[i] for i in arranged.order]
    require_one_reconstruction(ordered, arranged)
    _require_size(ordered)
    return ordered, arranged


def require_readable(files: Sequence[File]) -> None:
    """Refuse what is not measured.

    Refuses `unsupported-modality`, `mixed-modalities`, `modality-differs-from-class`, `secondary-capture`,
    `unknown-sop-class`.
    """
    modalities = {file.modality for file in files}
    if len(modalities) > 1:
        raise Refused("mixed-modalities", f"it holds {' and '.join(sorted(modalities))} images; split it")
    classes = {file.sop_class_uid for file in files}
    if any(map(_is_capture, classes)):
        raise Refused(
            "secondary-capture", "it is a secondary capture (a picture of a screen), which has no geometry"
        )
    modality = modalities.pop()
    if modality not in ROLES:
        raise Refused("unsupported-modality", f"images of modality {modality or '(none)'} are not measured")
    named = {CLASSES[uid] for uid in classes if uid in CLASSES}
    if named - {modality}:
        sentence = (
            f"it calls itself {modality} and its images are of the class of {' and '.join(sorted(named))}"
        )
        raise Refused("modality-differs-from-class", f"{sentence}; correct it first")
    if any(UID(uid).name == uid for uid in classes):
        raise Refused(
            "unknown-sop-class", "its SOP class is not in the DICOM standard, so results cannot refer to it"
        )


def _is_capture(sop_class_uid: str) -> bool:
    return sop_class_uid == SECONDARY_CAPTURE or sop_class_uid.startswith(f"{SECONDARY_CAPTURE}.")


def _without_localizers(slices: Sequence[Slice], flags: list[Flag]) -> list[Slice]:
    kept = [s for s in slices if "LOCALIZER" not in s.image_type]
    if not kept:
        raise Refused("localizer", "it is a localizer (scout), which is not measured")
    if len(kept) < len(slices):
        sentence = f"{len(slices) - len(kept)} localizer images among its slices were left out"
        flags.append(Flag(code="localizer-left-out", sentence=sentence))
    return kept


def _require_no_projection(slices: Sequence[Slice]) -> None:
    """Refuse (`projection`) a PET of which every image is a MIP or a reprojection: it shows no depth."""
    if all(s.file.modality == "PT" and _is_projection(s) for s in slices):
        raise Refused(
            "projection", "it is a projection (MIP or reprojection) of a PET, which has no depth to measure"
        )


def _is_projection(slice_: Slice) -> bool:
    kinds = (*slice_.image_type[2:], *texts(slice_.file.header, "SeriesType")[1:])
    return not PROJECTIONS.isdisjoint(word.upper() for word in kinds)


def _require_size(slices: Sequence[Slice]) -> None:
    plane = slices[0].plane
    if plane.rows * plane.columns * len(slices) > MAX_VOXELS:
        raise Refused(
            "too-large", f"{len(slices)} x {plane.rows} x {plane.columns} voxels are too many to analyse"
        )


def _header_doubts(slices: Sequence[Slice]) -> list[Flag]:
    flags = []
    kinds = {text(s.file.header, "PhotometricInterpretation").upper() for s in slices}
    if kinds == {"MONOCHROME1"}:
        sentence = "it is stored for inverted display (MONOCHROME1); its values are taken as they are"
        flags.append(Flag(code="monochrome1", sentence=sentence))
    elif kinds - {"MONOCHROME2", ""}:
        raise Refused(
            "colour-image",
            f"its photometric interpretation is {' and '.join(sorted(kinds))}; send grey images",
        )
    stated = integer(slices[0].file.header, "NumberOfSlices")
    if stated is not None and stated > len(slices):
        sentence = f"{len(slices)} of {stated} stated slices are here; was it cut on purpose?"
        flags.append(Flag(code="fewer-slices-than-stated", sentence=sentence))
    files = {id(s.file): s.file for s in slices}.values()
    if any(text(file.header, "LossyImageCompression") == "01" or is_lossy(file) for file in files):
        flags.append(
            Flag(code="lossy-compression", sentence="it was compressed with loss; values are approximate")
        )
    return flags


def judge_values(slices: Sequence[Slice], arranged: Arrangement) -> Quantity:
    """Return what the values mean. Refuses (`bad-rescale`, `modality-lut`, `no-rescale` for PET)."""
    modality = slices[0].file.modality
    if any(s.has_lookup_table for s in slices):
        raise Refused("modality-lut", "its values go through a lookup table, which is not supported")
    if any(x is not None and not math.isfinite(x) for s in slices for x in (s.slope, s.intercept)):
        raise Refused("bad-rescale", "RescaleSlope or RescaleIntercept is not a finite number")
    if any(s.slope == 0 for s in slices):
        raise Refused("bad-rescale", "RescaleSlope is 0")
    lacking = [s.slope is None or s.intercept is None for s in slices]
    missing = any(lacking)
    if missing and not all(lacking):
        raise Refused(
            "bad-rescale", f"{sum(lacking)} of {len(slices)} images have no rescale, the others have one"
        )
    ones = (1.0,) * len(slices)
    if modality == "MR":
        return Quantity(role="mr", unit=ARBITRARY_UNIT, factors=ones)
    if modality == "PT":
        if missing:
            raise Refused(
                "no-rescale",
                "PET images have no RescaleSlope or RescaleIntercept, so their values mean nothing",
            )
        return _pet(slices, arranged)
    types = {s.rescale_type for s in slices} - {"HU", "US", ""}
    if types:
        sentence = (
            f"its values are {' and '.join(sorted(types))}, not Hounsfield units; no HU statistics are made"
        )
        flag = Flag(code="not-hounsfield", sentence=sentence)
        return Quantity(role="other", unit=codes.NO_UNITS, factors=ones, flags=(flag,))
    if missing:
        flag = Flag(
            code="no-rescale", sentence="it has no rescale; stored values are taken as Hounsfield units"
        )
        return Quantity(role="ct", unit=codes.HU, factors=ones, flags=(flag,))
    return Quantity(role="ct", unit=codes.HU, factors=ones)


def _pet(slices: Sequence[Slice], arranged: Arrangement) -> Quantity:
    """Return SUV where it can be computed; else activity, with the reason.

    Enhanced PET objects, which state units and tracer elsewhere, keep their activity.
    """
    voxel_ml = float(abs(np.linalg.det(arranged.geometry.affine[:3, :3]))) / 1000
    headers = [s.file.header for s in slices]
    try:
        scale = suv_scale(headers, voxel_ml=voxel_ml)
    except Refused as reason:
        units = text(headers[0], "Units").upper()
        flag = Flag(code=reason.code, sentence=f"no SUV: {reason.sentence}")
        unit = codes.BQ_PER_ML if units == "BQML" else codes.NO_UNITS
        return Quantity(role="pet_activity", unit=unit, factors=(1.0,) * len(slices), flags=(flag,))
    return Quantity(
        role="pet_suv",
        unit=codes.SUV_BW_UNIT,
        factors=scale.factors,
        flags=scale.flags,
        suv=(*scale.provenance.items(), *comparable(headers).items()),
    )


def _check_values(low: float, high: float, quantity: Quantity, flags: list[Flag]) -> Quantity:
    """Refuse values that are no numbers (`bad-values`), and doubt Hounsfield units that cannot be such."""
    if not (math.isfinite(low) and math.isfinite(high)):
        raise Refused("bad-values", "its values are too large for numbers; the rescale is wrong")
    if quantity.role == "ct" and any(f.code == "no-rescale" for f in quantity.flags) and low >= 0:
        sentence = "without a rescale its values are all positive, so they are no Hounsfield units; none are reported"
        flags.append(Flag(code="not-hounsfield", sentence=sentence))
        return replace(quantity, role="other", unit=codes.NO_UNITS)
    if quantity.role == "ct" and (high > MAX_HU or low < -MAX_HU):
        flags.append(
            Flag(
                code="implausible-hu", sentence=f"values from {low:.0f} to {high:.0f} HU cannot be all right"
            )
        )
    if low == high:
        flags.append(Flag(code="constant-image", sentence=f"every voxel has the value {low:g}"))
    return quantity
