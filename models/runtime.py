"""What computes a network here: torch, OpenVINO or ONNX Runtime, whichever is the fastest on this machine.

Each kind of runner takes the same patches and gives the same logits, but for rounding. Which kind is used is decided by
a short trial when a network is first asked for, kept in a small JSON file, and never decided when a module is imported.
A kind whose answers are not torch's is not used, however quick it is.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import logging
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.export import IN, Learned, derived, onnxruntime, remembered, write_whole
from models.files import BadModel

if TYPE_CHECKING:
    from models.shipped import Model

Array = NDArray[np.float32]
Runner = Callable[[Array], Array]
"""float32 `(N, C, K, R, C)` to logits `(N, O, ...)`; not to be called by two threads at once."""
TRIALS = "trials.json"
EXACT = "off"
"""Folder of how far the answers of a kind are off, for each network."""
BATCH = 8
"""Patches that a trial shows at once: the mirror images of one."""
ROUNDS = 5
ENOUGH_S = 5.0
"""A trial that has taken so long, on a machine that is slow or busy, ends with the round."""
AS_FAST = 1.1
"""A kind that takes so much longer than the fastest is taken before it when it is more exact."""
FURTHEST = 0.2
"""A kind whose probabilities are further from torch's (`apart`) is not used: rounding to 8 bits stays far below."""
FAULTS = (BadModel, RuntimeError, OSError, ImportError, ValueError)
"""What a runtime that cannot be used here raises."""
GPU_DEVICES = ("/dev/nvidiactl", "/dev/nvmap", "/dev/dxg", "/dev/kfd")
"""Without one of them (NVIDIA, its Tegra, Windows' Linux, AMD) torch has no GPU on Linux."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Which kind of runner was the fastest for one model on this machine."""

    model: str
    """Name of the model."""
    kind: str
    """The one that is used: a key of `KINDS`."""
    ms: Mapping[str, float]
    """Time for one patch by each kind that was tried, ms, the most exact first."""
    machine: str = ""
    """Where it was made, as `this_machine` says."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Opened:
    """A network on a runtime; called as its runner is."""

    kind: str
    """Which runtime computes it: a key of `KINDS`."""
    run: Runner
    """What answers."""

    def __call__(self, patches: Array) -> Array:
        """Return logits of patches."""
        return self.run(patches)


def network(model: Model, fold: int, cache: Path | None = None, threads: int | None = None) -> Opened:
    """Return one fold of a model on the fastest runtime of this machine; `cache` is where forms and trials are kept.

    `threads` is for CPUs; None is one for each that this process may use. A runtime that was found the fastest and can
    no longer be used gives way to torch in bf16. Raises BadModel.
    """
    learned, cache = Learned.of(model, fold), cache or default_cache()
    threads = threads or len(os.sched_getaffinity(0))
    kind = as_torch(fastest(learned, model.manifest.name, cache, threads).kind, learned, cache, threads)
    try:
        return Opened(kind=kind, run=runner(kind, learned, cache, threads))
    except FAULTS as error:
        log.warning("%s cannot be used: %s", kind, error, extra={"action": "runtime-refused"})
    return Opened(kind="torch-bf16", run=runner("torch-bf16", learned, cache, threads))


def default_cache() -> Path:
    """Return the folder of the user that forms and trials are kept in when nothing else is said."""
    try:
        return Path.home() / ".cache" / "nadir" / "networks"
    except RuntimeError:  # a user without a home: nothing can be kept
        return Path(os.devnull) / "networks"


def present(learned: Learned) -> tuple[str, ...]:
    """Return the kinds that can compute a network here, the most exact first; nothing is imported but torch."""
    found = []
    for kind in KINDS:
        runtime, form = kind.split("-")
        needed = [runtime.replace("cuda", "torch")]
        if form == "int8":
            needed += ["onnx", "onnxruntime"]  # which make the form, whoever computes it
        if all(importlib.util.find_spec(name) is not None for name in needed) and (
            (form != "int8" or learned.ranges) and (runtime != "cuda" or _has_cuda())
        ):
            found.append(kind)
    return tuple(found)


def runner(kind: str, learned: Learned, cache: Path, threads: int) -> Runner:
    """Return a network on one kind of runtime, a key of `KINDS`. Raises BadModel, and what the runtime raises."""
    if kind not in KINDS:
        raise BadModel("unknown-runtime", f"there is no runtime {kind!r}; known are {', '.join(KINDS)}")
    return KINDS[kind](learned, cache, threads)


def fastest(learned: Learned, name: str, cache: Path, threads: int) -> Trial:
    """Return the trial of a network of this architecture that was kept, or try every kind that is present now.

    `name` is what the model is called. Where nothing can be kept, nothing is tried, and torch computes in bf16.
    Raises BadModel when even torch cannot compute it.
    """
    key = _key(learned, threads)
    kept = _kept(cache)
    if key in kept:
        return kept[key]
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(cache / TRIALS, _plain(_kept(cache)))
    except OSError:
        return Trial(model=name, kind="cuda-bf16" if "cuda-bf16" in present(learned) else "torch-bf16", ms={})
    trial = _tried(learned, name, cache, threads)
    log.info("fastest runtime of %s is %s", name, trial.kind, extra={"action": "runtime-chosen"})
    write_whole(cache / TRIALS, _plain({**_kept(cache), key: trial}))
    return trial


def as_torch(kind: str, learned: Learned, cache: Path, threads: int) -> str:
    """Return `kind` when it answers as torch does with these very weights, else torch in bf16.

    A trial is of one network, and holds for the time that others of its architecture take, not for their answers. Each
    network is looked at once on `this_machine` as it is; how far it is off is kept under its hash.
    """
    if kind.startswith("torch-"):
        return kind
    known = cache / EXACT / f"{learned.sha256()}-{kind}"
    off = float(
        remembered(known, lambda: f"{_off(kind, learned, cache, threads):.4f}".encode(), this_machine())
    )
    if off <= FURTHEST:
        return kind
    log.warning("%s is off by %.3f with these weights", kind, off, extra={"action": "runtime-refused"})
    return "torch-bf16"


def _off(kind: str, learned: Learned, cache: Path, threads: int) -> float:
    shown = ball(learned.patch)[:1]
    expected = runner("torch-fp32", learned, cache, threads)(shown)
    try:
        return apart(runner(kind, learned, cache, threads)(shown), expected)
    except FAULTS as error:
        log.warning("%s cannot be used: %s", kind, error, extra={"action": "runtime-refused"})
        return float("inf")


def kept_trials(cache: Path) -> tuple[Trial, ...]:
    """Return what was tried on this machine as it is now, in the order of the trials; none without such a file."""
    here = this_machine()
    return tuple(trial for trial in _kept(cache).values() if trial.machine == here)


def _tried(learned: Learned, name: str, cache: Path, threads: int) -> Trial:
    shown = ball(learned.patch)
    plain = runner("torch-fp32", learned, cache, threads)
    expected, runners = plain(shown[:1]), {"torch-fp32": plain}
    for kind in present(learned):
        if kind == "torch-fp32":
            continue
        try:
            tried = runner(kind, learned, cache, threads)
            if (off := apart(tried(shown[:1]), expected)) <= FURTHEST:
                runners[kind] = tried
            else:
                log.warning("%s is off by %.3f and not used", kind, off, extra={"action": "runtime-refused"})
        except FAULTS as error:
            log.warning("%s cannot be used: %s", kind, error, extra={"action": "runtime-refused"})
    taken_s: dict[str, list[float]] = {kind: [] for kind in runners}
    enough = time.perf_counter() + ENOUGH_S
    for done in range(ROUNDS):
        if done and time.perf_counter() > enough:
            break
        for kind, run in runners.items():
            begun = time.perf_counter()
            run(shown)
            taken_s[kind].append(time.perf_counter() - begun)
    ms = {kind: round(float(np.median(taken)) / BATCH * 1e3, 4) for kind, taken in taken_s.items()}
    return Trial(model=name, kind=chosen(ms), ms=ms, machine=this_machine())


def chosen(ms: Mapping[str, float]) -> str:
    """Return the kind to use by the time that each takes, the most exact first: that which is about the fastest."""
    return next(kind for kind in ms if ms[kind] <= AS_FAST * min(ms.values()))


def ball(patch: tuple[int, ...]) -> Array:
    """Return patches with a bright ball in the middle of each channel, shape `(BATCH, *patch)`, 0 to 1."""
    sides = np.ix_(*[np.linspace(-2, 2, n, dtype=np.float32) ** 2 for n in patch[1:]])
    ball = np.exp(-sum(sides))
    return np.ascontiguousarray(np.broadcast_to(ball, (BATCH, *patch)), dtype=np.float32)


def apart(given: Array, expected: Array) -> float:
    """Return the difference of probabilities as part of what is drawn, 0 to 1; infinite for another shape or no number.

    A hundredth of all voxels counts as drawn in any case, so that small differences of next to nothing are small.
    """
    if given.shape != expected.shape or not np.isfinite(given).all():
        return float("inf")
    p, q = (1 / (1 + np.exp(-np.clip(logits, -60, 60))) for logits in (given, expected))
    return float(np.abs(p - q).mean() / (np.maximum(p, q).mean() + 0.01))


def this_machine() -> str:
    """Return the name of this machine, whether it has a GPU, and the versions of what computes networks on it."""
    told = [platform.node(), *(["GPU"] if _has_device() else [])]
    for package in ("torch", "onnxruntime", "openvino"):
        with suppress(PackageNotFoundError):
            told.append(f"{package} {version(package)}")
    return ", ".join(told)


def _key(learned: Learned, threads: int) -> str:
    """Return what a trial depends on; weights of one architecture take equally long."""
    told = [
        dict(learned.architecture),
        learned.patch,
        learned.ranges is not None,
        threads,
        _has_cuda(),
        this_machine(),
    ]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _kept(cache: Path) -> dict[str, Trial]:
    try:
        told: dict[str, Any] = json.loads((cache / TRIALS).read_text())
        return {
            key: Trial(
                model=str(t["model"]),
                kind=str(t["kind"]),
                ms={k: float(ms) for k, ms in t["ms"].items()},
                machine=str(t.get("machine", "")),
            )
            for key, t in told.items()
            if t["kind"] in KINDS and t["kind"] in t["ms"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _plain(trials: Mapping[str, Trial]) -> bytes:
    return json.dumps({key: asdict(trial) for key, trial in trials.items()}, indent=1).encode()


def _has_cuda() -> bool:
    """Return whether torch can compute on a GPU; its import takes seconds, which other runtimes need not wait for."""
    if not _has_device():
        return False
    import torch

    return torch.cuda.is_available()


def _has_device() -> bool:
    """Return whether torch may have a GPU: on Linux only where there is a device, elsewhere always."""
    return sys.platform != "linux" or any(os.path.exists(device) for device in GPU_DEVICES)


def _torch(learned: Learned, bf16: bool, device: str) -> Runner:
    import torch

    from models.fused import fused

    network: Any = learned.network()
    if bf16:
        network = fused(network).to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def run(patches: Array) -> Array:
        given = torch.from_numpy(patches).to(device)
        if bf16:
            given = given.contiguous(memory_format=torch.channels_last_3d)
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=bf16):
            logits: Array = network(given).float().cpu().numpy()
        return logits

    return run


def _onnxruntime(learned: Learned, form: str, cache: Path, threads: int) -> Runner:
    package = onnxruntime()
    options = package.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Threads that wait for work by turning round take it from the other analyses.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = package.InferenceSession(
        derived(learned, form, cache), options, providers=["CPUExecutionProvider"]
    )

    def run(patches: Array) -> Array:
        return np.asarray(session.run(None, {IN: patches})[0], dtype=np.float32)

    return run


def openvino() -> Any:
    """Return OpenVINO's package, imported so that it tells nobody: its converter would call its maker at import."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino as package

    return package


