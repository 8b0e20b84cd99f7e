from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.errors import Refused
from training.lidc import lidc_manifest, load_nodule
from training.manifest import Case, DataManifest, folds, part_of, read_manifest, require_patients_apart
from training.sts import sts_manifest

WEIGHTS = Path(__file__).parents[2] / "models" / "weights"


def case(name: str, patient: str, fold: int) -> Case:
    return Case(case_id=name, patient_id=patient, files={}, sha256={}, fold=fold, size_mm=8.0)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=6), st.floats(3, 40), min_size=5, max_size=60))
def test_folds_depend_on_the_patients_and_not_on_their_order(sizes: dict[str, float]) -> None:
    found = folds(sizes)
    assert found == folds(dict(reversed(sizes.items())))
    counts = [list(found.values()).count(n) for n in range(5)]
    assert max(counts) - min(counts) <= 1


def test_every_fold_holds_its_part_of_the_large_lesions() -> None:
    found = folds({f"p{n}": float(n) for n in range(100)})
    large = [found[f"p{n}"] for n in range(50, 100)]
    assert [large.count(n) for n in range(5)] == [10] * 5


def test_no_patient_is_on_two_sides_of_a_split() -> None:
    with pytest.raises(Refused, match="patient-on-both-sides"):
        DataManifest(name="x", cases=(case("a", "P1", 0), case("b", "P1", 1)))
    with pytest.raises(Refused, match="P2"):
        require_patients_apart([case("a", "P2", 0)], [case("b", "P2", 0)])


def test_a_case_is_in_a_manifest_once() -> None:
    with pytest.raises(Refused, match="case-twice: case b is 2 times in x"):
        DataManifest(name="x", cases=(case("a", "P1", 0), case("b", "P2", 1), case("b", "P2", 1)))
    assert DataManifest(name="x", cases=()).cases == ()


def test_a_smaller_part_of_the_patients_lies_in_a_larger_one_and_takes_all_cases_of_each() -> None:
    cases = [case(f"{n}{side}", f"P{n}", n % 5) for n in range(40) for side in "ab"]
    quarter, half = part_of(cases, 0.25), part_of(cases, 0.5)
    assert (len(quarter), len(half), len(part_of(cases, 1.0))) == (20, 40, 80)
    assert {c.case_id for c in quarter} < {c.case_id for c in half}


def test_a_manifest_is_read_back_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    manifest = DataManifest(name="x", cases=(case("a", "P1", 0), case("b", "P2", 1)))
    path = tmp_path / "data.json"
    manifest.write(path)
    assert read_manifest(path) == manifest
    path.write_text(path.read_text().replace('"P2"', '"P3"'))
    with pytest.raises(Refused, match="changed-manifest"):
        read_manifest(path)


def test_the_nodule_crops_are_in_folds_by_patient_with_all_sizes_in_each(data: Path) -> None:
    manifest = lidc_manifest(data / "lidc_nodules")
    assert len(manifest.cases) == 856
    for number in range(5):
        held = manifest.fold(number)
        assert {c.patient_id for c in held}.isdisjoint({c.patient_id for c in manifest.others(number)})
        assert sum(c.size_mm > 20 for c in held) == 8
    nodule = load_nodule(manifest.cases[0], data / "lidc_nodules")
    assert nodule.image.shape == nodule.mask.shape == (11, 64, 53)
    assert nodule.spacing_mm == pytest.approx((2.5, 0.703125, 0.703125))
    assert int(nodule.mask.sum()) == 6547


