"""The PET/CT network learns on from masks that people drew on PET, and its hazard stays as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from ball_nodules import write_crops
from ball_sarcomas import write_sarcomas
from label_crops import RECIPE, database_of, retrain
from label_crops import gather as gather_nodules
from petct_labels import CT_MM, gather, make_node, petct_champion, uptake, write_uptake
from safetensors.torch import load_file
from shapes import grid

from models.files import verify
from models.petct import NAME
from models.shipped import Model, open_model
from plugins.errors import Refused
from plugins.pet_drawing import PetDrawing, current_petct
from store import registry
from store.runs import State
from training.challenger import experiment_of, learn, pack, task_on_of
from training.evaluate.data import open_data
from training.evaluate.families import open_subject
from training.evaluate.petct import asked_cases
from training.frozen import freeze
from training.labelled_kind import KINDS
from training.manifest import sha256_of
from training.recalibrate import recalibrated
from training.replay import replaying

LEARNERS, JUDGES = tuple(f"L{n}" for n in range(8)), tuple(f"J{n}" for n in range(5))
SHORT = replace(RECIPE, family=NAME, steps=2)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.fit.SETTLING_BATCHES", 2)
        folder = petct_champion(tmp_path_factory.mktemp("champion"), 1)
    return open_model(folder, {sha256_of(folder / "manifest.json")}, date.min)


def test_weights_learn_on_and_the_survival_head_keeps_its_own(
    champion: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.fit.SETTLING_BATCHES", 2)
    folder = tmp_path / "run"
    gathered = gather(LEARNERS[:4], JUDGES[:1])(folder, champion)
    frozen = freeze(folder, gathered, SHORT, champion.manifest.sha256, champion.card["held_out"])
    learn(champion, SHORT, frozen)
    assert recalibrated(champion, frozen, 0) is None
    made = pack(champion, SHORT, frozen, 7)
    verify(made, {sha256_of(made / "manifest.json")}, date.min)
    was, now = (load_file(place / "fold0.safetensors") for place in (champion.folder, made))
    assert was.keys() == now.keys()
    head = {name for name in was if name.startswith("head.")}
    assert len(head) == 6 and all(torch.equal(was[name], now[name]) for name in head)
    assert not torch.equal(was["unet.0.conv.unit0.conv.weight"], now["unet.0.conv.unit0.conv.weight"])
    card = json.loads((made / "card.json").read_text())
    assert {name: card[name] for name in ("level", "mirrors", "usual_log_hazard", "reported")} == {
        name: champion.card[name] for name in ("level", "mirrors", "usual_log_hazard", "reported")
    }
    assert card["training_data"].startswith("Seven balls. Then 4 masks of 4 patients of this site")
    assert [limit.partition(" ")[0] for limit in card["limits"]] == ["Levels", "The", "It"]
    assert "survival head was not trained again" in card["limits"][1]
    assert open_subject(str(made)).family == NAME


def test_a_batch_has_masks_and_no_outcome(champion: Model, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    curated = write_sarcomas(tmp_path / "sts")
    recipe = replace(SHORT, replay=(write_crops(tmp_path / "crops"), curated))
    gathered = gather(LEARNERS[:4], JUDGES[:1])(folder, champion)
    frozen = freeze(folder, gathered, recipe, champion.manifest.sha256, champion.card["held_out"])
    assert {case.patient_id for case in frozen.replayed} == {f"STS_{n:03d}" for n in range(7)}
    experiment = experiment_of(champion, recipe, has_replay=True)
    experiment = replace(experiment, task={**experiment.task, "made": 2, "made_share": 0.5})
    task = replaying(experiment, 0, folder / "learn", task_on_of(NAME))
    shown, truth = task.batch(8, np.random.default_rng(0))
    assert (shown.shape, truth.shape) == ((8, 5, 16, 16, 16), (8, 1, 16, 16, 16))
    assert {float(one[3].max()) for one in shown} == {0.0, 1.0}, "with CT and without"
    output = torch.zeros(8, 2, 16, 16, 16, requires_grad=True)
    task.loss(output, (shown, truth)).backward()  # type: ignore[no-untyped-call]
    assert output.grad is not None and float(output.grad[:, 1].abs().max()) == 0.0
    assert float(output.grad[:, 0].abs().max()) > 0.0


def test_nodules_are_not_mixed_with_curated_sarcomas(tmp_path: Path) -> None:
    recipe = replace(RECIPE, replay=(write_sarcomas(tmp_path / "sts"),))
    frozen = freeze(tmp_path, gather_nodules()(tmp_path, None), recipe, "c" * 64, {})
    assert frozen.replayed == () and len(frozen.new) == 8


def test_a_hold_out_from_people_is_judged_by_who_drew_and_by_scanner(champion: Model, tmp_path: Path) -> None:
    manifest = write_uptake(tmp_path, "hold-out", JUDGES[:2])
    replace(
        manifest,
        cases=tuple(replace(c, tags={"origin": "approved", "scanner": "A 1"}) for c in manifest.cases),
    ).write(tmp_path / "manifest.json")
    subject = open_subject(str(champion.folder))
    for case in asked_cases(subject, open_data(tmp_path), brief=True):
        assert (case.known["origin"], case.known["scanner"]) == ("approved", "A 1")
        assert case.known["ct"] in ("with", "without")


def test_what_lies_on_pet_becomes_a_case_with_the_ct_that_holds_it() -> None:
    kind, (pet, ct, mask) = KINDS[NAME], uptake(16.0, 5.0)
    kind.require(pet, mask)
    assert kind.beside(pet, mask, (ct,)) == {"ct": ct}
    assert kind.beside(pet, mask, ()) == {}
    elsewhere = grid(ct.array.shape, CT_MM, start_mm=ct.slice_positions[0], frame_of_reference_uid="1.2.9")
    assert kind.beside(pet, mask, (elsewhere,)) == {}
    half = replace(ct, array=ct.array[: len(ct.array) // 2])
    assert kind.beside(pet, mask, (half,)) == {}
    tilted = grid(ct.array.shape, CT_MM, start_mm=ct.slice_positions[0], tilt_degrees=(2.0, 0.0, 0.0))
    assert kind.beside(pet, mask, (tilted,)) == {}


def test_what_is_no_uptake_in_suv_along_the_patients_axes_becomes_no_case() -> None:
    kind, (pet, ct, mask) = KINDS[NAME], uptake(16.0, 5.0)
    tilted = grid(pet.array.shape, pet.spacing_mm, tilt_degrees=(0.0, 0.0, 2.0), role="pet_suv")
    coronal = grid(pet.array.shape, pet.spacing_mm, "coronal", role="pet_suv", array=pet.array)
    kind.require(coronal, mask)
    for image, code in (
        (ct, "not-suv"),
        (tilted, "oblique-grid"),
        (replace(pet, array=0 * pet.array), "no-uptake"),
    ):
        with pytest.raises(Refused) as refused:
            kind.require(image, mask)
        assert refused.value.code == code


@pytest.mark.long
def test_a_network_that_learned_too_little_is_outdone_and_draws_after_approval(tmp_path: Path) -> None:
    home = tmp_path / "home"
    make_node(home, petct_champion(tmp_path / "first", 3))
    database = database_of(home)
    margins = replace(RECIPE.margins, hd95_mm=60.0, long_axis_mm=30.0, volume_bias=2.0)
    recipe = replace(SHORT, steps=60, margins=margins)
    ended = retrain(home, database, gather(LEARNERS, JUDGES), recipe=recipe)
    assert ended.state == State.PROPOSED, ended.said
    pet, ct, mask = uptake(24.0, 6.0)
    middle = tuple((n - 1) // 2 for n in pet.array.shape)

    def drawn() -> tuple[str, float]:
        with database.reading() as session:
            model = current_petct(registry.active(session, home))
        found = PetDrawing(pet, (ct,), model).at((middle[0], middle[1], middle[2]))[0]
        both = 2.0 * float((found & mask.full()).sum()) / float(found.sum() + mask.count)
        return model.card.version, both

    before = drawn()
    assert before[0] == "tiny"
    with database.transaction() as session:
        registry.approve(session, home, NAME, int(ended.model or 0), author="Dr. A", now=database.now())
    after = drawn()
    assert after[0] == "tiny+1" and after[1] > max(0.6, before[1])
    database.dispose()
