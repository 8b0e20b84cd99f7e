"""A MONAI bundle that segments one image, as an analysis."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from models.bundle import run
from models.bundle_files import read_bundle
from models.card import ModelCard
from plugins.adapter import Adapter
from plugins.contract import Finding, Volume
from plugins.label_map import findings_of, on_grid, write_nifti


@dataclass(frozen=True, kw_only=True)
class MonaiBundle(Adapter):
    """Any MONAI bundle with one image channel whose answer is a segmentation on the grid of the image.

    `models.bundle_channels` says what is a picture of labels and what a mask on a channel of its own.
    """

    def card(self) -> ModelCard:
        """Return what the bundle says of itself, with the hash of its folder."""
        sha256 = self.sha256
        bundle = read_bundle(Path(self.folder))
        return ModelCard(
            name=bundle.name,
            version=bundle.version,
            kind="learned",
            intended_use=bundle.intended_use,
            weights_sha256=sha256,
        )

    def find(self, volume: Volume) -> tuple[Finding, ...]:
        """Return one finding for each organ and each lesion that the bundle drew. Raises BadModel."""
        assert self.sha256
        bundle = read_bundle(Path(self.folder))
        with tempfile.TemporaryDirectory() as scratch:
            image = Path(scratch) / "image.nii.gz"
            write_nifti(volume, image)
            layers, affine = run(bundle, image, self.device)
        pictures = (on_grid(picture, affine, volume) for picture in layers.pictures)
        return tuple(one for picture in pictures for one in findings_of(picture, layers.names, volume))


__all__ = ["MonaiBundle"]
