"""Families of models as pages show them: what counts, waits for a person, runs or drifts, and what is new to learn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from sqlmodel import Session

from models.files import BadModel
from models.shipped import open_model, open_shipped
from node import model_view
from node.drift_view import families_of
from node.model_view import Entry
from node.settings import Settings
from store import asked_runs, drifts, registry, runs
from store.asked_runs import AskedRun
from store.model_tables import DriftAlarm, ScheduledJob, TrainingRun
from store.objects import ObjectStore
from training.recipe import FAMILIES

ALARMS_OF = timedelta(weeks=3)
"""Alarms of weeks that began earlier are history: drift is looked at once a week, when a week is over."""
WORDS: Final = {
    "auc": "AUC",
    "brier": "Brier score",
    "c_index": "C index",
    "diameter_covered": "Intervals of the diameter that hold the truth, share",
    "ece": "Calibration error (ECE)",
    "f1": "F1",
    "model_dice": "Dice, model with each reader",
    "model_long_axis_mm": "Long axis, mm apart, model and each reader",
    "of_true": "Part of the true hazard's C index",
    "readers_dice": "Dice, reader with reader",
    "readers_long_axis_mm": "Long axis, mm apart, reader and reader",
    "readers_volume_cv": "Volume, coefficient of variation between readers",
    "recall": "Recall (sensitivity)",
    "true_c_index": "C index of the true hazard",
    "volume_covered": "Intervals of the volume that hold the truth, share",
}
"""Figures whose name does not say it by itself."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family of models."""

    name: str
    """Which models by their purpose."""
    models: tuple[Entry, ...]
    """The one of the release first, then those made here."""
    counts: Entry | None
    """The one that counts."""
    proposed: tuple[Entry, ...]
    """Those that a person may approve."""
    last_refused: Entry | None
    """The newest that the gate did not propose, when nothing newer was proposed."""
    alarms: tuple[DriftAlarm, ...]
    """Those of the last weeks, since a model was last approved or rolled back."""
    can_learn: bool
    """Whether it can be retrained here."""
    last_run: TrainingRun | None
    """Its newest run."""
    is_running: bool
    """Whether that goes on."""
    asked: AskedRun | None
    """A run that a person asked for and that has not begun."""
    next_run: datetime | None
    """When the schedule begins one."""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Masks of people that a family can learn from or be judged on."""

    family: str
    """Which models."""
    masks: int
    """Those that stand now."""
    new: int
    """Of them those that came since the last run that learned began; all when none did."""
    wanted: int
    """New masks without which nothing is trained."""
    by_origin: Mapping[str, int]
    """How many were corrected, approved, drawn."""
    left_out: int
    """What people drew or approved and that is no label, for any family."""


def overview(session: Session, settings: Settings, now: datetime, family: str | None = None) -> list[Family]:
    """Return one family or all, by name. Refuses `no-family`."""
    names = [model_view.require_family(session, family)] if family else model_view.families(session)
    users = {plugin: families_of(plugin, settings) for plugin in drifts.watched(session)}
    return [_family(session, name, now, [p for p, used in users.items() if name in used]) for name in names]


def _family(session: Session, name: str, now: datetime, plugins: list[str]) -> Family:
    models = model_view.entries(session, name)
    made = [one for one in models if isinstance(one.number, int)]
    latest = made[-1] if made else None
    ran = runs.newest(session, name)
    since = max(filter(None, (drifts.promoted_at(session, [name], now), now - ALARMS_OF)))
    return Family(
        name=name,
        models=models,
        counts=next((one for one in models if one.state == "active"), None),
        proposed=tuple(one for one in made if one.state == "proposed"),
        last_refused=latest if latest is not None and latest.state == "refused" else None,
        alarms=drifts.recorded(session, plugins, since),
        can_learn=name in FAMILIES,
        last_run=ran,
        is_running=ran is not None and runs.is_alive(ran, now),
        asked=asked_runs.asked(session, name),
        next_run=next_run(session, name),
    )


def next_run(session: Session, family: str) -> datetime | None:
    """Return when the schedule begins a run of a family; None when it does not."""
    due = session.get(ScheduledJob, f"retrain {family}")
    return datetime.fromtimestamp(due.next_run_time, UTC) if due and due.next_run_time else None


def waiting(session: Session, settings: Settings) -> list[Waiting]:
    """Return the masks that stand for each family that can be retrained; reads every object that people sent."""
    from store.labels import labelled
    from training.labelled_kind import KINDS

    found = labelled(session, ObjectStore(settings.home / "store"), drawn=settings.retrain.drawn)
    told = []
    for family in FAMILIES:
        own = [label for label in found.labels if KINDS[family].why_not(label, None) is None]
        learned = runs.newest(session, family, runs.LEARNED)
        told.append(
            Waiting(
                family=family,
                masks=len(own),
                new=sum(learned is None or label.at >= learned.begun_at for label in own),
                wanted=settings.retrain.fewest_new_labels,
                by_origin=dict(sorted(Counter(label.origin for label in own).items())),
                left_out=len(found.left),
            )
        )
    return told


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of a card, in each of the settings that it was judged in."""

    name: str
    """In words, with the unit."""
    values: tuple[Mapping[str, Any] | None, ...]
    """`value`, and `low` and `high` where there is an interval; by setting."""
    digits: int
    """Decimals that people are shown."""
    scale: float
    """What people are shown, for 1: 100 for per cent."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The figures of one task."""

    task: str
    """segmentation, detection, ..."""
    settings: tuple[str, ...]
    """Head of each column."""
    rows: tuple[Figure, ...]
    """By figure."""


