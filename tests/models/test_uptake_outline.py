from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from models.files import BadModel
from models.uptake_outline import FEATURES, UptakeTrees, features, outlined, told

SPACING = (4.0, 5.0, 5.0)
SHAPE, MIDDLE = (25, 20, 20), (12.0, 10.0, 10.0)


def ball(radius_mm: float) -> np.ndarray:
    grid = np.indices(SHAPE).astype(float)
    far = sum(((g - m) * s) ** 2 for g, m, s in zip(grid, MIDDLE, SPACING, strict=True))
    return np.asarray(far <= radius_mm**2)


def stump(feature: str, level: float, below: float, above: float, unknown_left: bool = False) -> UptakeTrees:
    """Return one tree that asks one question."""
    return UptakeTrees(
        feature=np.array([[FEATURES.index(feature), -1, -1]], np.int16),
        level=np.array([[level, 0.0, 0.0]]),
        left=np.array([[1, 0, 0]], np.int16),
        right=np.array([[2, 0, 0]], np.int16),
        unknown_left=np.array([[unknown_left, False, False]]),
        value=np.array([[0.0, below, above]]),
        begin=np.array([0.5]),
    )


def answer(radius_mm: float = 20.0) -> tuple[np.ndarray, np.ndarray]:
    """Return probability and SUV of a ball: drawn 10 mm too large, SUV 8 in 1."""
    probability = np.where(ball(radius_mm + 10.0), 0.9, 0.0).astype(np.float32)
    return probability, np.where(ball(radius_mm), 8.0, 1.0).astype(np.float32)


def test_what_is_told_of_a_ball_is_what_it_is_made_of() -> None:
    probability, suv = answer()
    told = features(probability, suv, None, SPACING, MIDDLE)
    assert told.shape == (*SHAPE, len(FEATURES))
    at = {name: told[12, 10, 10, place] for place, name in enumerate(FEATURES)}
    core = probability > 0.5
    assert at["logit"] == pytest.approx(np.log(9.0), abs=1e-5)
    assert at["log SUV"] == pytest.approx(np.log(9.0))
    assert at["SUV over the hottest"] == pytest.approx(1.0)
    assert at["log hottest SUV"] == pytest.approx(np.log(8.0))
    assert at["log mean SUV"] == pytest.approx(np.log(suv[core].mean()))
    assert at["contrast"] == pytest.approx(1.0, abs=0.02)
    assert at["log ml"] == pytest.approx(np.log(core.sum() * 0.1))
    assert at["depth, mm"] == pytest.approx(30.0, abs=5.1)
    assert at["from the point, mm"] == at["from the middle, mm"] == 0.0
    assert np.isnan(at["HU"])
    assert told[12, 10, 14, FEATURES.index("from the point, mm")] == pytest.approx(20.0)
    hu = np.full(SHAPE, 40.0, dtype=np.float32)
    assert features(probability, suv, hu, SPACING, MIDDLE)[..., FEATURES.index("HU")].max() == 40.0


def test_a_ball_that_the_network_draws_too_large_ends_where_its_uptake_does() -> None:
    probability, suv = answer()
    trees = [stump("SUV over the hottest", 0.5, -5.0, 5.0)]
    found = outlined(trees, probability, suv, None, SPACING, MIDDLE)
    assert ((found > 0.5) == ball(20.0)).all()
    assert found[ball(20.0)].max() == pytest.approx(1 / (1 + np.exp(-5.5)))
    assert (found[~told(probability, suv, None, SPACING, MIDDLE)[0]] == 0.0).all()
    both = outlined([*trees, stump("log SUV", -1.0, 0.0, -0.5)], probability, suv, None, SPACING, MIDDLE)
    assert both[12, 10, 10] == pytest.approx((1 / (1 + np.exp(-5.5)) + 0.5) / 2), "several give their mean"


def test_a_voxel_without_ct_goes_where_the_tree_sends_what_is_not_known() -> None:
    probability, suv = answer()
    for unknown_left, value in ((True, -3.0), (False, 3.0)):
        trees = [stump("HU", 0.0, -3.0, 3.0, unknown_left)]
        found = outlined(trees, probability, suv, None, SPACING, MIDDLE)
        assert found[12, 10, 10] == pytest.approx(1 / (1 + np.exp(-0.5 - value)))


def test_where_the_network_sees_nothing_nothing_is_lesion() -> None:
    nothing = np.zeros(SHAPE, dtype=np.float32)
    assert not outlined([stump("log SUV", 0.0, 9.0, 9.0)], nothing, nothing, None, SPACING, MIDDLE).any()


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ("left", np.array([[0, 0, 0]])),
        ("right", np.array([[3, 0, 0]])),
        ("feature", np.array([[len(FEATURES), -1, -1]])),
        ("value", np.array([[0.0, np.nan, 1.0]])),
        ("level", np.zeros((1, 2))),
    ],
    ids=["a-circle", "out-of-the-tree", "an-unknown-question", "no-number", "another-shape"],
)
def test_trees_that_lead_nowhere_are_refused(part: str, wrong: np.ndarray) -> None:
    right = asdict(stump("log SUV", 0.0, -1.0, 1.0))
    assert UptakeTrees.of(right).value[0, 2] == 1.0
    with pytest.raises(BadModel, match="bad-trees"):
        UptakeTrees.of({**right, part: wrong})
    with pytest.raises(BadModel, match="bad-trees"):
        UptakeTrees.of({name: value for name, value in right.items() if name != part})


@pytest.mark.parametrize("voxel_mm", [4.0, 2.0, 1.5])
def test_in_a_dead_core_the_rim_is_seen_whatever_the_voxels_are_and_beside_the_lesion_it_is_not(
    voxel_mm: float,
) -> None:
    side = int(120 / voxel_mm)
    grid = (np.indices((side,) * 3) - (side - 1) / 2) * voxel_mm
    far = np.sqrt((grid**2).sum(axis=0))
    rim, middle = (far < 30) & (far > 20), (side - 1) / 2
    suv = np.where(rim, 8.0, np.where(far < 30, 0.2, 1.0)).astype(np.float32)
    told = features(np.where(rim, 0.9, 0.01).astype(np.float32), suv, None, (voxel_mm,) * 3, (middle,) * 3)
    core, outside = told[(side // 2,) * 3], told[side // 2, side // 2, int(middle + 40 / voxel_mm)]
    for name, least in (
        ("logit seen in most directions", 2.0),
        ("SUV over that around seen in most directions", 4),
    ):
        place = FEATURES.index(name)
        assert core[place] > least > outside[place] + 1
    place = FEATURES.index("SUV over that around seen in three quarters of the directions")
    assert core[place] > 4 > outside[place] + 1
    assert core[FEATURES.index("depth, mm")] == pytest.approx(30.0, abs=2 * voxel_mm), (
        "the core belongs to it"
    )
