from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from ball_sarcomas import TINY, write_sarcomas

from models.files import BadModel
from models.outcome import Outcomes, concordance
from models.petct import LearnedPetct, PetctView
from models.shipped import Model, open_model
from plugins.errors import Refused
from training.challenger import beside_networks
from training.evaluate.data import open_data
from training.evaluate.families import open_subject
from training.evaluate.judging import judge_model
from training.evaluate.metrics import dice
from training.experiment import read_experiments
from training.fit import fit
from training.petct_lesions import made_lesion
from training.petct_outcomes import hazard_of, simulated, true_log_hazard
from training.petct_samples import Augmentation, draw_sample, window
from training.petct_ship import pack
from training.petct_task import PetctTask, loss_of_masks, petct_task
from training.sts import load_sarcoma, sts_manifest

MADE_AT = datetime(2026, 1, 1, tzinfo=UTC)
STILL = Augmentation(
    fill_weights=(0.0, 1.0, 0.0), jitter_mm=0.0, anywhere=0.0, zoom=0.0, gain=0.0, noise=0.0, without_ct=0.0
)


@pytest.fixture(scope="module")
def balls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sarcomas(tmp_path_factory.mktemp("sts") / "sts_petct")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_ct_comes_onto_the_grid_of_the_pet_by_position(balls: Path) -> None:
    manifest = sts_manifest(balls)
    with_ct, without = (load_sarcoma(case, balls) for case in manifest.cases[:2])
    assert without.hu is None
    assert with_ct.hu is not None
    assert with_ct.hu.shape == with_ct.mask.shape
    edge = np.abs(with_ct.hu - np.where(with_ct.mask, 50.0, -100.0)) > 60
    assert edge.mean() < 0.001
    assert with_ct.volume_ml == pytest.approx(4 / 3 * np.pi * 1.5**3, rel=0.1)


def test_real_tumours_have_their_published_volume_and_a_ct_that_lies_on_them(data: Path) -> None:
    manifest = sts_manifest(data / "sts_petct")
    assert len(manifest.cases) == 41
    assert sum("ct" in case.files for case in manifest.cases) == 16
    assert sorted(len(manifest.fold(n)) for n in range(5)) == [8, 8, 8, 8, 9]
    case = load_sarcoma(manifest.cases[0], data / "sts_petct")
    assert case.volume_ml == pytest.approx(366.079, abs=0.01)
    assert case.suv_max == pytest.approx(7.9107, abs=1e-4)
    assert case.hu is not None
    assert float(case.hu[case.mask].mean()) == pytest.approx(28.5, abs=0.5)


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    root = write_sarcomas(tmp_path / "sts_petct", patients=5)
    case = sts_manifest(root).cases[0]
    (root / case.files["pet"]).write_bytes(b"other")
    with pytest.raises(Refused, match="changed-file"):
        load_sarcoma(case, root)


def test_the_window_always_holds_the_tumour_and_seldom_tells_where_it_ends(balls: Path) -> None:
    case, rng = load_sarcoma(sts_manifest(balls).cases[2], balls), np.random.default_rng(0)
    inside = np.argwhere(case.mask)
    margins = []
    for _ in range(200):
        low, high = window(case, Augmentation(), rng)
        assert (low <= inside.min(axis=0)).all()
        assert (high >= inside.max(axis=0)).all()
        margins.append((inside.min(axis=0) - low)[0] * case.spacing_mm[0])
    assert np.std(margins) > 10


def test_a_sample_shows_the_tumour_of_its_mask(balls: Path) -> None:
    case = load_sarcoma(sts_manifest(balls).cases[0], balls)
    view = PetctView(shape=(24, 24, 24), voxel_mm=5.0)
    for n in range(8):
        shown, truth = draw_sample(case, (case,), view, STILL, np.random.default_rng(n))
        hot = np.expm1(shown[0]) > 2.25
        assert (hot == (truth > 0.5)).mean() > 0.998
        assert truth.sum() * 0.125 == pytest.approx(case.volume_ml, rel=0.03)
        assert shown[2][truth > 0.99].mean() == pytest.approx((50 + 160) / 200 - 1, abs=0.2)


