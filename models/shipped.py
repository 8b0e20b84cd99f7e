"""The models that come with Nadir: which manifests are vouched for, and a model opened for use.

A release vouches for the models in its own `weights` folder by the hash of their manifests, so whoever changes a card
or a weight there has a model that nobody vouches for. They do not expire: the next release replaces them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.files import BadModel, Manifest, load_weights, verify

WEIGHTS = Path(__file__).parent / "weights"
EVALUATIONS = Path(__file__).parent / "evaluations"
"""What is kept of the judgement of each (`training.evaluate.kept`); its own folder holds only what is vouched for."""
CARD = "card.json"
Understood = TypeVar("Understood")
VOUCHED: Mapping[str, str] = {
    "nodule_detector": "9c42f4b741f33c9ab6774e0062c157dcbb5256bd301735bc1128d760b7090232",
    "nodule_malignancy": "5feb822998ff95ad8cb7a822f93ec8023fc24f8fdb42ac5f970733dfe1db4c22",
    "nodule_segmenter": "1d585add5fcf7f8fcfa966d93b85fccf7508765cb399b9ba188a7fb295ab4746",
    "petct_multitask": "07b91bbfa9e2ba4c86faef3c8d0a702199476a31b2e945685b846dc6f36732f0",
}
"""sha256 of the manifest of each shipped model, by its name, which is that of its folder."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A learned model whose files were all held against its manifest."""

    folder: Path
    """Where it lies."""
    manifest: Manifest
    """What it says of its files."""
    card: Mapping[str, Any]
    """Everything that is needed to build and run it."""

    @property
    def folds(self) -> tuple[int, ...]:
        """Return the folds of which there are weights: together they are the ensemble."""
        return tuple(int(fold) for fold in self.card["folds"])

    def said(self, key: str) -> Any:
        """Return what the card says under a name. Raises BadModel (`bad-card`) when it says nothing."""
        try:
            return self.card[key]
        except KeyError as error:
            raise BadModel("bad-card", f"the card of {self.manifest.name} has no '{key}'") from error

    def understood(self, key: str, read: Callable[[Any], Understood]) -> Understood:
        """Return what `read` makes of what the card says under a name. Raises BadModel (`bad-card`) where it cannot."""
        said = self.said(key)
        try:
            return read(said)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise BadModel(
                "bad-card",
                f"'{key}' in the card of {self.manifest.name} is not as it has to be ({error!r})",
            ) from error

    def weights(self, fold: int) -> dict[str, NDArray[np.generic]]:
        """Return the weights of one fold, by name. Raises BadModel as `models.files.load_weights` does."""
        return self.numbers(f"fold{fold}.safetensors")

    def numbers(self, name: str) -> dict[str, NDArray[np.generic]]:
        """Return the arrays of one of its files, by name. Raises BadModel as `models.files.load_weights` does."""
        return load_weights(self.folder, name, {self.manifest.sha256}, date.min)


def open_model(folder: Path, trusted: Collection[str], today: date) -> Model:
    """Return the model in a folder; `trusted` are hashes of manifests. Raises BadModel (`verify` of `models.files`)."""
    manifest = verify(folder, trusted, today)
    if CARD not in manifest.files:
        raise BadModel("missing-file", f"the manifest names no '{CARD}'")
    data = (folder / CARD).read_bytes()
    if hashlib.sha256(data).hexdigest() != manifest.files[CARD][0]:
        raise BadModel("changed-file", f"'{CARD}' was changed while the model was opened")
    card = json.loads(data)
    if not isinstance(card, dict) or not isinstance(card.get("folds"), list):
        raise BadModel("bad-card", f"the '{CARD}' of {manifest.name} does not say which folds there are")
    return Model(folder=folder, manifest=manifest, card=card)


def open_shipped(
    name: str, *, weights: Path | None = None, vouched: Mapping[str, str] | None = None
) -> Model:
    """Return a shipped model by its name. Raises BadModel (`not-shipped`, and what `models.files.verify` raises)."""
    known, folder = VOUCHED if vouched is None else vouched, (weights or WEIGHTS) / name
    if name not in known or not folder.is_dir():
        raise BadModel("not-shipped", f"this installation has no model '{name}'")
    return open_model(folder, {known[name]}, date.min)


__all__ = ["EVALUATIONS", "VOUCHED", "WEIGHTS", "Model", "open_model", "open_shipped"]
