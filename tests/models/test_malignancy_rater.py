from __future__ import annotations

import numpy as np
import pytest
from ball_nodules import ball_nodule

from models.covariates import Covariate, Covariates
from models.malignancy import (
    NAME,
    Array,
    Combination,
    LinearVotes,
    MalignancyRater,
    Member,
    RatedView,
    open_rater,
)
from models.nodule_features import FEATURES, LUNG_HU
from models.shipped import open_shipped

VIEW = RatedView(shape=(16, 16, 16), voxel_mm=1.0, window_hu=(-1000.0, 400.0))
SPACING = (1.25, 0.7, 0.7)


def _by_volume(*intercepts: float) -> LinearVotes:
    weights = np.zeros((len(intercepts), len(FEATURES)))
    weights[:, 0] = 1.0
    return LinearVotes(
        low=np.full(len(FEATURES), -1e6),
        high=np.full(len(FEATURES), 1e6),
        weights=weights,
        intercepts=np.array(intercepts),
    )


def _silent(patches: Array) -> Array:
    return np.zeros((len(patches), 1), dtype=np.float32)


def _rater(*intercepts: float, covariates: Covariates | None = None) -> MalignancyRater:
    member = Member(
        votes=_by_volume(*intercepts),
        network=_silent,
        combination=Combination(intercept=-1.0, linear=0.5, network=1.0),
    )
    return MalignancyRater(view=VIEW, members=(member, member), covariates=covariates)


def test_the_likelihood_is_that_of_its_formula_and_the_interval_that_of_the_votes() -> None:
    ball = ball_nodule(10.0, SPACING, seed=0)
    log_volume = np.log2(ball.mask.sum() * np.prod(SPACING))
    said = _rater(-9.0, -8.0, -10.0).rate(ball.image, ball.mask, SPACING)
    assert said.probability == pytest.approx(1 / (1 + np.exp(1 - 0.5 * (log_volume - 9))))
    assert said.low == pytest.approx(1 / (1 + np.exp(1 - 0.5 * (log_volume - 10))), rel=1e-6)
    assert said.low < said.probability < said.high


def test_what_is_larger_than_anything_learned_counts_as_the_largest() -> None:
    votes = LinearVotes(
        low=np.zeros(2), high=np.array([3.0, 4.0]), weights=np.array([[1.0, 2.0]]), intercepts=np.array([0.5])
    )
    assert votes.logits(np.array([[9.0, -1.0], [1.0, 1.0]])).tolist() == [[3.5], [3.5]]


def test_the_patch_shows_nothing_beyond_the_nodule_and_its_margin() -> None:
    ball = ball_nodule(8.0, SPACING, seed=1)
    loud = np.pad(ball.image, 12, constant_values=1000.0)
    hu, mask = VIEW.hu_and_mask(loud, np.pad(ball.mask, 12), SPACING)
    plain, _ = VIEW.hu_and_mask(ball.image, ball.mask, SPACING)
    assert np.array_equal(hu, plain)
    assert hu[0, 0, 0] == hu[-1, -1, -1] == LUNG_HU and mask[0, 0, 0] == 0 and mask[8, 8, 8] == 1
    assert mask.sum() == pytest.approx(np.pi / 6 * 8**3, rel=0.06)
    shown = VIEW.shown(ball.image, ball.mask, SPACING)
    assert shown.shape == (2, 16, 16, 16) and shown.dtype == np.float32 and np.abs(shown).max() <= 1


def test_clinical_facts_count_only_where_they_were_learned() -> None:
    ball = ball_nodule(8.0, SPACING, seed=2)
    with pytest.raises(ValueError, match="has learned nothing of age_years"):
        _rater(-9.0).rate(ball.image, ball.mask, SPACING, {"age_years": 70.0})
    age = Covariate(name="age_years", mean=60.0, spread=10.0, weight=1.0)
    taught = _rater(-9.0, covariates=Covariates(image=1.0, intercept=0.0, facts=(age,)))
    plain = taught.rate(ball.image, ball.mask, SPACING).probability
    assert plain == _rater(-9.0).rate(ball.image, ball.mask, SPACING, {}).probability
    older = taught.rate(ball.image, ball.mask, SPACING, {"age_years": 70.0}).probability
    assert np.log(older / (1 - older)) == pytest.approx(np.log(plain / (1 - plain)) + 1)
    assert taught.rate(ball.image, ball.mask, SPACING, {"age_years": None}).probability == plain


def test_the_shipped_rater_thinks_size_suspicious_and_chalk_harmless() -> None:
    rater = open_rater(open_shipped(NAME))
    small, large = (ball_nodule(mm, SPACING, seed=5) for mm in (5.0, 18.0))
    chalk = np.where(large.mask, np.float32(700), large.image)
    said = [
        rater.rate(image, ball.mask, SPACING)
        for image, ball in ((small.image, small), (large.image, large), (chalk, large))
    ]
    assert said[0].high < 0.3 < said[1].probability and said[2].probability < said[1].probability
    assert all(0 < one.low <= one.probability <= one.high < 1 for one in said)
