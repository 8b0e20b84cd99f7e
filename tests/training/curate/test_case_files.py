"""The training form: what is written is read back, voxel by voxel, where it lay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapes import around, grid

from plugins.contract import Mask, Volume
from plugins.errors import Refused
from store.dicom.nifti_image import read_ct
from training.case_images import read_image
from training.curate.case_files import case_name, write_case, write_data_set
from training.evaluate.data import open_data
from training.lidc import load_nodule
from training.manifest import Case
from training.sts import load_sarcoma

SHAPE = (9, 14, 11)


def noise(volume: Volume, seed: int = 0, factor: float = 1.0) -> Volume:
    values = np.rint(np.random.default_rng(seed).normal(-400, 300, volume.array.shape))
    return replace(volume, array=(values * factor).astype(np.float32))


def mask_at(low: tuple[int, int, int], high: tuple[int, int, int], shape: tuple[int, int, int]) -> Mask:
    full = np.zeros(shape, dtype=np.bool_)
    full[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    full[low] = False  # a corner is missing, so that a flip is seen
    return Mask.from_full(full)


def lps_of(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The voxels of a file with the slices that `nadir segment` takes and the LPS place of each, mm."""
    volume = read_ct(path).volume
    return volume.array, volume.to_mm(np.stack(np.indices(volume.array.shape), axis=-1).astype(float))


@st.composite
def boxes(draw: st.DrawFn) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    low = [draw(st.integers(0, n - 2)) for n in SHAPE]
    high = [draw(st.integers(a + 2, n)) if a + 2 <= n else n for a, n in zip(low, SHAPE, strict=True)]
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


@settings(max_examples=25, deadline=None)
@given(
    boxes(),
    st.sampled_from(["axial", "coronal", "sagittal"]),
    st.floats(0.4, 5),
    st.floats(0.4, 2),
    st.sampled_from([0.0, 25.0]),
    st.floats(0, 8),
)
def test_what_is_written_is_read_back_with_its_voxels_its_place_and_its_spacing(
    box: tuple[tuple[int, int, int], tuple[int, int, int]],
    orientation: str,
    apart_mm: float,
    pixel_mm: float,
    tilt: float,
    margin_mm: float,
) -> None:
    spacing_mm = (apart_mm, pixel_mm, pixel_mm)
    volume = noise(grid(SHAPE, spacing_mm, orientation, tilt_degrees=(0.0, tilt, tilt / 2)))
    mask = mask_at(*box, SHAPE)
    with TemporaryDirectory() as name:
        root = Path(name)
        case = write_case(root, volume, {"mask": mask}, case_id="a", patient_id="P", margin_mm=margin_mm)
        nodule = load_nodule(case, root)
        values, places = lps_of(root / case.files["image"])
    assert np.array_equal(nodule.image, values)
    index = np.rint(volume.to_index(places)).astype(int)
    assert np.abs(volume.to_index(places) - index).max() < 1e-3
    at = tuple(np.moveaxis(index, -1, 0))
    assert np.array_equal(nodule.image, volume.array[at])
    assert np.array_equal(nodule.mask, mask.full()[at])
    assert int(nodule.mask.sum()) == mask.count
    assert sorted(nodule.spacing_mm) == pytest.approx(sorted(volume.spacing_mm))
    assert np.prod(nodule.spacing_mm) == pytest.approx(volume.voxel_volume_mm3, rel=1e-5)
    if abs(apart_mm - pixel_mm) > 0.03 * pixel_mm:
        assert nodule.spacing_mm == pytest.approx(volume.spacing_mm)
    if orientation == "axial" and not tilt:
        assert nodule.spacing_mm == pytest.approx(volume.spacing_mm)
        first = index[0, 0, 0]
        wanted = [
            max(0, low - max(1, int(np.ceil(margin_mm / mm - 1e-6))))
            for low, mm in zip(mask.origin, spacing_mm, strict=True)
        ]
        assert first.tolist() == wanted