def test_a_made_lesion_is_the_same_each_time_and_as_large_as_it_says() -> None:
    one, again = made_lesion(4), made_lesion(4)
    assert np.array_equal(one.suv, again.suv)
    assert one.volume_ml * 1.1 >= 15
    assert one.suv[one.mask].mean() > 1.5 * np.median(one.suv[~one.mask])


def test_hazards_are_a_logarithm_and_outcomes_follow_them() -> None:
    assert true_log_hazard(300, 10) == 0
    assert true_log_hazard(300 * np.e, 10) == pytest.approx(1.0)
    assert true_log_hazard(300, 10 * np.exp(0.6)) == pytest.approx(1.0)
    hazards = np.random.default_rng(0).normal(0, 1.4, 400)
    found = simulated(hazards, 0)
    assert 0.5 < found.event.mean() < 0.9
    assert concordance(hazards, found) > 0.72


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, balls: Path) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.yaml").write_text(TINY.replace("STEPS", "60"))
    (experiment,) = read_experiments(folder / "tiny.yaml")
    for fold in (0, 1):
        fit(experiment, fold, petct_task(experiment, fold, balls), folder / "runs" / f"fold{fold}")
    return folder / "runs"


def test_balls_are_learned_judged_and_followed(run: Path, balls: Path) -> None:
    data = open_data(balls, None, [0, 1])
    found = judge_model(open_subject(str(run)), data, made_at=MADE_AT, resamples=100)
    plain = json.loads(json.dumps(found.plain()))
    settings = plain["segmentation"]["settings"]
    assert settings["the crop alone"]["dice"]["value"] > 0.7
    assert settings["in a larger background"]["open_dice"]["value"] > 0.5
    assert plain["survival"]["simulated"]
    assert plain["survival"]["figures"]["true_c_index"]["value"] > 0.5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, run: Path, balls: Path) -> Model:
    folder = tmp_path_factory.mktemp("packed") / "model"
    trusted, figures = pack(run, open_data(balls, None, [0, 1]), folder)
    packed = open_model(folder, {trusted}, date(2026, 1, 1))
    assert packed.card["figures"] == json.loads(json.dumps(figures))
    return packed


def test_a_run_becomes_a_model_whose_card_alone_draws_what_was_judged(model: Model, balls: Path) -> None:
    data = open_data(balls, None, [0, 1])
    assert model.card["reported"] is False
    case = data.cases[0]
    ball = load_sarcoma(case, balls)
    one = LearnedPetct(model=model, folds=(case.fold,))
    assert sorted(beside_networks(model)) == ["trees0.safetensors", "trees1.safetensors"], (
        "a challenger keeps them"
    )
    drawn = one.answer(ball.suv, ball.spacing_mm, ball.middle, ball.hu).mask
    again = judge_model(open_subject(str(model.folder)), data, made_at=MADE_AT, resamples=100)
    (row,) = (
        row
        for row in again.plain()["segmentation"]["cases"]
        if (row["case_id"], row["setting"]) == (case.case_id, "the crop alone")
    )
    assert row["figures"]["dice"] == pytest.approx(dice(drawn, ball.mask))


@pytest.mark.parametrize("fold", [0, 1])
def test_the_tumours_that_a_fold_has_learned_from_have_a_hazard_of_nought_on_average(
    model: Model, balls: Path, fold: int
) -> None:
    one = LearnedPetct(model=model, folds=(fold,))
    seen = [load_sarcoma(case, balls) for case in open_data(balls, None, [0, 1]).manifest.others(fold)]
    found = [one.answer(ball.suv, ball.spacing_mm, ball.middle, ball.hu).log_hazard for ball in seen]
    assert np.mean(found) == pytest.approx(0.0, abs=1e-6)
    assert np.ptp(found) > 0.01


@pytest.mark.parametrize("said", [{"all": [1.0]}, {"folds": {}}, {"all": ["much", 0.0]}, None])
def test_a_card_whose_calibration_is_none_is_refused(model: Model, balls: Path, said: object) -> None:
    wrong = LearnedPetct(model=replace(model, card={**model.card, "calibration": said}))
    ball = load_sarcoma(sts_manifest(balls).cases[0], balls)
    with pytest.raises(BadModel, match="bad-card"):
        wrong.answer(ball.suv, ball.spacing_mm, ball.middle)


