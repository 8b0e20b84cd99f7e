"""`nadir segment`: what is drawn at a point, on which grid it is written, and what is refused."""

from __future__ import annotations

import json
from io import FileIO
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
import pytest
from dicom_series import derived, make_series
from node_process import nadir
from tiny_segmenter import bright_segmenter

from models.segmenter import ClassicalNoduleSegmenter
from node.segment import Asked, segment
from plugins.errors import Refused
from store.dicom import files as dicom_files

OBLIQUE = (0.96, 0.28, 0.0, -0.28, 0.96, 0.0)
SPACING = (2.0, 0.8, 0.8)
ORIGIN = (-30.0, 12.0, 200.0)
RADIUS_MM = 6.0
CENTRE = (9, 31, 27)


def lungs() -> tuple[np.ndarray, np.ndarray]:
    """Return a CT `(K, R, C)` of lung with one ball, and the ball."""
    at = (np.indices((20, 60, 64)).reshape(3, -1).T - CENTRE) * SPACING
    inside = (np.linalg.norm(at, axis=1) <= RADIUS_MM).reshape(20, 60, 64)
    return np.where(inside, 40.0, -850.0), inside


def affine_lps() -> np.ndarray:
    """Return index (k, r, c) to LPS mm of the oblique grid."""
    row, column = np.array(OBLIQUE[:3]), np.array(OBLIQUE[3:])
    affine = np.eye(4)
    affine[:3, 0] = np.cross(row, column) * SPACING[0]
    affine[:3, 1], affine[:3, 2], affine[:3, 3] = column * SPACING[1], row * SPACING[2], ORIGIN
    return affine


def centre_mm() -> tuple[float, float, float]:
    x, y, z = (affine_lps() @ [*CENTRE, 1])[:3]
    return (float(x), float(y), float(z))


def nifti(path: Path, order: tuple[int, int, int], flips: tuple[int, int, int], image: np.ndarray) -> Path:
    """Write the CT with its axes in another order and direction; every voxel keeps its place."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_lps()[:, [*order, 3]]
    stored = image.transpose(order)
    for axis, flip in enumerate(flips):
        if flip:
            affine[:3, 3] += affine[:3, axis] * (stored.shape[axis] - 1)
            affine[:3, axis] *= -1
            stored = np.flip(stored, axis)
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(stored.astype(np.int16)), affine), path)
    return path


def ball(folder: Path, **changed: Any) -> list[Path]:
    """Write the CT as DICOM and return its slices."""
    how: dict[str, Any] = {"spacing_mm": SPACING, "orientation": OBLIQUE, "origin_mm": ORIGIN}
    return make_series(folder, lungs()[0], **how | changed)


def places(path: Path) -> np.ndarray:
    """Return LPS mm of the voxels that are labelled, by the file's own affine."""
    image = nibabel.load(path)
    index = np.argwhere(np.asarray(image.dataobj) == 1)
    return (index @ image.affine[:3, :3].T + image.affine[:3, 3]) * (-1, -1, 1)


@pytest.mark.parametrize("order", [(2, 1, 0), (0, 1, 2), (1, 0, 2)])
@pytest.mark.parametrize("flips", [(0, 0, 0), (1, 0, 1)])
def test_a_nifti_of_any_axes_gets_a_mask_on_its_own_grid(
    tmp_path: Path, order: tuple[int, int, int], flips: tuple[int, int, int]
) -> None:
    image, truth = lungs()
    path, out = nifti(tmp_path / "ct.nii.gz", order, flips, image), tmp_path / "mask.nii.gz"
    report = segment(path, out, [Asked(point_mm=centre_mm())], bright_segmenter())
    written, source = nibabel.load(out), nibabel.load(path)
    assert written.shape == source.shape
    assert np.allclose(written.affine, source.affine, atol=1e-4)
    found = np.asarray(written.dataobj) == 1
    inside = np.asarray(source.dataobj) > 0
    assert 2 * (found & inside).sum() / (found.sum() + inside.sum()) > 0.93
    (lesion,) = report["lesions"]
    assert np.linalg.norm(np.subtract(lesion["centroid_mm"], centre_mm())) < 0.5
    assert lesion["volume_ml"] == pytest.approx(found.sum() * np.prod(SPACING) / 1000)
    assert lesion["volume_interval_ml"][0] < truth.sum() * np.prod(SPACING) / 1000
    assert lesion["long_axis_mm"] == pytest.approx(2 * RADIUS_MM, abs=1.2)
    assert np.linalg.norm(np.subtract(*lesion["long_axis_end_points_mm"])) == pytest.approx(
        lesion["long_axis_mm"]
    )
    assert lesion["warnings"] == []


