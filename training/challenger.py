"""From the champion and frozen data to a challenger: each network learns on from the champion's of the same fold."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.shipped import CARD, Model
from plugins.errors import Refused
from training.experiment import Experiment, Schedule
from training.frozen import LEARN, Frozen
from training.recipe import Recipe
from training.replay import SHARE, TaskOn, replaying
from training.ship import About, ship

if TYPE_CHECKING:
    from training.fit import Progress

FIT, MODEL = "fit", "model"
WARM_UP = 0.1
"""Part of the steps in which the learning rate rises."""
CHECKPOINTS = 20
"""Into how many parts a fold's training is cut by checkpoints, at most `Schedule.save_every` steps each."""
KEPT = ("levels", "level", "mirrors", "doubt", "usual_log_hazard", "calibration", "trees", "reported")
"""Parts of a card that were decided on cases that the deciding network had not seen, and that stay the champion's."""


def task_on_of(family: str) -> TaskOn:
    """Return what makes the task of a family. Refuses `unknown-family`."""
    if family == "nodule_segmenter":
        from training.nodule_task import task_on

        return task_on
    if family == "petct_multitask":
        from training.petct_masks import task_on as masks_on

        return masks_on
    raise Refused("unknown-family", f"nobody knows how to retrain '{family}'")


