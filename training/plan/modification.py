"""The first document: what a retraining may change of a model, and what it may not. The gate refuses anything else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from models.shipped import Model
from plugins.errors import Refused
from training.evaluate.section import Section, Table
from training.plan.document import Document

KEEPS: Mapping[str, str] = {
    "name": "The name of the model, and so the analyses that use it.",
    "kind": "Whether it is learned.",
    "intended_use": "The intended use.",
    "input": "What it is given: modality, units, spacing.",
    "view": "What the networks are shown of an image: window, voxel sizes, passes.",
    "architecture": "The networks: layers, channels, normalisation.",
    "levels": "The probability from which a lesion is seen at all, for each voxel size.",
    "level": "The probability from which a voxel is drawn, for all networks together and for each alone.",
    "calibration": "Slope and shift of the logit near a lesion, for all networks together and for each alone.",
    "trees": "How the trees were taught that say where a lesion on PET ends; the trees themselves stay too.",
    "mirrors": "How many mirrored copies of a patch are asked.",
    "usual_log_hazard": "The zero of the log hazard of each network; the survival head itself keeps its weights too.",
    "reported": "Whether the log hazard is reported.",
}
"""Parts of the card that stay as they are, and what they are; a challenger that differs in one is no challenger."""
CHANGES: Mapping[str, str] = {
    "weights": "The weights of every network of the ensemble, which learn on from those of the model that counts.",
    "doubt": "Temperature and widths of the intervals, where the card has them: taught anew on new cases, each by the "
    "network that has not seen it, when there are enough; else they stay.",
    "version": "Version, hash of the manifest and Device UID, which are new for every retraining.",
    "card": "What the card says of data, training and limits.",
}
"""What a retraining changes."""
ELSEWHERE = (
    "How lengths, volumes and densities are measured on a mask, and how they are written with their convention.",
    "Codes and structure of SEG and SR.",
    "Which lesion is which over time, and the criteria of response.",
    "When an analysis accepts a study and when it refuses one.",
)
"""What no retraining touches, because it is no part of a model."""


def modification(model: Model, family: str, *, made_at: datetime) -> Document:
    """Return the description of modifications of the model that counts."""
    card, manifest = model.card, model.manifest
    kept = tuple((name, words, _short(card.get(name))) for name, words in KEEPS.items() if name in card)
    return Document(
        kind="modification",
        title=f"Description of modifications: {manifest.name}",
        family=family,
        made_at=made_at,
        sections=(
            Section(
                title="The model",
                text=str(card.get("intended_use", "")),
                points=tuple(str(limit) for limit in card.get("limits", ())),
            ),
            Section(
                title="What a retraining changes",
                text="It is one kind of modification, made again and again: the same networks learn on from masks that "
                "people drew or approved at this node.",
                tables=(Table(head=("Part", "What changes"), rows=tuple(CHANGES.items()), words=True),),
            ),
            Section(
                title="What it may not change",
                text="These parts of the card of champion and challenger are compared before any case is judged; a "
                "challenger that differs in one of them is refused (outside-plan).",
                tables=(Table(head=("Part", "What it is", "As it is now"), rows=kept, words=True),),
            ),
            Section(title="What is no part of a model", points=ELSEWHERE),
        ),
        facts={
            "model": f"{manifest.name} {manifest.version}",
            "sha256": manifest.sha256,
            "family": family,
            "licence": manifest.licence,
            "learned from": manifest.training_data,
            "folds": ", ".join(map(str, model.folds)),
        },
        figures={"keeps": {name: card[name] for name in KEEPS if name in card}, "changes": dict(CHANGES)},
    )


def require_within(champion: Mapping[str, Any], challenger: Mapping[str, Any]) -> None:
    """Refuse (`outside-plan`) a challenger whose card differs from the champion's in what may not change."""
    for name, words in KEEPS.items():
        if _plain(champion.get(name)) != _plain(challenger.get(name)):
            raise Refused(
                "outside-plan",
                f"the challenger differs from the champion in '{name}', which no retraining may change ({words})",
            )


def _plain(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _short(value: object) -> str:
    """Return a part of a card in words; of what is nested its hash."""
    if isinstance(value, Mapping):
        if any(isinstance(one, Mapping) for one in value.values()):
            return f"sha256 {hashlib.sha256(_plain(value).encode()).hexdigest()}"
        return ", ".join(f"{key} {one}" for key, one in value.items())
    return str(value)


__all__ = ["CHANGES", "KEEPS", "modification", "require_within"]
