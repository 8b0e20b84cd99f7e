"""What the limit of a steady drawing comes from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_segmenter import bright_segmenter

from training import steadiness
from training.scans import Known, Scan

SPACING = (2.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def scan() -> Scan:
    """Return lung with a vessel of 6 mm across it, and a known lesion beside."""
    inside = np.zeros((40, 80, 80), dtype=bool)
    inside[5:35, 5:75, 5:75] = True
    hu = np.where(inside, -850.0, 40.0).astype(np.float32)
    hu[:, 20:26, 20:26] = 40.0
    hu[18:22, 58:64, 58:64] = 40.0
    return Scan(
        name="made",
        hu=hu,
        inside=inside,
        spacing_mm=SPACING,
        known=(Known(centre=(20.0, 61.0, 61.0), radius_mm=4.0),),
    )


def test_points_are_in_plain_lung_and_in_vessels_and_far_from_what_is_known(scan: Scan) -> None:
    found = steadiness.points_without_nodule(scan, count=40)
    assert {kind: len(points) for kind, points in found.items()} == {"plain lung": 40, "vessels": 40}
    for kind, points in found.items():
        assert scan.inside[tuple(points.T)].all()
        assert (scan.hu[tuple(points.T)] > -200).all() == (kind == "vessels")
        assert min(scan.away_mm(point.astype(float)) for point in points) >= 20.0


def test_what_is_drawn_at_points_is_judged_and_what_is_not_drawn_is_left_out(scan: Scan) -> None:
    points = np.array([[20, 22, 22], [20, 40, 40]])
    assert list(steadiness.of_points(bright_segmenter(), scan, points)) == [0.0]


def test_a_folder_that_holds_no_data_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert steadiness.main(["nodule_segmenter", str(tmp_path), str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
