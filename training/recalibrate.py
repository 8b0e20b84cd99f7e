"""What a challenger doubts, learned anew: from new cases, each answered by the network that has not learned from it.

Weights that learned on are sharper or softer than the champion's, so that his temperature and the quantiles of his
intervals need not fit them. With too few new cases to learn that from they stay, and the card says so.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Any

from models.calibration import FEWEST_CASES
from models.doubt import Doubt, Sizes
from models.shipped import Model
from training.challenger import FIT
from training.evaluate.data import Data
from training.evaluate.runs import open_run
from training.frozen import LEARN, Frozen

MOST_CASES = 300
"""New cases that are asked at most, drawn when there are more: each takes about a second."""


def recalibrated(
    champion: Model, frozen: Frozen, seed: int, tell: Callable[[str], None] = lambda _: None
) -> Mapping[str, Any] | None:
    """Return the part `doubt` of a nodule segmenter's card; None when new cases are too few to learn it from.

    None also for a champion whose card has no such part.

    Needed are 30 cases, of two folds at least, that networks of the run have not seen, and finite quantiles for
    everybody: so many that one more would not be outside of all of them. `tell` is told each case.
    """
    if "doubt" not in champion.card:
        return None
    from training.nodule_doubt import card_part, held_out

    names = sorted(case.case_id for case in frozen.new if case.fold in champion.folds)
    names = sorted(random.Random(seed).sample(names, min(MOST_CASES, len(names))))
    if len(names) < FEWEST_CASES:
        return None
    subject = open_run(frozen.folder / FIT).on(frozen.learn)
    data = Data(manifest=frozen.learn, root=frozen.folder / LEARN)
    card = champion.card
    held = []
    for one in held_out(
        subject, data, levels=card["levels"], mirrors=int(card["mirrors"]), passes=0, only=frozenset(names)
    ):
        tell(one.case_id)
        held.append(one)
    if len({one.answered.fold for one in held}) < 2:
        return None
    for sizes in (_sizes(champion), Sizes(volume_edges_mm3=(), long_axis_edges_mm=())):
        part = card_part(held, sizes)
        if all(_is_finite(Doubt.of_card(said)) for said in (part["all"], *part["folds"])):
            return part
    return None


def _sizes(champion: Model) -> Sizes:
    """Return the groups of size that the champion's intervals have."""
    doubt = Doubt.of_card(champion.card["doubt"]["all"])
    return Sizes(
        volume_edges_mm3=doubt.volume_mm3.edges,
        long_axis_edges_mm=doubt.long_axis_mm.edges,
        alpha=doubt.volume_mm3.alpha,
    )


def _is_finite(doubt: Doubt) -> bool:
    return all(math.isfinite(q) for q in (*doubt.volume_mm3.quantiles, *doubt.long_axis_mm.quantiles))


__all__ = ["recalibrated"]
