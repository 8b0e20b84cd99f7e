from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from ball_nodules import ball_nodule, write_crops
from safetensors.numpy import load_file, save_file
from scipy.special import expit
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from models.covariates import Covariates
from models.files import BadModel
from models.malignancy import open_rater
from models.nodule_features import FEATURES
from models.shipped import open_model
from node.cli import app
from plugins.errors import Refused
from store.file_hash import sha256_of
from training.curves import draw_curves
from training.evaluate.data import Data, open_data
from training.evaluate.families import open_subject
from training.evaluate.judging import judge_model
from training.evaluate.malignancy import DRAWN, READERS, rated
from training.evaluate.report import write_report
from training.evaluate.subject import Subject
from training.experiment import Experiment, read_experiments
from training.fit import fit
from training.lidc import lidc_manifest, load_nodule
from training.malignancy import (
    RatedNodules,
    fit_combination,
    fit_covariates,
    fit_votes,
    is_calibrated,
    learned,
    main,
    pack,
    put_figures,
    rated_nodules,
    read_facts,
)
from training.malignancy_task import malignancy_task, malignant
from training.manifest import Case, DataManifest, patient_key, read_manifest, require_patients_apart

pytestmark = pytest.mark.xdist_group("malignancy")

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CONFIG = """
name: tiny_malignancy
model: nodule_malignancy
seed: 1
folds: [0, 1, 2, 3, 4]
architecture:
  {kind: classifier, out_channels: 1, init_features: 4, growth_rate: 2, block_config: [1]}
schedule: {steps: 1, batch: 4, learning_rate: 0.01, warm_up: 5, average: 0.9, judge_every: 1000}
task: {view: {shape: [16, 16, 16], voxel_mm: 1.5, window_hu: [-1000, 400]}}
"""


def _rated(rating: float | None) -> Case:
    return Case(
        case_id="c", patient_id="p", files={}, sha256={}, fold=0, size_mm=9.0, tags={"malignancy": rating}
    )


def test_three_is_neither_benign_nor_malignant() -> None:
    assert [malignant(_rated(r)) for r in (1.0, 2.75, 3.0, 3.25, 5.0, None)] == [
        False,
        False,
        None,
        True,
        True,
        None,
    ]


def test_a_whole_number_of_a_manifest_is_a_rating_as_well(tmp_path: Path) -> None:
    cases = [replace(_rated(r), case_id=f"c{r}", files={"image": "i"}, sha256={"image": "0"}) for r in (1, 5)]
    DataManifest(name="whole", cases=tuple(cases)).write(tmp_path / "manifest.json")
    assert '"malignancy": 5\n' in (tmp_path / "manifest.json").read_text()
    found = read_manifest(tmp_path / "manifest.json").cases
    assert [malignant(case) for case in found] == [False, True]
    assert [malignant(replace(found[0], tags={"malignancy": no})) for no in ("5", True)] == [None, None]


@pytest.mark.parametrize("rating", [0.0, 0.9, 5.1, 9.0])
def test_a_rating_that_readers_cannot_give_is_refused_with_its_case(rating: float) -> None:
    case = _rated(rating)
    with pytest.raises(Refused, match=f"bad-rating: .*{case.case_id} is {rating:g}, .* from 1 to 5; correct"):
        malignant(case)


def test_votes_spread_as_far_as_other_patients_would_move_them() -> None:
    random = np.random.default_rng(0)
    true = np.array([1.5, -1.0, 0.0])
    new = random.normal(5, 2, (50, 3))
    means, spreads = [], []
    for _ in range(12):
        values = random.normal(5, 2, (300, 3))
        truth = random.random(300) < expit((values - 5) / 2 @ true)
        logits = fit_votes(values, truth, [f"p{i}" for i in range(300)], draws=20).logits(new)
        means.append(logits.mean(axis=1))
        spreads.append(logits.std(axis=1))
    assert np.median(np.mean(spreads, axis=0) / np.std(means, axis=0, ddof=1)) == pytest.approx(1, abs=0.3)
    assert np.corrcoef(np.mean(means, axis=0), (new - 5) @ true)[0, 1] > 0.995


