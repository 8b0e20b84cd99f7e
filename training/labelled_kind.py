"""Which labels each family of models learns from, and what a case of them is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from plugins import codes
from plugins.contract import Drawn, Mask, Volume
from plugins.errors import Refused
from plugins.pet_drawing import ct_beside
from store.dicom.items import same
from store.labels import Label
from store.sightings import is_lesion
from training.curate.case_files import MARGIN_MM

NODULES = frozenset({"lung_nodule", "marked_lesion"})
"""Analyses that draw with the nodule segmenter."""
UPTAKE = "pet_lesion"
"""The analysis that draws with the PET/CT network when it is asked to, else by thresholds."""
UPTAKE_MARGIN_MM = 50.0
"""As much as the sarcomas that the network first learned from have around them."""
ALONG_AXES = 1e-3
"""The largest part of a voxel's step, mm, that lies across an axis of the patient in a case of PET/CT."""


@dataclass(frozen=True, kw_only=True)
class LabelledKind:
    """What a family learns from."""

    why_not: Callable[[Label, Drawn | None], str | None]
    """Why a label is nothing for the family, in words; None when it is. Of its region nothing is known at first."""
    require: Callable[[Volume, Mask], None]
    """Refuses images that no case can be made of."""
    image_role: str
    """Role of the images in a case."""
    margin_mm: float
    """How much of them lies around the mask."""
    with_ct: bool = False
    """Whether the CT of the same frame of reference goes along, on its own grid."""

    def beside(self, volume: Volume, mask: Mask, cts: Sequence[Volume]) -> dict[str, Volume]:
        """Return the CT that goes along, if there is one that holds the lesion and runs along the patient's axes."""
        ct = ct_beside(volume, cts) if self.with_ct else None
        if ct is None or not runs_along_axes(ct) or min(ct.array.shape) < 2:
            return {}
        ends = [(s.start - 0.5, s.stop - 0.5) for s in mask.box]
        corners = ct.to_index(volume.to_mm(np.array(np.meshgrid(*ends)).reshape(3, -1).T))
        held = (corners >= -0.5) & (corners <= np.array(ct.array.shape) - 0.5)
        return {"ct": ct} if held.all() else {}


def _nodule(label: Label, region: Drawn | None) -> str | None:
    if label.modality != "CT":
        return f"it lies on {label.modality or 'images without modality'}, and nodules are learned on CT"
    if label.origin != "drawn":
        return (
            None if label.plugin in NODULES else f"'{label.plugin}' does not draw with the nodule segmenter"
        )
    is_nodule = region is None or same(region.site_code, codes.LUNG) or same(region.type_code, codes.NODULE)
    return None if is_nodule else "it is coded neither as a nodule nor as lying in the lung"


def _uptake(label: Label, region: Drawn | None) -> str | None:
    if label.modality != "PT":
        return f"it lies on {label.modality or 'images without modality'}, and uptake is learned on PET"
    if label.origin != "drawn":
        return None if label.plugin == UPTAKE else f"'{label.plugin}' does not draw uptake on PET"
    is_meant = region is None or region.type_code is None or is_lesion(region.type_code, region.category_code)
    return None if is_meant else "it is not coded as a lesion"


def _hounsfield(volume: Volume, _: Mask) -> None:
    if volume.role != "ct":
        raise Refused("not-hounsfield", "the values of its images are no Hounsfield units")


def _uptake_values(volume: Volume, mask: Mask) -> None:
    if volume.role != "pet_suv":
        raise Refused("not-suv", "the values of its images are no SUV")
    if not runs_along_axes(volume):
        raise Refused("oblique-grid", "the axes of its images do not run along the patient's")
    if not (volume.array[mask.box][mask.voxels] > 0).any():
        raise Refused("no-uptake", "there is no uptake in it")


def runs_along_axes(volume: Volume) -> bool:
    """Return whether each axis of the grid runs along one of the patient's, as `training.sts` reads it."""
    steps = np.abs(volume.geometry.affine[:3, :3])
    return bool(((steps > ALONG_AXES).sum(axis=0) == 1).all())


KINDS: Mapping[str, LabelledKind] = {
    "nodule_segmenter": LabelledKind(
        why_not=_nodule, require=_hounsfield, image_role="image", margin_mm=MARGIN_MM
    ),
    "petct_multitask": LabelledKind(
        why_not=_uptake, require=_uptake_values, image_role="pet", margin_mm=UPTAKE_MARGIN_MM, with_ct=True
    ),
}
"""By family: those that can be retrained."""

__all__ = ["KINDS", "LabelledKind", "runs_along_axes"]
