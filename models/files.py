"""The door that model files come in by: nothing is unpacked, nothing is run, and only what was vouched for is read.

A model is a folder: ``manifest.json`` and the files that it names, no others. The manifest holds the sha256 and length
of each; the manifest's own sha256 is in the list of those that an administrator trusts. Weights are safetensors, which
are numbers and nothing else; a configuration is plain JSON. Pickle, TorchScript and archives have no way in; a MONAI
bundle, which is a program, comes by `models.tree`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MANIFEST = "manifest.json"
MANIFEST_BYTES = 1 << 20
LARGEST_BYTES = 4 << 30
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\.(safetensors|json)")
SHA256 = re.compile(r"[0-9a-f]{64}")
RUNS = frozenset({"_target_", "_requires_", "_disabled_", "_desc_", "_mode_"})
"""Keys by which MONAI makes objects and calls functions out of a configuration."""


class BadModel(ValueError):
    """The files are not to be used. `code` is a lower-case word with hyphens, `sentence` is for people."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(f"{code}: {sentence}")
        self.code = code
        self.sentence = sentence


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a model says of itself and of its files."""

    sha256: str
    """Hash of the manifest: what an administrator trusts."""
    name: str
    """Name of the model."""
    version: str
    """Its version."""
    licence: str
    """Under what terms it may be used."""
    training_data: str
    """One sentence: what it learned from."""
    input: str
    """One sentence: what it is given, with spacing and units."""
    expires: date | None
    """The last day on which it may be used; None for no end."""
    files: Mapping[str, tuple[str, int]]
    """Hash and length of each file, by name."""


def verify(folder: Path, trusted: Collection[str], today: date) -> Manifest:
    """Return the manifest of a model after every file was held against it; `trusted` are hashes of manifests.

    Raises BadModel: `not-a-folder`, `bad-manifest`, `not-trusted`, `expired`, `extra-file`, `missing-file`, `link`,
    `too-large`, `changed-file`, `runs-code`.
    """
    manifest = _manifest(folder)
    if manifest.sha256 not in trusted:
        raise BadModel("not-trusted", f"nobody vouches for the manifest {manifest.sha256}")
    if manifest.expires is not None and today > manifest.expires:
        raise BadModel("expired", f"the model was to be used until {manifest.expires}")
    if extra := sorted(set(os.listdir(folder)) - {MANIFEST, *manifest.files}):
        raise BadModel("extra-file", f"the folder holds what the manifest does not name: {extra[0]!r}")
    for name in manifest.files:
        data = _read(folder, name, manifest)
        if name.endswith(".json"):
            _require_plain(_parsed(data, name), name)
    return manifest


def load_weights(
    folder: Path, name: str, trusted: Collection[str], today: date
) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of a safetensors file, by name: the very bytes whose hash was held against the manifest.

    Raises BadModel as `verify` does, and `unreadable-weights`.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    manifest = verify(folder, trusted, today)
    if not name.endswith(".safetensors") or name not in manifest.files:
        raise BadModel("missing-file", f"the manifest names no weights '{name}'")
    try:
        return dict(load(_read(folder, name, manifest)))
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise BadModel("unreadable-weights", f"'{name}' holds no safetensors that numpy knows") from error


def _manifest(folder: Path) -> Manifest:
    if folder.is_symlink() or not folder.is_dir():
        raise BadModel("not-a-folder", "a model is a folder; archives are not unpacked here")
    data = _bytes(folder, MANIFEST, MANIFEST_BYTES)
    plain = _parsed(data, MANIFEST)
    try:
        return Manifest(
            sha256=hashlib.sha256(data).hexdigest(),
            **{key: _text(plain[key]) for key in ("name", "version", "licence", "training_data", "input")},
            expires=date.fromisoformat(plain["expires"]) if "expires" in plain else None,
            files={_name(name): _entry(entry) for name, entry in plain["files"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, BadModel):
            raise
        raise BadModel(
            "bad-manifest", f"the manifest is not as it has to be ({type(error).__name__})"
        ) from error


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise BadModel("bad-manifest", "name, version, licence, training_data and input are texts")
    return value


def _name(name: str) -> str:
    if NAME.fullmatch(name) is None or name == MANIFEST:
        raise BadModel(
            "bad-manifest", f"{name!r} is no name of a weights or configuration file in this folder"
        )
    return name


def _entry(entry: Mapping[str, Any]) -> tuple[str, int]:
    sha256, size_bytes = entry["sha256"], entry["size_bytes"]
    if SHA256.fullmatch(sha256) is None or type(size_bytes) is not int or size_bytes < 0:
        raise BadModel("bad-manifest", "each file has a sha256 and its size_bytes")
    if size_bytes > LARGEST_BYTES:
        raise BadModel("too-large", f"a file of {size_bytes} bytes is more than {LARGEST_BYTES}")
    return sha256, size_bytes


def _read(folder: Path, name: str, manifest: Manifest) -> bytes:
    sha256, size_bytes = manifest.files[name]
    data = _bytes(folder, name, size_bytes)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise BadModel("changed-file", f"'{name}' is not the file that the manifest speaks of")
    return data


def _bytes(folder: Path, name: str, limit: int) -> bytes:
    """Return a plain file of at most `limit` bytes; a link is never followed."""
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise BadModel("missing-file", f"'{name}' is not there") from error
    except OSError as error:
        raise BadModel("link", f"'{name}' is a link or cannot be opened") from error
    with os.fdopen(descriptor, "rb") as file:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise BadModel("link", f"'{name}' is no plain file")
        if state.st_size > limit:
            raise BadModel("too-large", f"'{name}' is longer than the {limit} bytes that it may have")
        return file.read(limit)


def _parsed(data: bytes, name: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadModel("bad-manifest", f"'{name}' is no JSON") from error


def _require_plain(value: object, name: str) -> None:
    """Refuse a configuration that MONAI's parser would run."""
    if isinstance(value, Mapping):
        if RUNS & value.keys():
            raise BadModel("runs-code", f"'{name}' names code to be called")
        for key, inner in value.items():
            _require_plain(key, name)
            _require_plain(inner, name)
    elif isinstance(value, list):
        for inner in value:
            _require_plain(inner, name)
    elif isinstance(value, str) and value.lstrip().startswith(("$", "@", "%")):
        raise BadModel("runs-code", f"'{name}' holds an expression")


__all__ = ["BadModel", "Manifest", "load_weights", "verify"]
