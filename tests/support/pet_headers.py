"""PET headers of one injection, and the SUV factor and the flags that they give."""

from __future__ import annotations

import math
from typing import Any

from pydicom.dataset import Dataset

from store.dicom.suv import suv_scale

LAMBDA = math.log(2) / 6586.2
DOSE = 368080000.0
"""Of the injection, in becquerel."""
AN_HOUR = 70000 / (DOSE * math.exp(-LAMBDA * 3600))
"""The factor of these headers as they are."""


def header(tracer: dict[str, Any] | None = None, **changes: Any) -> Dataset:
    """A PET header: 70 kg, 368.08 MBq at 10:00, decay corrected to the series start at 11:00."""
    dataset, item = Dataset(), Dataset()
    values: dict[str, Any] = {
        "Modality": "PT",
        "Units": "BQML",
        "DecayCorrection": "START",
        "CorrectedImage": ["ATTN", "DECY"],
        "SeriesDate": "20250101",
        "SeriesTime": "110000",
        "AcquisitionDate": "20250101",
        "AcquisitionTime": "110000",
        "PatientWeight": "70",
        "PatientSize": "1.75",
        "PatientSex": "M",
        "RescaleIntercept": "0",
    }
    injected: dict[str, Any] = {
        "RadionuclideTotalDose": str(DOSE),
        "RadionuclideHalfLife": "6586.2",
        "RadiopharmaceuticalStartTime": "100000",
    }
    for target, given_values in ((dataset, values | changes), (item, injected | (tracer or {}))):
        for keyword, value in given_values.items():
            if value is not None:
                setattr(target, keyword, value)
    dataset.RadiopharmaceuticalInformationSequence = [item]
    return dataset


def factor(*headers: Dataset, **options: Any) -> float:
    """Return the SUV factor of the first header."""
    return suv_scale(headers, **options).factors[0]


def flags(*headers: Dataset) -> list[str]:
    """Return the codes of what is doubted."""
    return [flag.code for flag in suv_scale(headers).flags]
