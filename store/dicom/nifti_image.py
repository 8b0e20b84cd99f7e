"""NIfTI images of a CT as volumes, and label images on the grid of a volume as NIfTI.

NIfTI positions are RAS, DICOM's LPS: x and y change sign. The axes of a file come in any order and direction; a volume
has slices, rows and columns, so the axis whose voxel distance stands alone becomes K (of slices that is usual), and
axes are turned until they run as the patient's do, which leaves every voxel where it is.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage

from plugins import codes
from plugins.contract import Volume
from plugins.errors import Refused
from store.dicom.nifti import RAS_TO_LPS, REAL_NUMBERS
from store.dicom.nifti_file import MOST_VOXELS, one_volume, open_nifti
from store.dicom.nifti_position import read_position
from store.dicom.voxels import AIR_HU

LOWEST_HU, HIGHEST_HU = -32768.0, 32767.0
"""What 16 bits hold; the lowest is padding."""
LEAST_RANGE = 10.0
"""Hounsfield units between the lowest and the highest value of a CT, at least."""
SQUARE = 0.02
"""Two voxel distances that differ by less than this part are equal."""
SHEAR = 1e-3
MOVED = 0.1
"""Putting the axes at right angles moves no voxel by more than such a part of the smallest voxel distance."""

HIGHEST_SUV = 1000.0
"""Higher values are Bq/ml, or counts."""
KINDS: Mapping[str, tuple[str, Code, str]] = {
    "CT": ("ct", codes.HU, CTImageStorage),
    "PT": ("pet_suv", codes.SUV_BW_UNIT, PositronEmissionTomographyImageStorage),
    "MR": ("mr", codes.NO_UNITS, MRImageStorage),
}
"""Role, unit and SOP class of what is said to be of a modality."""

FloatArray = NDArray[np.float64]
Labels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class NiftiImage:
    """A NIfTI image as a volume, and how the file has its axes."""

    volume: Volume
    """The CT in HU, `(K, R, C)`."""
    order: tuple[int, int, int]
    """Which axis of the file is k, r, c."""
    flipped: tuple[bool, bool, bool]
    """Whether k, r, c runs the other way in the file."""
    affine: FloatArray
    """The file's own affine, index to RAS, in mm whatever its unit."""

    def as_stored(self, labels: Labels) -> Labels:
        """Return labels `(K, R, C)` along the axes of the file."""
        turned = labels[tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)]
        return turned.transpose(np.argsort(self.order))


def read_ct(path: Path) -> NiftiImage:
    """Return the CT of a NIfTI file, however small.

    Refuses `unreadable-image`, `too-large`, `not-3d`, what `read_position` refuses, `sheared`, `bad-values` and
    `not-hounsfield`.
    """
    return _read(path, "CT", MOST_VOXELS)


def read_image(path: Path, modality: str, most_voxels: int = MOST_VOXELS) -> NiftiImage:
    """Return the image of a NIfTI file that is said to be of a modality: CT in HU, PT in SUVbw, MR in any unit.

    A file does not say what its values are: those of a PET are taken as SUV when they can be such.
    Refuses as `read_ct`, and `not-suv`.
    """
    return _read(path, modality, most_voxels)


def _read(path: Path, modality: str, most_voxels: int) -> NiftiImage:
    data, affine = _load(path, most_voxels)
    if modality == "CT":
        require_hounsfield(data, path.name)
        np.copyto(data, AIR_HU, where=data == LOWEST_HU)
    else:
        _require_values(data, path.name, modality)
    lps = RAS_TO_LPS @ affine
    require_upright(lps, data.shape, path.name)
    order, flipped = _axes(lps)
    array, turned = _turned(data, lps, order, flipped)
    return NiftiImage(volume=_volume(array, turned, modality), order=order, flipped=flipped, affine=affine)


def in_slices(values: NDArray[Any], lps: FloatArray) -> tuple[NDArray[Any], FloatArray]:
    """Return values of a file as a volume has them, `(K, R, C)`, and the affine from their index to LPS mm."""
    return _turned(values, lps, *_axes(lps))


