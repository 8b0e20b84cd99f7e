"""What the settings of each model's task, and of its network, have to be, by dotted key."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from models.networks import known_of
from plugins.errors import Refused
from training.setting import A_FLAG, A_TABLE, Wanted, number, require, whole

A_LENGTH = number(0.0, is_above=True)
AT_MOST = number(0.0)
"""How far something may be from what it is: 0 for not at all."""
A_STRETCH = number(0.0, below=1.0)
A_PART = number(0.0, most=1.0)
SHARE = number(0.0, is_above=True, most=1.0)
SUMS_TO_1 = 1e-8
"""How far from 1 the sum of frequencies may be, as numpy has it."""


def _are_numbers(value: object, one: Wanted) -> bool:
    return isinstance(value, list) and bool(value) and all(map(one.fits, value))


def _are_sizes(value: object) -> bool:
    """Return whether a value is a whole number above 0 or holds nothing else, at any depth."""
    if isinstance(value, list):
        return bool(value) and all(map(_are_sizes, value))
    return whole(1).fits(value)


def frequencies(least: int, most: int) -> Wanted:
    """Return what the frequencies of `least` to `most` things are, of which one is drawn each time."""
    count = f"{most}" if least == most else f"{least} to {most}"
    return Wanted(
        says=f"a list of {count} numbers that are at least 0 and sum to 1",
        fits=lambda value: (
            isinstance(value, list)
            and least <= len(value) <= most
            and _are_numbers(value, A_PART)
            and abs(math.fsum(value) - 1) <= SUMS_TO_1
        ),
    )


def pair(least: float = -math.inf) -> Wanted:
    """Return what two numbers above `least`, the lower one first, are."""
    above = "" if math.isinf(least) else f" above {least:g}"
    return Wanted(
        says=f"a list of two numbers{above}, the lower one first",
        fits=lambda value: (
            isinstance(value, list)
            and len(value) == 2
            and _are_numbers(value, number(least, is_above=True))
            and value[0] < value[1]
        ),
    )


LENGTHS = Wanted(says="a list of numbers above 0", fits=lambda value: _are_numbers(value, A_LENGTH))
SIZES = Wanted(says="whole numbers that are at least 1", fits=_are_sizes)
LARGEST_PATCH = 256**3
"""No patch has more voxels: a few channels of a batch of these are gigabytes."""
SHAPE = Wanted(
    says=f"a list of three whole numbers that are at least 1, [K, R, C], at most {LARGEST_PATCH} voxels together",
    fits=lambda value: (
        isinstance(value, list)
        and len(value) == 3
        and all(map(whole(1).fits, value))
        and math.prod(value) <= LARGEST_PATCH
    ),
)
ONE = Wanted(
    says="1, because every task asks for one answer", fits=lambda value: type(value) is int and value == 1
)
A_LIST = Wanted(says="a list", fits=lambda value: isinstance(value, list))
"""What the view itself looks at."""
VIEW: Mapping[str, Wanted] = {"view": A_TABLE, "view.shape": SHAPE}

SEGMENTER: Mapping[str, Wanted] = {
    **VIEW,
    "view.voxels_mm": LENGTHS,
    **dict.fromkeys(("view.fits_mm", "view.windows_hu"), A_LIST),
    "view.first": whole(0),
    **dict.fromkeys(("view.point_sigma_mm", "view.furthest_mm"), A_LENGTH),
    "view.tells_acquisition": A_FLAG,
    "view.passes": whole(1),
    "view.level": A_PART,
    "share": SHARE,
    "entropy_weight": number(0.0),
    "size_power": number(0.0, most=10.0),
    "augmentation": A_TABLE,
    "augmentation.fill_weights": frequencies(1, 6),
    **dict.fromkeys((f"augmentation.{key}" for key in ("jitter_mm", "noise_hu", "shift_hu")), AT_MOST),
    **dict.fromkeys(("augmentation.zoom", "augmentation.gain"), A_STRETCH),
    "augmentation.regridded": A_PART,
}
MALIGNANCY: Mapping[str, Wanted] = {
    **VIEW,
    "view.voxel_mm": A_LENGTH,
    "view.window_hu": pair(),
    "share": SHARE,
    "variation": A_TABLE,
    "variation.zoom": A_STRETCH,
    **dict.fromkeys((f"variation.{key}" for key in ("shift_mm", "noise_hu", "shift_hu")), AT_MOST),
}
DETECTOR: Mapping[str, Wanted] = {
    **VIEW,
    "view.voxels_mm": LENGTHS,
    "view.window_hu": pair(),
    "search": A_TABLE,
    "search.diameters_mm": pair(0.0),
    "search.lowest_response_hu": number(0.0),
    "search.lowest_roundness": A_PART,
    "search.at_most": whole(1),
    **dict.fromkeys(("nodules", "others"), whole(1)),
    **dict.fromkeys(("shift_hu", "noise_hu"), AT_MOST),
    "nodule_share": A_PART,
    "smoothing": number(0.0, below=0.5),
}
PETCT: Mapping[str, Wanted] = {
    **VIEW,
    **dict.fromkeys(
        (f"view.{key}" for key in ("voxel_mm", "highest_suv", "near_mm", "point_sigma_mm")), A_LENGTH
    ),
    "view.window_hu": pair(),
    "view.passes": whole(1),
    "share": SHARE,
    "made": whole(0),
    "made_share": A_PART,
    "outcome_seed": whole(0),
    "outcomes": whole(1),
    "augmentation": A_TABLE,
    "augmentation.fill_weights": frequencies(3, 3),
    **dict.fromkeys((f"augmentation.{key}" for key in ("least_margin_mm", "jitter_mm", "noise")), AT_MOST),
    **dict.fromkeys((f"augmentation.{key}" for key in ("anywhere", "without_ct")), A_PART),
    "augmentation.zoom": A_STRETCH,
    "augmentation.gain": number(0.0, most=10.0),
    "loss": A_TABLE,
    **dict.fromkeys(("loss.fp_weight", "loss.fn_weight"), number(0.0)),
    "loss.exponent": number(0.0, is_above=True),
    "loss.segmentation_weight": A_PART,
}
TASKS: Mapping[str, Mapping[str, Wanted]] = {
    "nodule_segmenter": SEGMENTER,
    "nodule_malignancy": MALIGNANCY,
    "nodule_detector": DETECTOR,
    "petct_multitask": PETCT,
}
"""By the name of the model that an experiment gives; what is not named here is for the task to refuse."""
ARCHITECTURE: Mapping[str, Wanted] = {
    **dict.fromkeys(("in_channels", "channels", "strides", "stem"), SIZES),
    "out_channels": ONE,
    **dict.fromkeys(("init_filters", "blocks_down", "blocks_up", "init_features", "growth_rate"), SIZES),
    **dict.fromkeys(("block_config", "layers", "widths", "head_features"), SIZES),
    "num_res_units": whole(0),
    "dropout": number(0.0, below=1.0),
    "gates": A_FLAG,
}
"""What the sizes of every network are."""


def require_settings(model: object, task: object, architecture: object, path: Path) -> None:
    """Refuse (`bad-experiment`) settings of a task or of a network that are not what they have to be, or not known."""
    wanted = {"task": TASKS.get(str(model), {}), "architecture": ARCHITECTURE}
    for part, settings in (("task", task), ("architecture", architecture)):
        for key, one in wanted[part].items():
            *way, last = key.split(".")
            inner: Any = settings
            for name in way:
                inner = inner.get(name) if isinstance(inner, dict) else None
            if isinstance(inner, dict) and last in inner:
                require(inner[last], one, f"{part}.{key}", path)
    kind = architecture.get("kind") if isinstance(architecture, dict) else None
    _require_known(architecture, known_of(kind), "architecture", path)
    tables = ["", *(f"{key}." for key, one in wanted["task"].items() if one is A_TABLE)]
    for table in tables:
        inner = task.get(table[:-1]) if table and isinstance(task, dict) else task
        inside = (key.removeprefix(table) for key in wanted["task"] if key.startswith(table))
        known = {key for key in inside if "." not in key}
        _require_known(inner, known, f"task.{table}"[:-1], path)


def _require_known(settings: object, known: Collection[str], where: str, path: Path) -> None:
    """Refuse (`bad-experiment`) what is not among the known settings; where none is known, all are left alone."""
    if known and isinstance(settings, dict) and (unknown := sorted(set(settings).difference(known))):
        raise Refused(
            "bad-experiment",
            f"{path} says '{unknown[0]}' in {where}; known there are {', '.join(sorted(known))}",
        )


__all__ = ["ARCHITECTURE", "TASKS", "require_settings"]