def test_a_dicom_folder_and_a_nifti_of_it_give_the_same_places(tmp_path: Path) -> None:
    image, _ = lungs()
    ball(tmp_path / "ct")
    one = nifti(tmp_path / "ct.nii", (2, 1, 0), (0, 0, 0), image)
    masks = [tmp_path / "dicom.nii.gz", tmp_path / "nifti.nii.gz"]
    reports = [
        segment(path, out, [Asked(point_mm=centre_mm())], bright_segmenter())
        for path, out in zip((tmp_path / "ct", one), masks, strict=True)
    ]
    first, second = (places(mask) for mask in masks)
    assert len(first) == len(second) > 100
    assert np.allclose(np.sort(first, axis=0), np.sort(second, axis=0), atol=1e-3)
    assert reports[0]["lesions"][0]["volume_ml"] == pytest.approx(reports[1]["lesions"][0]["volume_ml"])
    assert reports[0]["image"]["series_instance_uid"]
    assert reports[0]["model"]["interval_coverage"] == pytest.approx(0.9)


def test_nothing_asked_for_names_the_options(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"points \(--at\) or boxes \(--box\), not 0"):
        segment(tmp_path, tmp_path / "mask.nii.gz", [], ClassicalNoduleSegmenter())


def test_what_of_a_folder_could_not_be_read_is_told_beside_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices = ball(tmp_path / "ct")
    slices[-1].write_bytes(slices[-1].read_bytes()[:200])
    slices[-2].unlink()
    (tmp_path / "ct" / "slice_0019").touch()

    def open_(path: Path) -> FileIO:
        if path == slices[-3]:
            raise PermissionError(13, "Permission denied", str(path))
        return FileIO(path)

    monkeypatch.setattr(dicom_files, "FileIO", open_)
    report = segment(
        tmp_path / "ct", tmp_path / "m.nii", [Asked(point_mm=centre_mm())], ClassicalNoduleSegmenter()
    )
    told = [(one["code"], one["sentence"]) for one in report["warnings"]]
    assert [code for code, _ in told] == ["unreadable-file", "unreadable-file", "not-dicom"]
    assert told[0][1] == f"{slices[-3]} cannot be read: Permission denied"
    assert told[1][1].startswith("slice_0020.dcm begins like a DICOM file but cannot be read")
    assert told[2][1] == "1 files are not DICOM and were passed over"
    assert report["image"]["shape"] == [17, 60, 64]


def test_a_series_that_was_refused_is_told_where_another_was_taken(tmp_path: Path) -> None:
    ball(tmp_path / "thin")[5].unlink()
    ball(tmp_path / "whole", series_number=2)
    report = segment(tmp_path, tmp_path / "m.nii", [Asked(point_mm=centre_mm())], ClassicalNoduleSegmenter())
    (told,) = report["warnings"]
    assert told["code"] == "missing-slices"
    assert told["sentence"].startswith("series 1 (CT, Synthetic CT): 1 slices are missing")


