"""The pages of OHIF and what drives a browser in it: whether they are here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "node_modules" / "@ohif" / "app" / "dist" / "index.html"


def require_pages() -> Path:
    """Return the folder of OHIF's pages; skip when they are not installed."""
    if not PAGES.is_file():
        pytest.skip("missing: the pages of OHIF; run `make viewer`")
    return PAGES.parent


def require_viewer() -> None:
    """Fail in CI when OHIF or what drives it is not installed, skip elsewhere."""
    missing = [name for name in ("node", "chromium") if shutil.which(name) is None]
    if not PAGES.is_file() or not (ROOT / "node_modules" / "playwright-core").is_dir():
        missing.append("the pages of OHIF and playwright-core")
    if missing:
        reason = f"missing: {', '.join(missing)}; run `make viewer`"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
