"""Where in the lungs a nodule is to be drawn, and how sure that is: blobs alone, or blobs that networks have seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.extras import how_to_install
from models.files import BadModel
from models.nodule_detector import NAME, LearnedNoduleDetector, Search, strongest_apart
from models.nodule_segmenter import runs_here
from models.place import NOWHERE, Places, open_current
from plugins.errors import Refused
from plugins.nodule_candidates import Candidate, candidates

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Spacing = tuple[float, float, float]
Detectors = Literal["best", "learned", "classical"]
DETECTORS: tuple[Detectors, ...] = ("best", "learned", "classical")


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A place where a nodule may be."""

    candidate: Candidate
    """The blob that is there."""
    probability: float | None = None
    """What the networks give it, 0 to 1; None when none were asked."""


def choose_detector(which: Detectors, models: Places = NOWHERE) -> LearnedNoduleDetector | None:
    """Return the networks that judge candidates, None when candidates are judged by the shape of what is drawn there.

    `best` are the networks where there are some and they can run; `models` are those made here that count.
    Refuses `no-detector` when `learned` cannot be.
    """
    if which not in DETECTORS:
        raise ValueError(f"detector is one of {', '.join(DETECTORS)}, not '{which}'")
    if which == "classical" or (which == "best" and not runs_here()):
        return None
    try:
        if not runs_here():
            raise BadModel("not-installed", f"torch or monai is not installed: {how_to_install('learn')}")
        return LearnedNoduleDetector(model=open_current(NAME, models), fastest=True)
    except BadModel as bad:
        if which == "best" and bad.code == "not-shipped":
            return None
        raise Refused("no-detector", f"the learned nodule detector cannot be used: {bad.sentence}") from bad


def spots(
    hu: Array,
    inside: BoolArray,
    spacing_mm: Spacing,
    classical: Search,
    detector: LearnedNoduleDetector | None,
    at_most: int,
) -> tuple[Spot, ...]:
    """Return where to draw in a CT `hu` `(K, R, C)` whose closed lungs are `inside`, the surest or strongest first.

    Without networks: the strongest blobs of the `classical` search. With them: the blobs of their own search that they
    give at least the level of their card, at most `at_most`, none within another.
    """
    search = classical if detector is None else detector.search
    found = candidates(
        hu,
        inside,
        spacing_mm,
        diameters_mm=search.diameters_mm,
        lowest_response_hu=search.lowest_response_hu,
        lowest_roundness=search.lowest_roundness,
        at_most=search.at_most,
    )
    if detector is None:
        return tuple(Spot(candidate=one) for one in found)
    points = [one.index for one in found]
    given = detector.probabilities(hu, spacing_mm, points)
    kept = strongest_apart(points, [one.diameter_mm for one in found], given, spacing_mm)
    return tuple(
        Spot(candidate=found[i], probability=float(given[i]))
        for i in kept[:at_most]
        if given[i] >= detector.level
    )


__all__ = ["DETECTORS", "Detectors", "Spot", "choose_detector", "spots"]
