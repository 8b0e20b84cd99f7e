"""What the files of a trained nnU-Net v2 say of it; reading them runs nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.files import BadModel

WHOLE = "copy the whole folder of the training"
AS_STORED = "SimpleITKIO"
READERS: Mapping[str, bool] = {
    AS_STORED: False,
    "NibabelIO": False,
    "SimpleITKIOWithReorient": True,
    "NibabelIOWithReorient": True,
}
"""The readers of nnU-Net for volumes, and whether one turns them to RAS; else they are given as they are stored."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What the folder of a trained network says of it."""

    name: str
    """Its name."""
    intended_use: str
    """What it is for, in its own words."""
    names: Mapping[int, str]
    """What the numbers mean that it draws, without the background."""
    regions: Mapping[int, frozenset[int]]
    """The numbers that lie in what bears this one: its own and, of a region, those of the regions within it."""
    folds: tuple[int | str, ...]
    """The folds with weights, whose answers are averaged; `all` is the one that learned from everything."""
    is_ras: bool
    """Whether X ran to the right and Y to the front in what it learned from, else to the left and to the back."""

    def pictures(self, labels: NDArray[np.int32]) -> Iterator[NDArray[np.int32]]:
        """Yield what it drew as pictures that may overlap: each region whole, and what belongs to none.

        nnU-Net writes a region over the one that it lies in, of which only the rest would be left otherwise.
        """
        if all(len(own) == 1 for own in self.regions.values()):
            yield labels
            return
        for number, own in self.regions.items():
            yield np.where(np.isin(labels, [*own]), np.int32(number), np.int32(0))
        known = {number for own in self.regions.values() for number in own}
        yield np.where(np.isin(labels, [*known]), np.int32(0), labels)


def read_trained(folder: Path, checkpoint: str) -> Trained:
    """Return what a folder with `dataset.json`, `plans.json` and `fold_N` says of its network.

    Raises BadModel: `no-nnunet` when one of them or the checkpoint is missing, `bad-metadata`, `bundle-channels` for
    a network that wants more than one image at a time, `unknown-reader` for one whose images no one of `READERS` read.
    """
    plain = _dataset(folder)
    reader = _reader(_plans(folder), plain)
    meant = _meant(plain["labels"])
    names = _written(plain, meant)
    return Trained(
        name=str(plain.get("name") or folder.name),
        intended_use=str(plain.get("description") or "not stated"),
        names=names,
        regions={number: meant[name] for number, name in names.items()},
        folds=_folds(folder, checkpoint),
        is_ras=READERS[reader],
    )


def _dataset(folder: Path) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads((folder / "dataset.json").read_text())
        channels, labels = len(plain["channel_names"]), plain["labels"]
        if not isinstance(labels, dict):
            raise TypeError("the labels are no names with numbers")
        _meant(labels)
    except OSError as error:
        raise BadModel("no-nnunet", "the folder has no dataset.json; is it a trained nnU-Net v2?") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadModel("bad-metadata", f"dataset.json names no channels and labels ({error})") from error
    if channels != 1:
        raise BadModel("bundle-channels", f"the network wants {channels} images at a time; one is given")
    return plain


def _plans(folder: Path) -> Mapping[str, Any]:
    try:
        plain = json.loads((folder / "plans.json").read_text())
    except OSError as error:
        raise BadModel(
            "no-nnunet", f"the folder has no plans.json, which says how the network is built: {WHOLE}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadModel("bad-metadata", f"plans.json cannot be read ({error}); {WHOLE}") from error
    if not isinstance(plain, dict):
        raise BadModel("bad-metadata", f"plans.json is no table of keys and values; {WHOLE}")
    return plain


def _reader(plans: Mapping[str, Any], dataset: Mapping[str, Any]) -> str:
    """Return which reader gave the images that were learned from: the plans say it, or else dataset.json."""
    said = plans.get("image_reader_writer")
    if said is None and (said := dataset.get("overwrite_image_reader_writer")) in (None, "None"):
        said = AS_STORED
    if not isinstance(said, str) or said not in READERS:
        raise BadModel(
            "unknown-reader",
            f"the network learned from images of the reader '{said}', and how that turns a patient is not known here;"
            f" known are {', '.join(READERS)}",
        )
    return said


def _meant(labels: Mapping[str, Any]) -> dict[str, frozenset[int]]:
    """Return the numbers of each label or region, without the background and what was ignored in training."""
    numbers = {
        name: frozenset(int(one) for one in (value if isinstance(value, list) else [value]))
        for name, value in labels.items()
        if name != "ignore"
    }
    return {name: own - {0} for name, own in numbers.items() if own - {0}}


def _written(plain: Mapping[str, Any], meant: Mapping[str, frozenset[int]]) -> dict[int, str]:
    """Return which name nnU-Net writes as which number."""
    if all(len(own) == 1 for own in meant.values()):
        return {number: name for name, own in meant.items() for number in own}
    order = plain.get("regions_class_order")
    if not isinstance(order, list) or len(order) != len(meant) or not _tells(order, list(meant.values())):
        raise BadModel(
            "bad-metadata",
            f"the labels of dataset.json are regions ({', '.join(meant)}), and its regions_class_order is {order}: it"
            " has to have a number for each that no region within it has, and regions that lie in others follow"
            " them; what is written there cannot be told apart otherwise",
        )
    return dict(zip(order, meant, strict=True))


def _tells(order: Sequence[Any], regions: Sequence[frozenset[int]]) -> bool:
    """Return True when each region can be read from a picture in which later ones were written over earlier ones."""
    each = list(zip(order, regions, strict=True))
    return all(number in own for number, own in each) and all(
        own.isdisjoint(later) or (later < own and number not in later)
        for at, (number, own) in enumerate(each)
        for _, later in each[at + 1 :]
    )


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