@pytest.mark.parametrize("how", ["same", "link", "other name"])
def test_a_mask_is_not_written_over_the_ct_it_is_of(tmp_path: Path, how: str) -> None:
    path, out = nifti(tmp_path / "ct.nii", (2, 1, 0), (0, 0, 0), lungs()[0]), tmp_path / "mask.nii"
    if how == "same":
        out = tmp_path / "." / "ct.nii"
    elif how == "link":
        out.symlink_to(path)
    else:
        out.hardlink_to(path)
    before = path.read_bytes()
    with pytest.raises(Refused, match=r"bad-output: .* is the image itself") as refusal:
        segment(path, out, [Asked(point_mm=(1000.0, 0.0, 0.0))], ClassicalNoduleSegmenter())
    assert str(out) in refusal.value.sentence
    assert path.read_bytes() == before


def test_the_acquired_series_is_measured_and_a_thinner_reformat_only_where_it_is_alone(
    tmp_path: Path,
) -> None:
    image, _ = lungs()
    how: dict[str, Any] = {"spacing_mm": SPACING, "orientation": (1, 0, 0, 0, 1, 0)}
    make_series(tmp_path / "axial", image, **how, series_number=2)
    coronal = image[::-1].transpose(1, 0, 2)
    reformat: dict[str, Any] = how | {
        "spacing_mm": (0.8, 2.0, 0.8),
        "orientation": (1, 0, 0, 0, 0, -1),
        "origin_mm": (0.0, 0.0, 38.0),
        "series_number": 3,
        "ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "MPR"],
    }
    make_series(tmp_path / "coronal", coronal, **reformat)
    points, out = [Asked(point_mm=(21.6, 24.8, 18.0))], tmp_path / "m.nii"
    both, axial, alone = (
        segment(path, out, points, ClassicalNoduleSegmenter())
        for path in (tmp_path, tmp_path / "axial", tmp_path / "coronal")
    )
    assert both["image"]["spacing_mm"] == pytest.approx(SPACING)
    assert both["lesions"] == axial["lesions"]
    assert [w["code"] for w in both["warnings"]] == ["several-series"]
    assert axial["warnings"] == []
    assert alone["lesions"][0]["found"]
    assert [w["code"] for w in alone["warnings"]] == ["reformatted"]


def test_a_series_of_another_frame_of_reference_that_has_the_point_is_told(tmp_path: Path) -> None:
    ball(tmp_path / "first", series_number=1)
    ball(tmp_path / "second", series_number=2, frame_of_reference_uid="1.2.9")
    points = [Asked(point_mm=centre_mm())]
    report = segment(tmp_path, tmp_path / "m.nii", points, ClassicalNoduleSegmenter())
    assert [w["code"] for w in report["warnings"]] == ["several-series", "several-frames-of-reference"]
    assert (
        "series 1 was measured, and in that of series 2 it is another place"
        in report["warnings"][1]["sentence"]
    )
    alone = segment(tmp_path / "second", tmp_path / "m.nii", points, ClassicalNoduleSegmenter())
    assert alone["warnings"] == []


def test_a_series_of_one_value_is_not_taken_before_one_that_shows_something(tmp_path: Path) -> None:
    series = sorted(derived("series", f"of {n}") for n in range(2))
    ball(tmp_path / "ct", series_uid=series[1], series_number=2)
    ball(tmp_path / "empty", series_uid=series[0], series_number=1, PixelData=bytes(60 * 64 * 2))
    report = segment(tmp_path, tmp_path / "m.nii", [Asked(point_mm=centre_mm())], ClassicalNoduleSegmenter())
    assert report["image"]["series_instance_uid"] == series[1]
    assert report["lesions"][0]["found"]