NODULE_COLUMNS = (
    "image_file,mask_file,patient_id,nodule_id,diameter_mm,"
    "spacing_x_mm,spacing_z_mm,malignancy,subtlety,texture,spiculation,margin"
)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (NODULE_COLUMNS.replace("diameter", "diametre"), "has no column diameter_mm"),
        (NODULE_COLUMNS, "has no row below the names of its columns"),
        (
            f"{NODULE_COLUMNS}\ni,m,P,1,wide,1,1,3,3,3,3,3",
            "'diameter_mm' in line 2 of .* is no number above 0 up to 500: 'wide'",
        ),
        (
            f"{NODULE_COLUMNS}\ni,m,P,1,nan,1,1,3,3,3,3,3",
            "'diameter_mm' in line 2 of .* number above 0 up to 500: 'nan'",
        ),
        (
            f"{NODULE_COLUMNS}\ni,m,P,1,-4,1,1,3,3,3,3,3",
            "'diameter_mm' in line 2 of .* above 0 up to 500: '-4'",
        ),
        (f"{NODULE_COLUMNS}\ni,m,P,1,,1,1,3,3,3,3,3", "'diameter_mm' in line 2 of .* above 0 up to 500: ''"),
        (
            f"{NODULE_COLUMNS}\ni,m,P,1,9,1,1,high,3,3,3,3",
            "'malignancy' in line 2 of .* is no number from 1 up to 5: 'high'",
        ),
        (
            f"{NODULE_COLUMNS}\ni,m,P,1,9,1,inf,3,3,3,3,3",
            "'spacing_z_mm' in line 2 of .* is no number: 'inf'",
        ),
        (f"{NODULE_COLUMNS}\ni,m,P,x,9,1,1,3,3,3,3,3", "'nodule_id' in line 2 of .* is no number: 'x'"),
        (f"{NODULE_COLUMNS}\ni,m,P,1.5,9,1,1,3,3,3,3,3", "nodule_id 1.5 in line 2 of .* is no whole number"),
        (
            f"{NODULE_COLUMNS}\ni,m,P,1,23350,1,1,3,3,3,3,3",
            "'diameter_mm' in line 2 of .* up to 500: '23350'",
        ),
        (f"{NODULE_COLUMNS}\ni,m,P,1,9,1,1,9,3,3,3,3", "'malignancy' in line 2 of .* from 1 up to 5: '9'"),
        (f"{NODULE_COLUMNS}\ni,m,P,1,9,1,1,3,3,50,3,3", "'texture' in line 2 of .* from 1 up to 5: '50'"),
        (f"{NODULE_COLUMNS}\ni,m,P,1,9,1,1,3,3,3,3,0", "'margin' in line 2 of .* from 1 up to 5: '0'"),
        (f"{NODULE_COLUMNS}\ni,m, ,1,9,1,1,3,3,3,3,3", "'patient_id' in line 2 of .* is empty; fill it in"),
        (f"{NODULE_COLUMNS}\ni,m,M\xfcller,1,9,1,1,3,3,3,3,3", "cannot be read as CSV .*UTF-8"),
    ],
)
def test_a_table_of_nodules_that_cannot_be_understood_is_told_by_line_and_column(
    tmp_path: Path, content: str, says: str
) -> None:
    (tmp_path / "nodules.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(Refused, match=f"bad-table: .*{says}"):
        lidc_manifest(tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("name,gtv_pet_volume_ml,suv_max,suv_mean\nA,30,5,2", "has no column patient;"),
        ("patient,gtv_pet_volume_ml,suv_max,suv_mean", "has no row below the names of its columns"),
        (
            "patient,gtv_pet_volume_ml,suv_max,suv_mean\nA,-3,5,2",
            "'gtv_pet_volume_ml' in line 2 .* above 0: '-3'",
        ),
        (
            "patient,gtv_pet_volume_ml,suv_max,suv_mean\n,30,5,2",
            "'patient' in line 2 of .* is empty; fill it in",
        ),
        ("patient,gtv_pet_volume_ml,suv_max,suv_mean\nA,30,,2", "'suv_max' in line 2 of .* is no number: ''"),
        (
            "patient,gtv_pet_volume_ml,suv_max,suv_mean\nA,30,5,nan",
            "'suv_mean' in line 2 of .* is no number: 'nan'",
        ),
    ],
)
def test_a_table_of_sarcomas_that_cannot_be_understood_is_told_by_line_and_column(
    tmp_path: Path, content: str, says: str
) -> None:
    (tmp_path / "patients.csv").write_text(content)
    with pytest.raises(Refused, match=f"bad-table: .*{says}"):
        sts_manifest(tmp_path)


