"""How sure a model is: the same case answered several times, and how far the answers lie apart.

Answers come from an ensemble, from mirror images of the input, or from dropout; each is an array of logits, and what is
said of them does not depend on where they came from. Only for dropout torch is imported.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.calibration import lesion_region, tempered

if TYPE_CHECKING:
    import torch

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Spacing = tuple[float, float, float]

PASSES = 30
"""How often a network with dropout is asked."""
MARGIN_MM = 3.0
"""How far around what was drawn lesion is reckoned with when its Dice is foretold."""


@dataclass(frozen=True, kw_only=True)
class Uncertainty:
    """What several answers to one case say together. Entropies are in bits, 0 to 1."""

    probability: Array
    """Mean probability of lesion, shaped as the answers."""
    entropy: Array
    """Predictive entropy, of the mean probability: doubt of either kind."""
    mutual_information: Array
    """Predictive entropy less the mean entropy of the answers: what more training data could settle."""
    masks: BoolArray
    """What each answer draws, `(T, ...)`."""
    threshold: float
    """From which probability on a voxel is drawn."""

    @property
    def mask(self) -> BoolArray:
        """What the mean probability draws."""
        drawn: BoolArray = self.probability > self.threshold
        return drawn

    def case(self, spacing_mm: Spacing) -> CaseUncertainty:
        """Return the doubt about the whole lesion; the answers have to be `(K, R, C)` of this spacing."""
        mask, p = self.mask, self.probability
        if not mask.any():
            return CaseUncertainty(
                entropy=1.0, mutual_information=1.0, volume_cv=math.inf, disagreement=1.0, dice_deficit=1.0
            )
        sizes = self.masks.sum(axis=(1, 2, 3), dtype=np.float64)
        size, region = float(mask.sum()), lesion_region(mask, spacing_mm, MARGIN_MM)
        return CaseUncertainty(
            entropy=float(self.entropy[mask].mean(dtype=np.float64)),
            mutual_information=float(self.mutual_information[mask].mean(dtype=np.float64)),
            volume_cv=float(sizes.std() / sizes.mean()) if sizes.any() else math.inf,
            disagreement=_disagreement(self.masks, mask),
            dice_deficit=1.0
            - 2.0 * float(p[mask].sum(dtype=np.float64)) / (size + float(p[region].sum(dtype=np.float64))),
        )


@dataclass(frozen=True, kw_only=True)
class CaseUncertainty:
    """Doubt about one lesion as numbers that grow with it. A lesion of which nothing was drawn has the highest."""

    entropy: float
    """Mean predictive entropy of the drawn voxels, bits: of all these it goes best with the error on real nodules."""
    mutual_information: float
    """Mean mutual information of the drawn voxels, bits."""
    volume_cv: float
    """Standard deviation of the answers' volumes over their mean."""
    disagreement: float
    """1 - the mean Dice of what each answer draws and what all draw together."""
    dice_deficit: float
    """1 - the Dice to be expected if the probabilities are right: 1 - 2 sum(p m) / (sum(m) + sum(p))."""


def summarised(logits: Iterable[Array], *, threshold: float = 0.5, temperature: float = 1.0) -> Uncertainty:
    """Return what answers, logits of one shape, say together; `threshold` is of the tempered probabilities.

    Source of entropy and mutual information: Gal 2017, Smith and Gal 2018. Raises ValueError without an answer.
    """
    total: NDArray[np.float64] = np.zeros(())
    doubt: NDArray[np.float64] = np.zeros(())
    masks = []
    for answer in logits:
        p = tempered(np.asarray(answer, dtype=np.float64), temperature).astype(np.float64)
        total, doubt = total + p, doubt + _entropy(p)
        masks.append(p > threshold)
    if not masks:
        raise ValueError("there is no answer to summarise")
    probability = total / len(masks)
    entropy = _entropy(probability)
    return Uncertainty(
        probability=probability.astype(np.float32),
        entropy=entropy.astype(np.float32),
        mutual_information=np.maximum(entropy - doubt / len(masks), 0.0).astype(np.float32),
        masks=np.stack(masks),
        threshold=threshold,
    )


def unsteadiness(of_networks: Sequence[Array], threshold: float = 0.5) -> float:
    """Return how differently a network answers one case each time, 0 to 1: the mean of the disagreement of each.

    The logits of each are `(T, ...)`. How far networks lie apart does not count, so it does not grow with their number.
    """
    found = []
    for logits in of_networks:
        p = tempered(logits.astype(np.float64), 1.0)
        found.append(_disagreement(p > threshold, p.mean(axis=0) > threshold))
    return float(np.mean(found))


