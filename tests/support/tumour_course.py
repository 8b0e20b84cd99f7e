"""Visits of one patient, made from a real chest CT: two balls whose size is known, drawn by a person as a SEG."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import highdicom
import numpy as np
from dicom_series import make_series
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.uid import generate_uid
from scipy import ndimage

from plugins import codes

SPACING_MM = (3.0, 1.9532, 1.9532)
TUMOUR_HU, LUNG_HU, AIR_HU = 40.0, -500.0, -950.0


@dataclass(frozen=True)
class Visit:
    """How a patient comes to a scanner."""

    date: str
    diameters_mm: tuple[float, float]
    moved_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """How far the patient lies elsewhere in the scanner, x, y, z."""
    turned_degrees: float = 0.0
    """How far about the long axis."""


def read_chest(folder: Path) -> NDArray[np.float32]:
    """Return the CT of a folder in HU, (K, R, C), every second row and column."""
    slices = [dcmread(path) for path in sorted(folder.glob("*.dcm"))]
    slices.sort(key=lambda s: float(s.ImagePositionPatient[2]))
    return np.stack(
        [
            (s.pixel_array[::2, ::2] * float(s.RescaleSlope) + float(s.RescaleIntercept)).astype(np.float32)
            for s in slices
        ]
    )


def centres(chest: NDArray[np.float32]) -> tuple[NDArray[np.float64], ...]:
    """Return the index of the place in either lung that is farthest from everything."""
    lung = ndimage.binary_opening((chest > AIR_HU) & (chest < LUNG_HU), iterations=2)
    depth = ndimage.distance_transform_edt(lung, sampling=SPACING_MM)
    half = chest.shape[2] // 2
    right, left = depth.copy(), depth.copy()
    right[..., half:] = left[..., :half] = 0
    return tuple(np.array(np.unravel_index(int(side.argmax()), side.shape), float) for side in (right, left))


def write_visit(chest: NDArray[np.float32], visit: Visit, folder: Path, patient_id: str) -> list[Path]:
    """Return the files of one visit: the CT, and the SEG in which a person drew both lesions."""
    rng = np.random.default_rng(int(visit.date))
    turned, seats = _turned(chest, centres(chest), visit.turned_degrees)
    balls = [_ball(chest.shape, seat, d) for seat, d in zip(seats, visit.diameters_mm, strict=True)]
    array = turned + rng.normal(0, 8, turned.shape)
    for ball in balls:
        array = np.where(ball > 0, (1 - ball) * array + ball * TUMOUR_HU, array)
    origin = tuple(float(m) for m in np.array((-250.0, -163.0, -1132.0)) + visit.moved_mm)
    ct = make_series(
        folder / "ct",
        np.clip(array, -1024, 3000),
        spacing_mm=SPACING_MM,
        origin_mm=origin,
        patient_id=patient_id,
        study_date=visit.date,
        PatientName="Course^Of",
        SliceThickness=3.0,
    )
    drawing = folder / "drawn.dcm"
    _drawn([dcmread(path) for path in ct], [ball > 0.5 for ball in balls]).save_as(drawing)
    return [*ct, drawing]


def _turned(
    chest: NDArray[np.float32], seats: tuple[NDArray[np.float64], ...], degrees: float
) -> tuple[NDArray[np.float32], list[NDArray[np.float64]]]:
    angle = np.radians(degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    middle = (np.array(chest.shape) - 1) / 2
    moved = ndimage.affine_transform(
        chest, turn, offset=middle - turn @ middle, order=1, cval=float(chest.min())
    )
    return moved, [turn.T @ (seat - middle) + middle for seat in seats]


def _ball(shape: tuple[int, ...], seat: NDArray[np.float64], diameter_mm: float) -> NDArray[np.float64]:
    """Return the share of each voxel that the ball fills, to within the slope of its edge."""
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    squared = sum(((a - s) * mm) ** 2 for a, s, mm in zip(axes, seat, SPACING_MM, strict=True))
    return np.clip((diameter_mm / 2 - np.sqrt(squared)) / SPACING_MM[1] + 0.5, 0, 1)


def _drawn(images: list[object], masks: list[NDArray[np.bool_]]) -> highdicom.seg.Segmentation:
    descriptions = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=f"Target {number}",
            segmented_property_category=CodedConcept.from_code(codes.MORPHOLOGICALLY_ABNORMAL),
            segmented_property_type=CodedConcept.from_code(codes.NEOPLASM),
            algorithm_type="MANUAL",
        )
        for number in range(1, len(masks) + 1)
    ]
    return highdicom.seg.Segmentation(
        source_images=images,  # type: ignore[arg-type]
        pixel_array=np.stack(masks, axis=-1),
        segmentation_type="BINARY",
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=50,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Workstation",
        manufacturer_model_name="Pencil",
        software_versions="1",
        device_serial_number="1",
        content_creator_name="Reader^One",
    )
