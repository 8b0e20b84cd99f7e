"""Secrets: where they may come from, and that nothing shows them."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from node.secrets import hidden, holds_password, is_secret, require_private_settings
from node.settings import Settings
from plugins.errors import Refused

CANARY = "canary-5e0f-secret"
SECRET_NAMES = sorted(name for name, field in Settings.model_fields.items() if is_secret(field))


def secret_file(folder: Path, text: str = CANARY, mode: int = 0o600) -> Path:
    path = folder / "secret"
    path.write_text(f"{text}\n")
    path.chmod(mode)
    return path


def test_what_is_named_as_a_secret_is_marked_as_one() -> None:
    named = {
        name for name in Settings.model_fields if any(w in name for w in ("token", "passphrase", "password"))
    }
    assert named <= set(SECRET_NAMES)
    assert "hook_token" in SECRET_NAMES


@pytest.mark.parametrize("name", [*SECRET_NAMES, "database_url", "destinations", "pacs_url"])
def test_each_secret_setting_may_come_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    url = f"https://nadir:{CANARY}@host/x"
    text = url if name not in SECRET_NAMES else CANARY
    monkeypatch.setenv(f"NADIR_{name.upper()}_FILE", str(secret_file(tmp_path, text)))
    value = getattr(Settings.load(home=tmp_path), name)
    assert value == ((text,) if name == "destinations" else text)


@pytest.mark.parametrize("before", ["\ufeff", "\ufeff \n"])
def test_a_byte_order_mark_is_no_part_of_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    monkeypatch.setenv("NADIR_HOOK_TOKEN_FILE", str(secret_file(tmp_path, before + CANARY)))
    assert Settings.load(home=tmp_path).hook_token == CANARY


@pytest.mark.sec
@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o601])
def test_a_secret_file_that_everybody_may_read_is_refused_and_not_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    path = secret_file(tmp_path, mode=mode)
    monkeypatch.setenv("NADIR_HOOK_TOKEN_FILE", str(path))
    with pytest.raises(Refused, match="open to everybody: chmod o-rwx") as caught:
        Settings.load(home=tmp_path)
    assert caught.value.code == "bad-secret-file"
    assert CANARY not in str(caught.value)
    path.chmod(stat.S_IRUSR | stat.S_IRGRP)
    assert Settings.load(home=tmp_path).hook_token == CANARY


@pytest.mark.parametrize("text", ["", "\ufeff", "x" * 70_000])
def test_an_empty_or_endless_secret_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("NADIR_HOOK_TOKEN_FILE", str(secret_file(tmp_path, text)))
    with pytest.raises(Refused, match="empty or too long"):
        Settings.load(home=tmp_path)


def test_a_secret_file_that_is_not_there_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NADIR_PACS_URL_FILE", str(tmp_path / "gone"))
    with pytest.raises(Refused, match="gone of pacs_url cannot be read"):
        Settings.load(home=tmp_path)


def test_a_secret_in_the_environment_and_in_a_file_at_once_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NADIR_HOOK_TOKEN_FILE", str(secret_file(tmp_path)))
    monkeypatch.setenv("NADIR_HOOK_TOKEN", "")  # as compose files pass on what is not set
    assert Settings.load(home=tmp_path).hook_token == CANARY
    monkeypatch.setenv("NADIR_HOOK_TOKEN", "other")
    with pytest.raises(Refused, match="NADIR_HOOK_TOKEN and NADIR_HOOK_TOKEN_FILE are both set"):
        Settings.load(home=tmp_path)


@pytest.mark.parametrize(
    "line",
    [f'hook_token = "{CANARY}"', f'destinations = ["https://u:{CANARY}@pacs/dicom-web"]'],
)
def test_a_settings_file_with_a_secret_is_for_nobody_else(tmp_path: Path, line: str) -> None:
    toml = tmp_path / "nadir.toml"
    toml.write_text(line + "\n")
    toml.chmod(0o644)
    with pytest.raises(Refused, match="open to everybody") as caught:
        Settings.load(toml, home=tmp_path)
    assert CANARY not in str(caught.value)
    toml.chmod(0o640)
    Settings.load(toml, home=tmp_path)


def test_a_settings_file_without_a_secret_is_for_everybody(tmp_path: Path) -> None:
    toml = tmp_path / "nadir.toml"
    toml.write_text('ae_title = "X"\nhook_token = ""\ndestinations = ["A@b:104"]\n')
    toml.chmod(0o644)
    assert Settings.load(toml, home=tmp_path).ae_title == "X"
    require_private_settings(tmp_path / "nowhere", Settings.model_fields, {"unknown": "x"})


def test_a_number_that_is_none_is_no_secret_and_is_refused_as_a_number(tmp_path: Path) -> None:
    toml = tmp_path / "nadir.toml"
    for text in ("nan", "inf", "-inf"):
        toml.write_text(f"quiet_seconds = {text}\n")
        toml.chmod(0o644)
        with pytest.raises(Refused, match="quiet_seconds: ") as caught:
            Settings.load(toml, home=tmp_path)
        assert caught.value.code == "bad-settings"
    assert not any(map(holds_password, (float("nan"), 1, True, None, {"a": [float("nan")]})))
    assert holds_password({"a": [f"https://u:{CANARY}@pacs"]})


@pytest.mark.sec
@pytest.mark.parametrize(
    "url",
    [
        f"https://user:{CANARY}/x@h/d",
        f"https://user:x/{CANARY}@h/d",
        f"https://user:12/{CANARY}@h/d",
        f"https://user:x {CANARY}@h/d",
        f"https://user:{CANARY}'x@h:0/d",
        f"https://user:x?{CANARY}@h/d",
        f"user:{CANARY}@h/d",
        f"https:/user:{CANARY}@h/d",
    ],
)
@pytest.mark.parametrize(
    "name", ["destinations", "pacs_url", "priors_from", "commitment_callers", "worklist"]
)
def test_a_password_that_no_url_may_hold_so_is_refused_and_not_told(
    tmp_path: Path, name: str, url: str
) -> None:
    values: dict[str, Any] = {
        name: {"url": url} if name == "worklist" else url if name == "pacs_url" else [url]
    }
    with pytest.raises(Refused) as caught:
        Settings.load(home=tmp_path, **values)
    assert caught.value.code == "bad-settings"
    assert CANARY not in str(caught.value) and "h" in caught.value.sentence


def test_an_at_sign_behind_the_host_is_refused_with_what_to_write(tmp_path: Path) -> None:
    for url in ("https://user:12/x@h/d", "https://h/d?a=b@c"):
        with pytest.raises(Refused, match="write / as %2F and \\? as %3F in a password"):
            Settings.load(home=tmp_path, pacs_url=url)
    kept = Settings.load(home=tmp_path, pacs_url="https://user:a%2Fb@h/d", destinations=["A:B@host:104"])
    assert (kept.pacs_url, kept.destinations) == ("https://user:a%2Fb@h/d", ("A:B@host:104",))


def test_a_password_with_a_slash_or_a_blank_is_one_and_an_address_beside_a_url_is_none() -> None:
    for password in ("a/b", "a b", "a@b", "a'b"):
        url = f"postgresql://u:{password}@h/n"
        assert holds_password(url) and hidden(url) == "postgresql://h/n"
    for bare in ("postgresql://u@h/n", "https://h/d, A@b:104", "sqlite:////data/a@b.sqlite", "A@b:104"):
        assert not holds_password(bare), bare


@pytest.mark.sec
def test_canary_secrets_show_neither_in_a_dump_of_the_settings_nor_in_what_is_refused(tmp_path: Path) -> None:
    url = f"http://nadir:{CANARY}@pacs/dicom-web"
    values: dict[str, Any] = dict.fromkeys(SECRET_NAMES, CANARY)
    settings = Settings(
        home=tmp_path,
        pacs_url=url,
        destinations=(url,),
        database_url=f"postgresql://u:{CANARY}@h/n",
        **values,
    )
    for shown in (repr(settings), str(settings), f"{settings.redacted()}"):
        assert CANARY not in shown
        assert "pacs/dicom-web" in shown
    assert settings.redacted()["hook_token"] == "(set)"
    for bad in (
        {"pacs_url": f"ftp://u:{CANARY}@h"},
        {"destinations": f"ftp://u:{CANARY}@h"},
        {"hook_token": [CANARY]},
        {"database_url": {CANARY: 1}},
    ):
        with pytest.raises(Refused) as caught:
            Settings.load(home=tmp_path, **bad)
        assert CANARY not in str(caught.value)