def test_a_file_that_a_table_names_and_that_is_not_there_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "i").write_bytes(b"image")
    (tmp_path / "nodules.csv").write_text(f"{NODULE_COLUMNS}\ni,m.nii,P,1,9,1,1,3,3,3,3,3")
    said = (
        r"missing-files: line 2 of .*nodules\.csv needs m\.nii, .*\(No such file or directory\); put it there"
    )
    with pytest.raises(Refused, match=said):
        lidc_manifest(tmp_path)
    (tmp_path / "patients.csv").write_text("patient,gtv_pet_volume_ml,suv_max,suv_mean\nA,30,5,2")
    with pytest.raises(
        Refused, match=r"missing-files: line 2 of .*patients\.csv needs A/A_pet_suv\.nii\.gz,"
    ):
        sts_manifest(tmp_path)


def with_files(root: Path, **content: bytes) -> None:
    for name, held in content.items():
        (root / name).write_bytes(held)


def test_a_name_with_blanks_around_it_is_that_patient(tmp_path: Path) -> None:
    with_files(tmp_path, i=b"image", j=b"another", m=b"mask")
    rows = "i,m,P1,1,9,1,1,3,3,3,3,3\nj,m,P1 ,2,9,1,1,3,3,3,3,3"
    (tmp_path / "nodules.csv").write_text(f"{NODULE_COLUMNS}\n{rows}")
    cases = lidc_manifest(tmp_path).cases
    assert [(one.case_id, one.patient_id) for one in cases] == [("P1_nodule01", "P1"), ("P1_nodule02", "P1")]
    (tmp_path / "A").mkdir()
    with_files(tmp_path / "A", **{"A_pet_suv.nii.gz": b"pet", "A_pet_mask.nii.gz": b"mask"})
    (tmp_path / "patients.csv").write_text("patient,gtv_pet_volume_ml,suv_max,suv_mean\nA ,30,5,2")
    assert [one.patient_id for one in sts_manifest(tmp_path).cases] == ["A"]


def test_an_image_is_that_of_one_patient(tmp_path: Path) -> None:
    with_files(tmp_path, i=b"image", j=b"image", m=b"mask")
    rows = "i,m,P1,1,9,1,1,3,3,3,3,3\nj,m,P1,2,9,1,1,3,3,3,3,3"
    (tmp_path / "nodules.csv").write_text(f"{NODULE_COLUMNS}\n{rows}")
    assert len(lidc_manifest(tmp_path).cases) == 2
    (tmp_path / "nodules.csv").write_text(f"{NODULE_COLUMNS}\n{rows.replace('j,m,P1', 'j,m,P2')}")
    with pytest.raises(
        Refused, match="image-of-two-patients: j of P2_nodule02 is also the image of P1_nodule01; name one"
    ):
        lidc_manifest(tmp_path)