def _turned(
    values: NDArray[Any], lps: FloatArray, order: tuple[int, int, int], flipped: tuple[bool, bool, bool]
) -> tuple[NDArray[Any], FloatArray]:
    turned = lps[:, [*order, 3]].copy()
    array = values.transpose(order)
    for axis, flip in enumerate(flipped):
        if flip:
            turned[:3, 3] += turned[:3, axis] * (array.shape[axis] - 1)
            turned[:3, axis] *= -1
    return array[tuple(slice(None, None, -1 if flip else 1) for flip in flipped)], turned


def require_hounsfield(values: NDArray[Any], name: str) -> None:
    """Refuse `bad-values` (not finite) and `not-hounsfield` (what no CT of lungs or of soft tissue in air can be)."""
    low, high = _ends(values, name, instead=AIR_HU)
    if low < LOWEST_HU or high > HIGHEST_HU:
        raise Refused(
            "bad-values",
            f"{name} has values from {low:g} to {high:g}, and Hounsfield units here are from {LOWEST_HU:g} to "
            f"{HIGHEST_HU:g}; convert them first",
        )
    if high - low < LEAST_RANGE:
        raise Refused(
            "not-hounsfield",
            f"{name} has values from {low:g} to {high:g}: a CT in Hounsfield units spans {LEAST_RANGE:g} or more; is "
            "it empty, or scaled?",
        )
    low = float(values.min(where=values >= AIR_HU, initial=high))  # what lies below is padding
    if low >= 0:
        raise Refused(
            "not-hounsfield",
            f"{name} has values from {low:g} to {high:g}: a CT in Hounsfield units has some below 0; is it another "
            "kind of image, or stored with an offset?",
        )


def _require_values(values: NDArray[Any], name: str, modality: str) -> None:
    """Refuse `bad-values` (not finite), and for PET `not-suv`."""
    low, high = _ends(values, name, instead=0.0)
    if modality == "PT" and not 0 < high <= HIGHEST_SUV:
        raise Refused(
            "not-suv", f"{name} has values from {low:g} to {high:g}, which are no SUV; convert them first"
        )


def _ends(values: NDArray[Any], name: str, *, instead: float) -> tuple[float, float]:
    """Return the lowest and the highest value. Refuses `bad-values` (not finite) and says what to write `instead`."""
    low, high = float(values.min()), float(values.max())
    if np.isfinite(low) and np.isfinite(high):
        return low, high
    numbers = values[np.isfinite(values)]
    if not numbers.size:
        raise Refused("bad-values", f"{name} holds no voxel that is a number; save it anew")
    raise Refused(
        "bad-values",
        f"{name} holds {values.size - numbers.size} voxels that are no numbers, beside values from "
        f"{numbers.min():g} to {numbers.max():g}; write {instead:g} there",
    )


