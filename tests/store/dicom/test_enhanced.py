"""Enhanced multi-frame objects: where each frame lies, what its values mean and how it was reconstructed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import make_series, write
from marked_images import annotation, state
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from store.dicom.series import read_study

RNG = np.random.default_rng(11)
CT = np.rint(RNG.normal(40, 300, (6, 9, 10)))
ENHANCED = {
    "CT": "1.2.840.10008.5.1.4.1.1.2.1",
    "MR": "1.2.840.10008.5.1.4.1.1.4.1",
    "PT": "1.2.840.10008.5.1.4.1.1.130",
}


def enhanced(
    folder: Path, truth: np.ndarray, *, modality: str = "CT", order: list[int] | None = None, **changes: Any
) -> Path:
    """Write one multi-frame object, its frames in any order, with a rescale of each frame's own."""
    order = order or list(range(len(truth)))
    dataset = dcmread(make_series(folder, truth[:1], modality=modality)[0])
    (folder / "slice_0001.dcm").unlink()
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"):
        delattr(dataset, keyword)
    dataset.SOPClassUID = ENHANCED[modality]
    dataset.NumberOfFrames = len(order)
    frames, stored = [], []
    for i, k in enumerate(order):
        frame, position, values = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [5.0, -3.0, 2.5 * k]
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = str(1 + i), "-1024", "HU"
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [position], [values]
        frames.append(frame)
        stored.append(np.rint((truth[k] + 1024) / (1 + i)).astype("<i2"))
    shared, turned, measures = Dataset(), Dataset(), Dataset()
    turned.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.75], 2.5
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [turned], [measures]
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], Items(frames)
    dataset.PixelData = np.stack(stored).tobytes()
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    return write(dataset, folder / "enhanced.dcm")


def test_an_enhanced_ct_is_read_by_the_positions_of_its_frames(tmp_path: Path) -> None:
    enhanced(tmp_path, CT, order=[3, 0, 5, 1, 4, 2])
    read = read_study(tmp_path.iterdir())
    (volume,) = read.study.volumes
    assert (volume.role, volume.flags, volume.spacing_mm) == ("ct", (), (2.5, 0.5, 0.75))
    np.testing.assert_allclose(volume.array, CT, atol=3.0)
    np.testing.assert_allclose(volume.to_mm((1, 1, 1)), [5.75, -2.5, 2.5])
    assert len(set(volume.sop_instance_uids)) == 1
    assert len(volume.sop_instance_uids) == len(CT)
    assert list(read.headers) == [volume.sop_instance_uids[0]]
    assert volume.frame_numbers == (2, 4, 6, 1, 5, 3)


def test_a_mark_on_a_multi_frame_image_lies_on_the_frame_that_it_names(tmp_path: Path) -> None:
    image = enhanced(tmp_path, CT, order=[3, 0, 5, 1, 4, 2])
    named, unnamed, several = (annotation(image, "POINT", [3.5, 2.5]) for _ in range(3))
    named.ReferencedImageSequence[0].ReferencedFrameNumber = 6
    several.ReferencedImageSequence[0].ReferencedFrameNumber = [6, 5]
    state(tmp_path / "pr.dcm", image, [named, unnamed, several])
    read = read_study(tmp_path.iterdir())
    (mark,) = read.study.marks
    np.testing.assert_allclose(mark.point_mm, [5.0 + 3 * 0.75, -3.0 + 2 * 0.5, 2 * 2.5])
    assert [flag.code for flag in read.flags] == ["marks-on-all-images"]
    assert "holds 2 marks on several or all of its images" in read.flags[0].sentence


def of_kernels(frames: Items, shared: Items, kernels: list[str]) -> None:
    for kernel, group in zip(kernels, frames if len(kernels) > 1 else shared, strict=True):
        group.CTReconstructionSequence = [Dataset()]
        group.CTReconstructionSequence[0].ConvolutionKernel = kernel


@pytest.mark.parametrize(
    ("kernels", "told"), [(["B70f"], "B70f"), (["B30f"] * 3 + ["B70f"] * 3, "B30f, B70f")]
)
def test_an_enhanced_ct_is_of_the_kernels_that_it_states_for_all_frames_or_for_each(
    tmp_path: Path, kernels: list[str], told: str
) -> None:
    path = enhanced(tmp_path, CT)
    dataset = dcmread(path)
    of_kernels(dataset.PerFrameFunctionalGroupsSequence, dataset.SharedFunctionalGroupsSequence, kernels)
    write(dataset, path)
    (volume,) = read_study(tmp_path.iterdir()).study.volumes
    assert volume.convolution_kernel == told
    assert [flag.code for flag in volume.flags] == ["mixed-kernels"] * (len(kernels) > 1)


def test_frames_of_two_kernels_or_of_two_time_points_that_alternate_are_refused(tmp_path: Path) -> None:
    path = enhanced(tmp_path, np.concatenate([CT, CT]))
    dataset = dcmread(path)
    frames = dataset.PerFrameFunctionalGroupsSequence
    for k, frame in enumerate(frames):
        frame.FrameContentSequence = [Dataset()]
        frame.FrameContentSequence[0].TemporalPositionIndex = 1 + k % 2
    write(dataset, path)
    (refused,) = read_study(tmp_path.iterdir()).study.refused
    assert refused.code == "several-acquisitions"
    assert "(time point 1, time point 2)" in refused.sentence
    of_kernels(frames, dataset.SharedFunctionalGroupsSequence, ["B30f", "B70f"] * len(CT))
    write(dataset, path)
    (refused,) = read_study(tmp_path.iterdir()).study.refused
    assert "(kernel B30f, kernel B70f)" in refused.sentence


def test_an_enhanced_mr_is_read_in_arbitrary_units(tmp_path: Path) -> None:
    enhanced(tmp_path, CT, modality="MR")
    (volume,) = read_study(tmp_path.iterdir()).study.volumes
    assert (volume.role, volume.modality) == ("mr", "MR")


def test_an_enhanced_object_with_two_images_of_each_position_is_refused(tmp_path: Path) -> None:
    enhanced(tmp_path, CT, order=[0, 1, 2, 0, 1, 2])
    assert [f.code for f in read_study(tmp_path.iterdir()).study.refused] == ["several-images-per-position"]


def test_an_enhanced_object_that_does_not_describe_its_frames_is_refused(tmp_path: Path) -> None:
    enhanced(tmp_path, CT, PerFrameFunctionalGroupsSequence=[Dataset()] * 4)
    assert [f.code for f in read_study(tmp_path.iterdir()).study.refused] == ["multi-frame-without-positions"]
