"""Times that commands print say that they are UTC: the pages show those of the site's own zone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from small_node import SmallNode
from typer.testing import CliRunner

from node import printing
from node.cli import app
from store import patients


def test_the_time_of_a_job_is_told_as_utc(capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "id": 7, "patient_id": "P1", "study_date": "2026-01-02", "plugin": "contours", "state": "done",
        "attempt": 1, "max_attempts": 5, "created_at": "2026-01-31T14:05:59.123456+00:00", "error_code": "",
        "error_text": "",
    }  # fmt: skip
    printing.print_jobs([row])
    assert "2026-01-31 14:05Z" in capsys.readouterr().out


def test_the_time_of_a_merge_is_told_as_utc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SmallNode.make(tmp_path).database.dispose()
    at = datetime(2026, 1, 31, 14, 5, tzinfo=UTC)
    merged = {"patient": "P2", "into": "P1", "author": "ada", "at": at, "note": "", "counts": True}
    monkeypatch.setattr(patients, "merges", lambda session: [merged])
    done = CliRunner().invoke(app, ["patients", "list", "--home", str(tmp_path)])
    assert done.exit_code == 0, done.exception
    assert "2026-01-31 14:05Z" in done.stdout
