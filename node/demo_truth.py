"""The truth of the thorax phantom in the words of a report."""

from __future__ import annotations

import numpy as np

from node.report.shown import TrueThing, TrueValues, Truth
from training.phantom import LungTruth, Nodule, Thorax

SLACK_MM = 5.0
LUNG_TOLERANCE_MM = 45.0
LIVER_TOLERANCE_MM = 60.0


def true_things(thorax: Thorax) -> Truth:
    """Return what a report may compare with: each nodule on CT and PET, each lung on CT, the liver on PET; LPS mm."""
    lungs = tuple(_lung(thorax, truth, number) for number, truth in enumerate(thorax.truth.lungs, start=1))
    liver = TrueThing(
        name="Liver",
        kind="reference",
        centre_mm=thorax.truth.liver_mm,
        tolerance_mm=LIVER_TOLERANCE_MM,
        groups=(TrueValues(role="pet_suv", values={"suv_mean": thorax.truth.liver_suv}),),
    )
    return (*(_nodule(n) for n in thorax.truth.nodules), *lungs, liver)


def _nodule(nodule: Nodule) -> TrueThing:
    shape = {"long_axis": nodule.long_axis_mm, "short_axis": nodule.short_axis_mm, "volume": nodule.volume_ml}
    return TrueThing(
        name=nodule.name,
        kind="nodule",
        centre_mm=nodule.centre_mm,
        tolerance_mm=nodule.long_axis_mm / 2 + SLACK_MM,
        groups=(
            TrueValues(role="ct", values=shape),
            TrueValues(role="pet_suv", values={"suv_max": nodule.suv}),
        ),
    )


def _lung(thorax: Thorax, truth: LungTruth, number: int) -> TrueThing:
    k, r, c = np.argwhere(thorax.lungs == number).mean(axis=0)
    z, y, x = (
        origin + index * step
        for origin, index, step in zip(
            reversed(thorax.ct_grid.origin_mm), (k, r, c), thorax.ct_grid.spacing_mm, strict=True
        )
    )
    values = {"laa_950": truth.laa_950, "perc_15": truth.perc_15, "volume": truth.volume_ml}
    return TrueThing(
        name=f"{truth.side.capitalize()} lung",
        kind="lung",
        centre_mm=(float(x), float(y), float(z)),
        tolerance_mm=LUNG_TOLERANCE_MM,
        groups=(TrueValues(role="ct", values=values),),
    )
