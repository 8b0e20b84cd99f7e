"""The training loop: one network of one fold, from an experiment and a task; resumed after a kill as if none had been.

Every random number of a step is drawn from (seed, fold, step), so a run that was killed and resumed learns the very
same as one that was not. A folder of a run holds:

    run.json             what was learned from what: settings, hash of the data and of the weights it began with,
                         seed, commit (or that the code was changed since), environment
    checkpoint.pt        the last state, as long as the run is not finished
    fold0.safetensors    the averaged weights, float16; statistics of batch norm float32
    curves.json, curves.png
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from models.files import BadModel
from models.networks import build
from plugins.errors import Refused, Unavailable
from training.curves import draw_curves
from training.experiment import Experiment
from training.manifest import DataManifest
from training.mixed_precision import keep_small_grids_exact
from training.predecessor import Predecessor, predecessor_in
from training.run_record import require_same_run, write_record

BEGIN_LEVEL = -3.0
"""Logit that a new network gives everywhere: lesions are small, and half a patch of lesion costs many steps."""

CHECKPOINT = "checkpoint.pt"
SETTLING_BATCHES = 60
"""Batches behind the statistics of batch norm in the weights that are kept."""
LOST_STEPS = 20
"""Steps in a row whose loss is no number, after which nothing more is learned."""


class Task(Protocol):
    """What is learned: where samples come from and what is made small."""

    @property
    def manifest(self) -> DataManifest:
        """Return all cases that are known of, those of the fold that is left out as well."""

    @property
    def in_channels(self) -> int:
        """Return the number of channels that the network is shown."""

    def batch(self, size: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """Return one batch; its first tensor is what the network is shown."""

    def loss(self, output: Tensor, batch: tuple[Tensor, ...]) -> Tensor:
        """Return what is made small, a scalar."""

    def judge(self, network: torch.nn.Module) -> Mapping[str, float]:
        """Return figures on patients that are not learned from, by name; higher is better."""


@runtime_checkable
class LeavesParts(Protocol):
    """A task that leaves parts of its network as they are."""

    @property
    def left_parts(self) -> tuple[str, ...]:
        """Return the names of those parts; the optimiser does not touch them."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands."""

    fold: int
    """Fold that is left out."""
    step: int
    """Steps that are done."""
    steps: int
    """Steps in all."""
    loss: float
    """Mean loss of the last steps."""
    judged: Mapping[str, float]
    """The last figures on unseen patients."""


@dataclass(eq=False)
class _State:
    """What a checkpoint holds."""

    network: torch.nn.Module
    average: torch.nn.Module
    optimiser: torch.optim.Optimizer
    step: int
    losses: list[float]
    judged: list[dict[str, float]]
    seconds: float


def fit(
    experiment: Experiment,
    fold: int,
    task: Task,
    folder: Path,
    *,
    tell: Callable[[Progress], None] = lambda _: None,
    stop_at: int | None = None,
    keeps_folds: bool = False,
) -> Path:
    """Return the file with the weights that were learned when `fold` is left out; nothing is done twice.

    Begins at the checkpoint in `folder` when there is one, and ends early, leaving one, at step `stop_at`.
    `keeps_folds` says that the data were divided after the folds of `init_from` already (`training.frozen.fold_of`).
    Refuses `another-run` when the folder belongs to other settings, data or weights of `init_from`, `bad-run` and
    `bad-checkpoint` when what lies there cannot be read, `bad-experiment` when there is no such network,
    `training-patient` when the weights in `init_from` have learned from who is held out, or do not say from whom,
    `diverged` when no numbers are left (the curves are not drawn then, and no checkpoint stays), and what
    `predecessor_in` does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / f"fold{fold}.safetensors"
    if weights.is_file() or (folder / CHECKPOINT).is_file():
        require_same_run(folder, experiment, fold, task.manifest)
    if weights.is_file():
        return weights
    predecessor = _predecessor(experiment, fold, task, keeps_folds)
    with _without_denormals():
        return _learn(experiment, fold, task, weights, predecessor, tell, stop_at)


@contextmanager
def _without_denormals() -> Iterator[None]:
    """Take the smallest numbers for 0 on this thread, which is faster, and leave it as it was."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _learn(
    experiment: Experiment,
    fold: int,
    task: Task,
    weights: Path,
    predecessor: Predecessor | None,
    tell: Callable[[Progress], None],
    stop_at: int | None,
) -> Path:
    folder = weights.parent
    state = _begin(experiment, fold, task, predecessor)
    checkpoint = folder / CHECKPOINT
    if checkpoint.is_file():
        _restore(state, checkpoint)
    else:
        write_record(folder, experiment, fold, task.manifest, predecessor)
    schedule = experiment.schedule
    while state.step < schedule.steps:
        if state.step == stop_at:
            _save(state, checkpoint)
            return checkpoint
        began = time.monotonic()
        state.losses.append(_step(state, experiment, fold, task))
        state.step += 1
        is_judged = state.step % schedule.judge_every == 0 or state.step == schedule.steps
        if _is_lost(state.losses) or (is_judged and not _are_finite(state.average.parameters())):
            raise _diverged(fold, state.step, checkpoint)
        if state.step == schedule.steps:
            settle(state.average, experiment, fold, task)
        if is_judged:
            state.judged.append({"step": state.step, **task.judge(state.average.eval())})
        state.seconds += time.monotonic() - began
        if state.step % schedule.save_every == 0:
            _save(state, checkpoint)
        recent = float(np.mean(state.losses[-50:]))
        last = state.judged[-1] if state.judged else {}
        tell(Progress(fold=fold, step=state.step, steps=schedule.steps, loss=recent, judged=last))
    kept = {name: _packed(name, value) for name, value in state.average.state_dict().items()}
    if not _are_finite(kept.values()):
        raise _diverged(fold, state.step, checkpoint)
    draw_curves(state.losses, state.judged, folder, f"{experiment.name}, fold {fold}")
    _write_weights(kept, weights, experiment, fold, task)
    checkpoint.unlink(missing_ok=True)
    return weights


