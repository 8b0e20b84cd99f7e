"""Lesions on PET drawn by the network, with the CT of the study where it lies in the same frame of reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from models.files import BadModel
from models.nodule_segmenter import runs_here
from models.petct import NAME, LearnedPetct, averaged
from models.place import Places, open_current
from plugins.contract import Array, BoolArray, Volume
from plugins.errors import Broken
from plugins.series_order import standing

AIR_HU = -1000.0


def current_petct(models: Places) -> LearnedPetct:
    """Return the PET/CT model that counts. Raises Broken when it cannot be used here."""
    if not runs_here():
        raise Broken("torch and monai, which the PET/CT network needs, are not installed")
    try:
        return LearnedPetct(model=open_current(NAME, models))
    except BadModel as error:
        raise Broken(f"the PET/CT network cannot be used: {error.sentence}") from error


class PetDrawing:
    """Draws lesions on one PET, one at a time; the CT is brought onto its grid once."""

    def __init__(self, pet: Volume, cts: Sequence[Volume], model: LearnedPetct) -> None:
        ct = ct_beside(pet, cts)
        self.pet, self.model = pet, model
        self.hu = None if ct is None else ct_on_pet(ct, pet)

    def at(self, index: tuple[int, int, int]) -> tuple[BoolArray, float]:
        """Return the lesion at a voxel of the PET, on its grid `(K, R, C)`, and the network's log hazard.

        The lesion is empty when the network sees none there.
        """
        found = self.model.answer(self.pet.array, self.pet.spacing_mm, index, self.hu)
        return found.mask if found.mask[index] else np.zeros_like(found.mask), found.log_hazard


def ct_beside(pet: Volume, cts: Sequence[Volume]) -> Volume | None:
    """Return the first CT in the frame of reference of a PET, a reformat only for want of another; None without any."""
    frame = pet.frame_of_reference_uid
    held = [ct for ct in cts if ct.frame_of_reference_uid == frame is not None]
    return min(held, key=standing, default=None)


def ct_on_pet(ct: Volume, pet: Volume) -> Array:
    """Return HU on the grid of a PET by position: averaged over about its voxels, air where there is no CT."""
    to_ct = np.linalg.inv(ct.geometry.affine) @ pet.geometry.affine
    step = np.abs(to_ct[:3, :3]).max(axis=1)
    found: Array = ndimage.affine_transform(
        averaged(ct.array, step),
        to_ct[:3, :3],
        to_ct[:3, 3],
        output_shape=pet.array.shape,
        order=1,
        mode="constant",
        cval=AIR_HU,
    )
    return found
