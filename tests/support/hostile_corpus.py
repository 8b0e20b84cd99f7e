"""DICOM files of every kind, and what a fuzzer makes of them: the same file for the same seed, always."""

from __future__ import annotations

import os
import random
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from dicom_series import make_series
from pydicom.data import get_testdata_files
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from small_results import make_case, saved

LARGEST_BYTES = 400_000
SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    RLELossless,
)
SHARED = ("CT", "RTSTRUCT", "PET", "dcmjs", "dcmqi", "highdicom", "rt_utils", "sr_tid1500_dataset1")
WORDS = (b"\x00\x00", b"\xff\xff", b"\x00\x80", b"\xff\x7f", b"\x01\x00")
LONGS = (
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x80",
    b"\xfe\xff\xff\xff",
    b"\x00\x00\x00\x10",
)
GEOMETRY = (
    tuple(  # rows, columns, samples, planar, frames, bits, signedness, smallest, slope, position, spacing
        struct.pack("<HH", group, element)
        for group, element in (
            (0x28, 0x10),
            (0x28, 0x11),
            (0x28, 0x02),
            (0x28, 0x06),
            (0x28, 0x08),
            (0x28, 0x100),
            (0x28, 0x101),
            (0x28, 0x102),
            (0x28, 0x103),
            (0x28, 0x1052),
            (0x28, 0x1053),
            (0x28, 0x30),
            (0x20, 0x32),
            (0x20, 0x37),
            (0x7FE0, 0x10),
            (0x3006, 0x50),
            (0x62, 0x04),
            (0x08, 0x16),
        )
    )
)
NUMBERS = (b"1e999", b"NaN", b"-1", b"99999999", b"0", b"\\\\\\\\", b"1\\2\\3\\4\\5\\6\\7")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A file to mutate, and the sound files beside it that the readers get too."""

    path: Path
    """The file."""
    beside: tuple[Path, ...] = ()
    """The rest of its series, or the images that it was drawn on."""


def make_corpus(folder: Path, data: Path | None) -> list[Sample]:
    """Return pydicom's samples, some files of each real study, and generated series, SEG and SRs."""
    names = sorted(f for f in get_testdata_files() if f.endswith((".dcm", "DICOMDIR")))
    samples = [Sample(path=Path(f)) for f in names if 0 < os.path.getsize(f) <= LARGEST_BYTES]
    if data is not None:
        for kind in SHARED:
            files = sorted(
                p for p in data.rglob("*.dcm") if kind in p.parts and p.stat().st_size <= LARGEST_BYTES
            )
            samples += [Sample(path=p) for p in files[:4]]
    array = np.random.default_rng(7).integers(-500, 500, (3, 24, 20)).astype(float)
    for number, syntax in enumerate(SYNTAXES, start=1):
        lossy = syntax == JPEGBaseline8Bit
        more = {"bits": 8, "signed": False, "modality": "MR"} if lossy else {}
        values = np.abs(array) / 4 if lossy else array
        first, *beside = make_series(
            folder / f"series-{number}", values, transfer_syntax=syntax, series_number=number, **more
        )
        samples.append(Sample(path=first, beside=tuple(beside)))
    case = make_case(folder / "case")
    images = tuple(sorted((folder / "case").glob("*.dcm")))
    seg = case.seg()
    for name, dataset in {"seg": seg, "volumetric": case.volumetric(seg), "planar": case.planar(seg)}.items():
        del dataset.Manufacturer  # else it is ours, and passed over
        saved(dataset, folder / f"{name}.dcm")
        samples.append(Sample(path=folder / f"{name}.dcm", beside=images))
    return samples


def mutated(samples: list[Sample], seed: int) -> tuple[Sample, bytes]:
    """Return the sample of a seed and its bytes after one to three changes."""
    chance = random.Random(seed)
    sample = samples[seed % len(samples)]
    data = bytearray(sample.path.read_bytes())
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        chance.choice(CHANGES)(data, chance)
    return sample, bytes(data)


def _place(data: bytearray, chance: random.Random) -> int:
    """Return a place in the file, most often in its header."""
    end = len(data) if chance.random() < 0.3 else min(len(data), 3000)
    return chance.randrange(128, end) if end > 128 else chance.randrange(max(1, len(data)))


def _flip(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 8)):
        at = _place(data, chance)
        data[at : at + 1] = bytes([chance.randrange(256)])


def _fill(data: bytearray, chance: random.Random) -> None:
    at = _place(data, chance)
    count = min(chance.randint(1, 64), len(data) - at)
    data[at : at + count] = chance.choice((b"\x00", b"\xff", b"A")) * count


def _cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(max(1, len(data))) :]


def _drop(data: bytearray, chance: random.Random) -> None:
    at = _place(data, chance)
    del data[at : at + chance.randint(1, 40)]


def _repeat(data: bytearray, chance: random.Random) -> None:
    at = _place(data, chance)
    data[at:at] = data[at : at + chance.randint(1, 400)]


def _word(data: bytearray, chance: random.Random) -> None:
    at = _place(data, chance)
    data[at : at + 2] = chance.choice(WORDS)


def _long(data: bytearray, chance: random.Random) -> None:
    at = _place(data, chance)
    data[at : at + 4] = chance.choice(LONGS)


def _element(data: bytearray, chance: random.Random) -> None:
    """Give an element that readers do arithmetic with another value or length."""
    at = data.find(chance.choice(GEOMETRY), 132)
    if at < 0:
        return
    if chance.random() < 0.5:
        word = chance.choice(WORDS)
        data[at + 8 : at + 10] = word
    elif chance.random() < 0.5:
        data[at + 6 : at + 8] = chance.choice(WORDS)
    else:
        number = chance.choice(NUMBERS)
        data[at + 8 : at + 8 + len(number)] = number


def _syntax(data: bytearray, chance: random.Random) -> None:
    """Claim another transfer syntax of the same length of text."""
    at = data.find(b"1.2.840.10008.1.2", 132)
    if at >= 0:
        tail = chance.choice((b".1\0", b".2\0", b".5\0", b".4.50", b".4.70", b".4.80", b".4.90", b".1.99"))
        data[at + 17 : at + 17 + len(tail)] = tail


CHANGES = (_flip, _fill, _cut, _drop, _repeat, _word, _long, _element, _element, _syntax)
