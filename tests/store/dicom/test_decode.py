"""Pixel data: every transfer syntax gives the stored values back, from our own writer and from DCMTK's."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from coded_image import file_of, frames, with_frame
from dicom_series import encoded, make_series
from lossless_jpeg import lossless_jpeg
from pydicom import uid

from plugins.errors import Refused
from store.dicom.decode import can_decode
from store.dicom.series import read_study

LOSSLESS = [
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.JPEGLosslessSV1,
    uid.HTJ2K,
]
DCMTK = {
    "RLE": ["dcmcrle"],
    "JPEG-LS lossless": ["dcmcjpls"],
    "JPEG lossless, first-order": ["dcmcjpeg", "+e1"],
    "JPEG lossless, predictor 4": ["dcmcjpeg", "+el", "+sv", "4"],
    "JPEG lossless, predictor 7": ["dcmcjpeg", "+el", "+sv", "7"],
    "big endian": ["dcmconv", "+tb"],
    "implicit": ["dcmconv", "+ti"],
    "deflated": ["dcmconv", "+td"],
}
RNG = np.random.default_rng(3)
SMOOTH = np.add.outer(np.linspace(-800, 900, 33), np.linspace(0, 300, 47))[None] + RNG.integers(
    -20, 20, (3, 33, 47)
)


def test_what_can_be_decoded_is_known_beforehand() -> None:
    assert all(can_decode(syntax) for syntax in (*LOSSLESS, uid.JPEGBaseline8Bit, uid.JPEG2000))
    assert not can_decode(uid.MPEG2MPML)
    assert not can_decode("1.2.3")


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda s: s.keyword)
@pytest.mark.parametrize(("signed", "bits"), [(True, 16), (False, 16), (False, 12), (True, 12)])
def test_a_lossless_series_gives_its_values_back(
    syntax: uid.UID, signed: bool, bits: int, tmp_path: Path
) -> None:
    truth = np.rint(SMOOTH)
    make_series(
        tmp_path,
        truth,
        transfer_syntax=syntax,
        signed=signed,
        bits=bits,
        rescale=(1, -1024 if not signed else 0),
    )
    volume = read_study(tmp_path.iterdir()).study.volumes[0]
    np.testing.assert_array_equal(volume.array, truth.astype(np.float32))


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda s: s.keyword)
def test_eight_bit_pixels_of_an_odd_number_are_read(syntax: uid.UID, tmp_path: Path) -> None:
    truth = RNG.integers(0, 255, (2, 7, 9))
    make_series(tmp_path, truth, transfer_syntax=syntax, signed=False, bits=8, rescale=(1, 0))
    np.testing.assert_array_equal(
        read_study(tmp_path.iterdir()).study.volumes[0].array, truth.astype(np.float32)
    )


@pytest.mark.parametrize("tool", DCMTK)
def test_what_dcmtk_compresses_decodes_to_the_same_values(tool: str, tmp_path: Path) -> None:
    paths = make_series(tmp_path / "plain", np.rint(SMOOTH))
    (tmp_path / "coded").mkdir()
    for path in paths:
        coded = tmp_path / "coded" / path.name
        subprocess.run([*DCMTK[tool], str(path), str(coded)], check=True, capture_output=True)
        assert file_of(coded).transfer_syntax != file_of(path).transfer_syntax
        np.testing.assert_array_equal(frames(coded), frames(path))


@pytest.mark.parametrize("form", [{}, {"rows_between_restarts": 1}, {"rows_between_restarts": 10}])
@pytest.mark.parametrize("point_transform", [0, 2])
def test_lossless_jpeg_with_restarts_and_a_point_transform_gives_its_values(
    form: dict[str, int], point_transform: int, tmp_path: Path
) -> None:
    image = RNG.integers(0, 1 << 16, (33, 47))
    path = make_series(tmp_path, np.zeros((1, 33, 47)), signed=False, bits=16, rescale=(1, 0))[0]
    frame = lossless_jpeg(image, point_transform=point_transform, **form)
    coded = with_frame(path, uid.JPEGLossless, frame)
    np.testing.assert_array_equal(frames(coded)[0], image >> point_transform << point_transform)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_lossless_jpeg_of_any_predictor_and_precision_gives_its_values(
    bits: int, predictor: int, tmp_path: Path
) -> None:
    image = RNG.integers(0, 1 << bits, (33, 47)).astype("u1" if bits == 8 else "u2")
    path = make_series(tmp_path, np.zeros((1, 33, 47)), signed=False, bits=bits, rescale=(1, 0))[0]
    frame = imagecodecs.jpeg8_encode(image, lossless=True, predictor=predictor, bitspersample=bits)
    np.testing.assert_array_equal(frames(with_frame(path, uid.JPEGLossless, frame))[0], image)


def test_lossy_jpeg_is_near_the_truth_and_flagged(tmp_path: Path) -> None:
    truth = np.rint(np.add.outer(np.linspace(0, 200, 64), np.linspace(0, 50, 64)))[None].repeat(2, axis=0)
    make_series(
        tmp_path,
        truth,
        transfer_syntax=uid.JPEGBaseline8Bit,
        signed=False,
        bits=8,
        rescale=(1, 0),
        LossyImageCompression="01",
    )
    volume = read_study(tmp_path.iterdir()).study.volumes[0]
    assert np.abs(volume.array - truth).max() <= 4
    assert [f.code for f in volume.flags] == ["lossy-compression"]


def test_twelve_bit_jpeg_of_dcmtk_is_near_the_truth(tmp_path: Path) -> None:
    truth = np.rint(np.add.outer(np.linspace(0, 2000, 64), np.linspace(0, 500, 64)))[None].repeat(2, axis=0)
    (tmp_path / "coded").mkdir()
    for path in make_series(tmp_path / "plain", truth, signed=False, bits=12, rescale=(1, 0)):
        command = ["dcmcjpeg", "+ee", "+q", "98", str(path), str(tmp_path / "coded" / path.name)]
        subprocess.run(command, check=True, capture_output=True)
    volume = read_study((tmp_path / "coded").iterdir()).study.volumes[0]
    assert np.abs(volume.array - truth).max() <= 20
    assert "lossy-compression" in [f.code for f in volume.flags]


def test_bits_above_the_value_are_left_out(tmp_path: Path) -> None:
    path = make_series(tmp_path, np.array([[[5, -3], [100, -2048]]]), bits=12, rescale=(1, 0))[0]
    dataset = pydicom.dcmread(path)
    words = np.frombuffer(dataset.PixelData, "<u2") & 0x0FFF | 0xA000
    dataset.PixelData = words.astype("<u2").tobytes()
    dataset.save_as(path)
    np.testing.assert_array_equal(frames(path)[0], [[5, -3], [100, -2048]])


def test_a_value_that_does_not_begin_at_bit_zero_is_shifted(tmp_path: Path) -> None:
    path = make_series(
        tmp_path, np.array([[[5, 3], [100, 2000]]]), bits=12, signed=False, rescale=(1, 0), HighBit=15
    )[0]
    dataset = pydicom.dcmread(path)
    dataset.PixelData = (np.frombuffer(dataset.PixelData, "<u2") << 4).astype("<u2").tobytes()
    dataset.save_as(path)
    np.testing.assert_array_equal(frames(path)[0], [[5, 3], [100, 2000]])


def test_a_code_stream_that_declares_another_size_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = make_series(tmp_path, np.rint(SMOOTH[:1]), transfer_syntax=uid.JPEGLSLossless)[0]
    data = bytearray(path.read_bytes())
    start = data.index(b"\xff\xf7")
    data[start + 5 : start + 9] = b"\xea\x60\xea\x60"
    path.write_bytes(bytes(data))
    with pytest.raises(Refused, match="bad-pixel-data"):
        frames(path)


@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.HTJ2K])
def test_a_jpeg_2000_stream_that_declares_another_size_is_refused(syntax: uid.UID, tmp_path: Path) -> None:
    path = make_series(tmp_path, np.rint(SMOOTH[:1]), transfer_syntax=syntax)[0]
    data = bytearray(path.read_bytes())
    start = data.index(b"\xff\x4f\xff\x51")
    data[start + 8 : start + 16] = b"\x00\x00\xea\x60\x00\x00\xea\x60"
    path.write_bytes(bytes(data))
    with pytest.raises(Refused, match="bad-pixel-data"):
        frames(path)


@pytest.mark.parametrize(
    ("syntax", "values", "header"),
    [
        (uid.JPEG2000Lossless, [0, 4096], {"BitsStored": 12, "PixelRepresentation": 0}),
        (uid.JPEG2000Lossless, [-1, 4095], {"BitsStored": 12, "PixelRepresentation": 0}),
        (uid.JPEG2000Lossless, [0, 4096], {"BitsStored": 12, "PixelRepresentation": 1}),
        (uid.JPEG2000Lossless, [-2049, 0], {"BitsStored": 12, "PixelRepresentation": 1}),
        (uid.JPEG2000Lossless, [-1, 2048], {"BitsStored": 12, "PixelRepresentation": 1}),
        (uid.JPEG2000Lossless, [-1, 100], {"BitsStored": 16, "PixelRepresentation": 0}),
        (uid.HTJ2KLossless, [0, 4096], {"BitsStored": 12, "PixelRepresentation": 0}),
        (uid.JPEGLSLossless, [0, 4096], {"BitsStored": 12, "PixelRepresentation": 0}),
        (uid.JPEGLosslessSV1, [0, 40000], {"BitsStored": 12, "PixelRepresentation": 1}),
        (uid.JPEGLosslessSV1, [0, 256], {"BitsStored": 8, "BitsAllocated": 8, "PixelRepresentation": 0}),
    ],
)
def test_decoded_values_that_the_stated_bits_cannot_hold_are_refused(
    syntax: uid.UID, values: list[int], header: dict[str, int], tmp_path: Path
) -> None:
    image = np.resize(values, (8, 8))
    path = make_series(tmp_path, image[None] * 0, bits=16, rescale=(1, 0))[0]
    header["HighBit"] = header["BitsStored"] - 1
    frame = encoded(image.astype("i2" if min(values) < 0 else "u2"), syntax)
    with pytest.raises(
        Refused, match=f"from {min(values)} to {max(values)}, which .* {header['BitsStored']} bits"
    ):
        frames(with_frame(path, syntax, frame, **header))


@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.HTJ2KLossless, uid.JPEGLosslessSV1])
@pytest.mark.parametrize(
    ("kind", "values"),
    [("u2", [2048, 4095, 0, 2047]), ("u2", [63488, 65535, 0, 2047]), ("i2", [-2048, -1, 0, 2047])],
)
def test_negative_values_of_twelve_bits_may_come_with_or_without_their_sign(
    kind: str, values: list[int], syntax: uid.UID, tmp_path: Path
) -> None:
    path = make_series(tmp_path, np.zeros((1, 8, 8)), bits=12, rescale=(1, 0))[0]
    coded = with_frame(path, syntax, encoded(np.resize(values, (8, 8)).astype(kind), syntax))
    np.testing.assert_array_equal(frames(coded)[0], np.resize([-2048, -1, 0, 2047], (8, 8)))


def test_an_rle_segment_that_ends_early_is_refused(tmp_path: Path) -> None:
    path = make_series(tmp_path, np.zeros((1, 16, 16)), transfer_syntax=uid.RLELossless)[0]
    dataset = pydicom.dcmread(path)
    dataset.Rows = 64
    dataset.save_as(path)
    with pytest.raises(Refused, match="bad-pixel-data"):
        frames(path)


def test_a_hundred_compressed_slices_are_read_in_two_seconds(data: Path) -> None:
    paths = list((data / "ct_4dlung" / "CT").iterdir())
    started = time.process_time()
    volume = read_study(paths).study.volumes[0]
    assert volume.array.shape == (99, 512, 512)
    assert time.process_time() - started < 4.0  # about 0.6 s on an idle core; doubled twice for a busy one
