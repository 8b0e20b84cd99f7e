"""From stored PET values to SUVbw: the rules of the vendors, each path named in what is kept.

SUVbw = (slope * stored) * weight[g] / dose(t_ref). Sources: PS3.3 C.8.9, QIBA vendor-neutral pseudo-code for SUV,
IBSI-SUV manual.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydicom.dataset import Dataset

from plugins.contract import Flag
from plugins.errors import Refused
from store.dicom.body_size import body_size, height_cm, sex, weight_kg
from store.dicom.tracer import MAX_HALF_LIVES, TRACER, Tracer, injection_time, tracer_of
from store.dicom.values import (
    day,
    instant,
    instant_offset,
    integer,
    items,
    meant,
    moment,
    number,
    text,
    texts,
    utc_offset,
)

DIFFERS = 0.01
ACROSS_MIDNIGHT = timedelta(hours=18)
"""Times of day further apart are of a scan across midnight: nobody scans for so long, or makes a series so late."""
SIZES = ("SUVType", "PatientWeight", "PatientSize", "PatientSex")


@dataclass(frozen=True, kw_only=True)
class SuvScale:
    """What a rescaled PET value is multiplied by to become SUVbw."""

    factors: tuple[float, ...]
    """One factor for each header."""
    provenance: dict[str, float | str]
    """Path taken and every number that went in."""
    flags: tuple[Flag, ...]
    """Doubts."""


def suv_scale(headers: Sequence[Dataset], *, voxel_ml: float | None = None) -> SuvScale:
    """Return the factor of each PET slice from its rescaled value to SUVbw in g/ml.

    `headers` are those of one series; `voxel_ml` is the volume of a voxel, needed for count rates (CPS) only.
    Refuses with a code that begins with `suv-` when an input is missing or makes no sense; nothing is substituted.
    """
    if any(text(h, "Modality") not in ("PT", "") for h in headers):
        raise Refused("suv-not-pet", "the series is not PET")
    flags: list[Flag] = []
    notes: dict[str, float | str] = {}
    units = _single(headers, "Units", "suv-no-units")
    notes["units"] = units
    _require_corrected(headers, units, flags)
    if any(number(h, "RescaleIntercept") not in (None, 0.0) for h in headers):
        raise Refused("suv-intercept", "RescaleIntercept is not 0, which a PET image must have")
    if units in ("GML", "CM2ML"):
        _require_same(headers, SIZES)
        factors = [_normalised(headers[0], units, notes)] * len(headers)
    elif units == "CNTS" and all(found := [_philips(h, 0x00) for h in headers]):
        notes["path"] = "CNTS with Philips SUV scale factor"
        factors = [float(f or 0) for f in found]
    else:
        activity = _activity(headers, units, voxel_ml, notes)
        factors = [a * s for a, s in zip(activity, _per_activity(headers, notes, flags), strict=True)]
    if not all(math.isfinite(f) and f > 0 for f in factors):
        raise Refused("suv-bad-factor", "the SUV factor is not a positive number")
    notes["factor_first"] = factors[0]
    notes["factor_min"], notes["factor_max"] = min(factors), max(factors)
    return SuvScale(factors=tuple(factors), provenance=notes, flags=tuple(flags))


def _single(headers: Sequence[Dataset], keyword: str, code: str) -> str:
    found = {text(h, keyword).upper() for h in headers}
    if len(found) != 1 or not (value := found.pop()):
        raise Refused(code, f"{keyword} is absent or differs between slices, so no SUV can be computed")
    return value


def _require_same(headers: Sequence[Dataset], keywords: Sequence[str]) -> None:
    """Refuse (`suv-inputs-differ`) slices that disagree on the patient's body or on what was injected when."""
    for keyword in keywords:
        if len({meant(h, keyword) for h in headers}) > 1:
            raise Refused("suv-inputs-differ", f"{keyword} differs between slices; values stay as they are")
    injected = [items(h, "RadiopharmaceuticalInformationSequence") for h in headers]
    for keyword in TRACER:
        if len({tuple(meant(item, keyword) for item in found) for found in injected}) > 1:
            raise Refused("suv-inputs-differ", f"{keyword} differs between slices; values stay as they are")


