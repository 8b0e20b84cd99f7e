"""Which of several series is measured: what was acquired before what was made of it, and then thin slices before thick.

A reformat shows the patient in voxels that were interpolated, and along its long side no finer than the slices that it
was made of, however near its own planes lie to one another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from plugins.contract import Flag, Point, Volume
from plugins.flag_codes import SEVERAL_SERIES
from plugins.patient_axes import PatientAxes

Standing = tuple[bool, bool, bool]


def preferred(volumes: Iterable[Volume]) -> tuple[Volume, ...]:
    """Return series, the one to measure first.

    First by `standing`; then those of the nearest slices, to a tenth of a millimetre; those of more slices; the lowest
    series number; the lowest UID.
    """
    return tuple(sorted(volumes, key=lambda v: (standing(v), round(v.spacing_mm[0], 1), *_of_alike(v))))


def standing(volume: Volume) -> Standing:
    """Return what comes before every distance of slices: an image of one value, a CT that is not axial, a reformat.

    True sorts behind False: each serves only where nothing better does.
    """
    return (_is_constant(volume), not _may_be_acquired(volume), volume.is_reformatted)


def holds(volume: Volume, point_mm: Point) -> bool:
    """Return whether a point, LPS mm, lies in a volume."""
    index = volume.to_index(point_mm)
    return all(-0.5 <= i <= n - 0.5 for i, n in zip(index, volume.array.shape, strict=True))


def is_reformat(volume: Volume, others: Iterable[Volume]) -> bool:
    """Return whether a series is a reformat: it says so, or it is a CT beside an axial one in the same frame."""
    if volume.is_reformatted or _may_be_acquired(volume):
        return volume.is_reformatted
    beside = (v for v in others if v.frame_of_reference_uid == volume.frame_of_reference_uid)
    return any(v.role == "ct" and _may_be_acquired(v) and not _is_constant(v) for v in beside)


def reformat_doubts(volume: Volume, others: Iterable[Volume], plugin: str | None = None) -> tuple[Flag, ...]:
    """Return the doubt `reformatted` of a series that is measured although it is a reformat; `others` hold it too."""
    if not is_reformat(volume, others):
        return ()
    sentence = (
        f"{name_of(volume)} is a reformat, made of other images: what is measured on it depends on how it was made; "
        "send the series that was acquired"
    )
    uid = volume.series_instance_uid
    return (Flag(code="reformatted", sentence=sentence, series_instance_uid=uid, plugin=plugin),)


def several(volume: Volume, volumes: Sequence[Volume], plugin: str | None = None) -> tuple[Flag, ...]:
    """Return the note `several-series` on which of some CT series was taken, and why; none where there was one."""
    if len(volumes) == 1:
        return ()
    why = "no acquired one shows the place"
    if not volume.is_reformatted:
        why = "the thinnest acquired one that shows the place"
    sentence = f"of {len(volumes)} CT series, {name_of(volume)} was taken: {why}"
    uid = volume.series_instance_uid
    return (Flag(code=SEVERAL_SERIES, sentence=sentence, series_instance_uid=uid, plugin=plugin),)


def frame_doubts(volume: Volume, others: Iterable[Volume], plugin: str | None = None) -> tuple[Flag, ...]:
    """Return the doubt `several-frames-of-reference` of a point that does not say in which of several spaces it is.

    It was taken for one of `volume`; `others` hold it too.
    """
    beside = [v for v in others if v.frame_of_reference_uid != volume.frame_of_reference_uid]
    if not beside:
        return ()
    sentence = (
        f"the point says no frame of reference: {name_of(volume)} was measured, and in that of "
        f"{', '.join(map(name_of, beside))} it is another place; name a folder with one of them alone"
    )
    uid = volume.series_instance_uid
    return (
        Flag(code="several-frames-of-reference", sentence=sentence, series_instance_uid=uid, plugin=plugin),
    )


def name_of(volume: Volume) -> str:
    """Return what a series is called in sentences."""
    number = volume.series_number
    return f"series {volume.series_instance_uid if number is None else number}"


def _of_alike(volume: Volume) -> tuple[int, bool, int, str]:
    number = volume.series_number
    return (-int(volume.array.shape[0]), number is None, number or 0, volume.series_instance_uid)


def _is_constant(volume: Volume) -> bool:
    return any(flag.code == "constant-image" for flag in volume.flags)


def _may_be_acquired(volume: Volume) -> bool:
    """Return whether a scanner makes such planes: any of MR and PET, of CT those across the body."""
    return volume.role != "ct" or PatientAxes.of(volume).order[0] == 0


__all__ = [
    "Standing",
    "frame_doubts",
    "holds",
    "is_reformat",
    "name_of",
    "preferred",
    "reformat_doubts",
    "several",
    "standing",
]
