from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from dicom_series import make_series
from installed_example import install_example
from node_process import nadir_json

from store.dicom.rules import check_files

SPACING_MM = (2.0, 1.0, 1.0)


def balls(radii_mm: tuple[float, ...]) -> np.ndarray:
    """Return a CT of soft tissue with a calcified ball of each radius, well apart."""
    hu = np.full((20, 60, 40 * len(radii_mm)), 40.0)
    grid = np.moveaxis(np.indices(hu.shape), 0, -1) * SPACING_MM
    for number, radius_mm in enumerate(radii_mm):
        centre = np.array([20.0, 30.0, 20.0 + 40.0 * number])
        hu[((grid - centre) ** 2).sum(axis=-1) <= radius_mm**2] = 400.0
    return hu


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_example(tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("source"))


def test_the_example_is_installed_found_and_measures_what_is_there(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_series(tmp_path / "study", balls((6.0, 4.0, 0.6, 12.0)), spacing_mm=SPACING_MM)
    monkeypatch.setenv("PYTHONPATH", str(installed))
    where = ["analyse", str(tmp_path / "study"), "--out", str(tmp_path / "out")]
    found = nadir_json(*where, "--plugin", "calcified_foci")["findings"]
    assert [one["label"] for one in found] == ["Calcified focus 1", "Calcified focus 2"]  # no noise, no bone
    for one, radius_mm in zip(found, (6.0, 4.0), strict=True):
        assert one["measurements"]["volume"]["value"] == pytest.approx(
            4 / 3 * math.pi * radius_mm**3 / 1000, rel=0.1
        )
        assert one["measurements"]["hu_mean"]["value"] == 400.0
    written = sorted((tmp_path / "out").rglob("*.dcm"))
    assert len(written) >= 3
    assert [violation for _, found in check_files(written) for violation in found] == []
