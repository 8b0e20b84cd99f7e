"""How fast the steps behind the door are, each beside a peer that does the same.

    python benchmarks/pipeline.py [--quick] [--runs 5] [--only read,seg] [--json out.json]

The runs of the two sides alternate, first one first and then the other; told are medians of wall and CPU time (of this
process and its children), the spread of the wall time, and the ratios of the medians and of the fastest runs: on a
machine that others use too, the latter tell what the code takes. The target is held against the medians. Every side
does its work as the node does it (`read_study`, `encode_seg`, ...) or as the peer's users do. What each side includes
is in its name.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Sides = Mapping[str, Callable[[], object]]


@dataclass
class Step:
    """One comparison: the first side is ours, the second the peer that the target names, others are beside."""

    name: str
    target: str
    sides: Sides
    ratio: Callable[[float, float], float]
    is_met: Callable[[float], bool]
    sizes: Callable[[], dict[str, int]] = dict
    note: str = ""
    before: Callable[[], None] = lambda: None
    """What is done before each side's run, and is not counted."""
    taken: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def run(self, runs: int) -> None:
        """Run all sides alternately; the order turns round each time. One run before does not count."""
        for side in self.sides.values():
            self.before()
            side()
        names = list(self.sides)
        for number in range(runs):
            for name in names if number % 2 == 0 else names[::-1]:
                self.before()
                self.taken.setdefault(name, []).append(_timed(self.sides[name]))

    def report(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        sides = {
            name: {
                "wall_s": round(statistics.median(wall for wall, _ in taken), 4),
                "cpu_s": round(statistics.median(cpu for _, cpu in taken), 4),
                "fastest_s": round(min(wall for wall, _ in taken), 4),
                "slowest_s": round(max(wall for wall, _ in taken), 4),
            }
            for name, taken in self.taken.items()
        }
        ours, peer = (sides[name] for name in list(self.sides)[:2])
        ratio = self.ratio(ours["wall_s"], peer["wall_s"])
        return {
            "step": self.name,
            "target": self.target,
            "ratio": round(ratio, 2),
            "ratio_cpu": round(self.ratio(ours["cpu_s"], peer["cpu_s"]), 2),
            "ratio_fastest": round(self.ratio(ours["fastest_s"], peer["fastest_s"]), 2),
            "met": self.is_met(ratio),
            "sides": sides,
            "bytes": self.sizes(),
            "note": self.note,
        }


def times_faster(ours: float, peer: float) -> float:
    """Return how many times as fast as the peer we are."""
    return peer / ours


def share_of(ours: float, peer: float) -> float:
    """Return our time as a share of the peer's."""
    return ours / peer


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    cpu, wall = _cpu(), time.perf_counter()
    result = work()
    taken = time.perf_counter() - wall, _cpu() - cpu
    del result
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer slices, findings and runs; no judgement")
    parser.add_argument("--runs", type=int, help="counted runs of each side (5; 2 when quick)")
    parser.add_argument(
        "--only", default="", help="read, codecs, seg, sr, components, sql; divided by commas"
    )
    parser.add_argument("--folder", type=Path, help="where files are written; /dev/shm where there is one")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    runs = arguments.runs or (2 if arguments.quick else 5)
    memory = Path("/dev/shm")
    folder = arguments.folder or (memory if memory.is_dir() else None)
    wanted = [name for name in arguments.only.split(",") if name]
    reports = []
    with tempfile.TemporaryDirectory(prefix="nadir-bench-", dir=folder) as scratch:
        for step in _steps(Path(scratch), arguments.quick, wanted):
            step.run(runs)
            reports.append(step.report())
    report = {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "runs": runs,
        "quick": arguments.quick,
        "files_in": str(folder or tempfile.gettempdir()),
        "steps": reports,
    }
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    _show(report)


def _steps(scratch: Path, quick: bool, wanted: Sequence[str]) -> Iterator[Step]:
    from pipeline_steps import STEPS, Bench

    bench = Bench(scratch, quick=quick)
    for name, steps in STEPS.items():
        if not wanted or name in wanted:
            yield from steps(bench)


def _show(report: dict[str, Any]) -> None:
    console = Console()
    head = f"medians of {report['runs']} runs, {report['cores']} cores, load {report['load']}"
    table = Table("step and sides", "wall s", "spread", "cpu s", "MB", title=head)
    for step in report["steps"]:
        met = "too small to judge" if report["quick"] else "met" if step["met"] else "NOT met"
        beside = f"cpu {step['ratio_cpu']:.2f}, fastest {step['ratio_fastest']:.2f}"
        verdict = f"{step['ratio']:.2f} ({beside}); target {step['target']}: {met}"
        table.add_section()
        table.add_row(f"[bold]{step['step']}[/bold]\n{verdict}")
        for name, side in step["sides"].items():
            spread = f"{side['fastest_s']:.3f} .. {side['slowest_s']:.3f}"
            octets = step["bytes"].get(name)
            size = "" if octets is None else f"{octets / 1e6:.2f}"
            table.add_row(f"  {name}", f"{side['wall_s']:.3f}", spread, f"{side['cpu_s']:.3f}", size)
        if step["note"]:
            table.add_row(f"  [dim]{step['note']}[/dim]")
    console.print(table)


if __name__ == "__main__":
    main()
