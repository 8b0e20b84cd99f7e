"""What a run of retraining learns from once it is frozen: who is held out by which network, replayed or judged on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ball_nodules import write_crops
from label_crops import (
    FAMILY,
    JUDGES,
    LEARNERS,
    RECIPE,
    database_of,
    gather,
    make_node,
    write_labels,
)

from models.doubt import Doubt
from models.shipped import Model, open_model
from plugins.errors import Refused
from store.file_hash import sha256_of
from store.patient_key import patient_key
from training.challenger import experiment_of, pack, task_on_of
from training.evaluate.data import open_data
from training.frozen import Frozen, Gathered, fold_of, freeze, learned_before
from training.manifest import FOLDS, DataManifest
from training.recalibrate import recalibrated
from training.replay import Replaying, is_replayed, replaying

UNDERTRAINED = 8


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a node whose champion learned too little."""
    home = tmp_path_factory.mktemp("node") / "home"
    make_node(home, UNDERTRAINED)
    return home


def test_nobody_is_learned_from_by_the_network_that_holds_him_out_and_a_share_is_replayed(
    node: Path, tmp_path: Path
) -> None:
    crops = write_crops(tmp_path / "crops")  # P0 to P9, whom the champion has learned from
    (folder := tmp_path / "run").mkdir()
    recipe = replace(RECIPE, replay=(crops,), replay_share=0.5)
    gathered = gather((*LEARNERS, "P9"), ("P0", *JUDGES))(folder, None)
    card = json.loads((node / "champion" / "model" / "card.json").read_text())
    frozen = freeze(folder, gathered, recipe, "c" * 64, card["held_out"])
    replayed = {case.patient_id for case in frozen.replayed}
    assert replayed == {f"P{n}" for n in range(1, 10)}, "P0 is on the hold-out"
    for case in frozen.learn.cases:
        assert case.fold == fold_of(case.patient_id, card["held_out"])
    for case in frozen.replayed:
        assert case.fold == card["held_out"][patient_key(case.patient_id)]
        assert sha256_of(folder / "learn" / case.files["mask"]) == case.sha256["mask"]
    both = {fold_of(name, {}) for name in ("P9", patient_key("P9"))}
    assert len(both) == 1
    sha256 = sha256_of(node / "champion" / "model" / "manifest.json")
    champion = open_model(node / "champion" / "model", {sha256}, database_of(tmp_path).now().date())
    experiment = experiment_of(champion, recipe, has_replay=True)
    assert (experiment.schedule.steps, experiment.schedule.learning_rate) == (
        recipe.steps,
        recipe.learning_rate,
    )
    for fold in range(FOLDS):
        task = replaying(experiment, fold, folder / "learn", task_on_of(FAMILY))
        assert task.earlier is not None
        for part in (task.fresh, task.earlier):
            assert all(one.nodule.case.fold != fold for one in part.learned)  # type: ignore[attr-defined]
        assert {is_replayed(one.nodule.case) for one in task.earlier.learned} == {True}  # type: ignore[attr-defined]
    before = learned_before([folder, tmp_path / "gone"])
    assert sum(not is_replayed(case) for case in before) == 9


def test_whoever_is_judged_on_is_not_replayed_under_another_identifier_or_with_the_same_images(
    tmp_path: Path,
) -> None:
    crops = write_crops(tmp_path / "crops")  # P0 to P9
    manifest = open_data(crops).manifest
    cases = [
        replace(case, tags={**case.tags, "series_instance_uid": case.case_id}) for case in manifest.cases
    ]
    replace(manifest, cases=tuple(cases)).write(crops / "manifest.json")
    (folder := tmp_path / "run").mkdir()
    gathered = gather()(folder, None)
    same = (patient_key("J1"), patient_key("P3"))
    first, *others = gathered.judge.cases
    first = replace(first, tags={**first.tags, "series_instance_uid": cases[0].case_id})
    hold_out = replace(gathered.judge, cases=(first, *others))
    gathered = replace(gathered, judge=hold_out, people=dict.fromkeys(same, same))
    frozen = freeze(folder, gathered, replace(RECIPE, replay=(crops,)), "c" * 64, {})
    left_out = {case.patient_id for case in cases} - {case.patient_id for case in frozen.replayed}
    assert left_out == {"P3", cases[0].patient_id}
    twice = replace(gathered, people=dict.fromkeys((patient_key("J1"), patient_key("L1")), same))
    with pytest.raises(Refused, match="on the hold-out and learned from"):
        freeze(folder, twice, RECIPE, "c" * 64, {})


