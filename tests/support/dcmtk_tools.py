"""DCMTK's own programs; pynetdicom installs some of the same names beside Python, which are not meant here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest


def dcmtk(name: str) -> str:
    """Return the path of a DCMTK program; fail in CI when it is missing, skip elsewhere."""
    paths = [Path(f) for f in os.environ.get("PATH", "").split(os.pathsep) if f]
    ours = Path(sys.executable).parent.resolve()
    environments = [f for f in paths if f.resolve() == ours or (f.parent / "pyvenv.cfg").is_file()]
    folders = [str(f) for f in paths if f not in environments]
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        reason = f"DCMTK's {name} is not installed; install the package dcmtk"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def run_dcmtk(name: str, *arguments: str | Path, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Run a DCMTK program and return what it said."""
    return subprocess.run(
        [dcmtk(name), *map(str, arguments)], capture_output=True, text=True, timeout=timeout, check=False
    )


def start_dcmtk(name: str, arguments: Sequence[str | Path]) -> subprocess.Popen[bytes]:
    """Start a DCMTK program that goes on running."""
    return subprocess.Popen(
        [dcmtk(name), *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
