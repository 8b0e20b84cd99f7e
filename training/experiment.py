"""An experiment: one YAML file that says everything that a training depends on but the data.

`search` holds lists of values by dotted key; every combination is one experiment of its own. `init_from` names a
folder with weights of the same architecture to begin with (transfer learning). Unknown keys are refused.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from plugins.errors import Refused


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast is learned."""

    steps: int
    """Steps of the optimiser."""
    batch: int = 8
    """Samples in a step."""
    learning_rate: float = 2e-3
    """Highest learning rate; rises over `warm_up` steps, then falls along a cosine to a hundredth."""
    warm_up: int = 100
    """Steps until the highest learning rate."""
    weight_decay: float = 1e-2
    """Weight decay of AdamW."""
    average: float = 0.998
    """Decay of the moving average of the weights, which is what is kept."""
    largest_gradient: float = 5.0
    """Norm to which gradients are cut."""
    save_every: int = 100
    """Steps from one checkpoint to the next."""
    judge_every: int = 500
    """Steps from one point of the curve on unseen patients to the next."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One training, for each of its folds."""

    name: str
    """Name of the experiment; its folder is called so."""
    model: str
    """What is learned: a key of the tasks that `nadir train` knows."""
    seed: int
    """Seed of weights, order and augmentation."""
    folds: tuple[int, ...]
    """Folds whose patients are left out, one network for each."""
    inner: bool = False
    """Leave the next fold out as well and draw the curve on it: for choices, so that the fold itself stays unseen."""
    architecture: Mapping[str, Any] = field(default_factory=dict)
    """What `models.networks.build` gets."""
    schedule: Schedule
    """How long and how fast is learned."""
    task: Mapping[str, Any] = field(default_factory=dict)
    """What the model's task alone knows: patches, augmentation, loss."""
    init_from: str | None = None
    """Folder of an earlier run, or of a model, whose weights of the same fold are the beginning; nobody who is held out
    in a fold here may be held out in another there."""

    @property
    def sha256(self) -> str:
        """Return the hash over all settings."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def read_experiments(path: Path) -> tuple[Experiment, ...]:
    """Return the experiments of a YAML file: one, or one for each combination under `search`.

    Refuses `no-experiment` (cannot be read) and `bad-experiment` (an unknown, missing or wrong setting).
    """
    import yaml

    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Refused("no-experiment", f"{path} cannot be read as YAML ({error})") from error
    if not isinstance(plain, dict):
        raise Refused("bad-experiment", f"{path} holds no settings")
    search = plain.pop("search", None) or {}
    if not isinstance(search, dict) or not all(isinstance(v, list) and v for v in search.values()):
        raise Refused("bad-experiment", f"'search' in {path} is lists of values by dotted key")
    found = []
    for number, values in enumerate(itertools.product(*search.values()), start=1):
        varied = json.loads(json.dumps(plain))
        for key, value in zip(search, values, strict=True):
            _set(varied, key, value, path)
        if search:
            varied["name"] = f"{varied.get('name')}-{number}"
        found.append(_experiment(varied, path))
    return tuple(found)


def _set(plain: dict[str, Any], key: str, value: object, path: Path) -> None:
    *way, last = key.split(".")
    inner: Any = plain
    for part in way:
        inner = inner.get(part) if isinstance(inner, dict) else None
    if not isinstance(inner, dict):
        raise Refused("bad-experiment", f"'search' in {path} names '{key}', which lies nowhere")
    inner[last] = value


def _experiment(plain: dict[str, Any], path: Path) -> Experiment:
    _require_known(plain, Experiment, path)
    schedule = plain.get("schedule")
    if not isinstance(schedule, dict):
        raise Refused("bad-experiment", f"{path} has no 'schedule'")
    _require_known(schedule, Schedule, path)
    try:
        made = Experiment(**{**plain, "schedule": Schedule(**schedule), "folds": tuple(plain["folds"])})
    except (TypeError, KeyError) as error:
        raise Refused("bad-experiment", f"{path}: {error}") from error
    if made.schedule.steps < 1 or made.schedule.batch < 1 or not made.folds:
        raise Refused(
            "bad-experiment", f"{path}: steps and batch are at least 1, and there is at least one fold"
        )
    return made


def _require_known(plain: Mapping[str, Any], kind: type, path: Path) -> None:
    known = {f.name for f in fields(kind)}
    if unknown := sorted(set(plain) - known):
        raise Refused(
            "bad-experiment", f"{path} says '{unknown[0]}'; known here are {', '.join(sorted(known))}"
        )
