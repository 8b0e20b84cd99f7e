"""A MONAI bundle that segments one image, as an analysis."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from models.bundle import run
from models.bundle_files import read_bundle
from models.card import ModelCard
from models.files import BadModel
from plugins.adapter import Adapter
from plugins.contract import Finding, Volume
from plugins.label_map import findings_of, on_grid, write_nifti

MODALITIES = {"ct": {"CT"}, "pet_suv": {"PT", "PET"}, "mr": {"MR", "MRI"}}
OTHERS = {"CR", "DX", "ECG", "EM", "ES", "MG", "NM", "OCT", "OPT", "SM", "US", "XA", "XR"}


@dataclass(frozen=True, kw_only=True)
class MonaiBundle(Adapter):
    """Any MONAI bundle with one image channel whose answer is a segmentation on the grid of the image.

    `models.bundle_channels` says what is a picture of labels and what a mask on a channel of its own.
    """

    def card(self) -> ModelCard:
        """Return what the bundle says of itself, with the hash of its folder."""
        sha256 = self.sha256
        bundle = read_bundle(Path(self.folder))
        require_modality(bundle.modality, self.role)
        return ModelCard(
            name=bundle.name,
            version=bundle.version,
            kind="learned",
            intended_use=bundle.intended_use,
            weights_sha256=sha256,
        )

    def find(self, volume: Volume) -> tuple[Finding, ...]:
        """Return one finding for each organ and each lesion that the bundle drew. Raises BadModel."""
        bundle = read_bundle(Path(self.folder))
        with tempfile.TemporaryDirectory() as scratch:
            image = Path(scratch) / "image.nii.gz"
            write_nifti(volume, image)
            layers, affine = run(bundle, image, self.device)
        pictures = (on_grid(picture, affine, volume) for picture in layers.pictures)
        return tuple(one for picture in pictures for one in findings_of(picture, layers.names, volume))


def require_modality(stated: str, role: str) -> None:
    """Raise BadModel (`other-modality`) when what a bundle says of its image names modalities other than a role's."""
    words = set(re.findall(r"[A-Z]+", stated.upper()))
    named = words & set().union(OTHERS, *MODALITIES.values())
    if not named or named & MODALITIES[role]:
        return
    fit = [one for one, names in MODALITIES.items() if named & names]
    advice = f'write role = "{fit[0]}" in its settings' if fit else "no role gives it such images"
    raise BadModel(
        "other-modality",
        f"the bundle is for the modality '{stated}', and its role here is '{role}': {advice}",
    )


__all__ = ["MonaiBundle"]
