"""Soft-tissue sarcomas on PET/CT as cases: `patients.csv` and one folder a patient (NIfTI), CT where there is one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.petct import averaged
from plugins.contract import Flag
from plugins.errors import Refused
from plugins.patient_axes import UPRIGHT, PatientAxes
from training.case_images import SAME_MM, CaseImage, read_images, truth_of
from training.manifest import Case, DataManifest, folds, require_images_apart
from training.table import hashes_of, number_in, read_filled, word_in

FILES = {"pet": "pet_suv", "mask": "pet_mask", "ct": "ct"}
TAGS = ("suv_max", "suv_mean", "gtv_pet_volume_ml")
COLUMNS = ("patient", *TAGS)
BAD_TABLE = "bad-table"
SAME_SUV = 0.05
"""Part of `suv_max` by which the highest value in the mask may differ from it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sarcoma:
    """One tumour with what lies within some centimetres of it."""

    case_id: str
    """Which one."""
    suv: NDArray[np.float32]
    """PET in SUV, `(K, R, C)`."""
    mask: NDArray[np.bool_]
    """The tumour as drawn, on the PET's grid."""
    hu: NDArray[np.float32] | None
    """CT on the PET's grid, HU; None where there is none."""
    spacing_mm: tuple[float, float, float]
    """Distance of two voxels along k, r, c; mm."""
    doubts: tuple[Flag, ...] = ()
    """What was odd about the mask."""
    axes: PatientAxes = UPRIGHT
    """How k, r, c lie in the patient."""

    @property
    def volume_ml(self) -> float:
        """Return the volume of the mask."""
        return float(self.mask.sum()) * math.prod(self.spacing_mm) / 1000.0

    @property
    def middle(self) -> tuple[float, float, float]:
        """Return the voxel (k, r, c) of the mask that is nearest to its centre of gravity."""
        inside = np.argwhere(self.mask)
        away = np.linalg.norm((inside - inside.mean(axis=0)) * np.asarray(self.spacing_mm), axis=1)
        k, r, c = inside[int(np.argmin(away))].tolist()
        return float(k), float(r), float(c)

    @property
    def suv_max(self) -> float:
        """Return the highest SUV inside the mask."""
        return float(self.suv[self.mask].max())


def sts_manifest(root: Path) -> DataManifest:
    """Return the patients of the folder with hashes and folds.

    The size of a tumour is the diameter of the ball with its volume.
    Refuses `no-sarcomas` (no `patients.csv` there) and `bad-table`: what `training.table` refuses, no row, a cell
    that is no finite number, a volume that is not above 0, no `patient`; `missing-files`, `outside` and
    `image-of-two-patients`.
    """
    table = root / "patients.csv"
    if not table.is_file():
        raise Refused("no-sarcomas", f"there is no patients.csv in {root}")
    cases = [_case(row, line, table) for line, row in read_filled(table, COLUMNS, BAD_TABLE)]
    require_images_apart(cases)
    fold_of = folds({case.patient_id: case.size_mm for case in cases})
    folded = [replace(case, fold=fold_of[case.patient_id]) for case in cases]
    return DataManifest(name="sts_petct", cases=tuple(sorted(folded, key=lambda case: case.case_id)))


def _case(row: dict[str, str], line: int, table: Path) -> Case:
    """Return the case of a row, in no fold yet."""
    number = partial(number_in, row, line=line, file=table, code=BAD_TABLE)
    volume_ml = number("gtv_pet_volume_ml", above=0.0)
    tags = {name: number(name) for name in TAGS}
    root, patient = table.parent, word_in(row, "patient", line, table, BAD_TABLE)
    files = {role: f"{patient}/{patient}_{name}.nii.gz" for role, name in FILES.items()}
    files = {role: path for role, path in files.items() if role != "ct" or (root / path).is_file()}
    return Case(
        case_id=patient,
        patient_id=patient,
        files=files,
        sha256=hashes_of(files, line, table),
        fold=0,
        size_mm=(6000.0 * volume_ml / math.pi) ** (1 / 3),
        tags={**tags, "ct": "with CT" if "ct" in files else "PET alone"},
    )


