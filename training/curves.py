"""Learning curves as numbers and as a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np

SMOOTHED = 50
"""Steps in a mean of the loss, at most; it is a tenth of a short run, so that there is a line to be seen."""
LINES = ("-", "--", "-.", ":")
MARKERS = "os^Dv"


def draw_curves(
    losses: Sequence[float], judged: Sequence[Mapping[str, float]], folder: Path, title: str
) -> None:
    """Write `curves.json` and `curves.png`: the loss of every step, and the figures on unseen patients.

    `judged` holds the `step` and the figures by name. The loss is drawn as a mean over at most 50 steps; one that is no
    number is null in the file. Equal figures lie on each other, each in a line and a marker of its own.
    """
    from matplotlib.figure import Figure

    kept = [round(x, 5) if math.isfinite(x) else None for x in losses]
    (folder / "curves.json").write_text(
        json.dumps({"loss": kept, "judged": list(judged)}, allow_nan=False) + "\n"
    )
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    left = figure.subplots()
    width = max(1, min(SMOOTHED, len(losses) // 10))
    smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
    of_loss = "loss" if width == 1 else f"loss (mean of {width} steps)"
    marker = "." if len(smooth) == 1 else ""
    left.plot(np.arange(width, len(losses) + 1), smooth, color="0.4", marker=marker, label=of_loss)
    left.set(xlabel="step", ylabel="loss", title=title)
    right = left.twinx()
    names = sorted({name for row in judged for name in row if name != "step"})
    for name, line, marker in zip(names, cycle(LINES), cycle(MARKERS), strict=False):
        steps, values = [r["step"] for r in judged], [r[name] for r in judged]
        right.plot(steps, values, linestyle=line, marker=marker, fillstyle="none", label=name)
    right.set_ylabel("on unseen patients")
    figure.legend(loc="outside lower center", ncols=4)
    figure.savefig(folder / "curves.png", dpi=120)


__all__ = ["draw_curves"]