def test_two_nodules_of_every_patient_widen_the_votes() -> None:
    random = np.random.default_rng(3)
    values = np.repeat(random.normal(0, 1, (100, 2)), 2, axis=0)
    truth = np.repeat(random.random(100) < expit(values[::2, 0]), 2)
    of_patients = fit_votes(values, truth, [f"p{i // 2}" for i in range(200)]).weights.std(axis=0)
    of_nodules = fit_votes(values, truth, [f"p{i}" for i in range(200)]).weights.std(axis=0)
    assert (of_patients > 1.15 * of_nodules).all()


def test_the_combination_undoes_overconfidence() -> None:
    random = np.random.default_rng(1)
    meant = random.normal(0, 1.5, 4000)
    truth = random.random(4000) < expit(meant)
    found = fit_combination(3 * meant + 1, random.normal(0, 1, 4000), truth)
    assert found.linear == pytest.approx(1 / 3, abs=0.03)
    assert found.intercept == pytest.approx(-1 / 3, abs=0.1) and found.network == pytest.approx(0, abs=0.1)


def test_clinical_facts_help_where_they_tell_something_and_may_be_missing() -> None:
    random = np.random.default_rng(2)
    image, age = random.normal(0, 1, 3000), random.normal(62, 10, 3000)
    truth = random.random(3000) < expit(image + 1.2 * (age - 62) / 10)
    known = [a if k else None for a, k in zip(age.tolist(), random.random(3000) < 0.6, strict=True)]
    taught = fit_covariates(image[:2000], {"age_years": known[:2000]}, truth[:2000])
    assert taught.facts[0].mean == pytest.approx(62, abs=1)
    with_age = [taught.logit(z, {"age_years": a}) for z, a in zip(image[2000:], known[2000:], strict=True)]
    alone = roc_auc_score(truth[2000:], image[2000:])
    assert roc_auc_score(truth[2000:], with_age) > alone + 0.03
    with pytest.raises(Refused, match="bad-facts: 'age_years' is known of too few"):
        fit_covariates(image[:3], {"age_years": [None, 60.0, None]}, truth[:3])


def test_facts_of_a_file_are_on_the_card_and_move_the_rating(tmp_path: Path) -> None:
    file = tmp_path / "facts.csv"
    lines = [f"p{n},{50 + 20 * (n % 2)},{'' if n % 3 else 1}" for n in range(60)]
    file.write_text("\n".join(["patient_id,age_years,is_female", *lines, "p99,30,0"]))
    told = read_facts(file)
    assert told["age_years"]["p1"] == 70.0 and told["is_female"] == {
        **{f"p{n}": 1.0 for n in range(0, 60, 3)},
        "p99": 0,
    }
    random = np.random.default_rng(4)
    malignant = np.arange(60) % 2 == 1
    nodules = RatedNodules(
        values=random.normal(0, 1, (60, len(FEATURES))),
        malignant=malignant,
        fold=np.arange(60) % 5,
        patients=tuple(f"p{n}" for n in range(60)),
        network=random.normal(0, 1, 60),
        drawn=np.zeros(60, dtype=np.bool_),
        facts={"age_years": [told["age_years"][f"p{n}"] for n in range(60)]},
    )
    _, card = learned(nodules)
    taught = Covariates.of(json.loads(json.dumps(card["covariates"])))
    assert taught.facts[0].mean == 60 and taught.facts[0].weight > 1
    assert (
        taught.logit(0.0, {"age_years": 70.0})
        > taught.logit(0.0, {})
        > taught.logit(0.0, {"age_years": 50.0})
    )
    assert learned(replace(nodules, facts={}))[1]["covariates"] is None


def test_facts_of_a_spreadsheet_are_read_and_an_empty_column_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "facts.csv").write_text("patient_id,age_years,is_female\np1,60,\n", encoding="utf-8-sig")
    assert read_facts(tmp_path / "facts.csv") == {"age_years": {"p1": 60.0}, "is_female": {}}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("patient,age_years\np1,60\n", "has no column patient_id"),
        ("patient_id\np1\n", "a column for each fact"),
        ("patient_id,age_years\np1,60\np1,61\n", "line 3 of .* tells of a patient once more"),
        ("patient_id,age_years\np1,old\n", "'age_years' in line 2 of .* is no number"),
        ("patient_id,age_years\np1,nan\n", "'age_years' in line 2 of .* is no number"),
        ("age_years,patient_id\n60,p1\n61,\n", "line 3 of .* names no patient"),
        (
            "patient_id,age_years\np1,60\np2,6,1\n",
            r"line 3 of .* more or fewer cells than .* columns \(2\); give each",
        ),
        (
            "patient_id,age_years,sex\np1,60\n",
            r"line 2 of .* more or fewer cells than .* columns \(3\); give each",
        ),
        ("patient_id,age_years,age_years\np1,60,61\n", "more than one column 'age_years'; leave one of them"),
    ],
)
def test_facts_that_cannot_be_understood_are_told_by_line_and_column(
    tmp_path: Path, content: str, says: str
) -> None:
    (tmp_path / "facts.csv").write_text(content)
    with pytest.raises(Refused, match=f"bad-facts: .*{says}"):
        read_facts(tmp_path / "facts.csv")


