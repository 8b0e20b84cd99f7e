"""An earlier lesion is expected where the motion takes it, and is seen there or not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from moved_volumes import on_grid, turned
from phantom_study import true_mask, volume_on

from plugins.contract import Mask, Volume
from plugins.errors import Refused
from store.tracking.motion import Motion
from store.tracking.propagation import in_view, propagate, visible
from store.tracking.registration import UNJUDGED
from training.phantom import Grid, Nodule, Thorax, paint_nodule, phantom

GRID = Grid(shape=(60, 150, 150), spacing_mm=(4.0, 2.4, 2.4))
NO_PET = Grid(shape=(4, 8, 8), spacing_mm=(60.0, 50.0, 50.0))
STILL = Motion(matrix=np.eye(4), deformation=None, quality=UNJUDGED)


@pytest.fixture(scope="module")
def thorax() -> Thorax:
    return phantom(0, 0, ct_grid=GRID, pet_grid=NO_PET)


@pytest.fixture(scope="module")
def ct(thorax: Thorax) -> Volume:
    return volume_on(GRID, thorax.ct, "ct")


def cube(volume: Volume, first: tuple[int, int, int], side: int) -> Mask:
    shape = tuple(int(n) for n in volume.array.shape)
    return Mask(shape=shape, origin=first, voxels=np.ones((side, side, side), dtype=np.bool_))


def regridded(volume: Volume, spacing_mm: tuple[float, float, float]) -> Volume:
    affine = volume.geometry.affine.copy()
    affine[:3, :3] = affine[:3, :3] / np.asarray(volume.spacing_mm) * np.asarray(spacing_mm)
    shape = [
        round(float(n * a / b))
        for n, a, b in zip(volume.array.shape, volume.spacing_mm, spacing_mm, strict=True)
    ]
    noise = np.random.default_rng(0).normal(0, 20, shape)
    return on_grid(volume, noise.astype(np.float32), affine)


def test_a_mask_that_does_not_move_is_itself(ct: Volume) -> None:
    mask = cube(ct, (20, 60, 40), 5)
    place = propagate(mask, ct, ct, STILL)
    assert np.array_equal(place.mask.full(), mask.full())
    assert place.expected_mm == pytest.approx(ct.centroid_mm(mask))
    assert place.in_view == 1


def test_a_motion_takes_centre_and_volume_along(ct: Volume) -> None:
    mask = cube(ct, (20, 60, 40), 8)
    centre = np.asarray(ct.centroid_mm(mask))
    motion = replace(STILL, matrix=turned(centre, (10.0, -5.0, 20.0), (12.0, -7.0, 9.0)))
    new = regridded(ct, (1.0, 1.5, 1.5))
    place = propagate(mask, ct, new, motion)
    assert place.expected_mm == pytest.approx(tuple(np.add(centre, (12.0, -7.0, 9.0))))
    assert new.centroid_mm(place.mask) == pytest.approx(place.expected_mm, abs=0.3)
    assert place.mask.count * new.voxel_volume_mm3 == pytest.approx(
        mask.count * ct.voxel_volume_mm3, rel=0.03
    )


def test_a_lesion_between_two_thick_slices_is_not_lost(ct: Volume) -> None:
    mask = cube(ct, (21, 60, 40), 1)
    place = propagate(mask, ct, regridded(ct, (20.0, 2.4, 2.4)), STILL)
    assert place.mask.count == 1
    assert place.in_view == 1


@pytest.mark.parametrize(("shift_mm", "share"), [(24.0, 1.0), (32.0, 0.5), (40.0, 0.0)])
def test_what_lies_beyond_the_last_slice_is_out_of_view(shift_mm: float, share: float, ct: Volume) -> None:
    mask = cube(ct, (50, 60, 60), 4)
    place = propagate(mask, ct, ct, replace(STILL, matrix=turned(np.zeros(3), (0, 0, 0), (0, 0, shift_mm))))
    assert place.in_view == pytest.approx(share, abs=0.01)
    assert (place.mask.count > 0) == (share > 0)
    assert place.expected_mm[2] == pytest.approx(ct.centroid_mm(mask)[2] + shift_mm)


@pytest.mark.parametrize("padding", [-3024.0, -2000.0, -1024.0])
def test_padding_is_out_of_view_and_lung_is_not(padding: float, ct: Volume) -> None:
    array = np.maximum(ct.array, -1023)
    array[:, :, :70] = padding
    padded = replace(ct, array=array)
    assert propagate(cube(ct, (20, 60, 30), 5), ct, padded, STILL).in_view == 0
    assert propagate(cube(ct, (20, 60, 100), 5), ct, padded, STILL).in_view == 1
    assert propagate(cube(ct, (20, 60, 65), 10), ct, padded, STILL).in_view == pytest.approx(0.5, abs=0.11)


def test_slices_that_were_not_filled_are_out_of_view(ct: Volume) -> None:
    array = ct.array.copy()
    array[:25] = -1024
    points = ct.to_mm(np.array([[10.0, 70.0, 40.0], [40.0, 70.0, 40.0]]))
    assert in_view(replace(ct, array=array), points).tolist() == [False, True]


def test_an_empty_mask_has_no_place(ct: Volume) -> None:
    empty = Mask.from_full(np.zeros(ct.array.shape, dtype=np.bool_))
    for ask in (propagate, visible):
        with pytest.raises(Refused, match="empty region"):
            ask(empty, ct, ct, STILL)


def follow_up(thorax: Thorax, nodule: Nodule, share: float, shift_mm: float) -> Volume:
    """Return the CT with one nodule made smaller, shifted, or taken out of the lung, and new noise."""
    array = thorax.ct.astype(np.float32)
    around = replace(nodule, diameters_mm=tuple(d + 5 for d in nodule.diameters_mm))
    paint_nodule(array, GRID.axes_mm(), GRID.spacing_mm, around, -852)
    array = np.where((thorax.lungs > 0) | true_mask(GRID, nodule).full(), array, thorax.ct)
    if share:
        x, y, z = nodule.centre_mm
        small = replace(
            nodule, diameters_mm=tuple(d * share for d in nodule.diameters_mm), centre_mm=(x, y - shift_mm, z)
        )
        paint_nodule(array, GRID.axes_mm(), GRID.spacing_mm, small, nodule.hu)
    array += np.random.default_rng(5).normal(0, 15, array.shape)
    return volume_on(GRID, array, "ct")


@pytest.mark.parametrize("number", range(4))
def test_a_lesion_is_visible_while_it_is_there(number: int, thorax: Thorax, ct: Volume) -> None:
    nodule = thorax.truth.nodules[number]
    mask = true_mask(GRID, nodule)
    for share, shift_mm in ((1.0, 0.0), (1.0, 5.0), (0.6, 0.0)):
        seen = visible(mask, ct, follow_up(thorax, nodule, share, shift_mm), STILL)
        assert seen.visible, seen.sentence
        assert seen.found_mm == pytest.approx(np.add(nodule.centre_mm, (0, -shift_mm, 0)), abs=3.0)
        assert "tissue like it is seen" in seen.sentence
    gone = visible(mask, ct, follow_up(thorax, nodule, 0.0, 0.0), STILL)
    assert not gone.visible, gone.sentence
    assert gone.score < 0.25
    assert "nothing like it" in gone.sentence


def test_nothing_is_seen_in_an_image_of_one_value(thorax: Thorax, ct: Volume) -> None:
    blank = replace(ct, array=np.full_like(ct.array, -1024))
    seen = visible(true_mask(GRID, thorax.truth.nodules[0]), ct, blank, STILL)
    assert (seen.visible, seen.score) == (False, 0.0)
