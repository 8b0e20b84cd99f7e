"""Files that are small and ask for much: each is refused or read within the memory and the time of one analysis."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import file_mill
import numpy as np
import pytest
from dicom_series import make_series
from figures import write_figure
from pydicom import dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from plugins.errors import Refused
from store.dicom.files import read_file
from store.part10 import write_preamble

MEMORY_KIB = 2 << 20
HANG_SECONDS = 10
CT = "1.2.840.10008.5.1.4.1.1.2"
UNDEFINED = b"\xff\xff\xff\xff"
ITEM, ITEM_END, SEQUENCE_END = (
    b"\xfe\xff\x00\xe0",
    b"\xfe\xff\x0d\xe0" + bytes(4),
    b"\xfe\xff\xdd\xe0" + bytes(4),
)
SEQUENCE = struct.pack("<HH", 0x0008, 0x1140) + b"SQ\0\0" + UNDEFINED + ITEM + UNDEFINED


def sound(folder: Path, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Return the first file of a series of three; the others lie beside it."""
    more = {"bits": 8, "signed": False, "modality": "MR"} if syntax == JPEGBaseline8Bit else {}
    return make_series(folder, np.full((3, 16, 16), 40.0), transfer_syntax=syntax, **more)[0]


def changed(path: Path, keyword: str, value: bytes) -> Path:
    """Write a value of an element over another one of the same length."""
    data = path.read_bytes()
    tag = {"Rows": (0x28, 0x10), "Columns": (0x28, 0x11)}[keyword]
    at = data.index(struct.pack("<HH", *tag))
    path.write_bytes(data[: at + 8] + value + data[at + 8 + len(value) :])
    return path


