"""A study of the thorax phantom without DICOM, and its true masks, for tests of what comes after reading."""

from __future__ import annotations

from datetime import date

import highdicom
import numpy as np
from numpy.typing import NDArray

from plugins import codes
from plugins.contract import Finding, Mask, Patient, Study, Volume
from plugins.measure.lesion import measure_lesion
from training.phantom import Grid, Nodule, Thorax, paint_nodule


def volume_on(grid: Grid, array: NDArray[np.floating], role: str) -> Volume:
    """Return a volume on a phantom grid."""
    x, y, z = grid.origin_mm
    dz, dy, dx = grid.spacing_mm
    affine = np.array([[0, 0, dx, x], [0, dy, 0, y], [dz, 0, 0, z], [0, 0, 0, 1]], dtype=np.float64)
    geometry = highdicom.VolumeGeometry(
        affine=affine, spatial_shape=grid.shape, frame_of_reference_uid="1.2.3.1", coordinate_system="PATIENT"
    )
    return Volume(
        array=array.astype(np.float32),
        geometry=geometry,
        role=role,
        unit=codes.HU if role == "ct" else codes.SUV_BW_UNIT,
        modality="CT" if role == "ct" else "PT",
        series_instance_uid="1.2.3.2" if role == "ct" else "1.2.3.3",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uids=tuple(f"1.2.3.{4 if role == 'ct' else 5}.{k}" for k in range(grid.shape[0])),
        slice_positions=tuple((x, y, z + k * dz) for k in range(grid.shape[0])),
    )


def study_of(thorax: Thorax) -> Study:
    """Return the phantom as a study with a CT and a PET volume."""
    return Study(
        study_instance_uid=f"1.2.3.1{thorax.date_index}",
        patient=Patient(patient_id=f"PHANTOM-{thorax.seed:04d}"),
        study_date=date(*thorax.acquired_at.timetuple()[:3]),
        volumes=(
            volume_on(thorax.ct_grid, thorax.ct, "ct"),
            volume_on(thorax.pet_grid, thorax.pet, "pet_suv"),
        ),
    )


def true_mask(grid: Grid, nodule: Nodule) -> Mask:
    """Return the voxels of which more than half lies in the nodule."""
    share = np.zeros(grid.shape, dtype=np.float32)
    paint_nodule(share, grid.axes_mm(), grid.spacing_mm, nodule, 1.0)
    return Mask.from_full(share > 0.5)


def true_finding(volume: Volume, grid: Grid, nodule: Nodule) -> Finding:
    """Return the finding that a perfect segmentation of one nodule gives on one volume."""
    mask = true_mask(grid, nodule)
    return Finding(
        key=nodule.name,
        label=f"{nodule.name} {volume.modality}",
        series_instance_uid=volume.series_instance_uid,
        mask=mask,
        category=codes.MORPHOLOGICALLY_ABNORMAL,
        type=codes.NODULE,
        measurements=measure_lesion(mask, volume),
        confidence=0.9,
    )
