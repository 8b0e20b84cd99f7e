"""The PET/CT network learns on from masks that people drew on PET, and its hazard stays as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from ball_nodules import write_crops
from ball_sarcomas import write_sarcomas
from edited_seg import masks_of
from label_crops import RECIPE, retrain
from label_crops import gather as gather_nodules
from labelled_node import LabelledNode, Visited
from ledger import at
from petct_labels import (
    CT_MM,
    PET_SPACING_MM,
    gather,
    let_count,
    petct_champion,
    uptake,
    uptake_at,
    uptake_node,
    visit_uptake,
    write_uptake,
)
from safetensors.torch import load_file
from shapes import grid

from models.files import verify
from models.petct import NAME
from models.shipped import Model, open_model
from plugins.errors import Refused
from plugins.pet_drawing import current_petct
from plugins.pet_lesion import PetLesion
from store import registry
from store.file_hash import sha256_of
from store.patient_key import patient_key
from store.runs import State
from store.sides import JUDGED_SHARE, lot
from training.challenge import ROWS
from training.challenger import experiment_of, learn, pack, task_on_of
from training.evaluate.data import open_data
from training.evaluate.families import open_subject
from training.evaluate.petct import HOTTEST, asked_cases
from training.frozen import Gathered, freeze
from training.gather import gather as gather_labels
from training.labelled_kind import KINDS
from training.plan.run import JUDGED
from training.recalibrate import recalibrated
from training.replay import replaying
from training.retrain import FOLDER

pytestmark = pytest.mark.xdist_group("petct_masks")

LEARNERS, JUDGES = tuple(f"L{n}" for n in range(8)), tuple(f"J{n}" for n in range(5))
SALT = b"0" * 64
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
    asked = list(asked_cases(subject, open_data(tmp_path), brief=True))
    assert asked
    for case in asked:
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


def overlap(node: LabelledNode, visited: Visited, now: datetime) -> tuple[str, float]:
    """Return the version that the analysis draws a visit's lesion with now, and its Dice with what the person drew."""
    with node.database.reading() as session:
        places = registry.active(session, node.home)
    seg = node.analyse(visited.study_instance_uid, now, PetLesion(outline="learned", models=places))
    (drawn,) = seg.SegmentSequence
    card = current_petct(places).card
    assert f"model={card.sha256}" in drawn.SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters
    found, wanted = masks_of(seg, visited.images)[..., 0], uptake_at((20, 20, 20), PET_SPACING_MM, 19.0)
    return card.version, 2.0 * float((found & wanted).sum()) / float(found.sum() + wanted.sum())


@pytest.mark.long
def test_masks_that_people_drew_make_a_network_that_draws_like_them_after_approval(tmp_path: Path) -> None:
    node = uptake_node(tmp_path / "node")
    (node.home / "sides.salt").write_bytes(SALT)
    let_count(node.home, node.database, petct_champion(tmp_path / "first", 3))
    people = [f"U{n}" for n in range(60)]
    judged = [name for name in people if lot(SALT, patient_key(name)) < JUDGED_SHARE]
    names = [*[name for name in people if name not in judged][:8], *judged[:5]]
    visits = [
        visit_uptake(
            node, name, at(number * 60), ct_slices=10 if number % 4 > 1 else 20, radius_mm=15.0 + number % 3
        )
        for number, name in enumerate(names)
    ]

    def gather_all(folder: Path, champion: Model) -> Gathered:
        learned = champion.card["held_out"]
        return gather_labels(node.database, node.objects, node.home, NAME, folder, learned)

    margins = replace(RECIPE.margins, hd95_mm=60.0, long_axis_mm=30.0, volume_bias=2.0)
    recipe = replace(SHORT, steps=60, margins=margins)
    ended = retrain(node.home, node.database, gather_all, recipe=recipe)
    assert (ended.state, ended.left_out) == (State.PROPOSED, ()), ended.said
    before = overlap(node, visits[0], at(5000))
    with node.database.transaction() as session:
        registry.approve(session, node.home, NAME, int(ended.model or 0), author="Dr. A", now=at(6000))
    after = overlap(node, visits[12], at(7000))
    assert (before[0], after[0]) == ("tiny", "tiny+1")
    rows = json.loads((node.home / FOLDER / NAME / "1" / JUDGED / ROWS).read_text())["challenger"]
    (judged_as,) = (
        row["figures"]["dice"]
        for row in rows
        if row["patient_id"] == patient_key(names[12]) and row["setting"] == HOTTEST
    )
    assert after[1] == pytest.approx(judged_as, abs=1e-3), "the analysis draws what the gate has seen"
    node.database.dispose()
