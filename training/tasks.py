"""The models that can be trained, by the name that an experiment gives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plugins.errors import Refused
from training.experiment import Experiment

if TYPE_CHECKING:
    from models.malignancy import RatedView
    from models.nodule_detector import DetectorView
    from models.nodule_passes import NoduleView
    from models.petct import PetctView
    from training.fit import Task


def task_of(experiment: Experiment, fold: int, data: Path) -> Task:
    """Return what an experiment learns, from the data in a folder.

    Refuses `unknown-model`, and `bad-experiment` what no task can learn so.
    """
    _require_channels(experiment)
    if experiment.model == "nodule_segmenter":
        from training.nodule_task import nodule_task

        return nodule_task(experiment, fold, data)
    if experiment.model == "nodule_malignancy":
        from training.malignancy_task import malignancy_task

        return malignancy_task(experiment, fold, data)
    if experiment.model == "nodule_detector":
        from training.detector_task import detector_task

        return detector_task(experiment, fold, data)
    if experiment.model == "petct_multitask":
        from training.petct_task import petct_task

        return petct_task(experiment, fold, data)
    known = "nodule_detector, nodule_malignancy, nodule_segmenter, petct_multitask"
    raise Refused("unknown-model", f"nobody knows how to train '{experiment.model}'; known: {known}")


def _require_channels(experiment: Experiment) -> None:
    """Refuse `in_channels` that are not those of the view; a view that is none is told where the task is made."""
    said = experiment.architecture.get("in_channels")
    if said is None:
        return
    try:
        shown = view_of({"model": experiment.model, "task": experiment.task}).channels
    except (Refused, KeyError, TypeError, ValueError, AttributeError):
        return
    if said != shown:
        raise Refused(
            "bad-experiment",
            f"architecture.in_channels of {experiment.name} is {said}, and its view has {shown} channels; write "
            f"{shown}, or leave it out",
        )


def view_of(experiment: Mapping[str, Any]) -> DetectorView | NoduleView | PetctView | RatedView:
    """Return what the network of an experiment, or of a run's record of it, is shown."""
    if experiment["model"] == "petct_multitask":
        from models.petct import PetctView

        return PetctView.of(experiment["task"]["view"])
    if experiment["model"] == "nodule_malignancy":
        from models.malignancy import RatedView

        return RatedView.of(experiment["task"]["view"])
    if experiment["model"] == "nodule_detector":
        from models.nodule_detector import DetectorView

        return DetectorView.of(experiment["task"]["view"])
    from models.nodule_passes import NoduleView

    return NoduleView.of(experiment["task"]["view"])
