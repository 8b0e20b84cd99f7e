from __future__ import annotations

import pytest
import torch

from models.files import BadModel
from models.multitask import CoxHead
from models.networks import build

SMALL = {
    "kind": "multitask",
    "in_channels": 2,
    "out_channels": 1,
    "channels": [4, 8, 12],
    "strides": [2, 2],
    "num_res_units": 1,
    "head_features": 4,
}


@pytest.mark.parametrize("more", [{}, {"gates": True}, {"pooling": "attention"}, {"dropout": 0.2}])
def test_mask_and_hazard_come_back_on_the_grid_and_the_hazard_is_one_number(more: dict[str, object]) -> None:
    network = build({**SMALL, **more}).eval()
    with torch.no_grad():
        out = network(torch.randn(3, 2, 8, 16, 12))
    assert out.shape == (3, 2, 8, 16, 12)
    assert torch.equal(out[:, 1], out[:, 1, :1, :1, :1].expand(3, 8, 16, 12))


def test_the_mask_is_that_of_the_same_unet_without_the_head() -> None:
    network = build({**SMALL, "dropout": 0.2}).eval()
    plain = build(
        {**{k: v for k, v in SMALL.items() if k != "head_features"}, "kind": "unet", "dropout": 0.2}
    ).eval()
    plain.model.load_state_dict(network.unet.state_dict())
    x = torch.randn(2, 2, 8, 8, 8)
    with torch.no_grad():
        assert torch.allclose(network(x)[:, :1], plain(x), atol=1e-6)


@pytest.mark.parametrize("task", [0, 1])
def test_both_tasks_teach_the_encoder(task: int) -> None:
    network = build(SMALL)
    network(torch.randn(2, 2, 8, 8, 8))[:, task].sum().backward()
    first = next(network.unet.parameters())
    assert first.grad is not None
    assert first.grad.abs().sum() > 0


def test_twice_as_much_of_a_feature_adds_its_logarithm() -> None:
    head = CoxHead(1, 1, "mean")
    with torch.no_grad():
        head.features.weight.fill_(1.0)
        head.features.bias.fill_(0.0)
        head.risk = torch.nn.Identity()
        some = torch.full((1, 1, 4, 4, 4), -30.0)
        some[0, 0, :2] = 10.0
        more = torch.full((1, 1, 4, 4, 4), 10.0)
        assert float(head(more) - head(some)) == pytest.approx(0.693, abs=0.01)


@pytest.mark.parametrize("more", [{"pooling": "median"}, {"stem": 2}])
def test_what_it_cannot_be_is_a_bad_architecture(more: dict[str, object]) -> None:
    with pytest.raises(BadModel, match="bad-architecture"):
        build({**SMALL, **more})
