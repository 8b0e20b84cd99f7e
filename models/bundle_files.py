"""What the files of a MONAI bundle say of it; reading them runs nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.bundle_channels import Kind, kind_of
from models.extras import how_to_install
from models.files import BadModel
from models.yaml_text import read_yaml

SECTIONS = ("network_def", "preprocessing", "inferer", "postprocessing")
INFERENCE = ("inference.json", "inference.yaml", "inference.yml")
METADATA = "configs/metadata.json"
IMAGE = ("network_data_format", "inputs", "image")
BACKGROUND = "background"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What the metadata of a bundle say of it."""

    folder: Path
    """Where it lies."""
    name: str
    """Its name."""
    version: str
    """Its version."""
    intended_use: str
    """What it is for, in its own words."""
    modality: str
    """Of what its image is, in its own words; empty when it does not say."""
    labels: Mapping[int, str]
    """Names of the labels that it gives, or of its channels, without the background."""
    has_background: bool
    """Whether 0 is called background."""
    channels: Kind
    """What its post-processing says of its channels."""
    inference: Path
    """The file that says how its network is built and run."""


def read_bundle(folder: Path) -> Bundle:
    """Return what a bundle says of itself, from `configs/metadata.json` and `configs/inference.json` (or YAML).

    Raises BadModel: `no-bundle` when a needed file is missing, `bad-metadata` and `bad-inference` when one says too
    little or cannot be read, `bundle-sections`, `bundle-channels` for one that wants more than one image at a time.
    """
    plain = _metadata(folder)
    channels = _at(plain, *IMAGE, "num_channels")
    if channels not in (1, "1"):
        raise BadModel("bundle-channels", f"the bundle wants {channels} images at a time; one is given")
    named = _named(plain)
    _require_weights(folder)
    inference = _inference(folder)
    kind = kind_of(_sections(inference)["postprocessing"])
    labels = {value: name for value, name in named.items() if not _is_background(name)}
    _require_findable(named, labels, kind)
    return Bundle(
        folder=folder,
        name=str(plain.get("name") or folder.name),
        version=str(_at(plain, "version")),
        intended_use=str(plain.get("intended_use") or plain.get("description") or "not stated"),
        modality=str(_at(plain, *IMAGE).get("modality") or ""),
        labels=labels,
        has_background=0 in named and 0 not in labels,
        channels=kind,
        inference=inference,
    )


def _metadata(folder: Path) -> Mapping[str, Any]:
    try:
        plain = json.loads((folder / METADATA).read_text())
    except OSError as error:
        raise BadModel("no-bundle", f"the folder has no {METADATA}; is it a MONAI bundle?") from error
    except (ValueError, RecursionError) as error:
        raise BadModel("bad-metadata", f"{METADATA} is no JSON ({error}); fetch the bundle again") from error
    if not isinstance(plain, dict):
        raise BadModel("bad-metadata", f"{METADATA} is no table of keys and values")
    return plain


def _at(plain: Mapping[str, Any], *keys: str) -> Any:
    """Return what the metadata say under keys that lie in each other."""
    found: Any = plain
    for key in keys:
        if not isinstance(found, dict) or key not in found:
            path = ".".join(keys)
            raise BadModel(
                "bad-metadata", f"{METADATA} has no '{path}', which a segmentation of one image states"
            )
        found = found[key]
    return found


def _named(plain: Mapping[str, Any]) -> dict[int, str]:
    outputs = _at(plain, "network_data_format", "outputs")
    if not isinstance(outputs, dict) or len(outputs) != 1:
        names = ", ".join(f"'{name}'" for name in outputs) if isinstance(outputs, dict) else "no table"
        raise BadModel(
            "bad-metadata",
            f"'network_data_format.outputs' in {METADATA} has {names or 'nothing'}; only a bundle with one output, a"
            " segmentation, can be used",
        )
    (output,) = outputs
    where = f"'network_data_format.outputs.{output}.channel_def' in {METADATA}"
    named = _at(plain, "network_data_format", "outputs", output, "channel_def")
    try:
        return {int(value): str(name) for value, name in named.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise BadModel("bad-metadata", f"{where} is no table of numbers and their names") from error


def _is_background(name: str) -> bool:
    return name.strip().lower() == BACKGROUND


def _require_findable(named: Mapping[int, str], labels: Mapping[int, str], kind: Kind) -> None:
    """Raise BadModel (`bad-metadata`) when nothing could be found by these names."""
    where = f"channel_def in {METADATA}"
    if elsewhere := sorted(set(named) - set(labels) - {0}):
        raise BadModel("bad-metadata", f"{where} calls {elsewhere[0]} the background, which has to be 0")
    if not labels:
        raise BadModel(
            "bad-metadata",
            f"{where} names no label but the background, so that nothing could be found; write there what each number"
            " means",
        )
    if kind != "own" and not set(labels) - {0}:
        raise BadModel(
            "bad-metadata",
            f"{where} names 0 alone ('{labels[0]}'), which is nothing in a picture of labels; a mask on a channel of"
            " its own is one that the post-processing thresholds, without softmax and argmax",
        )


def _require_weights(folder: Path) -> None:
    models = folder / "models"
    if (models / "model.pt").is_file():
        return
    if (models / "model.ts").is_file():
        raise BadModel(
            "no-bundle",
            "models/model.pt is not there; models/model.ts is TorchScript, a program, and is not read here: save the"
            " state_dict of its network as models/model.pt",
        )
    raise BadModel("no-bundle", "models/model.pt, the weights of the network, is not there")


def _inference(folder: Path) -> Path:
    for name in INFERENCE:
        if (path := folder / "configs" / name).is_file():
            return path
    raise BadModel(
        "no-bundle",
        "configs/inference.json (or .yaml), which says how the network is built and run, is not there",
    )


def _sections(inference: Path) -> Mapping[str, Any]:
    """Return the inference configuration, as it is written, once it has all the sections."""
    plain = _configuration(inference)
    found = {str(key).replace("::", "#").partition("#")[0]: value for key, value in plain.items()}
    if missing := [name for name in SECTIONS if name not in found]:
        raise BadModel(
            "bundle-sections",
            f"configs/{inference.name} has no {', '.join(missing)}; a bundle is run by {', '.join(SECTIONS)}",
        )
    return {**found, **plain}


def _configuration(inference: Path) -> Mapping[str, Any]:
    """Return what the inference configuration holds, as it is written."""
    try:
        text = inference.read_text()
        plain = json.loads(text) if inference.suffix == ".json" else _yaml(text)
    except (OSError, ValueError, RecursionError) as error:
        raise BadModel(
            "bad-inference", f"configs/{inference.name} cannot be read ({error}); fetch the bundle again"
        ) from error
    if not isinstance(plain, dict):
        raise BadModel("bad-inference", f"configs/{inference.name} is no table of keys and values")
    return plain


def _yaml(text: str) -> Any:
    """Return what a YAML text holds. Raises ValueError, and BadModel (`not-installed`)."""
    try:
        import yaml
    except ImportError as error:
        raise BadModel(
            "not-installed", f"a bundle in YAML needs PyYAML: {how_to_install('learn')}"
        ) from error
    try:
        return read_yaml(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


__all__ = ["Bundle", "read_bundle"]
