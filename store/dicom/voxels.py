"""The slices of a series to one array of real-world values, on all cores: reading and decoding need no interpreter."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from plugins.contract import Array, BoolArray
from store.dicom.decode import NATIVE, Stored, open_cells, settle
from store.dicom.slices import Slice, padding_range

AIR_HU = -1024.0
EXACT = 1 << 24
"""Whole numbers up to this are exact in float32."""
MOST_NEIGHBOURS = 8
Task = TypeVar("Task")


@dataclass(frozen=True, kw_only=True, eq=False)
class Voxels:
    """The values of a series."""

    array: Array
    """`(K, R, C)`."""
    lowest: float
    """The lowest value."""
    highest: float
    """The highest value."""
    padded: int
    """How many voxels were padding: air in Hounsfield units now, else the lowest value of the others."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Written:
    """One slice that is in the array."""

    k: int
    lowest: float
    highest: float
    padded: int = 0
    padding: BoolArray | None = None


def read_voxels(slices: Sequence[Slice], factors: Sequence[float], role: str) -> Voxels:
    """Return stored value x RescaleSlope x factor + RescaleIntercept x factor for every voxel of slices in order.

    Rounded once, from float64. Refuses what `open_cells` and its frames refuse, for the first slice that is so.
    """
    plane = slices[0].plane
    array = np.empty((len(slices), plane.rows, plane.columns), dtype=np.float32)
    places: dict[int, list[int]] = {}
    for k, part in enumerate(slices):
        places.setdefault(id(part.file), []).append(k)
    written: list[_Written] = []

    def write(k: int, frame: Callable[[int], Stored]) -> None:
        written.append(_write(array[k], k, slices[k], frame(slices[k].plane.frame), factors[k], role))

    def write_files(ks: Sequence[int]) -> None:
        for k in ks:
            write(k, open_cells(slices[k].file, slices[k].layout))

    alone = [ks[0] for ks in places.values() if len(ks) == 1]
    together = _neighbours(slices[0].file.transfer_syntax, len(alone))
    on_all_cores(write_files, [alone[i : i + together] for i in range(0, len(alone), together)])
    for ks in places.values():
        if len(ks) > 1:
            frame = open_cells(slices[ks[0]].file, slices[ks[0]].layout)
            on_all_cores(partial(write, frame=frame), ks)
    return _settled(array, written)


def _neighbours(transfer_syntax: str, count: int) -> int:
    """Return how many slices in a row one thread writes.

    Two threads that first touch one huge page of the array both clear it. What takes long to decode is dealt singly.
    """
    return max(1, min(MOST_NEIGHBOURS, count // (4 * cores()))) if transfer_syntax in NATIVE else 1


def on_all_cores(work: Callable[[Task], None], tasks: Iterable[Task]) -> None:
    """Do all tasks, in threads; raise the error of the first task that has one, after which no further one begins."""
    todo = enumerate(listed := list(tasks))
    errors: dict[int, BaseException] = {}

    def some() -> None:
        for number, task in todo:
            try:
                work(task)
            except BaseException as error:  # raised again below, when it is known which task was the first
                errors[number] = error
            if errors:
                return

    workers = min(cores(), len(listed))
    if workers > 1:
        with ThreadPoolExecutor(workers) as pool:
            for _ in range(workers):
                pool.submit(some)
    else:
        some()
    if errors:
        raise errors[min(errors)]


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _write(out: Array, k: int, part: Slice, cells: Stored, factor: float, role: str) -> _Written:
    """Put one slice into its place in the array."""
    slope = (1.0 if part.slope is None else part.slope) * factor
    offset = (part.intercept or 0.0) * factor
    stored = settle(cells, part.layout)
    low, high = int(stored.min()), int(stored.max())
    hit = _padding(part, cells, stored, low, high)
    padded = 0 if hit is None else int(np.count_nonzero(hit))
    _scale(stored, slope, offset, low, high, out)
    if hit is not None and padded:
        if role == "ct":
            np.copyto(out, AIR_HU, where=hit)
        kept = None if role == "ct" else hit
        return _Written(k=k, lowest=float(out.min()), highest=float(out.max()), padded=padded, padding=kept)
    first, last = float(np.float32(low * slope + offset)), float(np.float32(high * slope + offset))
    return _Written(k=k, lowest=min(first, last), highest=max(first, last))


def _padding(part: Slice, cells: Stored, stored: Stored, low: int, high: int) -> BoolArray | None:
    """Return where padding is, None when nowhere; what the stored bits cannot hold is looked for in the whole cells."""
    layout = part.layout
    limits = padding_range(part.file.header, layout.signed, layout.bits_allocated)
    if limits is None:
        return None
    hit = _between(stored, limits) if limits[0] <= high and limits[1] >= low else None
    if layout.lowest <= limits[0] and limits[1] <= layout.highest:
        return hit
    beyond = _between(settle(cells, layout.cells), limits)
    return beyond if hit is None else hit | beyond


def _between(values: Stored, limits: tuple[int, int]) -> BoolArray:
    return (values >= limits[0]) & (values <= limits[1])


def _scale(stored: Stored, slope: float, offset: float, low: int, high: int, out: Array) -> None:
    """Write stored x slope + offset, as float64 would give it; without float64 where whole numbers stay exact.

    `stored`, all between `low` and `high`, is not the same afterwards where it has room for the values itself.
    """
    whole = slope.is_integer() and offset.is_integer()
    if whole and max(abs(low), abs(high)) * abs(slope) + abs(offset) <= EXACT:
        room = np.iinfo(stored.dtype)
        if slope == 1 and low + offset >= room.min and high + offset <= room.max and stored.flags.writeable:
            stored += np.int64(offset).astype(stored.dtype)
            out[...] = stored
            return
        out[...] = stored
        if slope != 1:
            out *= np.float32(slope)
        out += np.float32(offset)
    else:
        values = stored * slope
        values += offset
        out[...] = values


def _settled(array: Array, written: Sequence[_Written]) -> Voxels:
    """Return the array with what is padding in what is no CT in HU set to the lowest value of all slices."""
    lowest, highest = min(one.lowest for one in written), max(one.highest for one in written)
    padding = [(one.k, one.padding) for one in written if one.padding is not None]
    if padding:
        for k, hit in padding:
            array[k][hit] = np.inf
        finite = np.isfinite(array)
        value = float(array[finite].min()) if finite.any() else 0.0
        for k, hit in padding:
            array[k][hit] = value
        lowest, highest = float(array.min()), float(array.max())
    return Voxels(array=array, lowest=lowest, highest=highest, padded=sum(one.padded for one in written))
