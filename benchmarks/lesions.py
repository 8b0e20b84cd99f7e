"""Lesions of known shape, and who is said to have found them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from plugins import codes
from plugins.contract import Finding, Mask, Measurement
from store.dicom.seg import Identified
from store.dicom.uids import derive_uid
from store.provenance import Provenance

SIZE = 512
NOW = datetime(2025, 3, 1, 10, 5, tzinfo=UTC)
PROVENANCE = Provenance(
    plugin="lung_nodule",
    plugin_version="1",
    model_name="nodule model",
    model_version="3",
    model_sha256="a" * 64,
    config_sha256="b" * 64,
    manifest_sha256="c" * 64,
    job_key="d" * 64,
    software_version="0.1.0",
    started_at="2025-03-01T10:00:00+00:00",
)


def balls(count: int, slices: int) -> tuple[NDArray[np.bool_], list[Mask]]:
    """Return a grid with `count` ellipsoids of 3 to 12 voxels that do not touch, and their masks."""
    rng, shape = np.random.default_rng(3), (slices, SIZE, SIZE)
    whole, masks = np.zeros(shape, dtype=np.bool_), []
    k, r, c = np.ogrid[-13:14, -13:14, -13:14]
    while len(masks) < count:
        at = [int(rng.integers(14, n - 14)) for n in shape]
        around = tuple(slice(max(0, i - 15), i + 16) for i in at)
        if whole[around].any():
            continue
        radii = rng.uniform(3, 12, 3)
        ball = (k / radii[0]) ** 2 + (r / radii[1]) ** 2 + (c / radii[2]) ** 2 <= 1
        whole[tuple(slice(i - 13, i + 14) for i in at)] |= ball
        tight = Mask.from_full(ball)
        origin = tuple(i - 13 + o for i, o in zip(at, tight.origin, strict=True))
        masks.append(Mask(shape=shape, origin=(origin[0], origin[1], origin[2]), voxels=tight.voxels))
    return whole, masks


def identified(number: int, mask: Mask, series: str, measurements: Sequence[Measurement]) -> Identified:
    """Return a mask as a finding with its identity."""
    finding = Finding(
        key=f"f{number}",
        label=f"Finding {number}",
        series_instance_uid=series,
        mask=mask,
        category=codes.MORPHOLOGICALLY_ABNORMAL,
        type=codes.NODULE,
        site=codes.LUNG,
        measurements=tuple(measurements),
    )
    return Identified(
        finding=finding,
        segment_number=number,
        tracking_identifier=finding.label,
        tracking_uid=derive_uid("lesion", finding.key),
    )