def rate(folder: Path, rating_of: Mapping[str, str]) -> Path:
    """Write the ratings of patients into `nodules.csv`; return the folder."""
    with (folder / "nodules.csv").open(newline="") as file:
        rows = [{**row, "malignancy": rating_of[row["patient_id"]]} for row in csv.DictReader(file)]
    with (folder / "nodules.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Balls of 6 to 15 mm, rated 2 and 4 in turn; the largest is undecided."""
    folder = write_crops(tmp_path_factory.mktemp("crops"))
    return rate(folder, {f"P{n}": "3" if n == 9 else "4" if n % 2 else "2" for n in range(10)})


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    config = tmp_path_factory.mktemp("config") / "tiny.yaml"
    config.write_text(CONFIG)
    (one,) = read_experiments(config)
    return one


@pytest.fixture(scope="module")
def model(crops: Path, experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five folds, learned for a step each and packed."""
    run = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("training.fit.SETTLING_BATCHES", 2)
        patched.setattr("training.evaluate.malignancy.VOUCHED", {})
        for fold in experiment.folds:
            fit(experiment, fold, malignancy_task(experiment, fold, crops), run / f"fold{fold}")
        folder = tmp_path_factory.mktemp("model")
        pack(run, crops, folder)
    return folder


def test_a_batch_holds_nodules_of_other_patients_only(crops: Path, experiment: Experiment) -> None:
    task = malignancy_task(experiment, 0, crops)
    decided = [case for case in task.manifest.cases if malignant(case) is not None]
    own = [case for case in decided if case.fold == 0]
    require_patients_apart(own, task.manifest.others(0))
    assert len(task.learned.malignant) == len(decided) - len(own) and len(task.judged.malignant) == len(own)
    shown, truth = task.batch(4, np.random.default_rng(0))
    again, _ = task.batch(4, np.random.default_rng(0))
    assert shown.shape == (4, 2, 16, 16, 16) and truth.shape == (4, 1) and bool((shown == again).all())
    mm3 = shown[:, 1].sum(dim=(1, 2, 3)).numpy() * 1.5**3
    assert ((mm3 > np.pi / 6 * 5**3) & (mm3 < np.pi / 6 * 17**3)).all()


@pytest.mark.parametrize("rating", ["2", "3"])
def test_a_fold_of_one_class_or_none_is_learned_and_no_area_is_told(
    crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rating: str
) -> None:
    monkeypatch.setattr("training.fit.SETTLING_BATCHES", 0)
    own = {case.patient_id for case in lidc_manifest(crops).fold(0)}
    data = shutil.copytree(crops, tmp_path / "crops")
    rate(data, {f"P{n}": rating if f"P{n}" in own else "4" if n % 2 else "2" for n in range(10)})
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    asked = ["train", str(tmp_path / "tiny.yaml"), "--data", str(data), "--out", str(tmp_path / "runs")]
    said = CliRunner().invoke(app, [*asked, "--fold", "0", "--json"])
    assert said.exit_code == 0, said.output
    weights = tmp_path / "runs/tiny_malignancy/fold0/fold0.safetensors"
    told = {"experiment": "tiny_malignancy", "fold": 0, "weights": str(weights), "step": 1}
    assert json.loads(said.stdout) == [told]
    curves = weights.parent / "curves.json"
    assert "NaN" not in curves.read_text()
    curves.write_text(json.dumps({"loss": [1.0], "judged": [{"step": 1, "AUC": float("nan")}]}))
    again = CliRunner().invoke(app, [*asked, "--fold", "0", "--json"])
    assert json.loads(again.stdout) == [{**told, "AUC": None}]


def test_a_loss_that_is_no_number_is_null_in_the_curves(tmp_path: Path) -> None:
    draw_curves([1.0, float("nan"), 0.5], [], tmp_path, "a fold")
    assert json.loads((tmp_path / "curves.json").read_text())["loss"] == [1.0, None, 0.5]


def test_nodules_of_one_class_are_refused_before_the_model_is_asked(crops: Path) -> None:
    subject = Subject(name="m", version="1", family="nodule_malignancy", sha256="0")
    manifest = lidc_manifest(crops)
    ratings = {"benign": manifest.cases[0], "malignant": manifest.cases[1]}
    assert [malignant(case) for case in ratings.values()] == [False, True]
    for word, case in ratings.items():
        data = Data(manifest=replace(manifest, cases=(case,)), root=crops)
        with pytest.raises(Refused, match=f"all 1 rated nodules of .* are {word}, .*--fold") as refused:
            judge_model(subject, data, made_at=NOON)
        assert refused.value.code == "one-class"


def test_groups_by_fold_are_of_the_weights_that_judged_not_of_the_own_manifest(
    crops: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.evaluate.malignancy.VOUCHED", {})
    monkeypatch.setattr("training.evaluate.malignancy._opened", lambda *_: lambda *_: 0.5)
    own = lidc_manifest(crops)
    held_out = {case.patient_id: (case.fold + 1) % 5 for case in own.cases if case.patient_id != "P1"}
    subject = Subject(
        name="m",
        version="1",
        family="nodule_malignancy",
        sha256="0",
        folds=(0, 1, 2, 3, 4),
        held_out=held_out,
    )
    found = {case.patient_id: case for case in rated(subject, Data(manifest=own, root=crops))}
    assert {patient: case.known["fold"] for patient, case in found.items()} == {
        patient: str(held_out.get(patient, "all")) for patient in found
    }
    assert {case.fold for case in found.values()} == {*held_out.values(), None}


def test_a_step_whose_slope_is_no_number_is_left_out(
    crops: Path, experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.fit.SETTLING_BATCHES", 0)
    task = malignancy_task(experiment, 0, crops)
    monkeypatch.setattr(
        "training.malignancy_task.MalignancyTask.loss", lambda _, output, __: output.sum() * float("nan")
    )
    weights = load_file(fit(experiment, 0, task, tmp_path))
    assert all(np.isfinite(value).all() for value in weights.values())


def test_a_setting_that_nobody_knows_is_refused(crops: Path, experiment: Experiment) -> None:
    wrong = Experiment(**{**vars(experiment), "task": {**experiment.task, "patch": 3}})
    with pytest.raises(Refused, match="bad-experiment"):
        malignancy_task(wrong, 0, crops)


@pytest.mark.long  # trains five folds; test_petct_task does it quickly
def test_a_run_becomes_a_model_that_judges_each_patient_by_a_fold_that_has_not_seen_him(
    crops: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.evaluate.malignancy.VOUCHED", {})  # no segmenter: readers' masks alone
    opened = open_model(model, {sha256_of(model / "manifest.json")}, date.min)
    assert set(opened.card["combination"]["folds"]) == {"0", "1", "2", "3", "4"}
    assert 0 <= opened.card["beside"][READERS]["AUC of volume alone"]["value"] <= 1
    found = judge_model(open_subject(str(model)), open_data(crops), made_at=NOON, resamples=100)
    cases = found.figures["classification"]["cases"]
    readers = [case for case in cases if case["setting"] == READERS]
    assert len(readers) == 9 and "P9" not in {case["patient_id"] for case in readers}
    first = readers[0]
    assert first["fold"] == opened.card["held_out"][patient_key(first["patient_id"])]
    nodule = load_nodule(lidc_manifest(crops).cases[0], crops)
    alone = open_rater(opened, (first["fold"],)).rate(nodule.image, nodule.mask, nodule.spacing_mm)
    assert first["probability"] == pytest.approx(alone.probability)
    together = open_rater(opened).rate(nodule.image, nodule.mask, nodule.spacing_mm)
    assert 0 < together.low <= together.probability <= together.high < 1
    assert "not pathology" in " ".join(found.limits)
    assert write_report(found, tmp_path / "report")
    put_figures(tmp_path / "report", model)
    again = open_model(model, {sha256_of(model / "manifest.json")}, date.min)
    told = again.card["figures"]["classification"]["figures"]
    assert told["auc"] == found.figures["classification"]["figures"]["auc"]
    assert again.card["calibrated"] is False
    (looked,) = [one for one in found.sections if one.title == "What the network looked at"]
    called = {(case["positive"], case["probability"] >= 0.5) for case in readers}
    assert [picture.png[:4] for picture in looked.pictures] == [b"\x89PNG"] * len(called)


def test_regressions_learn_from_both_masks_and_drawn_ones_are_told_apart(
    crops: Path, experiment: Experiment, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("training.fit.SETTLING_BATCHES", 0)
        fit(experiment, 0, malignancy_task(experiment, 0, crops), tmp_path / "fold0")
    manifest = lidc_manifest(crops)
    found = rated_nodules(tmp_path, manifest, crops, lambda nodule: nodule.image > -600)
    own = [case for case in manifest.fold(0) if malignant(case) is not None]
    assert found.drawn.tolist() == [False, True] * len(own)
    assert (found.values[1::2] != found.values[::2]).any(axis=1).all()
    assert found.malignant[::2].tolist() == [malignant(case) for case in own]


def test_a_folder_without_a_finished_run_or_report_is_told_of(
    crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "card.json").write_text("{}")
    assert main([str(tmp_path), "--data", str(crops), "--out", str(tmp_path / "model")]) == 2
    assert "no fold in" in capsys.readouterr().err
    assert main([str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "report.json" in capsys.readouterr().err


def test_what_is_rated_only_when_asked_is_not_called_calibrated(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text('{"folds": []}')
    masks = {READERS: {"ece": {"value": 0.04}}, DRAWN: {"ece": {"value": 0.05}}}
    (tmp_path / "report.json").write_text(json.dumps({"classification": {"settings": masks}}))
    for when_asked in (False, True):
        put_figures(tmp_path, tmp_path, when_asked=when_asked)
        assert json.loads((tmp_path / "card.json").read_text())["calibrated"] is not when_asked


def test_a_model_is_calibrated_when_both_masks_say_so() -> None:
    def said(*errors: float) -> dict[str, object]:
        masks = dict(zip((READERS, DRAWN), ({"ece": {"value": e}} for e in errors), strict=False))
        return {"classification": {"settings": masks}}

    assert is_calibrated(said(0.04, 0.05))
    assert not is_calibrated(said(0.04, 0.12)) and not is_calibrated(said(0.04)) and not is_calibrated({})


@pytest.mark.long  # trains five folds; test_petct_task does it quickly
def test_a_card_or_weights_of_something_else_are_refused(model: Path, tmp_path: Path) -> None:
    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    numbers = load_file(tmp_path / "fold0.safetensors")
    for lost, code in (("features.low", "bad-weights"), ("network.class_layers.out.bias", "bad-weights")):
        save_file({k: v for k, v in numbers.items() if k != lost}, tmp_path / "fold0.safetensors")
        with pytest.raises(BadModel, match=code):
            open_rater(open_model(tmp_path, _signed(tmp_path), date.min), (0,))
    card = json.loads((tmp_path / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps({**card, "combination": {"all": {"linear": 1}}}))
    with pytest.raises(BadModel, match="bad-card"):
        open_rater(open_model(tmp_path, _signed(tmp_path), date.min))


@pytest.mark.long  # trains five folds; test_petct_task does it quickly
def test_the_ball_of_another_data_set_is_rated_by_all_folds_together(model: Path) -> None:
    opened = open_model(model, {sha256_of(model / "manifest.json")}, date.min)
    ball = ball_nodule(9.0, (2.5, 0.6, 0.6), seed=77)
    said = open_rater(opened).rate(ball.image, ball.mask, ball.spacing_mm)
    mirrored = open_rater(opened).rate(
        ball.image[::-1, :, ::-1].copy(), ball.mask[::-1, :, ::-1].copy(), ball.spacing_mm
    )
    assert mirrored.probability == pytest.approx(said.probability, abs=1e-4)


def _signed(folder: Path) -> set[str]:
    """Write the manifest anew for what lies in the folder; return its hash."""
    plain = json.loads((folder / "manifest.json").read_text())
    for name, entry in plain["files"].items():
        entry["sha256"], entry["size_bytes"] = sha256_of(folder / name), (folder / name).stat().st_size
    (folder / "manifest.json").write_text(json.dumps(plain))
    return {sha256_of(folder / "manifest.json")}
