"""A network in the form that other runtimes read: ONNX in fp32, and in 8 bits with ranges that were seen before.

No exported file is taken from anybody. What comes in by the door of `models.files` is the weights and the card; ONNX
is made from them when it is first needed, and kept in a folder that only the user of the node may enter, under the
hash of all that it was made from. The ranges of the 8-bit form are numbers on the card: no patient's image is needed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.files import BadModel

if TYPE_CHECKING:
    import torch

    from models.shipped import Model

Array = NDArray[np.float32]
Ranges = Mapping[str, tuple[float, float]]
"""Range of each tensor of the ONNX form, by its name."""
WRITER = 1
"""Goes up whenever the same network is exported otherwise."""
OPSET = 17
IN, OUT = "patches", "logits"
EIGHT_BITS = ("Conv", "ConvTranspose")
"""What is computed in 8 bits: nearly all of the time and of the size; sums and joins take what they are given."""
SHA256_BYTES = 32
OUTER = 0.05
ABANDONED_S = 3600.0
"""From this age on nobody writes a half-written file any more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Learned:
    """One network with its weights: what every form of it is made from."""

    architecture: Mapping[str, object]
    """What `models.networks.build` builds it from."""
    patch: tuple[int, int, int, int]
    """Channels and voxels that it is shown, `(C, K, R, C)`."""
    weights: Mapping[str, NDArray[np.generic]]
    """Its weights by name, as safetensors hold them."""
    ranges: Ranges | None = None
    """What it takes to compute in 8 bits; None when that was not found to be good enough."""

    @classmethod
    def of(cls, model: Model, fold: int) -> Learned:
        """Return the network of one fold of a model. Raises BadModel (`bad-card`, and what reading weights raises)."""
        card = model.card
        try:
            k, r, c = card["view"]["shape"]
            ranges = card.get("int8", {}).get(str(fold))
            return cls(
                architecture=card["architecture"],
                patch=(int(card["architecture"]["in_channels"]), int(k), int(r), int(c)),
                weights=model.weights(fold),
                ranges=ranges and {name: (float(low), float(high)) for name, (low, high) in ranges.items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, BadModel):
                raise
            raise BadModel(
                "bad-card", f"the card of {model.manifest.name} does not tell its patch"
            ) from error

    def sha256(self) -> str:
        """Return the hash of everything that an exported form depends on."""
        told = [WRITER, dict(self.architecture), self.patch, self.ranges and dict(self.ranges)]
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
        for name, value in sorted(self.weights.items()):
            digest.update(f"\0{name} {value.dtype} {value.shape}\0".encode() + value.tobytes())
        return digest.hexdigest()

    def network(self) -> torch.nn.Module:
        """Return the network of the card, fp32, set to evaluate. Raises BadModel (`other-architecture`)."""
        import torch

        from models.networks import build

        network = build(self.architecture)
        given = {
            name: torch.from_numpy(
                value.astype(np.float32) if value.dtype.kind not in "iub" else value.copy()
            )
            for name, value in self.weights.items()
        }
        try:
            network.load_state_dict(given)
        except RuntimeError as error:
            raise BadModel(
                "other-architecture", "the weights do not fit the architecture of the card"
            ) from error
        return network.eval()


def to_onnx(learned: Learned) -> bytes:
    """Return the network, fused, as ONNX in fp32: `patches` `(n, C, K, R, C)` to `logits`, any n, that patch only."""
    import torch

    from models.fused import fused

    file: Any = io.BytesIO()
    with warnings.catch_warnings():
        # The exporter that needs no further package is the older one, and says so each time.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            fused(learned.network()),
            (torch.zeros(1, *learned.patch),),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=[IN],
            output_names=[OUT],
            dynamic_axes={IN: {0: "n"}, OUT: {0: "n"}},
        )
    form: bytes = file.getvalue()
    return form


