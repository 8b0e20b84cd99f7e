"""Eight bits for the nodule segmenter: ranges from patients that a fold has learned from, judged on those it has not.

`python -m training.quantise RUN DATA --out int8.json` writes `int8`, the ranges of each finished fold for the card, and
`figures`, what the held-out nodules of each fold and of all lose by it; `--put-on-card` writes both on the card of a
model folder and prints the new hash of its manifest. `--as-shipped` judges the ranges that the card of a model has. It
ends with status 1 when more is lost than is allowed; then no range belongs on a card, and the network stays in bf16.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.export import Learned, derived, seen_ranges, to_onnx
from models.files import MANIFEST
from models.nodule_passes import NoduleView, draw, look, nearest_piece
from models.nodule_segmenter import LearnedNoduleSegmenter
from models.runtime import Runner, runner
from models.shipped import CARD
from plugins.contract import BoolArray
from plugins.errors import NadirError
from store.file_hash import sha256_of
from training.evaluate.bootstrap import Interval, summary
from training.evaluate.crops import AS_GIVEN, Point, asked
from training.evaluate.data import Data, open_learnable
from training.evaluate.families import open_subject
from training.evaluate.metrics import dice
from training.evaluate.runs import learned_of
from training.evaluate.subject import Subject
from training.lidc import Nodule, load_nodule

Array = NDArray[np.float32]
Draw = Callable[[Nodule, Array, Point], BoolArray]
"""A nodule, its image and the point to what is drawn there."""
SHOWN = 32
"""Nodules that ranges are taken from, each with every voxel size of the view."""
OFF_MM = 2.0
"""Standard deviation of the point around the centre of the nodule, along each axis."""
LEVEL = 0.4
"""Probability from which a voxel of a run is drawn; a model draws as it does in a node."""
MOST_DICE_LOST = 0.01
MOST_VOLUME_BIAS = 0.02
PLAIN = "torch-fp32"


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One nodule as kinds of runners drew it."""

    patient_id: str
    """Whose it is."""
    dice: Mapping[str, float]
    """Dice, by kind."""
    volume_mm3: Mapping[str, float]
    """Volume, by kind."""


@dataclass(frozen=True, kw_only=True)
class Lost:
    """What a kind of runner loses against torch in fp32 on the same nodules, with intervals over patients."""

    dice: Interval
    """Mean Dice that is lost; less than 0 when it is gained."""
    volume_bias: Interval
    """Mean of volume / volume of torch - 1, of those that torch drew."""
    total_volume_bias: float
    """The same of all volumes together."""

    @property
    def allowed(self) -> bool:
        """Whether it may be used in place of fp32."""
        biases = abs(self.volume_bias.value), abs(self.total_volume_bias)
        return self.dice.value <= MOST_DICE_LOST and max(biases) <= MOST_VOLUME_BIAS


def view_of(subject: Subject) -> NoduleView:
    """Return what the networks of a model or of a run are shown."""
    return NoduleView.of(subject.card["view"] if subject.model is not None else subject.card["task"]["view"])


def shown_patches(view: NoduleView, nodules: Sequence[Nodule], seed: int) -> Array:
    """Return what a network is shown of nodules at every voxel size, points a little off: `(N, C, K, R, C)`."""
    random = np.random.default_rng(seed)
    shown = []
    for nodule in nodules:
        for voxel_mm in view.voxels_mm:
            off = random.normal(0, OFF_MM, 3) / np.asarray(nodule.spacing_mm)
            at = np.asarray(nodule.centre) + off
            shown.append(look(view, nodule.image, nodule.spacing_mm, at, voxel_mm))
    return np.stack(shown)


def ranged(subject: Subject, data: Data, fold: int) -> Learned:
    """Return the network of a fold with ranges that were seen on patients of the other folds."""
    learned = learned_of(subject, fold)
    others = [case for case in data.manifest.cases if case.fold != fold]
    chosen = np.random.default_rng(fold).choice(len(others), min(SHOWN, len(others)), replace=False)
    nodules = [load_nodule(others[i], data.root) for i in chosen]
    patches = shown_patches(view_of(subject), nodules, fold)
    return replace(learned, ranges=seen_ranges(to_onnx(learned), patches))


