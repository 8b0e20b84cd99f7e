"""How fast the nodule segmenter is by each runtime, and what speed costs: ratios against torch in fp32, in one run.

`python benchmarks/inference.py MODEL --data FOLDER` (a model, a shipped model's name, or a run of `nadir train`):
runtimes take turns patch by patch, so that what else the machine does strikes all alike; time is that of the processor
when one thread is used, else that of the clock. `--small RUN` sets a smaller network beside it, `--scan FOLDER` times
`nadir analyse` on a whole chest CT (DICOM) with detector and segmenter, processes and start included. On a GPU:
the share of the bf16 peak and of the copy bandwidth that were measured just before.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.export import Learned
from models.runtime import present, runner
from models.uncertainty import PASSES, dropout_passes
from training.evaluate.data import Data, open_data
from training.evaluate.families import open_subject
from training.evaluate.runs import learned_of
from training.evaluate.subject import Subject
from training.quantise import held_out, judged, ranged, sizes

Array = NDArray[np.float32]
BATCHES = (1, 8)
PLAIN = "torch-fp32"


def taken_ms(
    runs: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Return the median time of each function, ms; they take turns."""
    for run in runs.values():
        run()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            begun = clock()
            run()
            taken[name].append(clock() - begun)
    return {name: float(np.median(times)) * 1e3 for name, times in taken.items()}


def speed(learned: Learned, cache: Path, threads: int, rounds: int) -> dict[str, Any]:
    """Return ms for one patch and how many times faster than torch in fp32, by kind and by batch."""
    clock = time.process_time if threads == 1 else time.perf_counter
    opened = {kind: runner(kind, learned, cache, threads) for kind in present(learned)}
    found = {}
    for batch in BATCHES:
        shown = np.random.default_rng(0).uniform(-1, 1, (batch, *learned.patch)).astype(np.float32)
        runs = {kind: lambda run=run, shown=shown: run(shown) for kind, run in opened.items()}
        ms = taken_ms(runs, rounds, clock)
        found[f"batch of {batch}"] = {
            kind: {"ms_per_patch": round(t / batch, 3), "times_faster": round(ms[PLAIN] / t, 2)}
            for kind, t in ms.items()
        }
    return found


