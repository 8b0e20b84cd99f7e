"""What a judge is given of one case: what the model said beside what is true. One class per family of models.

A family takes part in `nadir evaluate` by yielding these; everything after that (figures, intervals, pictures, report)
is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from plugins.contract import Array, BoolArray, Flag
from plugins.patient_axes import UPRIGHT, PatientAxes
from plugins.shapes import Spacing

Known = Mapping[str, float | str]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """Whose it is, and what is known of how it was made."""

    case_id: str
    """Name of the case in the data manifest."""
    patient_id: str
    """Whose it is: intervals draw patients, not cases."""
    fold: int | None = None
    """Which fold's weights were judged on it; None when one set of weights was."""
    known: Known = field(default_factory=dict)
    """What groups are made by: `size_mm`, `slice_thickness_mm`, `scanner` and whatever else the manifest tells."""
    doubts: Mapping[str, tuple[Flag, ...]] = field(default_factory=dict)
    """What was odd about masks, by the case of the manifest that they are of."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnCase(Case):
    """A region that was drawn around a point, on the grid `(K, R, C)` that the segmenter was given."""

    drawn: BoolArray
    """What the model drew."""
    truth: BoolArray
    """What is held to be true."""
    spacing_mm: Spacing
    """Spacing (k, r, c)."""
    setting: str = "as given"
    """How the model was asked (`point 3 mm off`); each setting is told in a column of its own."""
    known_box: Box | None = None
    """The part of the grid where truth and image are known. Figures are made inside it; the open Dice also counts
    what was drawn outside, all of it as false. None for the whole grid."""
    image: Array | None = None
    """The image, for pictures."""
    axes: PatientAxes = UPRIGHT
    """How k, r, c lie in the patient, for pictures."""
    readers: tuple[BoolArray, ...] = ()
    """What each reader drew, where several did."""
    probability: Array | None = None
    """Probability of each voxel to be lesion, for calibration."""
    uncertainties: Mapping[str, float] = field(default_factory=dict)
    """How unsure the model says it is of this case, by the name of the measure; larger is less sure."""
    volume_interval_ml: tuple[float, float] | None = None
    """Where the model says the true volume lies."""
    diameter_interval_mm: tuple[float, float] | None = None
    """Where the model says the true long axis lies."""


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """A true lesion of a scan."""

    centre_mm: tuple[float, float, float]
    """Its centre, mm, in any frame that the candidates share."""
    radius_mm: float
    """A candidate that lies no further than this from the centre finds it."""
    counts: bool = True
    """False for what is neither to be found nor to be blamed for (too small, readers disagree)."""
    known: Known = field(default_factory=dict)
    """What groups of lesions are made by."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A place that a detector points to."""

    at_mm: tuple[float, float, float]
    """Where, mm."""
    score: float
    """How sure it is; larger is surer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchedCase(Case):
    """A whole scan that was searched."""

    lesions: tuple[Lesion, ...]
    """What is there."""
    candidates: tuple[Candidate, ...]
    """What was found."""
    made_of: Mapping[str, str] = field(default_factory=dict)
    """Cases of the data manifest that are in it (the scan, and what was set into it), and whose each is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Looked:
    """What a classifier was shown of a case and what it looked at; all `(K, R, C)`."""

    patch: Array
    """The image as it was shown, -1 to 1."""
    mask: Array
    """What was rated, 0 to 1."""
    heat: Array
    """Grad-CAM, 0 to 1."""
    slope: Array
    """Size of the answer's slope with each voxel."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RatedCase(Case):
    """A lesion that was put in one of two classes."""

    positive: bool
    """The true class."""
    probability: float
    """The model's probability that it is positive, 0 to 1."""
    setting: str = "as given"
    """How the model was asked (`segmenter's mask`); the first setting is told in full, the others beside it."""
    explain: Callable[[], Looked] | None = None
    """Gives what the network looked at; asked for few cases only."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FollowedCase(Case):
    """A patient who was followed until an event or the end of watching."""

    risk: float
    """The model's risk; larger is an earlier event."""
    duration_days: float
    """How long the patient was followed."""
    event: bool
    """Whether it ended with the event (True) or with the end of watching."""
    true_risk: float | None = None
    """The hazard that the outcome was simulated from, when it was."""


__all__ = ["Candidate", "Case", "DrawnCase", "FollowedCase", "Lesion", "Looked", "RatedCase", "SearchedCase"]
