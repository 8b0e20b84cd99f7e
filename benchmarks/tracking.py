"""How well lesions are followed: pairs of examinations with known motion and known fates, registered and matched.

    python benchmarks/tracking.py [--quick] [--pairs 60] [--seed 0] [--data DIR]
                                  [--drawn learned|classical] [--wrong] [--json out.json]

Each pair (`training.pairs`) is a chest CT of DIR (`../shared/data`, or NADIR_TEST_DATA) or the thorax phantom, shown
twice: turned, shifted, breathed, on another grid, with other noise; lesions in its lungs stay, grow, shrink, part,
fuse, vanish, appear, crowd and leave the field of view. The images are registered, the earlier lesions brought to the
new image, and matched, as the node does it. Findings are the true masks, so that nothing but the following is judged;
with `--drawn` they are what the node's learned or classical segmenter draws from a point in each lesion, in both
images, and what it does not draw is not followed. Seconds are those of registering, bringing and matching one pair,
not of making it.

Limits and confidences were set on pairs of seeds from 1000 on; the seeds judged here (0 to 59) were not among them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from models.segmenter import LesionSegmenter
from plugins.contract import Mask, Volume
from plugins.nodule_drawing import choose
from store.tracking.brought import LEAST_SD_MM
from store.tracking.link import Link
from store.tracking.registration import register
from training.evaluate.tracking import (
    Claim,
    Tally,
    claims,
    earlier_lesions,
    linked,
    place_errors_mm,
    present_lesions,
    tally,
)
from training.pairs import Ground, PlacedLesion, ScanPair, ground_of, phantom_ground, scan_pair
from training.scans import SCANS, present

QUICK_PAIRS = 4
SAME_DRAWING = 0.5
"""A drawing of which so much was drawn from another point already is that one."""
TARGETS = {
    "matching_f1": (0.97, 1),
    "new_precision": (0.95, 1),
    "identity_switches": (0.01, -1),
    "place_error_median_mm": (3.0, -1),
}
"""What is to be reached, and whether more (1) or less (-1) is better."""


@dataclass
class Judged:
    """What is known of some pairs."""

    pairs: int = 0
    lesions: int = 0
    tally: Tally = field(default_factory=Tally)
    errors_mm: list[float] = field(default_factory=list)
    rigid_errors_mm: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    trust: dict[str, int] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)

    def take(self, pair: ScanPair) -> tuple[Link, ...]:
        """Register, bring, match and judge one pair; return its links."""
        wall, cpu = time.perf_counter(), time.process_time()
        motion = register(pair.new, pair.earlier)
        sd_mm = max(LEAST_SD_MM, motion.quality.residual_mm or 0.0)
        earlier = earlier_lesions(pair, motion, sd_mm)
        links = linked(pair, earlier, present_lesions(pair))
        self.wall_s.append(time.perf_counter() - wall)
        self.cpu_s.append(time.process_time() - cpu)
        self.pairs += 1
        self.lesions += len(pair.before) + len(pair.now)
        self.tally += tally(pair, links)
        self.errors_mm += place_errors_mm(pair, earlier)
        self.rigid_errors_mm += place_errors_mm(pair, earlier_lesions(pair, motion.rigid, sd_mm))
        self.trust[motion.quality.trust] = self.trust.get(motion.quality.trust, 0) + 1
        self.claims += claims(pair, links)
        return links

    def add(self, other: Judged) -> None:
        """Take in what is known of other pairs."""
        self.pairs += other.pairs
        self.lesions += other.lesions
        self.tally += other.tally
        for name in ("errors_mm", "rigid_errors_mm", "wall_s", "cpu_s", "claims"):
            getattr(self, name).extend(getattr(other, name))
        for trust, count in other.trust.items():
            self.trust[trust] = self.trust.get(trust, 0) + count

    def figures(self) -> dict[str, float]:
        """Return the figures by name."""
        sure = [claim.confidence for claim in self.claims]
        return {
            **self.tally.figures(),
            "place_error_median_mm": _quantile(self.errors_mm, 50),
            "place_error_p90_mm": _quantile(self.errors_mm, 90),
            "place_error_rigid_median_mm": _quantile(self.rigid_errors_mm, 50),
            "place_error_rigid_p90_mm": _quantile(self.rigid_errors_mm, 90),
            "mean_confidence": statistics.fmean(sure) if sure else float("nan"),
            "share_right": statistics.fmean(c.right for c in self.claims) if sure else float("nan"),
            "wall_s_median": _quantile(self.wall_s, 50),
            "cpu_s_median": _quantile(self.cpu_s, 50),
        }


def _quantile(values: list[float], percent: float) -> float:
    return float(np.percentile(values, percent)) if values else float("nan")


def grounds(root: Path) -> Iterator[Ground]:
    """Yield the phantom and the chest CTs that a folder of data holds."""
    yield phantom_ground()
    for name in present(root) if root.exists() else ():
        yield ground_of(name, SCANS[name](root / name)[0])


def redrawn(pair: ScanPair, segmenter: LesionSegmenter) -> ScanPair:
    """Return the pair with what a segmenter draws from a point in each lesion, in place of the truth."""
    before, now = _drawn(pair.before, pair.earlier, segmenter), _drawn(pair.now, pair.new, segmenter)
    names = {lesion.name for lesion in (*before, *now)}
    links = frozenset((a, b) for a, b in pair.links if a in names and b in names)
    return replace(pair, before=before, now=now, links=links)


def _drawn(
    lesions: tuple[PlacedLesion, ...], volume: Volume, segmenter: LesionSegmenter
) -> tuple[PlacedLesion, ...]:
    drawn: list[PlacedLesion] = []
    taken = np.zeros(volume.array.shape, dtype=np.bool_)
    for lesion in lesions:
        inside = np.argwhere(lesion.mask.voxels) + lesion.mask.origin
        k, r, c = inside[np.linalg.norm(inside - inside.mean(axis=0), axis=1).argmin()].tolist()
        found = segmenter.segment(volume.array, volume.spacing_mm, (k, r, c))
        if found.any() and (found & taken).sum() < SAME_DRAWING * found.sum():
            drawn.append(replace(lesion, mask=Mask.from_full(found)))
            taken |= found
    return tuple(drawn)


def wrong(pair: ScanPair, links: Sequence[Link]) -> list[str]:
    """Return each link with a finding that is not true, in words: what it says, what is true, and the reason."""
    told = []
    for link in links:
        true = sorted(before for before, now in pair.links if now == link.finding)
        if link.finding is not None and sorted(link.earlier) != true:
            truth = f"in truth {pair.origin(link.finding)} from {', '.join(true) or 'nothing'}"
            what = f"{link.finding} called {link.kind} from {', '.join(link.earlier) or 'nothing'}, {truth}"
            told.append(f"  {pair.name}: {what}; confidence {link.confidence:.2f}: {link.reason}")
    return told


def shown(all_: dict[str, Judged], console: Console) -> None:
    """Print the figures of each ground and of all."""
    table = Table(*("", *all_), title="lesions followed over synthetic pairs")
    figures = {name: judged.figures() for name, judged in all_.items()}
    table.add_row("pairs / lesions", *(f"{j.pairs} / {j.lesions}" for j in all_.values()))
    for key in next(iter(figures.values())):
        table.add_row(key, *(f"{figures[name][key]:.3f}" for name in all_))
    console.print(table)
    total = all_["all"]
    console.print({**asdict(total.tally), "trust": {str(k): v for k, v in total.trust.items()}})
    for key, (target, sign) in TARGETS.items():
        value = figures["all"][key]
        verdict = "met" if sign * value >= sign * target else "MISSED"
        console.print(f"{key} {value:.4f}: target {'>=' if sign > 0 else '<='} {target}, {verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"only {QUICK_PAIRS} pairs, of the phantom")
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first pair")
    home = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("NADIR_TEST_DATA", home)))
    parser.add_argument(
        "--drawn", choices=("learned", "classical"), help="findings as a segmenter of the node draws them"
    )
    parser.add_argument("--wrong", action="store_true", help="print each link that is wrong, with its reason")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    count = QUICK_PAIRS if given.quick else given.pairs
    stage = [phantom_ground()] if given.quick else list(grounds(given.data))
    segmenter = choose(given.drawn, mirrors=1) if given.drawn else None
    every: dict[str, Judged] = {}
    total = Judged()
    for at, ground in enumerate(stage):
        judged = every[ground.name] = Judged()
        for seed in range(given.seed + at, given.seed + count, len(stage)):
            pair = scan_pair(ground, seed)
            followed = pair if segmenter is None else redrawn(pair, segmenter)
            links = judged.take(followed)
            if given.wrong:
                print(*wrong(followed, links), sep="\n", file=sys.stderr)
            print(f"{pair.name}: {judged.wall_s[-1]:.1f} s", file=sys.stderr, flush=True)
        total.add(judged)
    every["all"] = total
    shown(every, Console(width=150))
    if given.json:
        plain: dict[str, Any] = {
            "findings": f"{given.drawn} segmenter" if given.drawn else "true masks",
            "seeds": [given.seed, given.seed + count - 1],
            "figures": {name: judged.figures() for name, judged in every.items()},
            "counts": {name: asdict(judged.tally) for name, judged in every.items()},
            "trust": {name: judged.trust for name, judged in every.items()},
            "targets": {key: target for key, (target, _) in TARGETS.items()},
        }
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(plain, indent=2, allow_nan=True) + "\n")


if __name__ == "__main__":
    main()
