"""The training form on disk: one crop of an image with its masks as NIfTI, and the manifest over all of them.

A data set is a folder with `manifest.json`, `images/<case>.nii.gz` (HU or SUV) and `masks/<case>.nii.gz` (0 and 1).
Voxels are those of the source, never resampled; the affine of the file keeps where they lie, oblique ones too.
`training.lidc.load_nodule` turns the axes to the patient's and takes the distances along them, which is right for an
oblique grid as well: the axes of a `Volume` stand at right angles.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plugins.contract import Mask, Volume
from plugins.errors import Refused, Unavailable
from plugins.measure.axes import measure_axes
from plugins.measure.volume import check_mask
from store.dicom.nifti import RAS_TO_LPS
from store.file_hash import sha256_of
from training.evaluate.data import MANIFEST
from training.manifest import Case, DataManifest, folds, read_manifest

MARGIN_MM = 20.0
LARGEST_INT16 = 32767
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}")
ROLE = re.compile(r"[a-z][a-z0-9_]{0,30}")

Box = tuple[slice, slice, slice]
Tags = Mapping[str, float | str | None]


def case_name(*words: object) -> str:
    """Return words as one name that every file system takes; what it does not take becomes one hyphen."""
    name = "_".join(re.sub(r"[^A-Za-z0-9._-]+", "-", str(word)).strip("-._") for word in words if str(word))
    return name[:150].strip("-._") or "case"


def write_case(
    folder: Path,
    volume: Volume,
    masks: Mapping[str, Mask],
    *,
    case_id: str,
    patient_id: str,
    fold: int = 0,
    tags: Tags | None = None,
    margin_mm: float = MARGIN_MM,
    image_role: str = "image",
    beside: Mapping[str, Volume] | None = None,
) -> Case:
    """Return the case after its files were written: the box around all masks and `margin_mm` more on every side.

    `masks` has the role `mask`, which the size (long axis, mm) is taken from, and may have those of other readers
    (`mask_reader1`, may be empty). `beside` are other images, each cut on its own grid to the same box in mm. Tags that
    the volume itself knows (spacing, kernel, series) need not be given. A file of the same name is written over.
    Refuses `bad-case-id`, `bad-role`, `empty-mask`, `mask-of-another-grid`, `single-slice`, `image-elsewhere` (one of
    `beside`) and `bad-values`; raises Unavailable when the folder cannot be written.
    """
    images = {image_role: volume, **(beside or {})}
    _require_names(case_id, [image_role, *(beside or {})], list(masks))
    check_mask(masks["mask"], volume)
    if any(min(image.array.shape) < 2 for image in images.values()):
        raise Refused(
            "single-slice", f"the image of {case_id} is one voxel thick; nothing is learned from it"
        )
    box = _box(masks.values(), volume, margin_mm)
    files: dict[str, str] = {}
    for role, image in images.items():
        own = box if image is volume else _same_place(box, volume, image)
        suffix = "" if role == image_role else f"_{role}"
        files[role] = f"images/{case_id}{suffix}.nii.gz"
        _write(folder / files[role], _narrow(image.array[own], case_id), image, own)
    for role, mask in masks.items():
        suffix = "" if role == "mask" else f"_{role.removeprefix('mask_')}"
        files[role] = f"masks/{case_id}{suffix}.nii.gz"
        _write(folder / files[role], _cut(mask, volume, box), volume, box)
    return Case(
        case_id=case_id,
        patient_id=patient_id,
        files=files,
        sha256={role: sha256_of(folder / path) for role, path in files.items()},
        fold=fold,
        size_mm=measure_axes(masks["mask"], volume).long_axis_mm,
        tags={**_known(volume), **(tags or {})},
    )


def _require_names(case_id: str, images: Sequence[str], masks: Sequence[str]) -> None:
    """Raise Refused for a case or for roles that cannot name files, and where no mask has the role `mask`."""
    roles = [*images, *masks]
    if not NAME.fullmatch(case_id):
        raise Refused("bad-case-id", f"'{case_id}' cannot name a file: use letters, digits, '.', '_' and '-'")
    if "mask" not in masks or len(set(roles)) < len(roles) or not all(ROLE.fullmatch(r) for r in roles):
        raise Refused(
            "bad-role", f"the roles {', '.join(roles)} are not one 'mask' and other lower-case words"
        )


def write_data_set(
    folder: Path, name: str, cases: Sequence[Case], fold_of: Mapping[str, int] | None = None
) -> DataManifest:
    """Return the manifest after it was written to the folder, its cases in folds by patient.

    `fold_of` names the folds of patients that have one already; the others are dealt out by their largest lesion.
    Refuses `no-cases` and `same-case-twice`; raises Unavailable when the folder cannot be written.
    """
    if not cases:
        raise Refused("no-cases", f"there is no case to write to {folder}")
    names = [case.case_id for case in cases]
    if twice := sorted({one for one in names if names.count(one) > 1}):
        raise Refused("same-case-twice", f"several cases are called {', '.join(twice[:3])}")
    largest: dict[str, float] = {}
    for case in cases:
        largest[case.patient_id] = max(largest.get(case.patient_id, 0.0), case.size_mm)
    kept = {patient: fold for patient, fold in (fold_of or {}).items() if patient in largest}
    dealt = {**folds({p: mm for p, mm in largest.items() if p not in kept}), **kept}
    folded = [replace(case, fold=dealt[case.patient_id]) for case in cases]
    manifest = DataManifest(name=name, cases=tuple(sorted(folded, key=lambda case: case.case_id)))
    path = folder / MANIFEST
    try:
        manifest.write(part := path.with_suffix(".part"))
        part.replace(path)
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror or error}") from error
    return read_manifest(path)


def _box(masks: Iterable[Mask], volume: Volume, margin_mm: float) -> Box:
    """Return the part of the grid within `margin_mm` of any mask, at least one voxel more on each side."""
    held = [mask for mask in masks if mask.count]
    for mask in held:
        check_mask(mask, volume)
    low = np.min([mask.origin for mask in held], axis=0)
    high = np.max([np.add(mask.origin, mask.voxels.shape) for mask in held], axis=0)
    more = np.maximum(np.ceil(margin_mm / np.asarray(volume.spacing_mm) - 1e-6), 1).astype(int)
    k, r, c = (
        slice(max(0, int(a - m)), min(n, int(b + m)))
        for a, b, m, n in zip(low, high, more, volume.array.shape, strict=True)
    )
    return (k, r, c)


def _same_place(box: Box, volume: Volume, other: Volume) -> Box:
    """Return the part of another grid that covers a box of the first. Refuses `image-elsewhere` when none does."""
    ends = [(s.start - 0.5, s.stop - 0.5) for s in box]
    corners = other.to_index(volume.to_mm(np.array(np.meshgrid(*ends)).reshape(3, -1).T))
    low = np.maximum(np.floor(corners.min(axis=0)), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, other.array.shape)
    if (high - low < 2).any():
        raise Refused("image-elsewhere", f"series {other.series_number} does not reach to the lesion")
    k, r, c = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return (k, r, c)


def _narrow(values: NDArray[np.float32], case_id: str) -> NDArray[np.float32] | NDArray[np.int16]:
    """Return whole numbers as int16, which a CT's are, and all others as they stand. Refuses `bad-values`."""
    if not np.isfinite(values).all():
        raise Refused("bad-values", f"the image of {case_id} holds values that are no numbers")
    whole = np.rint(values)
    if np.array_equal(whole, values) and np.abs(values).max() <= LARGEST_INT16:
        return np.asarray(whole, dtype=np.int16)
    return values


