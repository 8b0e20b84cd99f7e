"""Regions of SEGs and RTSTRUCTs on the grid of their images, with what their objects say of who drew them.

Whether a person drew a region is decided by `why_not_a_persons`, from voxels first, because viewers leave in place what
an object says of its maker, and networks between them change it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from plugins.contract import Drawn, Flag, Mask, Volume
from plugins.errors import Refused
from store.algorithm_type import algorithm_type
from store.counting import MARKED
from store.dicom.equipment import MANUFACTURER
from store.dicom.files import read_file
from store.dicom.items import items
from store.dicom.series import read_regions
from store.dicom.values import day, integer, moment, quiet, text
from store.dicom.voxel_hash import voxel_hash

PEOPLE = ("ContentCreatorName", "OperatorsName", "ReviewerName")
OUR_CREATOR = "Nadir Algorithm"
UNNAMED = "a person who is not named"
CONTOURS = "contours"
"""The analysis that measures what people drew: the only one of ours that calls its segments MANUAL."""
BY_HAND = ("MANUAL", "SEMIAUTOMATIC")


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawing:
    """One region, on the grid of its images."""

    region: Drawn
    """Where, and what it is called."""
    modality: str
    """Modality of its images."""
    sha256: str
    """Object store name of the object that holds it."""
    made_at: datetime | None
    """When the object was made, by its writer's clock (naive); None when it does not say."""
    person: str
    """Who the object names as its creator, operator or reviewer; empty when that is nobody, or Nadir."""
    equipment: str
    """Manufacturer and model."""
    is_ours: bool
    """Whether the manufacturer is Nadir."""
    model: str
    """Manufacturer's model name: of ours the analysis."""
    algorithm_type: str
    """MANUAL, SEMIAUTOMATIC, AUTOMATIC, or empty (see `store.algorithm_type`)."""
    made_with: str
    """`voxel_hash` of the voxels that Nadir made it with; empty when it does not say."""
    model_sha256: str
    """Hash of the model that Nadir made it with; empty when it does not say."""

    @property
    def author(self) -> str:
        """Return who drew it, in words: a name, else the device, which is not Nadir even when it says so."""
        return self.person or (UNNAMED if self.is_ours else self.equipment) or UNNAMED

    @property
    def mask(self) -> Mask:
        """Return its voxels."""
        return self.region.mask

    @property
    def is_as_made(self) -> bool:
        """Return whether its voxels are provably those that Nadir made it with."""
        return bool(self.made_with) and self.made_with == voxel_hash(self.mask)


def read_drawings(
    path: Path, sha256: str, volumes: Sequence[Volume]
) -> tuple[tuple[Drawing, ...], tuple[Flag, ...]]:
    """Return the regions of one object on the volumes, and the reason for each that cannot be used; raises nothing."""
    try:
        regions, refused = read_regions(path, volumes)
        with quiet():
            file = read_file(path)
    except Refused as reason:
        return (), (Flag(code=reason.code, sentence=reason.sentence),)
    if file is None:
        return (), refused
    modalities = {volume.series_instance_uid: volume.modality for volume in volumes}
    with quiet():
        made = [_drawing(r, modalities[r.series_instance_uid], sha256, file.header) for r in regions]
    return tuple(made), refused


def tracking_uids(header: Dataset) -> frozenset[str]:
    """Return the Tracking UIDs of the regions of an object, without looking at its pixels or contours."""
    regions = (*items(header, "SegmentSequence"), *items(header, "RTROIObservationsSequence"))
    return frozenset(text(region, "TrackingUID") for region in regions) - {""}


def _drawing(region: Drawn, modality: str, sha256: str, header: Dataset) -> Drawing:
    segment = _item(header, "SegmentSequence", "SegmentNumber", region.number)
    roi = _item(header, "StructureSetROISequence", "ROINumber", region.number)
    (algorithm, *_) = (*items(segment, "SegmentationAlgorithmIdentificationSequence"), Dataset())
    parameters = dict(
        part.strip().partition("=")[::2] for part in text(algorithm, "AlgorithmParameters").split(",")
    )
    names = (" ".join(text(header, keyword).replace("^", " ").split()) for keyword in PEOPLE)
    equipment = (text(header, keyword) for keyword in ("Manufacturer", "ManufacturerModelName"))
    return Drawing(
        region=region,
        modality=modality,
        sha256=sha256,
        made_at=_made_at(header),
        person=next((name for name in names if name and name != OUR_CREATOR), ""),
        equipment=" ".join(filter(None, equipment)),
        is_ours=text(header, "Manufacturer") == MANUFACTURER,
        model=text(header, "ManufacturerModelName"),
        algorithm_type=algorithm_type(header, segment) or text(roi, "ROIGenerationAlgorithm"),
        made_with=parameters.get("voxels", ""),
        model_sha256=parameters.get("model", ""),
    )