def test_a_point_outside_is_told_what_each_series_reaches_and_which_could_not_be_used(tmp_path: Path) -> None:
    how: dict[str, Any] = {"orientation": (1, 0, 0, 0, 1, 0), "spacing_mm": (2.0, 1.0, 1.0), "patient_id": ""}
    ball(tmp_path / "broken", **how, origin_mm=(0, 0, 0))[5].unlink()
    ball(tmp_path / "low", **how, origin_mm=(0, 0, 100), series_number=2)
    ball(tmp_path / "high", **how, origin_mm=(0, 0, 200), series_number=3)
    points = [Asked(point_mm=(30.0, 30.0, 20.0))]
    with pytest.raises(Refused) as refusal:
        segment(tmp_path, tmp_path / "m.nii", points, ClassicalNoduleSegmenter())
    assert refusal.value.code == "point-outside"
    assert refusal.value.sentence == (
        "the point 30, 30, 20 mm (LPS) lies outside of the images: "
        "series 2 reaches from x -0.5 to 63.5, y -0.5 to 59.5, z 99.0 to 139.0 mm; "
        "series 3 reaches from x -0.5 to 63.5, y -0.5 to 59.5, z 199.0 to 239.0 mm; "
        "not used: series 1 (CT, Synthetic CT): 1 slices are missing: "
        "a step of 4.00 mm where others are 2.00 mm; send the missing slices (missing-slices)"
    )
    points = [Asked(point_mm=(30.0, 30.0, z)) for z in (120.0, 220.0)]
    with pytest.raises(Refused, match="point-outside: no series holds all points up to 30, 30, 220 mm"):
        segment(tmp_path, tmp_path / "m.nii", points, ClassicalNoduleSegmenter())


def test_a_ct_without_rescale_is_told_as_such_beside_what_else_could_not_be_used(tmp_path: Path) -> None:
    stored = {"RescaleSlope": None, "RescaleIntercept": None, "signed": False}
    slices = ball(tmp_path / "ct", **stored)
    points = [Asked(point_mm=centre_mm())]
    with pytest.raises(Refused) as refusal:
        segment(tmp_path / "ct", tmp_path / "m.nii", points, ClassicalNoduleSegmenter())
    assert refusal.value.code == "no-ct"
    assert refusal.value.sentence == (
        f"{tmp_path / 'ct'} holds no CT in Hounsfield units: its CT has no rescale slope and intercept, so its values "
        "are no HU; export it again with RescaleSlope and RescaleIntercept, or give a NIfTI in HU"
    )
    slices[-1].write_bytes(slices[-1].read_bytes()[:200])
    with pytest.raises(Refused, match=r"no-ct: .* no rescale slope .*; not used: slice_0020.dcm begins like"):
        segment(tmp_path / "ct", tmp_path / "m.nii", points, ClassicalNoduleSegmenter())


def test_several_points_have_labels_and_one_at_which_nothing_is_says_so(tmp_path: Path) -> None:
    image, _ = lungs()
    path, out = nifti(tmp_path / "ct.nii", (2, 1, 0), (0, 0, 0), image), tmp_path / "mask.nii"
    empty = tuple((affine_lps() @ [2, 5, 5, 1])[:3])
    report = segment(path, out, [Asked(point_mm=empty), Asked(point_mm=centre_mm())], bright_segmenter())
    assert [one["found"] for one in report["lesions"]] == [False, True]
    assert [w["code"] for w in report["lesions"][0]["warnings"]] == ["no-lesion"]
    assert np.unique(np.asarray(nibabel.load(out).dataobj)).tolist() == [0, 2]


def test_two_points_in_one_lesion_give_it_once(tmp_path: Path) -> None:
    path, out = nifti(tmp_path / "ct.nii", (2, 1, 0), (0, 0, 0), lungs()[0]), tmp_path / "mask.nii"
    x, y, z = centre_mm()
    points = [Asked(point_mm=(x, y, z)), Asked(point_mm=(x + 1, y, z)), Asked(point_mm=(x, y + 1, z))]
    first, *others = segment(path, out, points, bright_segmenter())["lesions"]
    assert first["found"] and first["volume_ml"] > 0.8
    assert others == [
        {
            "label": number,
            "at_mm": list(points[number - 1].point_mm),
            "found": False,
            "warnings": [
                {"code": "same-lesion", "sentence": "it is the same lesion as 1, where it is measured"}
            ],
        }
        for number in (2, 3)
    ]
    assert np.unique(np.asarray(nibabel.load(out).dataobj)).tolist() == [0, 1]


