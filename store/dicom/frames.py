"""The frames of a SEG: where each lies, which image it was derived from, and its packed bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat

from plugins import codes
from plugins.contract import Mask, Volume
from store.dicom.encoded import Form, sequence
from store.dicom.values import text

FRAME_GROUPS: Final = (
    "DerivationImageSequence",
    "FrameContentSequence",
    "PlanePositionSequence",
    "SegmentIdentificationSequence",
)
"""The functional groups that each frame has of its own."""


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


def frame_number(volume: Volume, k: int) -> int | None:
    """Return the frame of a multi-frame source that is slice k, from 1; None for a single-frame source."""
    return volume.frame_numbers[k] if volume.frame_numbers else None


def reference(header: Dataset, volume: Volume) -> Dataset:
    """Return the item that refers to a source image by class and instance."""
    item = Dataset()
    item.ReferencedSOPClassUID = header.get("SOPClassUID", volume.sop_class_uid)
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    return item


class References:
    """Encodes items that refer to source images, as `reference` makes them."""

    def __init__(self) -> None:
        self._forms: dict[str, Form] = {}

    def encode(self, header: Dataset, volume: Volume) -> bytes:
        """Return the bytes of the item that refers to a source image."""
        kind = text(header, "SOPClassUID") or volume.sop_class_uid
        form = self._forms.get(kind)
        if form is None:
            item = reference(header, volume)
            form = self._forms[kind] = Form(item, [item["ReferencedSOPInstanceUID"]])
        return form.fill(text(header, "SOPInstanceUID"))


def plane_groups(volume: Volume, headers: Mapping[str, Dataset], k: int) -> Dataset:
    """Return PlanePositionSequence and DerivationImageSequence (PS3.3 C.7.6.16.2.3, .6) of slice k."""
    header = headers[volume.sop_instance_uids[k]]
    place, derivation, groups = Dataset(), Dataset(), Dataset()
    place.ImagePositionPatient = position(volume, header, k)
    source = reference(header, volume)
    number = frame_number(volume, k)
    if number is not None:
        source.ReferencedFrameNumber = number
    source.SpatialLocationsPreserved = "YES"
    source.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(codes.SOURCE_OF_PROCESSING)]
    derivation.SourceImageSequence = [source]
    derivation.DerivationCodeSequence = [CodedConcept.from_code(codes.SEGMENTATION)]
    groups.DerivationImageSequence = [derivation]
    groups.PlanePositionSequence = [place]
    return groups


def frame_groups(
    frames: Sequence[tuple[int, int]], volume: Volume, headers: Mapping[str, Dataset]
) -> list[bytes]:
    """Return the encoded functional groups of each frame `(segment number, slice k)`."""
    used = sorted({k for _, k in frames})
    order = {k: i + 1 for i, k in enumerate(used)}
    planes = _Planes(volume, headers)
    derived = {k: planes.derivation(k) for k in used}
    placed = {k: planes.position(k) for k in used}
    content, identification = Dataset(), Dataset()
    content.DimensionIndexValues, identification.ReferencedSegmentNumber = [1, 1], 1
    contents = Form(content, [content["DimensionIndexValues"]])
    numbers = Form(identification, [identification["ReferencedSegmentNumber"]])
    segments = {
        n: sequence("SegmentIdentificationSequence", [numbers.fill(n)]) for n in {n for n, _ in frames}
    }
    return [
        derived[k]
        + sequence("FrameContentSequence", [contents.fill([number, order[k]])])
        + placed[k]
        + segments[number]
        for number, k in frames
    ]


class _Planes:
    """Encodes what frames of one slice say alike, as `plane_groups` makes it."""

    def __init__(self, volume: Volume, headers: Mapping[str, Dataset]) -> None:
        self._volume, self._headers = volume, headers
        self._derivations: dict[tuple[str, int | None], Form] = {}
        self._position: Form | None = None

    def derivation(self, k: int) -> bytes:
        """Return DerivationImageSequence of slice k."""
        header = self._headers[self._volume.sop_instance_uids[k]]
        key = text(header, "SOPClassUID"), frame_number(self._volume, k)
        form = self._derivations.get(key)
        if form is None:
            groups = plane_groups(self._volume, self._headers, k)
            source = groups.DerivationImageSequence[0].SourceImageSequence[0]
            del groups.PlanePositionSequence
            form = self._derivations[key] = Form(groups, [source["ReferencedSOPInstanceUID"]])
        return form.fill(text(header, "SOPInstanceUID"))

    def position(self, k: int) -> bytes:
        """Return PlanePositionSequence of slice k."""
        header = self._headers[self._volume.sop_instance_uids[k]]
        if self._position is None:
            groups, place = Dataset(), Dataset()
            place.ImagePositionPatient = position(self._volume, header, k)
            groups.PlanePositionSequence = [place]
            self._position = Form(groups, [place["ImagePositionPatient"]])
        return self._position.fill(position(self._volume, header, k))


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
