"""What is refused of files that are cut, damaged, endless or no DICOM at all."""

from __future__ import annotations

import random
import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from part10_files import SYNTAXES, UIDS, element, image, raw, write
from pydicom.data import get_testdata_file
from pydicom.uid import DeflatedExplicitVRLittleEndian

from plugins.errors import Refused
from store.part10 import scan_header, scan_whole


def code_of(path: Path) -> str:
    with pytest.raises(Refused) as caught:
        scan_header(path)
    return caught.value.code


@pytest.mark.parametrize(
    "uid",
    [
        b"../evil",
        b"/etc/passwd",
        b"..",
        b"1..2",
        b"1.2.",
        b"1" * 65,
        b"1.2\0.3",
        b"CON",
        b"1.2\n3",
        b"1.2\\1.3",
        "１.２".encode(),
    ],
)
@pytest.mark.parametrize("place", range(4))
def test_what_is_no_uid_is_refused(tmp_path: Path, uid: bytes, place: int) -> None:
    elements = list(UIDS)
    tags = [(8, 0x16), (8, 0x18), (0x20, 0xD), (0x20, 0xE)]
    elements[place] = element(*tags[place], b"UI", uid)
    assert code_of(raw(tmp_path / "x", *elements)) == "invalid-uid"


@pytest.mark.parametrize("place", range(4))
def test_a_missing_uid_is_refused(tmp_path: Path, place: int) -> None:
    assert code_of(raw(tmp_path / "x", *UIDS[:place], *UIDS[place + 1 :])) == "missing-uid"


@pytest.mark.parametrize(
    ("depth", "expected"),
    [(63, None), (64, None), (65, "nested-too-deep"), (400, "nested-too-deep"), (5000, "nested-too-deep")],
)
@pytest.mark.parametrize("defined", [True, False])
def test_sequences_deeper_than_64_are_refused(
    tmp_path: Path, depth: int, expected: str | None, defined: bool
) -> None:
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    ends = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    nested = b""
    for _ in range(depth):
        if defined:
            nested = element(0x40, 0xA730, b"SQ", struct.pack("<HHL", 0xFFFE, 0xE000, len(nested)) + nested)
        else:
            nested = element(0x40, 0xA730, b"SQ", item, 0xFFFFFFFF) + nested + ends
    path = raw(tmp_path / "x", *UIDS, nested)
    if expected is None:
        assert scan_header(path).study_instance_uid == "1.2.3"
    else:
        assert code_of(path) == expected


@pytest.mark.parametrize("length", [0xFFFFFFFE, 0x7FFFFFFF, 1000])
def test_a_length_beyond_the_file_is_refused_without_reading_it(tmp_path: Path, length: int) -> None:
    path = raw(tmp_path / "x", *UIDS, element(0x40, 0x10, b"UN", b"abcd", length))
    tracemalloc.start()
    assert code_of(path) == "truncated"
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_unknown_elements_of_undefined_length_end_where_they_end_or_are_refused(tmp_path: Path) -> None:
    implicit = struct.pack("<HHL", 0x09, 0x10, 4) + b"abcd"
    item = struct.pack("<HHL", 0xFFFE, 0xE000, len(implicit)) + implicit
    end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    good = element(0x09, 0x1001, b"UN", item, 0xFFFFFFFF) + end
    assert scan_header(raw(tmp_path / "good", *UIDS[:2], good, *UIDS[2:])).study_instance_uid == "1.2.3"
    assert (
        code_of(raw(tmp_path / "bad", *UIDS[:2], element(0x09, 0x1001, b"UN", item, 0xFFFFFFFF)))
        == "truncated"
    )


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_an_object_that_ends_within_its_pixel_data_is_refused_where_it_comes(
    tmp_path: Path, syntax: str
) -> None:
    pixels = random.Random(1).randbytes(1 << 17)
    path = write(tmp_path / "x", image(PixelData=pixels, BitsAllocated=8), syntax)
    whole = path.read_bytes()
    for tail in (b"", b"\0", bytes(1000)):
        path.write_bytes(whole + tail)
        assert scan_whole(path).header.sop_instance_uid == "1.2.3.4"
    # The last bytes of a deflated one may be padding.
    for missing in (100, 1 << 16) if syntax == DeflatedExplicitVRLittleEndian else (1, 2, 1 << 16):
        path.write_bytes(whole[:-missing])
        assert scan_header(path).sop_instance_uid == "1.2.3.4"
        with pytest.raises(Refused) as refused:
            scan_whole(path)
        assert refused.value.code == "truncated"


