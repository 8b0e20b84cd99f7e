"""The segments of a BINARY SEG as it says them itself, without its source images: masks on a grid of its own.

Kept apart from what writes SEGs and from what reads them for analysis, so that the rules check both.
"""

from __future__ import annotations

from dataclasses import dataclass

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from plugins.contract import BoolArray, Mask
from store.dicom.items import items, text


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentMasks:
    """What a SEG holds, read back from its bits and frame positions; a frame is unpacked when it is asked for."""

    affine: NDArray[np.float64]
    """(4, 4), from index (k, r, c) to LPS mm."""
    shape: tuple[int, int, int]
    """(K, R, C); K spans the slices that have a frame."""
    frames: dict[int, dict[int, int]]
    """Segment number, slice k, frame from 0."""
    pixels: bytes
    """The packed bits of all frames."""

    @property
    def voxel_volume_mm3(self) -> float:
        """Return |det(affine)|, mm^3."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def plane(self, frame: int) -> BoolArray:
        """Return the pixels of a frame, (R, C)."""
        rows, columns = self.shape[1:]
        first, shift = divmod(frame * rows * columns, 8)
        count = (shift + rows * columns + 7) // 8
        octets = np.frombuffer(self.pixels, dtype=np.uint8, count=count, offset=first)
        bits = np.unpackbits(octets, bitorder="little")[shift : shift + rows * columns]
        return bits.reshape(rows, columns).view(np.bool_)

    def count(self, number: int) -> int:
        """Return the voxels of a segment."""
        return sum(int(np.count_nonzero(self.plane(i))) for i in self.frames.get(number, {}).values())

    def mask(self, number: int) -> Mask:
        """Return a segment on the grid of the SEG."""
        planes = self.frames.get(number, {})
        if not planes:
            return Mask.from_full(np.zeros(self.shape, dtype=np.bool_))
        first, last = min(planes), max(planes)
        array = np.zeros((last - first + 1, *self.shape[1:]), dtype=np.bool_)
        for k, frame in planes.items():
            array[k - first] = self.plane(frame)
        box = Mask.from_full(array)
        k, r, c = box.origin
        return Mask(shape=self.shape, origin=(k + first, r, c), voxels=box.voxels)

    def geometry(self) -> highdicom.VolumeGeometry:
        """Return the grid."""
        return highdicom.VolumeGeometry(self.affine, self.shape, coordinate_system="PATIENT")


def read_segment_masks(seg: Dataset) -> SegmentMasks | None:
    """Return the segments of an uncompressed BINARY SEG in the patient's coordinates; None for every other SEG."""
    meta = getattr(seg, "file_meta", None)
    compressed = (
        meta is not None
        and meta.get("TransferSyntaxUID") is not None
        and meta.TransferSyntaxUID.is_compressed
    )
    if text(seg, "SegmentationType") != "BINARY" or "PixelData" not in seg or compressed:
        return None
    shared = (items(seg, "SharedFunctionalGroupsSequence") or [Dataset()])[0]
    groups = items(seg, "PerFrameFunctionalGroupsSequence")
    if not groups or (
        not items(groups[0], "PlanePositionSequence") and not items(shared, "PlanePositionSequence")
    ):
        return None
    places = np.array(
        [_first(g, shared, "PlanePositionSequence").ImagePositionPatient for g in groups], dtype=float
    )
    cosines = np.array(
        _first(groups[0], shared, "PlaneOrientationSequence").ImageOrientationPatient, dtype=float
    )
    measures = _first(groups[0], shared, "PixelMeasuresSequence")
    normal = np.cross(cosines[:3], cosines[3:])
    along = places @ normal
    step = _step(along, measures)
    index = _slices(along, step)
    rows, columns = int(seg.Rows), int(seg.Columns)
    affine = np.eye(4)
    affine[:3, 0] = normal * step
    affine[:3, 1] = cosines[3:] * float(measures.PixelSpacing[0])
    affine[:3, 2] = cosines[:3] * float(measures.PixelSpacing[1])
    affine[:3, 3] = places[int(np.argmin(along))]
    frames: dict[int, dict[int, int]] = {}
    for i, group in enumerate(groups):
        number = int(_first(group, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber)
        frames.setdefault(number, {})[int(index[i])] = i
    shape = (int(index.max()) + 1, rows, columns)
    return SegmentMasks(affine=affine, shape=shape, frames=frames, pixels=seg.PixelData)


def _first(group: Dataset, shared: Dataset, keyword: str) -> Dataset:
    return (items(group, keyword) or items(shared, keyword))[0]


def _step(along: NDArray[np.float64], measures: Dataset) -> float:
    """Return the distance between slices, mm: as the SEG says it, else the smallest step between its frames."""
    said = float(measures.get("SpacingBetweenSlices") or 0)
    if said > 0:
        return said
    steps = np.diff(np.unique(np.round(along, 3)))
    return float(steps.min()) if steps.size else float(measures.get("SliceThickness") or 1)


def _slices(along: NDArray[np.float64], step: float) -> NDArray[np.intp]:
    """Return the slice k of each frame: as many steps from one position to the next as fit best, at least one.

    Counted from position to position, so that slices which are not quite even never fall together.
    """
    places, which = np.unique(np.round(along, 3), return_inverse=True)
    steps = np.maximum(1, np.rint(np.diff(places) / step)).astype(np.intp)
    return np.asarray(np.concatenate([[0], np.cumsum(steps)])[which], dtype=np.intp)
