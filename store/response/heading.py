"""The units that headings of a table of measurements name in brackets: `Long axis (cm)` is no column in millimetres."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Final

_BRACKETS: Final = re.compile(r"[(\[]([^)\]]*)")
_MM: Final = frozenset({"mm", "millimeter", "millimeters", "millimetre", "millimetres"})
_MM3: Final = frozenset({"mm3", "cmm"})
_ML: Final = frozenset({"ml", "cm3", "cc", "ccm", "milliliter", "milliliters", "millilitre", "millilitres"})
_SUL: Final = frozenset({"g/ml", "g/cm3", "g/cc", "sul", "suvlbm", "lbm"})
_MINUTES: Final = frozenset({"min", "mins", "minute", "minutes"})
_MBQ: Final = frozenset({"mbq"})
_OWN: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys(("long_axis_mm", "short_axis_mm", "long_axis_sd_mm", "short_axis_sd_mm"), _MM),
    **dict.fromkeys(("volume_mm3", "volume_sd_mm3"), _MM3),
    **dict.fromkeys(("volume_ml", "volume_sd_ml"), _ML),
    **dict.fromkeys(("suv_peak", "suv_peak_sd", "liver_mean", "liver_sd", "mediastinum"), _SUL),
    **dict.fromkeys(("blood_pool_mean", "blood_pool_sd"), _SUL),
    "tlg": _SUL | _ML | {"g"},
    "uptake_minutes": _MINUTES,
    "injected_mbq": _MBQ,
}
"""The spellings of the unit of each column that has one."""
_WORDS: Final[Mapping[frozenset[str], str]] = {
    _MM: "mm",
    _MM3: "mm3",
    _ML: "ml",
    _SUL: "SUL, g/ml",
    _MINUTES: "minutes",
    _MBQ: "MBq",
    _OWN["tlg"]: "g",
}
_LENGTHS: Final = (
    "nm um \N{GREEK SMALL LETTER MU}m cm dm centimeter centimeters centimetre centimetres inch inches"
)
_COUNTS: Final = "px pixel pixels voxel voxels mm2 cm2"
_VOLUMES: Final = "dm3 m3 ul \N{GREEK SMALL LETTER MU}l cl dl liter liters litre litres"
_UPTAKES: Final = "suvbw bw bodyweight suvbsa bsa suvibw ibw kg mg bq/ml kbq/ml bq kbq gbq ci mci uci %"
_TIMES: Final = "sec second seconds hour hours"
_UNITS: Final = frozenset().union(
    *(_MM, _MM3, _ML, _SUL, _MINUTES, _MBQ),
    *(words.split() for words in (_LENGTHS, _COUNTS, _VOLUMES, _UPTAKES, _TIMES)),
)
"""What is a unit wherever it stands in brackets."""
_ALONE: Final = frozenset({"m", "l", "g", "s", "h", "in", '"', "body weight"})
"""What is a unit when nothing else stands in the brackets."""


def plain_heading(heading: str) -> str:
    """Return a heading in small letters, with units as they are typed: `Volume (mm³)` is `volume (mm3)`."""
    return unicodedata.normalize("NFKC", heading).lower().replace("^", "")


def other_unit(heading: str, column: str) -> str:
    """Return the unit in the brackets of a heading that is not the one of its column; empty when there is none."""
    own = _OWN.get(column)
    if own is None:
        return ""
    for inner in _BRACKETS.findall(plain_heading(heading)):
        words = {word for word in re.split(r"[\s,;:*{}\N{MIDDLE DOT}]+", inner) if word}
        found: list[str] = [word for word in (*sorted(words), inner.strip()) if word in _UNITS - own]
        found += [inner.strip()] if inner.strip() in _ALONE - own else []
        if found:
            return found[0]
    return ""


def unit_of(column: str) -> str:
    """Return the unit of a column in words; empty for one without."""
    return _WORDS.get(_OWN.get(column, frozenset()), "")


def has_own_unit(heading: str, column: str) -> bool:
    """Return whether the brackets of a heading hold the unit of its column."""
    inner = (found.strip() for found in _BRACKETS.findall(plain_heading(heading)))
    return any(found in _OWN.get(column, ()) for found in inner)


__all__ = ["has_own_unit", "other_unit", "plain_heading", "unit_of"]
