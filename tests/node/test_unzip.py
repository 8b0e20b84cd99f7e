"""Zip files of people: what is whole comes out, what is hostile is refused with its reason and fills nothing."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pytest

from node import unzip
from node.unzip import extract, opened
from plugins.errors import Refused

pytestmark = pytest.mark.sec


def packed(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def code_of(path: Path, at_most: int = 1 << 30) -> str:
    with pytest.raises(Refused) as caught, opened(path, at_most):
        pass
    return caught.value.code


def taken_out(path: Path, folder: Path) -> dict[str, bytes | str]:
    found: dict[str, bytes | str] = {}
    with opened(path, 1 << 30) as (archive, infos):
        for info in infos:
            try:
                extract(archive, info, folder / "one")
                found[info.filename] = (folder / "one").read_bytes()
            except Refused as refused:
                found[info.filename] = refused.code
    return found


def test_members_come_out_with_their_bytes_and_folders_are_none(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"x/": b"", "x/ä 🫁.dcm": b"one", "b.nii.gz": b"two"})
    assert taken_out(path, tmp_path) == {"x/ä 🫁.dcm": b"one", "b.nii.gz": b"two"}


def test_no_name_leads_out_of_the_folder(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    path = packed(tmp_path / "a.zip", {"../../out.dcm": b"1", "/etc/out.dcm": b"2", "C:\\out.dcm": b"3"})
    assert set(taken_out(path, inside).values()) == {b"1", b"2", b"3"}
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.zip", "in", "one"]


def test_archives_within_are_refused_and_damaged_or_encrypted_members_too(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"n.ZIP": b"PK", "t.tar.gz": b"x", "good": b"g" * 50, "bad": b"b" * 50})
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("bad").header_offset + 30 + 3
    data[at] ^= 0xFF
    path.write_bytes(data)
    found = taken_out(path, tmp_path)
    assert found == {
        "n.ZIP": "nested-zip",
        "t.tar.gz": "nested-zip",
        "good": b"g" * 50,
        "bad": "damaged-member",
    }
    secret = bytearray(packed(tmp_path / "s.zip", {"a": b"1"}).read_bytes())
    for signature, flag in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        secret[secret.index(signature) + flag] |= 1
    (tmp_path / "s.zip").write_bytes(secret)
    assert taken_out(tmp_path / "s.zip", tmp_path) == {"a": "encrypted"}


def test_a_zip_file_that_would_unpack_to_too_much_is_refused_before_a_byte_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(tmp_path / "a.zip", {"a": bytes(1 << 20)})
    assert code_of(path, at_most=1 << 19) == "zip-too-large"
    monkeypatch.setattr(unzip, "RATIO_FROM_BYTES", 1 << 19)
    assert code_of(path) == "zip-bomb"


def test_a_member_longer_than_it_says_is_cut_off(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"a": bytes(100_000)})
    data = bytearray(path.read_bytes())
    for signature, size in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(signature)
        data[at + size : at + size + 4] = struct.pack("<L", 10)
    path.write_bytes(data)
    assert taken_out(path, tmp_path) == {"a": "damaged-member"}


def test_a_list_of_members_that_would_fill_the_memory_is_never_read(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"a": b"1"})
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x05\x06")
    data[at + 12 : at + 16] = struct.pack("<L", unzip.DIRECTORY_BYTES + 1)
    path.write_bytes(data)
    assert code_of(path) == "too-many-members"
    end64 = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 0, unzip.MOST_MEMBERS + 1, 10, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1)
    path.write_bytes(end64 + locator + b"PK\x05\x06" + bytes(18))
    assert code_of(path) == "too-many-members"


@pytest.mark.parametrize("keep", [0, 10, 60, -1])
def test_what_is_no_whole_zip_file_is_told_as_that(tmp_path: Path, keep: int) -> None:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("a", b"1" * 100)
    path = tmp_path / "a.zip"
    path.write_bytes(whole.getvalue()[:keep])
    assert code_of(path) == "bad-zip"
