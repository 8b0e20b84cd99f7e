"""Code streams: one that ends early, or hides its size, is refused before it is decoded."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from coded_image import frames, with_frame
from dicom_series import encoded, make_series
from pydicom import uid
from pydicom.encaps import generate_frames

from plugins.errors import Refused
from store.dicom.series import read_study

RNG = np.random.default_rng(3)


def box(kind: bytes, content: bytes, *, wide: bool = False) -> bytes:
    """Return a box of a JP2 file, its length in four bytes or in eight."""
    if wide:
        return b"\0\0\0\1" + kind + (16 + len(content)).to_bytes(8, "big") + content
    return (8 + len(content)).to_bytes(4, "big") + kind + content


@pytest.mark.parametrize("wide", [False, True])
def test_the_size_of_a_jp2_file_is_that_of_its_code_stream_alone(wide: bool, tmp_path: Path) -> None:
    image = RNG.integers(0, 1 << 16, (33, 47)).astype("u2")
    path = make_series(tmp_path, np.zeros((1, 33, 47)), signed=False, bits=16, rescale=(1, 0))[0]
    jp2 = imagecodecs.jpeg2k_encode(image, codecformat="jp2", reversible=True)
    at = jp2.index(b"jp2c") - 4
    stream = jp2[at + 8 :]
    decoy = box(b"uuid", bytes(16) + stream[:100])
    whole = jp2[:at] + decoy + box(b"jp2c", stream, wide=wide)
    np.testing.assert_array_equal(frames(with_frame(path, uid.JPEG2000Lossless, whole))[0], image)
    larger = stream[:8] + b"\x00\x00\xea\x60\x00\x00\xea\x60" + stream[16:]
    file = with_frame(path, uid.JPEG2000Lossless, jp2[:at] + decoy + box(b"jp2c", larger, wide=wide))
    with pytest.raises(Refused, match="it declares 60000 x 60000"):
        frames(file)


@pytest.mark.parametrize("before", [b"\0", b"uuid"])
def test_a_jpeg_2000_stream_that_does_not_begin_at_once_is_refused(before: bytes, tmp_path: Path) -> None:
    path = make_series(tmp_path, np.zeros((1, 8, 8)))[0]
    stream = encoded(np.zeros((8, 8), "u2"), uid.JPEG2000Lossless)
    with pytest.raises(Refused, match="it has no JPEG 2000 code stream"):
        frames(with_frame(path, uid.JPEG2000Lossless, before + stream))


COMPRESSED = [
    uid.JPEGBaseline8Bit,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.HTJ2K,
]


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda s: s.keyword)
@pytest.mark.parametrize("part", [0.5, 0.9])
@pytest.mark.parametrize("filled", [False, True], ids=["cut", "filled with zeros"])
def test_a_code_stream_that_ends_early_is_refused(
    filled: bool, part: float, syntax: uid.UID, tmp_path: Path
) -> None:
    image = RNG.integers(0, 200, (65, 47)).astype("u1")
    path = make_series(tmp_path, image[None], signed=False, bits=8, rescale=(1, 0))[0]
    whole = encoded(image, syntax)
    cut = whole[: int(part * len(whole))]
    with pytest.raises(Refused, match=r"bad-pixel-data: .* cannot be decoded"):
        frames(with_frame(path, syntax, cut.ljust(len(whole), b"\0") if filled else cut))


@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEGLosslessSV1], ids=lambda s: s.keyword)
def test_a_jpeg_without_its_end_is_refused_in_words(syntax: uid.UID, tmp_path: Path) -> None:
    image = RNG.integers(0, 200, (65, 47)).astype("u1")
    path = make_series(tmp_path, image[None], signed=False, bits=8, rescale=(1, 0))[0]
    with pytest.raises(Refused, match=r"cannot be decoded \(its code stream ends early\); send it again"):
        frames(with_frame(path, syntax, encoded(image, syntax)[:-2]))


def test_twelve_bit_jpeg_that_ends_early_is_refused(tmp_path: Path) -> None:
    truth = np.rint(np.add.outer(np.linspace(0, 2000, 64), np.linspace(0, 500, 64)))[None]
    plain = make_series(tmp_path / "plain", truth, signed=False, bits=12, rescale=(1, 0))[0]
    coded = tmp_path / "coded.dcm"
    subprocess.run(["dcmcjpeg", "+ee", str(plain), str(coded)], check=True, capture_output=True)
    stream = next(generate_frames(pydicom.dcmread(coded).PixelData, number_of_frames=1))
    with pytest.raises(Refused, match="its code stream ends early"):
        frames(with_frame(coded, uid.JPEGExtended12Bit, stream[: len(stream) // 2]))


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda s: s.keyword)
@pytest.mark.parametrize("behind", [b"\0" * 7, b"\xff", b"anything"])
def test_what_follows_the_end_of_a_code_stream_in_several_items_does_not_matter(
    behind: bytes, syntax: uid.UID, tmp_path: Path
) -> None:
    image = RNG.integers(0, 200, (65, 47)).astype("u1")
    path = make_series(tmp_path, image[None], signed=False, bits=8, rescale=(1, 0))[0]
    truth = frames(with_frame(path, syntax, encoded(image, syntax)))
    longer = with_frame(path, syntax, encoded(image, syntax) + behind, items=3)
    np.testing.assert_array_equal(frames(longer), truth)


def test_a_last_tile_part_that_does_not_say_its_length_is_read_to_the_end(tmp_path: Path) -> None:
    image = RNG.integers(0, 1 << 12, (33, 47)).astype("u2")
    path = make_series(tmp_path, np.zeros((1, 33, 47)), signed=False, bits=12, rescale=(1, 0))[0]
    stream = bytearray(encoded(image, uid.JPEG2000Lossless))
    at = stream.index(b"\xff\x90\x00\x0a") + 6
    stream[at : at + 4] = bytes(4)
    np.testing.assert_array_equal(frames(with_frame(path, uid.JPEG2000Lossless, bytes(stream)))[0], image)
    with pytest.raises(Refused, match="its code stream ends early"):
        frames(with_frame(path, uid.JPEG2000Lossless, bytes(stream[:-2])))


def test_a_jpeg_2000_of_tiles_is_read(tmp_path: Path) -> None:
    image = RNG.integers(0, 1 << 12, (65, 47)).astype("u2")
    path = make_series(tmp_path, np.zeros((1, 65, 47)), signed=False, bits=12, rescale=(1, 0))[0]
    stream = imagecodecs.htj2k_encode(image, reversible=True, tile=(32, 32))
    assert stream.count(b"\xff\x90\x00\x0a") == 6
    np.testing.assert_array_equal(frames(with_frame(path, uid.HTJ2KLossless, stream))[0], image)


@pytest.mark.parametrize("part", [0.5, 0.95])
@pytest.mark.parametrize(("reversible", "near"), [(True, 0), (False, 200)])
def test_an_htj2k_stream_that_ends_early_is_refused(
    reversible: bool, near: int, part: float, tmp_path: Path
) -> None:
    path = make_series(tmp_path, np.zeros((1, 33, 47)), signed=False, bits=16, rescale=(1, 0))[0]
    image = RNG.integers(0, 1 << 16, (33, 47)).astype("u2")
    whole = imagecodecs.htj2k_encode(image, reversible=reversible)
    read = frames(with_frame(path, uid.HTJ2K, whole))[0].astype(int)
    assert np.abs(read - image).max() <= near
    with pytest.raises(Refused, match="bad-pixel-data"):
        frames(with_frame(path, uid.HTJ2K, whole[: int(part * len(whole))]))


@pytest.mark.parametrize(
    ("syntax", "encode", "expected"),
    [
        (uid.JPEGBaseline8Bit, lambda i: imagecodecs.jpeg8_encode(i, level=95), ["lossy-compression"]),
        (uid.JPEGExtended12Bit, lambda i: imagecodecs.jpeg8_encode(i, level=95), ["lossy-compression"]),
        (uid.JPEGLSNearLossless, lambda i: imagecodecs.jpegls_encode(i, level=2), ["lossy-compression"]),
        (uid.JPEGLSNearLossless, lambda i: imagecodecs.jpegls_encode(i), []),
        (
            uid.JPEG2000,
            lambda i: imagecodecs.jpeg2k_encode(i, codecformat="j2k", level=60),
            ["lossy-compression"],
        ),
        (
            uid.JPEG2000,
            lambda i: imagecodecs.jpeg2k_encode(i, codecformat="jp2", level=60),
            ["lossy-compression"],
        ),
        (uid.JPEG2000, lambda i: imagecodecs.jpeg2k_encode(i, codecformat="j2k", reversible=True), []),
        (uid.HTJ2K, lambda i: imagecodecs.htj2k_encode(i, reversible=False), ["lossy-compression"]),
        (uid.HTJ2K, lambda i: imagecodecs.htj2k_encode(i, reversible=True), []),
    ],
)
def test_loss_is_told_by_the_transfer_syntax_or_the_code_stream_where_the_header_does_not(
    syntax: uid.UID, encode: Callable[[np.ndarray], bytes], expected: list[str], tmp_path: Path
) -> None:
    image = np.rint(np.add.outer(np.linspace(0, 150, 64), np.linspace(0, 50, 64))).astype("u1")
    for path in make_series(tmp_path, np.stack([image] * 2), signed=False, bits=8, rescale=(1, 0)):
        with_frame(path, syntax, encode(image))
    volume = read_study(tmp_path.iterdir()).study.volumes[0]
    assert [f.code for f in volume.flags] == expected
    assert np.abs(volume.array - image).max() <= 5
