"""A folder of a trained nnU-Net v2, as an analysis, where nnunetv2 is installed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from models.card import ModelCard
from models.files import BadModel
from models.foreign import said_by
from plugins.adapter import Adapter
from plugins.contract import Finding, Volume
from plugins.label_map import findings_of
from plugins.nnunet_files import Trained, read_trained
from plugins.nnunet_logits import finite_logits
from plugins.patient_axes import PatientAxes


@dataclass(frozen=True, kw_only=True)
class NnUNet(Adapter):
    """A trained nnU-Net v2 with one input channel: the folder that holds `dataset.json`, `plans.json`, `fold_N`.

    Its checkpoints are pickles, which are programs: they are unpacked only from a folder that is vouched for. The image
    is given along the axes of the patient as the reader of its plans gave those that it learned from: Z to the head, Y
    to the back, X to the left, as SimpleITK reads an axial series, or Y to the front and X to the right (RAS); an
    oblique series is given along the nearest axes. Of a network of regions each region is drawn whole, with those that
    lie in it.
    """

    checkpoint: str = "checkpoint_final.pth"
    """Which file of each fold."""
    mirroring: bool = False
    """Average over mirrored images: up to eight times slower."""

    def card(self) -> ModelCard:
        """Return what the folder says of itself, with its hash."""
        sha256 = self.sha256
        trained = self._trained()
        try:
            engine = version("nnunetv2")
        except PackageNotFoundError as error:
            raise BadModel("not-installed", "nnunetv2 is not installed: pip install nnunetv2") from error
        return ModelCard(
            name=trained.name,
            version=f"nnunetv2 {engine}{' RAS' if trained.is_ras else ''}",
            kind="learned",
            intended_use=trained.intended_use,
            parameters={"checkpoint": self.checkpoint, "mirroring": self.mirroring},
            weights_sha256=sha256,
        )

    def find(self, volume: Volume) -> tuple[Finding, ...]:
        """Return one finding for each organ and each lesion that the network drew. Raises BadModel."""
        trained = self._trained()
        axes = PatientAxes.of(volume)
        turn = (slice(None), *[slice(None, None, -1 if trained.is_ras else 1)] * 2)
        image = np.ascontiguousarray(axes.to_patient(volume.array)[turn])[None]
        try:
            spacing_mm = [float(s) for s in axes.spacing(volume.spacing_mm)]
            labels = np.asarray(self._predict(image, spacing_mm, trained.folds))
        except BadModel:
            raise
        except Exception as error:  # a border: foreign code raises anything
            raise BadModel("model-failed", f"nnU-Net stopped with {said_by(error)}") from error
        pictures = trained.pictures(np.ascontiguousarray(axes.from_patient(labels[turn])).astype(np.int32))
        return tuple(one for picture in pictures for one in findings_of(picture, trained.names, volume))

    def _trained(self) -> Trained:
        return read_trained(Path(self.folder), self.checkpoint)

    def _predict(self, image: Any, spacing_mm: list[float], folds: tuple[int | str, ...]) -> Any:
        import torch
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        predictor = nnUNetPredictor(
            use_mirroring=self.mirroring,
            perform_everything_on_device=self.device != "cpu",
            device=torch.device(self.device),
            allow_tqdm=False,
        )
        predictor.initialize_from_trained_model_folder(self.folder, folds, self.checkpoint)
        with finite_logits():
            return predictor.predict_single_npy_array(image, {"spacing": spacing_mm})


__all__ = ["NnUNet"]
