"""Other people's readers and validators of SEG and SR: dciodvfy, dcmqi, dsrdump."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray


def program(name: str, package: str) -> str:
    """Return the path of a program; fail in CI when it is missing, skip elsewhere."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        reason = f"{name} is not installed; install {package}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program, whatever its exit status."""
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=120, check=False)


def iod_errors(path: Path) -> list[str]:
    """Return the errors that dciodvfy finds in a file."""
    done = run(program("dciodvfy", "dicom3tools"), "-new", path)
    lines = (done.stderr + done.stdout).splitlines()
    return [line for line in lines if line.startswith("Error")]


def dcmqi_segments(path: Path, folder: Path) -> list[tuple[NDArray[np.uint8], SimpleITK.Image]]:
    """Return what dcmqi reads of a SEG: one image a segment, with its array (K, R, C)."""
    folder.mkdir(parents=True, exist_ok=True)
    done = run(
        program("segimage2itkimage", "dcmqi"), "--inputDICOM", path, "--outputDirectory", folder, "-t", "nrrd"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    images = [SimpleITK.ReadImage(str(p)) for p in sorted(folder.glob("*.nrrd"), key=lambda p: int(p.stem))]
    return [(np.asarray(SimpleITK.GetArrayFromImage(image)), image) for image in images]


def dcmqi_report(path: Path, out: Path) -> str:
    """Return the JSON text that dcmqi reads of a TID 1500 report."""
    done = run(program("tid1500reader", "dcmqi"), "--inputDICOM", path, "--outputMetadata", out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out.read_text()


def dsrdump(path: Path) -> str:
    """Return the content tree as DCMTK reads it; a broken tree fails."""
    done = run(program("dsrdump", "dcmtk"), "+Pl", path)
    assert done.returncode == 0, done.stderr
    return done.stdout
