from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ball_nodules import ball_nodule
from scipy import ndimage

from models.nodule_detector import Search
from plugins.errors import Refused
from training import detector_ship, detector_task
from training.detector_samples import CLEAR_MM, searched, source_of
from training.detector_task import Material, as_sliced, task_of_material
from training.evaluate.data import Data
from training.experiment import Experiment, Schedule
from training.fit import fit
from training.manifest import Case, DataManifest
from training.nodules_in_scans import nodules_in_scans
from training.scans import Known, Scan, load_scan, present, thickened

SEARCH = Search(diameters_mm=(4.0, 12.0), lowest_response_hu=100.0, lowest_roundness=0.0, at_most=400)
VIEW = {"shape": [16, 16, 16], "voxels_mm": [1.0, 2.0], "window_hu": [-1000, 400]}
EXPERIMENT = Experiment(
    name="tiny",
    model="nodule_detector",
    seed=1,
    folds=(0,),
    architecture={"kind": "resnet", "out_channels": 1, "layers": [1, 1, 1, 1], "widths": [8, 8, 16, 16]},
    schedule=Schedule(steps=90, batch=24, learning_rate=1e-2, warm_up=5, average=0.8, judge_every=90),
    task={"nodules": 100, "others": 150, "view": VIEW, "search": {}},
)


def tubes(name: str, seed: int) -> Scan:
    """Return a lung of 850 HU below water with vessels along its axes and one known lesion."""
    rng = np.random.default_rng(seed)
    inside = np.zeros((50, 90, 90), dtype=np.bool_)
    inside[4:46, 6:84, 6:84] = True
    vessels = np.zeros(inside.shape)
    for _ in range(60):
        k, r, c = (int(rng.integers(8, n - 8)) for n in inside.shape)
        line = [(k, r), (k, c), (r, c)][int(rng.integers(3))]
        axis = [slice(line[0] - 1, line[0] + 1), slice(line[1] - 1, line[1] + 1)]
        axis.insert({(k, r): 2, (k, c): 1, (r, c): 0}[line], slice(None))
        vessels[tuple(axis)] = 900
    hu = np.where(inside, -850 + ndimage.gaussian_filter(vessels, 0.7), 40) + rng.normal(0, 15, inside.shape)
    return Scan(
        name=name,
        hu=hu.astype(np.float32),
        inside=inside,
        spacing_mm=(2.0, 1.0, 1.0),
        known=(Known(centre=(25.0, 45.0, 45.0), radius_mm=6.0),),
    )


@pytest.fixture(scope="module")
def material() -> Material:
    nodules = [
        ball_nodule(6.0 + n % 4, (1.25, 0.7, 0.7), seed=n, patient=f"P{n}", fold=n % 2) for n in range(8)
    ]
    scans = [tubes(f"S{n}", n) for n in range(2)]
    cases = [replace(nodule.case, files={}, sha256={}) for nodule in nodules]
    cases += [
        Case(case_id=s.name, patient_id=s.name, files={}, sha256={}, fold=n, size_mm=0.0)
        for n, s in enumerate(scans)
    ]
    return Material(
        manifest=DataManifest(name="balls in tubes", cases=tuple(cases)),
        sources=tuple(source_of(nodule, SEARCH) for nodule in nodules),
        scans=tuple(searched(scan, SEARCH) for scan in scans),
    )


def test_candidates_near_a_known_lesion_are_no_negatives(material: Material) -> None:
    for one in material.scans:
        assert len(one.none) > 20
        assert min(one.scan.away_mm(c.index) for c in one.none) >= CLEAR_MM


def test_thicker_slices_are_means_of_thin_ones_and_lesions_stay_where_they_were() -> None:
    scan = tubes("S", 1)
    thick = thickened(scan, 3)
    assert thick.spacing_mm == (6.0, 1.0, 1.0)
    assert thick.hu.shape == thick.inside.shape == (16, 90, 90)
    np.testing.assert_allclose(thick.hu[5], scan.hu[15:18].mean(axis=0), rtol=1e-5)
    assert thick.inside[1].any() and not thick.inside[0].any()
    (before,), (after,) = scan.known, thick.known
    # slice n of three lies in the middle of the slices 3n to 3n + 2
    assert after.centre == pytest.approx(((before.centre[0] - 1) / 3, *before.centre[1:]))
    assert thick.away_mm(after.centre) == pytest.approx(-before.radius_mm)