def _cut(mask: Mask, volume: Volume, box: Box) -> NDArray[np.uint8]:
    cut = np.zeros(volume.array[box].shape, dtype=np.uint8)
    if mask.count:
        first = [o - s.start for o, s in zip(mask.origin, box, strict=True)]
        cut[tuple(slice(f, f + n) for f, n in zip(first, mask.voxels.shape, strict=True))] = mask.voxels
    return cut


def _write(path: Path, voxels: NDArray[np.generic], volume: Volume, box: Box) -> None:
    """Write voxels `(k, r, c)` of a part of a volume with the affine that keeps them where they are."""
    import nibabel

    affine = volume.geometry.affine.copy()
    affine[:3, 3] = volume.to_mm((box[0].start, box[1].start, box[2].start))
    written = nibabel.Nifti1Image(
        np.ascontiguousarray(voxels.transpose(2, 1, 0)), RAS_TO_LPS @ affine[:, [2, 1, 0, 3]]
    )
    written.header.set_xyzt_units("mm")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(written, path)
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror or error}") from error


def _known(volume: Volume) -> dict[str, float | str]:
    k, _, c = volume.spacing_mm
    words = {"kernel": volume.convolution_kernel, "series_instance_uid": volume.series_instance_uid}
    return {"spacing_x_mm": c, "spacing_z_mm": k, **{key: said for key, said in words.items() if said}}


__all__ = ["MARGIN_MM", "Box", "Tags", "case_name", "write_case", "write_data_set"]
