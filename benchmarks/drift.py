"""How often a week raises an alarm without drift, and how often with it: `python -m benchmarks.drift [--runs 40]`.

Studies are drawn from a made-up hospital: three scanners, three kernels each, lesions that are alike within a patient,
an uncertainty that grows as lesions shrink, histograms of voxels that differ from study to study. Eight weeks are the
reference; of those after it every week is judged, and the drift begins with the first of them.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np

from plugins import codes
from store.facts import EDGES, Observed
from training.drift import Limits, judge

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
HU = codes.HU.value
TISSUES = (
    (0.42, -1000.0, 12.0),
    (0.22, -860.0, 60.0),
    (0.12, -95.0, 25.0),
    (0.2, 45.0, 30.0),
    (0.04, 350.0, 200.0),
)
"""Share, mean and spread of air, lung, fat, soft tissue and bone."""


@dataclass(frozen=True, kw_only=True)
class Hospital:
    """What the studies are drawn from."""

    scanners: tuple[tuple[str, float], ...] = (("A One", 0.5), ("A Two", 0.3), ("B One", 0.2))
    kernels: tuple[tuple[str, float], ...] = (("soft", 0.7), ("lung", 0.25), ("bone", 0.05))
    slices_mm: tuple[tuple[float, float], ...] = ((1.0, 0.5), (1.25, 0.3), (2.0, 0.15), (3.0, 0.05))
    shift_hu: float = 0.0
    volumes: float = 1.0
    entropy: float = 0.0


DRIFTS: dict[str, Callable[[Hospital], Hospital]] = {
    "none": lambda h: h,
    "kernel of a third of the studies": lambda h: replace(
        h, kernels=(("soft", 0.47), ("sharp", 0.33), ("lung", 0.2))
    ),
    "kernel of all studies": lambda h: replace(h, kernels=(("sharp", 1.0),)),
    "new scanner, a fifth of the studies": lambda h: replace(h, scanners=(*h.scanners[:2], ("C New", 0.2))),
    "values + 30 HU": lambda h: replace(h, shift_hu=30.0),
    "values + 10 HU": lambda h: replace(h, shift_hu=10.0),
    "slices 1 -> 3 mm": lambda h: replace(h, slices_mm=((3.0, 0.8), (2.0, 0.2))),
    "volumes + 50 %": lambda h: replace(h, volumes=1.5),
    "volumes x 2": lambda h: replace(h, volumes=2.0),
    "entropy + 0.05": lambda h: replace(h, entropy=0.05),
}


def studies(hospital: Hospital, week: int, count: int, random: np.random.Generator) -> Iterator[Observed]:
    """Yield so many studies of a week."""

    def one_of(choices: tuple[tuple[object, float], ...]) -> object:
        weights = np.array([w for _, w in choices])
        return choices[int(random.choice(len(choices), p=weights / weights.sum()))][0]

    for _ in range(count):
        scanner = str(one_of(hospital.scanners))
        slice_mm = float(str(one_of(hospital.slices_mm)))
        patient = random.normal(0.0, 0.6)
        found = int(random.poisson(2.0))
        volume = np.exp(math.log(400.0) + patient + random.normal(0.0, 0.8, found)) * hospital.volumes
        entropy = np.clip(
            0.5 - 0.04 * np.log(volume) + random.normal(0.0, 0.06, found) + hospital.entropy, 0, 1
        )
        numbers = {"findings": float(found)}
        if found:
            numbers |= {
                "volume": float(np.median(volume)),
                "long_axis": float(np.median(np.cbrt(volume * 6 / math.pi))),
                "entropy": float(np.median(entropy)),
                "disagreement": float(np.median(np.clip(entropy / 3 + random.normal(0, 0.03, found), 0, 1))),
                "confidence": float(np.median(random.beta(5, 2, found))),
            }
        yield Observed(
            at=START + timedelta(weeks=week, days=float(random.uniform(0, 4))),
            categories={
                "manufacturer": scanner.split()[0],
                "manufacturer_model_name": scanner,
                "convolution_kernel": f"{one_of(hospital.kernels)} {scanner[0]}",
                "modality": "CT",
            },
            spacings_mm={"slice_distance": slice_mm, "pixel_spacing": float(random.uniform(0.6, 0.9))},
            histograms={HU: _histogram(hospital.shift_hu, random)},
            numbers=numbers,
        )


def _histogram(shift_hu: float, random: np.random.Generator) -> tuple[float, ...]:
    """Return the shares of the tissues of one patient, whose amounts and means differ from the next one's."""
    edges = np.array([-math.inf, *EDGES[HU], math.inf])
    total = np.zeros(len(edges) - 1)
    for share, mean, spread in TISSUES:
        amount = share * math.exp(random.normal(0.0, 0.2))
        z = (edges - mean - shift_hu - random.normal(0.0, spread / 4)) / spread
        cumulative = np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in z])
        total += amount * np.array([b - a for a, b in pairwise(cumulative)])
    return tuple((total / total.sum()).tolist())


def main() -> None:
    """Print a table: of each drift, in how many weeks of which number of studies an alarm is raised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--weeks", type=int, default=6)
    asked = parser.parse_args()
    limits = Limits()
    print(f"{'drift':38}{'studies a week':>15}{'first week':>12}{'by 4th week':>12}{'weeks':>8}  what")
    for name, drifted in DRIFTS.items():
        for count in (10, 30, 100):
            first, fourth, weeks, total = 0, 0, 0, 0
            what: dict[str, int] = {}
            for run in range(asked.runs):
                random = np.random.default_rng(run)
                usual, later = Hospital(), drifted(Hospital())
                observed = [
                    one
                    for week in range(limits.reference_weeks + asked.weeks)
                    for one in studies(usual if week < limits.reference_weeks else later, week, count, random)
                ]
                judged = [week for week in judge(observed, limits) if not week.is_reference]
                first += bool(judged[0].alarms)
                fourth += any(week.alarms for week in judged[:4])
                weeks += sum(bool(week.alarms) for week in judged if week.shifts)
                total += sum(bool(week.shifts) for week in judged)
                for week in judged:
                    for alarm in week.alarms:
                        what[alarm.what] = what.get(alarm.what, 0) + 1
            often = ", ".join(f"{k} {v}" for k, v in sorted(what.items(), key=lambda kv: -kv[1])[:3])
            print(
                f"{name:38}{count:>15}{first / asked.runs:>12.0%}{fourth / asked.runs:>12.0%}"
                f"{weeks / max(1, total):>8.1%}  {often}",
                flush=True,
            )


if __name__ == "__main__":
    main()
