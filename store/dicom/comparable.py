"""What makes the uptake of one PET comparable with another's: lean body mass, injected activity, uptake time.

None of it is needed for SUVbw, so what is missing or cannot be is left out and nothing is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from plugins.errors import Refused
from store.dicom.body_size import body_size, height_cm, sex, weight_kg
from store.dicom.suv import acquired
from store.dicom.tracer import TRACER, injection_time, tracer_of
from store.dicom.values import items, meant

LEANEST, STOUTEST = 10.0, 100.0
"""Body mass indices beyond which height or weight must be wrong (a height in inches, a weight in pounds), kg/m2."""


def comparable(headers: Sequence[Dataset]) -> dict[str, float]:
    """Return what the headers of one PET series tell, each only where they agree on it.

    `lean_body_mass_kg` and `sul_factor`, by which SUVbw becomes SUL; `injected_mbq`; `uptake_minutes`, from the
    injection to the begin of the earliest slice.
    """
    return {**_lean(headers), **_injected(headers)}


def _lean(headers: Sequence[Dataset]) -> dict[str, float]:
    """Return lean body mass after Janmahasatian 2005, learned from adults (doi 10.2165/00003088-200544100-00004)."""
    if _differ(headers, ("PatientWeight", "PatientSize", "PatientSex")):
        return {}
    try:
        weight, height, gender = weight_kg(headers[0]), height_cm(headers[0]), sex(headers[0])
    except Refused:
        return {}
    if not LEANEST <= weight / (height / 100) ** 2 <= STOUTEST:
        return {}
    lean = body_size("LBMJANMA", weight=weight, height=height, gender=gender)
    return {"lean_body_mass_kg": lean, "sul_factor": lean / weight}


def _injected(headers: Sequence[Dataset]) -> dict[str, float]:
    given = [items(header, "RadiopharmaceuticalInformationSequence") for header in headers]
    if any(len(found) != 1 for found in given) or _differ([found[0] for found in given], TRACER):
        return {}
    told: dict[str, float] = {}
    try:
        tracer = tracer_of(headers[0], [])
        told["injected_mbq"] = tracer.dose_bq / 1e6
        times = [time for header in headers if (time := acquired(header)) is not None]
        if len(times) == len(headers):
            start = injection_time(headers[0], min(times), tracer.half_life_s, [])
            told["uptake_minutes"] = (min(times) - start).total_seconds() / 60
    except Refused:
        pass
    return told


def _differ(datasets: Sequence[Dataset], keywords: Sequence[str]) -> bool:
    return any(len({meant(one, keyword) for one in datasets}) > 1 for keyword in keywords)


__all__ = ["comparable"]
