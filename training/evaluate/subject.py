"""The model that is judged, and which of its weights may be judged on whom.

A model folder holds one set of weights for each fold of a cross-validation; each has learned from the patients of the
other folds. A patient is judged by the weights that have not seen him: by his own fold's when he is in the manifest
that the model learned from, by all of them together when nobody has seen him.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from models.shipped import Model
from plugins.errors import Refused
from store.patient_key import fold_of_patient
from training.manifest import DataManifest


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model as a judge sees it."""

    name: str
    """Name of the model."""
    version: str
    """Its version."""
    family: str
    """Which model it is by its purpose: a key of `families.FAMILIES`."""
    sha256: str
    """Hash of its manifest, or of its card when it has no weights."""
    folder: Path | None = None
    """Where its weights are; None for a fixed procedure."""
    model: Model | None = None
    """Its card and weights, when it is a model folder and not a run of `nadir train`."""
    card: Mapping[str, Any] = field(default_factory=dict)
    """Its card, or the experiment of a run."""
    folds: tuple[int, ...] = ()
    """The folds of which there are weights; empty for what has learned nothing."""
    held_out: Mapping[str, int] = field(default_factory=dict)
    """The fold in which each patient that the model learned from was held out, by `store.patient_key`."""
    learned_from: str | None = None
    """Hash of the manifest that a run learned from; None for a model."""

    def on(self, manifest: DataManifest) -> Subject:
        """Return the subject with everything that has to be known to judge it on the cases of a manifest.

        Refuses `unknown-patients`: a run that keeps the hash of its data only can be judged on those alone.
        """
        if self.learned_from is None or self.held_out:
            return self
        if self.learned_from != manifest.sha256:
            raise Refused(
                "unknown-patients",
                f"{self.folder} does not say whom it has learned from, so it can be judged only on the data it was "
                f"trained on (manifest {self.learned_from[:12]}, not {manifest.sha256[:12]}), each fold on its own",
            )
        return replace(self, held_out=manifest.held_out)

    def weights_for(self, patient_id: str) -> tuple[int, ...]:
        """Return the folds whose weights have not seen a patient: all of them together judge him.

        Refuses `training-patient` when the weights that have not seen him are not in the folder.
        """
        held_out = fold_of_patient(patient_id, self.held_out)
        if held_out is None:
            return self.folds
        if held_out not in self.folds:
            raise Refused(
                "training-patient",
                f"{self.name} has learned from patient {patient_id}, and the weights of fold {held_out}, which have "
                f"not, are not in {self.folder}: judge it on other patients, or add those weights",
            )
        return (held_out,)

    def judged_by(self, patients: Mapping[str, int | None]) -> str:
        """Return one sentence: which weights judged these patients, each by one fold, or by all together (None)."""
        if not self.folds:
            return "a fixed procedure, which has learned from no patient"
        known = sum(
            fold is not None and (len(self.folds) > 1 or fold_of_patient(patient, self.held_out) is not None)
            for patient, fold in patients.items()
        )
        fresh = len(patients) - known
        own = f"{known} patients by the weights of the fold that had not seen them" if known else ""
        rest = (
            f"{fresh} patients that no fold has seen by {len(self.folds)} sets of weights together"
            if fresh
            else ""
        )
        return "; ".join(part for part in (own, rest) if part)


__all__ = ["Subject"]
