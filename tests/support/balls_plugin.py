"""A plugin that finds dense balls, installed like any third party's, for tests of what lasts from study to study."""

from __future__ import annotations

from pathlib import Path

SOURCE = """
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import ndimage

from plugins import codes
from plugins.contract import Finding, Mask
from plugins.measure.lesion import measure_lesion


@dataclass(frozen=True)
class Balls:
    least_hu: float = 120.0
    name: ClassVar[str] = "balls"
    version: ClassVar[str] = "1"
    title: ClassVar[str] = "Balls"

    @property
    def model(self):
        return None

    def accepts(self, study):
        return bool(study.by_role("ct"))

    def segment_at(self, study, series_instance_uid, point_mm, label):
        ct = study.volume(series_instance_uid)
        labels, _ = ndimage.label(ct.array > 0.0)
        here = labels[tuple(np.rint(ct.to_index(point_mm)).astype(int))]
        if not here:
            return None
        mask = Mask.from_full(labels == here)
        return Finding(key="again", label=label, series_instance_uid=series_instance_uid, mask=mask,
                       category=codes.MORPHOLOGICALLY_ABNORMAL, type=codes.NODULE, site=codes.LUNG,
                       measurements=measure_lesion(mask, ct)[:2])

    def run(self, study):
        ct = study.by_role("ct")[0]
        uid = ct.series_instance_uid
        labels, count = ndimage.label(ct.array > self.least_hu)
        masks = [Mask.from_full(labels == n) for n in range(1, count + 1)]
        found = [
            Finding(key=f"nodule-{n}", label=f"Nodule {n}", series_instance_uid=uid, mask=mask,
                    category=codes.MORPHOLOGICALLY_ABNORMAL, type=codes.NODULE, site=codes.LUNG,
                    measurements=measure_lesion(mask, ct)[:2], confidence=0.9)
            for n, mask in enumerate(sorted(masks, key=lambda m: -m.count), start=1)
        ]
        above = ct.array > -300
        above[:10] = above[11:] = False
        body = Mask.from_full(above)
        found.append(Finding(key="body", label="Body", series_instance_uid=uid, mask=body,
                             category=codes.ANATOMICAL_STRUCTURE, type=codes.ORGAN,
                             measurements=measure_lesion(body, ct)[:2]))
        return tuple(found)
"""


def install(folder: Path) -> Path:
    """Write the distribution into a folder that is to be on the path, and return it."""
    information = folder / "balls-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: balls\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[nadir.plugins]\nballs = balls:Balls\n")
    (folder / "balls.py").write_text(SOURCE)
    return folder
