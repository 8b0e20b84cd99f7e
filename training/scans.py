"""Whole chest CTs with their lungs and the lesions that are known in them: where a detector looks, and is judged.

A folder of data holds some of `SCANS`, each by its usual name: DICOM folders with what was drawn or published of their
tumours, and the two CTs that come with the sources of pyradiomics (`pyradiomics/lung1_image.nrrd` and its label).
There are few, so a scan is a fold of its own: its place in `SCANS` is the fold in which it is held out.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import highdicom
import numpy as np
from numpy.typing import NDArray

from plugins import codes
from plugins.contract import Volume
from plugins.errors import Refused
from plugins.lungs import lungs
from store.dicom.series import read_study

Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
Floats = NDArray[np.float64]
Spacing = tuple[float, float, float]
AIR_AROUND_MM = 30.0
"""What is kept of the scan around the lungs, mm."""
POINT_RADIUS_MM = 25.0
"""How far a tumour is thought to reach of which only a point is known, mm."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """A lesion that is known to be there."""

    centre: tuple[float, float, float]
    """Its middle, voxel index (k, r, c)."""
    radius_mm: float
    """Half of its longest side, mm."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """The part of one CT that holds the lungs."""

    name: str
    """Name of the scan, one of its kind."""
    hu: Array
    """HU, `(K, R, C)`."""
    inside: BoolArray
    """The closed lungs, `(K, R, C)`."""
    spacing_mm: Spacing
    """Distance of two voxels along k, r, c; mm."""
    known: tuple[Known, ...]
    """Lesions that are known; there may be others."""

    def away_mm(self, point: Floats | tuple[float, ...]) -> float:
        """Return how far a point (voxel index) is from the surface of the nearest known lesion, mm; inf without one."""
        steps = np.asarray(self.spacing_mm)
        gaps = [
            float(np.linalg.norm((np.asarray(one.centre) - np.asarray(point)) * steps)) - one.radius_mm
            for one in self.known
        ]
        return min(gaps, default=float("inf"))


def present(root: Path) -> tuple[str, ...]:
    """Return the names of the scans that a folder holds, in the order of `SCANS`."""
    return tuple(name for name in SCANS if (root / _sign_of(name)).exists())


def sources(name: str, root: Path) -> tuple[Path, ...]:
    """Return the files that a scan is read from."""
    if SCANS[name] is _nrrd:
        return (root / f"{name}_image.nrrd", root / f"{name}_label.nrrd")
    return tuple(sorted(path for path in (root / name).rglob("*") if path.is_file()))


def load_scan(name: str, root: Path) -> Scan:
    """Return a scan with its lungs, which takes seconds. Refuses `no-scan`, and what reading it refuses."""
    if name not in SCANS or not (root / _sign_of(name)).exists():
        raise Refused("no-scan", f"there is no scan '{name}' in {root}; known are {', '.join(SCANS)}")
    volume, known = SCANS[name](root / name)
    return scan_of(name, volume, known)


def scan_of(name: str, volume: Volume, known: tuple[Known, ...] = ()) -> Scan:
    """Return the part of a CT around its lungs. Refuses as `plugins.lungs.lungs` does."""
    found = lungs(volume)
    inside = found.left.full() | found.right.full()
    box = []
    for axis, step in enumerate(volume.spacing_mm):
        held = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        margin = round(AIR_AROUND_MM / step)
        box.append(slice(max(0, int(held[0]) - margin), int(held[-1]) + 1 + margin))
    k, r, c = (part.start for part in box)
    moved = tuple(
        Known(centre=(o.centre[0] - k, o.centre[1] - r, o.centre[2] - c), radius_mm=o.radius_mm)
        for o in known
    )
    return Scan(
        name=name,
        hu=np.ascontiguousarray(volume.array[tuple(box)], dtype=np.float32),
        inside=np.ascontiguousarray(inside[tuple(box)]),
        spacing_mm=volume.spacing_mm,
        known=moved,
    )


def thickened(scan: Scan, count: int) -> Scan:
    """Return a scan as slices `count` times as thick would show it: each is the mean of so many, what is over is left.

    A slice lies in the lungs where at least half of those that it is made of do.
    """
    depth = len(scan.hu) // count
    hu, inside = (
        array[: depth * count].reshape(depth, count, *array.shape[1:]).mean(axis=1, dtype=np.float32)
        for array in (scan.hu, scan.inside)
    )
    k, r, c = scan.spacing_mm
    known = tuple(
        replace(one, centre=((one.centre[0] - (count - 1) / 2) / count, *one.centre[1:]))
        for one in scan.known
    )
    return replace(scan, hu=hu, inside=inside >= 0.5, spacing_mm=(k * count, r, c), known=known)


def _point(folder: Path) -> tuple[Volume, tuple[Known, ...]]:
    """Return a CT of whose tumour a point was published."""
    volume = _ct(folder)
    k, r, c = json.loads((folder / "expected.json").read_text())["tumour"]["voxel_kji"]
    return volume, (Known(centre=(k, r, c), radius_mm=POINT_RADIUS_MM),)


def _drawn(folder: Path) -> tuple[Volume, tuple[Known, ...]]:
    """Return a CT with tumour and lymph node as they were drawn for radiotherapy."""
    study = read_study([p for p in folder.rglob("*.dcm")]).study
    volume = study.by_role("ct")[0]
    lesions = [d for d in study.drawn if d.label.startswith(("Tumor", "LN"))]
    return volume, tuple(_known(d.mask.full(), volume.spacing_mm) for d in lesions)


def _boxes(folder: Path) -> tuple[Volume, tuple[Known, ...]]:
    """Return a CT with boxes around its tumour on some of the slices."""
    volume = _ct(folder)
    with (folder / "boxes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    at = [volume.sop_instance_uids.index(row["sop_instance_uid"]) for row in rows]
    low = (min(at), min(int(row["ymin"]) for row in rows), min(int(row["xmin"]) for row in rows))
    high = (max(at), max(int(row["ymax"]) for row in rows), max(int(row["xmax"]) for row in rows))
    return volume, (_known_box(np.asarray(low), np.asarray(high), volume.spacing_mm),)


def _nrrd(stem: Path) -> tuple[Volume, tuple[Known, ...]]:
    """Return a CT of pyradiomics with the tumour of its label."""
    import SimpleITK

    image = SimpleITK.ReadImage(f"{stem}_image.nrrd")
    label = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(f"{stem}_label.nrrd")) > 0
    hu = SimpleITK.GetArrayFromImage(image).astype(np.float32)
    x, y, z = image.GetSpacing()
    turn = np.asarray(image.GetDirection()).reshape(3, 3)
    affine = np.eye(4)
    affine[:3, :3] = turn[:, ::-1] * (z, y, x)
    affine[:3, 3] = image.GetOrigin()
    volume = Volume(
        array=hu,
        geometry=highdicom.VolumeGeometry(affine=affine, spatial_shape=hu.shape, coordinate_system="PATIENT"),
        role="ct",
        unit=codes.HU,
        modality="CT",
        series_instance_uid="",
        sop_class_uid="",
        sop_instance_uids=("",) * len(hu),
        slice_positions=tuple(
            (float(p[0]), float(p[1]), float(p[2]))
            for p in affine[:3, 3] + np.arange(len(hu))[:, None] * affine[:3, 0]
        ),
    )
    return volume, (_known(label, volume.spacing_mm),)


def _ct(folder: Path) -> Volume:
    return read_study(sorted((folder / "CT").glob("*.dcm"))).study.by_role("ct")[0]


def _known(mask: BoolArray, spacing_mm: Spacing) -> Known:
    held = np.argwhere(mask)
    return _known_box(held.min(axis=0), held.max(axis=0), spacing_mm)


def _known_box(low: NDArray[np.int64], high: NDArray[np.int64], spacing_mm: Spacing) -> Known:
    k, r, c = ((low + high) / 2).tolist()
    return Known(centre=(k, r, c), radius_mm=float(((high - low + 1) * np.asarray(spacing_mm)).max()) / 2)


def _sign_of(name: str) -> str:
    """Return the path that is there when a scan is."""
    return f"{name}_image.nrrd" if SCANS[name] is _nrrd else f"{name}/CT"


SCANS: dict[str, Callable[[Path], tuple[Volume, tuple[Known, ...]]]] = {
    "ct_r01_001": _point,
    "ct_4dlung": _drawn,
    "lung_dx_a0001": _boxes,
    "pyradiomics/lung1": _nrrd,
    "pyradiomics/lung2": _nrrd,
}
"""How each scan is read, by its path in a folder of data."""


__all__ = ["SCANS", "Known", "Scan", "load_scan", "present", "scan_of", "sources", "thickened"]
