"""Teaching the trees that outline lesions on PET, and calibrating what they say.

Both are done on answers of networks for tumours that these had not seen: in a crop and in a larger background, asked
at the middle, at the hottest voxel, anywhere, and beside the middle. A fold gets what the other folds' tumours taught,
so that no figure on the card is of tumours that taught it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.calibration import fit_scale, lesion_region
from models.nodule_passes import Network
from models.petct import PetctView, look_at
from models.uptake_outline import FEATURES, UptakeTrees, outlined, told
from training.evaluate.petct import SETTINGS, put
from training.sts import Sarcoma

BESIDE = 3
"""Further points of each tumour, so far from its middle:"""
JITTER_MM = 10.0
VOXELS = 2500
"""Voxels of each answer that are learned from, drawn at random."""
LARGER_COUNTS = 0.7
"""A tumour counts in all as its voxels do to the power of 1 less this."""
RISING = ("logit", "logit within 8 mm", "logit within 20 mm")
"""Where the network is surer the trees are no less sure."""
BOOSTING: Mapping[str, Any] = {
    "max_iter": 80,
    "learning_rate": 0.06,
    "max_leaf_nodes": 6,
    "min_samples_leaf": 1500,
    "l2_regularization": 20,
    "early_stopping": False,
    "random_state": 0,
    "monotonic_cst": [int(name in RISING) for name in FEATURES],
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """One tumour and what the network that has not seen it said of it."""

    fold: int
    """Which network that is."""
    case: Sarcoma
    """The tumour."""
    image: tuple[NDArray[np.float32], NDArray[np.float32] | None]
    """SUV and HU (None without CT) `(K, R, C)`."""
    truth: NDArray[np.bool_]
    """The tumour as drawn, `(K, R, C)`."""
    point: tuple[float, ...]
    """Voxel index."""
    probability: NDArray[np.float32]
    """What the network said, `(K, R, C)`."""
    setting: str
    """One of `SETTINGS`, or nothing for a point beside the middle."""


def asked_of(
    networks: Mapping[int, Network], view: PetctView, cases: Mapping[str, tuple[int, Sarcoma]], mirrors: int
) -> Iterator[Asked]:
    """Yield every tumour in every setting and at further points, by the network of its own fold."""
    for number, (fold, case) in enumerate(cases.values()):
        rng = np.random.default_rng([number, len(SETTINGS)])
        for setting in (*SETTINGS, *[""] * BESIDE):
            suv, hu, truth, point, _ = put(case, setting or SETTINGS[int(rng.integers(2))])
            if not setting:
                off = rng.standard_normal(3) * JITTER_MM / np.asarray(case.spacing_mm)
                point = tuple(np.clip(np.asarray(point) + off, 0, np.asarray(suv.shape) - 1.0).tolist())
            found = look_at([networks[fold]], view, suv, hu, case.spacing_mm, point, mirrors)
            yield Asked(
                fold=fold,
                case=case,
                image=(suv, hu),
                truth=truth,
                point=point,
                probability=found.probability,
                setting=setting,
            )


def taught(answers: Sequence[Asked], folds: Sequence[int]) -> dict[int, UptakeTrees]:
    """Return the trees of each of the folds: those that the answers of all other folds teach."""
    rngs = {fold: np.random.default_rng(fold) for fold in folds}
    lessons: dict[int, list[tuple[NDArray[Any], ...]]] = {fold: [] for fold in folds}
    for one in answers:
        where, values = told(one.probability, *one.image, one.case.spacing_mm, one.point)
        truth, count = one.truth[where], min(VOXELS, len(values))
        weight = len(values) / max(count, 1) / one.truth.sum() ** LARGER_COUNTS
        for fold in set(folds) - {one.fold}:
            drawn = rngs[fold].choice(len(values), count, replace=False)
            lessons[fold].append((values[drawn], truth[drawn], np.full(count, weight)))
    return {fold: boosted(*map(np.concatenate, zip(*lessons[fold], strict=True))) for fold in folds}


def boosted(
    values: NDArray[np.float32], truth: NDArray[np.bool_], weights: NDArray[np.float64]
) -> UptakeTrees:
    """Return scikit-learn's histogram boosting as plain arrays, from features `(V, F)`, truth and weights `(V,)`."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    learned = HistGradientBoostingClassifier(**BOOSTING)
    # it cannot bin a column of which nothing is known: data without any CT
    values = np.where(np.isnan(values).all(axis=0), np.float32(0), values)
    learned.fit(values, truth, sample_weight=weights / weights.mean())
    nodes = [tree.nodes for (tree,) in learned._predictors]
    shape = len(nodes), max(map(len, nodes))
    trees = UptakeTrees(
        feature=np.full(shape, -1, np.int16),
        level=np.zeros(shape),
        left=np.zeros(shape, np.int16),
        right=np.zeros(shape, np.int16),
        unknown_left=np.zeros(shape, np.bool_),
        value=np.zeros(shape),
        begin=np.asarray(learned._baseline_prediction, np.float64).reshape(1),
    )
    for row, tree in enumerate(nodes):
        count, inner = len(tree), tree["is_leaf"] == 0
        trees.feature[row, :count] = np.where(inner, tree["feature_idx"], -1)
        for name, source in (("level", "num_threshold"), ("left", "left"), ("right", "right")):
            getattr(trees, name)[row, :count] = np.where(inner, tree[source], 0)
        trees.unknown_left[row, :count] = inner & (tree["missing_go_to_left"] != 0)
        trees.value[row, :count] = np.where(inner, 0.0, tree["value"])
    return trees


def calibrations(answers: Sequence[Asked], trees: Mapping[int, UptakeTrees]) -> dict[str, Any]:
    """Return slope and shift for `models.calibration.scaled_logit`: of all folds, and for each by the others.

    Each tumour counts once, in the crop and asked at its middle, with what the trees of its own fold say.
    """
    once = [one for one in answers if one.setting == SETTINGS[0]]
    folds = np.array([one.fold for one in once])
    said, truth = [], []
    for one in once:
        region = lesion_region(one.truth, one.case.spacing_mm)
        trees_of = [trees[one.fold]]
        said.append(outlined(trees_of, one.probability, *one.image, one.case.spacing_mm, one.point)[region])
        truth.append(one.truth[region])

    def fitted(chosen: NDArray[np.bool_]) -> list[float]:
        which = np.flatnonzero(chosen)
        return list(fit_scale([said[i] for i in which], [truth[i] for i in which]))

    return {
        "all": fitted(np.ones(len(folds), dtype=np.bool_)),
        "folds": {str(fold): fitted(folds != fold) for fold in np.unique(folds).tolist()},
    }


__all__ = ["BOOSTING", "Asked", "asked_of", "boosted", "calibrations", "taught"]
