"""Where a measured axis is drawn on an image whose slices lie a little beside one another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dicom_series import make_series

from plugins import codes
from plugins.contract import Mask, Measurement, Volume
from plugins.measure.axes import measure_axes
from store.dicom.drawing import axis_line
from store.dicom.series import read_study

K, SHEAR = 60, 0.0085
"""Slices 2 mm apart of which each lies 0.017 mm further on: 0.49 degrees, and 1 mm at the last."""


def sheared(folder: Path) -> Volume:
    make_series(
        folder,
        np.indices((K, 24, 24)).sum(axis=0),
        spacing_mm=(2.0, 0.5, 0.5),
        ImagePositionPatient=lambda k: [0.0, round(SHEAR * 2 * k, 6), 2.0 * k],
    )
    (volume,) = read_study(folder.iterdir()).study.volumes
    assert [flag.code for flag in volume.flags] == ["slight-tilt"]
    return volume


def test_the_axes_of_a_region_on_slightly_tilted_slices_are_drawn_on_it(tmp_path: Path) -> None:
    volume = sheared(tmp_path)
    voxels = np.zeros(volume.array.shape, dtype=np.bool_)
    voxels[K - 3 : K, 6:9, 4:20] = True
    axes = measure_axes(Mask.from_full(voxels), volume)
    measured = Measurement(
        name="long_axis",
        concept=codes.LONG_AXIS,
        value=axes.long_axis_mm,
        unit=codes.MM,
        method="",
        end_points_mm=axes.long_end_points_mm,
        slice_index=axes.slice_index,
    )
    line = axis_line(measured, volume)
    assert axes.slice_index >= K - 3
    assert ((line[:, 1] > 6) & (line[:, 1] < 9)).all()  # rows 6 to 8, the middle of the first pixel at 0.5
    np.testing.assert_allclose(sorted(line[:, 0]), [4.0, 20.0], atol=0.3)
