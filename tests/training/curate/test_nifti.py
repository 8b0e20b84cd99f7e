"""NIfTI pairs to cases: by name or by table, each label, on the voxels of the image or not at all."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from plugins.errors import Refused
from training.curate.curation import Curation
from training.curate.nifti import Names, curate_nifti, pairs_by_name, pairs_of_table
from training.curate.wanted import Wanted
from training.lidc import load_nodule
from training.sts import load_sarcoma

SHAPE = (20, 18, 8)  # as the file has it: x, y, z
AFFINE = np.array([[-0.8, 0, 0, 30.0], [0, -0.8, 0, 40.0], [0, 0, 2.5, -100.0], [0, 0, 0, 1]])
BY_PATIENT = Names(image="images/{patient}_{scan}.nii.gz", mask="masks/{patient}_{scan}_mask*.nii.gz")


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-900, 200, SHAPE).astype(np.int16)


def labels() -> np.ndarray:
    """Label 1 in two pieces of 27 and 8 voxels, label 3 of 48."""
    array = np.zeros(SHAPE, dtype=np.uint8)
    array[2:5, 2:5, 1:4] = array[10:12, 10:12, 5:7] = 1
    array[8:12, 2:6, 0:3] = 3
    return array


def curated(source: Path, out: Path, names: Names = BY_PATIENT, **more: Any) -> Curation:
    wanted = Wanted(**{key: more.pop(key) for key in ("apart", "modality", "hashed") if key in more})
    pairs, left_out = pairs_by_name(source, names)
    return curate_nifti(source, out / "data", pairs, wanted, "test", left_out=left_out, **more)


def test_each_label_is_a_case_of_the_patient_whom_the_name_tells(tmp_path: Path) -> None:
    for patient, scan in (("A", "1"), ("A", "2"), ("B", "1")):
        save(tmp_path / "in" / "images" / f"{patient}_{scan}.nii.gz", image(ord(patient)))
        save(tmp_path / "in" / "masks" / f"{patient}_{scan}_mask.nii.gz", labels())
    found = curated(tmp_path / "in", tmp_path)
    assert found.left_out == ()
    assert sorted((one.case.patient_id, one.region, one.voxels) for one in found.taken) == [
        *[("A", "label 1", 35)] * 2,
        *[("A", "label 3", 48)] * 2,
        ("B", "label 1", 35),
        ("B", "label 3", 48),
    ]
    assert len({one.case.fold for one in found.taken if one.case.patient_id == "A"}) == 1
    assert found.taken[0].case.tags["label"] == 1.0
    only = curated(tmp_path / "in", tmp_path / "3", labels=[3])
    assert {one.voxels for one in only.taken} == {48}
    assert only.counts == {"not-asked": 3}
    apart = curated(tmp_path / "in", tmp_path / "apart", apart=True, labels=[1])
    assert sorted(one.voxels for one in apart.taken) == [8, 8, 8, 27, 27, 27]


def test_one_image_of_two_patients_makes_no_data_set(tmp_path: Path) -> None:
    for patient in "AB":
        save(tmp_path / "in" / "images" / f"{patient}_1.nii.gz", image())
        save(tmp_path / "in" / "masks" / f"{patient}_1_mask.nii.gz", labels())
    with pytest.raises(Refused, match=r"image-of-two-patients: .* of B_.* is also the image of A_"):
        curated(tmp_path / "in", tmp_path)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("turn", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_a_case_has_the_values_of_its_image_at_the_same_places(
    tmp_path: Path, turn: tuple[int, int, int]
) -> None:
    """The files run any way, image and mask each its own; what is read back is one and the same."""
    source = tmp_path / "in"
    step = tuple(slice(None, None, t) for t in turn)
    affine = AFFINE.copy()
    for axis, t in enumerate(turn):
        if t < 0:
            affine[:3, 3] += affine[:3, axis] * (SHAPE[axis] - 1)
            affine[:3, axis] *= -1
    save(source / "images" / "A_1.nii.gz", image()[step], affine)
    save(source / "masks" / "A_1_mask.nii.gz", labels())
    case = curated(source, tmp_path, labels=[3]).taken[0].case
    nodule = load_nodule(case, tmp_path / "data")
    # in AFFINE x grows to the left and y to the back, as in the patient's own axes
    whole, truth = image().transpose(2, 1, 0), (labels() == 3).transpose(2, 1, 0)
    assert nodule.spacing_mm == pytest.approx((2.5, 0.8, 0.8))
    assert np.array_equal(nodule.mask, truth)
    assert np.array_equal(nodule.image, whole)


def test_files_without_a_partner_and_masks_on_other_voxels_are_told(tmp_path: Path) -> None:
    source = tmp_path / "in"
    save(source / "images" / "A_1.nii.gz", image())
    save(source / "masks" / "A_1_mask.nii.gz", labels())
    moved = AFFINE.copy()
    moved[0, 3] += 0.4  # half a voxel
    save(source / "masks" / "A_1_mask2.nii.gz", labels(), moved)
    save(source / "masks" / "A_1_mask3.nii.gz", np.zeros(SHAPE, dtype=np.uint8))
    save(source / "masks" / "B_1_mask.nii.gz", labels())
    save(source / "images" / "C_1.nii.gz", image())
    save(source / "images" / "D_1.nii.gz", image() + np.int16(2000))
    save(source / "masks" / "D_1_mask.nii.gz", labels())
    (source / "images" / "E_1.nii.gz").write_bytes(b"no image")
    save(source / "masks" / "E_1_mask.nii.gz", labels())
    save(source / "readme.nii.gz", labels())
    found = curated(source, tmp_path)
    assert {(Path(one.where).name, one.code) for one in found.left_out} == {
        ("A_1_mask2.nii.gz", "unequal-grids"),
        ("A_1_mask3.nii.gz", "empty-mask"),
        ("B_1_mask.nii.gz", "no-image"),
        ("C_1.nii.gz", "no-mask"),
        ("D_1.nii.gz", "not-hounsfield"),
        ("E_1.nii.gz", "unreadable-image"),
        ("readme.nii.gz", "other-files"),
    }
    assert {one.where for one in found.taken} == {"masks/A_1_mask.nii.gz"}


def test_a_mask_in_colour_is_left_out_and_the_others_are_taken(tmp_path: Path) -> None:
    colours = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    for patient, mask in (("A", colours), ("B", labels())):
        save(tmp_path / "in" / "images" / f"{patient}_1.nii.gz", image())
        save(tmp_path / "in" / "masks" / f"{patient}_1_mask.nii.gz", mask)
    found = curated(tmp_path / "in", tmp_path)
    assert [(one.code, one.where) for one in found.left_out] == [("mask-not-labels", "masks/A_1_mask.nii.gz")]
    assert [(one.case.patient_id, one.voxels) for one in found.taken] == [("B", 35), ("B", 48)]


def test_a_table_names_pairs_patients_and_tags(tmp_path: Path) -> None:
    save(tmp_path / "ct.nii.gz", image())
    save(tmp_path / "lesion.nii.gz", labels())
    rows = [
        {
            "image": "ct.nii.gz",
            "mask": "lesion.nii.gz",
            "patient": "X",
            "scanner": "ACME 1",
            "malignancy": "4",
        },
        {"image": "ct.nii.gz", "mask": "gone.nii.gz", "patient": "X"},
        {"image": "ct.nii.gz", "mask": "lesion.nii.gz", "patient": " "},
    ]
    with (tmp_path / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    pairs, left_out = pairs_of_table(tmp_path, tmp_path / "cases.csv")
    assert [(one.where, one.code) for one in left_out] == [
        ("cases.csv, line 3", "no-file"),
        ("cases.csv, line 4", "no-patient-id"),
    ]
    found = curate_nifti(tmp_path, tmp_path / "out", pairs, Wanted(), "test", left_out=left_out)
    tags = found.taken[0].case.tags
    assert (tags["scanner"], tags["malignancy"], found.taken[0].case.patient_id) == ("ACME 1", 4.0, "X")
    (tmp_path / "bad.csv").write_text("image,mask\na,b\n")
    with pytest.raises(Refused, match="no column patient"):
        pairs_of_table(tmp_path, tmp_path / "bad.csv")
    with pytest.raises(Refused, match="bad-table"):
        pairs_of_table(tmp_path, tmp_path / "none.csv")
    (tmp_path / "shifted.csv").write_text("image,mask,patient,scanner\na,b,X,ACME, 1\n")
    with pytest.raises(
        Refused, match=r"line 2 of .*shifted.csv has more or fewer cells than .* columns \(4\)"
    ):
        pairs_of_table(tmp_path, tmp_path / "shifted.csv")


@pytest.mark.parametrize("name", ["spacing_x_mm", "spacing_z_mm", "origin", "label", "doubts"])
def test_a_column_of_what_the_files_themselves_say_is_refused(tmp_path: Path, name: str) -> None:
    table = tmp_path / "cases.csv"
    table.write_text(f"image,mask,patient,scanner,{name}\nct.nii,lesion.nii,X,ACME 1,9\n")
    with pytest.raises(Refused, match=rf"bad-table: .*cases\.csv has a column {name}, which .* leave it out"):
        pairs_of_table(tmp_path, table)


def test_a_table_may_tell_the_kernel_and_the_series_that_a_nifti_does_not(tmp_path: Path) -> None:
    save(tmp_path / "ct.nii", image())
    save(tmp_path / "lesion.nii", labels())
    table = tmp_path / "cases.csv"
    table.write_text("image,mask,patient,kernel,series_instance_uid\nct.nii,lesion.nii,X,B30f,1.2.3\n")
    found = curate_nifti(tmp_path, tmp_path / "out", pairs_of_table(tmp_path, table)[0], Wanted(), "test")
    tags = found.taken[0].case.tags
    assert (tags["kernel"], tags["series_instance_uid"], tags["spacing_z_mm"]) == ("B30f", "1.2.3", 2.5)


def test_a_table_that_leads_elsewhere_or_gives_an_image_to_two_patients_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, table = tmp_path / "source", tmp_path / "cases.csv"
    folder.mkdir()
    for name in ("a.nii", "b.nii", "m.nii", "n.nii", "../secret.nii"):
        (folder / name).touch()
    monkeypatch.chdir(folder)

    def read(*rows: str, source: Path = folder) -> list[str]:
        table.write_text("\n".join(["image,mask,patient", *rows]))
        return [one.code for one in pairs_of_table(source, table)[1]]

    for source in (folder, Path()):
        rows = (f"{tmp_path / 'secret.nii'},m.nii,P", "a.nii,../secret.nii,P", "b.nii,n.nii,P")
        assert read(*rows, source=source) == ["outside", "outside"]
    with pytest.raises(Refused, match=r"line 2 and cases.csv, line 3 give a.nii to two patients"):
        read("a.nii,m.nii,P", "a.nii,n.nii,Q")
    with pytest.raises(Refused, match=r"line 2 and cases.csv, line 4 name the same mask"):
        read("a.nii,m.nii,P", "a.nii,n.nii,P", "b.nii,m.nii,P")


def test_a_pet_is_taken_in_suv_and_refused_when_it_cannot_be_that(tmp_path: Path) -> None:
    names = Names(image="{patient}/pet.nii.gz", mask="{patient}/mask.nii.gz")
    suv = np.random.default_rng(0).uniform(0, 12, SHAPE).astype(np.float32)
    for patient, factor in (("A", 1), ("B", 9000)):
        save(tmp_path / "in" / patient / "pet.nii.gz", suv * factor)
        save(tmp_path / "in" / patient / "mask.nii.gz", labels())
    found = curated(tmp_path / "in", tmp_path, names, modality="PT", labels=[3])
    sarcoma = load_sarcoma(found.taken[0].case, tmp_path / "data")
    assert sarcoma.suv_max == pytest.approx(float(suv[labels() == 3].max()))
    assert found.counts == {"not-asked": 1, "not-suv": 1}


@pytest.mark.parametrize(
    ("image_name", "mask_name"),
    [
        ("{scan}.nii.gz", "{scan}_mask.nii.gz"),
        ("{patient}_{scan}.nii.gz", "{patient}.nii.gz"),
        ("{patient}{scan}.nii.gz", "{patient}{scan}_mask.nii.gz"),
        ("{patient}*.nii.gz", "{patient}_mask.nii.gz"),
    ],
)
def test_names_that_do_not_tell_the_patient_or_who_belongs_together_are_refused(
    image_name: str, mask_name: str
) -> None:
    with pytest.raises(Refused, match="bad-names"):
        Names(image=image_name, mask=mask_name)


def test_nothing_is_made_of_a_folder_without_pairs(tmp_path: Path) -> None:
    save(tmp_path / "in" / "images" / "A_1.nii.gz", image())
    with pytest.raises(Refused, match="no-pairs") as told:
        curated(tmp_path / "in", tmp_path)
    assert "no mask is named like it" in told.value.sentence
    assert not (tmp_path / "data").exists()


def test_real_crops_become_cases_of_the_same_voxels(data: Path, tmp_path: Path) -> None:
    root = data / "lidc_nodules"
    names = Names(
        image="images/{patient}_nodule{number}_ct.nii.gz", mask="masks/{patient}_nodule{number}_mask.nii.gz"
    )
    pairs, left_out = pairs_by_name(root, names)
    assert (len(pairs), len({pair.patient_id for pair in pairs}), left_out) == (856, 471, [])
    found = curate_nifti(root, tmp_path, pairs[:3], Wanted(), "test")
    assert len(found.taken) == 3
    by_mask = {str(pair.mask.relative_to(root)): pair for pair in pairs}
    for one in found.taken:
        pair, nodule = by_mask[one.where], load_nodule(one.case, tmp_path)
        source, truth = (np.asarray(nibabel.load(path).dataobj) for path in (pair.image, pair.mask))
        assert one.voxels == int(nodule.mask.sum()) == int((truth > 0).sum())
        assert np.sort(nodule.image[nodule.mask]) == pytest.approx(np.sort(source[truth > 0]))
