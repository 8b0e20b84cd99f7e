"""An experiment: one YAML file that says everything that a training depends on but the data.

`search` holds lists of values by dotted key; every combination is one experiment of its own. `init_from` names a
folder with weights of the same architecture to begin with (transfer learning). Unknown keys are refused.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from models.networks import steps_of
from models.yaml_text import read_yaml
from plugins.errors import Refused
from training.setting import A_FLAG, A_TABLE, A_TEXT, Wanted, number, require, whole
from training.task_setting import require_settings

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
LARGEST_SEED = 10**15
"""A seed is multiplied by 1000 and still has to fit into 64 bits."""


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


SCHEDULE: Mapping[str, Wanted] = {
    **dict.fromkeys(("steps", "batch", "save_every", "judge_every"), whole(1)),
    **dict.fromkeys(("learning_rate", "largest_gradient"), number(0.0, is_above=True)),
    "warm_up": whole(0),
    "weight_decay": number(0.0),
    "average": number(0.0, below=1.0),
}
"""What each setting of a schedule has to be."""


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


def _are_folds(value: object) -> bool:
    """Return whether a value is a list of different folds."""
    is_fold = whole(0).fits
    return (
        isinstance(value, list) and bool(value) and all(map(is_fold, value)) and len(set(value)) == len(value)
    )


EXPERIMENT: Mapping[str, Wanted] = {
    "name": Wanted(
        says="letters, digits and any of _ . - without a dot in front, between quotes if it is digits alone",
        fits=lambda value: isinstance(value, str) and NAME.fullmatch(value) is not None,
    ),
    "model": A_TEXT,
    "seed": whole(0, LARGEST_SEED),
    "folds": Wanted(
        says="a list of one or more different whole numbers that are at least 0", fits=_are_folds
    ),
    "inner": A_FLAG,
    "architecture": A_TABLE,
    "task": A_TABLE,
    "init_from": Wanted(
        says="the name of a folder, or nothing", fits=lambda value: value is None or A_TEXT.fits(value)
    ),
}
"""What each setting of an experiment has to be, but its schedule."""


def read_experiments(path: Path) -> tuple[Experiment, ...]:
    """Return the experiments of a YAML file: one, or one for each combination under `search`.

    Refuses `no-experiment` (cannot be read) and `bad-experiment` (an unknown, missing or wrong setting).
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        plain = read_yaml(text)
        _require_once(yaml.compose(text, Loader=yaml.SafeLoader), path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Refused("no-experiment", f"{path} cannot be read as YAML ({error})") from error
    except ValueError as error:
        raise Refused("bad-experiment", f"{path} cannot be used: {error}") from error
    if not isinstance(plain, dict):
        raise Refused("bad-experiment", f"{path} holds no settings")
    plain = _as_json(plain, path)
    search = plain.pop("search", None) or {}
    if not isinstance(search, dict) or not all(isinstance(v, list) and v for v in search.values()):
        raise Refused("bad-experiment", f"'search' in {path} is lists of values by dotted key")
    found = []
    for count, values in enumerate(itertools.product(*search.values()), start=1):
        varied = deepcopy(plain)
        for key, value in zip(search, values, strict=True):
            _set(varied, key, deepcopy(value), path)
        if search and isinstance(varied.get("name"), str):
            varied["name"] = f"{varied['name']}-{count}"
        found.append(_experiment(varied, path))
    return tuple(found)


def _require_once(root: Any, path: Path) -> None:
    """Refuse a key that stands twice in one table of the nodes of a YAML file; the last one would count."""
    waiting, seen = [root], set[int]()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen or node.id == "scalar":
            continue
        seen.add(id(node))
        if node.id == "sequence":
            waiting += node.value
            continue
        said: set[str] = set()
        for key, value in node.value:
            if key.id == "scalar" and key.value in said:
                line = key.start_mark.line + 1
                raise Refused(
                    "bad-experiment", f"{path} says '{key.value}' again in line {line}; say it once"
                )
            said.add(str(key.value))
            waiting.append(value)


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
    _require_wanted(plain, EXPERIMENT, path)
    _require_wanted(schedule, SCHEDULE, path, "schedule.")
    require_settings(plain.get("model"), plain.get("task"), plain.get("architecture"), path)
    _require_steps(plain.get("architecture"), path)
    _require_divisible(plain, path)
    try:
        return Experiment(**{**plain, "schedule": Schedule(**schedule), "folds": tuple(plain["folds"])})
    except (TypeError, KeyError) as error:
        raise Refused("bad-experiment", f"{path}: {error}") from error


def _require_wanted(
    plain: Mapping[str, Any], wanted: Mapping[str, Wanted], path: Path, where: str = ""
) -> None:
    for key in wanted.keys() & plain.keys():
        require(plain[key], wanted[key], f"{where}{key}", path)


def _require_steps(architecture: object, path: Path) -> None:
    """Refuse strides that are not one fewer than the channels: those beyond would not be used."""
    if not isinstance(architecture, dict):
        return
    channels, strides = architecture.get("channels"), architecture.get("strides")
    if isinstance(channels, list) and isinstance(strides, list) and len(strides) != len(channels) - 1:
        raise Refused(
            "bad-experiment",
            f"architecture.strides in {path} are {len(strides)} and its channels {len(channels)}; write one stride "
            f"for each step from one to the next, {len(channels) - 1}",
        )


def _require_divisible(plain: Mapping[str, Any], path: Path) -> None:
    """Refuse a patch that the network cannot bring up again; what is no patch or network, is told where it is made."""
    try:
        shape = [int(side) for side in plain["task"]["view"]["shape"]]
        steps = steps_of(plain["architecture"])
        fits = all(side % step == 0 for side, step in zip(shape, steps, strict=True))
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError):
        return
    if not fits:
        better = [max(1, round(side / step)) * step for side, step in zip(shape, steps, strict=True)]
        raise Refused(
            "bad-experiment",
            f"task.view.shape in {path} is {shape}, and the strides and the stem of its architecture need multiples of"
            f" {list(steps)}; write {better}, say",
        )


def _as_json(plain: Mapping[object, Any], path: Path) -> dict[str, Any]:
    """Return settings with text for keys. Refuses what JSON does not know, such as dates."""
    try:
        made: dict[str, Any] = json.loads(json.dumps(plain))
        return made
    except (TypeError, ValueError, RecursionError) as error:
        raise Refused(
            "bad-experiment",
            f"{path} holds more than texts, numbers, lists and tables ({error}); put a date between quotes",
        ) from error


def _require_known(plain: Mapping[str, Any], kind: type, path: Path) -> None:
    known = {f.name for f in fields(kind)}
    if unknown := sorted(set(plain) - known):
        raise Refused(
            "bad-experiment", f"{path} says '{unknown[0]}'; known here are {', '.join(sorted(known))}"
        )
