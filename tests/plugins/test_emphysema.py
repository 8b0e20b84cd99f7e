from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from thorax import Ball, Thorax, ct_volume, study_of, thorax

from plugins import codes
from plugins.contract import Finding, Plugin, parted
from plugins.emphysema import Emphysema, density_of
from plugins.errors import Refused


@pytest.fixture(scope="module")
def sick() -> Thorax:
    """Left lung 20 % at -975 and 10 % at -930, right lung 5 % at -975; the rest between -880 and -820."""
    body = thorax()
    hu = body.hu.copy()
    random = np.random.default_rng(1)
    healthy = random.uniform(-880.0, -820.0, hu.shape).astype(np.float32)
    chance = random.random(hu.shape)
    air = (hu < -840.0) & (hu > -860.0)
    hu[air] = healthy[air]
    for lung, thin, middling in ((body.left, 0.20, 0.10), (body.right, 0.05, 0.0)):
        hu[air & lung & (chance < thin)] = -975.0
        hu[air & lung & (chance >= thin) & (chance < thin + middling)] = -930.0
    return Thorax(hu=hu, affine=body.affine, left=body.left, right=body.right)


@pytest.fixture(scope="module")
def pair(sick: Thorax) -> tuple[Finding, ...]:
    return parted(Emphysema().run(study_of(sick.volume())))[0]


def test_it_follows_the_contract() -> None:
    assert isinstance(Emphysema(), Plugin)
    assert Emphysema().model is None


def test_known_fractions_and_percentile_are_found_in_each_lung(
    sick: Thorax, pair: tuple[Finding, ...]
) -> None:
    found = {f.key: f for f in pair}
    voxel_ml = sick.volume().voxel_volume_mm3 / 1000
    for key, truth in (("left", sick.left), ("right", sick.right)):
        exact = sick.hu[truth & (sick.hu < -500.0) & (sick.hu > -999.0)]
        of = found[key].measurement
        assert of("laa_950").value == pytest.approx(100 * np.mean(exact < -950), abs=0.15)
        assert of("laa_910").value == pytest.approx(100 * np.mean(exact < -910), abs=0.15)
        assert of("mean_lung_density").value == pytest.approx(float(exact.mean()), abs=2.0)
        assert of("perc_15").value == pytest.approx(float(np.percentile(exact, 15)), abs=1.0)
        assert of("volume").value == pytest.approx(exact.size * voxel_ml, rel=0.015)


def test_findings_are_coded_and_sided_and_without_axes(pair: tuple[Finding, ...]) -> None:
    left, right = pair
    assert (left.key, left.label, left.laterality) == ("left", "Left lung", codes.LEFT)
    assert (right.key, right.label, right.laterality) == ("right", "Right lung", codes.RIGHT)
    assert left.category == codes.ANATOMICAL_STRUCTURE
    assert left.type == codes.LUNG
    assert [m.name for m in left.measurements] == [
        "volume",
        "mean_lung_density",
        "laa_950",
        "laa_910",
        "perc_15",
    ]
    assert {m.unit for m in left.measurements} == {codes.ML, codes.HU, codes.PERCENT}
    assert "-500 HU" in left.measurement("laa_950").method
    assert "kernel not stated" in left.measurement("laa_950").method


def test_the_mask_holds_exactly_the_voxels_that_were_measured(
    sick: Thorax, pair: tuple[Finding, ...]
) -> None:
    volume = sick.volume()
    for finding in pair:
        hu = volume.array[finding.mask.box][finding.mask.voxels]
        assert hu.max() < -500.0
        again = {m.name: m.value for m in density_of(hu, hu.size * volume.voxel_volume_mm3 / 1000, "")}
        assert again == pytest.approx({m.name: m.value for m in finding.measurements})


def test_a_tumour_does_not_count_as_parenchyma() -> None:
    clean = thorax().volume()
    with_tumour = thorax(balls=(Ball(centre_mm=(80.0, 0.0, 0.0), diameter_mm=40.0),)).volume()
    before, after = (
        parted(Emphysema().run(study_of(v)))[0][0].measurement("volume").value for v in (clean, with_tumour)
    )
    assert before - after == pytest.approx(np.pi / 6 * 4.0**3, rel=0.08)


def test_thick_slices_are_flagged_once_and_thin_ones_are_not(sick: Thorax) -> None:
    _, none = parted(Emphysema().run(study_of(sick.volume())))
    assert none == ()
    thick = thorax(spacing_mm=(5.0, 1.5, 1.5)).volume()
    findings, flags = parted(Emphysema().run(study_of(thick)))
    assert [(flag.code, flag.plugin) for flag in flags] == [("thick-slices", "emphysema")]
    assert [finding.flags for finding in findings] == [(), ()]


def test_a_study_without_a_ct_is_not_accepted_and_refused(sick: Thorax) -> None:
    study = study_of(ct_volume(sick.hu, sick.affine, role="mr"))
    assert not Emphysema().accepts(study)
    with pytest.raises(Refused, match="no-ct"):
        Emphysema().run(study)


def test_a_ct_without_lungs_is_refused() -> None:
    study = study_of(
        ct_volume(np.full((40, 100, 100), 40.0, dtype=np.float32), np.diag([2.5, 2.0, 2.0, 1.0]))
    )
    assert Emphysema().accepts(study)
    with pytest.raises(Refused, match="no-lungs"):
        Emphysema().run(study)


@given(arrays(np.float32, st.integers(1, 300), elements=st.floats(-1100, -500, width=32)))
def test_fractions_are_ordered_and_the_percentile_lies_in_the_range(hu: np.ndarray) -> None:
    of = {m.name: m.value for m in density_of(hu, 1.0, "")}
    assert 0 <= of["laa_950"] <= of["laa_910"] <= 100
    assert hu.min() <= of["perc_15"] <= hu.max()


def test_the_threshold_itself_is_not_below_the_threshold() -> None:
    hu = np.array([-951, -950, -949, -911, -910, -800, -800, -800], dtype=np.float32)
    of = {m.name: m.value for m in density_of(hu, 1.0, "")}
    assert of["laa_950"] == pytest.approx(100 / 8)
    assert of["laa_910"] == pytest.approx(400 / 8)
    assert of["perc_15"] == pytest.approx(-950 + 0.05)
