"""Slices of several images of a place in one series: refused where they alternate, read where they do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import make_series

from store.dicom.reconstructions import alternate
from store.dicom.series import ReadStudy, read_study

CT = np.rint(np.random.default_rng(7).normal(40, 30, (16, 12, 10))) + np.linspace(-900, 0, 10)
Namer = Callable[[int], str]


def read(folder: Path, **attributes: Any) -> ReadStudy:
    make_series(folder / "ct", CT, **attributes)
    return read_study((folder / "ct").iterdir())


def test_two_kernels_that_alternate_are_refused(tmp_path: Path) -> None:
    study = read(
        tmp_path,
        ConvolutionKernel=lambda k: ("B", "SHARP")[k % 2],
        AcquisitionNumber=lambda k: str(k % 2 + 1),
    ).study
    (refusal,) = study.refused
    assert refusal.code == "several-acquisitions"
    assert "(kernel B, kernel SHARP); send each as a series of its own" in refusal.sentence
    assert study.volumes == ()


def test_two_acquisitions_of_a_ct_that_alternate_are_refused(tmp_path: Path) -> None:
    (refusal,) = read(tmp_path, AcquisitionNumber=lambda k: str(k % 2 + 1)).study.refused
    assert refusal.code == "several-acquisitions"
    assert "(acquisition 1, acquisition 2)" in refusal.sentence


@pytest.mark.parametrize(
    ("modality", "keyword", "values", "named"),
    [
        ("CT", "TemporalPositionIdentifier", ("1", "2"), "time point 1, time point 2"),
        ("PT", "TemporalPositionIdentifier", ("1", "2"), "time point 1, time point 2"),
        ("CT", "NominalPercentageOfCardiacPhase", (0.0, 40.0),
         "phase of the heart in % 0.0, phase of the heart in % 40.0"),
        ("CT", "TriggerTime", ("0", "350"), "trigger time 0, trigger time 350"),
        ("CT", "AcquisitionTime", ("100000", "100500"), "acquisition time 100000, acquisition time 100500"),
        ("MR", "EchoNumbers", ("1", "2"), "echo 1, echo 2"),
        ("MR", "EchoTime", ("10", "80"), "echo time 10, echo time 80"),
    ],
)  # fmt: skip
def test_time_points_and_echoes_that_alternate_are_refused(
    tmp_path: Path, modality: str, keyword: str, values: tuple[object, object], named: str
) -> None:
    study = read(tmp_path, modality=modality, **{keyword: lambda k: values[k % 2]}).study
    (refusal,) = study.refused
    assert refusal.code == "several-acquisitions"
    assert f"({named}); send each as a series of its own" in refusal.sentence
    assert study.volumes == ()


@pytest.mark.parametrize(
    "times",
    [
        lambda k: f"1000{k:02}",
        lambda k: f"1000{k // 2:02}",
        lambda k: f"10000{k // 8}",
        lambda k: f"1000{k // 2 + 30 * (k % 2):02}",
    ],
    ids=["each slice", "each rotation", "beds", "even slices first"],
)
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_series_whose_slices_were_taken_one_after_another_is_one_volume(
    tmp_path: Path, modality: str, times: Namer
) -> None:
    study = read(tmp_path, modality=modality, AcquisitionTime=times, TriggerTime=times).study
    assert [v.array.shape[0] for v in study.volumes] == [16]


@pytest.mark.parametrize("keyword", ["AcquisitionNumber", "AcquisitionTime", "TriggerTime"])
def test_slices_of_an_mr_that_were_taken_in_two_passes_are_one_volume(tmp_path: Path, keyword: str) -> None:
    study = read(tmp_path, modality="MR", **{keyword: lambda k: str(k % 2 + 100001)}).study
    assert [v.array.shape[0] for v in study.volumes] == [16]


@pytest.mark.parametrize(
    "number",
    [
        lambda k: str(k + 1),
        lambda k: str(k // 2 + 1),
        lambda k: str(k // 8 + 1),
        lambda k: str(1 + (k > 7) if k not in (7, 8) else 1 + (k == 7)),
        lambda k: str(1 + k // 2 % 2),
        lambda k: str(1 + (k == 8)),
        lambda k: None,
    ],
    ids=["each slice", "each rotation", "stations", "stations that overlap", "pairs", "a lone one", "none"],
)
def test_acquisitions_that_do_not_alternate_are_one_volume(tmp_path: Path, number: Namer) -> None:
    study = read(tmp_path, AcquisitionNumber=number).study
    assert [v.array.shape[0] for v in study.volumes] == [16]


@pytest.mark.parametrize(
    ("names", "found"),
    [("AB" * 8, True), ("ABC" * 6, True), ("ABCD" * 4, False), ("AAAAABABABBBBB", False), ("AAABABABBB", False),
     ("AB", False), ("ABA", False), ("AABB" * 4, False), ("A" * 8 + "B" * 8, False), ("A" * 9, False)],
)  # fmt: skip
def test_groups_alternate_when_they_lie_between_one_another_along_most_of_what_they_share(
    names: str, found: bool
) -> None:
    assert alternate(names, np.arange(len(names), dtype=float)) == found


def test_a_group_that_is_no_regular_series_by_itself_is_no_acquisition_of_its_own() -> None:
    names, along = "ABABABBABABABAAB", np.arange(16, dtype=float)
    assert alternate(names, along)
    assert not alternate(names, along, regular=True)
    assert alternate("AB" * 8, along, regular=True)
    assert not alternate("AB" * 3, along[:6], regular=True)


def test_a_series_of_two_kernels_names_both_and_is_doubted(tmp_path: Path) -> None:
    study = read(tmp_path, ConvolutionKernel=lambda k: "SHARP" if k else "B").study
    (volume,) = study.volumes
    assert volume.convolution_kernel == "B, SHARP"
    assert [(f.code, f.sentence) for f in volume.flags] == [
        (
            "mixed-kernels",
            "series 1 (CT, Synthetic CT): its slices were reconstructed with 2 kernels (B, SHARP): densities and "
            "textures are those of no single one and compare with no other series",
        )
    ]


def test_a_series_of_one_kernel_names_it_without_a_doubt(tmp_path: Path) -> None:
    (volume,) = read(tmp_path, ConvolutionKernel=lambda k: "B30f" if k else None).study.volumes
    assert (volume.convolution_kernel, volume.flags) == ("B30f", ())
