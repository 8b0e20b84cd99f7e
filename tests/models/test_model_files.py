"""What comes as a model and must not get in: each attack is refused by its code, and nothing is run or unpacked."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figures import write_figure
from safetensors.numpy import save

from models.files import BadModel, load_weights, verify

TODAY = date(2026, 11, 20)
WEIGHTS = np.arange(6, dtype=np.float32).reshape(2, 3)


def write_model(folder: Path, **changes: Any) -> set[str]:
    """Write a sound model, its manifest changed as asked; returns the hashes that are trusted."""
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(save({"w": WEIGHTS}))
    (folder / "config.json").write_text(json.dumps({"spacing_mm": [1.0, 1.0, 1.0]}))
    return signed(folder, **changes)


def signed(folder: Path, **changes: Any) -> set[str]:
    """Write the manifest of what is in the folder; returns its hash, trusted."""
    files = {
        path.name: {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size_bytes": path.stat().st_size,
        }
        for path in sorted(folder.iterdir())
        if path.name != "manifest.json" and path.is_file()
    }
    plain = {
        "name": "nodules",
        "version": "1",
        "licence": "Apache-2.0",
        "training_data": "phantoms",
        "input": "CT in HU, 1 mm",
        "files": files,
    }
    data = json.dumps({**plain, **changes}).encode()
    (folder / "manifest.json").write_bytes(data)
    return {hashlib.sha256(data).hexdigest()}


def test_a_model_that_somebody_vouches_for_gives_its_arrays(tmp_path: Path) -> None:
    trusted = write_model(tmp_path / "m")
    manifest = verify(tmp_path / "m", trusted, TODAY)
    assert (manifest.name, manifest.version, sorted(manifest.files)) == (
        "nodules",
        "1",
        ["config.json", "weights.safetensors"],
    )
    arrays = load_weights(tmp_path / "m", "weights.safetensors", trusted, TODAY)
    np.testing.assert_array_equal(arrays["w"], WEIGHTS)


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self._trace = str(trace)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return (os.mkdir, (self._trace,))


def changed_byte(folder: Path) -> set[str]:
    trusted = write_model(folder)
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    return trusted


def extra_file(folder: Path) -> set[str]:
    trusted = write_model(folder)
    (folder / "__init__.py").write_text("raise SystemExit")
    return trusted


def missing_file(folder: Path) -> set[str]:
    trusted = write_model(folder)
    (folder / "weights.safetensors").unlink()
    return trusted


def wrong_key(folder: Path) -> set[str]:
    write_model(folder)
    return {"0" * 64}


def changed_manifest(folder: Path) -> set[str]:
    trusted = write_model(folder)
    signed(folder, licence="none")
    return trusted


def expired(folder: Path) -> set[str]:
    return write_model(folder, expires="2026-11-19")


def symlink(folder: Path) -> set[str]:
    trusted = write_model(folder)
    path = folder / "weights.safetensors"
    path.rename(folder.parent / "elsewhere")
    path.symlink_to(folder.parent / "elsewhere")
    return trusted


def linked_folder(folder: Path) -> set[str]:
    trusted = write_model(folder.parent / "real")
    folder.symlink_to(folder.parent / "real")
    return trusted


def pipe(folder: Path) -> set[str]:
    trusted = write_model(folder)
    (folder / "weights.safetensors").unlink()
    os.mkfifo(folder / "weights.safetensors")
    return trusted


def zip_slip(folder: Path) -> set[str]:
    with zipfile.ZipFile(folder, "w") as archive:
        archive.writestr("../../slipped", b"evil")
    return {"0" * 64}


def tar_slip(folder: Path) -> set[str]:
    with tarfile.open(folder, "w") as archive:
        member = tarfile.TarInfo("../../slipped")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))
    return {"0" * 64}


def oversize(folder: Path) -> set[str]:
    trusted = write_model(folder)
    with (folder / "weights.safetensors").open("ab") as file:
        file.truncate(5 << 30)
    return trusted


def announced_oversize(folder: Path) -> set[str]:
    entry = {"sha256": "0" * 64, "size_bytes": 5 << 30}
    return write_model(folder, files={"weights.safetensors": entry})


def outside(name: str) -> Callable[[Path], set[str]]:
    def make(folder: Path) -> set[str]:
        (folder.parent / "outside.json").write_text("{}")
        entry = {"sha256": hashlib.sha256(b"{}").hexdigest(), "size_bytes": 2}
        return write_model(folder, files={name: entry})

    return make


def config(value: object) -> Callable[[Path], set[str]]:
    def make(folder: Path) -> set[str]:
        write_model(folder)
        (folder / "config.json").write_text(json.dumps(value))
        return signed(folder)

    return make


def pickled(folder: Path) -> set[str]:
    folder.mkdir()
    (folder / "weights.pt").write_bytes(pickle.dumps(Evil(folder.parent / "ran")))
    return signed(folder)


def disguised_pickle(folder: Path) -> set[str]:
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(pickle.dumps(Evil(folder.parent / "ran")))
    return signed(folder)


def lying_header(folder: Path) -> set[str]:
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"\xff" * 7 + b"\x7f" + b"{}")
    return signed(folder)


def script(folder: Path) -> set[str]:
    write_model(folder)
    (folder / "setup.py").write_text("raise SystemExit")
    return signed(folder)


def no_manifest(folder: Path) -> set[str]:
    folder.mkdir()
    (folder / "manifest.json").write_bytes(b"[" * 100_000)
    return {"0" * 64}


ATTACKS: dict[str, tuple[Callable[[Path], set[str]], str]] = {
    "a changed byte": (changed_byte, "changed-file"),
    "an extra file": (extra_file, "extra-file"),
    "a missing file": (missing_file, "missing-file"),
    "a manifest that nobody vouches for": (wrong_key, "not-trusted"),
    "a changed manifest": (changed_manifest, "not-trusted"),
    "an expired model": (expired, "expired"),
    "a link to a file": (symlink, "link"),
    "a link to a folder": (linked_folder, "not-a-folder"),
    "a pipe": (pipe, "link"),
    "a zip that slips": (zip_slip, "not-a-folder"),
    "a tar that slips": (tar_slip, "not-a-folder"),
    "a file over its size": (oversize, "too-large"),
    "a size over the limit": (announced_oversize, "too-large"),
    "a path upwards": (outside("../outside.json"), "bad-manifest"),
    "an absolute path": (outside("/etc/passwd"), "bad-manifest"),
    "a name with NUL": (outside("a\0.json"), "bad-manifest"),
    "a MONAI expression": (config({"net": "$__import__('os').system('true')"}), "runs-code"),
    "a MONAI target": (config([{"net": {"_target_": "os.system", "command": "true"}}]), "runs-code"),
    "a MONAI reference": (config({"a": " @net"}), "runs-code"),
    "a pickle": (pickled, "bad-manifest"),
    "a pickle named safetensors": (disguised_pickle, "unreadable-weights"),
    "safetensors with a lying header": (lying_header, "unreadable-weights"),
    "a script that is in the manifest": (script, "bad-manifest"),
    "JSON that nests too deep": (no_manifest, "bad-manifest"),
}


@pytest.mark.sec
@pytest.mark.parametrize("name", ATTACKS)
def test_model_files_of_an_attacker_are_refused_and_nothing_runs(name: str, tmp_path: Path) -> None:
    make, code = ATTACKS[name]
    folder = tmp_path / "inner" / "m"
    folder.parent.mkdir()
    trusted = make(folder)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadModel) as caught:
        load_weights(folder, "weights.safetensors", trusted, TODAY)
    assert caught.value.code == code
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.sec
def test_model_files_are_read_without_pickle_and_torch() -> None:
    code = "import sys, models.files; from safetensors.numpy import load; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    source = Path(load_weights.__code__.co_filename).read_text()
    assert not any(
        f"import {name}" in source for name in ("pickle", "torch", "zipfile", "tarfile", "importlib")
    )
    write_figure("model-file attacks", attacks=len(ATTACKS), got_through=0)