def drawer(subject: Subject, fold: int, run: Runner, mirrors: int) -> Draw:
    """Return what draws with a runner of one fold: a model as a node does, a run in its passes alone."""
    if subject.model is not None:
        segmenter = LearnedNoduleSegmenter(model=subject.model, folds=(fold,), mirrors=mirrors, given=(run,))

        def as_node(nodule: Nodule, image: Array, point: Point) -> BoolArray:
            found, mask = segmenter.answer(image, nodule.spacing_mm, point), np.zeros(image.shape, np.bool_)
            mask[found.box] = found.mask
            return mask

        return as_node
    view = view_of(subject)

    def in_passes(nodule: Nodule, image: Array, point: Point) -> BoolArray:
        found = draw([run], view, image, nodule.spacing_mm, point, mirrors)
        p = found.probabilities(image.shape, nodule.spacing_mm)
        return nearest_piece(p > LEVEL, point, nodule.spacing_mm)

    return in_passes


def drawn(kinds: Mapping[str, Draw], nodules: Iterable[Nodule]) -> list[Drawn]:
    """Return each nodule, in its crop, as every kind draws it."""
    found = []
    for nodule in nodules:
        image, truth, point, _ = asked(nodule, AS_GIVEN)
        masks = {kind: draw_one(nodule, image, point) for kind, draw_one in kinds.items()}
        voxel_mm3 = float(np.prod(nodule.spacing_mm))
        found.append(
            Drawn(
                patient_id=nodule.case.patient_id,
                dice={kind: dice(mask, truth) for kind, mask in masks.items()},
                volume_mm3={kind: float(mask.sum()) * voxel_mm3 for kind, mask in masks.items()},
            )
        )
    return found


def lost(nodules: Sequence[Drawn]) -> tuple[Interval, dict[str, Lost]]:
    """Return the mean Dice of the kind `PLAIN` and what each other kind loses against it.

    Raises ValueError when there are no nodules, or that kind drew none.
    """
    patients = [one.patient_id for one in nodules]

    def mean(of: Callable[[Drawn], float | None]) -> Interval:
        told = summary([of(one) for one in nodules], patients)
        if told is None:
            raise ValueError(f"{PLAIN} drew no nodule: there is nothing to hold other kinds against")
        return told

    found = {}
    for kind in [kind for kind in nodules[0].dice if kind != PLAIN]:
        own, plain = (sum(one.volume_mm3[name] for one in nodules) for name in (kind, PLAIN))
        found[kind] = Lost(
            dice=mean(lambda one, kind=kind: one.dice[PLAIN] - one.dice[kind]),  # type: ignore[misc]
            volume_bias=mean(lambda one, kind=kind: _bias(one, kind)),  # type: ignore[misc]
            total_volume_bias=own / plain - 1,
        )
    return mean(lambda one: one.dice[PLAIN]), found


def _bias(one: Drawn, kind: str) -> float | None:
    plain = one.volume_mm3[PLAIN]
    return one.volume_mm3[kind] / plain - 1 if plain else None


def held_out(
    subject: Subject,
    data: Data,
    fold: int,
    learned: Learned,
    kinds: Sequence[str],
    at_most: int,
    mirrors: int,
) -> list[Drawn]:
    """Return nodules of a fold, which its network has not seen, as torch in fp32 and other kinds draw them."""
    held = [case for case in data.manifest.cases if case.fold == fold]
    order = np.random.default_rng(0).permutation(len(held))[:at_most]
    with TemporaryDirectory() as folder:
        runners = {kind: runner(kind, learned, Path(folder), 1) for kind in (PLAIN, *kinds)}
        draws = {kind: drawer(subject, fold, run, mirrors) for kind, run in runners.items()}
        return drawn(draws, (load_nodule(held[i], data.root) for i in order))


