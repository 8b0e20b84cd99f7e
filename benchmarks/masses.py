"""How well masses of some centimetres are found and drawn: made ones set into real chest CTs, and the CTs as they are.

    python benchmarks/masses.py [SCAN_FOLDER ...] [--seed 8] [--each 1] [--at-point]

Into each CT (DICOM folders; by default three of `../shared/data`, or NADIR_TEST_DATA), its pixels averaged two by two,
one mass is set at a time: a turned ellipsoid of 30 to 45, 45 to 70 or 70 to 100 mm with lobules of smooth noise, of 15
to 60 HU, three of ten with a less dense middle. The seed draws its place: deep in a lung, or cut by the pleura at the
ribs, at the mediastinum or on the diaphragm; away from lesions that are known (regions beside the images, or what
`training.scans` knows) and from what is found in the untouched scan. What of it lies in the closed lungs of the
untouched scan is the truth: nothing that grows into wall or mediastinum is judged.

Masses are searched and drawn as the node does it, without the networks. Told are how many are found (half of the
smaller of truth and drawing is shared), mean Dice and error of the long axis of those, masses that touch no truth and
whose middle is over 5 mm from what is known (also in the scans as they are), and CPU seconds of search or drawing.

With `--at-point` nothing is searched: each mass is drawn from one point in it by the networks (`nodule_segmenter`), and
every drawing counts, whatever it shares with the truth; so are the tumours that somebody drew in the scans.

The masses are formulas and the scans few: all of them, with masses made like this, were seen while the limits of
`plugins.mass_search` were set, so this tells what the search does on what it was made for, not on other patients.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import highdicom
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from models.nodule_segmenter import NAME, LearnedNoduleSegmenter
from models.shipped import open_shipped
from plugins.contract import Mask, Volume
from plugins.errors import Refused
from plugins.lungs import Lungs, block_means, lungs
from plugins.mass_search import Mass, masses
from plugins.measure.axes import measure_axes
from plugins.nodule_redrawing import shared
from store.dicom.series import read_study
from training.evaluate.crops import inner_point
from training.evaluate.metrics import dice
from training.scans import SCANS, Floats, Known, Scan, Spacing

Wanted = tuple[str, float]
PLACES = ("free", "pleural", "mediastinal", "diaphragm")
SIZES_MM = ((30.0, 45.0), (45.0, 70.0), (70.0, 100.0))
VOLUMES_ML = ((0.0, 20.0), (20.0, 50.0), (50.0, 150.0), (150.0, np.inf))
APART_MM, KNOWN_MM, LARGEST_MM, TRIES = 10.0, 5.0, 150.0, 3000


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """A CT into which masses are set, with its left lung and what is found in it as it is."""

    scan: Scan
    volume: Volume
    left: NDArray[np.bool_]
    found: tuple[Mass, ...]

    def is_false(self, mass: Mass) -> bool:
        """Return whether what is found is none of the lesions that are known."""
        mask = mass.drawing.mask
        middle = np.argwhere(mask.voxels).mean(axis=0) + mask.origin
        return self.scan.away_mm(middle) > KNOWN_MM


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one mass, of so many ml in the lungs."""

    place: str
    ml: float
    dice: float | None
    long_axis_error_mm: float | None
    false: int
    cpu_s: float


