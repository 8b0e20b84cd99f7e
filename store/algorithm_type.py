"""How a region was drawn, as the object says that holds it."""

from __future__ import annotations

from pydicom.dataset import Dataset

from store.counting import MARKED
from store.dicom.equipment import MANUFACTURER
from store.dicom.values import text


def algorithm_type(header: Dataset, segment: Dataset) -> str:
    """Return MANUAL, SEMIAUTOMATIC, AUTOMATIC, or an empty text where a segment does not say it.

    SEMIAUTOMATIC of `marked_lesion` counts as AUTOMATIC: a person pointed, and Nadir drew.
    """
    said = text(segment, "SegmentAlgorithmType")
    device = (text(header, "Manufacturer"), text(header, "ManufacturerModelName"))
    return "AUTOMATIC" if said == "SEMIAUTOMATIC" and device == (MANUFACTURER, MARKED) else said


__all__ = ["algorithm_type"]
