"""The second document: how a model is retrained, judged and replaced, told from the settings that the run uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from models.shipped import Model
from store.sides import JUDGED_SHARE
from training.evaluate.section import Section, Table
from training.evaluate.subgroups import EDGES, NAMES
from training.margins import Margins
from training.plan.document import Document
from training.recipe import Recipe

Settings = Mapping[str, tuple[str, str]]
"""Other settings of a node by name: value and meaning, in words."""
RECIPE: Mapping[str, str] = {
    "family": "The model that is retrained.",
    "fewest_new_labels": "Labels that no earlier finished run had; with fewer nothing is trained, and the run says so.",
    "steps": "Steps of the optimiser, for each network of the ensemble.",
    "batch": "Samples in a step.",
    "learning_rate": "Highest learning rate; it rises, then falls along a cosine.",
    "seed": "Seed of order, augmentation and of the draws of patients at the gate.",
    "replay": "Curated data sets that are learned from again beside the labels, so that they are not forgotten: "
    "of each the cases of this family.",
    "replay_share": "Part of the samples that comes from those data sets.",
    "threads": "Threads that it computes with.",
}
"""What each setting of a run means; the limits of the gate have words of their own."""
LABELS = (
    "corrected: a region that a person sent back under the Tracking UID of a lesion, with other voxels than Nadir's.",
    "approved: what Nadir drew, when a person approved it by a choice.",
    "drawn: a lesion that a person drew and Nadir did not know, where the setting `drawn` asks for them.",
    "What Nadir drew is never a label by itself, also when it comes back under other UIDs or by way of another node.",
    "All regions of an object count. What could not be used is told by the run, with the reason.",
)
OF_FAMILY: Mapping[str, tuple[str, ...]] = {
    "nodule_segmenter": (
        "Of these count the masks on CT of nodules that Nadir drew or, of what it missed, that are coded as nodules or "
        "as lying in the lung.",
    ),
    "petct_multitask": (
        "Of these count the masks on PET in SUV of uptake that Nadir drew, by a threshold or by the network, and of "
        "lesions that it missed. A CT that holds the lesion in the same frame of reference goes along.",
        "A part of the samples is of made lesions, as the card says under `experiment`.",
        "Of outcomes nothing is known here: the survival head keeps its weights, and the gate does not ask for it.",
    ),
}
"""Which labels a family learns from."""
UPDATE = (
    "A challenger that passes is registered as proposed, one that does not as refused with the reason; either way its "
    "files, data, seeds, commit and figures are kept. Nothing is used yet.",
    "A person approves (nadir models approve, with a name). Only what is proposed, whose files still have the hashes "
    "of their manifest, and which was judged against the model that counts now can be approved.",
    "Approval is one row that is only ever added: from the next job on, all analyses use the new model, and every SEG "
    "and SR bears its hash and a new Device UID. Jobs that run end with the model that they began with.",
    "One step goes back to what counted before (nadir models rollback), to the model of the release at last. That is a "
    "row as well; nothing is deleted, and results that were sent keep the name of the model that made them.",
    "A run that is killed leaves the registry as it was. There is one run of a family at a time.",
    "Approvals and rollbacks are in the audit trail.",
)


def protocol(
    model: Model, recipe: Recipe, *, made_at: datetime, schedule: Settings | None = None
) -> Document:
    """Return the modification protocol; `schedule` are the settings of the node that say when it runs."""
    return Document(
        kind="protocol",
        title=f"Modification protocol: {model.manifest.name}",
        family=recipe.family,
        made_at=made_at,
        sections=(
            *_data(recipe),
            _retraining(recipe, schedule or {}),
            _performance(recipe.margins),
            Section(title="Update", points=UPDATE),
        ),
        facts={
            "model that counts": f"{model.manifest.name} {model.manifest.version}",
            "sha256": model.manifest.sha256,
            "family": recipe.family,
        },
        figures={
            "margins": asdict(recipe.margins),
            "recipe": {
                one.name: _plain(getattr(recipe, one.name)) for one in fields(recipe) if one.name != "margins"
            },
            "schedule": {name: value for name, (value, _) in (schedule or {}).items()},
        },
    )


def _data(recipe: Recipe) -> tuple[Section, ...]:
    share = f"{100 * JUDGED_SHARE:g} %"
    return (
        Section(title="Data: what a label is", points=(*LABELS, *OF_FAMILY[recipe.family])),
        Section(
            title="Data: who is learned from and who is judged on",
            points=(
                f"A lot, drawn once from a salted hash, puts each person on one side: {share} are judged on, the "
                "others are learned from. It is written down and stays.",
                "Whoever the model that counts has learned from is always learned from.",
                "Two identifiers that are declared to be one person are one person. When they were on two sides, the "
                "person is on neither side for ever after.",
                "Each run freezes two lists of cases, one for each side, with the hash of every file and of the list. "
                "A hold-out with a patient whom champion or challenger learned from is refused (learned-from).",
                "The hold-out chooses nothing in training: no step, no threshold, no setting.",
            ),
        ),
    )


def _retraining(recipe: Recipe, schedule: Settings) -> Section:
    rows = [(name, _value(getattr(recipe, name)), words) for name, words in RECIPE.items()]
    rows += [(name, value, words) for name, (value, words) in schedule.items()]
    return Section(
        title="Retraining",
        text="Each network of the ensemble learns on from the network of the same fold of the model that counts, with "
        "a small learning rate, from the labels of the other folds' patients and from the curated data.",
        tables=(Table(head=("Setting", "Value", "What it means"), rows=tuple(rows), words=True),),
    )


def _performance(margins: Margins) -> Section:
    values = asdict(margins)
    rows = tuple((name, f"{values[name]:g}", words) for name, words in margins.sentences())
    cuts = ", ".join(f"{NAMES[key]} (cut at {_list(edges)} mm)" for key, edges in EDGES.items())
    return Section(
        title="Performance",
        text=(
            "Champion and challenger draw every case of the frozen hold-out, in turn and on one thread. Differences "
            "are of the same case; their intervals draw patients with all their cases, with replacement. The "
            "challenger is proposed when it is better on the whole and every limit below holds; it is refused when it "
            "is equal, worse, or worse in one group only."
        ),
        tables=(Table(head=("Limit", "Value", "What it asks"), rows=rows, words=True),),
        points=(
            f"Groups are made by what is known of a case: {cuts}, scanner, kernel, texture, origin of the label, and "
            "each other way to ask the models (a point beside the middle, other surroundings).",
            "A mask that a person approved as it was drawn is the work of one of the models. It counts for no rise and "
            "no fall of the Dice; it has to be drawn much like that again.",
            "A group of too few patients is told as not judged, unless most of them become worse beyond the margin. "
            "Pairs of things (small and of one scanner) make none.",
            "Beyond chance means in a group: by Student's t of the patients' differences, corrected over all groups.",
        ),
    )


def _list(edges: Sequence[float]) -> str:
    return ", ".join(f"{edge:g}" for edge in edges)


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plain(value: object) -> Any:
    return [str(one) for one in value] if isinstance(value, tuple) else value


__all__ = ["RECIPE", "Settings", "protocol"]