def card_of(session: Session, settings: Settings, family: str, told: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the card of a model that `node.model_view.details` told of; empty when its files are not as they were."""
    try:
        if told["number"] == model_view.SHIPPED:
            return open_shipped(family).card
        one = registry.version_of(session, family, told["number"])
        return open_model(settings.home / one.folder, {one.manifest_sha256}, date.min).card
    except BadModel:
        return {}


def figures_of(card: Mapping[str, Any]) -> list[Figures]:
    """Return the figures of a model's card as tables: whatever holds a `value`, by task, setting and name."""
    said = card.get("figures")
    told = []
    for task, part in said.items() if isinstance(said, dict) else ():
        found = {path: leaf for path, leaf in _leaves(part) if path}
        settings = tuple(dict.fromkeys(" ".join(path[1:-1]) or path[0] for path in found))
        names = dict.fromkeys(path[-1] for path in found)
        by = {(" ".join(path[1:-1]) or path[0], path[-1]): leaf for path, leaf in found.items()}
        rows = tuple(
            _figure(task, name, tuple(by.get((setting, name)) for setting in settings)) for name in names
        )
        if rows:
            heads = tuple(one.replace("_", " ") for one in settings)
            told.append(Figures(task=_words(task), settings=heads, rows=rows))
    return told


def _leaves(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    if isinstance(value, dict):
        if isinstance(value.get("value"), (int, float)):
            yield path, value
        else:
            for key, inner in value.items():
                yield from _leaves(inner, (*path, key))


def _figure(task: str, name: str, values: tuple[Mapping[str, Any] | None, ...]) -> Figure:
    from training.evaluate.drawn import TOLD

    told = next((one for one in TOLD if one.name == name and task == "segmentation"), None)
    if told is None:
        return Figure(name=_words(name), values=values, digits=3, scale=1.0)
    return Figure(name=told.words, values=values, digits=told.digits, scale=told.scale)


def _words(name: str) -> str:
    return WORDS.get(name) or name[:1].upper() + name[1:].replace("_", " ")


__all__ = [
    "Family",
    "Figure",
    "Figures",
    "Waiting",
    "card_of",
    "figures_of",
    "next_run",
    "overview",
    "waiting",
]
