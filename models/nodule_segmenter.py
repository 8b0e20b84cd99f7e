"""The learned nodule segmenter as it is used: one point in, the mask with its probabilities and its doubt out.

The networks of all folds are one ensemble. The first one looks for size and place (`models.nodule_passes`); what it
settled on is then shown to all of them, mirrored as often as the card says.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from models.card import ModelCard
from models.doubt import Doubt
from models.export import Learned
from models.files import BadModel
from models.mass_outline import mass_outline
from models.measured import measured_extent
from models.nodule_passes import (
    MIRRORS,
    Drawn,
    Network,
    NoduleView,
    draw,
    mirrors_of,
    nearest_piece,
    sigmoid,
)
from models.outlining import best_overlap, drawn_out, held_back, piece_at
from models.patches import put_back
from models.runtime import Opened, network
from models.segmenter import Index
from models.surroundings import aeration, is_deep, is_dense
from models.uncertainty import CaseUncertainty, summarised, unsteadiness

if TYPE_CHECKING:
    from models.shipped import Model

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Spacing = tuple[float, float, float]
Box = tuple[slice, slice, slice]

NAME = "nodule_segmenter"
WIDER = (1.5, 2.0, 2.7, 3.5)
"""By how much the coarsest voxels are stretched, and the world of the networks with them, to see a mass whole."""
AERATED = 0.55
"""Part of the tissue around a nodule that is lung at least; with less its outline is a guess."""
ENCLOSED = 0.8
"""With so much lung around it a drawing is whole."""
ALIKE = 1.25, 0.05
"""A drawing is the same whose volume differs by no more than this factor, with at most so much less lung around it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NoduleAnswer:
    """One lesion as it was drawn. Arrays are those of `box`, a part of the image around the point."""

    box: Box
    """Where in the image the arrays lie."""
    measured: Box
    """The image as far as it was measured (`models.measured`), as seen from the point: nothing is drawn beyond."""
    mask: BoolArray
    """The lesion; empty when there is none at the point."""
    probability: Array
    """Probability of lesion, tempered, so that it means what it says."""
    uncertainty: CaseUncertainty
    """How unsure the networks were."""
    unsteadiness: float
    """How differently each network draws the mirror images (`models.uncertainty.unsteadiness`)."""
    voxel_mm: float
    """Size of the voxels of the patch that it was drawn on, mm."""
    fits: bool
    """False when the lesion reaches the end of the largest patch: it may be larger than what was drawn."""
    aerated: float
    """Part of the tissue around it that is lung, 0 to 1; below `AERATED` the outline is a guess."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Look:
    """What the first network saw in one view."""

    box: Box
    measured: Box
    here: NDArray[np.float64]
    """The point, voxel index in the box."""
    drawn: Drawn
    level: float
    fits: bool
    size: int
    """Voxels of the image that were drawn at the point."""
    aerated: float
    """Part of what surrounds them that is lung."""
    expected_dice: float
    """How sure it is: the Dice that the best mask reaches if the probabilities are right."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LearnedNoduleSegmenter:
    """The networks of a model's card, asked together; they are loaded when the first lesion is drawn.

    It fits `models.segmenter.LesionSegmenter`. Raises BadModel when the card or the weights are not as they have to be.
    """

    model: Model
    """Card and weights."""
    folds: tuple[int, ...] = ()
    """Which folds are asked; all when empty. Of patients that the model learned from: that which has not seen them."""
    mirrors: int | None = None
    """How many mirror images each network is shown, 1 to 8; None for what the card says."""
    cache: Path | None = None
    """Where `models.runtime` keeps what it made of the networks; None for its own place."""
    fastest: bool = False
    """Whether the fastest runtime of this machine is asked (`models.runtime`), 8 bits included; else torch."""
    given: tuple[Network, ...] = ()
    """Networks that are asked in place of the folds' own: to judge another form of them."""

    @cached_property
    def view(self) -> NoduleView:
        """Return what the networks are shown."""
        return self.model.understood("view", NoduleView.of)

    @cached_property
    def levels(self) -> tuple[float, ...]:
        """Return the probability (before tempering) from which a lesion is seen at all, for each voxel size."""
        return self.model.understood("levels", self.view.levels_of)

    @cached_property
    def doubt(self) -> Doubt:
        """Return how far probability, volume and long axis may be off.

        It is what all folds taught; of one fold that is asked alone, what the patients of the others taught, which is
        all of it for a fold that the card does not name because it has taught nothing.
        """
        said = self.model.said("doubt")
        try:
            of_folds = said.get("folds", ())
            alone = len(self.folds) == 1 and self.folds[0] < len(of_folds)
            return Doubt.of_card(of_folds[self.folds[0]] if alone else said["all"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BadModel("bad-card", f"'doubt' of {NAME} is not as it has to be: {error}") from error

    @property
    def card(self) -> ModelCard:
        """Return who draws."""
        manifest = self.model.manifest
        return ModelCard(
            name=manifest.name,
            version=manifest.version,
            kind="learned",
            intended_use=str(self.model.said("intended_use")),
            parameters={
                "folds": ",".join(map(str, self._folds)),
                "mirrors": self._mirrors,
                "levels": ",".join(f"{level:g}" for level in self.levels),
                "temperature": self.doubt.temperature,
                "runtime": "fastest" if self.fastest else "torch",
            },
            weights_sha256=manifest.sha256,
        )

    @cached_property
    def runtime(self) -> str:
        """Return what computes the networks here: a key of `models.runtime.KINDS`, or two where weights differ."""
        kinds = {one.kind for one in self._networks if isinstance(one, Opened)}
        return ", ".join(sorted(kinds)) or "torch-bf16"

    def is_coarse(self, voxel_mm: float) -> bool:
        """Return whether voxels of this size are coarser than all that the networks learned on."""
        return voxel_mm > self.view.voxels_mm[-1]

    def segment(
        self, image: Array, spacing_mm: Spacing, seed: Index, within: BoolArray | None = None
    ) -> BoolArray:
        """Return the lesion at `seed`, boolean `(K, R, C)`: see `models.segmenter.LesionSegmenter.segment`."""
        answer = self.answer(image, spacing_mm, seed)
        out = np.zeros(image.shape, dtype=np.bool_)
        out[answer.box] = answer.mask if within is None else answer.mask & within[answer.box]
        return out

    def answer(
        self, image: Array, spacing_mm: Spacing, point: Sequence[float], extent_mm: float | None = None
    ) -> NoduleAnswer:
        """Return the lesion at a point (voxel index, not whole) of an image `(K, R, C)` in HU, spacing (k, r, c) in mm.

        `extent_mm`, the longest side of a box around it, is the size that the first look expects, where it is known.
        What was put around the image (`models.measured`) is not looked at.
        Raises ValueError for a point outside of the image.
        """
        if not all(-0.5 <= p <= n - 0.5 for p, n in zip(point, image.shape, strict=True)):
            raise ValueError(f"the point {tuple(point)} lies outside of an image of shape {image.shape}")
        best = first = self._look(image, spacing_mm, point, self._view(1.0, extent_mm))
        if not _is_whole(first, image[first.box], spacing_mm):
            views = (self._view(wider, extent_mm) for wider in WIDER)
            best = _surest([first, *(self._look(image, spacing_mm, point, view) for view in views)])
        return self._answered(best, image[best.box], spacing_mm)

    def _look(self, image: Array, spacing_mm: Spacing, point: Sequence[float], view: NoduleView) -> _Look:
        """Return what the first network sees of a lesion in one view."""
        box, measured = _seen(image, _around(point, view, spacing_mm, image.shape))
        here = np.asarray(point, dtype=np.float64) - [side.start for side in box]
        part: Array = image[box]
        drawn = draw(self._networks[:1], view, part, spacing_mm, here)
        level = self._level(drawn.grid.spacing_mm[0])
        p = put_back(sigmoid(drawn.logits), part.shape, spacing_mm, drawn.point, drawn.grid)
        mask, fits = piece_at(p > level, here, spacing_mm), _fits(drawn, level)
        size, aerated = int(np.count_nonzero(mask)), aeration(part, mask, spacing_mm)
        return _Look(
            box=box,
            measured=measured,
            here=here,
            drawn=drawn,
            level=level,
            fits=fits,
            size=size,
            aerated=aerated,
            expected_dice=_expected_dice(drawn, here, spacing_mm),
        )

    def _answered(self, look: _Look, part: Array, spacing_mm: Spacing) -> NoduleAnswer:
        """Return what all networks say of what the first one settled on."""
        cube_mm = look.drawn.grid.spacing_mm[0]
        answers = self._answers(look.drawn.inputs)
        patch = sigmoid(answers.mean(axis=0, dtype=np.float32))
        said = put_back(patch, part.shape, spacing_mm, look.drawn.point, look.drawn.grid)
        uncertainty = summarised(answers, threshold=look.level).case(look.drawn.grid.spacing_mm)
        mask = piece_at(said > look.level, look.here, spacing_mm)
        if self.is_coarse(cube_mm):
            mask = mass_outline(mask, part, spacing_mm, look.here)
        elif mask.any():
            said = held_back(said, mask, spacing_mm)
            mask, _ = best_overlap(said, look.here, spacing_mm)
            mask = drawn_out(mask, said, spacing_mm)
        return NoduleAnswer(
            box=look.box,
            measured=look.measured,
            mask=mask,
            probability=_tempered(said, self.doubt.temperature),
            uncertainty=uncertainty,
            unsteadiness=unsteadiness(np.split(answers, len(self._networks)), look.level),
            voxel_mm=cube_mm,
            fits=look.fits,
            aerated=aeration(part, mask, spacing_mm),
        )

    def _answers(self, inputs: Array) -> Array:
        """Return the logits `(T, K, R, C)` of each network for each mirror image, turned back."""
        axes = MIRRORS[: self._mirrors]
        shown = np.stack([np.flip(inputs[None], turn)[0] for turn in axes])
        seen = []
        for run in self._networks:
            for turn, logits in zip(axes, run(shown), strict=True):
                seen.append(np.flip(logits[None], turn)[0, 0])
        return np.stack(seen).astype(np.float32)

    def _view(self, wider: float, extent_mm: float | None) -> NoduleView:
        """Return the view of the card, begun at the size that is expected, or one coarser than its coarsest."""
        if wider > 1.0:
            return replace(
                self.view,
                voxels_mm=(self.view.voxels_mm[-1] * wider,),
                fits_mm=(),
                first=0,
                point_sigma_mm=self.view.point_sigma_mm * wider,
                furthest_mm=self.view.furthest_mm * wider,
            )
        if extent_mm is None:
            return self.view
        return replace(self.view, first=self.view.voxels_mm.index(self.view.voxel_mm(extent_mm)))

    def _level(self, voxel_mm: float) -> float:
        sizes = self.view.voxels_mm
        return self.levels[sizes.index(voxel_mm) if voxel_mm in sizes else -1]

    @cached_property
    def _folds(self) -> tuple[int, ...]:
        return self.folds or self.model.folds

    @property
    def _mirrors(self) -> int:
        return self.model.understood("mirrors", mirrors_of) if self.mirrors is None else self.mirrors

    @cached_property
    def _networks(self) -> tuple[Network, ...]:
        if self.given:
            return self.given
        if self.fastest:
            return tuple(network(self.model, fold, self.cache) for fold in self._folds)
        return tuple(torch_network(self.model, fold) for fold in self._folds)


def runs_here() -> bool:
    """Return whether what the networks need is installed; nothing is imported for that."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "monai"))


def torch_network(model: Model, fold: int) -> Network:
    """Return the network of one fold on the GPU if there is one, else on the CPU, in bf16 where that is quick.

    Raises BadModel (`other-architecture`) when the weights are not those of the card's architecture.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network: Any = Learned.of(model, fold).network()
    network = network.to(device, memory_format=torch.channels_last_3d)

    def run(patches: Array) -> Array:
        given = torch.from_numpy(patches).to(device).contiguous(memory_format=torch.channels_last_3d)
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
            logits: Array = network(given).float().cpu().numpy()
        return logits

    return run


def _around(point: Sequence[float], view: NoduleView, spacing_mm: Spacing, shape: Sequence[int]) -> Box:
    """Return the part of the image that patches around the point can reach."""
    reach_mm = max(view.shape) * view.voxels_mm[-1] / 2 + view.passes * view.furthest_mm
    k, r, c = (
        slice(max(0, int(p - reach_mm / s) - 1), min(n, int(p + reach_mm / s) + 3))
        for p, s, n in zip(point, spacing_mm, shape, strict=True)
    )
    return (k, r, c)


def _seen(image: Array, around: Box) -> tuple[Box, Box]:
    """Return what was measured of a part of the image, and the image less what was put around it there."""
    box, measured = [], []
    for side, kept, n in zip(around, measured_extent(image[around]), image.shape, strict=True):
        low, high = side.start + kept.start, side.start + kept.stop
        box.append(slice(low, high))
        measured.append(slice(low if low > side.start else 0, high if high < side.stop else n))
    return (box[0], box[1], box[2]), (measured[0], measured[1], measured[2])


def _is_whole(first: _Look, part: Array, spacing_mm: Spacing) -> bool:
    """Return whether no wider view can tell more than the first look: a nodule was seen whole, or none is there."""
    point = np.clip(first.here, 0, np.asarray(part.shape) - 1).tolist()
    if not first.size:
        return not is_dense(part, spacing_mm, point)
    return first.fits and (first.aerated >= ENCLOSED or not is_deep(part, spacing_mm, point))


def _surest(looks: Sequence[_Look]) -> _Look:
    """Return the look, of those from narrow to wide, that shows best what is most surely the lesion; else the first.

    A part of a mass and a leak have edges where there is none to see, of which the network is unsure: that counts from
    which the highest Dice is to be expected, of those that the patch does not cut. The narrowest that is the same shows
    it best, though the patch cut it a little; what has less lung around it is a part.
    """
    factor, less = ALIKE
    seen = [one for one in looks if one.size]
    surest = max([one for one in seen if one.fits] or seen or looks[:1], key=lambda one: one.expected_dice)
    best = next(
        one
        for one in looks
        if max(one.size, surest.size) <= factor * min(one.size, surest.size)
        and one.aerated >= surest.aerated - less
    )
    return replace(best, fits=surest.fits)


def _expected_dice(drawn: Drawn, here: NDArray[np.float64], spacing_mm: Spacing) -> float:
    """Return the Dice that is to be expected of the best mask at a point (voxel index) on the patch itself."""
    grid = drawn.grid
    offset = (here - drawn.point) * np.asarray(spacing_mm) / grid.spacing_mm
    _, dice = best_overlap(sigmoid(drawn.logits), offset + (np.asarray(grid.shape) - 1) / 2, grid.spacing_mm)
    return dice


def _fits(drawn: Drawn, level: float) -> bool:
    """Return whether what was drawn ends inside of its patch."""
    mask = sigmoid(drawn.logits) > level
    middle = (np.asarray(mask.shape) - 1) / 2
    piece = nearest_piece(mask, middle, drawn.grid.spacing_mm)
    inner = np.zeros_like(piece)
    inner[1:-1, 1:-1, 1:-1] = True
    return not bool((piece & ~inner).any())


def _tempered(probability: Array, temperature: float) -> Array:
    """Return probabilities whose logits are divided by a temperature; 0 and 1 stay."""
    p = probability.astype(np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(expit(logit(p) / temperature), dtype=np.float32)


__all__ = ["NAME", "LearnedNoduleSegmenter", "NoduleAnswer", "runs_here", "torch_network"]
