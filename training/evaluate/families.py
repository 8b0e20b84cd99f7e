"""The kinds of model that can be judged, and how a model is opened for it.

A family is a function that puts every case of the data to the model, with weights that have not seen the patient
(`Subject.weights_for`), and yields what came back as cases of `judged`: regions drawn, scans searched, lesions rated,
patients followed; a model of several tasks yields several kinds. What is made of them is the same for all families.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from models.files import MANIFEST, BadModel
from models.segmenter import ClassicalNoduleSegmenter
from models.shipped import VOUCHED, Model, open_model, open_shipped
from plugins.errors import Refused
from store.file_hash import sha256_of
from training.evaluate import detector, malignancy, nodules, petct
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
    needs: str = "cases with the images and masks that it was made for"
    """What data have to hold for it, in words."""
    window: tuple[float, float] = (0.0, 1.0)
    """Values of the image that pictures show black and white."""
    threshold: float = 0.5
    """Probability from which a rated case is called positive."""


FAMILIES: Mapping[str, Family] = {
    "nodule_segmenter": Family(cases=nodules.segmented, limits=nodules.LIMITS, window=nodules.WINDOW_HU),
    "nodule_detector": Family(cases=detector.searched, limits=detector.LIMITS, needs=detector.NEEDS),
    "nodule_malignancy": Family(cases=malignancy.rated, limits=malignancy.LIMITS, needs=malignancy.NEEDS),
    "petct_multitask": Family(cases=petct.asked_cases, limits=petct.LIMITS, window=petct.WINDOW_SUV),
}
"""By the name of the model that an experiment and a card give."""


def open_subject(name: str) -> Subject:
    """Return the model of a folder (a run of `nadir train` or a model), of a shipped model, or a classical one.

    Whoever names a folder vouches for it: its manifest is held against its files, and nothing in it can run.
    Refuses `no-model`, `unknown-family`, `bad-card`, what `runs.open_run` refuses and `models.files.verify` raises.
    """
    classical = ClassicalNoduleSegmenter().card
    if name == classical.name:
        return Subject(
            name=name, version=classical.version, family="nodule_segmenter", sha256=classical.sha256
        )
    if name in petct.THRESHOLDS:
        rule = petct.threshold_card(name)
        return Subject(name=name, version=rule.version, family="petct_multitask", sha256=rule.sha256)
    if name == detector.SHAPE_SCORE:
        shape = detector.shape_card()
        return Subject(name=name, version=shape.version, family="nodule_detector", sha256=shape.sha256)
    folder = Path(name)
    try:
        if name in VOUCHED:
            subject = _of_model(open_shipped(name))
        elif (folder / MANIFEST).is_file():
            subject = _of_model(open_model(folder, {sha256_of(folder / MANIFEST)}, datetime.now(UTC).date()))
        elif is_run(folder):
            subject = open_run(folder)
        else:
            known = ", ".join([*VOUCHED, classical.name, detector.SHAPE_SCORE, *petct.THRESHOLDS])
            raise Refused("no-model", f"'{name}' is no folder of a model or of a run, and none of {known}")
    except BadModel as error:
        raise Refused(error.code, error.sentence) from error
    if subject.family not in FAMILIES:
        raise Refused("unknown-family", f"nobody knows how to judge a '{subject.family}'")
    return subject


def _of_model(model: Model) -> Subject:
    card = model.card
    try:
        return Subject(
            name=model.manifest.name,
            version=model.manifest.version,
            family=card["experiment"]["model"] if "experiment" in card else model.manifest.name,
            sha256=model.manifest.sha256,
            folder=model.folder,
            model=model,
            card=card,
            folds=model.folds,
            held_out={str(key): int(fold) for key, fold in card["held_out"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Refused(
            "bad-card", f"the card of {model.manifest.name} does not say whom it has learned from ({error!r})"
        ) from error


__all__ = ["FAMILIES", "Family", "open_subject"]