def experiment_of(champion: Model, recipe: Recipe, has_replay: bool) -> Experiment:
    """Return the champion's experiment with a shorter and slower schedule that begins at its weights.

    Refuses `bad-card` when the card does not say how the champion was trained.
    """
    try:
        plain: dict[str, Any] = dict(champion.card["experiment"])
        known = {field.name for field in fields(Schedule)}
        schedule = {name: value for name, value in plain["schedule"].items() if name in known}
        task = {name: value for name, value in plain["task"].items() if name not in ("share", SHARE)}
        if has_replay:
            task[SHARE] = recipe.replay_share
        schedule |= {
            "steps": recipe.steps,
            "batch": recipe.batch,
            "learning_rate": recipe.learning_rate,
            "warm_up": max(1, round(WARM_UP * recipe.steps)),
            "save_every": max(1, min(100, recipe.steps // CHECKPOINTS)),
            "judge_every": recipe.steps,
        }
        return Experiment(
            name=recipe.family,
            model=plain["model"],
            seed=recipe.seed,
            folds=champion.folds,
            architecture=plain["architecture"],
            schedule=Schedule(**schedule),
            task=task,
            init_from=str(champion.folder),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise Refused(
            "bad-card", f"the card of {champion.manifest.name} does not say how it was trained ({error!r})"
        ) from error


def learn(
    champion: Model,
    recipe: Recipe,
    frozen: Frozen,
    *,
    tell: Callable[[Progress], None] = lambda _: None,
    done: Callable[[int], None] = lambda _: None,
) -> Path:
    """Return the folder with the networks of all folds; what is there already is not learned again.

    Refuses `diverged`.
    """
    from training.fit import fit

    experiment = experiment_of(champion, recipe, bool(frozen.replayed))
    run, task_on = frozen.folder / FIT, task_on_of(recipe.family)
    for fold in experiment.folds:
        place = run / f"fold{fold}"
        if not (place / f"fold{fold}.safetensors").is_file():
            fit(
                experiment,
                fold,
                replaying(experiment, fold, frozen.folder / LEARN, task_on),
                place,
                tell=tell,
                keeps_folds=True,
            )
        _require_finite(place / f"fold{fold}.safetensors", fold)
        done(fold)
    return run


def _require_finite(weights: Path, fold: int) -> None:
    from safetensors.numpy import load_file

    numbers = load_file(weights).values()
    if not all(np.isfinite(one).all() for one in numbers if one.dtype.kind == "f"):
        sentence = f"weights of fold {fold} are no numbers any more; set a lower retrain.learning_rate"
        raise Refused("diverged", sentence)


def pack(
    champion: Model, recipe: Recipe, frozen: Frozen, number: int, doubt: Mapping[str, Any] | None = None
) -> Path:
    """Return the folder of the challenger as a model, whose card tells what is new and what is the champion's.

    `doubt` replaces the champion's temperature and intervals when it is given.
    """
    folder = frozen.folder / MODEL
    shutil.rmtree(folder, ignore_errors=True)
    card, said = champion.card, champion.manifest
    first = card.get("retrained", {}).get(
        "first", {"training_data": said.training_data, "limits": card.get("limits", [])}
    )
    about = About(
        name=said.name,
        version=f"{said.version.partition('+')[0]}+{number}",
        licence=said.licence,
        training_data=f"{first['training_data']} {_learned_from(champion, recipe, frozen)}",
        input=said.input,
        intended_use=str(card["intended_use"]),
        limits=(*first["limits"], *_limits(champion, frozen, doubt is None)),
    )
    decided = {name: card[name] for name in KEPT if name in card} | (
        {} if doubt is None else {"doubt": doubt}
    )
    decided["retrained"] = {
        "first": first,  # what was said before any retraining: each says its own beside it, and not that of others
        "champion": {"version": said.version, "sha256": said.sha256},
        "new_cases": len(frozen.new),
        "replayed_cases": len(frozen.replayed),
        "judged_sha256": frozen.judge.sha256,
    }
    held_out: Mapping[str, int] = card["held_out"]
    ship(frozen.folder / FIT, frozen.learn, folder, about, decided, {}, held_out, beside_networks(champion))
    return folder


def beside_networks(champion: Model) -> dict[str, dict[str, NDArray[np.generic]]]:
    """Return what lies beside the champion's networks: it stays as it is, like what was decided."""
    networks = {CARD, *(f"fold{fold}.safetensors" for fold in champion.folds)}
    return {name: champion.numbers(name) for name in sorted(set(champion.manifest.files) - networks)}


def _has_made(champion: Model) -> bool:
    """Return whether a part of the samples is of lesions that a program made, as the champion's experiment has it."""
    task = champion.card["experiment"]["task"]
    return bool(task.get("made")) and bool(task.get("made_share"))


def _learned_from(champion: Model, recipe: Recipe, frozen: Frozen) -> str:
    """Return the sentence that says what was learned from since the champion."""
    patients = len({case.patient_id for case in frozen.new})
    new = f"Then {len(frozen.new)} masks of {patients} patients of this site, drawn or approved by people"
    if _has_made(champion):
        new += ", with made lesions beside them"
    if not frozen.replayed:
        return f"{new}."
    return f"{new}, and {recipe.replay_share:.0%} of the samples from {len(frozen.replayed)} curated cases again."


def _limits(champion: Model, frozen: Frozen, keeps_doubt: bool) -> tuple[str, ...]:
    """Return what is to be known of the champion's parts on new weights, and of what is not shown again."""
    card, version = champion.card, champion.manifest.version
    doubt = keeps_doubt and "doubt" in card
    what = "Levels, temperature and the quantiles of its intervals" if doubt else "Levels"
    if "trees" in card:
        what = "Trees and calibration"
    found = [
        f"{what} are those of version {version}; how they fit these weights was judged on the hold-out alone."
    ]
    if "usual_log_hazard" in card:
        found.append(
            "The survival head was not trained again, for nobody knows how these patients fared; the features that it "
            f"reads were, so the log hazard is not that of version {version}, and nothing was judged of it."
        )
    if not frozen.replayed:
        alone = "new masks and made lesions" if _has_made(champion) else "new masks"
        found.append(
            f"It learned on from {alone} alone: no patient of the earlier data was shown to it again."
        )
    return tuple(found)


__all__ = ["FIT", "KEPT", "MODEL", "beside_networks", "experiment_of", "learn", "pack", "task_on_of"]
