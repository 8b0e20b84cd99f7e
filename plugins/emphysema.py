"""Emphysema on chest CT: how much of each lung is abnormally thin, with the airways removed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydicom.sr.coding import Code

from models.card import ModelCard
from plugins import codes
from plugins.contract import Finding, Flag, Mask, Measurement, Study, Volume
from plugins.errors import Absent, Refused
from plugins.lungs import lungs
from plugins.measure.density import density_indices
from plugins.measure.volume import MM3_PER_ML, volume_mm3
from plugins.series_order import preferred, reformat_doubts

PADDING_HU = -1500.0


@dataclass(frozen=True, kw_only=True)
class Emphysema:
    """Volume, mean density, LAA-950, LAA-910 and 15th percentile of each lung.

    Measured over the parenchyma: voxels of the lung (large airways removed) below `parenchyma_hu`, so that vessels,
    tumours and the partial volume of the edge do not count. The mask of the finding is exactly these voxels.
    """

    name: ClassVar[str] = "emphysema"
    version: ClassVar[str] = "0.1.0"
    title: ClassVar[str] = "Emphysema: low attenuation of each lung on CT"

    parenchyma_hu: float = -500.0
    """Denser voxels of the lung are vessels, tumour or wall, and are left out."""
    thick_slice_mm: float = 2.5
    """A distance of voxels above this, in any direction, is flagged: LAA-950 is then too low."""
    smallest_lung_ml: float = 50.0
    """A lung of which less is seen is not measured."""

    @property
    def model(self) -> ModelCard | None:
        """Return None: thresholds and percentiles, no model."""
        return None

    def accepts(self, study: Study) -> bool:
        """Return True when the study holds a CT of more than a few slices."""
        return bool(_candidates(study))

    def run(self, study: Study) -> tuple[Finding | Flag, ...]:
        """Return `Left lung` and `Right lung` of the first of `preferred` CTs that shows lungs, and doubts about them.

        Refuses `no-ct`; `no-lungs` is `Absent`.
        """
        volumes = _candidates(study)
        if not volumes:
            raise Refused("no-ct", "the study holds no CT series of enough slices to measure lungs on")
        reason: Absent | None = None
        for volume in volumes:
            try:
                return (*self.measure(volume), *reformat_doubts(volume, volumes, self.name))
            except Absent as error:
                reason = reason or error
        why = f": {reason.sentence}" if reason else ""
        raise Absent("no-lungs", f"no CT series shows lungs to measure{why}")

    def measure(self, volume: Volume) -> tuple[Finding | Flag, ...]:
        """Return findings and doubts of one CT. Refuses (`no-lungs`, `not-ct`)."""
        found = lungs(volume, include_pleural=False)
        flags = (*found.flags, *self._thick(volume))
        findings: list[Finding] = []
        for key, lung, side in (("left", found.left, codes.LEFT), ("right", found.right, codes.RIGHT)):
            mask = self._parenchyma(lung, volume)
            if mask.count * volume.voxel_volume_mm3 < 1000.0 * self.smallest_lung_ml:
                continue
            findings.append(self._finding(key, mask, side, volume))
        if not findings:
            sentence = f"neither lung shows {self.smallest_lung_ml:g} ml of parenchyma"
            raise Absent("no-lungs", sentence, where=volume.series_instance_uid)
        return (*findings, *(replace(flag, plugin=self.name) for flag in flags))

    def _parenchyma(self, lung: Mask, volume: Volume) -> Mask:
        hu = volume.array[lung.box]
        kept = Mask.from_full(lung.voxels & (hu < self.parenchyma_hu) & (hu > PADDING_HU))
        origin = (
            lung.origin[0] + kept.origin[0],
            lung.origin[1] + kept.origin[1],
            lung.origin[2] + kept.origin[2],
        )
        return Mask(shape=lung.shape, origin=origin, voxels=kept.voxels)

    def _thick(self, volume: Volume) -> tuple[Flag, ...]:
        distance_mm = max(volume.spacing_mm)
        if distance_mm <= self.thick_slice_mm:
            return ()
        sentence = (
            f"voxels are {distance_mm:.2g} mm long in one direction: LAA-950 is too low on thick slices; compare only"
            " with the same voxels and reconstruction kernel, or read LAA-910"
        )
        return (Flag(code="thick-slices", sentence=sentence, series_instance_uid=volume.series_instance_uid),)

    def _finding(self, key: str, mask: Mask, side: Code, volume: Volume) -> Finding:
        hu = volume.array[mask.box][mask.voxels]
        where = (
            f"lung voxels below {self.parenchyma_hu:g} HU, trachea and main bronchi removed;"
            f" voxel distance {max(volume.spacing_mm):.3g} mm, kernel {volume.convolution_kernel or 'not stated'},"
            " no correction for thickness, kernel or breath"
        )
        return Finding(
            key=key,
            label=f"{key.capitalize()} lung",
            series_instance_uid=volume.series_instance_uid,
            mask=mask,
            category=codes.ANATOMICAL_STRUCTURE,
            type=codes.LUNG,
            site=codes.LUNG,
            laterality=side,
            measurements=density_of(hu, volume_mm3(mask, volume) / MM3_PER_ML, where),
        )


def density_of(hu: NDArray[np.float32], volume_ml: float, where: str) -> tuple[Measurement, ...]:
    """Return volume, mean density, LAA-950, LAA-910 and Perc15 of lung voxels `(N,)` in HU; N is at least 1.

    LAA is strictly below its threshold, in per cent of the voxels; Perc15 interpolates linearly between ranks.
    `volume_ml` is their volume; `where` tells which voxels these are and becomes part of each method.
    """
    indices = density_indices(hu)
    return (
        Measurement(
            name="volume",
            concept=codes.VOLUME,
            value=volume_ml,
            unit=codes.ML,
            method=f"number of voxels x voxel volume; {where}",
        ),
        Measurement(
            name="mean_lung_density",
            concept=codes.ATTENUATION,
            value=indices.mean_hu,
            unit=codes.HU,
            method=f"mean of {where}",
            derivation=codes.MEAN,
        ),
        _low(indices.laa_950_percent, 950, codes.LAA_950, where),
        _low(indices.laa_910_percent, 910, codes.LAA_910, where),
        Measurement(
            name="perc_15",
            concept=codes.PERC_15,
            value=indices.perc_15_hu,
            unit=codes.HU,
            method=f"15th percentile, linear between ranks; {where}",
        ),
    )


def _low(percent: float, below: int, concept: Code, where: str) -> Measurement:
    return Measurement(
        name=f"laa_{below}",
        concept=concept,
        value=percent,
        unit=codes.PERCENT,
        method=f"voxels strictly below -{below} HU; {where}",
    )


def _candidates(study: Study) -> tuple[Volume, ...]:
    """Return the CT volumes of at least 8 slices and 60 mm, the one to measure first."""

    def length_mm(volume: Volume) -> float:
        return int(volume.array.shape[0]) * volume.spacing_mm[0]

    return preferred(v for v in study.by_role("ct") if v.array.shape[0] >= 8 and length_mm(v) >= 60.0)
