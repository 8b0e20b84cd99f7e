"""Learning curves as numbers and as a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

SMOOTHED = 50


def draw_curves(
    losses: Sequence[float], judged: Sequence[Mapping[str, float]], folder: Path, title: str
) -> None:
    """Write `curves.json` and `curves.png`: the loss of every step, and the figures on unseen patients.

    `judged` holds the `step` and the figures by name. The loss is drawn as a mean over 50 steps; one that is no number
    is null in the file.
    """
    from matplotlib.figure import Figure

    kept = [round(x, 5) if math.isfinite(x) else None for x in losses]
    (folder / "curves.json").write_text(
        json.dumps({"loss": kept, "judged": list(judged)}, allow_nan=False) + "\n"
    )
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    left = figure.subplots()
    width = max(1, min(SMOOTHED, len(losses)))
    smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
    left.plot(np.arange(width, len(losses) + 1), smooth, color="0.4", label="loss (mean of 50 steps)")
    left.set(xlabel="step", ylabel="loss", title=title)
    right = left.twinx()
    for name in sorted({name for row in judged for name in row if name != "step"}):
        right.plot([r["step"] for r in judged], [r[name] for r in judged], marker="o", label=name)
    right.set_ylabel("on unseen patients")
    figure.legend(loc="lower center", bbox_to_anchor=(0.5, 0.12))
    figure.savefig(folder / "curves.png", dpi=120)


__all__ = ["draw_curves"]
