"""The example analysis of the documentation, installed from its folder as anybody would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "calcified_foci"


def install_example(target: Path, source: Path) -> Path:
    """Install it by pip into a folder that is to be on the path, and return that; `source` is a scratch folder."""
    copy = source / EXAMPLE.name
    copy.mkdir(parents=True)
    for path in EXAMPLE.glob("*.*"):
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    # What it depends on is there already, and no build environment can be made without a network.
    how = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *how, "--target", str(target), str(copy)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return target
