"""With which kernels a series was reconstructed, and whether several images of one place make one volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from plugins.contract import Flag
from plugins.errors import Refused
from store.dicom.geometry import Arrangement
from store.dicom.slices import Slice

MOST_GROUPS = 3
LEAST_SHARE = 0.25
"""Each group has such a part of the slices."""
LEAST_SLICES = 4
LEAST_OVERLAP = 0.5
"""The groups share more than such a part of the extent of the shortest."""
LEAST_CHANGES = 0.75
"""Such a part of the neighbours in the common range are of different groups."""
SAME_STEP = 0.1
ASKED: Final = {
    "ConvolutionKernel": "kernel",
    "AcquisitionNumber": "acquisition",
    "AcquisitionTime": "acquisition time",
    "TemporalPositionIdentifier": "time point",
    "NominalPercentageOfCardiacPhase": "phase of the heart in %",
    "TriggerTime": "trigger time",
    "EchoNumbers": "echo",
    "EchoTime": "echo time",
}
"""What tells several images of a place apart, and how it is called."""
OF_PASSES: Final = frozenset({"AcquisitionNumber", "AcquisitionTime", "TriggerTime"})
"""What differs between two passes over the slices of one MR, too, and is asked of CT alone."""

FloatArray = NDArray[np.float64]


def kernels_of(slices: Sequence[Slice]) -> tuple[str, ...]:
    """Return the kernels that the slices state, in alphabetical order."""
    return tuple(sorted({s.says("ConvolutionKernel") for s in slices} - {""}))


def kernel_doubts(kernels: Sequence[str]) -> tuple[Flag, ...]:
    """Return the doubt `mixed-kernels` of a series that was reconstructed with several kernels."""
    if len(kernels) < 2:
        return ()
    sentence = (
        f"its slices were reconstructed with {len(kernels)} kernels ({', '.join(kernels)}): densities and textures are "
        "those of no single one and compare with no other series"
    )
    return (Flag(code="mixed-kernels", sentence=sentence),)


def require_one_reconstruction(slices: Sequence[Slice], arranged: Arrangement) -> None:
    """Refuse `several-acquisitions`: slices of several images of a place that alternate through one volume.

    The slices are given in the order of the volume. Kernels that alternate are evidence enough; acquisitions, time
    points and echoes are where each is a regular series by itself. Numbers and times of each slice, rotation or bed
    position of its own are none.
    """
    along = np.asarray(arranged.positions_mm) @ arranged.geometry.affine[:3, 0]
    along = along / np.linalg.norm(arranged.geometry.affine[:3, 0])
    is_ct = slices[0].file.modality == "CT"
    for keyword, called in ASKED.items():
        if not is_ct and keyword in OF_PASSES:
            continue
        names = [s.says(keyword) for s in slices]
        if alternate(names, along, regular=keyword != "ConvolutionKernel"):
            named = ", ".join(f"{called} {name or 'not stated'}" for name in dict.fromkeys(names))
            raise Refused(
                "several-acquisitions",
                "slices of several acquisitions, reconstructions, time points or echoes lie between one another "
                f"({named}); send each as a series of its own",
            )


def alternate(names: Sequence[str], along: FloatArray, *, regular: bool = False) -> bool:
    """Return whether two or three groups of slices lie between one another along most of what they share.

    `names` are those of the groups and `along` the positions, mm, slice by slice and growing. With `regular` each group
    also has at least four slices and steps that are one whole multiple, of 2 at least, of the mean step of all.
    """
    groups = sorted(set(names))
    if not 2 <= len(groups) <= MOST_GROUPS:
        return False
    labels = np.array([groups.index(name) for name in names])
    members = [np.flatnonzero(labels == group) for group in range(len(groups))]
    if min(map(len, members)) < LEAST_SHARE * len(names):
        return False
    first, last = max(int(own[0]) for own in members), min(int(own[-1]) for own in members)
    shortest = min(float(along[own[-1]] - along[own[0]]) for own in members)
    if first >= last or along[last] - along[first] <= LEAST_OVERLAP * shortest:
        return False
    if np.mean(np.diff(labels[first : last + 1]) != 0) < LEAST_CHANGES:
        return False
    return not regular or all(_is_regular(own, along) for own in members)


def _is_regular(own: NDArray[np.intp], along: FloatArray) -> bool:
    if len(own) < LEAST_SLICES:
        return False
    steps = np.diff(along[own]) * (len(along) - 1) / (along[-1] - along[0])
    whole = np.rint(np.median(steps))
    return bool(whole >= 2 and (np.abs(steps - whole) < SAME_STEP * whole).all())


__all__ = ["alternate", "kernel_doubts", "kernels_of", "require_one_reconstruction"]
