"""Nodule crops of LIDC-IDRI as cases: `nodules.csv`, `images/` and `masks/` (NIfTI) of one folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plugins.contract import Flag
from plugins.errors import Refused
from plugins.patient_axes import UPRIGHT, PatientAxes
from store.dicom.nifti_image import require_hounsfield
from training.case_images import CaseMask, mask_of, read_images, truth_of
from training.manifest import Case, DataManifest, folds, require_images_apart
from training.table import hashes_of, number_in, read_filled, word_in

SPACINGS = ("spacing_x_mm", "spacing_z_mm")
RATINGS = ("malignancy", "subtlety", "texture", "spiculation", "margin")
TAGS = (*SPACINGS, *RATINGS)
COLUMNS = ("image_file", "mask_file", "patient_id", "nodule_id", "diameter_mm", *TAGS)
BAD_TABLE = "bad-table"
ORIGIN = "origin"
"""A tag of every case that was cut out of a whole image, which was judged then (`training.curate`)."""
READER = "mask_reader"
"""What the role of a mask that one reader drew begins with."""
LOWEST, HIGHEST = 1.0, 5.0
"""Between these the readers rate."""
LARGEST_MM = 500.0
"""No lesion is larger; a greater diameter is not in mm."""


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
    doubts: tuple[Flag, ...] = ()
    """What was odd about the mask."""
    axes: PatientAxes = UPRIGHT
    """How k, r, c lie in the patient."""

    def upright(self) -> Nodule:
        """Return the nodule along the axes of the patient: from feet to head, front to back, right to left."""
        return replace(
            self,
            image=self.axes.to_patient(self.image),
            mask=self.axes.to_patient(self.mask),
            spacing_mm=self.axes.spacing(self.spacing_mm),
            axes=UPRIGHT,
        )

    @property
    def centre(self) -> tuple[float, float, float]:
        """Return the centre of gravity of the mask, voxel index (k, r, c)."""
        k, r, c = np.argwhere(self.mask).mean(axis=0).tolist()
        return (k, r, c)


def lidc_manifest(root: Path) -> DataManifest:
    """Return the cases of the folder with their hashes and folds.

    Refuses `no-nodules` (no `nodules.csv` there) and `bad-table`: what `training.table` refuses, no row, a cell that is
    no finite number, a diameter that is not above 0 or beyond `LARGEST_MM`, a rating that is not 1 to 5, a
    `nodule_id` that is no whole number, no `patient_id`; `missing-files`, `outside` and `image-of-two-patients`.
    """
    table = root / "nodules.csv"
    if not table.is_file():
        raise Refused("no-nodules", f"there is no nodules.csv in {root}")
    cases = [_case(row, line, table) for line, row in read_filled(table, COLUMNS, BAD_TABLE)]
    require_images_apart(cases)
    largest: dict[str, float] = {}
    for case in cases:
        largest[case.patient_id] = max(largest.get(case.patient_id, 0.0), case.size_mm)
    fold_of = folds(largest)
    folded = [replace(case, fold=fold_of[case.patient_id]) for case in cases]
    return DataManifest(name="lidc_nodules", cases=tuple(sorted(folded, key=lambda case: case.case_id)))


def _case(row: dict[str, str], line: int, table: Path) -> Case:
    """Return the case of a row, in no fold yet."""
    number = partial(number_in, row, line=line, file=table, code=BAD_TABLE)
    patient = word_in(row, "patient_id", line, table, BAD_TABLE)
    nodule = number("nodule_id")
    if not nodule.is_integer():
        raise Refused(BAD_TABLE, f"the nodule_id {nodule:g} in line {line} of {table} is no whole number")
    size_mm = number("diameter_mm", above=0.0, most=LARGEST_MM)
    rating = partial(number, least=LOWEST, most=HIGHEST)
    tags = {name: (rating if name in RATINGS else number)(name) if row[name] else None for name in TAGS}
    files = {"image": row["image_file"], "mask": row["mask_file"]}
    return Case(
        case_id=f"{patient}_nodule{int(nodule):02d}",
        patient_id=patient,
        files=files,
        sha256=hashes_of(files, line, table),
        fold=0,
        size_mm=size_mm,
        tags=tags,
    )


def load_nodule(case: Case, root: Path) -> Nodule:
    """Return image and mask of a case, with the slices that `nadir segment` takes.

    Refuses `no-crop` (a case without image or mask), what `read_images` and `truth_of` refuse, and what
    `require_hounsfield` does, but for a part of an image that was judged whole: that of a liver may hold no air.
    """
    if not {"image", "mask"} <= case.files.keys():
        raise Refused("no-crop", f"{case.case_id} has {', '.join(case.files)}, and not an image and a mask")
    images = read_images(case, root, ("image", "mask"))
    image, mask = images["image"], truth_of(case, images, "image")
    if ORIGIN not in case.tags:
        require_hounsfield(image.voxels, str(image.path))
    return Nodule(
        case=case,
        image=image.voxels.astype(np.float32),
        mask=mask.voxels,
        spacing_mm=image.spacing_mm,
        doubts=mask.doubts,
        axes=image.axes,
    )


def load_readers(case: Case, root: Path) -> tuple[CaseMask, ...]:
    """Return what each reader drew of a case, on the grid of its image; none where the case does not tell.

    Refuses what `load_nodule` does, but a reader may have drawn nothing.
    """
    roles = sorted(role for role in case.files if role.startswith(READER))
    if not roles:
        return ()
    images = read_images(case, root, ("image", *roles))
    return tuple(mask_of(case, images, "image", role) for role in roles)


__all__ = ["HIGHEST", "LOWEST", "Nodule", "lidc_manifest", "load_nodule", "load_readers"]
