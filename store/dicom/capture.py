"""Pictures to Secondary Capture images, for viewers that show neither SEG nor SR.

One series per job, one instance per picture. The colours are in the pixels: nothing on such an image can be
switched off, measured or read by a machine, which is why SEG and SR are what a destination gets unless it asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from highdicom.sc import SCImage
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as standard
from pydicom.uid import ExplicitVRLittleEndian

from plugins.errors import Broken
from store.dicom.equipment import MANUFACTURER, RESEARCH_USE, contributing, equipment, inherit, one_line
from store.dicom.uids import derive_uid
from store.provenance import Provenance

KIND = "capture"


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """One picture with burned-in contours and words."""

    pixels: NDArray[np.uint8]
    """`(R, C, 3)`, red, green, blue."""
    title: str
    """What it shows, in a few words."""
    source: Dataset | None = None
    """Header of the image that it was made from; None for a projection of many."""


def encode_capture(
    picture: Picture,
    number: int,
    header: Dataset,
    provenance: Provenance,
    series_number: int,
    written_at: datetime,
) -> Dataset:
    """Return a picture as a Secondary Capture image in the study of `header`; equal input gives equal bytes.

    `number` is its place in the series, from 1. Raises Broken when the pixels are no 8-bit RGB picture.
    Source: PS3.3 A.8.1, C.8.6.
    """
    pixels = picture.pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise Broken(f"a key image is 8-bit RGB, not {pixels.dtype} of shape {pixels.shape}")
    key = provenance.job_key
    result: Dataset = SCImage(
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        study_instance_uid=str(header.StudyInstanceUID),
        series_instance_uid=derive_uid(key, KIND, "series"),
        series_number=series_number,
        sop_instance_uid=derive_uid(key, KIND, "instance", str(number)),
        instance_number=number,
        series_description=one_line(f"{MANUFACTURER} {provenance.plugin} key images"),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        contributing_equipment=[contributing(provenance)],
        **equipment(provenance),
    )
    result.Modality = "OT"
    # highdicom asks for one; a picture of several panels has none.
    result.PatientOrientation = result.Laterality = None
    result.ImageType = ["DERIVED", "SECONDARY"]
    result.BurnedInAnnotation = "YES"
    result.LossyImageCompression = str(header.get("LossyImageCompression") or "00")
    result.ImageComments = one_line(f"{picture.title}. {RESEARCH_USE}", longest=1024)
    result.DerivationDescription = one_line(
        f"{MANUFACTURER} {provenance.plugin}: contours drawn on the image", 1024
    )
    if picture.source is not None:
        result.SourceImageSequence = [_reference(picture.source)]
    inherit(result, header, provenance, written_at)
    # highdicom's are those of the clock on the wall
    result.DateOfSecondaryCapture = result.InstanceCreationDate
    result.TimeOfSecondaryCapture = result.InstanceCreationTime
    return result


def _reference(source: Dataset) -> Dataset:
    item, purpose = Dataset(), Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    code = standard.DCM.SourceImageForImageProcessingOperation
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = (
        code.value,
        code.scheme_designator,
        code.meaning,
    )
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item


__all__ = ["KIND", "Picture", "encode_capture"]
