"""A small study with known regions, and the SEG and SRs made of it: what the tests of results begin with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
from dicom_series import make_series
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from plugins import codes
from plugins.contract import Finding, Flag, Mask, Volume
from plugins.measure.lesion import measure_lesion
from store.dicom.seg import Identified, encode_seg
from store.dicom.series import read_study
from store.dicom.sr import Report, encode_nothing_found, encode_planar, encode_volumetric
from store.dicom.uids import derive_uid
from store.provenance import Provenance

PROVENANCE = Provenance(
    plugin="lung_nodule",
    plugin_version="1.2",
    model_name="nodule model",
    model_version="3",
    model_sha256="a" * 64,
    config_sha256="b" * 64,
    manifest_sha256="c" * 64,
    job_key="d" * 64,
    software_version="0.1.0",
    started_at="2025-03-01T10:00:00+00:00",
)
NOW = datetime(2025, 3, 1, 10, 5, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One study, its findings, and how they are written."""

    volume: Volume
    headers: dict[str, Dataset]
    findings: tuple[Identified, ...]
    provenance: Provenance = PROVENANCE

    def seg(self, *, omit_empty_frames: bool = True) -> Dataset:
        return encode_seg(
            self.findings,
            self.volume,
            self.headers,
            self.provenance,
            801,
            NOW,
            omit_empty_frames=omit_empty_frames,
        )

    def report(self, series_number: int, **more: Sequence[Flag] | Sequence[Dataset]) -> Report:
        return Report(
            headers=self.headers,
            provenance=self.provenance,
            series_number=series_number,
            written_at=NOW,
            **more,  # type: ignore[arg-type]
        )

    def volumetric(self, seg: Dataset, **more: Sequence[Flag] | Sequence[Dataset]) -> Dataset:
        return encode_volumetric(self.findings, [self.volume], [seg], self.report(802, **more))

    def planar(self, seg: Dataset, **more: Sequence[Flag] | Sequence[Dataset]) -> Dataset:
        return encode_planar(self.findings, [self.volume], [seg], self.report(803, **more))

    def nothing(self, **more: Sequence[Flag] | Sequence[Dataset]) -> Dataset:
        return encode_nothing_found([self.volume], self.report(802, **more))


def make_case(folder: Path, *, shape: tuple[int, int, int] = (12, 40, 36), **series: object) -> Case:
    """Return a CT of `shape` with two round nodules, overlapping a lung that fills most of it."""
    regions = balls(shape)
    array = np.full(shape, -800.0)
    array[regions[0] | regions[1]] = 30.0
    paths = make_series(folder, array, **series)  # type: ignore[arg-type]
    read = read_study(paths)
    return case_of(read.study.volumes[0], dict(read.headers), regions)


def case_of(volume: Volume, headers: dict[str, Dataset], regions: Sequence[NDArray[np.bool_]]) -> Case:
    """Return two nodules and a lung (the third region, without axes) as identified findings on a volume."""
    masks = [Mask.from_full(r) for r in regions]
    nodules = [nodule(volume, mask, i + 1) for i, mask in enumerate(masks[:2])]
    lung = Finding(
        key="lung",
        label="Left lung",
        series_instance_uid=volume.series_instance_uid,
        mask=masks[2],
        category=codes.ANATOMICAL_STRUCTURE,
        type=codes.LUNG,
        laterality=codes.LEFT,
        measurements=tuple(m for m in measure_lesion(masks[2], volume) if m.end_points_mm is None),
    )
    return Case(volume=volume, headers=headers, findings=(*nodules, identify(lung, 3)))


def nodule(volume: Volume, mask: Mask, number: int) -> Identified:
    """Return one mask as an identified nodule."""
    finding = Finding(
        key=f"nodule-{number}",
        label=f"Nodule {number}",
        series_instance_uid=volume.series_instance_uid,
        mask=mask,
        category=codes.MORPHOLOGICALLY_ABNORMAL,
        type=codes.NODULE,
        site=codes.LUNG,
        laterality=codes.RIGHT,
        confidence=0.875 if number == 1 else None,
        automatic=number == 1,
        measurements=measure_lesion(mask, volume),
    )
    return identify(finding, number)


def identify(finding: Finding, number: int) -> Identified:
    """Return a finding with a tracking identity that follows from its key."""
    return Identified(
        finding=finding,
        segment_number=number,
        tracking_identifier=finding.label,
        tracking_uid=derive_uid("lesion", finding.key),
    )


def balls(shape: tuple[int, int, int]) -> list[NDArray[np.bool_]]:
    """Return a ball, a smaller one, and the box around both, as whole-grid masks."""
    k, r, c = np.ogrid[: shape[0], : shape[1], : shape[2]]
    middle = shape[0] // 2
    first = (2 * (k - middle)) ** 2 + (r - 14) ** 2 + (c - 12) ** 2 <= 7.3**2
    second = (2 * (k - middle - 1)) ** 2 + (r - 27) ** 2 + (c - 24) ** 2 <= 4.1**2
    lung = np.zeros(shape, dtype=np.bool_)
    lung[1:-1, 4:-4, 3:-3] = True
    return [first, second, lung]


def saved(dataset: Dataset, path: Path) -> Dataset:
    """Return a data set as it is read back from a file."""
    dataset.save_as(path, enforce_file_format=True)
    return pydicom.dcmread(path)


def with_finding(case: Case, number: int, **changes: object) -> Case:
    """Return the case with fields of one finding changed."""
    findings = list(case.findings)
    old = findings[number - 1]
    findings[number - 1] = replace(old, finding=replace(old.finding, **changes))  # type: ignore[arg-type]
    return replace(case, findings=tuple(findings))