@pytest.mark.parametrize("path", ["../i", "/etc/passwd", "a/../../i", "i\0"])
def test_a_file_outside_the_folder_of_its_table_is_refused_with_its_line(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    with_files(tmp_path, i=b"image")
    with_files(folder, m=b"mask")
    (folder / "nodules.csv").write_text(f"{NODULE_COLUMNS}\n{path},m,P,1,9,1,1,3,3,3,3,3")
    with pytest.raises(Refused, match=r"outside: line 2 of .*nodules\.csv names .*not in the folder of the"):
        lidc_manifest(folder)
    (folder / "patients.csv").write_text(f"patient,gtv_pet_volume_ml,suv_max,suv_mean\n{path},30,5,2")
    with pytest.raises(Refused, match=r"outside: line 2 of .*patients\.csv names"):
        sts_manifest(folder)


@pytest.mark.parametrize(
    ("model", "manifest_of", "name"),
    [
        ("nodule_segmenter", lidc_manifest, "lidc_nodules"),
        ("petct_multitask", sts_manifest, "sts_petct"),
    ],
)
def test_a_shipped_model_finds_the_very_folds_that_it_learned_in(
    data: Path, model: str, manifest_of: Callable[[Path], DataManifest], name: str
) -> None:
    card = json.loads((WEIGHTS / model / "card.json").read_text())
    assert manifest_of(data / name).sha256 == card["data_sha256"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"files": {"image": "../../etc/passwd"}}, "not in the folder"),
        ({"files": {"image": "/etc/passwd"}}, "not in the folder"),
        ({"files": {"image": "a\0b"}}, "not in the folder"),
        ({"files": None}, "no table"),
        ({"tags": [1]}, "no table"),
        ({"tags": {"scanner": {}}}, "neither a number nor a word"),
        ({"sha256": {}}, "lacks"),
        ({"fold": -1}, "fold of case .* is -1; folds are counted from 0"),
        ({"patient_id": None}, "lacks"),
        ({"size_mm": "large"}, "no number"),
        ({"size_mm": math.nan}, "size_mm of case a is nan; write a finite number above 0, mm"),
        ({"size_mm": math.inf}, "size_mm of case a is inf"),
        ({"size_mm": -5}, "size_mm of case a is -5"),
        ({"size_mm": 10**400}, "is no manifest of data"),
        ({"size_mm": 0, "files": {"mask": "m"}, "sha256": {"mask": "0"}}, "size_mm of case a is 0"),
        (
            {"tags": {"subtlety": math.nan}},
            "tag 'subtlety' of case 'a' is nan; write a finite number, or null",
        ),
        ({"tags": {"subtlety": -math.inf}}, "tag 'subtlety' of case 'a' is -inf"),
        ({"tags": {"subtlety": 10**400}}, "is no manifest of data"),
        ({"tags": {"scanner": "A\ud800"}}, r"tag 'scanner' of case 'a' is 'A.ud800', which is not UTF-8"),
        ({"patient_id": "P\udcff"}, r"its patient of case 'a' is 'P.udcff', which is not UTF-8"),
        ({"fold": 1.5}, "no number"),
    ],
)
def test_a_case_that_is_none_is_refused_also_when_the_hash_agrees(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    whole = replace(case("a", "P1", 0), files={"image": "a.nii.gz"}, sha256={"image": "0" * 64})
    path = tmp_path / "data.json"
    DataManifest(name="x", cases=(replace(whole, **changes),)).write(path)
    with pytest.raises(Refused, match=f"bad-manifest.*{why}"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("remove", "add", "says"),
    [
        ("sha256", {}, r"it has no 'sha256'; it is in every manifest that 'nadir curate' or 'nadir evaluate' writes"),
        ("name", {}, "it has no 'name'"),
        ("cases", {"cases": 5}, "'cases' is no list of tables"),
        ("cases", {"cases": [5]}, "'cases' is no list of tables"),
        ("cases", {"cases": [{"case_id": "a", "sizemm": 8.0}]}, "case a says 'sizemm'; known are case_id, .* tags"),
        ("cases", {"cases": [{"case_id": "a", "fold": 0}]}, "case a has no 'patient_id'"),
        ("cases", {"cases": [{"fold": 0}]}, "case number 1 has no 'case_id'"),
    ],
)  # fmt: skip
def test_a_manifest_with_a_wrong_key_or_without_one_is_told_which(
    tmp_path: Path, remove: str, add: dict[str, Any], says: str
) -> None:
    plain = {"name": "x", "cases": [], "sha256": "0" * 64}
    (path := tmp_path / "data.json").write_text(
        json.dumps({k: v for k, v in plain.items() if k != remove} | add)
    )
    with pytest.raises(Refused, match=rf"bad-manifest: .*data\.json is no manifest of data \({says}"):
        read_manifest(path)


def test_json_nested_without_end_is_no_manifest(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text("[" * 100_000)
    with pytest.raises(Refused, match="bad-manifest"):
        read_manifest(path)