def write_labels(path: Path, labels: Labels, volume: Volume, image: NiftiImage | None = None) -> None:
    """Write labels `(K, R, C)` of a volume as NIfTI: on the file's own grid when it came from `image`.

    What was at `path` stays as it is until the new file is whole. A link is followed.
    Refuses `bad-output` for a name that says no NIfTI, and for a place that cannot be written.
    """
    import nibabel

    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise Refused("bad-output", f"{path.name} has to end in .nii or .nii.gz")
    if image is None:
        affine = RAS_TO_LPS @ volume.geometry.affine[:, [2, 1, 0, 3]]
        stored = labels.transpose(2, 1, 0)
    else:
        affine, stored = image.affine, image.as_stored(labels)
    written = nibabel.Nifti1Image(np.ascontiguousarray(stored), affine)
    written.header.set_xyzt_units("mm")
    target = Path(os.path.realpath(path))
    ending = ".nii" if path.name.lower().endswith(".nii") else ".nii.gz"
    half = target.with_name(f".{uuid.uuid4().hex}{ending}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            nibabel.save(written, half)
            half.replace(target)
        finally:
            half.unlink(missing_ok=True)
    except OSError as error:
        raise Refused("bad-output", f"{path} cannot be written: {error.strerror or error}") from error


def _load(path: Path, most_voxels: int) -> tuple[NDArray[np.float32], FloatArray]:
    """Return the values `(i, j, k)` and the affine from their index to RAS mm."""
    with open_nifti(path, "unreadable-image", most_voxels) as (header, voxels):
        if header.get_data_dtype().kind not in REAL_NUMBERS:
            raise Refused(
                "unreadable-image",
                f"{path.name} holds colours or complex numbers; save it with a real number for each voxel",
            )
        data = one_volume(np.asarray(voxels, dtype=np.float32), "not-3d", path.name)
    return data, read_position(header, path.name)


def require_upright(affine: FloatArray, shape: tuple[int, ...], name: str) -> None:
    """Refuse `sheared`: axes of a grid `shape` that are not at right angles, by themselves or at its corners."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    directions = affine[:3, :3] / spacing
    half = (np.array(list(product((-1, 1), repeat=3))) * (np.array(shape) - 1)) / 2
    moved_mm = np.linalg.norm(half @ (_straight(affine, shape) - affine)[:3, :3].T, axis=1)
    if np.abs(directions.T @ directions - np.eye(3)).max() > SHEAR or moved_mm.max() > MOVED * spacing.min():
        raise Refused(
            "sheared", f"the axes of {name} are not at right angles; resample it to a grid whose are"
        )


def _straight(affine: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Return an affine with its axes at right angles, about the middle of a grid `shape`."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    u, _, v = np.linalg.svd(affine[:3, :3] / spacing)
    straight = affine.copy()
    straight[:3, :3] = (u @ v) * spacing
    straight[:3, 3] += (affine - straight)[:3, :3] @ ((np.array(shape) - 1) / 2)
    return straight


def _axes(lps: FloatArray) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Return which axes of the file are k, r, c, and which of them are turned round.

    Every axis runs along that of the patient which is nearest to it; rows and columns so that k is their right-handed
    normal, as in DICOM.
    """
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    cosines = lps[:3, :3] / spacing
    k = _slice_axis(spacing, cosines)
    first, second = (axis for axis in range(3) if axis != k)
    sign = [1.0 if cosines[np.abs(cosines[:, a]).argmax(), a] > 0 else -1.0 for a in range(3)]
    towards = cosines * sign
    normal = float(np.dot(np.cross(towards[:, second], towards[:, first]), towards[:, k]))
    r, c = (first, second) if normal > 0 else (second, first)
    return (k, r, c), (sign[k] < 0, sign[r] < 0, sign[c] < 0)


def _slice_axis(spacing: FloatArray, cosines: FloatArray) -> int:
    """Return the axis whose voxel distance stands alone, else the one nearest to the patient's own."""
    for axis in range(3):
        a, b = (spacing[other] for other in range(3) if other != axis)
        if abs(a - b) <= SQUARE * a and abs(spacing[axis] - a) > SQUARE * a:
            return axis
    return int(np.abs(cosines[2]).argmax())


def _volume(array: NDArray[np.float32], affine: FloatArray, modality: str) -> Volume:
    """Return the volume; its axes are put exactly at right angles, which moves no voxel by more than a tenth of one."""
    shape = (int(array.shape[0]), int(array.shape[1]), int(array.shape[2]))
    straight = _straight(affine, shape)
    role, unit, sop_class_uid = KINDS[modality]
    positions = [tuple((straight[:3, 3] + k * straight[:3, 0]).tolist()) for k in range(shape[0])]
    return Volume(
        array=np.ascontiguousarray(array),
        geometry=highdicom.VolumeGeometry(straight, shape, coordinate_system="PATIENT"),
        role=role,
        unit=unit,
        modality=modality,
        series_instance_uid="",
        sop_class_uid=sop_class_uid,
        sop_instance_uids=("",) * shape[0],
        slice_positions=tuple((p[0], p[1], p[2]) for p in positions),
    )


__all__ = [
    "NiftiImage", "in_slices", "read_ct", "read_image", "require_hounsfield", "require_upright", "write_labels",
]  # fmt: skip
