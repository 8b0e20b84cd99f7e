from __future__ import annotations

import pytest
import torch

from models.files import BadModel
from models.networks import build, steps_of

SMALL = {"in_channels": 2, "out_channels": 1, "channels": [4, 8], "strides": [2], "num_res_units": 1}


@pytest.mark.parametrize(
    "architecture",
    [
        {"kind": "unet", **SMALL},
        {"kind": "unet", **SMALL, "strides": [[1, 2, 2]], "norm": "instance", "act": "prelu"},
        {"kind": "unet", **SMALL, "stem": 2},
        {
            "kind": "segresnet",
            "in_channels": 2,
            "out_channels": 1,
            "init_filters": 8,
            "blocks_down": [1, 1],
            "blocks_up": [1],
        },
    ],
)
def test_a_segmenting_network_answers_on_the_grid_it_was_asked_on(architecture: dict[str, object]) -> None:
    network = build(architecture).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 2, 8, 16, 16)).shape == (1, 1, 8, 16, 16)


@pytest.mark.parametrize(
    ("architecture", "steps"),
    [
        ({"kind": "unet", **SMALL, "channels": [4, 4, 4], "strides": [2, 2], "stem": 2}, (8, 8, 8)),
        ({"kind": "unet", **SMALL, "channels": [4, 4, 4], "strides": [[1, 2, 2], 2]}, (2, 4, 4)),
        ({"kind": "multitask", **SMALL, "channels": [4, 8, 8], "strides": [2, 2]}, (4, 4, 4)),
        ({"kind": "segresnet", "in_channels": 2, "out_channels": 1, "init_filters": 8, "blocks_down": [1, 1, 1],
          "blocks_up": [1, 1]}, (4, 4, 4)),
    ],
)  # fmt: skip
def test_a_network_takes_multiples_of_its_steps_and_nothing_between(
    architecture: dict[str, object], steps: tuple[int, int, int]
) -> None:
    assert steps_of(architecture) == steps
    network = build(architecture).eval()
    shape = [2 * step for step in steps]
    with torch.no_grad():
        assert network(torch.zeros(1, 2, *shape)).shape[2:] == torch.Size(shape)
        shape[2] += steps[2] // 2
        try:
            found = network(torch.zeros(1, 2, *shape)).shape[2:]
        except RuntimeError:
            found = None
    assert found != torch.Size(shape)


def test_a_classifier_takes_a_patch_of_any_size() -> None:
    assert steps_of({"kind": "classifier", "init_features": 4}) == (1, 1, 1)


def test_dropout_is_in_the_deepest_block_only() -> None:
    network = build(
        {"kind": "unet", **SMALL, "channels": [4, 8, 8], "strides": [1, 2], "stem": 2, "dropout": 0.3}
    )
    found = [(name, part.p) for name, part in network.named_modules() if isinstance(part, torch.nn.Dropout3d)]
    assert found == [("body.model.1.submodule.1.submodule.1", 0.3)]


@pytest.mark.parametrize(
    "architecture",
    [
        {"kind": "classifier", "init_features": 4, "growth_rate": 4, "block_config": [1, 1]},
        {"kind": "resnet", "layers": [1, 1, 1, 1], "widths": [4, 4, 8, 8]},
    ],
)
def test_a_classifier_gives_one_row_of_logits_for_each_case(architecture: dict[str, object]) -> None:
    network = build({**architecture, "in_channels": 1, "out_channels": 2}).eval()
    with torch.no_grad():
        assert network(torch.zeros(3, 1, 16, 16, 16)).shape == (3, 2)


@pytest.mark.parametrize(
    ("architecture", "code"),
    [
        ({"kind": "os.system"}, "unknown-network"),
        ({}, "unknown-network"),
        ({"kind": "unet", **SMALL, "command": "x"}, "bad-architecture"),
        ({"kind": "unet", **SMALL, "strides": []}, "bad-architecture"),
    ],
)
def test_what_is_no_known_network_is_refused(architecture: dict[str, object], code: str) -> None:
    with pytest.raises(BadModel) as refused:
        build(architecture)
    assert refused.value.code == code
