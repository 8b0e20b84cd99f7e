"""The troublesome plugin, installed for this process and its children, and a small study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trouble_plugin
from dicom_series import make_series

from node.task import Task


@pytest.fixture
def trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the plugin `trouble` for this test and its child processes; return its folder."""
    folder = trouble_plugin.install(tmp_path / "trouble")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(__import__("sys").modules, "trouble", raising=False)
    return folder


@pytest.fixture
def small_study(tmp_path: Path) -> list[Path]:
    """Return the files of a CT of 6 slices."""
    return make_series(tmp_path / "study", _noise(), patient_id="P1-SECRET")


@pytest.fixture
def make_task(tmp_path: Path, trouble: Path, small_study: list[Path]) -> Callable[..., Task]:
    """Return a function that makes a task of the troublesome plugin on the small study."""

    def make(mode: str = "box", *, out: str = "out", **changes: Any) -> Task:
        folder = tmp_path / out
        folder.mkdir(exist_ok=True)
        values: dict[str, Any] = {
            "files": tuple(map(str, small_study)),
            "manifest_sha256": "0" * 64,
            "plugins": ("trouble",),
            "plugin_settings": {"trouble": {"mode": mode}},
            "out": str(folder),
            "started_at": "2026-03-01T08:00:00+00:00",
            "predecessors": {},
        }
        return Task(**{**values, **changes})

    return make


def _noise() -> np.ndarray:
    return np.random.default_rng(1).integers(-100, 100, (6, 20, 20)).astype(float)
