"""Pictures of what a classifier looked at: the nodule, its Grad-CAM, and how strongly the answer depends on each voxel.

They show where an answer came from, not whether it is right; a network that was put together with something else is
shown alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from operator import attrgetter

from training.evaluate.judged import Looked, RatedCase
from training.evaluate.overlays import DPI, GROUND, INK, SIZE_INCHES, TRUE
from training.evaluate.section import Picture, Section

TITLES = ("patch, middle slice", "Grad-CAM", "size of the slope")
TEXT = (
    "The surest right and the surest wrong answers. Left what the network is shown, with the outline of the mask; in "
    "the middle what spoke for positive (Grad-CAM of the last layer, coarse); right how strongly the answer depends on "
    "each voxel. It shows where an answer came from, not whether it is right."
)


def looked_section(cases: Sequence[RatedCase], threshold: float) -> Section | None:
    """Return pictures of four answers, as far as there are such; None when no case can be explained.

    A case is called positive from a probability of `threshold`.
    """
    shown = []
    for positive, right, words in (
        (True, True, "surest of those rightly called positive"),
        (False, True, "surest of those rightly called negative"),
        (False, False, "negative, surest called positive"),
        (True, False, "positive, surest called negative"),
    ):
        called = positive == right
        own = [
            case
            for case in cases
            if case.explain is not None
            and case.positive == positive
            and (case.probability >= threshold) == called
        ]
        if own:
            case = (max if called else min)(own, key=attrgetter("probability"))
            assert case.explain is not None
            caption = f"{case.case_id}: probability {case.probability:.2f}; {words}."
            shown.append(Picture(png=looked_picture(case.explain()), caption=caption))
    if not shown:
        return None
    return Section(title="What the network looked at", text=TEXT, pictures=tuple(shown))


def looked_picture(looked: Looked) -> bytes:
    """Return the picture (PNG) of the middle slice of a patch with both maps on it."""
    from matplotlib.figure import Figure

    k = looked.patch.shape[0] // 2
    figure = Figure(figsize=SIZE_INCHES, facecolor=GROUND)
    for number, (over, title) in enumerate(zip((None, looked.heat, looked.slope), TITLES, strict=True)):
        axes = figure.add_axes((number / 3 + 0.004, 0.01, 1 / 3 - 0.008, 0.9))
        axes.imshow(looked.patch[k], cmap="gray", vmin=-1, vmax=1, interpolation="bilinear")
        if over is not None:
            axes.imshow(
                over[k],
                cmap="inferno",
                vmin=0,
                vmax=max(float(over.max()), 1e-12),
                alpha=0.6,
                interpolation="bilinear",
            )
        if looked.mask[k].any() and not (looked.mask[k] > 0.5).all():
            axes.contour(looked.mask[k], levels=[0.5], colors=[TRUE], linewidths=1.2)
        axes.set_axis_off()
        axes.set_title(title, color=INK, fontsize=7.5, pad=2)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor=GROUND, metadata={"Software": None})
    return buffer.getvalue()


__all__ = ["looked_picture", "looked_section"]
