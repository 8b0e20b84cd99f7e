"""From files to slices: one entry per image plane, whether a file holds one frame or many."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from pydicom.dataset import Dataset

from plugins.errors import Refused
from store.dicom.decode import PixelFormat, pixel_format
from store.dicom.files import File
from store.dicom.geometry import Plane
from store.dicom.values import has, integer, items, number, numbers, text, texts, told_once

REFORMATS = frozenset({"REFORMATTED", "MPR", "CPR", "MIP", "MINIP"})
"""Values of ImageType, from the third on, of planes that no scanner measured. DERIVED alone says nothing of that."""

PER_FRAME: Final = {
    "ConvolutionKernel": ("CTReconstructionSequence", "ConvolutionKernel"),
    "AcquisitionNumber": ("FrameContentSequence", "FrameAcquisitionNumber"),
    "AcquisitionTime": ("FrameContentSequence", "FrameAcquisitionDateTime"),
    "TemporalPositionIdentifier": ("FrameContentSequence", "TemporalPositionIndex"),
    "NominalPercentageOfCardiacPhase": ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"),
    "TriggerTime": ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
}
"""Where an enhanced object says of a frame what a single image says by the keyword (PS3.3 C.7.6.16.2 and C.8.15.3)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Slice:
    """One image plane with what turns its stored values into real-world values."""

    file: File
    """The file that holds it."""
    layout: PixelFormat
    """How its pixels are stored."""
    plane: Plane
    """Where it lies."""
    slope: float | None
    """RescaleSlope, None when absent."""
    intercept: float | None
    """RescaleIntercept, None when absent."""
    rescale_type: str
    """RescaleType."""
    image_type: tuple[str, ...]
    """ImageType, or FrameType of a multi-frame object."""
    has_lookup_table: bool
    """True when a Modality LUT takes the place of the rescale."""
    of_frame: Mapping[str, str] = field(default_factory=dict)
    """What an enhanced object says of the frame, by the keywords of `PER_FRAME`."""

    def says(self, keyword: str) -> str:
        """Return the text of an attribute of the image, or of the frame; empty when it is not stated."""
        return self.of_frame.get(keyword) or text(self.file.header, keyword)

    @property
    def is_reformatted(self) -> bool:
        """Return whether its ImageType calls it a reformat or a projection."""
        return not REFORMATS.isdisjoint(self.image_type[2:])


def slices_of(file: File) -> list[Slice]:
    """Return the image planes of one file.

    Refuses what `pixel_format` refuses, and several frames without a position each (`multi-frame-without-positions`).
    """
    layout = pixel_format(file)
    header = file.header
    if not has(header, "PerFrameFunctionalGroupsSequence"):
        if layout.frames > 1:
            raise Refused(
                "multi-frame-without-positions",
                f"{layout.frames} frames have no position each; send them as single images or as an enhanced object",
            )
        return [_slice(file, layout, 0, _stated_alike(header), lambda _: header)]
    shared = items(header, "SharedFunctionalGroupsSequence")[:1]
    frames = items(header, "PerFrameFunctionalGroupsSequence")
    if len(frames) != layout.frames:
        raise Refused(
            "multi-frame-without-positions",
            f"{layout.frames} frames have {len(frames)} descriptions; send the object again",
        )
    return [_frame(file, layout, i, (frame, *shared)) for i, frame in enumerate(frames)]


def _frame(file: File, layout: PixelFormat, index: int, groups: tuple[Dataset, ...]) -> Slice:
    """Return one frame, each macro looked up in its own group first and in the shared one then."""
    macros: list[Dataset] = []
    for name in (
        "PlanePositionSequence",
        "PlaneOrientationSequence",
        "PixelMeasuresSequence",
        "PixelValueTransformationSequence",
    ):
        macros.extend(next((found[:1] for group in groups if (found := items(group, name))), ()))
    kinds = ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence", "PETFrameTypeSequence")
    typed = [item for group in groups for name in kinds for item in items(group, name)]
    image_type = texts(typed[0], "FrameType") if typed else texts(file.header, "ImageType")

    def find(keyword: str) -> Dataset:
        return next((macro for macro in macros if has(macro, keyword)), file.header)

    return replace(
        _slice(file, layout, index, _alike(find, image_type), find),
        of_frame={
            keyword: said
            for keyword, (macro, name) in PER_FRAME.items()
            if (said := next((text(item, name) for group in groups for item in items(group, macro)), ""))
        },
    )


class _Alike(NamedTuple):
    """What most slices of a series say alike, as in `Plane` and `Slice`."""

    spacing_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    thickness_mm: float | None
    image_type: tuple[str, ...]


def _alike(find: Callable[[str], Dataset], image_type: tuple[str, ...]) -> _Alike:
    return _Alike(
        numbers(find("PixelSpacing"), "PixelSpacing"),
        numbers(find("ImageOrientationPatient"), "ImageOrientationPatient"),
        number(find("SliceThickness"), "SliceThickness"),
        tuple(word.upper() for word in image_type),
    )


@told_once("PixelSpacing", "ImageOrientationPatient", "SliceThickness", "ImageType")
def _stated_alike(header: Dataset) -> _Alike:
    return _alike(lambda _: header, texts(header, "ImageType"))


def _slice(
    file: File, layout: PixelFormat, index: int, alike: _Alike, find: Callable[[str], Dataset]
) -> Slice:
    plane = Plane(
        sop_instance_uid=file.sop_instance_uid,
        frame=index,
        rows=layout.rows,
        columns=layout.columns,
        spacing_mm=alike.spacing_mm,
        orientation=alike.orientation,
        position_mm=numbers(find("ImagePositionPatient"), "ImagePositionPatient"),
        frame_of_reference_uid=text(file.header, "FrameOfReferenceUID"),
        thickness_mm=alike.thickness_mm,
    )
    return Slice(
        file=file,
        layout=layout,
        plane=plane,
        slope=_stated(find("RescaleSlope"), "RescaleSlope"),
        intercept=_stated(find("RescaleIntercept"), "RescaleIntercept"),
        rescale_type=text(find("RescaleType"), "RescaleType").upper(),
        image_type=alike.image_type,
        has_lookup_table=has(find("ModalityLUTSequence"), "ModalityLUTSequence"),
    )


def _stated(place: Dataset, keyword: str) -> float | None:
    """Return a number that is stated, NaN when what is stated is not a number, None when nothing is stated."""
    if not has(place, keyword):
        return None
    found = number(place, keyword)
    if found is not None:
        return found
    return None if _is_empty(place, keyword) else float("nan")


def _is_empty(place: Dataset, keyword: str) -> bool:
    try:
        return place[keyword].is_empty
    except Exception:  # a value that cannot be converted is not empty
        return False


def padding_range(header: Dataset, signed: bool, bits: int) -> tuple[int, int] | None:
    """Return the stored values (lowest, highest) that stand for no image, None when none do."""
    first, last = integer(header, "PixelPaddingValue"), integer(header, "PixelPaddingRangeLimit")
    if first is None:
        return None
    ends = [first, first if last is None else last]
    if signed:
        ends = [e - (1 << bits) if e >= 1 << (bits - 1) else e for e in ends]
    return min(ends), max(ends)
