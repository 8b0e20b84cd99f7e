"""A MONAI bundle as a function from an image to pictures of labels.

A bundle is a program: its configuration names classes and calls functions. Whoever calls `run` has held the folder
against a hash that somebody vouches for (`models.tree`); nothing here is a sandbox.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle_channels import Layers, layers_of
from models.bundle_code import code_of
from models.bundle_files import METADATA, Bundle
from models.files import BadModel
from models.foreign import require_finite, said_by


def run(bundle: Bundle, image: Path, device: str = "cpu") -> tuple[Layers, NDArray[np.float64]]:
    """Return the labels that a bundle gives to a NIfTI image, and their affine to RAS mm.

    The bundle's own sections `preprocessing`, `network_def`, `inferer` and `postprocessing` are used, without what
    saves files; the weights are read as numbers only. How the channels are read stands in `models.bundle_channels`.
    Raises BadModel: `unreadable-weights`, `bundle-channels`, and `bundle-failed` with what the bundle said, or where
    its answer is not finite, or no picture that lies anywhere.
    """
    from monai.bundle.config_parser import ConfigParser

    parser = ConfigParser()
    try:
        with warnings.catch_warnings(), code_of(bundle.folder):
            warnings.simplefilter("ignore")  # those of foreign code, which nobody here can heed
            parser.read_config(str(bundle.inference))
            parser.read_meta(str(bundle.folder / METADATA))
            _save_nothing(parser.get())
            done = _answer(parser, bundle, image, device)
    except BadModel:
        raise
    except Exception as error:  # a border: foreign code raises anything
        raise BadModel("bundle-failed", f"the bundle stopped with {said_by(error)}") from error
    layers = layers_of(np.asarray(done), bundle.labels, bundle.has_background, bundle.channels)
    return layers, np.asarray(done.affine, dtype=np.float64)


def _answer(parser: Any, bundle: Bundle, image: Path, device: str) -> Any:
    """Return what the bundle's sections give, one after the other: a tensor with its affine."""
    import torch

    parser["bundle_root"], parser["device"] = str(bundle.folder), torch.device(device)
    network = parser.get_parsed_content("network_def").to(device)
    _load(network, bundle.folder / "models" / "model.pt", device)
    network.eval()
    data = parser.get_parsed_content("preprocessing")({"image": str(image)})
    with torch.inference_mode():
        answer = parser.get_parsed_content("inferer")(data["image"][None].to(device), network)[0].cpu()
    require_finite(answer, "bundle-failed")  # an argmax or a threshold would hide it
    done = parser.get_parsed_content("postprocessing")({**data, "pred": answer})["pred"]
    _require_picture(done)
    require_finite(done, "bundle-failed")
    return done


def _require_picture(done: Any) -> None:
    """Raise BadModel (`bundle-failed`) for an answer without a place, of other axes, or that numpy cannot hold."""
    import torch

    kind = getattr(done, "dtype", None)
    if not isinstance(done, torch.Tensor) or not hasattr(done, "affine"):
        fault = "has no affine, so that nobody knows where it lies: keep track_meta, and bring it back with Invertd"
    elif done.ndim != 4:
        fault = f"has the shape {tuple(done.shape)} and has to be (channel, x, y, z): take no axis away"
    elif kind == torch.bfloat16 or done.is_complex():
        fault = f"is of {kind}, which cannot be read: cast it to float32"
    else:
        return
    raise BadModel("bundle-failed", f"what the bundle's postprocessing gives {fault}")


def _save_nothing(section: object) -> None:
    """Disable every transform that writes files; what the bundle gives is taken from memory."""
    if isinstance(section, dict):
        if str(section.get("_target_", "")).rpartition(".")[2] in ("SaveImaged", "SaveImage"):
            section["_disabled_"] = True
        for value in section.values():
            _save_nothing(value)
    elif isinstance(section, list):
        for value in section:
            _save_nothing(value)


def _load(network: Any, path: Path, device: str) -> None:
    import torch

    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # a border: unpickling raises anything
        raise BadModel(
            "unreadable-weights",
            f"models/model.pt holds more than weights, or none ({type(error).__name__}): save the state_dict of its"
            " network as models/model.pt",
        ) from error
    for key in ("model", "state_dict"):
        state = state.get(key, state) if isinstance(state, dict) else state
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise BadModel("unreadable-weights", "models/model.pt does not fit the bundle's network") from error


__all__ = ["run"]