@pytest.mark.parametrize(
    ("slice_mm", "thick_mm"), [(1.0, [1.0, 2.0, 3.0, 5.0]), (2.5, [2.5, 5.0]), (5.0, [5.0])]
)
def test_a_scan_is_learned_from_at_slices_up_to_six_millimetres(
    slice_mm: float, thick_mm: list[float]
) -> None:
    scan = replace(tubes("S", 1), spacing_mm=(slice_mm, 1.0, 1.0))
    assert [one.spacing_mm[0] for one in as_sliced(scan)] == thick_mm
    assert {one.name for one in as_sliced(scan)} == {"S"}


def test_neither_patients_nor_scan_of_the_fold_are_learned_from(
    material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[set[str], set[str]]] = []
    monkeypatch.setattr(
        detector_task,
        "_pool",
        lambda crops, scans, *_: asked.append(({c.patient_id for c in crops}, {s.scan.name for s in scans})),
    )
    task_of_material(material, EXPERIMENT, 0)
    learned, unseen = asked
    assert learned == ({"P1", "P3", "P5", "P7"}, {"S1"})
    assert unseen == ({"P0", "P2", "P4", "P6"}, {"S0"})


def test_balls_are_told_from_tubes_of_another_scan_after_some_steps(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector_task, "JUDGED", 40)
    task = task_of_material(material, EXPERIMENT, 0)
    shown, target = task.batch(24, np.random.default_rng(0))
    assert shown.shape == (24, 2, 16, 16, 16)
    assert target.sum() == round(24 * task.nodule_share)
    assert float(shown.abs().max()) <= 1
    said: list[float] = []
    fit(EXPERIMENT, 0, task, tmp_path, tell=lambda now: said.append(now.judged.get("auc", 0.0)))
    assert said[-1] > 0.9


def test_a_folder_of_crops_and_scans_is_one_data_set_with_a_fold_for_each_scan(data: Path) -> None:
    names = present(data)
    assert names[:3] == ("ct_r01_001", "ct_4dlung", "lung_dx_a0001")
    with pytest.raises(Refused, match="no-scan"):
        nodules_in_scans(data / "lidc_nodules")
    with pytest.raises(Refused, match="no-scan"):
        load_scan("nobody", data)


@pytest.mark.long
def test_the_boxes_of_a_scan_become_one_known_lesion_in_its_lungs(data: Path) -> None:
    scan = load_scan("lung_dx_a0001", data)
    (known,) = scan.known
    assert known.radius_mm == pytest.approx(41, abs=1)
    k, r, c = (round(x) for x in known.centre)
    assert scan.inside[k - 3 : k + 4, r - 20 : r + 20, c - 20 : c + 20].any()
    assert scan.hu.shape == scan.inside.shape
    assert scan.away_mm(known.centre) == pytest.approx(-known.radius_mm)


def test_a_run_that_cannot_be_packed_is_told_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert detector_ship.main([str(tmp_path / "run"), str(tmp_path), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(tmp_path) in said


def test_a_card_tells_the_figures_of_the_scans_that_everybody_has_and_those_of_all_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(name: str, scans: int) -> Data:
        cases = [
            Case(case_id=f"S{n}", patient_id=f"S{n}", files={}, sha256={}, fold=n, size_mm=0.0)
            for n in range(scans)
        ]
        return Data(manifest=DataManifest(name=name, cases=tuple(cases)), root=tmp_path)

    def judged(_: object, data: Data) -> dict[str, object]:
        reached = {"1": {"value": 0.372}, "4": {"value": 0.6}}
        level = {"all": 0.9, "some": 0.7}[data.manifest.name]
        return {
            "data": data.manifest.name,
            "detection": {"levels": {"2": level}, "sensitivity_at_false_positives_per_scan": reached},
        }

    packed: dict[str, object] = {}
    monkeypatch.setattr(detector_ship, "open_run", lambda _: SimpleNamespace(card={"task": {"search": {}}}))
    monkeypatch.setattr(detector_ship, "_judged", judged)
    monkeypatch.setattr(detector_ship, "card_figures", lambda plain: plain["data"])
    monkeypatch.setattr(
        detector_ship,
        "ship",
        lambda run, data, out, about, decided, figures: packed.update(
            about=about, level=decided["level"], figures=figures, learned=data.name
        ),
    )
    detector_ship.pack(tmp_path, of("all", 5), tmp_path, of("some", 3))
    assert (packed["learned"], packed["level"], packed["figures"]) == ("all", 0.9, "some")
    *_, last = packed["about"].limits  # type: ignore[attr-defined]
    assert "3 whole scans" in last and "all 5" in last and "0.37 at 1, 0.60 at 4 false positives" in last
