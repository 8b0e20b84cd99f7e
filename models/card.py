"""What a model says of itself, so that a result can name what made it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """The identity of a model: what a SEG, an SR and an SQL row write as its provenance."""

    name: str
    """Name of the model, as it is written into results."""
    version: str
    """Version of the model."""
    kind: str
    """`classical` for a fixed procedure, `learned` for a network with weights."""
    intended_use: str
    """One sentence: on what input, for what."""
    parameters: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    """Every number that changes what the model gives back."""
    weights_sha256: str | None = None
    """Hash of the weights file; None for a model that has no weights."""

    @property
    def sha256(self) -> str:
        """Hash over everything on the card, so a changed parameter is another model."""
        text = json.dumps(asdict(self), sort_keys=True, default=dict)
        return hashlib.sha256(text.encode()).hexdigest()
