"""The shipped nodule segmenter on real nodules: each by the network that has not seen its patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.nodule_segmenter import LearnedNoduleSegmenter
from models.shipped import open_shipped
from training.lidc import lidc_manifest, load_nodule

MODEL = "nodule_segmenter"


def test_each_file_is_small_and_every_patient_of_the_data_has_a_fold_of_its_own(data: Path) -> None:
    model = open_shipped(MODEL)
    manifest = lidc_manifest(data / "lidc_nodules")
    assert model.card["data_sha256"] == manifest.sha256
    assert model.card["held_out"] == manifest.held_out
    assert max(size for _, size in model.manifest.files.values()) <= 15_000_000


@pytest.mark.parametrize("fold", range(5))
def test_nodules_of_unseen_patients_are_drawn(data: Path, fold: int) -> None:
    root = data / "lidc_nodules"
    model = open_shipped(MODEL)
    segmenter = LearnedNoduleSegmenter(model=model, folds=(fold,), mirrors=1)
    found = []
    for case in lidc_manifest(root).fold(fold)[::40]:
        nodule = load_nodule(case, root)
        k, r, c = np.argwhere(nodule.mask)[nodule.mask.sum() // 2].tolist()
        drawn = segmenter.segment(nodule.image, nodule.spacing_mm, (k, r, c))
        both = 2 * np.count_nonzero(drawn & nodule.mask)
        found.append(both / (np.count_nonzero(drawn) + np.count_nonzero(nodule.mask)))
    assert np.mean(found) > 0.72