def test_all_identifiers_of_a_person_are_held_out_by_one_network() -> None:
    one, other, third = (patient_key(f"N{n}") for n in range(3))
    people = dict.fromkeys((one, other), (one, other))
    assert fold_of(other, {}, people) == fold_of(one, {}, people) == int(one, 16) % FOLDS
    for known in (one, other, patient_key(other)):  # as a card has them of identifiers and of keys
        assert fold_of(one, {known: 3}, people) == fold_of("N1", {known: 3}, people) == 3
    assert fold_of(third, {other: 3}, people) == int(third, 16) % FOLDS


class Numbered:
    """A task whose samples are one number."""

    in_channels = 1

    def __init__(self, number: float) -> None:
        self._number = number

    def batch(self, size: int, _: np.random.Generator) -> tuple[torch.Tensor, ...]:
        return torch.full((size, 1), self._number), torch.full((size,), self._number)


def test_the_share_of_samples_is_replayed() -> None:
    task = Replaying(None, Numbered(0.0), Numbered(1.0), 0.25, False)  # type: ignore[arg-type]
    drawn = [task.batch(8, np.random.default_rng(seed)) for seed in range(200)]
    assert all(shown.shape == (8, 1) and torch.equal(shown[:, 0], truth) for shown, truth in drawn)
    assert float(torch.stack([truth for _, truth in drawn]).mean()) == pytest.approx(0.25, abs=0.03)
    assert task.judge(torch.nn.Identity()) == {}


def faked_run(folder: Path, champion: Model, data: DataManifest) -> None:
    """Let the champion's one network stand for those of five folds that learned from the data."""
    record = {
        "experiment_sha256": "e" * 64,
        "data_sha256": data.sha256,
        "held_out": data.held_out,
        "experiment": champion.card["experiment"],
        **dict.fromkeys(("commit", "environment", "begun", "seed"), ""),
    }
    for fold in range(FOLDS):
        (place := folder / "fit" / f"fold{fold}").mkdir(parents=True)
        shutil.copyfile(champion.folder / "fold0.safetensors", place / f"fold{fold}.safetensors")
        (place / "run.json").write_text(json.dumps({**record, "fold": fold}))


def test_doubt_is_learned_anew_from_cases_that_each_network_has_not_seen(node: Path, tmp_path: Path) -> None:
    place = node / "champion" / "model"
    opened = open_model(place, {sha256_of(place / "manifest.json")}, date.min)
    champion = replace(opened, card={**opened.card, "folds": list(range(FOLDS))})
    many = tuple(f"M{n}" for n in range(40))
    asked: list[str] = []

    def learned(folder: Path, patients: tuple[str, ...]) -> tuple[Frozen, Mapping[str, Any] | None]:
        folder.mkdir()
        judge = write_labels(folder / "judge", "hold-out", JUDGES, len(many))
        gathered = replace(gather(patients)(folder, None), judge=judge)
        frozen = freeze(folder, gathered, RECIPE, "c" * 64, {})
        faked_run(folder, champion, frozen.learn)
        return frozen, recalibrated(champion, frozen, 0, asked.append)

    assert learned(tmp_path / "few", many[:29])[1] is None and asked == []
    frozen, doubt = learned(tmp_path / "many", many)
    assert doubt is not None and len(asked) == 40
    said = Doubt.of_card(doubt["all"])
    assert sum(said.volume_mm3.cases) == 40 and all(np.isfinite(said.volume_mm3.quantiles))
    assert len(doubt["folds"]) == FOLDS

    first = pack(champion, RECIPE, frozen, 7, doubt).rename(tmp_path / "first")
    again = open_model(first, {sha256_of(first / "manifest.json")}, date.min)
    second = pack(again, RECIPE, frozen, 8, doubt)
    for place, version in ((first, "tiny+7"), (second, "tiny+8")):
        card = json.loads((place / "card.json").read_text())
        assert (card["version"], card["doubt"]["all"]) == (version, doubt["all"])
        assert (
            card["training_data"]
            == "Ten balls in noise. Then 40 masks of 40 patients of this site, drawn or approved by people."
        )
        assert len(card["limits"]) == 2


def test_a_person_on_both_sides_is_refused(tmp_path: Path) -> None:
    learn = write_labels(tmp_path / "learn", "labels", LEARNERS)
    judge = write_labels(tmp_path / "judge", "hold-out", ("L3", *JUDGES))
    with pytest.raises(Refused, match="on the hold-out and learned from") as refused:
        freeze(tmp_path, Gathered(learn=learn, judge=judge), RECIPE, "c" * 64, {})
    assert refused.value.code == "patient-on-both-sides"
