"""What retraining costs the analyses that run beside it: their time with a run under way, over their time without.

    python benchmarks/retrain_load.py STUDY [--data FOLDER] [--rounds 8] [--json out.json]

STUDY is a folder of DICOM; two analyses of it run at a time, as on a node with two workers. Beside every second pair a
training goes on (the small nodule segmenter on the crops of FOLDER), started as the schedule starts a run; it is
stopped for the others, so that both kinds see the same machine. Target: the 95th percentile at most 1.5 times as long.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console

from node.offline import analyse_folder
from node.settings import Settings

EXPERIMENT = Path(__file__).parents[1] / "training" / "experiments" / "nodule_segmenter_small.yaml"
TARGET = 1.5
WORKERS = 2
WARM_SECONDS = 30.0


@contextmanager
def training(data: Path, out: Path) -> Iterator[int]:
    """Give the process group of a training that was started as the schedule starts one."""
    command = [sys.executable, "-P", "-m", "node.scheduled", str(os.getpid()), str(12 << 30)]
    child = subprocess.Popen(
        [*command, "train", str(EXPERIMENT), "--data", str(data), "--out", str(out), "--threads", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        time.sleep(WARM_SECONDS)
        if child.poll() is not None:
            raise SystemExit(f"the training ended with {child.returncode}")
        yield child.pid
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def seconds_of_two(study: Path, folder: Path, settings: Settings) -> list[float]:
    """Return how long each of two analyses took that ran at one time."""

    def one(number: int) -> float:
        began = time.monotonic()
        analyse_folder(study, folder / str(number), settings)
        return time.monotonic() - began

    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(one, range(WORKERS)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path)
    home = Path(__file__).resolve().parents[2] / "shared" / "data"
    data = Path(os.environ.get("NADIR_TEST_DATA", home)) / "lidc_nodules"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    taken: dict[str, list[float]] = {"alone": [], "beside training": []}
    with tempfile.TemporaryDirectory() as text, training(given.data, Path(text) / "run") as group:
        settings = Settings(home=Path(text) / "home", enabled=("contours", "lung_nodule"))
        for number in range(2 * given.rounds):
            kind = list(taken)[number % 2]
            os.killpg(group, signal.SIGCONT if number % 2 else signal.SIGSTOP)
            taken[kind] += seconds_of_two(given.study, Path(text) / "out", settings)
    figures = {
        f"{name}, ratio": float(np.percentile(taken["beside training"], q) / np.percentile(taken["alone"], q))
        for name, q in (("median", 50), ("95th percentile", 95))
    }
    Console().print({**{k: [round(s, 2) for s in v] for k, v in taken.items()}, **figures})
    verdict = "met" if figures["95th percentile, ratio"] <= TARGET else "MISSED"
    Console().print(f"95th percentile {figures['95th percentile, ratio']:.2f}: target <= {TARGET}, {verdict}")
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps({"seconds": taken, **figures, "target": TARGET}, indent=2) + "\n")


if __name__ == "__main__":
    main()
