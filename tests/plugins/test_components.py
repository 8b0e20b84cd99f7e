from __future__ import annotations

from typing import Literal

import cc3d
import numpy as np
import pytest
from scipy import ndimage

from plugins.measure.components import components

SHAPES = ((1, 1, 1), (3, 5, 7), (9, 16, 24), (17, 33, 40), (20, 64, 13))


def labelled(mask: np.ndarray, connectivity: int) -> list[tuple[tuple[int, ...], bytes]]:
    """Return the voxels of each component of the whole grid, in the order of cc3d's numbers."""
    labels = cc3d.connected_components(mask.copy().view(np.uint8), connectivity=connectivity)
    return [
        (tuple(s.start for s in box), (labels[box] == number).tobytes())
        for number, box in enumerate(ndimage.find_objects(labels), start=1)
    ]


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize("density", [0.0, 0.001, 0.02, 0.15, 0.4, 1.0])
def test_components_are_those_of_the_whole_grid_in_the_same_order(
    connectivity: Literal[6, 18, 26], density: float
) -> None:
    rng = np.random.default_rng(4)
    for shape in SHAPES:
        mask = rng.random(shape) < density
        if density == 0.02:
            mask = ndimage.binary_dilation(mask, iterations=2)
        mask.flags.writeable = False  # as images and drawn masks are in a node
        found = components(mask, connectivity)
        assert [(one.origin, one.voxels.tobytes()) for one in found] == labelled(mask, connectivity)
        assert all(one.shape == shape for one in found)


def test_a_component_that_winds_through_many_blocks_is_one() -> None:
    k, r, c = np.ogrid[:40, :64, :64]
    spiral = np.abs(np.hypot(r - 32, c - 32) - 3 - k / 2) < 1.0
    assert len(components(spiral, 26)) == 1
    assert components(spiral, 26)[0].count == np.count_nonzero(spiral)


def test_a_view_that_is_not_contiguous_is_labelled_too() -> None:
    whole = np.zeros((16, 40, 64), dtype=np.bool_)
    whole[2:5, 4:9, 30:50] = whole[10:12, 20:30, 2:9] = True
    turned = whole.transpose(2, 0, 1)[::-1]
    assert sorted(one.count for one in components(turned, 6)) == [140, 300]
