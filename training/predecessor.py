"""The weights that a training begins with: of the same fold of an earlier run or of a model, and whom they know."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from plugins.errors import Refused
from store.patient_key import fold_of_patient
from training.manifest import DataManifest

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Predecessor:
    """Weights of one fold of an earlier run or of a model."""

    weights: Path
    """Their file."""
    fold: int
    """The fold whose patients they have not seen."""
    held_out: Mapping[str, int]
    """The fold in which each patient of the earlier data was held out, by `store.patient_key`."""

    def require_unseen(self, data: DataManifest) -> None:
        """Refuse (`training-patient`) when the weights know a patient whom the same fold of other data holds out."""
        for case in data.fold(self.fold):
            earlier = fold_of_patient(case.patient_id, self.held_out)
            if earlier not in (None, self.fold):
                raise Refused(
                    "training-patient",
                    f"{self.weights} has learned from patient {case.patient_id}, whom {data.name} holds out in fold "
                    f"{self.fold} and init_from in fold {earlier}: divide the patients into the folds that init_from "
                    "had, or leave init_from out",
                )

    def load_into(self, network: torch.nn.Module) -> None:
        """Put the weights into a network of the same architecture. Refuses `no-weights` and `other-architecture`."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            network.load_state_dict({name: value.float() for name, value in load_file(self.weights).items()})
        except (OSError, SafetensorError) as error:
            raise Refused("no-weights", f"{self.weights} cannot be read as weights ({error})") from error
        except RuntimeError as error:
            raise Refused(
                "other-architecture", f"the weights in {self.weights} are of another network"
            ) from error


def predecessor_in(folder: Path, fold: int, data: DataManifest) -> Predecessor:
    """Return the weights of a fold in the folder of a run, of one fold of it, or of a model; `data` is learned next.

    Refuses `no-weights` (none of this fold), `bad-run` (the record or card cannot be read) and `training-patient`
    (nothing says whom the weights know).
    """
    weights = weights_in(folder, fold)
    if weights is None:
        raise Refused("no-weights", f"{folder} (init_from) holds no weights of fold {fold}")
    place = weights.parent
    said = next((place / one for one in ("card.json", "run.json") if (place / one).is_file()), None)
    held_out = None if said is None else _held_out(said, data)
    if held_out is None:
        raise Refused(
            "training-patient",
            f"nothing in {place} (init_from) says from whom its weights have learned: begin with a run or a model "
            "that keeps held_out in its run.json or card.json, or leave init_from out",
        )
    return Predecessor(weights=weights, fold=fold, held_out=held_out)


def weights_in(folder: Path, fold: int) -> Path | None:
    """Return the file of a fold in the folder of a run, of one fold of it, or of a model; None when none is there."""
    name = f"fold{fold}.safetensors"
    found = (place / name for place in (folder / f"fold{fold}", folder))
    return next((path for path in found if path.is_file()), None)


def _held_out(path: Path, data: DataManifest) -> dict[str, int] | None:
    """Return whom a record or card says it held out where; None when it is silent and learned from other data."""
    try:
        said = json.loads(path.read_text())
        if said.get("held_out"):
            return {str(key): int(fold) for key, fold in said["held_out"].items()}
        return data.held_out if said["data_sha256"] == data.sha256 else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(
            "bad-run", f"{path} cannot be read as what a run or a model says of itself ({error!r})"
        ) from error


__all__ = ["Predecessor", "predecessor_in", "weights_in"]