def test_an_oblique_series_keeps_its_obliquity_in_the_file_and_its_distances_when_it_is_read(
    tmp_path: Path,
) -> None:
    volume, mask, body = around((6, 5, 4), (2.5, 0.8, 0.7), tilt_degrees=(20.0, 10.0, 0.0))
    case = write_case(tmp_path, volume, {"mask": mask}, case_id="a", patient_id="P")
    affine = nibabel.load(tmp_path / case.files["image"]).affine
    wanted = np.diag([-1.0, -1.0, 1.0]) @ volume.geometry.affine[:3, [2, 1, 0]]
    assert affine[:3, :3] == pytest.approx(wanted, abs=1e-5)
    assert abs(wanted[2, 1]) > 0.2
    nodule = load_nodule(case, tmp_path)
    assert nodule.spacing_mm == pytest.approx((2.5, 0.8, 0.7))
    assert nodule.mask.sum() * np.prod(nodule.spacing_mm) == pytest.approx(body.volume_mm3, rel=0.05)
    assert case.size_mm == pytest.approx(max(body.largest_section_axes_mm(volume)), abs=0.9)


def test_masks_of_other_readers_lie_in_the_same_box_and_may_be_empty(tmp_path: Path) -> None:
    volume = noise(grid(SHAPE, (1.0, 1.0, 1.0)))
    masks = {
        "mask": mask_at((4, 4, 4), (6, 6, 6), SHAPE),
        "mask_reader1": mask_at((1, 4, 4), (6, 6, 8), SHAPE),
        "mask_reader2": Mask.from_full(np.zeros(SHAPE, dtype=np.bool_)),
    }
    case = write_case(
        tmp_path, volume, masks, case_id="a", patient_id="P", margin_mm=1.0, tags={"origin": "x"}
    )
    assert case.files["mask_reader1"] == "masks/a_reader1.nii.gz"
    shapes = {role: nibabel.load(tmp_path / path).shape for role, path in case.files.items()}
    assert set(shapes.values()) == {(6, 4, 7)}
    counts = [int(np.asarray(nibabel.load(tmp_path / case.files[r]).dataobj).sum()) for r in masks]
    assert counts == [mask.count for mask in masks.values()]
    assert case.tags == {
        "spacing_x_mm": 1.0,
        "spacing_z_mm": 1.0,
        "series_instance_uid": "1.2.3.5",
        "origin": "x",
    }


def test_hounsfield_units_are_kept_as_integers_and_suv_as_it_is(tmp_path: Path) -> None:
    volume, mask = noise(grid(SHAPE, (1.0, 1.0, 1.0))), mask_at((4, 4, 4), (6, 6, 6), SHAPE)
    ct = write_case(tmp_path, volume, {"mask": mask}, case_id="ct", patient_id="P")
    fine = noise(volume, factor=0.001)
    pet = write_case(tmp_path, fine, {"mask": mask}, case_id="pet", patient_id="P")
    kinds = [nibabel.load(tmp_path / case.files["image"]).get_data_dtype() for case in (ct, pet)]
    assert kinds == [np.int16, np.float32]
    read = read_image(tmp_path / pet.files["image"]).voxels
    assert set(read.ravel().tolist()) <= set(fine.array.ravel().tolist())


def test_the_same_case_gives_the_same_bytes(tmp_path: Path) -> None:
    volume, mask = noise(grid(SHAPE, (1.0, 1.0, 1.0))), mask_at((4, 4, 4), (6, 6, 6), SHAPE)
    first = write_case(tmp_path / "1", volume, {"mask": mask}, case_id="a", patient_id="P")
    assert write_case(tmp_path / "2", volume, {"mask": mask}, case_id="a", patient_id="P") == first