def _private(header: Dataset, group: int, creator: str, element: int) -> tuple[int, int] | None:
    """Return the tag of a private element in the block of its creator, or in the first block when that has none."""
    blocks = [b for b in range(0x10, 0x100) if text(header, (group, b)) == creator]
    if not blocks and text(header, (group, 0x10)):
        return None
    return group, (blocks[0] if blocks else 0x10) << 8 | element


def _philips(header: Dataset, element: int) -> float | None:
    tag = _private(header, 0x7053, "Philips PET Private Group", element)
    return None if tag is None else number(header, tag)


def _require_corrected(headers: Sequence[Dataset], units: str, flags: list[Flag]) -> None:
    """Refuse images without attenuation correction, or that claim a decay correction they do not list."""
    normalised = units in ("GML", "CM2ML")
    for header in headers:
        done = {word.upper() for word in texts(header, "CorrectedImage")}
        if not done and normalised:
            flags.append(
                Flag(code="suv-corrections-unknown", sentence="CorrectedImage is absent; taken as corrected")
            )
            return
        if "ATTN" not in done:
            raise Refused(
                "suv-not-attenuation-corrected", "CorrectedImage does not name ATTN; use the corrected series"
            )
        if (
            not _is_decayed(header)
            and not normalised
            and text(header, "DecayCorrection").upper() in ("START", "ADMIN")
        ):
            raise Refused(
                "suv-not-decay-corrected", "DecayCorrection is stated, yet CorrectedImage does not name DECY"
            )


def _is_decayed(header: Dataset) -> bool:
    return not {word.upper() for word in texts(header, "CorrectedImage")}.isdisjoint(("DECY", "DECAY"))


def _normalised(header: Dataset, units: str, notes: dict[str, float | str]) -> float:
    """Return the factor of an image that is an SUV already, of whatever body size."""
    kind = text(header, "SUVType").upper() or ("BW" if units == "GML" else "BSA")
    notes["path"] = f"{units} with SUVType {kind}"
    if kind == "BW" and units == "GML":
        return 1.0
    if (kind == "BSA") != (units == "CM2ML"):
        raise Refused("suv-unknown-type", f"SUVType {kind} does not go with units {units}")
    weight = weight_kg(header)
    size = body_size(kind, weight=weight, height=height_cm(header), gender=sex(header))
    notes["weight_kg"], notes["body_size"] = weight, size
    return weight * 1e3 / (size * 1e4) if kind == "BSA" else weight / size


def _activity(
    headers: Sequence[Dataset], units: str, voxel_ml: float | None, notes: dict[str, float | str]
) -> list[float]:
    """Return the factor of each slice from its rescaled value to Bq/ml."""
    if units == "BQML":
        notes["path"] = "BQML"
        return [1.0] * len(headers)
    if units == "CNTS":
        factors = [_philips(h, 0x09) for h in headers]
        if not all(factors):
            raise Refused(
                "suv-counts", "Units are CNTS without the vendor's factor; counts cannot become SUV"
            )
        notes["path"] = "CNTS with Philips activity factor"
        return [float(f or 0) for f in factors]
    if units == "CPS":
        if all("DCAL" in texts(h, "CorrectedImage") for h in headers):
            if not voxel_ml:
                raise Refused("suv-counts", "Units are CPS and the volume of a voxel is not known")
            notes["path"], notes["voxel_ml"] = "CPS calibrated, by voxel volume", voxel_ml
            return [1.0 / voxel_ml] * len(headers)
        factors = [number(h, "DoseCalibrationFactor") for h in headers]
        if not all(factors):
            raise Refused(
                "suv-counts", "Units are CPS without DoseCalibrationFactor; counts cannot become SUV"
            )
        notes["path"] = "CPS with DoseCalibrationFactor"
        return [float(f or 0) for f in factors]
    raise Refused("suv-units", f"Units {units} cannot become SUV")


