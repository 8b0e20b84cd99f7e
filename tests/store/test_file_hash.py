"""The hash of a file, and of what is none."""

from __future__ import annotations

import hashlib
import os
import socket
from contextlib import closing
from pathlib import Path

import pytest

from store.file_hash import has_hash, is_hash, sha256_of


def test_a_hash_is_that_of_all_bytes_of_a_file_or_of_what_a_link_leads_to(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"x" * 3_000_000)
    link.symlink_to(file)
    assert sha256_of(file) == sha256_of(link) == hashlib.sha256(b"x" * 3_000_000).hexdigest()
    assert has_hash(file, sha256_of(file)) and is_hash(sha256_of(file))


def test_what_is_no_file_has_no_hash_and_is_never_waited_for(tmp_path: Path) -> None:
    pipe, folder, plug = tmp_path / "pipe", tmp_path / "folder", tmp_path / "plug"
    os.mkfifo(pipe)
    folder.mkdir()
    with closing(socket.socket(socket.AF_UNIX)) as one:
        one.bind(str(plug))
    with pytest.raises(OSError, match="it is no file") as caught:
        sha256_of(pipe)
    assert caught.value.filename == str(pipe)
    for path in (folder, plug, Path("/dev/zero"), tmp_path / "nothing"):
        with pytest.raises(OSError, match=str(path)):
            sha256_of(path)
    assert not has_hash(pipe, "0" * 64)


@pytest.mark.parametrize("name", ["", "0" * 63, "0" * 65, "A" * 64, "0" * 64 + "\n", "../" * 21 + "x"])
def test_a_hash_is_64_lower_case_hexadecimal_digits(name: str) -> None:
    assert not is_hash(name)
    assert is_hash("0123456789abcdef" * 4)
