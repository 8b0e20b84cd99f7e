"""Everything that is measured of one lesion, by the kind of image it lies on."""

from __future__ import annotations

from pydicom.sr.coding import Code

from plugins import codes
from plugins.contract import Mask, Measurement, Volume
from plugins.measure.axes import CONTOUR, Convention, axes_method, measure_axes, measure_node_axes
from plugins.measure.density import statistics
from plugins.measure.uptake import PeakVariant, Threshold, metabolism, peak_method, sul_factor, suv_peak
from plugins.measure.volume import MM3_PER_ML, volume_by_positions_mm3, volume_mm3

_STATISTICS_METHOD = "all voxels of the region"
_UNEVEN = 1e-3


def measure_lesion(
    mask: Mask,
    volume: Volume,
    *,
    convention: Convention = CONTOUR,
    node: bool = False,
    threshold: Threshold | None = None,
    peak: PeakVariant = "global",
) -> tuple[Measurement, ...]:
    """Return the measurements of one lesion on one volume, each with its unit and its convention in words.

    Always `long_axis`, `short_axis` (mm, end points in LPS mm) and `volume` (ml). On CT `hu_mean`, `hu_sd`, `hu_min`,
    `hu_max`, `hu_median`; on PET in SUV `suv_max`, `suv_mean`, `suv_sd`, `suv_min`, `suv_median`,
    `suv_peak`, `mtv` (ml), `tlg` (g), and `sul_peak` where the lean body mass is known; on everything else `mean`,
    `sd`, `min`, `max`, `median` in its own unit.
    `node` measures the axes by the rule for nodes; `threshold` (default SUV >= 4.0) is that of
    `mtv` and `tlg`.
    Refuses a mask of another grid, an empty one, and one whose voxels all lack a value.
    """
    shape = (*_axes(mask, volume, convention, node), _volume(mask, volume))
    if volume.role == "pet_suv":
        return shape + _uptake(mask, volume, threshold or Threshold.fixed(), peak)
    return shape + _statistics(mask, volume)


def _axes(mask: Mask, volume: Volume, convention: Convention, node: bool) -> tuple[Measurement, Measurement]:
    axes = (measure_node_axes if node else measure_axes)(mask, volume, convention)
    long_words, short_words = axes_method(volume, convention, node=node)
    return (
        Measurement(
            name="long_axis",
            concept=codes.LONG_AXIS,
            value=axes.long_axis_mm,
            unit=codes.MM,
            method=long_words,
            end_points_mm=axes.long_end_points_mm,
            slice_index=axes.slice_index,
        ),
        Measurement(
            name="short_axis",
            concept=codes.SHORT_AXIS,
            value=axes.short_axis_mm,
            unit=codes.MM,
            method=short_words,
            end_points_mm=axes.short_end_points_mm,
            slice_index=axes.slice_index,
        ),
    )


def _volume(mask: Mask, volume: Volume) -> Measurement:
    volume_ml = volume_mm3(mask, volume) / MM3_PER_ML
    own_ml = volume_by_positions_mm3(mask, volume) / MM3_PER_ML
    words = "number of voxels x voxel volume, slice distance from positions"
    if abs(own_ml - volume_ml) > _UNEVEN * volume_ml:
        words += f"; slices are uneven: {own_ml:.4g} ml with each slice's own thickness"
    return Measurement(name="volume", concept=codes.VOLUME, value=volume_ml, unit=codes.ML, method=words)


def _value(name: str, value: float, volume: Volume, derivation: Code, method: str) -> Measurement:
    concept = {
        "ct": codes.ATTENUATION,
        "pet_suv": codes.SUV_BW,
        "pet_activity": codes.TOMOGRAPHIC_ACTIVITY,
        "mr": codes.MR_SIGNAL_INTENSITY,
    }.get(volume.role, codes.VOXEL_VALUE)
    return Measurement(
        name=name, concept=concept, value=value, unit=volume.unit, method=method, derivation=derivation
    )


def _statistics(mask: Mask, volume: Volume) -> tuple[Measurement, ...]:
    found = statistics(mask, volume)
    prefix = "hu_" if volume.role == "ct" else ""
    words = _STATISTICS_METHOD
    return (
        _value(f"{prefix}mean", found.mean, volume, codes.MEAN, words),
        _value(f"{prefix}sd", found.sd, volume, codes.STANDARD_DEVIATION, f"{words}, divided by n"),
        _value(f"{prefix}min", found.minimum, volume, codes.MINIMUM, words),
        _value(f"{prefix}max", found.maximum, volume, codes.MAXIMUM, words),
        _value(f"{prefix}median", found.median, volume, codes.MEDIAN, words),
    )


def _uptake(mask: Mask, volume: Volume, threshold: Threshold, peak: PeakVariant) -> tuple[Measurement, ...]:
    found = statistics(mask, volume)
    active = metabolism(mask, volume, threshold)
    highest = suv_peak(mask, volume, peak)
    return (
        _value("suv_max", found.maximum, volume, codes.MAXIMUM, _STATISTICS_METHOD),
        _value("suv_mean", found.mean, volume, codes.MEAN, _STATISTICS_METHOD),
        _value("suv_sd", found.sd, volume, codes.STANDARD_DEVIATION, f"{_STATISTICS_METHOD}, divided by n"),
        _value("suv_min", found.minimum, volume, codes.MINIMUM, _STATISTICS_METHOD),
        _value("suv_median", found.median, volume, codes.MEDIAN, _STATISTICS_METHOD),
        _value("suv_peak", highest, volume, codes.PEAK, peak_method(peak)),
        Measurement(
            name="mtv",
            concept=codes.METABOLIC_VOLUME,
            value=active.mtv_ml,
            unit=codes.ML,
            method=f"voxels with {threshold.words}",
        ),
        Measurement(
            name="tlg",
            concept=codes.TOTAL_LESION_GLYCOLYSIS,
            value=active.tlg_g,
            unit=codes.GRAM,
            method=f"MTV x SUVmean, {threshold.words}",
        ),
        *normalised_to_lean("sul_peak", highest, volume, codes.PEAK, peak_method(peak)),
    )


def normalised_to_lean(
    name: str, suv: float, volume: Volume, derivation: Code, method: str
) -> tuple[Measurement, ...]:
    """Return an SUVbw as SUL (lean body mass after Janmahasatian), g/ml; nothing where that mass is not known."""
    factor = sul_factor(volume)
    if factor is None:
        return ()
    return (
        Measurement(
            name=name,
            concept=codes.SUV_LBM_JANMA,
            value=factor * suv,
            unit=codes.SUV_LBM_JANMA_UNIT,
            method=method,
            derivation=derivation,
        ),
    )
