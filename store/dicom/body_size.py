"""Body weight, height and the sizes that kinds of SUV are normalised to.

Formulas: lean body mass after Morgan, James (128 for men) and Janmahasatian, ideal body weight, body surface after
DuBois; the mean of both sexes stands for `O`, as in the IBSI-SUV manual.
"""

from __future__ import annotations

import math

from pydicom.dataset import Dataset

from plugins.errors import Refused
from store.dicom.values import number, text

MAX_WEIGHT_KG = 500.0


def weight_kg(header: Dataset) -> float:
    """Return PatientWeight in kg, grams recognised. Refuses (`suv-no-weight`, `suv-bad-weight`)."""
    weight = number(header, "PatientWeight")
    if not weight or not math.isfinite(weight):
        raise Refused("suv-no-weight", "PatientWeight is absent or 0; values stay in activity")
    if weight > 1000:
        weight /= 1000
    if not 0.3 <= weight <= MAX_WEIGHT_KG:
        raise Refused("suv-bad-weight", f"PatientWeight {weight:g} kg cannot be; values stay in activity")
    return weight


def height_cm(header: Dataset) -> float:
    """Return PatientSize in cm, whether stated in m or cm. Refuses (`suv-no-height`, `suv-bad-height`)."""
    height = number(header, "PatientSize")
    if not height or not math.isfinite(height):
        raise Refused("suv-no-height", "PatientSize is absent or 0, which this kind of SUV needs")
    centimetres = height if height > 3 else height * 100
    if not 20 <= centimetres <= 260:
        raise Refused("suv-bad-height", f"PatientSize {height:g} cannot be a height")
    return centimetres


def sex(header: Dataset) -> str:
    """Return PatientSex: M, F or O. Refuses (`suv-no-sex`)."""
    found = text(header, "PatientSex").upper()
    if found not in ("M", "F", "O"):
        raise Refused("suv-no-sex", "PatientSex is absent, which this kind of SUV needs")
    return found


def body_size(kind: str, *, weight: float, height: float, gender: str) -> float:
    """Return lean or ideal body mass in kg, or body surface in m2, by SUVType, from kg, cm and M, F or O.

    Refuses (`suv-unknown-type`). Source: PS3.3 C.8.9.1.1.4, SUV Type.
    """
    if gender == "O":
        both = [body_size(kind, weight=weight, height=height, gender=one) for one in "MF"]
        return sum(both) / 2
    male = gender == "M"
    squared = (weight / height) ** 2
    index = weight / (height / 100) ** 2
    match kind:
        case "LBM":
            return 1.10 * weight - 120 * squared if male else 1.07 * weight - 148 * squared
        case "LBMJAMES128":
            return 1.10 * weight - 128 * squared if male else 1.07 * weight - 148 * squared
        case "LBMJANMA":
            return 9270 * weight / (6680 + 216 * index if male else 8780 + 244 * index)
        case "IBW":
            return 48.0 + 1.06 * (height - 152) if male else 45.5 + 0.91 * (height - 152)
        case "BSA":
            return float(0.007184 * height**0.725 * weight**0.425)
    raise Refused("suv-unknown-type", f"SUVType {kind} is not known")
