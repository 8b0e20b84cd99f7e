from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit

from models.networks import build
from models.uncertainty import dropout_passes, summarised, unsteadiness

ARCHITECTURE = {
    "kind": "unet",
    "in_channels": 2,
    "out_channels": 1,
    "channels": [4, 8, 16],
    "strides": [2, 2],
    "dropout": 0.3,
}


def said(*probabilities: float) -> list[np.ndarray]:
    return [np.full((1, 1, 1), logit(p)) for p in probabilities]


def test_answers_that_agree_hold_doubt_but_no_mutual_information() -> None:
    found = summarised(said(0.5, 0.5, 0.5))
    assert found.entropy.item() == pytest.approx(1.0)
    assert found.mutual_information.item() == 0.0


def test_answers_that_are_sure_of_opposites_hold_nothing_but_mutual_information() -> None:
    found = summarised(said(1e-9, 1 - 1e-9))
    assert found.probability.item() == pytest.approx(0.5)
    assert found.entropy.item() == pytest.approx(1.0)
    assert found.mutual_information.item() == pytest.approx(1.0, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.001, 0.999), min_size=1, max_size=8))
def test_mutual_information_lies_between_nothing_and_the_entropy(probabilities: list[float]) -> None:
    found = summarised(said(*probabilities))
    assert found.probability.item() == pytest.approx(np.mean(probabilities), rel=1e-5)
    assert 0.0 <= found.mutual_information.item() <= found.entropy.item() + 1e-6 <= 1.0 + 2e-6


def cubes(*edges: int) -> list[np.ndarray]:
    made = []
    for n in edges:
        z = np.full((12, 12, 12), -50.0)
        z[:n, :n, :n] = 50.0
        made.append(z)
    return made


def test_volume_variation_and_disagreement_of_cubes_in_closed_form() -> None:
    found = summarised(cubes(4, 4, 6))
    case = found.case((1.0, 1.0, 1.0))
    assert int(found.mask.sum()) == 64
    assert case.volume_cv == pytest.approx(np.std([64, 64, 216]) / np.mean([64, 64, 216]))
    assert case.disagreement == pytest.approx(1 - (1 + 1 + 2 * 64 / (64 + 216)) / 3)


def test_unsteadiness_is_of_each_network_and_not_of_how_far_networks_lie_apart() -> None:
    small, large, alike = np.stack(cubes(4, 4)), np.stack(cubes(6, 6)), np.stack(cubes(4, 4, 6))
    assert unsteadiness([small, large]) == 0.0
    one = 1 - (1 + 1 + 2 * 64 / (64 + 216)) / 3
    assert unsteadiness([alike, large]) == pytest.approx(one / 2)


def test_answers_that_are_sure_and_alike_leave_no_doubt_about_the_case() -> None:
    case = summarised(cubes(5, 5)).case((1.0, 1.0, 1.0))
    assert (case.volume_cv, case.disagreement) == (0.0, 0.0)
    assert case.entropy == pytest.approx(0.0, abs=1e-6)
    assert case.dice_deficit == pytest.approx(0.0, abs=1e-6)


def test_the_expected_dice_of_a_hesitant_mask_in_closed_form() -> None:
    z = np.full((9, 9, 9), -50.0)
    z[4, 4, 4] = logit(0.8)
    z[4, 4, 5] = logit(0.4)
    case = summarised([z]).case((1.0, 1.0, 1.0))
    assert case.dice_deficit == pytest.approx(1 - 2 * 0.8 / (1 + 1.2), abs=1e-6)
    assert case.entropy == pytest.approx(-0.8 * math.log2(0.8) - 0.2 * math.log2(0.2), abs=1e-6)


def test_a_lesion_of_which_nothing_was_drawn_is_the_most_doubtful() -> None:
    case = summarised([np.full((3, 3, 3), -9.0)]).case((1.0, 1.0, 1.0))
    assert case.volume_cv == math.inf and case.dice_deficit == 1.0
    with pytest.raises(ValueError, match="no answer"):
        summarised([])


