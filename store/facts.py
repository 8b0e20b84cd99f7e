"""What a series was like that an analysis looked at: the input whose drift is watched. Nothing in it is of the patient.

No SQL is loaded: the child process that analyses makes these facts, `store.findings` keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from plugins import codes
from plugins.contract import Volume
from store.analysed import SeriesFacts
from store.dicom.equipment import one_line
from store.dicom.values import text

EDGES: Final[dict[str, tuple[float, ...]]] = {
    codes.HU.value: (
        -1010.0, -990.0, -970.0, -950.0, -925.0, -900.0, -875.0, -850.0, -825.0, -800.0, -750.0, -700.0, -600.0,
        -400.0, -200.0, -130.0, -110.0, -90.0, -70.0, -50.0, -25.0, 0.0, 20.0, 40.0, 60.0, 80.0, 100.0, 150.0, 200.0,
        300.0, 500.0, 1000.0,
    ),
    codes.SUV_BW_UNIT.value: (
        0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 25.0,
    ),
}  # fmt: skip
"""Edges between the bins of voxel values, by UCUM code; the first bin is below the first edge, the last from the last
on. Fine where air, aerated lung, fat and soft tissue lie."""
SAMPLED: Final = (40, 64, 64)
"""Of each axis (K, R, C) about so many voxels, evenly spaced, are looked at."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """One study as an analysis saw it: a point of the statistics of drift."""

    at: datetime
    """When its results were kept; aware UTC."""
    categories: Mapping[str, str]
    """Of the series that was looked at: `manufacturer`, `manufacturer_model_name`, `convolution_kernel`, ..."""
    spacings_mm: Mapping[str, float]
    """Of that series: `slice_distance`, `pixel_spacing`."""
    histograms: Mapping[str, tuple[float, ...]]
    """Shares of its voxels between the edges of `EDGES`, by unit."""
    numbers: Mapping[str, float]
    """Of what was found: `findings`, and of their `volume`, `long_axis`, `entropy`, ... the median of the study."""


def facts_of(volume: Volume, header: Dataset) -> SeriesFacts:
    """Return what a series was like; `header` is that of any of its images."""
    edges = EDGES.get(volume.unit.value)
    k, r, _ = volume.spacing_mm
    return SeriesFacts(
        series_instance_uid=volume.series_instance_uid,
        modality=volume.modality,
        manufacturer=one_line(text(header, "Manufacturer")),
        manufacturer_model_name=one_line(text(header, "ManufacturerModelName")),
        convolution_kernel=one_line(volume.convolution_kernel),
        slice_distance_mm=round(k, 4),
        pixel_spacing_mm=round(r, 4),
        slices=int(volume.array.shape[0]),
        unit=volume.unit.value,
        histogram=() if edges is None else histogram(volume.array, edges),
    )


def histogram(array: NDArray[np.float32], edges: tuple[float, ...]) -> tuple[float, ...]:
    """Return the shares of the voxels of `(K, R, C)` in the bins, to five decimals; every n-th voxel is looked at."""
    step = [max(1, n // wanted) for n, wanted in zip(array.shape, SAMPLED, strict=True)]
    values = array[:: step[0], :: step[1], :: step[2]].ravel()
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return tuple(round(float(share), 5) for share in counts / max(1, values.size))


__all__ = ["EDGES", "SAMPLED", "Observed", "facts_of", "histogram"]
