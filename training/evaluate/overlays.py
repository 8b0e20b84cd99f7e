"""Pictures of cases: three planes with the outline of the truth and of what was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from plugins.contract import BoolArray
from plugins.shapes import bounding_box
from training.evaluate.judged import DrawnCase

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Grey = NDArray[np.float32]
GROUND, INK, TRUE, DRAWN, BESIDE = "#0d1117", "#e8ecf1", "#56ccf2", "#ffb340", "#ff6bd6"
SIZE_INCHES, DPI = (6.6, 2.35), 110
ROOM = 1.8
"""How much wider than the regions the picture is."""
LEAST_MM = 24.0
PLANES = ("axial", "coronal", "sagittal")


@dataclass(frozen=True, kw_only=True, eq=False)
class Plane:
    """One cut through a case."""

    grey: Grey
    """The image, `(rows, columns)`, first row at the bottom of the picture for cuts that contain the slice axis."""
    truth: BoolArray
    """The truth there."""
    drawn: BoolArray
    """What was drawn there."""
    beside: BoolArray | None = None
    """What another model drew there, when two are compared."""
    spacing_mm: tuple[float, float]
    """Spacing of rows and columns."""
    field_mm: float
    """Width and height of the picture; the image is black beyond its end."""


def planes(case: DrawnCase, beside: BoolArray | None = None) -> tuple[Plane, Plane, Plane] | None:
    """Return the axial, coronal and sagittal cut through the middle of a case; None without image or region.

    The axial one is where the truth (what was drawn, when there is no truth) has the largest area. All three show the
    same length, as far as the image reaches: both regions with some room around them. `beside` is what another model
    drew of the case, `(K, R, C)`.
    """
    if case.image is None or not (case.truth.any() or case.drawn.any()):
        return None
    image = case.axes.to_patient(case.image)
    truth, drawn = case.axes.to_patient(case.truth), case.axes.to_patient(case.drawn)
    other = None if beside is None else case.axes.to_patient(beside)
    region = truth if truth.any() else drawn
    at = [int(np.argmax(region.sum(axis=(1, 2)))), 0, 0]
    at[1:] = (round(float(v)) for v in np.argwhere(region[at[0]]).mean(axis=0))
    spacing = case.axes.spacing(case.spacing_mm)
    every = truth | drawn if other is None else truth | drawn | other
    extents = [(b.stop - b.start) * s for b, s in zip(bounding_box(every, 0), spacing, strict=True)]
    whole_mm = max(n * s for n, s in zip(region.shape, spacing, strict=True))
    half_mm = min(whole_mm, max(LEAST_MM, ROOM * max(extents))) / 2
    seen = [
        slice(max(0, round(i - half_mm / s)), min(n, round(i + half_mm / s) + 1))
        for i, s, n in zip(at, spacing, region.shape, strict=True)
    ]

    def cut(fixed: int) -> Plane:
        index = tuple(at[axis] if axis == fixed else seen[axis] for axis in range(3))
        rows, columns = (spacing[axis] for axis in range(3) if axis != fixed)
        return Plane(
            grey=image[index].copy(),
            truth=truth[index].copy(),
            drawn=drawn[index].copy(),
            beside=None if other is None else other[index].copy(),
            spacing_mm=(rows, columns),
            field_mm=2 * half_mm,
        )

    return cut(0), cut(1), cut(2)


def picture(cuts: Sequence[Plane], window: tuple[float, float]) -> bytes:
    """Return the picture (PNG) of the cuts of one case; `window` are the values shown black and white."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, facecolor=GROUND)
    for number, (cut, name) in enumerate(zip(cuts, PLANES, strict=True)):
        axes = figure.add_axes((number / 3 + 0.004, 0.01, 1 / 3 - 0.008, 0.9))
        height, width = (n * s for n, s in zip(cut.grey.shape, cut.spacing_mm, strict=True))
        axes.imshow(
            cut.grey,
            cmap="gray",
            vmin=window[0],
            vmax=window[1],
            extent=(0, width, 0, height),
            interpolation="bilinear",
            origin="upper" if name == "axial" else "lower",
        )
        dashed, dotted = (0, (4, 1.6)), (0, (1, 1.2))
        for region, colour, style in (
            (cut.truth, TRUE, "-"),
            (cut.beside, BESIDE, dotted),
            (cut.drawn, DRAWN, dashed),
        ):
            if region is not None and region.any():
                rows, columns = _centres_mm(region, cut.spacing_mm, flipped=name == "axial")
                padded = np.pad(region, 1).astype(np.float32)
                axes.contour(
                    columns, rows, padded, levels=[0.5], colors=[colour], linewidths=1.3, linestyles=[style]
                )
        half, (x, y) = cut.field_mm / 2, (width / 2, height / 2)
        axes.set(xlim=(x - half, x + half), ylim=(y - half, y + half))
        _scale_bar(axes, x - 0.92 * half, y - 0.9 * half, 10.0 if half < 60 else 50.0, half)
        axes.set_axis_off()
        axes.set_title(name, color=INK, fontsize=7.5, pad=2)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor=GROUND, metadata={"Software": None})
    return buffer.getvalue()


def _centres_mm(
    region: BoolArray, spacing_mm: tuple[float, float], *, flipped: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where the rows and columns of the padded region lie on the picture, mm."""
    rows = (np.arange(-1, region.shape[0] + 1) + 0.5) * spacing_mm[0]
    columns = (np.arange(-1, region.shape[1] + 1) + 0.5) * spacing_mm[1]
    return (region.shape[0] * spacing_mm[0] - rows if flipped else rows), columns


def _scale_bar(axes: Axes, x: float, y: float, length_mm: float, half_mm: float) -> None:
    axes.plot([x, x + length_mm], [y, y], color=INK, linewidth=1.6, solid_capstyle="butt")
    axes.text(x, y + 0.05 * half_mm, f"{length_mm:g} mm", color=INK, fontsize=6.5)


__all__ = ["Plane", "picture", "planes"]
