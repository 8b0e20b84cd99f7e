from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from thorax import Ball, ct_volume, study_of, thorax
from tiny_segmenter import bright_segmenter

from models.segmenter import ClassicalNoduleSegmenter
from plugins import codes
from plugins.contract import Finding, Mask, Plugin, Volume, parted
from plugins.errors import Refused
from plugins.lung_nodule import LungNodule
from plugins.nodule_candidates import candidates
from plugins.nodule_shape import confidence_of, half_axes_mm, passing_area_mm2
from plugins.registry import config_sha256
from store.dicom.series import read_study

BALLS = (
    Ball(centre_mm=(-80.0, -30.0, 35.0), diameter_mm=20.0),
    Ball(centre_mm=(119.5, 0.0, 0.0), diameter_mm=14.0),  # on the chest wall
    Ball(centre_mm=(60.0, 35.0, 50.0), diameter_mm=9.0),
    Ball(centre_mm=(-70.0, 30.0, -45.0), diameter_mm=6.5),
)


def classical(**settings: Any) -> LungNodule:
    """Return the analysis without anything that was learned."""
    return LungNodule(segmenter="classical", detector="classical", **settings)


@pytest.fixture(scope="module")
def body() -> Volume:
    return thorax(spacing_mm=(2.0, 1.2, 1.2), balls=BALLS, vessels=True, noise_hu=15.0).volume()


@pytest.fixture(scope="module")
def found(body: Volume) -> tuple[Finding, ...]:
    return parted(classical().run(study_of(body)))[0]


def centre_mm(finding: Finding, volume: Volume) -> np.ndarray:
    return volume.to_mm(np.argwhere(finding.mask.voxels).mean(axis=0) + finding.mask.origin)


def nearest(ball: Ball, found: tuple[Finding, ...], volume: Volume) -> tuple[float, Finding]:
    distances = [float(np.linalg.norm(centre_mm(f, volume) - ball.centre_mm)) for f in found]
    return min(distances), found[int(np.argmin(distances))]


def test_it_follows_the_contract_and_names_its_segmenter() -> None:
    plugin = classical()
    assert isinstance(plugin, Plugin)
    assert plugin.model == ClassicalNoduleSegmenter().card
    assert config_sha256(plugin) != config_sha256(classical(min_diameter_mm=5.0))


@pytest.mark.parametrize("ball", BALLS, ids=lambda b: f"{b.diameter_mm:g} mm")
def test_every_nodule_is_found_with_its_volume_and_axes(
    ball: Ball, found: tuple[Finding, ...], body: Volume
) -> None:
    off_mm, finding = nearest(ball, found, body)
    assert off_mm < 1.5
    assert finding.measurement("volume").value == pytest.approx(ball.volume_ml, rel=0.15)
    assert finding.measurement("long_axis").value == pytest.approx(ball.diameter_mm, abs=1.6)
    assert finding.confidence is not None
    assert finding.confidence > 0.5


def test_vessels_and_walls_give_few_false_findings(found: tuple[Finding, ...], body: Volume) -> None:
    false = [f for f in found if min(np.linalg.norm(centre_mm(f, body) - b.centre_mm) for b in BALLS) > 5.0]
    assert len(false) <= 2


def test_findings_are_numbered_from_the_largest_and_coded(found: tuple[Finding, ...], body: Volume) -> None:
    volumes = [f.measurement("volume").value for f in found]
    assert volumes == sorted(volumes, reverse=True)
    assert [f.label for f in found] == [f"Nodule {n}" for n in range(1, len(found) + 1)]
    assert [f.key for f in found] == [f"nodule-{n}" for n in range(1, len(found) + 1)]
    for ball in BALLS:
        _, finding = nearest(ball, found, body)
        assert finding.laterality == (codes.LEFT if ball.centre_mm[0] > 0 else codes.RIGHT)
        assert (finding.site, finding.type) == (codes.LUNG, codes.NODULE)