def _per_activity(
    headers: Sequence[Dataset], notes: dict[str, float | str], flags: list[Flag]
) -> list[float]:
    """Return the factor of each slice from Bq/ml to SUVbw."""
    correction = _single(headers, "DecayCorrection", "suv-no-decay-correction")
    if correction == "NONE" and any(_is_decayed(header) for header in headers):
        raise Refused(
            "suv-decay-correction-contradicts",
            "DecayCorrection is NONE, yet CorrectedImage names a decay correction; correct the one that is wrong",
        )
    _require_same(headers, ("PatientWeight",))
    weight = weight_kg(headers[0])
    injected = tracer_of(headers[0], flags)
    notes |= {"decay_correction": correction, "weight_kg": weight}
    notes |= {"dose_bq": injected.dose_bq, "half_life_s": injected.half_life_s}
    grams = weight * 1000
    if correction == "ADMIN":
        return [grams / injected.dose_bq] * len(headers)
    if correction not in ("START", "NONE"):
        raise Refused("suv-no-decay-correction", f"DecayCorrection {correction} is not known")
    times = [acquired(h) for h in headers]
    if correction == "NONE":
        return [grams * f for f in _undecayed(headers, times, injected, notes, flags)]
    reference, rule = _reference(headers, times, injected)
    begin = min((t for t in times if t is not None), default=None)
    start = injection_time(headers[0], reference, injected.half_life_s, flags, begin=begin)
    elapsed = (reference - start).total_seconds()
    notes |= {"injected_at": start.isoformat(), "corrected_to": reference.isoformat(), "reference_rule": rule}
    notes["seconds_after_injection"] = elapsed
    _cross_check(headers, times, injected, reference, rule, flags)
    return [grams / (injected.dose_bq * math.exp(-injected.decay_per_s * elapsed))] * len(headers)


def acquired(header: Dataset) -> datetime | None:
    """Return when the slice's acquisition began: AcquisitionDate and Time, else AcquisitionDateTime.

    Without AcquisitionDate the day is that of the series, or the one beside it where only midnight can lie between
    both times (`ACROSS_MIDNIGHT`). Refuses (`suv-scan-zone-unknown`) as `_on_its_clock` does.
    """
    time = text(header, "AcquisitionTime")
    if found := moment(day(text(header, "AcquisitionDate")), time):
        return found
    date = day(text(header, "SeriesDate"))
    found, series = moment(date, time), moment(date, text(header, "SeriesTime"))
    if found is None:
        return _on_its_clock(header, "AcquisitionDateTime", "AcquisitionDateTime")
    if series is not None and abs(series - found) > ACROSS_MIDNIGHT:
        return found + timedelta(days=1 if found < series else -1)
    return found


def _on_its_clock(header: Dataset, tag: str | tuple[int, int], name: str) -> datetime | None:
    """Return a date and time of the scan as its other times are told, in TimezoneOffsetFromUTC, or None.

    Without that an offset from UTC is taken for the scanner's own; 0 may be a time that was brought to UTC, and is
    refused (`suv-scan-zone-unknown`).
    """
    words, zone = text(header, tag), text(header, "TimezoneOffsetFromUTC")
    if utc_offset(zone) is None and instant_offset(words) == timedelta(0):
        raise Refused(
            "suv-scan-zone-unknown",
            f"{name} {words} has an offset from UTC of 0, and the zone of the scan's other times is not stated; add "
            "TimezoneOffsetFromUTC",
        )
    return instant(words, zone)


def _mean_time_s(tracer: Tracer, frame_s: float) -> float:
    """Return the time within a frame at which the activity equals its mean over the frame, s."""
    x = tracer.decay_per_s * frame_s
    return math.log(x / -math.expm1(-x)) / tracer.decay_per_s if x > 0 else 0.0


def _back_computed(
    headers: Sequence[Dataset], times: Sequence[datetime | None], tracer: Tracer
) -> datetime | None:
    """Return the reference time by acquisition time and FrameReferenceTime of the earliest slice, or None.

    A result after the acquisition began (FrameReferenceTime left at 0) is no reference time.
    """
    known = [(t, h) for t, h in zip(times, headers, strict=True) if t is not None]
    if not known:
        return None
    begin, header = min(known, key=lambda pair: pair[0])
    shift_ms, frame_ms = number(header, "FrameReferenceTime"), number(header, "ActualFrameDuration")
    if shift_ms is None or not frame_ms or not math.isfinite(shift_ms) or frame_ms < 0:
        return None
    return begin + timedelta(seconds=_mean_time_s(tracer, frame_ms / 1000) - shift_ms / 1000)


