"""The shipped PET/CT model on real sarcomas: each by the network that has not seen its patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.petct import NAME, LearnedPetct, above_suv
from models.shipped import open_shipped
from training.evaluate.metrics import dice
from training.petct_outcomes import hazard_of
from training.sts import load_sarcoma, sts_manifest


def test_each_file_is_small_and_every_patient_of_the_data_has_a_fold_of_its_own(data: Path) -> None:
    model = open_shipped(NAME)
    manifest = sts_manifest(data / "sts_petct")
    assert model.card["data_sha256"] == manifest.sha256
    assert model.card["held_out"] == manifest.held_out
    assert max(size for _, size in model.manifest.files.values()) <= 15_000_000


def test_tumours_of_unseen_patients_are_drawn_better_than_by_a_threshold_and_hazards_follow_the_true_ones(
    data: Path,
) -> None:
    root, model = data / "sts_petct", open_shipped(NAME)
    drawn, threshold, said, true = [], [], [], []
    for fold in model.folds:
        one = LearnedPetct(model=model, folds=(fold,))
        for case in sts_manifest(root).fold(fold)[::3]:
            tumour = load_sarcoma(case, root)
            place = (tumour.spacing_mm, tumour.middle)
            found = one.answer(tumour.suv, *place, tumour.hu)
            drawn.append(dice(found.mask, tumour.mask))
            threshold.append(dice(above_suv(tumour.suv, *place), tumour.mask))
            said.append(found.log_hazard)
            true.append(hazard_of(tumour))
    assert np.mean(drawn) > max(0.65, float(np.mean(threshold)) + 0.1)
    assert np.corrcoef(said, true)[0, 1] > 0.7


def test_the_card_says_that_outcomes_are_simulated_and_reports_do_not_show_the_hazard() -> None:
    card = open_shipped(NAME).card
    assert card["reported"] is False
    assert "simulated" in card["training_data"]
    assert card["figures"]["survival"]["simulated"] is True