def test_risk_sets_hold_whole_cohorts_and_patients_are_apart(balls: Path, tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY.replace("STEPS", "1").replace("made: 0", "made: 4\n  made_share: 0.5"))
    (experiment,) = read_experiments(config)
    task = petct_task(experiment, 0, balls)
    assert {c.case_id for c in task.learned}.isdisjoint({c.case_id for c in task.judged})
    shown, truth, places = task.batch(4, np.random.default_rng(0))
    assert shown.shape == (4, 5, 16, 16, 16)
    assert truth.shape == (4, 1, 16, 16, 16)
    assert (places < len(task.learned)).sum() == 2
    output = torch.zeros(4, 2, 16, 16, 16, requires_grad=True)
    task.loss(output, (shown, truth, places)).backward()  # type: ignore[no-untyped-call]
    assert output.grad is not None
    assert output.grad[:, 1].abs().sum() > 0


def test_several_outcomes_of_each_patient_cost_their_mean(balls: Path, tmp_path: Path) -> None:
    def task(more: str) -> PetctTask:
        config = tmp_path / "tiny.yaml"
        config.write_text(TINY.replace("STEPS", "1") + more)
        (experiment,) = read_experiments(config)
        return petct_task(experiment, 0, balls)

    three = task("  outcomes: 3\n")
    batch = three.batch(4, np.random.default_rng(0))
    output = torch.randn(4, 2, 1, 1, 1, generator=torch.Generator().manual_seed(0)).expand(4, 2, 16, 16, 16)
    mask = float(0.6 * loss_of_masks(output, batch[1], three.costs))
    alone, nulls = [], []
    for one in (task(f"  outcome_seed: {seed}\n") for seed in range(3)):
        (risk,) = one._risks
        nulls.append(float(risk.null()))
        alone.append((float(one.loss(output, batch)) - mask) * nulls[-1])
    assert float(three.loss(output, batch)) - mask == pytest.approx(np.mean(alone) / np.mean(nulls), rel=1e-4)
    assert len(set(np.round(alone, 4))) == 3


def test_an_order_of_hazards_is_judged_exactly() -> None:
    true = np.array([0.0, 1.0, 2.0])
    order = Outcomes(duration=-true, event=np.ones(3, dtype=np.bool_))
    assert concordance(true, order) == 1.0
    assert concordance(-true, order) == 0.0


@pytest.mark.parametrize("wrong", ["colour: red", "outcomes: 0"])
def test_a_wrong_setting_is_refused(tmp_path: Path, balls: Path, wrong: str) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text(TINY.replace("STEPS", "1").replace("made: 0", wrong))
    with pytest.raises(Refused, match="bad-experiment"):
        petct_task(read_experiments(config)[0], 0, balls)


def test_a_batch_of_more_tumours_than_there_are_is_refused(tmp_path: Path, balls: Path) -> None:
    (config := tmp_path / "tiny.yaml").write_text(TINY.replace("STEPS", "1"))
    (experiment,) = read_experiments(config)
    learned = len(petct_task(experiment, 0, balls).learned)
    crowded = replace(experiment, schedule=replace(experiment.schedule, batch=learned + 1))
    with pytest.raises(Refused, match=f"few-cases.*{learned} tumours.*takes {learned + 1}.*schedule.batch"):
        petct_task(crowded, 0, balls)


def test_where_no_tumour_is_unseen_no_figure_is_told(tmp_path: Path, balls: Path) -> None:
    (config := tmp_path / "tiny.yaml").write_text(TINY.replace("STEPS", "1"))
    task = petct_task(read_experiments(config)[0], 0, balls)
    assert replace(task, judged=()).judge(torch.nn.Identity()) == {}


def test_the_hazard_of_a_case_is_of_its_true_mask(balls: Path) -> None:
    case = load_sarcoma(sts_manifest(balls).cases[3], balls)
    assert hazard_of(case) == pytest.approx(true_log_hazard(case.volume_ml, 7.0))