def test_a_box_is_a_limit_and_a_lesion_at_the_edge_of_the_image_is_not_measured_silently(
    tmp_path: Path,
) -> None:
    image, _ = lungs()
    path, out = nifti(tmp_path / "ct.nii", (2, 1, 0), (0, 0, 0), image[:12]), tmp_path / "mask.nii"
    low, high = np.subtract(centre_mm(), (1, 1, 1)), np.add(centre_mm(), (1, 1, 1))
    boxed = segment(path, out, [Asked.box([*low, *high])], bright_segmenter())["lesions"][0]
    assert boxed["long_axis_mm"] < 10.5
    assert "cut-at-box" in [w["code"] for w in boxed["warnings"]]
    open_ = segment(path, out, [Asked(point_mm=centre_mm())], bright_segmenter())["lesions"][0]
    assert "reaches-image-edge" in [w["code"] for w in open_["warnings"]]


@pytest.mark.parametrize("fill", ["edge", "constant"])
def test_a_lesion_is_not_drawn_into_empty_planes_around_a_ct_and_says_where_it_was_cut(
    tmp_path: Path, fill: Literal["edge", "constant"]
) -> None:
    image, _ = lungs()
    noisy = np.rint(image + np.random.default_rng(0).normal(0, 20, image.shape))[:, :, :30]
    reports, cut = [], np.pad(noisy, [(0, 0), (0, 0), (0, 34)], mode=fill)
    for name, ct in (("alone", noisy), ("set", cut)):
        path, out = nifti(tmp_path / f"{name}.nii", (2, 1, 0), (0, 0, 0), ct), tmp_path / f"{name}-mask.nii"
        reports.append(segment(path, out, [Asked(point_mm=centre_mm())], bright_segmenter())["lesions"][0])
    assert "last column" in reports[0]["warnings"][-1]["sentence"]
    assert reports[1] == reports[0]


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("nothing", "no-such-path"),
        ("junk", "unreadable-image"),
        ("mask", "not-hounsfield"),
        ("nan", "bad-values"),
        ("flat", "not-3d"),
        ("mr", "no-ct"),
        ("far", "point-outside"),
        ("name", "bad-output"),
    ],
)
def test_bad_input_is_refused_by_name(tmp_path: Path, what: str, code: str) -> None:
    image, truth = lungs()
    path, out, point = tmp_path / "ct.nii", tmp_path / "mask.nii.gz", centre_mm()
    if what == "junk":
        path.write_bytes(b"junk")
    elif what == "flat":
        nibabel.save(nibabel.Nifti1Image(image[0].astype(np.float32), np.eye(4)), path)
    elif what == "mr":
        path = tmp_path / "mr"
        make_series(path, image[:4] + 1000, modality="MR")
    elif what == "nan":
        spoiled = np.where(truth, np.nan, image).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(spoiled, np.eye(4)), path)
    elif what != "nothing":
        nifti(path, (2, 1, 0), (0, 0, 0), truth.astype(np.int16) if what == "mask" else image)
    if what == "far":
        point = (1000.0, 0.0, 0.0)
    if what == "name":
        out = tmp_path / "mask.png"
    with pytest.raises(Refused) as refusal:
        segment(path, out, [Asked(point_mm=point)], ClassicalNoduleSegmenter())
    assert refusal.value.code == code


def test_the_command_prints_one_json_and_refuses_wrong_numbers(tmp_path: Path) -> None:
    image, truth = lungs()
    path, out = nifti(tmp_path / "ct.nii", (2, 1, 0), (0, 0, 0), image), tmp_path / "mask.nii.gz"
    at = ",".join(f"{x:.2f}" for x in centre_mm())
    done = nadir("segment", str(path), "--at", at, "--out", str(out), "--segmenter", "classical", "--json")
    report = json.loads(done.stdout)
    assert report["model"]["name"] == "classical-nodule-segmenter"
    assert report["lesions"][0]["volume_ml"] == pytest.approx(truth.sum() * np.prod(SPACING) / 1000, rel=0.1)
    wrong = nadir("segment", str(path), "--at", "1,2", "--out", str(out))
    assert wrong.returncode == 1
    assert "3 numbers" in wrong.stderr
