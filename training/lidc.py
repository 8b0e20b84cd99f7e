"""Nodule crops of LIDC-IDRI as cases: `nodules.csv`, `images/` and `masks/` (NIfTI) of one folder."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugins.errors import Refused
from store.file_hash import sha256_of
from training.manifest import Case, DataManifest, folds
from training.table import hashes_of, number_in, read_filled

TAGS = ("spacing_x_mm", "spacing_z_mm", "malignancy", "subtlety", "texture", "spiculation", "margin")
COLUMNS = ("image_file", "mask_file", "patient_id", "nodule_id", "diameter_mm", *TAGS)
BAD_TABLE = "bad-table"
SAME_MM = 0.01
"""Two grids are one when no corner of the one lies further from that of the other, mm."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Nodule:
    """One nodule crop."""

    case: Case
    """Which one."""
    image: NDArray[np.float32]
    """HU, `(K, R, C)`."""
    mask: NDArray[np.bool_]
    """The union of what the readers drew, `(K, R, C)`: what one of them followed counts."""
    spacing_mm: tuple[float, float, float]
    """Distance of two voxels along k, r, c; mm."""

    @property
    def centre(self) -> tuple[float, float, float]:
        """Return the centre of gravity of the mask, voxel index (k, r, c)."""
        k, r, c = np.argwhere(self.mask).mean(axis=0).tolist()
        return (k, r, c)


def lidc_manifest(root: Path) -> DataManifest:
    """Return the cases of the folder with their hashes and folds.

    Refuses `no-nodules` (no `nodules.csv` there) and `bad-table`: what `training.table` refuses, no row, a cell that is
    no finite number, a diameter that is not above 0, a `nodule_id` that is no whole number; `missing-files`.
    """
    table = root / "nodules.csv"
    if not table.is_file():
        raise Refused("no-nodules", f"there is no nodules.csv in {root}")
    cases = [_case(row, line, table) for line, row in read_filled(table, COLUMNS, BAD_TABLE)]
    largest: dict[str, float] = {}
    for case in cases:
        largest[case.patient_id] = max(largest.get(case.patient_id, 0.0), case.size_mm)
    fold_of = folds(largest)
    folded = [replace(case, fold=fold_of[case.patient_id]) for case in cases]
    return DataManifest(name="lidc_nodules", cases=tuple(sorted(folded, key=lambda case: case.case_id)))


def _case(row: dict[str, str], line: int, table: Path) -> Case:
    """Return the case of a row, in no fold yet."""
    number = partial(number_in, row, line=line, file=table, code=BAD_TABLE)
    nodule = number("nodule_id")
    if not nodule.is_integer():
        raise Refused(BAD_TABLE, f"the nodule_id {nodule:g} in line {line} of {table} is no whole number")
    size_mm = number("diameter_mm", above=0.0)
    tags = {name: number(name) if row[name] else None for name in TAGS}
    files = {"image": row["image_file"], "mask": row["mask_file"]}
    return Case(
        case_id=f"{row['patient_id']}_nodule{int(nodule):02d}",
        patient_id=row["patient_id"],
        files=files,
        sha256=hashes_of(files, line, table),
        fold=0,
        size_mm=size_mm,
        tags=tags,
    )


def load_nodule(case: Case, root: Path) -> Nodule:
    """Return image and mask of a case, slices from feet to head.

    Refuses `no-crop` (a case without image or mask), `changed-file`, `unreadable-file`, `unequal-grids`, `not-finite`
    and `empty-mask`.
    """
    if not {"image", "mask"} <= case.files.keys():
        raise Refused("no-crop", f"{case.case_id} has {', '.join(case.files)}, and not an image and a mask")
    for role, path in case.files.items():
        if sha256_of(root / path) != case.sha256[role]:
            raise Refused("changed-file", f"{path} is not the file that the manifest speaks of")
    image, spacing_mm, lies = _array(root / case.files["image"])
    mask, _, drawn = _array(root / case.files["mask"])
    if image.shape != mask.shape or not _apart_mm(lies, drawn, image.shape) <= SAME_MM:
        raise Refused(
            "unequal-grids",
            f"image and mask of {case.case_id} have different grids; resample the mask onto the image",
        )
    for role, voxels in (("image", image), ("mask", mask)):
        if not np.isfinite(voxels).all():
            raise Refused(
                "not-finite", f"the {role} of {case.case_id} holds voxels that are no finite number"
            )
    if not (mask > 0).any():
        raise Refused("empty-mask", f"nothing is drawn in the mask of {case.case_id}; leave the case out")
    return Nodule(case=case, image=image.astype(np.float32), mask=mask > 0, spacing_mm=spacing_mm)


def _array(path: Path) -> tuple[NDArray[Any], tuple[float, float, float], NDArray[np.float64]]:
    """Return the voxels `(K, R, C)` in the patient's LPS order, their spacing (k, r, c), mm, and where they lie.

    The last is the affine (c, r, k) to RAS, before the axes are turned to LPS. Refuses `unreadable-file`.
    """
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.orientations import OrientationError
    from nibabel.spatialimages import HeaderDataError, ImageDataError

    faults = (ImageFileError, HeaderDataError, ImageDataError, OrientationError, zlib.error)
    try:
        image: Any = nibabel.load(path)
        if len(image.shape) != 3:
            raise ValueError(f"it has {len(image.shape)} axes and not 3")
        image = nibabel.as_closest_canonical(image)
        c, r, k = (float(z) for z in image.header.get_zooms())
        voxels = np.asarray(image.dataobj)[::-1, ::-1]
        if voxels.dtype.kind not in "biuf":
            raise ValueError(f"its voxels are no numbers but {voxels.dtype}")
    except (EOFError, OSError, ValueError, *faults) as error:
        raise Refused("unreadable-file", f"{path} cannot be read as a NIfTI of 3 axes ({error})") from error
    return np.ascontiguousarray(voxels.transpose(2, 1, 0)), (k, r, c), np.asarray(image.affine, np.float64)


def _apart_mm(one: NDArray[np.float64], other: NDArray[np.float64], shape: tuple[int, ...]) -> float:
    """Return how far a corner of a grid `(K, R, C)` lies at most from the same one by another affine, mm."""
    corners = np.array(list(product(*((0, n - 1) for n in reversed(shape)))))
    off = one - other
    return float(np.linalg.norm(corners @ off[:3, :3].T + off[:3, 3], axis=1).max())


__all__ = ["Nodule", "lidc_manifest", "load_nodule"]