def stage_of(folder: Path) -> Stage:
    """Return the first CT of a folder. Refuses `no-ct`, `not-supine`, and what reading and `lungs` refuse."""
    if folder.name in SCANS:
        full, known = SCANS[folder.name](folder)
    else:
        study = read_study([path for path in folder.rglob("*") if path.is_file()]).study
        if not study.by_role("ct"):
            raise Refused("no-ct", f"there is no CT in {folder}")
        full = study.by_role("ct")[0]
        drawn = [d.mask for d in study.drawn if d.series_instance_uid == full.series_instance_uid]
        balls = (known_of(mask, full.spacing_mm) for mask in drawn if mask.count)
        known = tuple(ball for ball in balls if 2 * ball.radius_mm <= LARGEST_MM)  # longer: organs
    volume = halved(full)
    if np.diag(volume.geometry.affine[:3, :3][::-1] / volume.spacing_mm).min() < 0.9:
        raise Refused("not-supine", f"{folder} is not axial, from the feet up, of a patient on the back")
    centres = [(k, r / 2, c / 2) for k, r, c in (one.centre for one in known)]
    known = tuple(replace(one, centre=at) for one, at in zip(known, centres, strict=True))
    held, found, _ = searched(volume)
    left, right, steps = held.left.full(), held.right.full(), volume.spacing_mm
    scan = Scan(name=folder.name, hu=volume.array, inside=left | right, spacing_mm=steps, known=known)
    return Stage(scan=scan, volume=volume, left=left, found=found)


def searched(volume: Volume) -> tuple[Lungs, tuple[Mass, ...], float]:
    """Return the lungs of a CT, the masses in it, and the CPU seconds that the masses took."""
    held = lungs(volume)
    begun = time.process_time()
    return held, masses(volume, held), time.process_time() - begun


def known_of(mask: Mask, spacing_mm: Spacing) -> Known:
    """Return a region as a ball that holds its longest side."""
    size = np.asarray(mask.voxels.shape)
    k, r, c = (np.asarray(mask.origin) + (size - 1) / 2).tolist()
    return Known(centre=(k, r, c), radius_mm=float((size * np.asarray(spacing_mm)).max()) / 2)


def halved(volume: Volume) -> Volume:
    """Return a CT with the mean of two by two pixels in each."""
    array, affine = block_means(volume.array, (1, 2, 2)), np.array(volume.geometry.affine)
    affine[:3, 3] += (affine[:3, 1] + affine[:3, 2]) / 2
    affine[:3, 1:3] *= 2
    geometry = highdicom.VolumeGeometry(affine=affine, spatial_shape=array.shape, coordinate_system="PATIENT")
    return replace(volume, array=array, geometry=geometry)


def places(stage: Stage, wanted: Sequence[Wanted], rng: Generator) -> Iterator[tuple[Wanted, Floats]]:
    """Yield each mass that is wanted, kind of place and diameter (mm), with a voxel for its middle if there is one."""
    scan, steps = stage.scan, np.asarray(stage.scan.spacing_mm)
    depth, nearest = ndimage.distance_transform_edt(scan.inside, sampling=steps, return_indices=True)
    heights = np.flatnonzero(scan.inside.any(axis=(1, 2)))
    seen = [known_of(mass.drawing.mask, scan.spacing_mm) for mass in stage.found]
    avoided = replace(scan, known=(*scan.known, *seen))
    for place, diameter_mm in wanted:
        radius, deepest = diameter_mm / 2, depth.max()
        low, high = min(0.15 * radius, 0.8 * deepest), min(0.75 * radius, 0.9 * deepest)
        if place == "free":
            low, high = 0.95 * min(radius, 0.9 * deepest), np.inf
        fit = np.argwhere((depth >= low) & (depth <= high))
        for point in fit[rng.integers(0, len(fit), TRIES)]:
            away = (nearest[(slice(None), *point)] - point) * steps
            up, _, to_left = away / float(np.linalg.norm(away))
            is_low = (point[0] - heights[0]) / (heights[-1] - heights[0]) <= 0.6
            is_medial = (-to_left if stage.left[tuple(point)] else to_left) > 0.3
            at_side = ("mediastinal" if is_medial else "pleural") if abs(up) <= 0.5 else ""
            fits = place in ("free", at_side, "diaphragm" if up <= -0.6 and is_low else "")
            if fits and avoided.away_mm(tuple(point)) >= radius + APART_MM:
                yield (place, diameter_mm), point.astype(np.float64)
                break


