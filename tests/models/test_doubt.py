from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import special

from models.doubt import FLOOR, Answered, Doubt, Sizes, fit_doubt, judge_doubt


def answers(n: int, seed: int, *, loud: float = 2.5, spread: float = 0.4) -> list[Answered]:
    """Lesions of five folds, drawn by a model that is too loud and errs by a factor that it knows the size of."""
    random = np.random.default_rng(seed)
    made = []
    for i in range(n):
        z = random.normal(0, 2, 300)
        volume = math.exp(random.normal(6, 1.2))
        axis = (6 * volume / math.pi) ** (1 / 3)
        unsure = random.uniform(0.0, 0.8)
        factor = math.exp(random.normal(0, spread * (unsure + FLOOR)))
        made.append(
            Answered(
                fold=i % 5,
                logits=z * loud,
                lesion=random.random(300) < special.expit(z),
                volume_mm3=(volume * factor, volume),
                long_axis_mm=(axis * factor ** (1 / 3), axis),
                uncertainty=unsure,
            )
        )
    return made


def test_every_fold_is_judged_by_what_the_others_taught() -> None:
    cases = answers(400, 0)
    judged = judge_doubt(cases, Sizes())
    assert len(judged.folds) == 5
    assert judged.folds[2] == fit_doubt([c for c in cases if c.fold != 2], Sizes())
    assert judged.raw.ece > 0.08 and judged.calibrated.ece < 0.02
    assert int(judged.raw.count.sum()) == 400 * 300
    assert judged.volume.shape == judged.long_axis.shape == (400,)
    assert 0.86 < judged.volume.mean() < 0.94 and 0.86 < judged.long_axis.mean() < 0.94


def test_a_fold_unlike_the_others_is_not_helped_by_itself() -> None:
    cases = [c for c in answers(300, 1) if c.fold] + [c for c in answers(300, 2, spread=4.0) if not c.fold]
    judged = judge_doubt(cases, Sizes())
    quantiles = [d.volume_mm3.quantiles[0] for d in judged.folds]
    assert quantiles[0] < 0.8 < min(quantiles[1:])


def test_the_interval_of_an_unsure_drawing_is_wider_and_both_hold_as_often() -> None:
    found, new = fit_doubt(answers(500, 5), Sizes()), answers(2000, 6)
    low, high = found.volume_interval_mm3(100.0, 0.3)
    factor = math.exp(0.4 * 1.645 * (0.3 + FLOOR))
    assert (low, high) == (pytest.approx(100 / factor, rel=0.1), pytest.approx(100 * factor, rel=0.1))
    assert found.volume_interval_mm3(100.0, 0.6)[1] > high
    for few, many in ((0.0, 0.4), (0.4, 0.8)):
        some = [c for c in new if few <= c.uncertainty < many]
        held = [
            low <= c.volume_mm3[1] <= high
            for c in some
            for low, high in [found.volume_interval_mm3(c.volume_mm3[0], c.uncertainty)]
        ]
        assert np.mean(held) == pytest.approx(0.9, abs=0.03)


def test_a_case_in_which_nothing_was_drawn_counts_as_missed() -> None:
    cases = answers(100, 8)
    nothing = replace(cases[0], volume_mm3=(0.0, 500.0), long_axis_mm=(0.0, 10.0))
    judged = judge_doubt([nothing, *cases[1:]], Sizes())
    assert not judged.volume[0] and not judged.long_axis[0]
    found = judged.folds[0].volume_mm3.coverage([0.0, 100.0], [500.0, 100.0])
    assert (found.covered, found.cases) == (1, 2)


def test_nothing_drawn_promises_nothing() -> None:
    found = fit_doubt(answers(100, 7), Sizes())
    assert found.long_axis_interval_mm(0.0, 1.0) == (0.0, math.inf)


def test_size_groups_have_quantiles_of_their_own() -> None:
    found = fit_doubt(answers(200, 3), Sizes(volume_edges_mm3=(400.0,), long_axis_edges_mm=(8.0, 12.0)))
    assert len(found.volume_mm3.quantiles) == 2 and len(found.long_axis_mm.quantiles) == 3


def test_the_card_gives_back_the_doubt() -> None:
    found = fit_doubt(answers(40, 4), Sizes())
    assert Doubt.of_card(json.loads(json.dumps(found.as_card()))) == found
    with pytest.raises(KeyError):
        Doubt.of_card({"temperature": 1.0})
