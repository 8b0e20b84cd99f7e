"""A folder of a trained nnU-Net v2, as an analysis, where nnunetv2 is installed."""

from __future__ import annotations

import json
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
from plugins.nnunet_logits import finite_logits
from plugins.patient_axes import PatientAxes


@dataclass(frozen=True, kw_only=True)
class NnUNet(Adapter):
    """A trained nnU-Net v2 with one input channel: the folder that holds `dataset.json`, `plans.json`, `fold_N`.

    Its checkpoints are pickles, which are programs: they are unpacked only from a folder that is vouched for. The image
    is given along the axes of the patient (Z to the head, Y to the back, X to the left), as SimpleITK reads an axial
    series; an oblique series is given along the nearest axes.
    """

    checkpoint: str = "checkpoint_final.pth"
    """Which file of each fold."""
    mirroring: bool = False
    """Average over mirrored images: up to eight times slower."""

    def card(self) -> ModelCard:
        """Return what the folder says of itself, with its hash."""
        sha256 = self.sha256
        dataset = self._dataset()
        try:
            engine = version("nnunetv2")
        except PackageNotFoundError as error:
            raise BadModel("not-installed", "nnunetv2 is not installed: pip install nnunetv2") from error
        return ModelCard(
            name=str(dataset.get("name") or Path(self.folder).name),
            version=f"nnunetv2 {engine}",
            kind="learned",
            intended_use=str(dataset.get("description") or "not stated"),
            parameters={"checkpoint": self.checkpoint, "mirroring": self.mirroring},
            weights_sha256=sha256,
        )

    def find(self, volume: Volume) -> tuple[Finding, ...]:
        """Return one finding for each organ and each lesion that the network drew. Raises BadModel."""
        names = {int(v): str(n) for n, v in self._dataset()["labels"].items() if not isinstance(v, list)}
        axes = PatientAxes.of(volume)
        image = np.ascontiguousarray(axes.to_patient(volume.array))[None]
        try:
            labels = np.asarray(self._predict(image, [float(s) for s in axes.spacing(volume.spacing_mm)]))
        except BadModel:
            raise
        except Exception as error:  # a border: foreign code raises anything
            raise BadModel("model-failed", f"nnU-Net stopped with {said_by(error)}") from error
        names.pop(0, None)
        return findings_of(np.ascontiguousarray(axes.from_patient(labels)).astype(np.int32), names, volume)

    def _predict(self, image: Any, spacing_mm: list[float]) -> Any:
        import torch
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        predictor = nnUNetPredictor(
            use_mirroring=self.mirroring,
            perform_everything_on_device=self.device != "cpu",
            device=torch.device(self.device),
            allow_tqdm=False,
        )
        predictor.initialize_from_trained_model_folder(self.folder, None, self.checkpoint)
        with finite_logits():
            return predictor.predict_single_npy_array(image, {"spacing": spacing_mm})

    def _dataset(self) -> dict[str, Any]:
        """Return `dataset.json`. Raises BadModel."""
        try:
            plain: dict[str, Any] = json.loads((Path(self.folder) / "dataset.json").read_text())
            channels, labels = len(plain["channel_names"]), plain["labels"]
        except OSError as error:
            raise BadModel(
                "no-nnunet", "the folder has no dataset.json; is it a trained nnU-Net v2?"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise BadModel("bad-metadata", f"dataset.json names no channels and labels ({error})") from error
        if channels != 1:
            raise BadModel("bundle-channels", f"the network wants {channels} images at a time; one is given")
        if not isinstance(labels, dict):
            raise BadModel("bad-metadata", "the labels of dataset.json are no names with numbers")
        return plain


__all__ = ["NnUNet"]
