"""Uptake on PET: planted bodies of known place, size and uptake, and the liver reference."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from shapes import Ellipsoid, grid, rotation

from models.card import ModelCard
from models.petct import Lesion
from plugins import codes
from plugins.contract import Finding, Flag, Patient, Plugin, Study, Volume, parted
from plugins.errors import Refused
from plugins.measure.liver import LiverReference, find_liver, sphere_mask
from plugins.pet_lesion import PetLesion

SPACING = (4.0, 4.0, 4.0)
SHAPE = (110, 70, 95)
START = (-188.0, -138.0, -220.0)
LIVER_CENTRE = (-75.0, 10.0, -40.0)


def ellipsoid(centre: tuple[float, float, float], semi_axes: tuple[float, float, float]) -> Ellipsoid:
    return Ellipsoid(centre_mm=centre, semi_axes_mm=semi_axes, turn=rotation((0, 0, 0)))


@dataclass(frozen=True, kw_only=True)
class Trunk:
    """A trunk with two lungs, a liver, a spleen and hot places."""

    liver_suv: float = 2.1
    liver_centre: tuple[float, float, float] = LIVER_CENTRE
    noise: float = 0.08
    hot: tuple[tuple[tuple[float, float, float], float, float], ...] = ()

    def paint(
        self, volume: Volume, parts: list[tuple[Ellipsoid, float]], seed: int = 5
    ) -> NDArray[np.float32]:
        array = np.zeros(volume.array.shape, dtype=np.float32)
        for body, value in parts:
            array[body.inside(volume)] = value
        rng = np.random.default_rng(seed)
        return array * rng.normal(1.0, self.noise, array.shape).astype(np.float32)

    @property
    def bodies(self) -> tuple[Ellipsoid, Ellipsoid, Ellipsoid, Ellipsoid, Ellipsoid]:
        return (
            ellipsoid((0, 0, 0), (165, 115, 900)),
            ellipsoid((-75, 0, 110), (55, 75, 100)),
            ellipsoid((75, 0, 110), (55, 75, 100)),
            ellipsoid(self.liver_centre, (70, 70, 60)),
            ellipsoid((95, 30, -40), (30, 35, 45)),
        )

    def pet(self, shape: tuple[int, int, int] = SHAPE, **more: object) -> Volume:
        trunk, right, left, liver, spleen = self.bodies
        parts = [(trunk, 0.7), (right, 0.4), (left, 0.4), (liver, self.liver_suv), (spleen, 1.8)]
        parts += [(ellipsoid(centre, (radius,) * 3), suv) for centre, radius, suv in self.hot]
        volume = grid(shape, SPACING, role="pet_suv", start_mm=START, series_instance_uid="1.2.20", **more)  # type: ignore[arg-type]
        volume.array[...] = self.paint(volume, parts)
        return volume

    def ct(self, **more: object) -> Volume:
        trunk, right, left, liver, spleen = self.bodies
        volume = grid((140, 175, 240), (3.0, 1.6, 1.6), start_mm=START, series_instance_uid="1.2.10", **more)  # type: ignore[arg-type]
        air_free = self.paint(
            volume, [(trunk, 1040.0), (right, 160.0), (left, 160.0), (liver, 1060.0), (spleen, 1050.0)]
        )
        volume.array[...] = air_free - 1000.0
        return volume


def study(*volumes: Volume) -> Study:
    return Study(
        study_instance_uid="1.2.1", patient=Patient(patient_id="P"), study_date=None, volumes=volumes
    )


def found(plugin: PetLesion, given: Study) -> tuple[Finding, ...]:
    return parted(plugin.run(given))[0]


HOT = (((60.0, -20.0, 60.0), 14.0, 9.0), ((-20.0, 40.0, 120.0), 9.0, 6.0))


def test_planted_bodies_are_found_where_they_are_as_large_and_as_hot_as_they_are() -> None:
    pet = Trunk(hot=HOT, noise=0.0).pet()
    plugin = PetLesion()
    assert isinstance(plugin, Plugin)
    lesions = [f for f in found(plugin, study(pet)) if f.type == codes.LESION]
    assert [f.label for f in lesions] == ["PET lesion 1", "PET lesion 2"]
    for lesion, (centre, radius, suv) in zip(lesions, HOT, strict=True):
        index = np.argwhere(lesion.mask.full())
        assert pet.to_mm(index.mean(axis=0)) == pytest.approx(centre, abs=2.0)
        assert lesion.measurement("suv_max").value == pytest.approx(suv)
        assert lesion.measurement("suv_mean").value == pytest.approx(suv)
        truth_ml = 4 / 3 * np.pi * radius**3 / 1000
        assert lesion.measurement("volume").value == pytest.approx(truth_ml, rel=0.12)
        assert lesion.measurement("mtv").value == lesion.measurement("volume").value
        assert lesion.measurement("tlg").value == pytest.approx(suv * lesion.measurement("mtv").value)
        assert lesion.measurement("long_axis").value == pytest.approx(2 * radius, abs=4.0)
        assert "SUV >= 4" in lesion.measurement("mtv").method


def test_no_claim_is_made_about_what_the_uptake_is() -> None:
    lesions = [f for f in found(PetLesion(), study(Trunk(hot=HOT).pet())) if f.type == codes.LESION]
    assert all(f.confidence is None and f.automatic for f in lesions)
    _, flags = parted(PetLesion().run(study(Trunk(hot=HOT).pet())))
    assert [f.code for f in flags] == ["physiological-uptake-not-recognised"]


def test_a_study_with_nothing_hot_and_no_liver_has_no_findings_and_says_why_there_is_no_reference() -> None:
    pet = grid((20, 30, 30), SPACING, role="pet_suv")
    findings, flags = parted(PetLesion().run(study(pet)))
    assert findings == ()
    assert [f.code for f in flags] == ["no-liver-candidate"]


def test_keys_are_the_same_when_the_run_is_repeated() -> None:
    pet = Trunk(hot=HOT).pet()
    once, again = (found(PetLesion(), study(pet)) for _ in range(2))
    assert [f.key for f in once] == [f.key for f in again]
    assert len({f.key for f in once}) == len(once)


def test_places_that_touch_at_a_corner_are_one_and_small_ones_are_left_out() -> None:
    pet = grid((10, 20, 20), SPACING, role="pet_suv")
    pet.array[2:4, 2:4, 2:4] = 5.0
    pet.array[4, 4, 4] = 6.0
    pet.array[8, 15, 15:17] = 9.0
    (one,) = found(PetLesion(), study(pet))
    assert one.mask.count == 9
    assert len(found(PetLesion(minimum_voxels=2, minimum_volume_ml=0.1), study(pet))) == 2


def test_the_percent_threshold_is_that_of_each_hot_spot() -> None:
    pet = grid((12, 30, 30), SPACING, role="pet_suv")
    pet.array[...] = 0.5
    pet.array[2:10, 3:11, 3:11] = 5.0
    pet.array[3:9, 4:10, 4:10] = 20.0
    pet.array[2:9, 15:26, 15:26] = 2.4
    pet.array[3:8, 16:25, 16:25] = 5.8
    hot, faint = sorted(
        found(PetLesion(threshold="percent"), study(pet)), key=lambda f: -f.measurement("suv_max").value
    )
    assert hot.mask.count == 6 * 6 * 6
    assert "8.20 (41 % of hot spot's SUVmax 20.00" in hot.measurement("mtv").method
    assert faint.mask.count == 7 * 11 * 11
    assert "2.38 (41 % of hot spot's SUVmax 5.80" in faint.measurement("mtv").method


def test_a_percent_threshold_that_leaks_into_the_surroundings_stays_at_the_floor_and_says_so() -> None:
    pet = grid((30, 60, 60), SPACING, role="pet_suv")
    pet.array[...] = 2.0
    pet.array[10:15, 20:25, 20:25] = 4.0
    (lesion,) = found(PetLesion(threshold="percent"), study(pet))
    assert lesion.mask.count == 125
    assert "percent-threshold-leaks" in [flag.code for flag in lesion.flags]
    assert "2.5" in lesion.measurement("mtv").method


def test_what_is_below_the_threshold_is_drawn_at_a_point_when_it_is_asked_for() -> None:
    centre = (-75.0, 0.0, 110.0)
    given = study(Trunk(noise=0.0, hot=((centre, 14.0, 3.0),)).pet())
    plugin = PetLesion()
    assert [f for f in found(plugin, given) if f.type == codes.LESION] == []
    drawn = plugin.segment_at(given, "1.2.20", (-70.0, 4.0, 106.0), "PET lesion 7")
    assert drawn is not None
    assert drawn.label == "PET lesion 7"
    assert given.volumes[0].centroid_mm(drawn.mask) == pytest.approx(centre, abs=1.0)
    assert drawn.measurement("volume").value == pytest.approx(4 / 3 * np.pi * 1.4**3, rel=0.1)
    assert plugin.segment_at(given, "1.2.20", (75.0, 0.0, 110.0), "lung") is None
    assert plugin.segment_at(given, "1.2.20", (5000.0, 0.0, 0.0), "outside") is None


def test_at_most_so_many_lesions_are_reported_and_the_rest_is_told() -> None:
    pet = grid((12, 60, 60), SPACING, role="pet_suv")
    for place in range(9):
        pet.array[2 : 5 + place % 3, 6 * place + 1 : 6 * place + 4, 10:13] = 8.0
    findings, flags = parted(PetLesion(maximum_lesions=3).run(study(pet)))
    assert [f.mask.count for f in findings] == [45, 45, 45]
    assert "9 places" in next(flag.sentence for flag in flags if flag.code == "too-many-lesions")


@pytest.mark.parametrize("with_ct", [True, False])
def test_the_liver_reference_is_a_sphere_of_three_centimetres_in_the_liver(with_ct: bool) -> None:
    trunk = Trunk(hot=HOT)
    volumes = (trunk.pet(), trunk.ct()) if with_ct else (trunk.pet(),)
    findings = found(PetLesion(), study(*volumes))
    liver = findings[0]
    assert (liver.label, liver.type, liver.site) == ("Liver reference", codes.REFERENCE_REGION, codes.LIVER)
    body = ellipsoid(LIVER_CENTRE, (70, 70, 60)).inside(volumes[0])
    assert body[liver.mask.box][liver.mask.voxels].all()
    assert liver.mask.count * 0.064 == pytest.approx(4 / 3 * np.pi * 1.5**3, rel=0.05)
    mean, sd = liver.measurement("suv_mean").value, liver.measurement("suv_sd").value
    assert mean == pytest.approx(2.1, abs=0.03)
    assert sd == pytest.approx(2.1 * 0.08, abs=0.03)
    assert liver.measurement("liver_threshold").value == pytest.approx(1.5 * mean + 2 * sd)
    assert ("liver-from-pet-alone" in [f.code for f in liver.flags]) is not with_ct


def test_lesions_and_liver_are_told_in_sul_too_where_the_lean_body_mass_is_known() -> None:
    pet = Trunk(hot=HOT, noise=0.0).pet()
    known = {"sul_factor": 0.75, "uptake_minutes": 61.5, "injected_mbq": 300.0}
    liver, hottest, other = found(PetLesion(), study(replace(pet, suv=known)))
    assert hottest.measurement("sul_peak").value == pytest.approx(0.75 * 9.0)
    assert hottest.measurement("sul_peak").unit == codes.SUV_LBM_JANMA_UNIT
    told = {m.name: m.value for m in liver.measurements}
    assert (told["suv_mean"], told["sul_mean"]) == (pytest.approx(2.1), pytest.approx(0.75 * 2.1))
    assert (told["sul_sd"], told["uptake_time"], told["injected_activity"]) == (
        pytest.approx(0.0),
        61.5,
        300.0,
    )
    bare = found(PetLesion(), study(pet))
    for plain, full in zip(bare, (liver, hottest, other), strict=True):
        assert plain.measurements == full.measurements[: len(plain.measurements)]
        assert not any(m.name.startswith("sul_") for m in plain.measurements)


def test_the_percist_threshold_is_that_of_the_liver() -> None:
    findings = found(PetLesion(threshold="percist"), study(Trunk(hot=HOT).pet()))
    level = findings[0].measurement("liver_threshold").value
    assert f"SUV >= {level:.2f} (1.5 x liver mean + 2 SD" in findings[1].measurement("mtv").method
    assert len(findings) == 3


def test_every_method_fits_into_a_code_meaning() -> None:
    pet = Trunk(hot=HOT).pet(orientation="sagittal", tilt_degrees=(25.0, 0.0, 25.0))
    pet.array[40:50, 30:40, 30:40] = 12.0
    pet = replace(pet, suv={"sul_factor": 0.75, "uptake_minutes": 61.5, "injected_mbq": 300.0})
    for threshold in ("fixed", "percent"):
        for peak in ("global", "local", "weighted"):
            for finding in found(PetLesion(threshold=threshold, peak=peak), study(pet)):  # type: ignore[arg-type]
                assert all(len(m.method) <= 64 for m in finding.measurements)
    for finding in found(PetLesion(threshold="percist"), study(Trunk(hot=HOT).pet())):
        assert all(len(m.method) <= 64 for m in finding.measurements)


def test_the_percist_threshold_without_a_liver_is_refused_with_the_reason() -> None:
    pet = Trunk(hot=HOT).pet(shape=(20, 70, 95))
    with pytest.raises(Refused) as refused:
        found(PetLesion(threshold="percist"), study(pet))
    assert refused.value.code == "no-liver-reference"
    assert "liver" in refused.value.sentence


def test_a_liver_on_the_left_an_even_pair_and_a_short_image_give_no_reference_but_a_reason() -> None:
    def reason(pet: Volume, *cts: Volume) -> str:
        found = find_liver(pet, cts)
        assert isinstance(found, Flag)
        assert found.plugin == "pet_lesion"
        return found.code

    assert reason(Trunk(liver_centre=(75.0, 0.0, -40.0)).pet()) == "liver-not-on-the-right"
    both = Trunk(hot=(((75.0, 10.0, -120.0), 62.0, 2.1),))
    assert reason(both.pet()) == "liver-ambiguous"
    assert reason(Trunk(liver_suv=0.8).pet()) in ("no-liver-candidate", "liver-too-small")
    assert reason(Trunk().pet(shape=(60, 70, 95))) == "field-too-small"
    assert reason(grid((5, 5, 5), SPACING, role="pet_suv")) == "no-liver-candidate"


def test_the_ct_of_another_frame_of_reference_is_left_aside() -> None:
    trunk = Trunk()
    found = find_liver(trunk.pet(), [trunk.ct(frame_of_reference_uid="9.9")])
    assert isinstance(found, LiverReference)
    assert not found.with_ct


def test_the_ct_speaks_against_even_uptake_that_is_not_soft_tissue() -> None:
    trunk = Trunk()
    ct = trunk.ct()
    ct.array[ellipsoid(LIVER_CENTRE, (72, 72, 62)).inside(ct)] = -90.0
    assert isinstance(find_liver(trunk.pet(), [ct]), Flag)


def test_unusual_liver_uptake_is_told() -> None:
    trunk = Trunk(liver_suv=3.6)
    found = find_liver(trunk.pet(), [trunk.ct()])
    assert isinstance(found, LiverReference)
    assert [f.code for f in found.flags] == ["liver-uptake-unusual"]


def test_a_study_without_suv_is_not_accepted_and_refused() -> None:
    other = study(grid((5, 5, 5), SPACING, role="pet_activity"))
    assert not PetLesion().accepts(other)
    with pytest.raises(Refused, match="no-suv"):
        PetLesion().run(other)


def test_two_pet_series_are_numbered_through() -> None:
    first, second = (
        Trunk(hot=HOT).pet(),
        grid(
            (10, 20, 20),
            SPACING,
            role="pet_suv",
            series_instance_uid="1.2.21",
            frame_of_reference_uid="1.2.9",
        ),
    )
    second.array[2:6, 2:6, 2:6] = 7.0
    labels = [f.label for f in found(PetLesion(), study(first, second)) if f.type == codes.LESION]
    assert labels == ["PET lesion 1", "PET lesion 2", "PET lesion 3"]


def test_a_sphere_outside_the_image_is_an_empty_mask() -> None:
    assert sphere_mask(grid((5, 5, 5), SPACING), (900.0, -900.0, 900.0), 15.0).count == 0


@pytest.mark.parametrize(
    "wrong",
    [{"threshold": "auto"}, {"fixed_suv": 0.0}, {"percent_of_maximum": 120.0}, {"minimum_voxels": 0}],
)
def test_wrong_settings_are_not_taken(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"threshold|least"):
        PetLesion(**wrong)  # type: ignore[arg-type]


class Growing:
    """Draws as the network does: a ball of 20 mm around the point, or nothing."""

    def __init__(self, sees: bool = True) -> None:
        self.sees = sees
        self.shown: list[object] = []
        self.card = ModelCard(name="ball", version="1", kind="learned", intended_use="tests")

    def answer(
        self, suv: NDArray[np.float32], spacing_mm: tuple[float, ...], point: tuple[int, ...], hu: object
    ) -> Lesion:
        self.shown.append(hu)
        index = np.indices(suv.shape).astype(np.float32)
        far = sum(((g - p) * s) ** 2 for g, p, s in zip(index, point, spacing_mm, strict=True))
        probability = ((far <= 400.0) & self.sees).astype(np.float32)
        return Lesion(mask=probability > 0.5, probability=probability, log_hazard=1.25)


def test_the_network_draws_when_it_is_asked_to_and_shows_its_card(monkeypatch: pytest.MonkeyPatch) -> None:
    model, trunk = Growing(), Trunk(hot=HOT)
    monkeypatch.setattr("plugins.pet_lesion.current_petct", lambda _: model)
    plugin = PetLesion(outline="learned")
    lesions = [f for f in found(plugin, study(trunk.pet(), trunk.ct())) if f.type == codes.LESION]
    assert plugin.model is model.card
    ball_ml = 4 / 3 * np.pi * 20**3 / 1000
    assert [f.measurement("volume").value for f in lesions] == [pytest.approx(ball_ml, rel=0.03)] * 2
    assert all(f.flags == () for f in lesions)
    told = found(PetLesion(outline="learned", hazard=True), study(trunk.pet()))
    assert [f.flags[-1].code for f in told if f.type == codes.LESION] == ["simulated-hazard"] * 2
    assert "Log hazard 1.25" in told[-1].flags[-1].sentence
    hu = model.shown[0]
    assert isinstance(hu, np.ndarray)
    assert hu.shape == SHAPE
    assert hu[trunk.bodies[3].inside(trunk.pet())].mean() == pytest.approx(60, abs=15)


def test_places_in_one_drawn_lesion_are_one_and_what_is_not_seen_keeps_its_threshold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    near = (((0.0, 0.0, 0.0), 6.0, 9.0), ((16.0, 0.0, 0.0), 5.0, 8.0))
    pet = Trunk(hot=near, noise=0.0).pet()
    monkeypatch.setattr("plugins.pet_lesion.current_petct", lambda _: Growing())
    one = [f for f in found(PetLesion(outline="learned"), study(pet)) if f.type == codes.LESION]
    assert len(one) == 1
    monkeypatch.setattr("plugins.pet_lesion.current_petct", lambda _: Growing(sees=False))
    two = [f for f in found(PetLesion(outline="learned"), study(pet)) if f.type == codes.LESION]
    assert [[flag.code for flag in f.flags] for f in two] == [["drawn-by-threshold"]] * 2


def test_an_unknown_outline_is_refused() -> None:
    with pytest.raises(ValueError, match="outline"):
        PetLesion(outline="guess")  # type: ignore[arg-type]
