"""The kinds of model that can be judged, and how a model is opened for it.

A family is a function that puts every case of the data to the model, with weights that have not seen the patient
(`Subject.weights_for`), and yields what came back as cases of `judged`: regions drawn, scans searched, lesions rated,
patients followed; a model of several tasks yields several kinds. What is made of them is the same for all families.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from plugins.errors import Refused
from training.evaluate import nodules
from training.evaluate.data import Data
from training.evaluate.judged import Case
from training.evaluate.runs import is_run, open_run
from training.evaluate.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Family:
    """How models of one kind are judged."""

    cases: Callable[[Subject, Data, bool], Iterator[Case]]
    """Yields what the model said of every case; when the last argument says brief, as little as a score needs."""
    limits: tuple[str, ...]
    """What a judgement of this kind cannot tell, in sentences."""
    window: tuple[float, float] = (0.0, 1.0)
    """Values of the image that pictures show black and white."""
    threshold: float = 0.5
    """Probability from which a rated case is called positive."""


FAMILIES: Mapping[str, Family] = {
    "nodule-segmenter": Family(cases=nodules.segmented, limits=nodules.LIMITS, window=nodules.WINDOW_HU),
}


def open_subject(model: str) -> Subject:
    """Return the model of a folder or a name. Refuses `no-model` and `unknown-family`."""
    from models.segmenter import ClassicalNoduleSegmenter

    card = ClassicalNoduleSegmenter().card
    if model == card.name:
        return Subject(name=card.name, version=card.version, family="nodule-segmenter", sha256=card.sha256)
    if is_run(Path(model)):
        return open_run(Path(model))
    raise Refused(
        "no-model",
        f"there is no model '{model}': give the folder of one, of a run of 'nadir train', or {card.name}",
    )


__all__ = ["FAMILIES", "Family", "open_subject"]