def _openvino(learned: Learned, form: str, cache: Path, threads: int) -> Runner:
    package = openvino()
    core = package.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "bf16"}

    def compiled() -> bytes:
        shutil.rmtree(cache / "openvino", ignore_errors=True)  # what OpenVINO kept here itself, unchecked
        read = core.read_model(io.BytesIO(derived(learned, form, cache)))
        made: bytes = core.compile_model(read, "CPU", settings).export_model().getvalue()
        return made

    # Not by its CACHE_DIR: a damaged file of that answers wrongly without a word.
    made_by = f"{package.__version__}, {core.get_property('CPU', 'FULL_DEVICE_NAME')}"
    kept = remembered(cache / f"{learned.sha256()}.{form}.openvino", compiled, made_by)
    request = core.import_model(kept, "CPU", settings).create_infer_request()

    def run(patches: Array) -> Array:
        given = request.infer([np.ascontiguousarray(patches, dtype=np.float32)])
        return np.array(given[0], dtype=np.float32)

    return run


KINDS: Mapping[str, Callable[[Learned, Path, int], Runner]] = {
    "torch-fp32": lambda learned, _, __: _torch(learned, False, "cpu"),
    "onnxruntime-fp32": lambda learned, cache, threads: _onnxruntime(learned, "onnx", cache, threads),
    "torch-bf16": lambda learned, _, __: _torch(learned, True, "cpu"),
    "cuda-bf16": lambda learned, _, __: _torch(learned, True, "cuda"),
    "openvino-bf16": lambda learned, cache, threads: _openvino(learned, "onnx", cache, threads),
    "onnxruntime-int8": lambda learned, cache, threads: _onnxruntime(learned, "int8", cache, threads),
    "openvino-int8": lambda learned, cache, threads: _openvino(learned, "int8", cache, threads),
}
"""Every kind of runner, the most exact first."""


__all__ = [
    "KINDS",
    "Opened",
    "Runner",
    "Trial",
    "as_torch",
    "default_cache",
    "fastest",
    "kept_trials",
    "network",
    "present",
    "runner",
    "this_machine",
]
