from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ball_sarcomas import write_sarcomas

from models.outlining import best_overlap
from models.petct import PetctView
from models.uptake_outline import FEATURES, outlined
from training.evaluate.metrics import dice
from training.evaluate.petct import SETTINGS
from training.sts import load_sarcoma, sts_manifest
from training.uptake_trees import BESIDE, BOOSTING, asked_of, boosted, calibrations, taught

VIEW = PetctView(shape=(24, 24, 24), voxel_mm=6.0, near_mm=20.0, passes=1)


def draws_too_large(shown: np.ndarray) -> np.ndarray:
    """Answer as a network that takes a third of the hottest uptake for lesion, and much around it for possible."""
    mask = np.clip((shown[:, 1:2] - 0.33) * 12, -6, 6)
    return np.concatenate([mask, np.zeros_like(mask)], axis=1).astype(np.float32)


def test_boosted_trees_say_what_scikit_learn_says_also_of_what_is_not_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    few = {**BOOSTING, "max_iter": 40, "min_samples_leaf": 20}
    monkeypatch.setattr("training.uptake_trees.BOOSTING", few)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3000, len(FEATURES))).astype(np.float32)
    values[rng.random(3000) < 0.5, 17] = np.nan
    truth = np.nan_to_num(values[:, 17], nan=0.7) + values[:, 2] * values[:, 5] > 0.4
    weights = rng.uniform(0.5, 2.0, 3000)
    trees = boosted(values, truth, weights)
    theirs = HistGradientBoostingClassifier(**few).fit(values, truth, sample_weight=weights / weights.mean())
    assert np.abs(trees.probability(values) - theirs.predict_proba(values)[:, 1]).max() < 1e-5
    assert trees.feature.shape[0] == 40
    assert (trees.probability(values) > 0.5).mean() == pytest.approx(truth.mean(), abs=0.1)


def test_trees_of_a_fold_are_taught_by_the_other_folds_and_draw_its_tumours_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "training.uptake_trees.BOOSTING", {**BOOSTING, "max_iter": 30, "min_samples_leaf": 20}
    )
    monkeypatch.setattr("training.uptake_trees.VOXELS", 300)
    root = write_sarcomas(tmp_path / "sts")
    manifest = sts_manifest(root)
    cases = {
        case.case_id: (number % 2, load_sarcoma(case, root)) for number, case in enumerate(manifest.cases)
    }
    answers = list(asked_of({0: draws_too_large, 1: draws_too_large}, VIEW, cases, 1))
    assert len(answers) == len(cases) * (len(SETTINGS) + BESIDE)
    assert len({one.point for one in answers if one.case is answers[0].case and not one.setting}) == BESIDE
    trees = taught(answers, (0, 1))
    without = [one for one in answers if one.fold == 1]
    assert np.array_equal(taught(without, [0])[0].value, trees[0].value), "its own tumours change nothing"
    before, after = [], []
    for one in answers:
        said = outlined([trees[one.fold]], one.probability, *one.image, one.case.spacing_mm, one.point)
        mask, _ = best_overlap(said, np.asarray(one.point), one.case.spacing_mm, np.inf)
        before.append(dice(one.probability > 0.5, one.truth))
        after.append(dice(mask, one.truth))
    assert np.mean(after) > np.mean(before) + 0.05
    assert np.mean(after) > 0.95
    scales = calibrations(answers, trees)
    assert scales["folds"].keys() == {"0", "1"}
    assert all(len(scale) == 2 and scale[0] > 0 for scale in (scales["all"], *scales["folds"].values()))
