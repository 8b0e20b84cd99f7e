"""A plugin whose box is as wide as the weights of the model that counts say, installed like any third party's."""

from __future__ import annotations

from pathlib import Path

SOURCE = """
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from models.card import ModelCard
from models.place import Places, open_current
from plugins import codes
from plugins.contract import Finding, Mask
from plugins.measure.lesion import measure_lesion

FAMILY = "nodule_segmenter"


@dataclass(frozen=True, kw_only=True)
class Promoted:
    models: Places = field(default_factory=dict, hash=False)
    name: ClassVar[str] = "promoted"
    version: ClassVar[str] = "1"
    title: ClassVar[str] = "Promoted"
    families: ClassVar[tuple[str, ...]] = (FAMILY,)

    @property
    def model(self):
        counts = open_current(FAMILY, self.models).manifest
        return ModelCard(name=FAMILY, version=counts.version, kind="learned", intended_use="-",
                         weights_sha256=counts.sha256)

    def accepts(self, study):
        return bool(study.by_role("ct"))

    def run(self, study):
        volume = study.by_role("ct")[0]
        width = int(open_current(FAMILY, self.models).weights(0)["w"][0]) if FAMILY in self.models else 1
        mask = Mask(shape=volume.array.shape, origin=(1, 4, 4), voxels=np.ones((3, 4, width), dtype=bool))
        return (Finding(key="box", label=f"{width} wide", series_instance_uid=volume.series_instance_uid,
                        mask=mask, category=codes.MORPHOLOGICALLY_ABNORMAL, type=codes.LESION,
                        measurements=measure_lesion(mask, volume)),)
"""


def install(folder: Path) -> Path:
    """Write the distribution into a folder that is to be on the path, and return it."""
    information = folder / "promoted-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: promoted\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[nadir.plugins]\npromoted = promoted:Promoted\n")
    (folder / "promoted.py").write_text(SOURCE)
    return folder