def test_a_deflated_object_that_is_larger_than_its_cap_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for pixels in (bytes(6 << 20), random.Random(1).randbytes(6 << 20)):
        write(path, image(PixelData=pixels, BitsAllocated=8), DeflatedExplicitVRLittleEndian)
        assert scan_whole(path).header.patient_id == "P1"


def test_a_deflated_bomb_is_refused_within_its_cap(tmp_path: Path) -> None:
    bomb = b"".join(UIDS) + element(0x40, 0x10, b"UN", bytes(200 << 20))
    packer = zlib.compressobj(wbits=-15)
    path = raw(tmp_path / "x", packer.compress(bomb) + packer.flush(), syntax=DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    assert code_of(path) == "deflated-too-large"
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()


def test_what_is_not_part10_or_does_not_say_its_syntax_is_refused(tmp_path: Path) -> None:
    for number, data in enumerate([b"", b"DICM", bytes(132), b"MZ" + bytes(200), bytes(128) + b"DICM"[:3]]):
        (tmp_path / str(number)).write_bytes(data)
        assert code_of(tmp_path / str(number)) == "not-part10"
    (tmp_path / "bare").write_bytes(bytes(128) + b"DICM" + b"".join(UIDS))
    assert code_of(tmp_path / "bare") == "no-transfer-syntax"


@pytest.mark.parametrize("tag", [(0x10, 0x20), (0x10, 0x21)])
def test_a_patient_key_that_is_endless_or_twice_there_is_refused(
    tmp_path: Path, tag: tuple[int, int]
) -> None:
    assert (
        code_of(raw(tmp_path / "x", *UIDS[:2], element(*tag, b"LO", b"x" * 300), *UIDS[2:]))
        == "unreadable-header"
    )
    twice = element(*tag, b"LO", b"A") + element(*tag, b"LO", b"B")
    assert code_of(raw(tmp_path / "y", *UIDS[:2], twice, *UIDS[2:])) == "unreadable-header"


def samples() -> list[bytes]:
    folder = Path(str(get_testdata_file("CT_small.dcm"))).parent
    names = (
        "CT_small.dcm",
        "rtplan.dcm",
        "ExplVR_BigEnd.dcm",
        "image_dfl.dcm",
        "reportsi.dcm",
        "UN_sequence.dcm",
        "nested_priv_SQ.dcm",
    )
    return [(folder / name).read_bytes()[:20_000] for name in names]


@pytest.mark.parametrize("seed", range(7))
def test_a_mutated_file_is_read_or_refused_and_nothing_else(tmp_path: Path, seed: int) -> None:
    source = random.Random(seed)
    original = samples()[seed]
    outcomes = {"read": 0, "refused": 0}
    for _ in range(150):
        data = bytearray(original)
        for _ in range(source.randint(1, 12)):
            place = source.randrange(min(len(data), 4000))
            kind = source.randrange(4)
            if kind == 0:
                data[place] = source.randrange(256)
            elif kind == 1:
                data[place : place + 4] = source.choice(
                    [b"\xff\xff\xff\xff", b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0", bytes(4)]
                )
            elif kind == 2:
                del data[place : place + source.randint(1, 50)]
            else:
                data[place:place] = source.randbytes(source.randint(1, 20))
        path = tmp_path / "x"
        path.write_bytes(data)
        try:
            scan_header(path)
            outcomes["read"] += 1
        except Refused:
            outcomes["refused"] += 1
    assert sum(outcomes.values()) == 150
    assert outcomes["refused"] > 0


@given(data=st.binary(max_size=400), syntax=st.sampled_from(SYNTAXES))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_noise_behind_a_good_preamble_is_refused(tmp_path: Path, data: bytes, syntax: str) -> None:
    with pytest.raises(Refused):
        scan_header(raw(tmp_path / "x", data, syntax=syntax))


def test_every_cut_of_a_file_is_refused_unless_it_falls_between_two_elements(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", image()).read_bytes()
    last = whole.index(b"1.2.3.9") - 8
    number = whole.index(b"\x20\x00\x11\x00")
    readable = []
    for length in range(len(whole)):
        (tmp_path / "x").write_bytes(whole[:length])
        try:
            scan_header(tmp_path / "x")
        except Refused:
            continue
        readable.append(length)
    assert readable == [number, last]
