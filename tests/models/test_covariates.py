from __future__ import annotations

import math

import pytest

from models.covariates import Covariate, Covariates
from models.files import BadModel

AGE = Covariate(name="age_years", mean=60.0, spread=10.0, weight=0.5)
SMOKER = Covariate(name="is_smoker", mean=0.4, spread=0.5, weight=0.3)
BOTH = Covariates(image=0.9, intercept=-0.1, facts=(AGE, SMOKER))


def test_known_facts_move_the_logit_and_unknown_ones_do_not() -> None:
    assert BOTH.logit(2.0, {"age_years": 70.0}) == pytest.approx(-0.1 + 1.8 + 0.5)
    assert BOTH.logit(2.0, {"age_years": 70.0, "is_smoker": None}) == BOTH.logit(2.0, {"age_years": 70.0})
    assert BOTH.logit(2.0, {"age_years": 70.0, "is_smoker": 1.0}) == pytest.approx(2.2 + 0.3 * 0.6 / 0.5)


def test_where_nothing_is_known_the_image_alone_answers() -> None:
    assert BOTH.logit(1.25, {}) == 1.25
    assert BOTH.logit(1.25, {"age_years": None, "is_smoker": None}) == 1.25


def test_what_was_not_learned_and_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="'weight_kg' was not learned; what was: age_years, is_smoker"):
        BOTH.logit(0.0, {"weight_kg": 80.0})
    with pytest.raises(ValueError, match="finite"):
        BOTH.logit(0.0, {"age_years": math.nan})


def test_a_card_brings_them_back_or_is_refused() -> None:
    plain = {
        "image": 0.9,
        "intercept": -0.1,
        "facts": [vars(AGE), vars(SMOKER)],
    }
    assert Covariates.of(plain) == BOTH
    with pytest.raises(BadModel, match="bad-card"):
        Covariates.of({**plain, "facts": [{"name": "age_years"}]})
