"""TotalSegmentator, where it is installed, as an analysis that neither downloads anything nor tells anybody."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from models.card import ModelCard
from models.files import BadModel
from models.foreign import said_by
from plugins.adapter import Adapter
from plugins.contract import Finding, Volume
from plugins.label_map import affine_ras, findings_of, on_grid
from plugins.nnunet_logits import finite_logits


@dataclass(frozen=True, kw_only=True)
class TotalSegmentator(Adapter):
    """TotalSegmentator 2 on weights that lie in `folder` (its `nnunet/results`) and are vouched for.

    By itself it downloads weights that it misses, deletes old ones and sends statistics of use. Here it has a home of
    its own for each run, in which the statistics are switched off, and a download is refused with the name of what is
    missing. Its weights are pickles, which are programs.
    """

    task: str = "total"
    """Which of its tasks."""
    fast: bool = False
    """The model for 3 mm voxels."""

    def card(self) -> ModelCard:
        """Return what is installed, with the hash of the weights' folder."""
        sha256 = self.sha256
        try:
            engine = version("TotalSegmentator")
        except PackageNotFoundError as error:
            why = "TotalSegmentator is not installed: pip install TotalSegmentator"
            raise BadModel("not-installed", why) from error
        return ModelCard(
            name=f"TotalSegmentator {self.task}",
            version=engine,
            kind="learned",
            intended_use="organs and tissues on CT and MR; see the project's own page",
            parameters={"task": self.task, "fast": self.fast},
            weights_sha256=sha256,
        )

    def find(self, volume: Volume) -> tuple[Finding, ...]:
        """Return one finding for each structure that it drew. Raises BadModel."""
        with tempfile.TemporaryDirectory() as home:
            (Path(home) / "config.json").write_text(
                json.dumps({"totalseg_id": "none", "send_usage_stats": False, "prediction_counter": 0})
            )
            os.environ.update(TOTALSEG_HOME_DIR=home, TOTALSEG_WEIGHTS_PATH=self.folder)
            try:
                answer, names = self._draw(volume)
            except BadModel:
                raise
            except Exception as error:  # a border: foreign code raises anything
                raise BadModel("model-failed", f"TotalSegmentator stopped with {said_by(error)}") from error
        labels = np.rint(np.asarray(answer.dataobj)).astype(np.int32)
        return findings_of(on_grid(labels, np.asarray(answer.affine), volume), names, volume)

    def _draw(self, volume: Volume) -> tuple[Any, Mapping[int, str]]:
        from totalsegmentator import python_api
        from totalsegmentator.map_to_binary import class_map

        python_api.download_pretrained_weights = self._download
        image = nib.Nifti1Image(np.ascontiguousarray(volume.array.transpose(2, 1, 0)), affine_ras(volume))
        device = "gpu" if self.device.startswith("cuda") else self.device
        with finite_logits():
            answer = python_api.totalsegmentator(
                image, None, ml=True, task=self.task, fast=self.fast, device=device, quiet=True
            )
        return answer, {int(value): str(name) for value, name in class_map[self.task].items()}

    def _download(self, task_id: int) -> None:
        """Stand in for its download: the weights are there, or the run ends."""
        from totalsegmentator.libs import TASK_ID_WEIGHTS_CONFIGS

        wanted = TASK_ID_WEIGHTS_CONFIGS[task_id]
        path = Path(self.folder) / (wanted.get("rel_path") or "") / wanted["foldername"]
        if not path.is_dir():
            raise BadModel(
                "weights-missing", f"'{path.name}' is not in the folder of the weights; nothing is downloaded"
            )


__all__ = ["TotalSegmentator"]