def test_no_two_findings_overlap(found: tuple[Finding, ...]) -> None:
    count = np.zeros(found[0].mask.shape, dtype=np.uint8)
    for finding in found:
        count[finding.mask.box] += finding.mask.voxels
    assert count.max() == 1


def test_the_same_study_gives_the_same_findings(found: tuple[Finding, ...], body: Volume) -> None:
    again, _ = parted(classical().run(study_of(body)))
    assert [(f.key, f.mask.origin, f.mask.count, f.confidence) for f in again] == [
        (f.key, f.mask.origin, f.mask.count, f.confidence) for f in found
    ]


def test_clean_lungs_give_no_findings() -> None:
    clean = thorax(spacing_mm=(2.5, 1.5, 1.5), noise_hu=15.0).volume()
    assert classical().run(study_of(clean)) == ()


def test_a_mass_is_called_a_mass() -> None:
    mass = Ball(centre_mm=(75.0, 0.0, 10.0), diameter_mm=46.0)
    volume = thorax(balls=(mass,)).volume()
    largest = parted(classical().run(study_of(volume)))[0][0]
    assert largest.type == codes.MASS
    assert largest.measurement("volume").value == pytest.approx(mass.volume_ml, rel=0.1)


def test_more_than_the_most_allowed_are_cut_with_a_flag(body: Volume) -> None:
    few, flags = parted(classical(max_nodules=2).run(study_of(body)))
    assert len(few) == 2
    assert [(flag.code, flag.plugin) for flag in flags] == [("many-nodules", "lung_nodule")]


def test_too_thick_slices_and_other_roles_are_not_accepted(body: Volume) -> None:
    assert classical().accepts(study_of(body))
    assert not classical(max_slice_mm=1.0).accepts(study_of(body))
    other = study_of(ct_volume(body.array, np.asarray(body.geometry.affine), role="other"))
    assert not classical().accepts(other)
    with pytest.raises(Refused, match="no-ct"):
        classical().run(other)


def test_a_ct_without_lungs_is_refused() -> None:
    volume = ct_volume(np.full((40, 90, 90), 40.0, dtype=np.float32), np.diag([2.5, 2.0, 2.0, 1.0]))
    with pytest.raises(Refused, match="no-lungs"):
        classical().run(study_of(volume))


def test_a_tube_scores_low_and_a_ball_scores_high() -> None:
    spacing = (1.0, 1.0, 1.0)
    k, r, c = np.ogrid[:41, :41, :41]
    tube = (np.hypot(k - 20, r - 20) < 4) & (c >= 0)
    ball = (k - 20) ** 2 + (r - 20) ** 2 + (c - 20) ** 2 < 36
    inside = np.ones((41, 41, 41), dtype=np.bool_)
    between = np.zeros_like(inside)
    scores = []
    for shape, lesion in ((ball, ball), (tube, tube & (np.abs(c - 20) < 9))):
        hu = np.where(shape, 40.0, -850.0).astype(np.float32)
        scores.append(confidence_of(Mask.from_full(lesion), hu, inside, between, spacing))
    assert scores[0] == 1.0
    assert scores[1] < 0.3


def test_the_area_that_passes_is_that_of_the_vessel() -> None:
    k, r, c = np.ogrid[:41, :41, :61]
    vessel = (np.hypot(k - 20, r - 20) < 3.5) & (c >= 0)
    ball = (k - 20) ** 2 + (r - 20) ** 2 + (c - 30) ** 2 < 64
    hu = np.where(vessel | ball, 40.0, -850.0).astype(np.float32)
    inside = np.ones(hu.shape, dtype=np.bool_)
    area = passing_area_mm2(Mask.from_full(ball), hu, inside, (1.0, 1.0, 1.0))
    assert area == pytest.approx(2 * np.count_nonzero(vessel[:, :, 0]), rel=0.25)


