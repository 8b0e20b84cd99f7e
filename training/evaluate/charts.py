"""Drawings of a report: in colours of the page, so that one drawing fits light, dark and paper."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.evaluate.section import Chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Values = NDArray[np.float64]
INK, MUTED, LINE, ACCENT, SECOND = "#17202b", "#5b6876", "#dde3ea", "#0b5fa5", "#b3541e"
ON_PAGE = {INK: "--ink", MUTED: "--muted", LINE: "--line", ACCENT: "--accent", SECOND: "--second"}
"""Which colour of the page each colour of a drawing becomes."""
STYLE = {
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "svg.hashsalt": "nadir",
    "svg.fonttype": "path",
}
PAPER_DPI = 200
FROC_RATES = (0.125, 16.0)
"""False positives per scan between which a FROC curve is shown."""


def svg(chart: Chart) -> str:
    """Return a drawing as an SVG element that takes its colours from the page."""
    text = _saved(chart, format="svg", transparent=True, metadata={"Date": None}).decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for colour, name in ON_PAGE.items():
        text = text.replace(colour, f"var({name})")
    # the same names in several drawings of one page would be mistaken for each other
    mark = "c" + hashlib.sha256(chart.caption.encode()).hexdigest()[:8]
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{mark}-", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{_attribute(chart.caption)}" ', 1)


def png(chart: Chart) -> bytes:
    """Return a drawing for paper."""
    return _saved(chart, format="png", dpi=PAPER_DPI, facecolor="white", metadata={"Software": None})


def _saved(chart: Chart, **how: Any) -> bytes:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    buffer = BytesIO()
    with rc_context(STYLE):
        figure = Figure(figsize=chart.size_inches, layout="constrained")
        chart.draw(figure)
        figure.savefig(buffer, **how)
    return buffer.getvalue()


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def scatter(
    x: Sequence[float], y: Sequence[float], *, x_label: str, y_label: str, caption: str, level: float | None = None,
    log_x: bool = False, steps: Sequence[tuple[float, float, float]] = (), limits: Sequence[float] = (),
) -> Chart:  # fmt: skip
    """Return one point per case; `level` is a line to compare with, `steps` are (from, to, mean) of groups in x.

    `limits` are dashed lines.
    """

    def draw(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        if level is not None:
            axes.axhline(level, color=MUTED, linewidth=1.0)
        for limit in limits:
            axes.axhline(limit, color=SECOND, linewidth=1.0, linestyle=(0, (4, 2)))
        axes.plot(x, y, "o", color=ACCENT, markersize=2.6, alpha=0.45, markeredgewidth=0)
        for start, end, mean in steps:
            axes.plot([start, end], [mean, mean], color=SECOND, linewidth=2.0, solid_capstyle="butt")
        if log_x:
            _log_scale(axes, x)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)

    values = {"kind": "scatter", "x_label": x_label, "y_label": y_label, "log_x": log_x, "level": level}
    values |= {"x": list(x), "y": list(y), "steps": [list(step) for step in steps], "limits": list(limits)}
    return Chart(draw=draw, caption=caption, values=values)


def diagonal(
    said: Sequence[float], happened: Sequence[float], *, x_label: str, y_label: str, caption: str,
) -> Chart:  # fmt: skip
    """Return a curve in the unit square with its diagonal: a reliability diagram or a ROC curve."""

    def draw(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.0)
        axes.plot(said, happened, color=ACCENT, linewidth=1.6, **_marks(len(said)))
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x_label, ylabel=y_label)
        axes.set_aspect("equal")

    values = {
        "kind": "diagonal",
        "x_label": x_label,
        "y_label": y_label,
        "x": list(said),
        "y": list(happened),
    }
    return Chart(draw=draw, caption=caption, size_inches=(3.6, 3.4), values=values)


def froc(rate: Values, sensitivity: Values, points: Sequence[tuple[float, float]], caption: str) -> Chart:
    """Return the FROC curve with its operating points (rate, sensitivity)."""

    def draw(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        end = max(16.0, *(at for at, _ in points))
        axes.step(np.append(rate, end), np.append(sensitivity, sensitivity[-1]), where="post", color=ACCENT)
        axes.plot(*zip(*points, strict=True), "o", color=SECOND, markersize=5)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set(xlim=FROC_RATES, ylim=(0, 1.02))
        axes.set(xlabel="false positives per scan", ylabel="sensitivity")

    last = np.searchsorted(rate, FROC_RATES[1], side="right")
    rises = np.flatnonzero(np.diff(sensitivity[:last], prepend=-1.0))
    values: dict[str, Any] = {"kind": "froc", "x_label": "false positives per scan", "y_label": "sensitivity"}
    values |= {
        "x": rate[rises].tolist(),
        "y": sensitivity[rises].tolist(),
        "points": [list(p) for p in points],
    }
    return Chart(draw=draw, caption=caption, values=values)


def with_intervals(
    x: Sequence[float], values: Sequence[tuple[float, float | None, float | None]], *, x_label: str, y_label: str,
    caption: str,
) -> Chart:  # fmt: skip
    """Return figures (value, low, high) against a number on a logarithmic axis, joined by a line: a learning curve."""

    def draw(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        for at, (_, low, high) in zip(x, values, strict=True):
            if low is not None and high is not None:
                axes.plot([at, at], [low, high], color=ACCENT, linewidth=1.2)
        axes.plot(x, [value for value, _, _ in values], "o-", color=ACCENT, markersize=5, linewidth=1.6)
        _log_scale(axes, x)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)

    plain = {"kind": "intervals", "x_label": x_label, "y_label": y_label, "log_x": True, "x": list(x)}
    plain |= {key: [one[i] for one in values] for i, key in enumerate(("y", "low", "high"))}
    return Chart(draw=draw, caption=caption, values=plain)


def forest(
    names: Sequence[str], values: Sequence[tuple[float, float | None, float | None]], *, x_label: str, limit: float,
    bad: Sequence[bool], caption: str,
) -> Chart:  # fmt: skip
    """Return one line per name, with value and interval (value, low, high), beside 0 and a limit; `bad` stand out."""

    def draw(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        axes.axvline(0, color=MUTED, linewidth=1.0)
        axes.axvline(limit, color=SECOND, linewidth=1.0, linestyle=(0, (4, 2)))
        for place, ((value, low, high), is_bad) in enumerate(zip(values, bad, strict=True)):
            colour = SECOND if is_bad else ACCENT
            if low is not None and high is not None:
                axes.plot([low, high], [place, place], color=colour, linewidth=1.4)
            axes.plot([value], [place], "s" if is_bad else "o", color=colour, markersize=5)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(x_label)

    return Chart(draw=draw, caption=caption, size_inches=(6.4, 1.0 + 0.26 * len(names)))


def _marks(points: int) -> dict[str, Any]:
    return {"marker": "o", "markersize": 4} if points <= 30 else {}


def _log_scale(axes: Axes, values: Sequence[float]) -> None:
    """Scale x by ratios, with plain numbers at 1, 2 and 5 of each power of ten."""
    axes.set_xscale("log")
    low, high = min(values), max(values)
    ticks = [m * 10.0**p for p in range(-3, 7) for m in (1, 2, 5)]
    inside = [t for t in ticks if low / 1.3 <= t <= high * 1.3]
    axes.set_xticks(inside, [f"{t:g}" for t in inside])
    axes.set_xticks([], minor=True)


__all__ = ["diagonal", "forest", "froc", "png", "scatter", "svg", "with_intervals"]
