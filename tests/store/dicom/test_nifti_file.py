"""NIfTI files that are damaged or ask for much: refused by their header or checksum, by every reader alike."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from plugins.errors import Refused
from store.dicom import nifti_file
from store.dicom.from_nifti import Said, read_series
from store.dicom.nifti import read_nifti
from store.dicom.nifti_image import read_ct

SHAPE = (11, 10, 4)
VALUES = np.linspace(-900, 300, 440).astype(np.int16).reshape(SHAPE)
SAID = Said(modality="CT", patient_label="UP-1", study_date=date(2024, 3, 4), study_instance_uid="2.25.7")
READERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "image": (read_ct, "unreadable-image"),
    "mask": (lambda path: read_nifti(path, ()), "unreadable-mask"),
    "upload": (lambda path: read_series(path, SAID), "unreadable-image"),
}
every_reader = pytest.mark.parametrize("reader", READERS)


def content(version: int = 1, order: str = "<", extension: int = 0, **fields: Any) -> bytes:
    """Return a file as it is before gzip, with an extension of so many bytes and fields of the header as given."""
    kind: Any = {1: nibabel.Nifti1Header, 2: nibabel.Nifti2Header}[version]
    header = kind(endianness=order)
    header.set_data_dtype(VALUES.dtype.newbyteorder(order))
    header.set_data_shape(SHAPE)
    header.set_sform(np.diag([0.7, 0.8, 2.0, 1.0]), code=1)
    header["magic"] = kind.single_magic
    header["vox_offset"] = kind.single_vox_offset + extension
    for name, value in fields.items():
        header[name] = value
    made = np.array([extension, 6], dtype=f"{order}i4").tobytes().ljust(extension, b"x") if extension else b""
    voxels = VALUES.astype(VALUES.dtype.newbyteorder(order)).tobytes(order="F")
    return header.binaryblock + bytes([bool(extension), 0, 0, 0]) + made + voxels


def put(path: Path, raw: bytes, level: int = 9) -> Path:
    """Write a file by the ending of its name."""
    path.write_bytes(gzip.compress(raw, level) if path.suffix.lower() == ".gz" else raw)
    return path


def refusal(reader: str, path: Path) -> Refused:
    with pytest.raises(Refused) as caught:
        READERS[reader][0](path)
    return caught.value


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "CT.NII.GZ"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("extension", [0, 64])
def test_sound_files_of_both_versions_and_byte_orders_hold_their_voxels_and_place(
    tmp_path: Path, version: int, order: str, name: str, extension: int
) -> None:
    read = read_ct(put(tmp_path / name, content(version, order, extension)))
    assert (read.as_stored(read.volume.array) == VALUES).all()
    assert read.volume.spacing_mm == pytest.approx((2.0, 0.8, 0.7))


@every_reader
@pytest.mark.parametrize("damage", ["a bit of a voxel", "the checksum", "the length", "cut"])
def test_a_damaged_gzip_is_refused_though_all_its_voxels_can_be_unpacked(
    tmp_path: Path, reader: str, damage: str
) -> None:
    path = put(tmp_path / "a.nii.gz", content(), level=0)
    raw = bytearray(path.read_bytes())
    if damage == "cut":
        del raw[-4:]
    else:
        raw[{"a bit of a voxel": -200, "the checksum": -8, "the length": -4}[damage]] ^= 1
    path.write_bytes(raw)
    assert (np.asarray(nibabel.load(path).dataobj) != VALUES).sum() == (damage == "a bit of a voxel")
    told = refusal(reader, path)
    assert told.code == READERS[reader][1]
    assert told.sentence == (
        f"a.nii.gz cannot be read as NIfTI ({'EOFError' if damage == 'cut' else 'BadGzipFile'}): its gzip stream is "
        "damaged or ends early; copy it again from where it is whole"
    )


@every_reader
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_more_voxels_than_a_volume_may_have_are_refused_by_the_header(
    tmp_path: Path, reader: str, version: int, name: str
) -> None:
    path = put(tmp_path / name, content(version, dim=[3, 1000, 1000, 1000, 1, 1, 1, 1]))
    told = refusal(reader, path)
    assert told.code == "too-large"
    assert told.sentence == f"1000 x 1000 x 1000 voxels of {name} are too many; cut or resample it"


@every_reader
def test_extensions_of_gigabytes_are_refused_by_the_header(tmp_path: Path, reader: str) -> None:
    path = put(tmp_path / "a.nii.gz", content(vox_offset=352 + (4 << 30)))
    told = refusal(reader, path)
    assert told.code == "too-large"
    assert told.sentence == "a.nii.gz holds more than 64 MiB before its voxels; save it anew without"


def test_extensions_are_never_held_in_memory_whatever_size_they_say(tmp_path: Path) -> None:
    raw = content(extension=48 << 20)
    large = put(tmp_path / "large.nii.gz", raw, level=1)
    lying = put(
        tmp_path / "lying.nii.gz",
        content(extension=16)[:352] + b"\xff\xff\xff\x7f" + content(extension=16)[356:],
    )
    read_ct(put(tmp_path / "warm.nii.gz", content()))
    del raw
    tracemalloc.start()
    try:
        found = [read_ct(path) for path in (large, lying)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert all((read.as_stored(read.volume.array) == VALUES).all() for read in found)
    assert peak < 8 << 20


@every_reader
@pytest.mark.parametrize("offset", [0, 340, -16])
def test_voxels_that_would_begin_in_the_header_are_refused(tmp_path: Path, reader: str, offset: int) -> None:
    for magic in (b"n+1", b"ni1"):
        path = put(tmp_path / "a.nii.gz", content(vox_offset=offset, magic=magic))
        assert refusal(reader, path).code == READERS[reader][1]


def test_what_follows_the_voxels_is_read_to_its_end_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nifti_file, "MOST_BESIDE", 1 << 20)
    longer = put(tmp_path / "longer.nii.gz", content() + bytes(1 << 20))
    assert (read_ct(longer).volume.array == read_ct(put(tmp_path / "a.nii", content())).volume.array).all()
    told = refusal("image", put(tmp_path / "bomb.nii.gz", content() + bytes((1 << 20) + 1)))
    assert told.code == "too-large"
    assert told.sentence == "bomb.nii.gz holds more than 1 MiB behind its voxels; save it anew without"


@pytest.mark.parametrize(
    ("reader", "code"), [("image", "not-3d"), ("mask", "mask-not-3d"), ("upload", "not-3d")]
)
def test_an_image_without_a_voxel_is_refused(tmp_path: Path, reader: str, code: str) -> None:
    path = put(tmp_path / "a.nii", content(dim=[3, 11, 0, 4, 1, 1, 1, 1]))
    assert refusal(reader, path).code == code


@every_reader
@pytest.mark.parametrize(
    "raw", [b"", b"hello", bytes(700), content()[:300], content()[:-1], content(2)[:500]]
)
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_what_is_no_whole_nifti_is_refused(tmp_path: Path, reader: str, raw: bytes, name: str) -> None:
    assert refusal(reader, put(tmp_path / name, raw)).code == READERS[reader][1]
