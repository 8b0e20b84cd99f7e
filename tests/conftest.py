"""Fixtures that every room's tests share. Servers and makers of test series are in `tests/support`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path

import httpx
import ports
import pytest
from hypothesis import settings
from patience import PATIENCE_SECONDS

pytest_plugins = ["demo_run", "browser"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run of single tests begin with what `nadir demo` left before."""
    parser.addoption("--demo", help="folder of a finished `nadir demo`, instead of a run of its own")


def pytest_configure() -> None:
    """Let requests wait longer than the five seconds that are httpx's own, and an example last as long as it does."""
    settings.register_profile("patient", settings(), deadline=None)
    settings.load_profile("patient")
    usual = inspect.signature(httpx.get).parameters["timeout"].default
    usual.connect = usual.read = usual.write = usual.pool = PATIENCE_SECONDS


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of real studies; fail in CI when it is missing, skip elsewhere."""
    root = Path(os.environ.get("NADIR_TEST_DATA", Path(__file__).parents[2] / "shared" / "data")).resolve()
    if not root.is_dir():
        reason = f"the real studies are not at {root}; set NADIR_TEST_DATA to their folder"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return root


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Return the function that gives a free port."""
    return ports.free_port


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("NADIR_") and name != "NADIR_TEST_DATA":
            monkeypatch.delenv(name)
