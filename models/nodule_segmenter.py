"""The learned nodule segmenter as it is used: one point in, the mask with its probabilities and its doubt out.

The networks of all folds are one ensemble. The first one looks for size and place (`models.nodule_passes`); what it
settled on is then shown to all of them, mirrored as often as the card says.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.card import ModelCard
from models.doubt import Doubt
from models.export import Learned
from models.files import BadModel
from models.nodule_passes import MIRRORS, Drawn, Network, NoduleView, draw, nearest_piece, sigmoid
from models.patches import put_back
from models.runtime import default_cache, fastest, network
from models.segmenter import Index
from models.uncertainty import CaseUncertainty, summarised

if TYPE_CHECKING:
    from models.shipped import Model

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Spacing = tuple[float, float, float]
Box = tuple[slice, slice, slice]

NAME = "nodule_segmenter"
REACH_MM = 3.0
"""A drawing that comes no nearer to the point than this, or than one voxel, is of something else."""
WIDER = (1.5, 2.0, 2.7, 3.5)
"""By how much the coarsest voxels are stretched, and the world of the networks with them, to see a mass whole."""
AERATED = 0.55
"""Part of the tissue around a nodule that is lung at least; with less its outline is a guess."""
ENCLOSED = 0.8
"""With so much lung around it a drawing is whole."""
LUNG_HU = -500.0
DENSE_HU = -400.0
AIRY_HU = -850.0
DEEP_MM = 10.0
"""Nearer to the middle of a mass there is no lung; the first look shows whatever is not so deep whole, or its edge."""
LUNG_MM3 = 300.0
"""So much lung is lung, not a bubble."""
A_PART = (0.6, 0.05, 1.25)
"""Of a drawing with less lung around it, one on wider voxels that has hardly less and is larger shows that it was a
part: share of lung, how much less, how many times larger."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NoduleAnswer:
    """One lesion as it was drawn. Arrays are those of `box`, a part of the image around the point."""

    box: Box
    """Where in the image the arrays lie."""
    mask: BoolArray
    """The lesion; empty when there is none at the point."""
    probability: Array
    """Probability of lesion, tempered, so that it means what it says."""
    uncertainty: CaseUncertainty
    """How unsure the networks were."""
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
    here: NDArray[np.float64]
    """The point, voxel index in the box."""
    drawn: Drawn
    level: float
    fits: bool
    size: int
    """Voxels of the image that were drawn at the point."""
    aerated: float
    """Part of what surrounds them that is lung."""


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
        return NoduleView.of(self._said("view"))

    @cached_property
    def levels(self) -> tuple[float, ...]:
        """Return the probability (before tempering) from which a voxel is drawn, for each voxel size."""
        said = tuple(float(level) for level in self._said("levels"))
        return said * len(self.view.voxels_mm) if len(said) == 1 else said

    @cached_property
    def doubt(self) -> Doubt:
        """Return how far probability, volume and long axis may be off."""
        try:
            return Doubt.of_card(self._said("doubt")["all"])
        except (KeyError, TypeError, ValueError) as error:
            raise BadModel("bad-card", f"'doubt' of {NAME} is not as it has to be: {error}") from error

    @property
    def card(self) -> ModelCard:
        """Return who draws."""
        manifest = self.model.manifest
        return ModelCard(
            name=manifest.name,
            version=manifest.version,
            kind="learned",
            intended_use=str(self._said("intended_use")),
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
        """Return what computes the networks here: a key of `models.runtime.KINDS`."""
        if not self.fastest:
            return "torch-bf16"
        threads = len(os.sched_getaffinity(0))
        learned = Learned.of(self.model, self._folds[0])
        return fastest(learned, self.model.manifest.name, self.cache or default_cache(), threads).kind

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
        Raises ValueError for a point outside of the image.
        """
        if not all(-0.5 <= p <= n - 0.5 for p, n in zip(point, image.shape, strict=True)):
            raise ValueError(f"the point {tuple(point)} lies outside of an image of shape {image.shape}")
        best = first = self._look(image, spacing_mm, point, self._view(1.0, extent_mm))
        if not _is_whole(first, image, spacing_mm, point):
            views = (self._view(wider, extent_mm) for wider in WIDER)
            best = _most_whole([first, *(self._look(image, spacing_mm, point, view) for view in views)])
        return self._answered(best, image[best.box], spacing_mm)

    def _look(self, image: Array, spacing_mm: Spacing, point: Sequence[float], view: NoduleView) -> _Look:
        """Return what the first network sees of a lesion in one view."""
        box = _around(point, view, spacing_mm, image.shape)
        here = np.asarray(point, dtype=np.float64) - [side.start for side in box]
        part: Array = image[box]
        drawn = draw(self._networks[:1], view, part, spacing_mm, here)
        level = self._level(drawn.grid.spacing_mm[0])
        p = put_back(sigmoid(drawn.logits), part.shape, spacing_mm, drawn.point, drawn.grid)
        mask, fits = _at(p > level, here, spacing_mm), _fits(drawn, level)
        size, aerated = int(np.count_nonzero(mask)), _aerated(part, mask, spacing_mm)
        return _Look(box=box, here=here, drawn=drawn, level=level, fits=fits, size=size, aerated=aerated)

    def _answered(self, look: _Look, part: Array, spacing_mm: Spacing) -> NoduleAnswer:
        """Return what all networks say of what the first one settled on."""
        drawn, level = look.drawn, look.level
        answers = self._answers(drawn.inputs)
        logits: Array = answers.mean(axis=0, dtype=np.float32)
        raw = put_back(sigmoid(logits), part.shape, spacing_mm, drawn.point, drawn.grid)
        tempered = sigmoid(logits / np.float32(self.doubt.temperature))
        mask = _at(raw > level, look.here, spacing_mm)
        if self.is_coarse(drawn.grid.spacing_mm[0]):
            mask = _at(_edged(mask, part, spacing_mm), look.here, spacing_mm)
        return NoduleAnswer(
            box=look.box,
            mask=mask,
            probability=put_back(tempered, part.shape, spacing_mm, drawn.point, drawn.grid),
            uncertainty=summarised(answers, threshold=level).case(drawn.grid.spacing_mm),
            voxel_mm=drawn.grid.spacing_mm[0],
            fits=look.fits,
            aerated=_aerated(part, mask, spacing_mm),
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
        return int(self._said("mirrors")) if self.mirrors is None else self.mirrors

    @cached_property
    def _networks(self) -> tuple[Network, ...]:
        if self.given:
            return self.given
        if self.fastest:
            return tuple(network(self.model, fold, self.cache) for fold in self._folds)
        return tuple(torch_network(self.model, fold) for fold in self._folds)

    def _said(self, key: str) -> Any:
        try:
            return self.model.card[key]
        except KeyError as error:
            raise BadModel("bad-card", f"the card of {self.model.manifest.name} has no '{key}'") from error


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


def _is_dense(image: Array, spacing_mm: Spacing, point: Sequence[float]) -> bool:
    """Return whether there is tissue at a point, and not lung alone."""
    k, r, c = (
        slice(max(0, round(p - 2 / s)), round(p + 2 / s) + 1) for p, s in zip(point, spacing_mm, strict=True)
    )
    return float(np.median(image[k, r, c])) > DENSE_HU


def _is_whole(first: _Look, image: Array, spacing_mm: Spacing, point: Sequence[float]) -> bool:
    """Return whether no wider view can tell more than the first look: a nodule was seen whole, or none is there."""
    if not first.size:
        return not _is_dense(image, spacing_mm, point)
    return first.fits and (first.aerated >= ENCLOSED or not _is_deep(image, spacing_mm, point))


def _is_deep(image: Array, spacing_mm: Spacing, point: Sequence[float]) -> bool:
    """Return whether there is no lung within `DEEP_MM` of a point, noise of a millimetre smoothed away."""
    reach = [DEEP_MM / s for s in spacing_mm]
    box = tuple(slice(max(0, int(p - r)), int(p + r) + 2) for p, r in zip(point, reach, strict=True))
    smooth = ndimage.gaussian_filter(image[box], [min(1.0, 1.0 / s) for s in spacing_mm])
    at = np.argwhere(smooth < LUNG_HU) + [side.start for side in box]
    near = np.linalg.norm((at - np.asarray(point)) * np.asarray(spacing_mm), axis=1) <= DEEP_MM
    return bool(np.count_nonzero(near) * np.prod(spacing_mm) < LUNG_MM3)


def _most_whole(looks: Sequence[_Look]) -> _Look:
    """Return the look, of those from narrow to wide, whose drawing has most lung around it and is not a part.

    What is cut out of a mass has mass around it, and what leaks has the wall or the heart. What the patch cuts is whole
    when a wider one that is not cut is about as large.
    """
    little, less, larger = A_PART
    fit = [one for one in looks if one.size and one.fits]
    alike = [a for a in looks if any(max(a.size, b.size) <= larger * min(a.size, b.size) for b in fit)]
    seen = alike or [one for one in looks if one.size] or looks[:1]
    most = max(one.aerated for one in seen)
    best = next(one for one in seen if one.aerated >= most - less)
    for wider in seen[seen.index(best) + 1 :]:
        if best.aerated < little and wider.aerated >= best.aerated - less and wider.size > larger * best.size:
            best = wider
    return replace(best, fits=best.fits or bool(fit))


def _aerated(part: Array, mask: BoolArray, spacing_mm: Spacing) -> float:
    """Return the part of what lies 1 to 3.5 mm (a voxel at least) beyond a mask that is lung; 1 when nothing does."""
    if not mask.any():
        return 1.0
    far_mm = max(3.5, max(spacing_mm) + 0.5)
    held = np.argwhere(mask)
    reach = np.ceil(far_mm / np.asarray(spacing_mm)).astype(int) + 1
    low, high = np.maximum(held.min(axis=0) - reach, 0), held.max(axis=0) + reach + 1
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    away = ndimage.distance_transform_edt(~mask[box], sampling=spacing_mm)
    around = part[box][(away > 1.0) & (away <= far_mm)]
    return float(np.mean(around < LUNG_HU)) if around.size else 1.0


def _edged(mask: BoolArray, part: Array, spacing_mm: Spacing) -> BoolArray:
    """Return a drawing on coarse voxels less the lung at its edge, which begins half-way between both; no holes."""
    if not mask.any():
        return mask
    smooth = ndimage.gaussian_filter(part, [min(1.0, 1.0 / s) for s in spacing_mm])
    half = (float(np.median(part[mask])) + AIRY_HU) / 2
    return np.asarray(ndimage.binary_fill_holes(mask & (smooth > half)), dtype=np.bool_)


def _fits(drawn: Drawn, level: float) -> bool:
    """Return whether what was drawn ends inside of its patch."""
    mask = sigmoid(drawn.logits) > level
    middle = (np.asarray(mask.shape) - 1) / 2
    piece = nearest_piece(mask, middle, drawn.grid.spacing_mm)
    inner = np.zeros_like(piece)
    inner[1:-1, 1:-1, 1:-1] = True
    return not bool((piece & ~inner).any())


def _at(mask: BoolArray, point: NDArray[np.float64], spacing_mm: Spacing) -> BoolArray:
    """Return the piece of a mask that lies at the point; empty when none is near."""
    if not mask.any():
        return mask
    piece = nearest_piece(mask, point, spacing_mm)
    far = np.linalg.norm((np.argwhere(piece) - point) * np.asarray(spacing_mm), axis=1).min()
    return piece if far <= max(REACH_MM, *spacing_mm) else np.zeros_like(mask)


__all__ = ["NAME", "LearnedNoduleSegmenter", "NoduleAnswer", "runs_here", "torch_network"]