def _item(header: Dataset, sequence: str, keyword: str, number: int) -> Dataset:
    return next((i for i in items(header, sequence) if integer(i, keyword) == number), Dataset())


def _made_at(header: Dataset) -> datetime | None:
    for kind in ("Content", "StructureSet", "InstanceCreation"):
        if (said := moment(day(text(header, f"{kind}Date")), text(header, f"{kind}Time"))) is not None:
            return said
    return None


def why_not_a_persons(drawing: Drawing, ours: Iterable[Drawing]) -> str | None:
    """Return why a region is not what a person drew, in words; None when it is.

    `ours` is what Nadir drew by itself on the images of the study. In this order:

    1. The voxels of anything of ours are ours, under whichever UIDs, equipment and Tracking UID they came.
    2. A segment that says which voxels Nadir made it with (`voxel_hash`, in the parameters of its algorithm) is ours
       when it has those, also that of another node, or of another version of the analysis. With other voxels somebody
       changed it: a person's, also where all else was copied, the manufacturer and AUTOMATIC included.
    3. Otherwise an object whose manufacturer is Nadir is ours (of a release that did not say its voxels), unless it
       names a person, or calls a segment drawn by hand that an analysis found. What `contours` wrote is never more than
       a copy of what a person drew in another object.
    4. An RTSTRUCT that names nobody, is not said to be drawn by hand, and only lacks pixels along the outline of our
       region of the same Tracking UID may be that region, converted to contours through the centres of its pixels.
    5. All else is a person's: MANUAL, SEMIAUTOMATIC, or AUTOMATIC as it was left in a copy of our segment. A program
       that drew anew by itself under a Tracking UID of ours would count as one.
    """
    known = [one for one in ours if one.region.series_instance_uid == drawing.region.series_instance_uid]
    if any(_same(drawing.mask, one.mask) for one in known):
        return "its voxels are those that Nadir drew"
    if drawing.made_with:
        return "it is what Nadir drew elsewhere, unchanged" if drawing.is_as_made else None
    by_hand = drawing.algorithm_type in BY_HAND
    if drawing.is_ours and not drawing.person and (not by_hand or drawing.model == CONTOURS):
        return "equipment of Nadir made it, and nothing in it says that a person changed it"
    twins = [one for one in known if one.region.tracking_uid == drawing.region.tracking_uid]
    if drawing.algorithm_type == "SEMIAUTOMATIC" and any(one.model == MARKED for one in twins):
        by_hand = False  # as the segment said it that was converted
    says_nobody = drawing.region.source == "RTSTRUCT" and not drawing.person and not by_hand
    if says_nobody and any(_lacks_rim_only(drawing.mask, one.mask) for one in twins):
        return "it lacks pixels along the outline of what Nadir drew only, as a conversion does, and names no person"
    return None


def _same(one: Mask, other: Mask) -> bool:
    return one.shape == other.shape and one.count == other.count and voxel_hash(one) == voxel_hash(other)


def _lacks_rim_only(mask: Mask, ours: Mask) -> bool:
    """Return whether a mask lies within another of its grid and lacks only pixels beside the outline in its slices."""
    from scipy import ndimage

    if mask.shape != ours.shape:
        return False
    low, high = (np.subtract(mask.origin, ours.origin), np.add(mask.origin, mask.voxels.shape))
    if (low < 0).any() or (high > np.add(ours.origin, ours.voxels.shape)).any():
        return False
    within = np.zeros_like(ours.voxels)
    within[tuple(slice(a, a + n) for a, n in zip(low, mask.voxels.shape, strict=True))] = mask.voxels
    inner = ndimage.binary_erosion(ours.voxels, np.ones((1, 3, 3)))
    return bool((within <= ours.voxels).all() and (within >= inner).all())


__all__ = ["Drawing", "read_drawings", "tracking_uids", "why_not_a_persons"]
