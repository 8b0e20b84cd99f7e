from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from thorax import ct_volume
from tiny_segmenter import bright, bright_segmenter

from models.segmenter import ClassicalNoduleSegmenter
from plugins.contract import Mask, Volume
from plugins.nodule_drawing import draw_at
from plugins.nodule_redrawing import Tried, ball_diameter_mm, nodule_at, redrawn, shared, told

SPACING = (2.0, 0.8, 0.8)
SIZES_MM = (4.0, 80.0)


@pytest.fixture(scope="module")
def volume() -> Volume:
    """Return lung with a ball of 12 mm around voxel 10, 25, 25."""
    away = np.indices((25, 60, 60)).reshape(3, -1).T - (10, 25, 25)
    inside = (np.linalg.norm(away * SPACING, axis=1) <= 6.0).reshape(25, 60, 60)
    affine = np.array([[0, 0, 0.8, 0], [0, 0.8, 0, 0], [2.0, 0, 0, 0], [0, 0, 0, 1]])
    return ct_volume(np.where(inside, 30.0, -850.0).astype(np.float32), affine)


def box(volume: Volume, low: tuple[int, int, int], high: tuple[int, int, int]) -> Mask:
    full = np.zeros(volume.array.shape, dtype=bool)
    full[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return Mask.from_full(full)


def test_a_first_drawing_is_replaced_by_that_of_the_networks_with_its_doubt(volume: Volume) -> None:
    tried = Tried(mask=box(volume, (9, 23, 23), (12, 28, 28)), seed=(10, 25, 25))
    (drawing,) = redrawn([tried], volume, bright_segmenter(), SIZES_MM)
    assert drawing is not None
    assert ball_diameter_mm(drawing.mask, volume) == pytest.approx(12.0, abs=0.6)
    assert [flag.code for flag in told("Nodule 1", drawing, "lung_nodule", volume)] == ["interval"]
    assert {name for name, _ in drawing.intervals} == {"volume", "long_axis"}


def test_what_networks_do_not_see_keeps_its_first_outline_and_says_so(volume: Volume) -> None:
    blind = bright_segmenter()
    blind.__dict__["_networks"] = (lambda patches: patches[:, :1] * 0 - 9,)
    tried = Tried(mask=box(volume, (9, 23, 23), (12, 28, 28)), seed=(10, 25, 25))
    (drawing,) = redrawn([tried], volume, blind, SIZES_MM)
    assert drawing is not None
    assert drawing.mask.count == tried.mask.count
    assert [flag.code for flag in drawing.flags] == ["drawn-classically"]
    assert all(measured.uncertainty is None for measured in drawing.measurements)


def test_two_first_drawings_of_one_nodule_become_one_and_neighbours_do_not_overlap(volume: Volume) -> None:
    first = Tried(mask=box(volume, (9, 23, 23), (12, 28, 28)), seed=(10, 25, 25))
    again = Tried(mask=box(volume, (8, 22, 22), (10, 25, 25)), seed=(9, 23, 23))
    beside = Tried(mask=box(volume, (8, 20, 31), (13, 28, 45)), seed=(10, 24, 44))
    kept, part, other = redrawn([first, again, beside], volume, bright_segmenter(), SIZES_MM)
    assert part is None
    assert kept is not None
    assert other is not None
    assert 0 < other.mask.count < beside.mask.count
    assert shared(kept.mask, other.mask) == 0


def test_a_nodule_is_drawn_at_a_point_under_the_name_it_has_and_nothing_where_nothing_is(
    volume: Volume,
) -> None:
    x, y, z = volume.to_mm((10.0, 26.0, 24.0))
    found = nodule_at(volume, (x, y, z), "Nodule 7", bright_segmenter(), 80.0)
    assert found is not None
    assert (found.label, found.type.meaning, found.site.meaning) == ("Nodule 7", "Nodule", "Lung")
    assert found.measurement("long_axis").value == pytest.approx(12.0, abs=1.0)
    assert all("'Nodule 7'" in flag.sentence for flag in found.flags)
    assert 0 <= found.uncertainties["entropy"] <= 1
    assert nodule_at(volume, (x, y, z), "Nodule 7", bright_segmenter(), 8.0) is None


def test_a_mass_that_only_a_wider_view_shows_whole_says_so_and_has_no_interval() -> None:
    away = np.indices((45, 60, 60)).reshape(3, -1).T - (22, 30, 30)
    inside = (np.linalg.norm(away * 2.0, axis=1) <= 32.0).reshape(45, 60, 60)
    affine = np.array([[0, 0, 2.0, 0], [0, 2.0, 0, 0], [2.0, 0, 0, 0], [0, 0, 0, 1]])
    mass = ct_volume(np.where(inside, 30.0, -850.0).astype(np.float32), affine)
    drawing = draw_at(mass, (66.0, 58.0, 46.0), bright_segmenter())
    assert ball_diameter_mm(drawing.mask, mass) == pytest.approx(64.0, abs=2.0)
    assert [flag.code for flag in drawing.flags] == ["drawn-coarsely"]
    assert drawing.intervals == ()
    assert all(measured.uncertainty is None for measured in drawing.measurements)
    assert drawing.uncertainty is not None


def test_what_each_mirror_image_shows_otherwise_is_told_to_be_hardly_a_lesion(volume: Volume) -> None:
    def leaning(patches: np.ndarray) -> np.ndarray:
        ramp = np.linspace(17.0, -17.0, patches.shape[2], dtype=np.float32)[:, None, None]
        return bright(patches) + ramp

    at = tuple(volume.to_mm((10.0, 26.0, 24.0)))
    steady = draw_at(volume, at, bright_segmenter())
    assert "hardly-a-lesion" not in [flag.code for flag in steady.flags]
    doubtful = draw_at(volume, at, replace(bright_segmenter(levels=[0.4]), given=(leaning,)))
    assert doubtful.mask.count > 0
    (flag,) = [flag for flag in doubtful.flags if flag.code == "hardly-a-lesion"]
    assert "look whether there is a lesion at all" in flag.sentence
    assert flag.series_instance_uid == volume.series_instance_uid


def in_wall(volume: Volume) -> Volume:
    """Return the ball inside a chest wall: soft tissue from a few voxels before it on."""
    array = np.where(np.arange(60) >= 15, 20.0, volume.array).astype(np.float32)
    return replace(volume, array=array)


def test_the_classical_procedure_tells_of_little_lung_around_as_the_networks_do(volume: Volume) -> None:
    clear = draw_at(volume, tuple(volume.to_mm((10.0, 25.0, 25.0))), ClassicalNoduleSegmenter())
    assert clear.flags == ()
    wall = in_wall(volume)
    leaked = draw_at(wall, tuple(wall.to_mm((10.0, 25.0, 27.0))), ClassicalNoduleSegmenter())
    assert leaked.mask.count > clear.mask.count
    (flag,) = [flag for flag in leaked.flags if flag.code == "little-lung-around"]
    assert "its outline is a guess; do not take its size as it is" in flag.sentence


def test_what_is_cut_at_a_box_has_no_interval(volume: Volume) -> None:
    x, y, z = volume.to_mm((10.0, 25.0, 25.0))
    corners = ((x - 8, y - 8, z - 8), (x - 2, y + 8, z + 8))
    boxed = draw_at(volume, (x, y, z), bright_segmenter(), corners_mm=corners)
    assert "cut-at-box" in [flag.code for flag in boxed.flags]
    assert boxed.mask.count > 0
    assert boxed.intervals == ()
    assert all(measured.uncertainty is None for measured in boxed.measurements)
    assert boxed.uncertainty is not None