def test_a_pet_has_its_ct_beside_it_cut_on_its_own_grid_to_the_same_place(tmp_path: Path) -> None:
    pet = noise(grid((12, 10, 10), (4.0, 5.0, 5.0), role="pet_suv"), factor=-0.01)
    ct = grid((40, 90, 90), (1.5, 1.0, 1.0), start_mm=(-50.0, 0.0, -210.0))
    x = ct.to_mm(np.stack(np.indices(ct.array.shape), axis=-1).astype(float))[..., 0]
    ct = replace(ct, array=x.astype(np.float32))
    mask = mask_at((4, 3, 3), (7, 6, 6), (12, 10, 10))
    case = write_case(
        tmp_path,
        pet,
        {"mask": mask},
        case_id="a",
        patient_id="P",
        image_role="pet",
        beside={"ct": ct},
        margin_mm=5.0,
    )
    sarcoma = load_sarcoma(case, tmp_path)
    assert int(sarcoma.mask.sum()) == mask.count
    assert sarcoma.hu is not None and sarcoma.hu.shape == sarcoma.suv.shape == (7, 5, 5)
    # the CT holds the place to the left of the patient, which a shift by a voxel would change
    assert sarcoma.hu[3, 2] == pytest.approx([-31.0 + 5.0 * c for c in range(2, 7)], abs=0.6)
    with pytest.raises(Refused, match="no-crop"):
        load_nodule(case, tmp_path)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"case_id": "../a"}, "bad-case-id"),
        ({"case_id": ""}, "bad-case-id"),
        ({"masks": {}}, "bad-role"),
        ({"masks": {"mask": "mask", "Mask 2": "mask"}}, "bad-role"),
        ({"masks": {"mask": "empty"}}, "empty-mask"),
        ({"masks": {"mask": "other"}}, "mask-of-another-grid"),
        ({"volume": "spoiled"}, "bad-values"),
        ({"volume": "thin"}, "mask-of-another-grid"),
    ],
)
def test_what_cannot_be_a_case_is_refused(tmp_path: Path, change: dict[str, Any], code: str) -> None:
    volume = grid(SHAPE, (1.0, 1.0, 1.0))
    volumes = {
        "spoiled": replace(volume, array=np.full(SHAPE, np.nan, dtype=np.float32)),
        "thin": grid((1, 14, 11), (1.0, 1.0, 1.0)),
    }
    masks = {
        "mask": mask_at((4, 4, 4), (6, 6, 6), SHAPE),
        "empty": Mask.from_full(np.zeros(SHAPE, dtype=np.bool_)),
        "other": mask_at((1, 1, 1), (3, 3, 3), (4, 4, 4)),
    }
    given = {role: masks[name] for role, name in change.get("masks", {"mask": "mask"}).items()}
    with pytest.raises(Refused, match=code):
        write_case(
            tmp_path,
            volumes.get(change.get("volume", ""), volume),
            given,
            case_id=change.get("case_id", "a"),
            patient_id="P",
        )


def test_a_single_slice_is_refused(tmp_path: Path) -> None:
    volume = grid((1, 14, 11), (1.0, 1.0, 1.0))
    mask = mask_at((0, 4, 4), (1, 6, 6), (1, 14, 11))
    with pytest.raises(Refused, match="single-slice"):
        write_case(tmp_path, volume, {"mask": mask}, case_id="a", patient_id="P")


@given(st.lists(st.text(max_size=40), max_size=4))
def test_any_words_make_a_name_that_a_file_can_have(words: list[str]) -> None:
    name = case_name(*words)
    assert name and not set(name) & set("/\\ :\0") and name[0] not in ".-_" and len(name) <= 150


def test_a_data_set_puts_patients_into_folds_and_keeps_those_they_had(tmp_path: Path) -> None:
    mask = mask_at((4, 4, 4), (6, 6, 6), SHAPE)
    images = {p: noise(grid(SHAPE, (1.0, 1.0, 1.0)), seed) for seed, p in enumerate(("P1", "P2", "P3"))}
    cases = [
        write_case(tmp_path, image, {"mask": mask}, case_id=f"{p}-{n}", patient_id=p)
        for p, image in images.items()
        for n in "ab"
    ]
    manifest = write_data_set(tmp_path, "x", cases[::-1], {"P2": 4, "P9": 0})
    assert [case.case_id for case in manifest.cases] == ["P1-a", "P1-b", "P2-a", "P2-b", "P3-a", "P3-b"]
    fold_of = {case.patient_id: case.fold for case in manifest.cases}
    assert fold_of["P2"] == 4
    assert open_data(tmp_path).manifest == manifest
    assert not list(tmp_path.glob("*.part"))
    with pytest.raises(Refused, match="same-case-twice"):
        write_data_set(tmp_path, "x", [*cases, cases[0]])
    with pytest.raises(Refused, match="no-cases"):
        write_data_set(tmp_path, "x", list[Case]())