def _reference(
    headers: Sequence[Dataset], times: Sequence[datetime | None], tracer: Tracer
) -> tuple[datetime, str]:
    """Return the time to which the values are decay corrected, and the rule that found it (QIBA order)."""
    stated = {moment(day(text(h, "SeriesDate")), text(h, "SeriesTime")) for h in headers}
    series = stated.pop() if len(stated) == 1 else None
    known = [t for t in times if t is not None]
    earliest = min(known) if known else None
    if series is not None and (earliest is None or series <= earliest):
        return series, "series time"
    if scan := _ge_scan_time(headers):
        return scan, "GE scan time"
    back = _back_computed(headers, times, tracer)
    if back is not None and earliest is not None and back <= earliest + timedelta(seconds=1):
        return back, "frame reference time"
    if earliest is None:
        raise Refused(
            "suv-no-scan-time", "neither series nor acquisition time is stated; values stay in activity"
        )
    return earliest, "earliest acquisition time"


def _ge_scan_time(headers: Sequence[Dataset]) -> datetime | None:
    """Return GE's private scan date and time (0009,100D), of creator GEMS_PETD_01 or of none."""
    found = []
    for header in headers:
        tag = _private(header, 0x0009, "GEMS_PETD_01", 0x0D)
        if tag is not None and (scan := _on_its_clock(header, tag, "GE's scan time (0009,100D)")):
            found.append(scan)
    return min(found, default=None)


def _undecayed(
    headers: Sequence[Dataset],
    times: Sequence[datetime | None],
    tracer: Tracer,
    notes: dict[str, float | str],
    flags: list[Flag],
) -> list[float]:
    """Return 1/dose for each slice of an image without decay correction, at the slice's own time."""
    factors = []
    earliest = min((t for t in times if t is not None), default=None)
    if earliest is None or any(t is None for t in times):
        raise Refused("suv-no-scan-time", "a slice has no acquisition time; values stay in activity")
    start = injection_time(headers[0], earliest, tracer.half_life_s, flags)
    notes |= {
        "injected_at": start.isoformat(),
        "corrected_to": "none",
        "reference_rule": "acquisition time of each slice",
    }
    for header, time in zip(headers, times, strict=True):
        frame_ms = integer(header, "ActualFrameDuration")
        if not frame_ms or frame_ms < 0 or time is None:
            raise Refused("suv-no-frame-duration", "ActualFrameDuration is absent; values stay in activity")
        x = tracer.decay_per_s * frame_ms / 1000
        elapsed = (time - start).total_seconds()
        if elapsed > MAX_HALF_LIVES * tracer.half_life_s:
            raise Refused(
                "suv-bad-injection-time",
                f"a slice acquired at {time.isoformat()} is more than {MAX_HALF_LIVES} half-lives after the "
                f"injection at {start.isoformat()}; correct AcquisitionDate or the injection time",
            )
        factors.append(x / -math.expm1(-x) * math.exp(tracer.decay_per_s * elapsed) / tracer.dose_bq)
    return factors


def _cross_check(
    headers: Sequence[Dataset],
    times: Sequence[datetime | None],
    tracer: Tracer,
    reference: datetime,
    rule: str,
    flags: list[Flag],
) -> None:
    """Flag a reference time whose factor differs by more than 1 % from the one by FrameReferenceTime."""
    other = _back_computed(headers, times, tracer)
    if other is None or rule == "frame reference time":
        return
    change = abs(math.expm1(tracer.decay_per_s * (other - reference).total_seconds()))
    if change > DIFFERS:
        sentence = f"the SUV by FrameReferenceTime would differ by {100 * change:.1f} %; the {rule} is used"
        flags.append(Flag(code="suv-reference-times-differ", sentence=sentence))