def test_half_axes_of_an_ellipsoid_are_its_own() -> None:
    k, r, c = np.ogrid[:41, :61, :81]
    ellipsoid = ((k - 20) / 7) ** 2 + ((r - 30) / 10) ** 2 + ((c - 40) / 15) ** 2 < 1
    assert half_axes_mm(ellipsoid, (2.0, 1.0, 1.0)) == pytest.approx((10.0, 14.0, 15.0), rel=0.03)


def test_a_ball_is_the_strongest_candidate_and_a_tube_is_none() -> None:
    k, r, c = np.ogrid[:61, :61, :61]
    ball = (k - 30) ** 2 + (r - 15) ** 2 + (c - 30) ** 2 < 49
    tube = (np.hypot(k - 30, r - 45) < 4) & (c >= 0)
    hu = np.where(ball | tube, 40.0, -850.0).astype(np.float32)
    inside = np.ones(hu.shape, dtype=np.bool_)
    blobs = candidates(
        hu,
        inside,
        (1.0, 1.0, 1.0),
        diameters_mm=(4.0, 40.0),
        lowest_response_hu=200.0,
        lowest_roundness=0.3,
        at_most=50,
    )
    assert blobs[0].index == pytest.approx((30, 15, 30), abs=1)
    assert blobs[0].diameter_mm == pytest.approx(14.0, rel=0.35)
    assert not [b for b in blobs if abs(b.index[1] - 45) < 4 and 10 < b.index[2] < 50]


@pytest.mark.long
def test_the_published_point_of_a_real_tumour_is_found_on_thin_slices(data: Path) -> None:
    (volume,) = read_study(sorted((data / "ct_r01_001" / "CT").glob("*.dcm"))).study.by_role("ct")
    point = json.loads((data / "ct_r01_001" / "expected.json").read_text())["tumour"][
        "centroid_patient_mm_LPS"
    ]
    found, _ = parted(classical().run(study_of(volume)))
    assert min(float(np.linalg.norm(centre_mm(f, volume) - point)) for f in found) < 6.0
    assert len(found) <= 8


def test_networks_draw_again_what_is_reported_and_tell_their_doubt(
    found: tuple[Finding, ...], body: Volume
) -> None:
    plugin = LungNodule(detector="classical")
    plugin.__dict__["drawer"] = bright_segmenter()
    again, _ = parted(plugin.run(study_of(body)))
    assert plugin.model is not None
    assert plugin.model.kind == "learned"
    for ball in BALLS:
        off_mm, finding = nearest(ball, again, body)
        assert off_mm < 3.0
        assert (
            "interval" in {flag.code for flag in finding.flags}
            or finding.measurement("volume").uncertainty is None
        )
    off_mm, alone = nearest(BALLS[0], again, body)
    assert alone.measurement("volume").value == pytest.approx(BALLS[0].volume_ml, rel=0.15)
    assert alone.measurement("volume").uncertainty > 0
    test_no_two_findings_overlap(again)
    assert len(again) <= len(found)


def test_the_shape_score_of_a_place_is_that_of_what_is_drawn_there_and_0_where_nothing_is() -> None:
    spacing = (1.0, 1.0, 1.0)
    away = np.linalg.norm(np.indices((48, 48, 48)).reshape(3, -1).T - (24, 24, 24), axis=1)
    hu = np.where(away <= 6.0, 40.0, -850.0).reshape(48, 48, 48).astype(np.float32)
    regions = np.ones(hu.shape, dtype=bool), np.zeros(hu.shape, dtype=bool)
    plugin = LungNodule()
    drawn = plugin._draw((24, 24, 24), hu, regions[0], spacing)
    assert plugin.shape_score((24, 24, 24), hu, regions, spacing) == confidence_of(
        drawn, hu, *regions, spacing
    )
    assert plugin.shape_score((24, 24, 24), hu, regions, spacing) > 0.95
    assert plugin.shape_score((4, 4, 4), np.full_like(hu, -850.0), regions, spacing) == 0.0