def with_header(path: Path, body: bytes, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write a file of a sound header, `body`, and nothing else."""
    header = io.BytesIO()
    dataset = dcmread(path, stop_before_pixels=True)
    dataset.save_as(header, enforce_file_format=True)
    data = header.getvalue()
    start = 128 + 4 + 12 + struct.unpack("<L", data[140:144])[0]
    preamble = write_preamble(CT, str(dataset.SOPInstanceUID), syntax)
    plain = data[start:] + body
    if syntax == DeflatedExplicitVRLittleEndian:
        packer = zlib.compressobj(9, wbits=-15)
        plain = packer.compress(data[start:]) + packer.compress(body)
        for _ in range(1023 if len(body) == 1 << 20 else 0):
            plain += packer.compress(body)
        plain += packer.flush()
    path.write_bytes(preamble + plain)
    return path


def huge(folder: Path, syntax: str) -> Path:
    path = sound(folder, syntax)
    changed(path, "Rows", struct.pack("<H", 65535))
    return changed(path, "Columns", struct.pack("<H", 65535))


def frames(folder: Path) -> Path:
    path = sound(folder, RLELossless)
    dataset = dcmread(path)
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = 20_000, 512, 512
    dataset.save_as(path, enforce_file_format=True)
    return path


def deflated(folder: Path) -> Path:
    """Return 1 MB that is 1 GiB of zeros as pixels when it is unpacked."""
    pixels = struct.pack("<HH", 0x7FE0, 0x10) + b"OW\0\0" + struct.pack("<L", 1 << 30)
    body = pixels + bytes((1 << 20) - len(pixels))
    return with_header(sound(folder), body, DeflatedExplicitVRLittleEndian)


def nested(depth: int) -> Callable[[Path], Path]:
    return lambda folder: with_header(sound(folder), SEQUENCE * depth + (ITEM_END + SEQUENCE_END) * depth)


def private_dump(folder: Path) -> Path:
    """Return a header with a hundred thousand private elements."""
    elements = [
        struct.pack("<HH", 0x7001 + 2 * (n // 60000), n % 60000 + 0x100) + b"SH\x02\0x "
        for n in range(100_000)
    ]
    return with_header(sound(folder), b"".join(elements))


def items(folder: Path) -> Path:
    """Return a sequence of half a million empty items."""
    sequence = struct.pack("<HH", 0x0040, 0x0275) + b"SQ\0\0" + UNDEFINED
    return with_header(sound(folder), sequence + (ITEM + bytes(4)) * 500_000 + SEQUENCE_END)


def fragments(folder: Path) -> Path:
    """Return pixel data in half a million empty fragments."""
    pixels = struct.pack("<HH", 0x7FE0, 0x10) + b"OB\0\0" + UNDEFINED
    body = pixels + (ITEM + bytes(4)) * 500_000 + SEQUENCE_END
    return with_header(sound(folder, JPEGLSLossless), body, JPEGLSLossless)


def unending(vr: bytes) -> Callable[[Path], Path]:
    """Return an element of undefined length that the file ends in."""
    element = struct.pack("<HH", 0x0009, 0x1001) + vr + b"\0\0" + UNDEFINED
    return lambda folder: with_header(sound(folder), element + ITEM + b"\xff\xff\xff\x7f" + b"x" * 100)


def long_name(folder: Path) -> Path:
    """Return an element that says that 4 GiB come."""
    return with_header(
        sound(folder), struct.pack("<HH", 0x0040, 0xA160) + b"UT\0\0\xfe\xff\xff\xff" + b"x" * 100
    )


def lying(syntax: str, marker: bytes, at: int, size: bytes) -> Callable[[Path], Path]:
    """Return an image whose code stream says another size than its header."""

    def make(folder: Path) -> Path:
        path = sound(folder, syntax)
        data = bytearray(path.read_bytes())
        place = data.index(marker, data.index(struct.pack("<HH", 0x7FE0, 0x10))) + at
        data[place : place + len(size)] = size
        path.write_bytes(data)
        return path

    return make


def both_lie(folder: Path) -> Path:
    """Return a JPEG of 60000 x 60000 by code stream and header alike."""
    path = lying(JPEGBaseline8Bit, b"\xff\xc0", 5, struct.pack(">HH", 60000, 60000))(folder)
    changed(path, "Rows", struct.pack("<H", 60000))
    return changed(path, "Columns", struct.pack("<H", 60000))


def zipped(folder: Path) -> Path:
    path = sound(folder)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../evil.dcm", bytes(64 << 20))
    path.write_bytes(packed.getvalue())
    return path


def gzipped(folder: Path) -> Path:
    path = sound(folder)
    path.write_bytes(gzip.compress(bytes(64 << 20)))
    return path


BOMBS: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "1 MB that unpack to 1 GiB": (deflated, "stored", "too-large"),
    "RLE of 65535 x 65535": (lambda folder: huge(folder, RLELossless), "stored", "too-large"),
    "plain pixels of 65535 x 65535": (
        lambda folder: huge(folder, ExplicitVRLittleEndian),
        "stored",
        "too-large",
    ),
    "20,000 frames": (frames, "stored", "too-large"),
    "nested 64 deep": (nested(64), "stored", ""),
    "nested 65 deep": (nested(65), "nested-too-deep", "unreadable-file"),
    "nested 400 deep": (nested(400), "nested-too-deep", "unreadable-file"),
    "nested 5,000 deep": (nested(5000), "nested-too-deep", "unreadable-file"),
    "100,000 private elements": (private_dump, "stored", ""),
    "500,000 empty items": (items, "unreadable-header", ""),
    "500,000 empty fragments": (fragments, "stored", ""),
    "UN without end": (unending(b"UN"), "", "unreadable-file"),
    "OB without end": (unending(b"OB"), "truncated", "unreadable-file"),
    "SQ without end": (unending(b"SQ"), "truncated", "unreadable-file"),
    "a text of 4 GiB": (long_name, "truncated", "unreadable-file"),
    "JPEG of 60000 x 60000": (
        lying(JPEGBaseline8Bit, b"\xff\xc0", 5, struct.pack(">HH", 60000, 60000)),
        "stored",
        "",
    ),
    "JPEG of 60000 x 60000, as announced": (both_lie, "stored", ""),
    "JPEG-LS of 60000 x 60000": (
        lying(JPEGLSLossless, b"\xff\xf7", 5, struct.pack(">HH", 60000, 60000)),
        "stored",
        "",
    ),
    "JPEG 2000 of 2^30 x 2^30": (
        lying(JPEG2000Lossless, b"\xff\x51", 6, struct.pack(">LL", 1 << 30, 1 << 30)),
        "stored",
        "",
    ),
    "a zip": (zipped, "not-part10", ""),
    "a gzip": (gzipped, "not-part10", ""),
}
"""How it is made, how the intake ends (any refusal when empty), and how reading does."""


def test_a_deflated_file_that_is_too_large_is_told_by_its_instance_and_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.dicom.files.MAX_INFLATED_BYTES", 1 << 20)
    path = with_header(sound(tmp_path), bytes(2 << 20), DeflatedExplicitVRLittleEndian)
    instance = read_file_meta_info(path).MediaStorageSOPInstanceUID
    sentence = f"instance {instance} inflates to more than 1 MiB; send it without deflate"
    with pytest.raises(Refused, match=re.escape(f"too-large: {sentence}")):
        read_file(path)
    path.write_bytes(path.read_bytes().replace(instance.encode(), b"x" * len(instance)))
    with pytest.raises(Refused, match=f"too-large: {path.name} inflates"):
        read_file(path)


@pytest.mark.sec
@pytest.mark.fault
def test_bombs_are_refused_or_read_within_the_memory_and_the_time_of_one_analysis(tmp_path: Path) -> None:
    files = [make(tmp_path / str(number)) for number, (make, _, _) in enumerate(BOMBS.values())]
    root = Path(__file__).parents[3]
    environment = {
        "PYTHONPATH": f"{root}:{root / 'tests' / 'support'}",
        "OPENBLAS_NUM_THREADS": "1",
        "PATH": os.environ["PATH"],
    }
    command = [sys.executable, file_mill.__file__, "--files", *map(str, files)]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    *ended, last = map(json.loads, done.stdout.splitlines())
    assert len(ended) == len(BOMBS)
    for (name, (_, taken, read)), said in zip(BOMBS.items(), ended, strict=True):
        assert said["taken"] == taken or (not taken and said["taken"] != "stored"), (name, said)
        assert said["read"] == read or not read, (name, said)
        assert "broken" not in (said["read"], said["checked"]), (name, said)
        assert said["seconds"] < HANG_SECONDS, (name, said)
    assert last["rss_kib"] < MEMORY_KIB
    slowest = max(said["seconds"] for said in ended)
    write_figure(
        "bombs",
        bombs=len(BOMBS),
        got_through=0,
        rss_mib=last["rss_kib"] >> 10,
        slowest_cpu_seconds=round(slowest, 2),
    )
