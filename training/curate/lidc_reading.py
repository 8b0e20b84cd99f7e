"""What the readers of LIDC-IDRI said of one CT series, as its XML file holds it.

Source: S. G. Armato et al., Med. Phys. 38 (2011) 915, doi:10.1118/1.3528204.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["small-nodule", "non-nodule"]
SMALL_NODULE: Kind = "small-nodule"
NON_NODULE: Kind = "non-nodule"


@dataclass(frozen=True, kw_only=True)
class Contour:
    """One outline in one image: the first pixels outside the nodule, or the rim of a hole and part of it."""

    sop_instance_uid: str
    """The image it was drawn on."""
    z_mm: float
    """imageZposition, mm; may be rounded, and several images may share it."""
    is_inclusion: bool
    """False when what it encloses is no part of the nodule."""
    points: tuple[tuple[int, int], ...]
    """(x, y): column and row of each point, from 0."""


@dataclass(frozen=True, kw_only=True)
class Ratings:
    """How one reader rated one nodule; None where he did not."""

    subtlety: int | None = None
    """1 extremely subtle to 5 obvious."""
    internal_structure: int | None = None
    """1 soft tissue, 2 fluid, 3 fat, 4 air."""
    calcification: int | None = None
    """1 popcorn, 2 laminated, 3 solid, 4 non-central, 5 central, 6 absent."""
    sphericity: int | None = None
    """1 linear to 5 round."""
    margin: int | None = None
    """1 poorly defined to 5 sharp."""
    lobulation: int | None = None
    """1 none to 5 marked."""
    spiculation: int | None = None
    """1 none to 5 marked."""
    texture: int | None = None
    """1 ground glass to 5 solid."""
    malignancy: int | None = None
    """1 highly unlikely to 5 highly suspicious; an opinion on images, not pathology."""


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """One nodule of 3 mm or more as one reader drew it."""

    nodule_id: str
    """noduleID, one reader's own."""
    ratings: Ratings | None
    """None when the file has no `characteristics`, which a nodule of 3 mm or more should have."""
    contours: tuple[Contour, ...]
    """In the order of the file."""


@dataclass(frozen=True, kw_only=True)
class PointMark:
    """One point that a reader set: a nodule of less than 3 mm, or a thing of 3 mm or more that is no nodule."""

    kind: Kind
    """Which of both."""
    mark_id: str
    """noduleID or nonNoduleID."""
    sop_instance_uid: str
    """The image it was set on."""
    z_mm: float
    """imageZposition, mm."""
    point: tuple[int, int]
    """(x, y): column and row, from 0."""


@dataclass(frozen=True, kw_only=True)
class ReadingSession:
    """What one reader said. The order of readers in a file is no identity: the next file may have another."""

    reader: str
    """servicingRadiologistID; empty when the file has none."""
    annotations: tuple[Annotation, ...]
    """Nodules of 3 mm or more."""
    marks: tuple[PointMark, ...]
    """Everything else."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One XML file: what up to four readers said of one series."""

    series_instance_uid: str
    """The CT series."""
    study_instance_uid: str
    """Its study; empty when the file does not say it."""
    sessions: tuple[ReadingSession, ...]
    """In the order of the file."""

    def annotations(self) -> Iterator[tuple[int, Annotation]]:
        """Return all annotations, each with the number of its session, from 1."""
        for number, session in enumerate(self.sessions, start=1):
            for annotation in session.annotations:
                yield number, annotation

    def marks(self) -> Iterator[tuple[int, PointMark]]:
        """Return all points, each with the number of its session, from 1."""
        for number, session in enumerate(self.sessions, start=1):
            for mark in session.marks:
                yield number, mark


__all__ = [
    "NON_NODULE",
    "SMALL_NODULE",
    "Annotation",
    "Contour",
    "PointMark",
    "Ratings",
    "Reading",
    "ReadingSession",
]