def with_mass(stage: Stage, at: Floats, diameter_mm: float, rng: Generator) -> tuple[Volume, Mask]:
    """Return the CT with a mass about a voxel, and the part of the mass that lies in the lungs."""
    scan, steps, radius = stage.scan, stage.scan.spacing_mm, diameter_mm / 2
    reach = [int(np.ceil(1.5 * radius / s)) + 2 for s in steps]
    spans = zip(at.astype(int), reach, scan.hu.shape, strict=True)
    box = tuple(slice(max(0, c - h), min(n, c + h + 1)) for c, h, n in spans)
    lines = [(np.arange(b.start, b.stop) - c) * s for b, c, s in zip(box, at, steps, strict=True)]
    at_mm = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1)
    shape = at_mm.shape[:3]
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    axes_mm = np.array([1.0, rng.uniform(0.7, 1), rng.uniform(0.6, 0.95)]) * radius
    out = np.linalg.norm((at_mm @ turn) / axes_mm, axis=-1)
    lobules = smooth_noise(shape, steps, max(8.0, 0.6 * radius), rng) * rng.uniform(0.05, 0.16)
    beyond_mm = (out + lobules + 0.03 * smooth_noise(shape, steps, 6.0, rng) - 1) * axes_mm.mean()
    tissue = rng.uniform(15, 60) + 8 * smooth_noise(shape, steps, 5.0, rng)
    if rng.random() < 0.3:
        tissue -= 25 * np.clip(4 * (0.5 - out), 0, 1)
    tissue += rng.standard_normal(shape) * rng.uniform(5, 20)
    share = np.clip(0.5 - beyond_mm / (1.2 * max(1.0, steps[1])), 0, 1)
    inside, hu = scan.inside[box], scan.hu.copy()
    share *= ndimage.distance_transform_edt(~inside, sampling=steps) <= 4.0
    hu[box] = np.maximum(hu[box], hu[box] + share * (tissue - hu[box]))
    truth = np.zeros(hu.shape, dtype=np.bool_)
    truth[box] = (beyond_mm < 0) & inside
    return replace(stage.volume, array=hu), Mask.from_full(truth)


def smooth_noise(shape: Sequence[int], steps: Spacing, grain_mm: float, rng: Generator) -> Floats:
    """Return noise of about unit deviation whose grain has that size."""
    lines = [np.arange(n) * s / grain_mm + 1 for n, s in zip(shape, steps, strict=True)]
    knots = rng.standard_normal([max(4, int(np.ceil(line[-1])) + 3) for line in lines])
    out: Floats = ndimage.map_coordinates(knots, np.meshgrid(*lines, indexing="ij"), order=3, mode="nearest")
    return out


def judged(stage: Stage, place: str, volume: Volume, truth: Mask) -> Outcome:
    """Search a CT with a mass and return what became of it."""
    _, found, cpu_s = searched(volume)
    hits = [(shared(m.drawing.mask, truth), m.drawing.mask) for m in found]
    dices = [(2 * n / (m.count + truth.count), m) for n, m in hits if 2 * n >= min(m.count, truth.count) > 0]
    dice, mask = max(dices, key=lambda pair: pair[0], default=(None, None))
    true_mm = measure_axes(truth, volume).long_axis_mm
    error = None if mask is None else measure_axes(mask, volume).long_axis_mm - true_mm
    false = sum(not n and stage.is_false(m) for (n, _), m in zip(hits, found, strict=True))
    ml = truth.count * volume.voxel_volume_mm3 / 1000
    return Outcome(place=place, ml=ml, dice=dice, long_axis_error_mm=error, false=false, cpu_s=cpu_s)


def drawn_from_a_point(segmenter: LearnedNoduleSegmenter, place: str, volume: Volume, truth: Mask) -> Outcome:
    """Return what becomes of a mass when somebody points into it."""
    full, steps, begun = truth.full(), volume.spacing_mm, time.process_time()
    found = segmenter.segment(volume.array.astype(np.float32), steps, inner_point(full, steps))
    cpu_s, mask = time.process_time() - begun, Mask.from_full(found)
    long_mm, true_mm = (measure_axes(one, volume).long_axis_mm if one.count else 0.0 for one in (mask, truth))
    return Outcome(
        place=place,
        ml=truth.count * volume.voxel_volume_mm3 / 1000,
        dice=dice(found, full),
        long_axis_error_mm=long_mm - true_mm,
        false=0,
        cpu_s=cpu_s,
    )