def seen_ranges(form: bytes, patches: Array) -> dict[str, tuple[float, float]]:
    """Return the range of each tensor of an ONNX form when it is shown patches `(N, C, K, R, C)`.

    Of the least and the greatest values of the patches the outer 5 % are left out: clipping those costs less than the
    coarser steps that they would ask for. Every range holds 0, so that padding is exact.
    """
    import onnx

    model = onnx.load_model_from_string(form)
    kept = [name for node in model.graph.node if node.op_type != "Constant" for name in node.output]
    floats = {i.name for i in onnx.shape_inference.infer_shapes(model).graph.value_info if _is_float(i)}
    names = [name for name in kept if name in floats or name == OUT]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in names if n != OUT)
    session = onnxruntime().InferenceSession(
        model.SerializeToString(), _one_thread(), providers=["CPUExecutionProvider"]
    )
    ends: dict[str, list[tuple[float, float]]] = {IN: [(float(p.min()), float(p.max())) for p in patches]}
    for patch in patches:
        for name, value in zip(names, session.run(names, {IN: patch[None]}), strict=True):
            ends.setdefault(name, []).append((float(value.min()), float(value.max())))
    found = {}
    for name, pairs in ends.items():
        low, high = np.quantile([p[0] for p in pairs], OUTER), np.quantile([p[1] for p in pairs], 1 - OUTER)
        found[name] = (min(0.0, float(low)), max(0.0, float(high)))
    return found


def to_int8(form: bytes, ranges: Ranges) -> bytes:
    """Return an ONNX form with convolutions in 8 bits (QDQ; weights signed, per channel; what they are given unsigned).

    The last convolution stays as it is, so that logits have no steps. Raises BadModel (`bad-ranges`) when a range is
    missing: those of another network, or of another writer of ONNX.
    """
    import onnx

    onnxruntime()
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    model = onnx.load_model_from_string(form)
    last = [node.name for node in model.graph.node if node.op_type in EIGHT_BITS][-1:]
    seen = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    try:
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, seen),
            nodes_to_quantize=[],
            nodes_to_exclude=last,
            op_types_to_quantize=list(EIGHT_BITS),
            extra_options={},
        )
        quantizer.quantize_model()
    except (ValueError, KeyError, RuntimeError) as error:
        raise BadModel("bad-ranges", f"the ranges are not those of this network: {error}") from error
    made: bytes = quantizer.model.model.SerializeToString()
    return made


def derived(learned: Learned, form: str, cache: Path) -> bytes:
    """Return the `onnx` or `int8` form of a network, made when it is not in the folder `cache` yet.

    A file there whose content is not what was written is made anew; when nothing can be written, it is made each time.
    Raises BadModel (`no-ranges`, and what making it raises).
    """
    if form == "int8" and learned.ranges is None:
        raise BadModel("no-ranges", "the card of this network has no ranges for 8 bits")

    def made() -> bytes:
        if form == "int8":
            return to_int8(derived(learned, "onnx", cache), learned.ranges or {})
        return to_onnx(learned)

    return remembered(cache / f"{learned.sha256()}.{form}", made)


def remembered(path: Path, make: Callable[[], bytes], made_by: str = "") -> bytes:
    """Return what a file was written with, made anew when it is not that, or was not `made_by` the same.

    When nothing can be written, it is made each time. Raises what making it raises.
    """

    def seal(content: bytes) -> bytes:
        digest = hashlib.sha256(made_by.encode())
        digest.update(content)
        return digest.digest()

    with suppress(OSError):
        data = path.read_bytes()
        content = data[SHA256_BYTES:]
        if seal(content) == data[:SHA256_BYTES]:
            return content
    content = make()
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, seal(content) + content)
    return content


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that whoever reads it sees all of it or none. Raises OSError.

    What writers who were killed left in its folder goes.
    """
    for left in path.parent.glob(f"{tempfile.gettempprefix()}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED_S:
                left.unlink()
    descriptor, partial = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _is_float(info: Any) -> bool:
    import onnx

    return bool(info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT)


def onnxruntime() -> Any:
    """Return ONNX Runtime's package, imported so that it tells nobody: its builds call their maker unless forbidden."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime as package

    return package


def _one_thread() -> Any:
    options = onnxruntime().SessionOptions()
    options.intra_op_num_threads = 1
    return options


__all__ = [
    "Learned",
    "Ranges",
    "derived",
    "onnxruntime",
    "remembered",
    "seen_ranges",
    "to_int8",
    "to_onnx",
    "write_whole",
]
