"""Eight bits for the nodule segmenter: ranges from patients that a fold has learned from, judged on those it has not.

`python -m training.quantise RUN DATA --out int8.json` writes `int8`, the ranges of each finished fold for the card, and
`figures`, what the held-out nodules lose by it; `--put-on-card` writes the ranges on the card of a model folder and
prints the new hash of its manifest. It ends with status 1 when that is more than is allowed; then no range
belongs on a card, and the network stays in bf16.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.export import Learned, seen_ranges, to_onnx
from models.files import MANIFEST
from models.nodule_passes import NoduleView, draw, look, nearest_piece
from models.runtime import Runner, runner
from models.shipped import CARD
from plugins.errors import NadirError
from training.evaluate.crops import AS_GIVEN, asked
from training.evaluate.data import Data, open_learnable
from training.evaluate.families import open_subject
from training.evaluate.metrics import dice
from training.evaluate.runs import run_weights
from training.evaluate.subject import Subject
from training.lidc import Nodule, load_nodule
from training.manifest import sha256_of

Array = NDArray[np.float32]
SHOWN = 32
"""Nodules that ranges are taken from, each with every voxel size of the view."""
OFF_MM = 2.0
"""Standard deviation of the point around the centre of the nodule, along each axis."""
LEVEL = 0.4
"""Probability from which a voxel is drawn."""
MOST_DICE_LOST = 0.01
MOST_VOLUME_BIAS = 0.02
PLAIN = "torch-fp32"


@dataclass(frozen=True, kw_only=True)
class Lost:
    """What a kind of runner loses against torch in fp32 on the same nodules."""

    nodules: int
    """How many."""
    dice: float
    """Mean Dice that is lost; less than 0 when it is gained."""
    volume_bias: float
    """Mean of volume / volume of torch - 1."""
    total_volume_bias: float
    """The same of all volumes together."""

    @property
    def allowed(self) -> bool:
        """Whether it may be used in place of fp32."""
        biases = abs(self.volume_bias), abs(self.total_volume_bias)
        return self.dice <= MOST_DICE_LOST and max(biases) <= MOST_VOLUME_BIAS


def learned_of(subject: Subject, fold: int) -> Learned:
    """Return the network of a fold of a model or of a run of `nadir train`."""
    from safetensors.numpy import load_file

    if subject.model is not None:
        return Learned.of(subject.model, fold)
    assert subject.folder is not None
    view = view_of(subject)
    return Learned(
        architecture={"in_channels": view.channels, **subject.card["architecture"]},
        patch=(view.channels, *view.shape),
        weights=load_file(run_weights(subject.folder, fold)),
    )


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


def lost(
    kinds: Mapping[str, Runner], view: NoduleView, nodules: Sequence[Nodule]
) -> tuple[float, dict[str, Lost]]:
    """Return the mean Dice of the kind `PLAIN` and what each other kind loses against it, drawn as a node draws."""
    scores: dict[str, list[float]] = {kind: [] for kind in kinds}
    volumes: dict[str, list[int]] = {kind: [] for kind in kinds}
    for nodule in nodules:
        image, truth, point, _ = asked(nodule, AS_GIVEN)
        for kind, run in kinds.items():
            p = draw([run], view, image, nodule.spacing_mm, point).probabilities(
                image.shape, nodule.spacing_mm
            )
            mask = nearest_piece(p > LEVEL, point, nodule.spacing_mm)
            scores[kind].append(dice(mask, truth))
            volumes[kind].append(int(mask.sum()))
    plain, found = np.asarray(volumes[PLAIN], dtype=np.float64), {}
    held = plain > 0
    for kind in kinds:
        own = np.asarray(volumes[kind], dtype=np.float64)
        found[kind] = Lost(
            nodules=len(nodules),
            dice=float(np.mean(scores[PLAIN]) - np.mean(scores[kind])),
            volume_bias=float(np.mean(own[held] / plain[held] - 1)),
            total_volume_bias=float(own.sum() / plain.sum() - 1),
        )
    del found[PLAIN]
    return float(np.mean(scores[PLAIN])), found


def judged(
    subject: Subject, data: Data, fold: int, learned: Learned, kinds: Sequence[str], at_most: int
) -> dict[str, Any]:
    """Return Dice of torch and what other kinds lose on the nodules of a fold that its network has not seen."""
    held = [case for case in data.manifest.cases if case.fold == fold]
    order = np.random.default_rng(0).permutation(len(held))[:at_most]
    with TemporaryDirectory() as folder:
        opened = {kind: runner(kind, learned, Path(folder), 1) for kind in (PLAIN, *kinds)}
        plain, others = lost(opened, view_of(subject), [load_nodule(held[i], data.root) for i in order])
    return {"dice_fp32": plain, "lost": others}


def put_on_card(folder: Path, ranges: Mapping[str, Any]) -> str:
    """Write the ranges of each fold on the card of a model folder; return the new sha256 of its manifest."""
    card = json.loads((folder / CARD).read_text()) | {"int8": ranges}
    text = json.dumps(card, indent=1) + "\n"
    (folder / CARD).write_text(text)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][CARD] = {"sha256": sha256_of(folder / CARD), "size_bytes": len(text.encode())}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return sha256_of(folder / MANIFEST)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write ranges and figures; return 1 when more is lost than is allowed, 2 for input that cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="folder of a run or of a model")
    parser.add_argument("data", type=Path, help="folder of nodule crops, or manifest")
    parser.add_argument("--out", type=Path, default=Path("int8.json"))
    parser.add_argument("--kinds", nargs="+", default=["openvino-int8", "onnxruntime-int8"])
    parser.add_argument("--at-most", type=int, default=10_000, help="held-out nodules of each fold")
    parser.add_argument("--put-on-card", action="store_true", help="of the model folder, when little is lost")
    asked_for = parser.parse_args(arguments)
    try:
        subject, data = open_subject(asked_for.run), open_learnable(asked_for.data)
        subject = subject.on(data.manifest)
        ranges, figures = {}, {}
        for fold in subject.folds:
            learned = ranged(subject, data, fold)
            found = judged(subject, data, fold, learned, asked_for.kinds, asked_for.at_most)
            figures[str(fold)], ranges[str(fold)] = found, learned.ranges
            for kind, loss in found["lost"].items():
                told = f"Dice {found['dice_fp32']:.4f} - {loss.dice:.4f}, volume {loss.volume_bias:+.2%}"
                sys.stderr.write(f"fold {fold}, {kind}, {loss.nodules} nodules: {told}\n")
    except NadirError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    allowed = all(loss.allowed for found in figures.values() for loss in found["lost"].values())
    written = {"allowed": allowed, "int8": ranges, "figures": figures}
    asked_for.out.write_text(json.dumps(written, default=asdict, indent=1) + "\n")
    if allowed and asked_for.put_on_card:
        sys.stdout.write(f"{put_on_card(Path(asked_for.run), ranges)}\n")
    return 0 if allowed else 1


if __name__ == "__main__":
    sys.exit(main())