def _disagreement(masks: BoolArray, together: BoolArray) -> float:
    """Return 1 - the mean Dice of each mask `(T, ...)` and what all draw together; 1 where these draw nothing."""
    if not together.any():
        return 1.0
    inside = tuple(range(1, masks.ndim))
    common = (masks & together).sum(axis=inside, dtype=np.float64)
    return 1.0 - float(np.mean(2.0 * common / (masks.sum(axis=inside) + together.sum())))


def _entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the entropy of a yes or no of probability p, bits."""
    from scipy.special import entr

    bits: NDArray[np.float64] = (entr(p) + entr(1.0 - p)) / math.log(2.0)
    return bits


@dataclass(frozen=True, kw_only=True)
class DropoutPasses:
    """Answers of one network under dropout, and what of it was computed once for all of them."""

    logits: Array
    """`(T, O, K, R, C)`."""
    shared: tuple[str, ...]
    """Names of the outermost modules that ran once: all that ended before the first dropout began."""


class _DropoutBegins(Exception):
    """Nothing beyond is the same in two passes."""


def dropout_passes(
    network: torch.nn.Module, patch: Array, *, passes: int = PASSES, seed: int = 0, at_once: int = 5
) -> DropoutPasses:
    """Return the answers of a network to a patch `(C, K, R, C)` with its dropout switched on (Gal 2016).

    What ends before the first dropout begins cannot depend on it, so it is computed once and handed to every pass:
    the answers are those of whole passes. Normalisation is as at inference. `at_once` passes go through the rest
    together, each with a dropout of its own. No other thread may use the network meanwhile; it is left as it was.
    Raises ValueError when no dropout module takes part: all answers would be one.
    """
    import torch
    from torch.nn.modules.dropout import _DropoutNd

    training = {module: module.training for module in network.modules()}
    x = _repeated(torch.from_numpy(patch)[None], 1).to(next(network.parameters()).device)
    drops = [m for m in network.modules() if isinstance(m, _DropoutNd) and m.p > 0]
    network.eval()
    answers = []
    try:
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(seed)
            shared = _ended_before(network, drops, x)
            for drop in drops:
                drop.train()
            for done in range(0, passes, at_once):
                n = min(at_once, passes - done)
                with _handed_out(shared, n):
                    answers.append(network(_repeated(x, n)).float().cpu().numpy())
    finally:
        for module, was in training.items():
            module.training = was
    names = {module: name for name, module in network.named_modules()}
    return DropoutPasses(logits=np.concatenate(answers), shared=tuple(names[m] for m in shared))


def _ended_before(
    network: torch.nn.Module, drops: Sequence[torch.nn.Module], x: torch.Tensor
) -> dict[torch.nn.Module, torch.Tensor]:
    """Return what every outermost module gave that ran once and ended before the first dropout began."""
    import torch

    ended: dict[torch.nn.Module, tuple[torch.Tensor, int]] = {}
    runs: Counter[torch.nn.Module] = Counter()

    def end(module: torch.nn.Module, _: object, given: object) -> None:
        runs[module] += 1
        if isinstance(given, torch.Tensor):
            ended[module] = given, given._version
            for part in list(module.modules())[1:]:
                ended.pop(part, None)

    def begin(_: torch.nn.Module, __: object) -> None:
        raise _DropoutBegins

    hooks = [module.register_forward_hook(end) for module in network.modules()]
    hooks += [drop.register_forward_pre_hook(begin) for drop in drops]
    try:
        network(x)
    except _DropoutBegins:
        # What another module went on to change in place is no longer what this one gave.
        return {m: given for m, (given, as_of) in ended.items() if runs[m] == 1 and given._version == as_of}
    finally:
        for hook in hooks:
            hook.remove()
    raise ValueError("no dropout takes part in the network: every pass would answer the same")


@contextmanager
def _handed_out(shared: Mapping[torch.nn.Module, torch.Tensor], batch: int) -> Iterator[None]:
    """Let each module give what it gave before, `batch` times over, when it is asked first; again, it runs."""

    def forward(module: torch.nn.Module) -> Callable[..., torch.Tensor]:
        given = shared[module]

        def give(*_: object) -> torch.Tensor:
            del module.__dict__["forward"]
            return _repeated(given, batch)

        return give

    for module in shared:
        module.__dict__["forward"] = forward(module)
    try:
        yield
    finally:
        for module in shared:
            module.__dict__.pop("forward", None)


def _repeated(values: torch.Tensor, batch: int) -> torch.Tensor:
    """Return a batch of one, `batch` times over; volumes channels last, in which convolutions are quickest."""
    import torch

    whole = values.expand(batch, *values.shape[1:])
    return whole.contiguous(memory_format=torch.channels_last_3d) if whole.ndim == 5 else whole
