"""What the files of a trained nnU-Net v2 say of it; reading them runs nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.files import BadModel

WHOLE = "copy the whole folder of the training"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What the folder of a trained network says of it."""

    name: str
    """Its name."""
    intended_use: str
    """What it is for, in its own words."""
    names: Mapping[int, str]
    """What the numbers mean that it draws, without the background."""
    folds: tuple[int | str, ...]
    """The folds with weights, whose answers are averaged; `all` is the one that learned from everything."""


def read_trained(folder: Path, checkpoint: str) -> Trained:
    """Return what a folder with `dataset.json`, `plans.json` and `fold_N` says of its network.

    Raises BadModel: `no-nnunet` when one of them or the checkpoint is missing, `bad-metadata`, `bundle-channels` for
    a network that wants more than one image at a time.
    """
    plain = _dataset(folder)
    if not (folder / "plans.json").is_file():
        raise BadModel(
            "no-nnunet", f"the folder has no plans.json, which says how the network is built: {WHOLE}"
        )
    return Trained(
        name=str(plain.get("name") or folder.name),
        intended_use=str(plain.get("description") or "not stated"),
        names=_names(plain["labels"]),
        folds=_folds(folder, checkpoint),
    )


def _dataset(folder: Path) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads((folder / "dataset.json").read_text())
        channels, labels = len(plain["channel_names"]), plain["labels"]
    except OSError as error:
        raise BadModel("no-nnunet", "the folder has no dataset.json; is it a trained nnU-Net v2?") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadModel("bad-metadata", f"dataset.json names no channels and labels ({error})") from error
    if channels != 1:
        raise BadModel("bundle-channels", f"the network wants {channels} images at a time; one is given")
    if not isinstance(labels, dict):
        raise BadModel("bad-metadata", "the labels of dataset.json are no names with numbers")
    return plain


def _names(labels: Mapping[str, Any]) -> dict[int, str]:
    numbers = {int(value): name for name, value in labels.items() if not isinstance(value, list)}
    return {number: name for number, name in numbers.items() if number != 0}


def _folds(folder: Path, checkpoint: str) -> tuple[int | str, ...]:
    """Return the folds with this checkpoint, in the order of nnU-Net itself; `all` where there is no other."""
    holding = sorted(path.name for path in folder.glob("fold_*") if (path / checkpoint).is_file())
    numbered = tuple(int(name[5:]) for name in holding if re.fullmatch(r"fold_\d+", name))
    if numbered or "fold_all" in holding:
        return numbered or ("all",)
    there = ", ".join(sorted(f"{path.parent.name}/{path.name}" for path in folder.glob("fold_*/*.pth")))
    advice = f"there is {there}: write which one as 'checkpoint' in its settings" if there else WHOLE
    raise BadModel(
        "no-nnunet", f"no fold_N of the folder holds {checkpoint}, the weights of the network; {advice}"
    )


__all__ = ["Trained", "read_trained"]
