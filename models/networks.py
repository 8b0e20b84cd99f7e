"""Networks by name, built by MONAI: what a model card says is enough to build the network again.

The list is closed: a card is data, and data never names code to be called.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from inspect import signature
from typing import TYPE_CHECKING, Any

from models.files import BadModel

if TYPE_CHECKING:
    import torch


def build(architecture: Mapping[str, object]) -> torch.nn.Module:
    """Return the network of an architecture `{"kind": ..., ...}`, weights not yet learned, logits out.

    `unet`: MONAI's residual U-Net; `in_channels`, `out_channels`, `channels`, `strides` (a number or a triple for each
    step down), `num_res_units`, `act`, `norm` (`batch` or `instance`), `dropout` (of whole channels, after the deepest
    block only, so that repeated passes share the encoder), `stem` (2: a strided convolution before it and a transposed
    one behind it, so that it runs on half the grid). `segresnet`: MONAI's SegResNet; `init_filters`, `blocks_down`,
    `blocks_up`, `norm`. `classifier`: MONAI's DenseNet; `init_features`, `growth_rate`, `block_config`. `resnet`:
    MONAI's ResNet of basic blocks, its last step not strided; `layers`, `widths`, four of each. `multitask`: the
    U-Net with a Cox head (`models.multitask`); `head_features`, `pooling` (`mean` or `attention`), `gates`.
    Raises BadModel (`unknown-network`, `bad-architecture`).
    """
    builders = _builders()
    kind = architecture.get("kind")
    if not isinstance(kind, str) or kind not in builders:
        raise BadModel(
            "unknown-network", f"there is no network {kind!r}; known are {', '.join(sorted(builders))}"
        )
    settings = {str(key): value for key, value in architecture.items() if key != "kind"}
    try:
        network: torch.nn.Module = builders[kind](**settings)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise BadModel("bad-architecture", f"no '{kind}' can be built so: {error}") from error
    return network


def _builders() -> dict[str, Callable[..., Any]]:
    return {
        "unet": _unet,
        "segresnet": _segresnet,
        "classifier": _classifier,
        "resnet": _resnet,
        "multitask": _multitask,
    }


def known_of(kind: object) -> frozenset[str]:
    """Return the names of the settings of a kind of network; none where there is no such kind."""
    builder = _builders().get(str(kind))
    if builder is None:
        return frozenset()
    own = {name for name, one in signature(builder).parameters.items() if one.kind is one.KEYWORD_ONLY}
    return frozenset({"kind"} | own | (known_of("unet") if builder is _multitask else set()))


def steps_of(architecture: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return what the sides `(K, R, C)` of a patch have to be multiples of, voxels; 1 where a network takes any.

    What goes down by these steps and comes up again meets what was left above. Raises KeyError, TypeError and
    ValueError for what is no architecture.
    """
    kind = architecture.get("kind")
    if kind == "segresnet":
        return (2 ** (len(architecture["blocks_down"]) - 1),) * 3
    steps = [int(architecture.get("stem", 1))] * 3
    if kind in ("unet", "multitask"):
        for stride in architecture["strides"][: len(architecture["channels"]) - 1]:
            triple = (stride,) * 3 if isinstance(stride, int) else stride
            steps = [step * int(one) for step, one in zip(steps, triple, strict=True)]
    return steps[0], steps[1], steps[2]


def _unet(
    *,
    in_channels: int,
    out_channels: int,
    channels: list[int],
    strides: list[int | list[int]],
    num_res_units: int = 2,
    act: str = "relu",
    norm: str = "batch",
    dropout: float = 0.0,
    stem: int = 1,
) -> Any:
    import torch
    from monai.networks.layers.simplelayers import SkipConnection
    from monai.networks.nets.unet import UNet

    steps: list[Any] = [s if isinstance(s, int) else tuple(s) for s in strides]
    network = UNet(
        spatial_dims=3,
        in_channels=in_channels if stem == 1 else channels[0],
        out_channels=out_channels if stem == 1 else channels[0],
        channels=channels,
        strides=steps,
        num_res_units=num_res_units,
        act=act,
        norm=norm,
    )
    if dropout:
        level: Any = network.model
        while isinstance(level[1].submodule, torch.nn.Sequential) and any(
            isinstance(part, SkipConnection) for part in level[1].submodule
        ):
            level = level[1].submodule
        level[1].submodule = torch.nn.Sequential(level[1].submodule, torch.nn.Dropout3d(dropout))
    if stem == 1:
        return network
    down = torch.nn.Conv3d(in_channels, channels[0], 2 * stem, stem, stem // 2)
    up = torch.nn.ConvTranspose3d(channels[0], out_channels, stem, stem)
    return torch.nn.Sequential(OrderedDict(down=down, body=network, up=up))


def _segresnet(
    *,
    in_channels: int,
    out_channels: int,
    init_filters: int,
    blocks_down: list[int],
    blocks_up: list[int],
    norm: str = "batch",
) -> Any:
    from monai.networks.nets.segresnet import SegResNet

    return SegResNet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        init_filters=init_filters,
        blocks_down=tuple(blocks_down),
        blocks_up=tuple(blocks_up),
        norm=norm,
    )


def _classifier(
    *,
    in_channels: int,
    out_channels: int,
    init_features: int,
    growth_rate: int,
    block_config: list[int],
    dropout: float = 0.0,
) -> Any:
    from monai.networks.nets.densenet import DenseNet

    return DenseNet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        init_features=init_features,
        growth_rate=growth_rate,
        block_config=block_config,
        dropout_prob=dropout,
    )


def _resnet(*, in_channels: int, out_channels: int, layers: list[int], widths: list[int]) -> Any:
    from monai.networks.nets.resnet import ResNet

    network = ResNet(
        block="basic",
        layers=layers,
        block_inplanes=widths,
        n_input_channels=in_channels,
        num_classes=out_channels,
        conv1_t_size=5,
        conv1_t_stride=2,
        no_max_pool=True,
    )
    # patches are small: on 2 x 2 x 2 voxels oneDNN gives gradients that are not numbers
    first: Any = network.layer4[0]
    first.conv1.stride = first.downsample[0].stride = (1, 1, 1)
    return network


def _multitask(
    *,
    channels: list[int],
    head_features: int = 32,
    pooling: Any = "mean",
    gates: bool = False,
    **unet: Any,
) -> Any:
    from models.multitask import Multitask

    if unet.get("stem", 1) != 1:
        raise ValueError("a multitask network has no stem")
    network = _unet(channels=channels, **unet)
    return Multitask(network, channels, hidden=head_features, pooling=pooling, gates=gates)