def judged(which: str, nodules: Sequence[Drawn]) -> tuple[dict[str, Any], bool]:
    """Return Dice of torch in fp32 on some nodules and what other kinds lose on them, as JSON has it, and say it.

    The second is whether all that they lose is allowed.
    """
    plain, others = lost(nodules)
    for kind, one in others.items():
        sys.stderr.write(f"{which}, {kind}, {len(nodules)} nodules: {_words(plain, one)}\n")
    figures = {"dice_fp32": asdict(plain), "lost": {kind: asdict(one) for kind, one in others.items()}}
    return figures, all(one.allowed for one in others.values())


def sizes(learned: Learned, cache: Path) -> dict[str, Any]:
    """Return the bytes of the fp32 and of the 8-bit form, and how many times smaller the latter is."""
    plain, small = (len(derived(learned, form, cache)) for form in ("onnx", "int8"))
    return {"fp32_bytes": plain, "int8_bytes": small, "times_smaller": round(plain / small, 2)}


def put_on_card(folder: Path, ranges: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    """Write the ranges of each fold, and what is lost by them, on the card of a model folder.

    Returns the new sha256 of its manifest.
    """
    card = json.loads((folder / CARD).read_text()) | {"int8": ranges, "int8_judged": figures}
    text = json.dumps(card, indent=1) + "\n"
    (folder / CARD).write_text(text)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][CARD] = {"sha256": sha256_of(folder / CARD), "size_bytes": len(text.encode())}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return sha256_of(folder / MANIFEST)


def every_fold(
    subject: Subject, data: Data, given: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """Return the ranges of each fold, the figures of all nodules and of each fold's, and whether all are allowed."""
    ranges, by_fold, everybody, allowed = {}, {}, [], True
    size: dict[str, Any] = {}
    for fold in subject.folds:
        learned = learned_of(subject, fold) if given.as_shipped else ranged(subject, data, fold)
        with TemporaryDirectory() as folder:
            size = sizes(learned, Path(folder))
        nodules = held_out(subject, data, fold, learned, given.kinds, given.at_most, given.mirrors)
        ranges[str(fold)] = learned.ranges
        by_fold[str(fold)], is_allowed = judged(f"fold {fold}", nodules)
        everybody.extend(nodules)
        allowed &= is_allowed
    figures, is_allowed = judged("all folds", everybody)
    return ranges, {**size, "mirrors": given.mirrors, **figures, "folds": by_fold}, allowed and is_allowed


def _words(plain: Interval, one: Lost) -> str:
    biased = f"volume {_told(one.volume_bias, '+.2%')}, all {one.total_volume_bias:+.2%}"
    return f"Dice {plain.value:.4f}, lost {_told(one.dice, '.4f')}; {biased}"


def _told(found: Interval, form: str) -> str:
    ends = [f"{end:{form}}" for end in (found.low, found.high) if end is not None]
    return f"{found.value:{form}} [{' to '.join(ends)}]" if ends else f"{found.value:{form}}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write ranges and figures; return 1 when more is lost than is allowed, 2 for input that cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="folder of a run or of a model, or the name of a shipped one")
    parser.add_argument("data", type=Path, help="folder of nodule crops, or manifest")
    parser.add_argument("--out", type=Path, default=Path("int8.json"))
    parser.add_argument("--kinds", nargs="+", default=["openvino-int8", "onnxruntime-int8"])
    parser.add_argument("--at-most", type=int, default=10_000, help="held-out nodules of each fold")
    parser.add_argument("--mirrors", type=int, default=1, choices=range(1, 9), help="mirror images at last")
    parser.add_argument("--as-shipped", action="store_true", help="judge the ranges of the model's card")
    parser.add_argument("--put-on-card", action="store_true", help="of the model folder, when little is lost")
    given = parser.parse_args(arguments)
    try:
        subject, data = open_subject(given.run), open_learnable(given.data)
        ranges, figures, allowed = every_fold(subject.on(data.manifest), data, given)
    except (NadirError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    written = {"allowed": allowed, "int8": ranges, "figures": figures}
    given.out.write_text(json.dumps(written, indent=1) + "\n")
    if allowed and given.put_on_card:
        sys.stdout.write(f"{put_on_card(Path(given.run), ranges, figures)}\n")
    return 0 if allowed else 1


if __name__ == "__main__":
    sys.exit(main())
