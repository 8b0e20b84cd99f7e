"""Small calcified foci on CT: an example of an analysis that is a package of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cc3d
import numpy as np
from pydicom.sr.coding import Code
from scipy import ndimage

from models.card import ModelCard
from plugins import codes
from plugins.contract import Finding, Flag, Mask, Study, Volume
from plugins.errors import Refused
from plugins.measure.lesion import measure_lesion

CALCIFICATION = Code("18115005", "SCT", "Pathologic calcification")


@dataclass(frozen=True, kw_only=True)
class CalcifiedFoci:
    """Connected regions above `least_hu` that are neither noise nor bone, with their axes, volume and density."""

    name: ClassVar[str] = "calcified_foci"
    version: ClassVar[str] = "1.0"
    title: ClassVar[str] = "Calcified foci on CT"
    needs: ClassVar[tuple[str, ...]] = ("CT",)

    least_hu: float = 130.0
    """Voxels above this are calcified (Agatston 1990)."""
    smallest_mm3: float = 5.0
    """Less is noise."""
    largest_mm3: float = 2000.0
    """More is bone."""

    @property
    def model(self) -> ModelCard | None:
        """Return None: a threshold, no model."""
        return None

    def accepts(self, study: Study) -> bool:
        """Return True when the study holds a CT."""
        return bool(study.by_role("ct"))

    def run(self, study: Study) -> tuple[Finding | Flag, ...]:
        """Return the foci of the first CT, the largest first. Refuses `no-ct`."""
        if not self.accepts(study):
            raise Refused("no-ct", "the study holds no CT series to look for calcified foci on")
        ct = study.by_role("ct")[0]
        labels, count = cc3d.connected_components(ct.array > self.least_hu, connectivity=26, return_N=True)
        sizes_mm3 = np.bincount(labels.ravel(), minlength=count + 1) * ct.voxel_volume_mm3
        fits = [n for n in range(1, count + 1) if self.smallest_mm3 <= sizes_mm3[n] <= self.largest_mm3]
        fits.sort(key=lambda n: -sizes_mm3[n])
        boxes = ndimage.find_objects(labels)
        masks = [
            Mask(
                shape=ct.array.shape,
                origin=tuple(part.start for part in boxes[n - 1]),
                voxels=labels[boxes[n - 1]] == n,
            )
            for n in fits
        ]
        return tuple(self._finding(rank, mask, ct) for rank, mask in enumerate(masks, start=1))

    def _finding(self, rank: int, mask: Mask, ct: Volume) -> Finding:
        return Finding(
            key=f"focus-{rank}",
            label=f"Calcified focus {rank}",
            series_instance_uid=ct.series_instance_uid,
            mask=mask,
            category=codes.MORPHOLOGICALLY_ABNORMAL,
            type=CALCIFICATION,
            measurements=measure_lesion(mask, ct),
        )