def tumours(folder: Path) -> Iterator[tuple[str, Volume, Mask]]:
    """Yield what somebody drew as a tumour in the first CT of a folder."""
    study = read_study([path for path in folder.rglob("*") if path.is_file()]).study
    volume = study.by_role("ct")[0]
    for drawn in study.drawn:
        if drawn.series_instance_uid == volume.series_instance_uid and drawn.label.startswith("Tumor"):
            yield drawn.label, volume, drawn.mask


def shown(stages: Sequence[Stage], all_: Sequence[Outcome], console: Console) -> None:
    """Print the figures by place, by volume, of all, and of the scans as they are."""
    heads = ("", "found", "false / scan", "CPU s", "Dice", "worst", "long axis off, mm", "p90", "bias")
    table = Table(*heads, title="masses set into chest CTs")
    groups = {place: [one for one in all_ if one.place == place] for place in PLACES}
    for low, high in VOLUMES_ML:
        groups[f"{low:g} to {high:g} ml"] = [one for one in all_ if low <= one.ml < high]
    for name, some in {**groups, "all": all_}.items():
        dices = [one.dice for one in some if one.dice is not None]
        errors = [one.long_axis_error_mm for one in some if one.long_axis_error_mm is not None]
        cells = [f"{len(dices)} of {len(some)}"]
        if some:
            cells += [f"{np.mean([o.false for o in some]):.2f}", f"{np.median([o.cpu_s for o in some]):.2f}"]
        if dices:
            mm = np.percentile(np.abs(errors), (50, 90))
            cells += [f"{np.mean(dices):.3f}", f"{min(dices):.2f}"]
            cells += [*(f"{x:.1f}" for x in mm), f"{np.mean(errors):+.1f}"]
        table.add_row(name, *cells)
    console.print(table)
    for stage in stages:
        count, false = len(stage.found), sum(stage.is_false(mass) for mass in stage.found)
        words = f"{len(stage.scan.known)} known, {count} found, {false} of them false"
        console.print(f"{stage.scan.name} as it is: {words}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    data = Path(os.environ.get("NADIR_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    names = ("ct_4dlung", "ct_r01_001", "lung_dx_a0001")
    parser.add_argument("folders", nargs="*", type=Path, default=[data / name for name in names])
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--each", type=int, default=1, help="masses of each size at each place in each scan")
    parser.add_argument("--at-point", action="store_true", help="draw from one point, by networks")
    given = parser.parse_args()
    segmenter = LearnedNoduleSegmenter(model=open_shipped(NAME)) if given.at_point else None
    stages, all_ = list[Stage](), list[Outcome]()
    for folder in given.folders:
        try:
            stage = stage_of(folder)
        except Refused as refused:
            parser.error(f"{folder}: {refused.sentence}")
        stages.append(stage)
        rng = np.random.default_rng([given.seed, zlib.crc32(stage.scan.name.encode())])
        wanted = [(p, rng.uniform(*size)) for p in PLACES for size in SIZES_MM for _ in range(given.each)]
        for (place, diameter), at in places(stage, wanted, rng):
            volume, truth = with_mass(stage, at, diameter, rng)
            if segmenter is None:
                all_.append(judged(stage, place, volume, truth))
            elif truth.count:
                all_.append(drawn_from_a_point(segmenter, place, volume, truth))
            print(f"{folder.name}, {diameter:.0f} mm: {all_[-1]}", file=sys.stderr, flush=True)
        for label, volume, truth in tumours(folder) if segmenter is not None else ():
            print(f"{folder.name}, {label}: {drawn_from_a_point(segmenter, label, volume, truth)}")
    shown(stages, all_, Console(width=150))


if __name__ == "__main__":
    main()
