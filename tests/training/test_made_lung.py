from __future__ import annotations

import numpy as np
import pytest

from training import made_lung
from training.made_lung import SIDE, VOXEL_MM, block, lung_on


def test_a_block_is_mostly_aerated_and_holds_vessels_and_is_the_same_each_time() -> None:
    for number in range(4):
        hu = block(number)
        assert hu.shape == (SIDE,) * 3
        assert -960 < np.median(hu[hu < -500]) < -730
        assert 0.001 < (hu > -300).mean() < 0.45
    assert np.array_equal(block(1), block.__wrapped__(1))
    assert not np.array_equal(block(1), block(2))


@pytest.mark.parametrize("spacing", [(1.0, 0.7, 0.7), (5.0, 1.0, 1.0)])
def test_a_part_of_a_block_has_the_grid_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, spacing: tuple[float, float, float]
) -> None:
    place = np.indices((SIDE,) * 3).sum(axis=0).astype(np.int16)
    monkeypatch.setattr(made_lung, "block", lambda _: place)
    part = lung_on((9, 20, 20), spacing, np.random.default_rng(0))
    assert part.shape == (9, 20, 20)
    for axis, mm in enumerate(spacing):
        steps = np.abs(np.diff(part, axis=axis))
        assert steps.mean() == pytest.approx(mm / VOXEL_MM, rel=0.1)
    assert (
        len({lung_on((9, 20, 20), spacing, np.random.default_rng(seed)).tobytes() for seed in range(5)}) == 5
    )
