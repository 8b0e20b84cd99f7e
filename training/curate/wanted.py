"""Which of the regions that were drawn become cases, and how."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import cc3d

from plugins.contract import Drawn, Mask
from plugins.errors import Refused
from training.curate.case_files import MARGIN_MM

ROLES = {"CT": "ct", "PT": "pet_suv", "MR": "mr"}
"""What the values of a modality have to be before they are learned from: HU, SUVbw, arbitrary ones."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which regions become cases, and how."""

    regions: tuple[str, ...] = ()
    """Patterns (`GTV*`) of which the name or type of a region has to match one; all regions when empty."""
    without: tuple[str, ...] = ()
    """Patterns of regions that are left out."""
    modality: str = "CT"
    """Modality of the images that were drawn on: CT, PT or MR."""
    margin_mm: float = MARGIN_MM
    """Image around each region, mm."""
    apart: bool = False
    """Whether each 26-connected piece of a region is a case of its own."""
    hashed: bool = False
    """Whether patients are named by `patient_key`, not by their PatientID."""

    def __post_init__(self) -> None:
        if self.modality not in ROLES:
            raise Refused("unknown-modality", f"'{self.modality}' is none of {', '.join(ROLES)}")

    def require(self, drawn: Drawn) -> None:
        """Refuse (`not-asked`) a region whose name, interpreted type or coded type is not wanted."""
        names = [
            drawn.label,
            drawn.interpreted_type or "",
            drawn.type_code.meaning if drawn.type_code else "",
        ]
        if self.regions and not _is_among(names, self.regions):
            raise Refused("not-asked", f"neither its name nor its type is like {', '.join(self.regions)}")
        if _is_among(names, self.without):
            raise Refused("not-asked", f"its name or type is like {', '.join(self.without)}")

    def pieces(self, mask: Mask) -> Iterator[tuple[int, Mask]]:
        """Yield what becomes a case of its own, with its number: the whole mask as 0, or its pieces from 1 on."""
        if not self.apart:
            yield 0, mask
            return
        # cc3d fails on boolean arrays that are one voxel wide in two directions, not on bytes
        labels, count = cc3d.connected_components(mask.voxels.astype("u1"), connectivity=26, return_N=True)
        for piece in range(1, int(count) + 1):
            yield piece, _moved(Mask.from_full(labels == piece), mask)


def _is_among(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name.lower(), one.lower()) for name in names if name for one in patterns)


def _moved(piece: Mask, mask: Mask) -> Mask:
    """Return a mask on the grid of the box of another one on the grid of that other one."""
    k, r, c = (a + b for a, b in zip(piece.origin, mask.origin, strict=True))
    return Mask(shape=mask.shape, origin=(k, r, c), voxels=piece.voxels)


__all__ = ["ROLES", "Wanted"]
