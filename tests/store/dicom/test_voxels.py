"""Stored values to real-world values: on all cores, and as float64 would give them."""

from __future__ import annotations

import os
import threading
from io import FileIO
from pathlib import Path

import numpy as np
import pytest
from dicom_series import make_series
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from plugins.errors import Refused
from store.dicom import voxels
from store.dicom.series import read_files, read_study
from store.dicom.slices import slices_of
from store.dicom.values import quiet
from store.dicom.voxels import cores, on_all_cores

CT = np.rint(np.random.default_rng(5).normal(40, 300, (12, 9, 10)))


@settings(max_examples=200, deadline=None)
@example(slope=1.0, offset=-1024.0, kind="<u2", seed=1)
@given(
    slope=st.one_of(st.sampled_from([1.0, -1.0, 2.0, 0.5, 300.0, 1e-3]), st.floats(-1e6, 1e6)),
    offset=st.one_of(st.sampled_from([0.0, -1024.0, 0.25]), st.floats(-1e6, 1e6)),
    kind=st.sampled_from(["u1", "i1", "<u2", "<i2", ">i2", "<i4", "<u4"]),
    seed=st.integers(0, 99),
)
def test_values_are_rounded_once_whatever_the_rescale(
    slope: float, offset: float, kind: str, seed: int
) -> None:
    limits = np.iinfo(kind)
    stored = np.random.default_rng(seed).integers(limits.min, limits.max, (7, 5), endpoint=True).astype(kind)
    out = np.empty(stored.shape, dtype=np.float32)
    truth = (stored * slope + offset).astype(np.float32)
    voxels._scale(stored, slope, offset, int(stored.min()), int(stored.max()), out)
    assert np.array_equal(out, truth)


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("padding", [-2000, 24, 400])
def test_lowest_highest_and_padding_are_those_of_the_array(
    modality: str, padding: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[voxels.Voxels] = []
    read_voxels = voxels.read_voxels

    def keep(*given: object) -> voxels.Voxels:
        seen.append(read_voxels(*given))  # type: ignore[arg-type]
        return seen[-1]

    monkeypatch.setattr("store.dicom.volumes.read_voxels", keep)
    truth = CT.copy()
    truth[:, 0, :3] = padding
    make_series(tmp_path, truth, modality=modality, rescale=(1, 0), PixelPaddingValue=padding)
    (volume,) = read_study(tmp_path.iterdir()).study.volumes
    hit = truth == padding
    assert seen[0].padded == np.count_nonzero(hit) >= 36
    assert (seen[0].lowest, seen[0].highest) == (volume.array.min(), volume.array.max())
    expected = np.where(hit, -1024 if modality == "CT" else truth[~hit].min(), truth)
    assert np.array_equal(volume.array, expected)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize(
    ("signed", "padding"), [(False, 63536), (False, 0x1000), (True, -32768), (True, -4096)]
)
def test_padding_that_the_stored_bits_cannot_hold_is_padding_and_no_value(
    syntax: str, signed: bool, padding: int, tmp_path: Path
) -> None:
    alike = ((padding & 0xFFF) ^ 0x800) - 0x800 if signed else padding & 0xFFF
    truth = CT.copy()
    truth[:, 1] = alike - 1024  # what is left of the padding in the bits that are stored
    for path in make_series(tmp_path, truth, signed=signed, bits=12):
        with_padding(path, padding, signed=signed, syntax=syntax)
    (volume,) = read_study(tmp_path.iterdir()).study.volumes
    assert np.array_equal(volume.array[:, 0, :3], np.full((12, 3), -1024))
    assert np.array_equal(volume.array[:, 1:], truth[:, 1:])
    assert np.array_equal(volume.array[:, 0, 3:], truth[:, 0, 3:])
    (flag,) = volume.flags
    assert (flag.code, "36 voxels are padding" in flag.sentence) == ("pixel-padding", True)


def with_padding(path: Path, padding: int, *, signed: bool, syntax: str) -> None:
    """Write a padding value into the whole cells of the first three pixels of an image, and into its header."""
    dataset = dcmread(path)
    cells = np.frombuffer(dataset.PixelData, "<u2").copy()
    cells[:3] = padding & 0xFFFF
    dataset.PixelData = cells.tobytes()
    dataset.add_new("PixelPaddingValue", "SS" if signed else "US", padding)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)


def test_of_several_broken_slices_the_first_is_told_of(tmp_path: Path) -> None:
    paths = make_series(tmp_path, CT, transfer_syntax="1.2.840.10008.1.2.4.80")
    for k in (11, 7, 3):
        data = bytearray(paths[k].read_bytes())
        at = data.index(b"\xff\xf7")
        data[at + 5 : at + 9] = bytes(4)
        paths[k].write_bytes(bytes(data))
    for _ in range(5):
        (refused,) = read_study(paths).study.refused
        assert refused.code == "bad-pixel-data"
        assert str(dcmread(paths[3]).SOPInstanceUID) in refused.sentence


def test_of_several_files_that_shrank_after_their_headers_were_read_the_first_is_told_of(
    tmp_path: Path,
) -> None:
    paths = make_series(tmp_path, CT.repeat(8, axis=0))
    with quiet():
        slices = [s for file in read_files(paths)[0] for s in slices_of(file)]
    for k in (90, 61, 42):
        os.truncate(paths[k], paths[k].stat().st_size - 1)
    for _ in range(5):
        with pytest.raises(Refused, match=slices[42].plane.sop_instance_uid) as refused:
            voxels.read_voxels(slices, [1.0] * len(slices), "CT")
        assert refused.value.code == "truncated-pixel-data"


def test_a_frame_that_the_system_hands_over_in_parts_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hesitant(FileIO):
        def readinto(self, room: memoryview) -> int | None:  # type: ignore[override]
            return super().readinto(room[:50])

    make_series(tmp_path, CT)
    monkeypatch.setattr("store.dicom.files.FileIO", Hesitant)
    (volume,) = read_study(tmp_path.iterdir()).study.volumes
    assert np.array_equal(volume.array, CT)


def test_the_first_error_ends_the_work() -> None:
    done: list[int] = []

    def work(task: int) -> None:
        done.append(task)
        if task in (20, 30):
            raise Refused("bad", f"task {task}")

    with pytest.raises(Refused, match="task 20"):
        on_all_cores(work, range(10_000))
    assert len(done) < 100


@pytest.mark.skipif(cores() < 2, reason="this machine has one core")
def test_the_work_is_done_in_several_threads() -> None:
    together = threading.Barrier(2, timeout=120)
    on_all_cores(lambda _: together.wait() is None, range(2))
