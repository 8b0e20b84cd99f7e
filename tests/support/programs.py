"""Programs that judge what is deployed, and where the project's files are."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def program(name: str, package: str) -> str:
    """Return the path of a program; fail in CI when it is missing, skip elsewhere."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/local/bin:/usr/sbin")
    if found is None:
        reason = f"{name} is missing: apt-get install {package}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def bound_by_modes(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as somebody whom the modes of files bind, also when root runs the tests."""
    unbound = "-dac_override,-dac_read_search"
    drop = [program("setpriv", "util-linux"), f"--bounding-set={unbound}", f"--inh-caps={unbound}"]
    bound = [*(drop if os.geteuid() == 0 else []), *command]
    return subprocess.run(bound, capture_output=True, text=True, timeout=300, check=False)
