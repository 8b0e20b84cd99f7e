from __future__ import annotations

import numpy as np
import pytest
from ball_nodules import ball_nodule
from hypothesis import given, settings
from hypothesis import strategies as st

from models.nodule_features import FEATURES, features, seen

FINE = (0.7, 0.7, 0.7)


def _named(values: np.ndarray) -> dict[str, float]:
    return dict(zip(FEATURES, values.tolist(), strict=True))


def test_the_features_of_a_ball_are_those_of_its_formula() -> None:
    ball = ball_nodule(14.0, FINE, seed=0)
    found = _named(features(ball.image, ball.mask, FINE))
    assert found["log2 volume"] == pytest.approx(np.log2(np.pi / 6 * 14**3), abs=0.03)
    assert found["log2 longest extent"] == pytest.approx(np.log2(14), abs=0.03)
    assert found["flatness"] == pytest.approx(1, abs=0.02) and found["elongation"] == pytest.approx(
        1, abs=0.02
    )
    assert found["fullness"] == pytest.approx(1, abs=0.06)
    assert found["roundness of outline"] == pytest.approx(1, abs=0.08)
    assert found["solidity"] > 0.9 and found["spread of radius"] < 0.06
    assert found["mean HU of the core"] == pytest.approx(40, abs=5)
    assert found["part above 200 HU"] == 0
    assert found["mean HU around"] < -700 and found["step at the margin"] > 400


def test_calcium_fat_and_tissue_beside_are_seen() -> None:
    ball = ball_nodule(12.0, FINE, seed=1)
    plain = _named(features(ball.image, ball.mask, FINE))
    half = ball.mask & (np.arange(ball.mask.shape[0]) > ball.mask.shape[0] // 2)[:, None, None]
    chalk, fat = (np.where(half, np.float32(hu), ball.image) for hu in (700, -80))
    assert _named(features(chalk, ball.mask, FINE))["part above 200 HU"] == pytest.approx(0.45, abs=0.06)
    assert _named(features(fat, ball.mask, FINE))["part of fat"] > plain["part of fat"] + 0.3
    walled = np.where(ball.mask, ball.image, np.float32(40))
    assert _named(features(walled, ball.mask, FINE))["part of tissue around"] == 1
    assert plain["part of tissue around"] < 0.2


@given(axis=st.integers(0, 2), turns=st.integers(0, 3))
@settings(max_examples=8, deadline=None)
def test_a_mirrored_or_turned_nodule_has_the_same_features(axis: int, turns: int) -> None:
    ball = ball_nodule(9.0, (1.25, 0.7, 0.7), seed=3)
    mask = ball.mask.copy()
    mask[:, :, mask.shape[2] // 2 + 3 :] = False
    moved = [np.rot90(np.flip(a, axis), turns, (1, 2)).copy() for a in (ball.image, mask)]
    assert features(*moved, ball.spacing_mm) == pytest.approx(
        features(ball.image, mask, ball.spacing_mm), rel=1e-4, abs=1e-3
    )


def test_how_a_crop_was_cut_changes_nothing() -> None:
    ball = ball_nodule(10.0, (1.25, 0.7, 0.7), seed=4)
    wide = [
        np.pad(a, [(5, 2), (9, 30), (12, 3)], constant_values=v)
        for a, v in ((ball.image, 300), (ball.mask, False))
    ]
    assert np.array_equal(features(*wide, ball.spacing_mm), features(ball.image, ball.mask, ball.spacing_mm))
    hu, mask, looked_at = seen(*wide, ball.spacing_mm)
    assert len(hu) == ball.mask.any(axis=(1, 2)).sum() and mask.sum() == ball.mask.sum()
    assert not (looked_at & (hu == 300)).any()


def test_a_single_voxel_and_a_mask_that_fills_its_image_have_features() -> None:
    one = np.zeros((3, 5, 5), dtype=bool)
    one[1, 2, 2] = True
    image = np.full((3, 5, 5), -850, dtype=np.float32)
    assert np.isfinite(features(image, one, FINE)).all()
    assert np.isfinite(features(image, np.ones_like(one), FINE)).all()


def test_no_mask_is_refused() -> None:
    image = np.zeros((3, 4, 4), dtype=np.float32)
    for wrong in (np.zeros((3, 4, 4), dtype=bool), np.ones((3, 4, 5), dtype=bool)):
        with pytest.raises(ValueError, match="mask on the grid"):
            features(image, wrong, FINE)
