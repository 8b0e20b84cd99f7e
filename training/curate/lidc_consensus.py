"""Which outlines of several readers are one nodule, and what they agree on, by the rules of pylidc 0.2.3.

Sources: `Scan.cluster_annotations` and `utils.consensus` of pylidc (MIT licence).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from plugins.contract import BoolArray
from training.curate.lidc_masks import Box, Outline, common_box, mask_of

READERS = 4
NARROWER = 0.9
NARROWEST = 0.1
LEVEL = 0.5
KINDS = ("internal_structure", "calcification")
"""Ratings that are kinds, not grades: the most frequent counts, of equally frequent ones the lowest number."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Consensus:
    """What several readers agree on."""

    box: Box
    """Where the masks lie in the series, (k, r, c)."""
    mask: BoolArray
    """Voxels that at least half of the outlines hold, `(K, R, C)`."""
    masks: tuple[BoolArray, ...]
    """The voxels of each outline, same shape."""


def clusters(outlines: Sequence[Outline], thickness_mm: float) -> tuple[tuple[Outline, ...], ...]:
    """Return the outlines of one series by nodule, the lowest slices first.

    Two outlines are of one nodule when some of their points lie no further apart than a tolerance, or a chain of others
    joins them. As in pylidc distances are in voxel indices (slices count as pixels do) and the tolerance is the number
    of mm of the slice thickness; it is narrowed by a tenth until no nodule has more than four outlines or it is below
    0.1. So a nodule may keep more than four.
    """
    if not outlines:
        return ()
    tolerance = thickness_mm
    distances = _distances(outlines, tolerance)
    names = _joined(distances, tolerance)
    while np.bincount(names).max() > READERS and tolerance * NARROWER >= NARROWEST:
        tolerance *= NARROWER
        names = _joined(distances, tolerance)
    found = [
        tuple(one for one, name in zip(outlines, names, strict=True) if name == n)
        for n in range(max(names) + 1)
    ]
    return tuple(sorted(found, key=lambda group: float(np.mean([o.points[:, 0].mean() for o in group]))))


def _distances(outlines: Sequence[Outline], reach: float) -> NDArray[np.float64]:
    """Return the smallest distance of points of each two outlines, in voxels; infinite beyond `reach`."""
    from scipy.spatial import cKDTree

    trees = [cKDTree(outline.points) for outline in outlines]
    found = np.full((len(trees), len(trees)), np.inf)
    np.fill_diagonal(found, 0.0)
    for i, tree in enumerate(trees):
        for j in range(i):
            gap = np.maximum(np.maximum(tree.mins - trees[j].maxes, trees[j].mins - tree.maxes), 0)
            if np.linalg.norm(gap) <= reach:
                found[i, j] = found[j, i] = trees[j].query(tree.data)[0].min()
    return found


def _joined(distances: NDArray[np.float64], tolerance: float) -> NDArray[np.int32]:
    from scipy.sparse.csgraph import connected_components

    _, names = connected_components(distances <= tolerance, directed=False)
    return np.asarray(names, dtype=np.int32)


def consensus(outlines: Sequence[Outline]) -> Consensus:
    """Return the voxels that at least half of the outlines hold: 1 of 1 or 2, 2 of 3 or 4."""
    box = common_box(outlines)
    masks = tuple(mask_of(outline, box) for outline in outlines)
    return Consensus(box=box, mask=np.mean(masks, axis=0) >= LEVEL, masks=masks)


def mean_ratings(outlines: Sequence[Outline]) -> dict[str, float]:
    """Return each rating's mean over the readers who gave it; of `KINDS` the most frequent one."""
    given: dict[str, list[int]] = {}
    for outline in outlines:
        ratings = outline.annotation.ratings
        for name, rating in asdict(ratings).items() if ratings else ():
            if rating is not None:
                given.setdefault(name, []).append(rating)
    return {
        name: float(most_frequent(ratings) if name in KINDS else np.mean(ratings))
        for name, ratings in given.items()
    }


def most_frequent(ratings: Sequence[int]) -> int:
    """Return the number that occurs most often, of equally frequent ones the lowest."""
    counted = Counter(ratings)
    return min(counted, key=lambda rating: (-counted[rating], rating))


def malignancy_class(mean: float) -> str:
    """Return `benign` for a mean rating below 3, `malignant` above, `undetermined` for 3: opinions, not pathology."""
    if mean == 3:
        return "undetermined"
    return "benign" if mean < 3 else "malignant"


__all__ = ["Consensus", "clusters", "consensus", "malignancy_class", "mean_ratings"]
