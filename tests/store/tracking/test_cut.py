from __future__ import annotations

import highdicom
import numpy as np
import pytest

from plugins.contract import Mask
from store.tracking.lesion import EarlierLesion, PresentLesion
from store.tracking.link import Kind, Link
from store.tracking.matching import match
from store.tracking.words import flags_of

SHAPE = (30, 40, 40)
GRID = highdicom.VolumeGeometry(
    affine=np.diag([2.0, 2.0, 2.0, 1.0]), spatial_shape=SHAPE, coordinate_system="PATIENT"
)


def ball(at: tuple[int, int, int], radius: float) -> Mask:
    """Return what of a ball lies on the grid, in voxels."""
    away = np.linalg.norm(np.moveaxis(np.indices(SHAPE), 0, -1) - np.array(at), axis=-1)
    return Mask.from_full(away <= radius)


def linked(at: tuple[int, int, int], in_view: float, now_at: tuple[int, int, int] | None = None) -> Link:
    """Return the link of a ball of 28 mm of which so much is in view."""
    was, now = ball(at, 7), ball(now_at or at, 7)
    before = EarlierLesion(
        tracking_uid="A",
        tracking_identifier="Lesion A",
        study_instance_uid="1.2.3",
        expected_mm=tuple(2.0 * n for n in at),  # type: ignore[arg-type]
        expected_mask=was,
        volume_mm3=11_494.0,
        in_view=in_view,
    )
    present = PresentLesion(
        key="a",
        label="Nodule",
        centroid_mm=tuple(2.0 * n for n in (now_at or at)),  # type: ignore[arg-type]
        mask=now,
        volume_mm3=8.0 * now.count,
    )
    (link,) = match([before], [present], geometry=GRID, new_identity=lambda lesion: (lesion.key, "New"))
    return link


@pytest.mark.parametrize("at", [(0, 20, 20), (29, 20, 20), (15, 0, 20), (15, 20, 39)])
def test_a_lesion_that_ends_where_the_scan_does_is_cut_at_every_border(at: tuple[int, int, int]) -> None:
    link = linked(at, 0.54)
    assert (link.kind, link.tracking_uid, link.finding, link.earlier) == (Kind.CUT, "A", "a", ("A",))
    assert link.reason.endswith("; 54% of where it was is in view")
    (flag,) = flags_of([link], {}, "contours")
    assert (flag.code, "is cut by the end of the scan" in flag.sentence) == ("lesion-cut", True)


@pytest.mark.parametrize(
    ("at", "in_view", "now_at"),
    [((0, 20, 20), 0.8, None), ((15, 20, 20), 0.5, None), ((6, 20, 20), 0.5, (8, 20, 20))],
)
def test_one_that_is_in_view_or_ends_before_the_border_is_judged_as_before(
    at: tuple[int, int, int], in_view: float, now_at: tuple[int, int, int] | None
) -> None:
    assert linked(at, in_view, now_at).kind is Kind.SAME
