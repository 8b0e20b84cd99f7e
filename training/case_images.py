"""The NIfTI files of a case: read as arrays in the patient's axes, and held against each other."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugins.errors import Refused
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
    """`(K, R, C)` in the patient's LPS order: from feet to head, front to back, right to left."""
    spacing_mm: tuple[float, float, float]
    """Distance of two voxels along k, r, c; mm."""
    affine: NDArray[np.float64]
    """Index (c, r, k) to RAS in mm, before the axes were turned to LPS."""


def read_images(case: Case, root: Path, roles: Collection[str]) -> dict[str, CaseImage]:
    """Return those files of a case that have one of these roles, by role.

    Refuses `changed-file` (any file of the case) and `unreadable-file`.
    """
    for role, path in case.files.items():
        if sha256_of(root / path) != case.sha256[role]:
            raise Refused("changed-file", f"{path} is not the file that the manifest speaks of")
    return {role: read_image(root / case.files[role]) for role in roles if role in case.files}


def read_image(path: Path) -> CaseImage:
    """Return what a NIfTI file holds.

    Refuses `unreadable-file`: no NIfTI of three axes, or voxels that are no numbers.
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
    return CaseImage(
        path=path,
        voxels=np.ascontiguousarray(voxels.transpose(2, 1, 0)),
        spacing_mm=(k, r, c),
        affine=np.asarray(image.affine, np.float64),
    )


def require_truth(case: Case, images: Mapping[str, CaseImage], role: str) -> None:
    """Refuse a case whose mask is no truth for its image of this role.

    What `require_mask` refuses, and `empty-mask`.
    """
    require_mask(case, images, role, "mask")
    mask = images["mask"]
    if not (mask.voxels > 0).any():
        raise Refused(
            "empty-mask", f"nothing is drawn in the mask of {case.case_id} ({mask.path}); leave the case out"
        )


def require_mask(case: Case, images: Mapping[str, CaseImage], role: str, drawn: str) -> None:
    """Refuse a case whose file of the role `drawn` is no mask, which may be empty, of its image of another role.

    `unequal-grids` (shape, or `SAME_MM` apart), `not-finite` (any image), `no-mask` (the image itself,
    or values below 0).
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


def _apart_mm(one: CaseImage, other: CaseImage) -> float:
    """Return how far a corner of a grid lies at most from the same one by another affine, mm."""
    corners = np.array(list(product(*((0, n - 1) for n in reversed(one.voxels.shape)))))
    off = one.affine - other.affine
    return float(np.linalg.norm(corners @ off[:3, :3].T + off[:3, 3], axis=1).max())


__all__ = ["SAME_MM", "CaseImage", "read_image", "read_images", "require_mask", "require_truth"]
