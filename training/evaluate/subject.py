"""The model that is judged, and which of its weights may be judged on whom.

A model folder holds one set of weights for each fold of a cross-validation; each has learned from the patients of the
other folds. A patient is judged by the weights that have not seen him: by his own fold's when he is in the manifest
that the model learned from, by all of them together when nobody has seen him.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plugins.errors import Refused


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model as a judge sees it."""

    name: str
    """Name of the model."""
    version: str
    """Its version."""
    family: str
    """Which kind of judge it needs: a key of `families.FAMILIES`."""
    sha256: str
    """Hash of its manifest, or of its card when it has no weights."""
    folder: Path | None = None
    """Where its weights are; None for a fixed procedure."""
    card: Mapping[str, Any] = field(default_factory=dict)
    """Its card."""
    folds: tuple[int, ...] = ()
    """The folds of which there are weights; empty for what has learned nothing."""
    fold_of: Mapping[str, int] = field(default_factory=dict)
    """The fold in which each patient that the model learned from was held out."""

    def weights_for(self, patient_id: str) -> tuple[int, ...]:
        """Return the folds whose weights have not seen a patient: all of them together judge him.

        Refuses `training-patient` when the weights that have not seen him are not in the folder.
        """
        held_out = self.fold_of.get(patient_id)
        if held_out is None:
            return self.folds
        if held_out not in self.folds:
            raise Refused(
                "training-patient",
                f"{self.name} has learned from patient {patient_id}, and the weights of fold {held_out}, which have "
                f"not, are not in {self.folder}: judge it on other patients, or add those weights",
            )
        return (held_out,)

    def judged_by(self, patients: Iterable[str]) -> str:
        """Return one sentence: which weights judge these patients."""
        if not self.folds:
            return "a fixed procedure, which has learned from no patient"
        known = sum(patient in self.fold_of for patient in patients)
        own = f"{known} patients by the weights of the fold that had not seen them" if known else ""
        fresh = len(set(patients)) - known
        rest = (
            f"{fresh} patients that no fold has seen by {len(self.folds)} sets of weights together"
            if fresh
            else ""
        )
        return "; ".join(part for part in (own, rest) if part)


__all__ = ["Subject"]
