"""A secret is made once, for all who ask at one time, and never handed out empty."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from at_once import at_once
from full_disk import full_disk

from node.audit import pseudonym_key
from node.settings import Settings
from plugins.errors import Refused, Unavailable
from store.secret_file import secret_of
from store.sides import salt_of

pytestmark = pytest.mark.sec


def key_of(home: Path) -> bytes:
    return pseudonym_key(Settings(home=home))


def test_a_secret_is_made_once_for_the_owner_only(tmp_path: Path) -> None:
    secret = secret_of(tmp_path / "it")
    assert secret_of(tmp_path / "it") == secret and len(bytes.fromhex(secret.decode())) == 32
    assert [path.name for path in tmp_path.iterdir()] == ["it"]
    assert (tmp_path / "it").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("made", [key_of, salt_of])
def test_all_who_ask_for_a_secret_at_one_time_get_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Callable[[Path], bytes]
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    for turn in range(50):
        (home := tmp_path / str(turn)).mkdir()
        given: list[bytes] = []
        at_once(lambda _, home=home, given=given: given.append(made(home)), threads=5)  # type: ignore[misc]
        assert len(given) == 5 and len(set(given)) == 1 and len(given[0]) == 64


@pytest.mark.parametrize(("made", "name"), [(key_of, "audit.key"), (salt_of, "sides.salt")])
def test_a_full_disk_leaves_no_empty_secret(tmp_path: Path, made: Callable[[Path], bytes], name: str) -> None:
    with full_disk(), pytest.raises(Unavailable, match=name):
        made(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert len(made(tmp_path)) == 64


def test_an_empty_secret_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "audit.key").write_bytes(b"\n")
    with pytest.raises(Refused, match=r"audit\.key is empty: bring it back from a backup") as caught:
        key_of(tmp_path)
    assert caught.value.code == "empty-secret"


def test_a_secret_is_kept_where_files_have_one_name_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_link)
    assert secret_of(tmp_path / "it") == secret_of(tmp_path / "it")
    assert [path.name for path in tmp_path.iterdir()] == ["it"]
