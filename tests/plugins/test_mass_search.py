from __future__ import annotations

import numpy as np
import pytest
from thorax import Ball, Thorax, ct_volume, thorax, turned

from plugins.contract import Mask, Volume
from plugins.lung_nodule import Drawing, _with_masses
from plugins.lungs import Lungs, lungs
from plugins.mass_search import Mass, masses
from plugins.nodule_drawing import Drawing as Outline
from plugins.nodule_redrawing import shared
from training.phantom import Grid, phantom
from training.phantom_anatomy import HU, cage

GRID = Grid(shape=(60, 96, 96), spacing_mm=(5.0, 4.0, 4.0))
SPACING = (5.0, 3.0, 3.0)


def looked(body: Thorax) -> tuple[Mass, ...]:
    volume = body.volume()
    return masses(volume, lungs(volume))


def ball_in_lung(body: Thorax, ball: Ball, side: str) -> Mask:
    """Return the part of a ball that lies in a lung: what an outline at the pleura has to be."""
    indices = np.moveaxis(np.indices(body.hu.shape), 0, -1)
    at = indices @ body.affine[:3, :3].T + body.affine[:3, 3]
    held = np.linalg.norm(at - ball.centre_mm, axis=-1) <= ball.diameter_mm / 2
    return Mask.from_full(held & (body.left if side == "L" else body.right))


@pytest.mark.parametrize(
    ("ball", "side"),
    [
        pytest.param(Ball(centre_mm=(-112.0, 10.0, 0.0), diameter_mm=50.0), "R", id="at the wall"),
        pytest.param(Ball(centre_mm=(38.0, -10.0, 15.0), diameter_mm=56.0), "L", id="at the mediastinum"),
    ],
)
def test_a_mass_is_found_and_measured_wherever_it_lies(ball: Ball, side: str) -> None:
    body = thorax(spacing_mm=SPACING, balls=(ball,))
    (mass,) = looked(body)
    truth, drawn = ball_in_lung(body, ball, side), mass.drawing.mask
    assert 2 * shared(truth, drawn) / (truth.count + drawn.count) > 0.85
    assert drawn.count == pytest.approx(truth.count, rel=0.25)
    assert drawn.full()[mass.seed]
    assert "drawn-by-shape" in [flag.code for flag in mass.drawing.flags]


def test_a_mass_that_the_scan_cuts_says_so_however_the_slices_run() -> None:
    whole = thorax(spacing_mm=SPACING, balls=(Ball(centre_mm=(-75.0, 0.0, 0.0), diameter_mm=50.0),))
    middle = whole.hu.shape[0] // 2
    cut = Thorax(**{**vars(whole), "hu": whole.hu[: middle + 4]})
    body = turned(cut, (2, 0, 1), (True, False, True))
    (mass,) = looked(body)
    assert mass.drawing.mask.full()[mass.seed]
    assert body.hu[mass.seed] == pytest.approx(40.0, abs=30.0)
    told = {flag.code: flag.sentence for flag in mass.drawing.flags}
    assert "reaches-image-edge" in told
    (uncut,) = looked(whole)
    assert "reaches-image-edge" not in [flag.code for flag in uncut.drawing.flags]


@pytest.fixture(scope="module")
def patient() -> tuple[Volume, Lungs]:
    made = phantom(ct_grid=GRID, pet_grid=Grid(shape=(8, 8, 8), spacing_mm=(40.0, 40.0, 40.0)))
    affine = np.zeros((4, 4))
    (dz, dy, dx), (x, y, z) = GRID.spacing_mm, GRID.origin_mm
    affine[2, 0], affine[1, 1], affine[0, 2] = dz, dy, dx
    affine[:, 3] = x, y, z, 1.0
    volume = ct_volume(made.ct.astype(np.float32), affine)
    return volume, lungs(volume)


def test_hila_aorta_heart_and_diaphragm_are_none(patient: tuple[Volume, Lungs]) -> None:
    assert masses(*patient) == ()


def test_a_large_heart_and_a_high_dome_are_none(patient: tuple[Volume, Lungs]) -> None:
    volume, _ = patient
    z, y, x = np.meshgrid(*GRID.axes_mm(), indexing="ij")
    heart = ((x - 26) / 76) ** 2 + ((y + 34) / 56) ** 2 + ((z + 46) / 66) ** 2 < 1
    dome = ((x + 62) / 62) ** 2 + ((y + 12) / 74) ** 2 + ((z + 90) / 64) ** 2 < 1
    inner = (cage(x, y, z) < -4) & (z > -140)
    hu = np.where(inner & (heart | dome), np.maximum(volume.array, HU["heart"]), volume.array)
    made = ct_volume(hu.astype(np.float32), np.asarray(volume.geometry.affine))
    assert masses(made, lungs(made)) == ()


def test_a_mass_stands_for_the_parts_of_it_that_were_drawn_and_not_for_what_was_drawn_whole() -> None:
    volume = ct_volume(np.full((10, 10, 10), -850.0, dtype=np.float32), np.eye(4)[:, [2, 1, 0, 3]])

    def cube(first: int, last: int) -> Mask:
        full = np.zeros((10, 10, 10), dtype=np.bool_)
        full[first:last, first:last, first:last] = True
        return Mask.from_full(full)

    def nodule(mask: Mask) -> Drawing:
        return Drawing(mask=mask, diameter_mm=2.0, confidence=0.5, seed=mask.origin)

    mass = Mass(drawing=Outline(mask=cube(1, 6)), seed=(3, 3, 3), radius_mm=10.0)
    part, apart, whole = nodule(cube(2, 4)), nodule(cube(7, 9)), nodule(cube(1, 7))
    beside, instead = _with_masses([part, apart], [mass], volume)
    assert beside is apart
    assert (instead.mask.count, instead.confidence, instead.learned) == (125, 0.5, mass.drawing)
    assert _with_masses([whole, apart], [mass], volume) == [whole, apart]
    touching = nodule(cube(5, 8))
    beside, cut = _with_masses([touching], [mass], volume)
    assert beside is touching
    assert (cut.mask.count, shared(cut.mask, touching.mask)) == (124, 0)