def load_sarcoma(case: Case, root: Path) -> Sarcoma:
    """Return the images of a case.

    Refuses `no-pet` (a case without PET or mask), what `read_images` and `truth_of` refuse, `oblique-grid`,
    `image-elsewhere` (a CT that does not hold all of the mask) and `not-suv` (the highest value in the mask is not the
    `suv_max` of `patients.csv`).
    """
    if not {"pet", "mask"} <= case.files.keys():
        raise Refused("no-pet", f"{case.case_id} has {', '.join(case.files)}, and not a PET and a mask")
    images = read_images(case, root, FILES)
    truth = truth_of(case, images, "pet")
    axes, mask = images["pet"].axes, truth.voxels
    pet = _Grid.of(images["pet"], axes)
    ct = _Grid.of(images["ct"], axes) if "ct" in images else None
    if ct is not None and not _holds(ct, pet, mask):
        raise Refused(
            "image-elsewhere",
            f"{images['ct'].path} does not reach over all that is drawn in {case.case_id}; give the CT of the same "
            "place, or leave it out",
        )
    _require_suv(case, images["pet"], float(pet.voxels[mask].max()))
    return Sarcoma(
        case_id=case.case_id,
        suv=pet.voxels,
        mask=mask,
        hu=None if ct is None else resampled(ct.voxels, ct.spacing_mm, ct.first_mm, pet),
        spacing_mm=pet.spacing_mm,
        doubts=truth.doubts,
        axes=axes,
    )


def _require_suv(case: Case, pet: CaseImage, found: float) -> None:
    """Refuse `not-suv`; a case that is no row of `patients.csv` may have a tag `suv_max` that means something else."""
    said = case.number("suv_max")
    if not set(TAGS) <= case.tags.keys() or said is None:
        return
    if not abs(found - said) <= SAME_SUV * abs(said):
        raise Refused(
            "not-suv",
            f"{pet.path} holds at most {found:.5g} in the mask, and the suv_max of {case.case_id} is {said:.5g}; "
            "give the PET in SUV, not in Bq/ml, or correct patients.csv",
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Grid:
    """A volume whose axes run along the patient's."""

    voxels: NDArray[np.float32]
    spacing_mm: tuple[float, float, float]
    first_mm: tuple[float, float, float]

    @classmethod
    def of(cls, image: CaseImage, axes: PatientAxes) -> _Grid:
        """Return the volume of a file with these axes; places are along them, mm. Refuses `oblique-grid`."""
        steps = image.affine[2::-1, image.axes.order]
        if np.abs(steps - np.diag(np.diag(steps))).max() > 1e-3:
            raise Refused("oblique-grid", f"the axes of {image.path} do not run along the patient's")
        turn = np.argsort(axes.order)
        k_mm, r_mm, c_mm = np.diag(steps)[turn].tolist()
        k, r, c = image.affine[2::-1, 3][turn].tolist()
        return cls(
            voxels=axes.from_patient(image.axes.to_patient(image.voxels)).astype(np.float32),
            spacing_mm=(k_mm, r_mm, c_mm),
            first_mm=(k, r, c),
        )


def _holds(ct: _Grid, pet: _Grid, mask: NDArray[np.bool_]) -> bool:
    """Return whether the middle of every voxel of a mask on the PET lies within a voxel of the CT."""
    inside = np.argwhere(mask)
    ends = np.stack([inside.min(axis=0), inside.max(axis=0)])
    mm = ends * np.asarray(pet.spacing_mm) + pet.first_mm - np.asarray(ct.first_mm)
    half = np.asarray(ct.spacing_mm) / 2 + SAME_MM
    last = (np.asarray(ct.voxels.shape) - 1) * np.asarray(ct.spacing_mm)
    return bool((mm >= -half).all() and (mm <= last + half).all())


def resampled(
    fine: NDArray[np.float32],
    spacing_mm: tuple[float, float, float],
    first_mm: tuple[float, float, float],
    onto: _Grid,
) -> NDArray[np.float32]:
    """Return a finer volume on another grid by position: averaged over about its voxels, then linear between them."""
    ratio = np.asarray(onto.spacing_mm) / np.asarray(spacing_mm)
    offset = (np.asarray(onto.first_mm) - np.asarray(first_mm)) / np.asarray(spacing_mm)
    found: NDArray[np.float32] = ndimage.affine_transform(
        averaged(fine, ratio), ratio, offset, output_shape=onto.voxels.shape, order=1, mode="nearest"
    )
    return found


__all__ = ["Sarcoma", "load_sarcoma", "resampled", "sts_manifest"]