def test_temperature_and_threshold_are_those_of_the_summary() -> None:
    found = summarised(said(0.6), temperature=2.0, threshold=0.58)
    assert found.probability.item() == pytest.approx(1 / (1 + math.exp(-logit(0.6) / 2)))
    assert not found.mask.any() and summarised(said(0.6), threshold=0.58).mask.all()


def network(seed: int = 0, **changed: object) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build(ARCHITECTURE | changed)


PATCH = np.random.default_rng(5).normal(size=(2, 16, 16, 16)).astype(np.float32)


CLASSIFIER = {
    "kind": "classifier",
    "in_channels": 2,
    "out_channels": 1,
    "init_features": 8,
    "growth_rate": 4,
    "block_config": [2, 2],
    "dropout": 0.3,
}


@pytest.mark.parametrize(
    "changed", [{"norm": "batch"}, {"norm": "instance"}, {"stem": 2, "num_res_units": 1}, CLASSIFIER]
)
def test_passes_that_share_the_encoder_are_those_of_the_whole_network(changed: dict[str, object]) -> None:
    torch.manual_seed(0)
    net = build(changed if "kind" in changed else ARCHITECTURE | changed)
    found = dropout_passes(net, PATCH, passes=6, seed=3, at_once=6)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(3)
        net.eval()
        for module in net.modules():
            if isinstance(module, torch.nn.Dropout3d):
                module.train()
        whole = net(torch.from_numpy(PATCH)[None].expand(6, -1, -1, -1, -1)).numpy()
    assert found.logits == pytest.approx(whole, abs=1e-5)
    assert found.logits.std(axis=0).max() > 1e-3 and found.shared


def test_only_what_comes_before_the_dropout_is_shared() -> None:
    net = network()
    ran: list[str] = []
    for name, module in net.named_modules():
        if isinstance(module, torch.nn.Conv3d | torch.nn.ConvTranspose3d):
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    found = dropout_passes(net, PATCH, passes=7, at_once=3)
    assert found.logits.shape == (7, 1, 16, 16, 16)
    times = {name: ran.count(name) for name in set(ran)}
    once = {name for name, n in times.items() if n == 1}
    assert all(name.startswith(found.shared) for name in once) and once
    assert {n for name, n in times.items() if name not in once} == {3}  # 3 + 3 + 1 passes
    assert any(name.startswith("model.2") for name in set(ran) - once)  # the topmost decoder block


def test_the_network_is_left_as_it_was_and_a_seed_gives_the_same_answers() -> None:
    net = network().train()
    before, state = torch.get_rng_state(), {k: v.clone() for k, v in net.state_dict().items()}
    one = dropout_passes(net, PATCH, passes=3, seed=1)
    again = dropout_passes(net, PATCH, passes=3, seed=1)
    other = dropout_passes(net, PATCH, passes=3, seed=2)
    assert np.array_equal(one.logits, again.logits) and not np.array_equal(one.logits, other.logits)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert all(m.training and "forward" not in m.__dict__ for m in net.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


class Weaving(torch.nn.Module):
    """Uses one layer twice before its dropout, and after it."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.drop = torch.nn.Conv3d(2, 2, 1), torch.nn.Dropout3d(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.mix(self.drop(self.mix(self.mix(x) + x)))
        return found


class Overwriting(torch.nn.Module):
    """Changes in place what a layer gave, with an activation that it uses again."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.act = torch.nn.Conv3d(2, 2, 1), torch.nn.LeakyReLU(0.5, inplace=True)
        self.drop = torch.nn.Dropout3d(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.drop(self.act(self.act(self.mix(x)) - 0.1))
        return found


@pytest.mark.parametrize("kind", [Weaving, Overwriting])
def test_layers_used_twice_or_changed_in_place_are_computed_anew(kind: type[torch.nn.Module]) -> None:
    torch.manual_seed(0)
    net = kind()
    found = dropout_passes(net, PATCH, passes=4, seed=9, at_once=4).logits
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(9)
        whole = net.train()(torch.from_numpy(PATCH)[None].expand(4, -1, -1, -1, -1)).numpy()
    assert found == pytest.approx(whole, abs=1e-6)


def test_a_network_without_dropout_is_refused() -> None:
    with pytest.raises(ValueError, match="no dropout"):
        dropout_passes(network(dropout=0.0), PATCH)