def dropout(learned: Learned, rounds: int) -> dict[str, Any]:
    """Return how many times faster `PASSES` passes with dropout are when they share what comes before it."""
    network, shown = learned.network(), np.zeros(learned.patch, dtype=np.float32)

    def whole() -> None:
        network.train()
        for part in network.modules():
            if not isinstance(part, torch.nn.modules.dropout._DropoutNd):
                part.training = False
        with torch.inference_mode():
            for _ in range(PASSES):
                network(torch.from_numpy(shown)[None])

    runs: dict[str, Callable[[], object]] = {"whole": whole, "shared": lambda: dropout_passes(network, shown)}
    ms = taken_ms(runs, max(2, rounds // 4), time.process_time)
    answered = dropout_passes(network, shown)
    return {
        "passes": PASSES,
        "times_faster": round(ms["whole"] / ms["shared"], 2),
        "in_whole_passes": round(PASSES * ms["shared"] / ms["whole"], 1),
        "shared": answered.shared,
    }


def gpu(learned: Learned, rounds: int, batch: int = 256) -> dict[str, Any]:
    """Return patches a second in bf16, and which share of the measured peak and copy bandwidth of the GPU that is.

    Bytes are the least that have to move: what each convolution is given, gives, and its weights, once.
    """
    from torch.utils.flop_counter import FlopCounterMode

    from models.fused import fused

    network: Any = fused(learned.network()).to("cuda", torch.bfloat16, memory_format=torch.channels_last_3d)
    shown = torch.zeros(batch, *learned.patch, device="cuda", dtype=torch.bfloat16)
    shown = shown.contiguous(memory_format=torch.channels_last_3d)
    square = torch.ones(8192, 8192, device="cuda", dtype=torch.bfloat16)
    source, target = (torch.zeros(1 << 28, device="cuda", dtype=torch.float32) for _ in range(2))
    moved = [0]

    def weigh(module: Any, given: Any, out: Any) -> None:
        moved[0] += 2 * (given[0].numel() + out.numel() + module.weight.numel())

    with torch.inference_mode():
        kinds = (torch.nn.Conv3d, torch.nn.ConvTranspose3d)
        hooks = [m.register_forward_hook(weigh) for m in network.modules() if isinstance(m, kinds)]
        with FlopCounterMode(display=False) as counter:
            network(shown)
        for hook in hooks:
            hook.remove()

        def timed(run: Callable[[], object]) -> Callable[[], None]:
            def whole() -> None:
                run()
                torch.cuda.synchronize()

            return whole

        runs = {
            "network": timed(lambda: network(shown)),
            "peak": timed(lambda: square @ square),
            "copy": timed(lambda: target.copy_(source)),
        }
        ms = taken_ms(dict(runs), rounds, time.perf_counter)
    peak, copied = 2 * 8192**3 / ms["peak"], 2 * source.numel() * 4 / ms["copy"]
    return {
        "device": torch.cuda.get_device_name(0),
        "patches_per_second": round(batch / ms["network"] * 1e3),
        "peak_bf16_tflops": round(peak / 1e9, 1),
        "copy_gb_per_second": round(copied / 1e6, 1),
        "share_of_peak": round(counter.get_total_flops() / ms["network"] / peak, 3),
        "share_of_copy": round(moved[0] / ms["network"] / copied, 3),
    }


def whole_scan(folder: Path, out: Path) -> dict[str, Any]:
    """Return seconds of clock and of processors that `nadir analyse` takes for a chest CT, twice.

    The first time makes what is kept: exported forms, compiled ones, the trial.
    """
    found: dict[str, Any] = {"files": sum(1 for path in folder.rglob("*") if path.is_file())}
    nadir = Path(sys.executable).with_name("nadir")
    for name in ("first", "then"):
        begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [nadir, "analyse", folder, "--out", out / name, "--plugin", "lung_nodule"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found[name] = {"seconds": round(time.perf_counter() - begun, 1), "processor_seconds": round(cpu, 1)}
    return found


def small(
    learned: Learned, subject: Subject, data: Data, fold: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Return speed, size and Dice of a smaller network beside those of torch in fp32 of the one it replaces."""
    own = ranged(subject, data, fold)
    with TemporaryDirectory() as folder:
        cache = Path(folder)
        shown = np.zeros((1, *learned.patch), dtype=np.float32)
        plain = runner(PLAIN, learned, cache, arguments.threads)
        runs: dict[str, Callable[[], object]] = {PLAIN: lambda: plain(shown)}
        for kind in ("openvino-bf16", "openvino-int8"):
            run = runner(kind, own, cache, arguments.threads)
            runs[kind] = lambda run=run: run(np.zeros((1, *own.patch), dtype=np.float32))
        ms = taken_ms(runs, arguments.rounds, time.process_time)
        bytes_of = sizes(learned, cache)["fp32_bytes"], sizes(own, cache)["int8_bytes"]
    drawn = held_out(subject, data, fold, own, ["openvino-int8"], arguments.nodules, 1)
    return {
        "times_smaller": round(bytes_of[0] / bytes_of[1], 2),
        "times_faster": {kind: round(ms[PLAIN] / t, 2) for kind, t in ms.items()},
        "judged": judged("smaller", drawn)[0],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True, help="folder of nodule crops")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--nodules", type=int, default=10_000, help="held-out nodules that are drawn at most")
    parser.add_argument("--small", help="run or model of a smaller network")
    parser.add_argument("--scan", type=Path, help="folder of a chest CT")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    data = open_data(given.data)
    subject = open_subject(given.model).on(data.manifest)
    learned = learned_of(subject, given.fold)
    if learned.ranges is None:
        learned = ranged(subject, data, given.fold)
    with TemporaryDirectory() as folder:
        cache = Path(folder)
        found = {"speed": speed(learned, cache, given.threads, given.rounds), "size": sizes(learned, cache)}
    kinds = [kind for kind in present(learned) if kind.endswith(("bf16", "int8"))]
    if given.nodules:
        drawn = held_out(subject, data, given.fold, learned, kinds, given.nodules, 1)
        found["lost"] = judged(f"fold {given.fold}", drawn)[0]
    found["dropout"] = dropout(learned, given.rounds)
    if given.small:
        other = open_subject(given.small).on(data.manifest)
        found["small"] = small(learned, other, data, given.fold, given)
    if torch.cuda.is_available():
        found["gpu"] = gpu(learned, given.rounds)
    if given.scan:
        with TemporaryDirectory() as folder:
            found["whole_scan"] = whole_scan(given.scan, Path(folder))
    text = json.dumps(found, indent=1)
    print(text)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
