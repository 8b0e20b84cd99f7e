"""The settings of one destination: where its password comes from, and what it is called without it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from node.deliveries import DeliverySettings, key_of, with_credentials
from plugins.errors import Refused


def test_a_password_comes_from_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "pacs"
    path.write_text("nadir:p@ss/word\n")
    path.chmod(0o600)
    settings = DeliverySettings(credentials_file=path)
    assert (
        with_credentials("https://pacs/dicom-web", settings) == "https://nadir:p%40ss%2Fword@pacs/dicom-web"
    )
    assert key_of("https://nadir:p%40ss%2Fword@pacs/dicom-web/") == "https://pacs/dicom-web"


@pytest.mark.parametrize(
    ("text", "mode", "code"),
    [
        ("nadir:secret", 0o644, "bad-secret-file"),
        ("nadir", 0o600, "bad-credentials"),
        ("", 0o600, "bad-secret-file"),
        (None, 0, "bad-secret-file"),
    ],
)
def test_a_credentials_file_that_is_open_or_wrong_is_refused_without_its_content(
    tmp_path: Path, text: str | None, mode: int, code: str
) -> None:
    path = tmp_path / "pacs"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    with pytest.raises(Refused) as caught:
        with_credentials("https://pacs/dicom-web", DeliverySettings(credentials_file=path))
    assert caught.value.code == code
    assert "nadir:" not in str(caught.value)


@pytest.mark.parametrize("setting", ["park_statuses", "retry_statuses"])
@pytest.mark.parametrize("status", ["0x0000", "0x0001", "0x0107", "0x0111", "0x0116", "0xB000", "0xbfff"])
def test_a_status_that_says_that_the_object_is_stored_cannot_be_moved(setting: str, status: str) -> None:
    with pytest.raises(
        ValidationError, match=f"'{status}' says that the object is stored: it stays delivered"
    ):
        DeliverySettings(**{setting: (status,)})  # type: ignore[arg-type]


@pytest.mark.parametrize("status", ["0xA700", "0xAFFF", "0xC000", "0x0110"])
def test_a_failure_status_can_be_moved(status: str) -> None:
    assert DeliverySettings(park_statuses=(status,)).park_statuses == (status,)