def _is_lost(losses: Sequence[float]) -> bool:
    """Return whether the loss of the last steps was no number, not once."""
    return len(losses) >= LOST_STEPS and not np.isfinite(losses[-LOST_STEPS:]).any()


def _are_finite(numbers: Iterable[Tensor]) -> bool:
    return all(bool(torch.isfinite(one).all()) for one in numbers)


def _diverged(fold: int, step: int, checkpoint: Path) -> Refused:
    """Return the refusal of a fold, of which nothing is left to go on from: the same would come of it again."""
    checkpoint.unlink(missing_ok=True)
    return Refused(
        "diverged",
        f"at step {step} of fold {fold} the loss or the weights are no finite numbers any more: set a lower "
        "schedule.learning_rate in the experiment, on a node a lower retrain.learning_rate",
    )


def _predecessor(experiment: Experiment, fold: int, task: Task, keeps_folds: bool) -> Predecessor | None:
    """Return the weights to begin with, which have seen nobody who is held out."""
    if experiment.init_from is None:
        return None
    found = predecessor_in(Path(experiment.init_from), fold, task.manifest)
    if not keeps_folds:
        found.require_unseen(task.manifest)
    return found


def _begin(experiment: Experiment, fold: int, task: Task, predecessor: Predecessor | None) -> _State:
    torch.manual_seed(experiment.seed * 1000 + fold)
    network = _built(experiment, task)
    network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    if predecessor is None:
        _lower(network)
    else:
        predecessor.load_into(network)
    keep_small_grids_exact(network)
    for name in task.left_parts if isinstance(task, LeavesParts) else ():
        network.get_submodule(name).requires_grad_(False)
    average = _built(experiment, task)
    average.load_state_dict(network.state_dict())
    average = average.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    schedule = experiment.schedule
    optimiser = torch.optim.AdamW(
        network.parameters(), schedule.learning_rate, betas=(0.9, 0.99), weight_decay=schedule.weight_decay
    )
    return _State(
        network=network, average=average, optimiser=optimiser, step=0, losses=[], judged=[], seconds=0.0
    )


def _built(experiment: Experiment, task: Task) -> torch.nn.Module:
    try:
        return build({"in_channels": task.in_channels, **experiment.architecture})
    except (BadModel, RuntimeError) as error:
        raise Refused(
            "bad-experiment", f"architecture of {experiment.name} cannot be built: {error}"
        ) from error


def _lower(network: torch.nn.Module) -> None:
    """Let a network begin with seeing nothing, when its last layer has a bias."""
    up = getattr(network, "up", None)
    if isinstance(up, torch.nn.ConvTranspose3d) and up.bias is not None:
        torch.nn.init.constant_(up.bias, BEGIN_LEVEL)


