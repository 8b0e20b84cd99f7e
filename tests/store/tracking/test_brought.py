"""To which series of a new study the lesions of an earlier one are brought."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from thorax import ct_volume, study_of

from store.tracking.brought import Motions, Scene
from store.tracking.earlier import EarlierSeries


def earlier(description: str) -> EarlierSeries:
    return EarlierSeries(
        study_instance_uid="1.9",
        study_date="2025-01-01",
        series_instance_uid=f"1.9.{len(description)}",
        modality="CT",
        description=description,
        regions=(),
        segmentation=None,  # type: ignore[arg-type]
        files=(),
    )


@pytest.mark.parametrize(
    ("looked_at", "was", "expected"),
    [
        ((), "", "axial"),
        ((), "Thorax 5.0", "axial"),
        (("axial",), "Chest MPR", "axial"),
        ((), "Chest MPR", "coronal"),
        (("coronal",), "Chest", "coronal"),
    ],
)
def test_lesions_come_to_the_acquired_series_of_those_that_are_as_much_like_theirs(
    looked_at: tuple[str, ...], was: str, expected: str
) -> None:
    voxels = np.zeros((10, 10, 10), dtype=np.float32)
    along = np.eye(4)[:, [2, 1, 0, 3]] * (5.0, 1.0, 1.0, 1.0)
    across = np.eye(4)[:, [1, 2, 0, 3]] * (3.0, 1.0, 1.0, 1.0)
    axial = replace(ct_volume(voxels, along), series_instance_uid="axial", series_description="Chest axial")
    coronal = replace(
        ct_volume(voxels, across),
        series_instance_uid="coronal",
        series_description="Chest MPR",
        is_reformatted=True,
    )
    scene = Scene(study=study_of(coronal, axial), looked_at=looked_at, motions=Motions())
    ((_, volume),) = scene._pairs([earlier(was)])
    assert volume is not None
    assert volume.series_instance_uid == expected
