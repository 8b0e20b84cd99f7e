from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.visualize import GradCAM

from models.explain import grad_cam, saliency
from models.networks import build


class Corner(torch.nn.Module):
    """Twice the first channel's mean less the second's, seen on a grid of half the fineness."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = torch.nn.AvgPool3d(2)
        self.last = torch.nn.Linear(2, 1, bias=False)
        self.last.weight.data = torch.tensor([[2.0, -1.0]])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.last(self.seen(x).mean(dim=(2, 3, 4)))
        return found


def test_grad_cam_of_a_network_whose_answer_is_known() -> None:
    patch = np.zeros((2, 4, 4, 4), dtype=np.float32)
    patch[0, :2, :2, :2] = 1.0  # speaks for
    patch[1, 2:, 2:, 2:] = 1.0  # speaks against
    heat = grad_cam(Corner(), patch, layer="seen")
    assert heat.shape == (4, 4, 4)
    assert heat[0, 0, 0] == 1.0 and heat[3, 3, 3] == 0.0
    patch[0] = 0.0
    assert not grad_cam(Corner(), patch, layer="seen").any()


def test_saliency_is_the_slope_with_every_voxel() -> None:
    patch = np.random.default_rng(0).normal(size=(2, 4, 4, 4)).astype(np.float32)
    slope = saliency(Corner(), patch)
    assert slope[0] == pytest.approx(2 / 64) and slope[1] == pytest.approx(1 / 64)


@pytest.fixture(scope="module")
def classifier() -> torch.nn.Module:
    torch.manual_seed(0)
    return build(
        {
            "kind": "classifier",
            "in_channels": 2,
            "out_channels": 2,
            "init_features": 8,
            "growth_rate": 4,
            "block_config": [2, 2],
            "dropout": 0.2,
        }
    ).eval()


def test_grad_cam_is_that_of_monai(classifier: torch.nn.Module) -> None:
    patch = np.random.default_rng(1).normal(size=(2, 32, 32, 32)).astype(np.float32)
    layer = "class_layers.relu"
    ours = grad_cam(classifier, patch, layer=layer, output=1)
    theirs = (
        GradCAM(nn_module=classifier, target_layers=layer, postprocessing=lambda x: x)(
            x=torch.from_numpy(patch)[None], class_idx=1
        )[0, 0]
        .detach()
        .numpy()
    )
    theirs = np.maximum(theirs, 0)
    assert ours == pytest.approx(theirs / theirs.max(), abs=1e-4)
    assert np.array_equal(ours, grad_cam(classifier, patch, output=1))  # the default is that layer


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_segmenter_is_asked_about_what_it_draws(norm: str) -> None:
    torch.manual_seed(0)
    network = build(
        {
            "kind": "unet",
            "in_channels": 2,
            "out_channels": 1,
            "channels": [4, 8, 8],
            "strides": [2, 2],
            "norm": norm,
            "dropout": 0.3,
        }
    )
    patch = np.random.default_rng(2).normal(size=(2, 16, 16, 16)).astype(np.float32)
    heat, slope = grad_cam(network, patch), saliency(network, patch)
    assert heat.shape == (16, 16, 16) and slope.shape == (2, 16, 16, 16)
    assert heat.min() >= 0.0 and heat.max() in (0.0, pytest.approx(1.0))
    assert slope.max() > 0
    assert network.training  # as it was
    assert np.array_equal(slope, saliency(network, patch))  # no dropout in it
    assert all(p.grad is None for p in network.parameters())


def test_a_layer_that_gives_no_volume_is_refused(classifier: torch.nn.Module) -> None:
    patch = np.zeros((2, 32, 32, 32), dtype=np.float32)
    for layer in ("class_layers.out", "no such layer"):
        with pytest.raises(ValueError, match="no volume"):
            grad_cam(classifier, patch, layer=layer)