def _step(state: _State, experiment: Experiment, fold: int, task: Task) -> float:
    """Take one step of the optimiser; return the loss."""
    schedule = experiment.schedule
    for group in state.optimiser.param_groups:
        group["lr"] = schedule.learning_rate * _pace(state.step, schedule.steps, schedule.warm_up)
    rng = np.random.default_rng([experiment.seed, fold, state.step])
    torch.manual_seed(int(rng.integers(2**62)))
    batch = task.batch(schedule.batch, rng)
    state.network.train()
    with torch.autocast("cpu", torch.bfloat16):
        output = state.network(batch[0].contiguous(memory_format=torch.channels_last_3d))
    loss = task.loss(output.float(), batch)
    state.optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    size = torch.nn.utils.clip_grad_norm_(state.network.parameters(), schedule.largest_gradient)
    if torch.isfinite(size):
        state.optimiser.step()
    _follow(state.average, state.network, min(schedule.average, (state.step + 1) / (state.step + 10)))
    return loss.item()


def _pace(step: int, steps: int, warm_up: int) -> float:
    """Return the part of the highest learning rate at a step."""
    return min(1.0, (step + 1) / max(1, warm_up)) * (
        0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps))
    )


def _follow(average: torch.nn.Module, network: torch.nn.Module, decay: float) -> None:
    """Move the averaged weights, and the statistics of batch norm, toward the present ones."""
    with torch.no_grad():
        for kept, now in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(now, 1 - decay)
            else:
                kept.copy_(now)


def settle(network: torch.nn.Module, experiment: Experiment, fold: int, task: Task) -> None:
    """Take the statistics of batch norm anew, from samples that are learned from: averaged weights have their own."""
    norms = [part for part in network.modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for number in range(SETTLING_BATCHES if norms else 0):
            rng = np.random.default_rng([experiment.seed, fold, experiment.schedule.steps, number])
            shown = task.batch(experiment.schedule.batch, rng)[0]
            network(shown.contiguous(memory_format=torch.channels_last_3d))
    network.eval()


def _save(state: _State, path: Path) -> None:
    """Write the checkpoint whole or not at all."""
    parts = {
        "network": state.network.state_dict(),
        "average": state.average.state_dict(),
        "optimiser": state.optimiser.state_dict(),
        "step": state.step,
        "losses": state.losses,
        "judged": state.judged,
        "seconds": state.seconds,
    }
    whole = BytesIO()  # torch hides what a disk says
    torch.save(parts, whole)
    _put(whole.getbuffer(), path)


def _put(content: bytes | memoryview, path: Path) -> None:
    """Write a file whole or not at all; `Unavailable` when the disk takes no more."""
    half = path.with_suffix(".half")
    try:
        half.write_bytes(content)
        os.replace(half, path)
    except OSError as error:
        half.unlink(missing_ok=True)
        raise Unavailable(
            f"{path} cannot be written: {error.strerror or error}; mend that (free space) and run it again, it goes on "
            "from the last checkpoint"
        ) from error


def _restore(state: _State, path: Path) -> None:
    try:
        parts = torch.load(path, weights_only=True)
        state.network.load_state_dict(parts["network"])
        state.average.load_state_dict(parts["average"])
        state.optimiser.load_state_dict(parts["optimiser"])
        state.step, state.losses, state.judged = parts["step"], parts["losses"], parts["judged"]
        state.seconds = parts["seconds"]
    except Exception as error:  # torch raises whatever the bytes make it raise
        raise Refused(
            "bad-checkpoint",
            f"{path} cannot be read as a checkpoint ({type(error).__name__}): delete it to begin the fold anew",
        ) from error


def _write_weights(
    kept: Mapping[str, Tensor], path: Path, experiment: Experiment, fold: int, task: Task
) -> None:
    from safetensors.torch import save

    numbers = {name: value.contiguous() for name, value in kept.items()}
    said = {"experiment": experiment.name, "fold": fold, "data_sha256": task.manifest.sha256}
    # several keys would be written in an order that is another each time
    _put(save(numbers, metadata={"about": json.dumps(said, sort_keys=True)}), path)


def _packed(name: str, value: Tensor) -> Tensor:
    """Return a value as it is kept: float16, but statistics of batch norm, which may exceed it, as they are."""
    return (
        value.half()
        if value.is_floating_point() and not name.rpartition(".")[2].startswith("running_")
        else value
    )
