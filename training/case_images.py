"""The NIfTI files of a case: read with the slices that a node takes of them, and held against each other."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugins.contract import Flag
from plugins.errors import Refused
from plugins.patient_axes import PatientAxes
from store.dicom.nifti import RAS_TO_LPS, REAL_NUMBERS, whole_labels
from store.dicom.nifti_file import one_volume, open_nifti
from store.dicom.nifti_image import in_slices, require_upright
from store.dicom.nifti_position import read_position
from store.file_hash import sha256_of
from training.manifest import Case

SAME_MM = 0.01
"""Two grids are one when no corner of the one lies further from that of the other, mm."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseImage:
    """What one file holds."""

    path: Path
    """Which file."""
    voxels: NDArray[Any]
    """`(K, R, C)`: slices, rows and columns as `store.dicom.nifti_image` takes them, each along the patient's axis."""
    spacing_mm: tuple[float, float, float]
    """Distance of two voxels along k, r, c; mm."""
    affine: NDArray[np.float64]
    """Index (k, r, c) to LPS in mm, whatever the file's unit."""

    @property
    def axes(self) -> PatientAxes:
        """Return how k, r, c lie in the patient."""
        return PatientAxes.along(self.affine)


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseMask:
    """What is drawn in one file."""

    voxels: NDArray[np.bool_]
    """`(K, R, C)`; every label counts."""
    doubts: tuple[Flag, ...]
    """What was odd about its values."""


def read_images(case: Case, root: Path, roles: Collection[str]) -> dict[str, CaseImage]:
    """Return those files of a case that have one of these roles, by role.

    Refuses `changed-file` (any file of the case) and what `read_image` refuses.
    """
    for role, path in case.files.items():
        if sha256_of(root / path) != case.sha256[role]:
            raise Refused("changed-file", f"{path} is not the file that the manifest speaks of")
    return {role: read_image(root / case.files[role]) for role in roles if role in case.files}


def read_image(path: Path) -> CaseImage:
    """Return what a NIfTI file holds; where it lies is what its affine says.

    Refuses `unreadable-file` (no NIfTI of one volume, or voxels that are no numbers), `too-large`, what `read_position`
    refuses, and `sheared`.
    """
    name = str(path)
    with open_nifti(path, "unreadable-file", name=name) as (header, values):
        if (dtype := header.get_data_dtype()).kind not in REAL_NUMBERS:
            raise Refused("unreadable-file", f"{name} cannot be read: its voxels are no numbers but {dtype}")
        stored = one_volume(np.asarray(values), "unreadable-file", name)
    lps = RAS_TO_LPS @ read_position(header, name)
    require_upright(lps, stored.shape, name)
    voxels, affine = in_slices(stored, lps)
    k, r, c = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    return CaseImage(path=path, voxels=np.ascontiguousarray(voxels), spacing_mm=(k, r, c), affine=affine)


def truth_of(case: Case, images: Mapping[str, CaseImage], role: str) -> CaseMask:
    """Return the mask of a case, which is a truth for its image of this role.

    Refuses what `mask_of` refuses, and `empty-mask`.
    """
    mask = mask_of(case, images, role, "mask")
    if not mask.voxels.any():
        path = images["mask"].path
        raise Refused(
            "empty-mask", f"nothing is drawn in the mask of {case.case_id} ({path}); leave the case out"
        )
    return mask


def mask_of(case: Case, images: Mapping[str, CaseImage], role: str, drawn: str) -> CaseMask:
    """Return the file of the role `drawn` of a case as a mask, which may be empty, of its image of another role.

    Refuses `unequal-grids` (shape, or `SAME_MM` apart), `not-finite` (any image), `no-mask` (the image itself, or
    values below 0) and `mask-not-labels`.
    """
    image, mask = images[role], images[drawn]
    if image.voxels.shape != mask.voxels.shape or not _apart_mm(image, mask) <= SAME_MM:
        raise Refused(
            "unequal-grids",
            f"{role} and {drawn} of {case.case_id} have different grids; resample the mask onto the {role}",
        )
    for name, one in images.items():
        if not np.isfinite(one.voxels).all():
            raise Refused(
                "not-finite",
                f"the {name} of {case.case_id} ({one.path}) holds voxels that are no finite number",
            )
    if case.sha256[role] == case.sha256[drawn] or (mask.voxels < 0).any():
        raise Refused(
            "no-mask",
            f"{mask.path} is no mask of {case.case_id}: it is the {role}, or holds values below 0; name the mask",
        )
    doubts: list[Flag] = []
    labels = whole_labels(mask.voxels, str(mask.path), doubts)
    return CaseMask(voxels=labels > 0, doubts=tuple(doubts))


def _apart_mm(one: CaseImage, other: CaseImage) -> float:
    """Return how far a corner of a grid lies at most from the same one by another affine, mm."""
    corners = np.array(list(product(*((0, n - 1) for n in one.voxels.shape))))
    off = one.affine - other.affine
    return float(np.linalg.norm(corners @ off[:3, :3].T + off[:3, 3], axis=1).max())


__all__ = ["SAME_MM", "CaseImage", "CaseMask", "mask_of", "read_image", "read_images", "truth_of"]
