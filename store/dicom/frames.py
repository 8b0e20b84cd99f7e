"""The frames of a SEG: where each lies, which image it was derived from, and its packed bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat

from plugins import codes
from plugins.contract import Mask, Volume


def decimal(value: float) -> DSfloat:
    """Return a number as VR DS, at most 16 characters, never minus zero."""
    return DSfloat(float(value) + 0.0, auto_format=True)


def orientation(volume: Volume) -> list[DSfloat]:
    """Return ImageOrientationPatient: the unit vectors along a row (growing c) and along a column (growing r)."""
    step = volume.geometry.affine[:3, :3]
    row, column = step[:, 2] / np.linalg.norm(step[:, 2]), step[:, 1] / np.linalg.norm(step[:, 1])
    return [decimal(x) for x in (*row, *column)]


def position(volume: Volume, header: Dataset, k: int) -> list[DSfloat]:
    """Return ImagePositionPatient of slice k, LPS mm, in the digits of the source where it is a single-frame image."""
    given = header.get("ImagePositionPatient")
    if given is not None and len(given) == 3 and tuple(float(x) for x in given) == volume.slice_positions[k]:
        return list(given)
    return [decimal(x) for x in volume.slice_positions[k]]


def frame_number(volume: Volume, header: Dataset, k: int) -> int | None:
    """Return the frame of a multi-frame source that is slice k, by its position; None for a single-frame source.

    None too when no frame lies within a hundredth of a millimetre of the slice: the image is then referred to whole.
    """
    groups = header.get("PerFrameFunctionalGroupsSequence")
    if not groups:
        return None
    for number, group in enumerate(groups, start=1):
        plane = group.get("PlanePositionSequence")
        if plane and np.allclose(plane[0].ImagePositionPatient, volume.slice_positions[k], rtol=0, atol=0.01):
            return number
    return None


def reference(header: Dataset, volume: Volume) -> Dataset:
    """Return the item that refers to a source image by class and instance."""
    item = Dataset()
    item.ReferencedSOPClassUID = header.get("SOPClassUID", volume.sop_class_uid)
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    return item


def plane_groups(volume: Volume, headers: Mapping[str, Dataset], k: int) -> Dataset:
    """Return PlanePositionSequence and DerivationImageSequence (PS3.3 C.7.6.16.2.3, .6) of slice k."""
    header = headers[volume.sop_instance_uids[k]]
    place, derivation, groups = Dataset(), Dataset(), Dataset()
    place.ImagePositionPatient = position(volume, header, k)
    source = reference(header, volume)
    number = frame_number(volume, header, k)
    if number is not None:
        source.ReferencedFrameNumber = number
    source.SpatialLocationsPreserved = "YES"
    source.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(codes.SOURCE_OF_PROCESSING)]
    derivation.SourceImageSequence = [source]
    derivation.DerivationCodeSequence = [CodedConcept.from_code(codes.SEGMENTATION)]
    groups.DerivationImageSequence = [derivation]
    groups.PlanePositionSequence = [place]
    return groups


def pack_frames(frames: Sequence[tuple[int, Mask]], rows: int, columns: int) -> bytes:
    """Return the bits of frames `(slice k, mask)` one after another, least significant first, no padding between.

    A frame whose size is not a multiple of 8 begins in the middle of a byte (PS3.5 8.1.1). Even length.
    """
    bits = rows * columns
    length = (len(frames) * bits + 7) // 8
    packed = np.zeros(length + length % 2, dtype=np.uint8)
    for i, (k, mask) in enumerate(frames):
        first, shift = divmod(i * bits, 8)
        _, r, c = mask.box
        inner = k - mask.origin[0]
        if not 0 <= inner < mask.voxels.shape[0]:
            continue
        top, height = r.start * columns, (r.stop - r.start) * columns
        band = np.zeros(shift + top % 8 + height, dtype=np.bool_)
        band[shift + top % 8 :].reshape(-1, columns)[:, c] = mask.voxels[inner]
        begin = first + top // 8
        octets = np.packbits(band, bitorder="little")
        packed[begin : begin + octets.size] |= octets
    return packed.tobytes()


def overlaps(a: Mask, b: Mask) -> bool:
    """Return whether two masks on one grid share a voxel."""
    low = np.maximum(a.origin, b.origin)
    high = np.minimum(np.add(a.origin, a.voxels.shape), np.add(b.origin, b.voxels.shape))
    if (high <= low).any():
        return False
    parts = [
        m.voxels[tuple(slice(int(s - o), int(e - o)) for s, e, o in zip(low, high, m.origin, strict=True))]
        for m in (a, b)
    ]
    return bool((parts[0] & parts[1]).any())
