"""The data of a run of retraining, frozen: what is learned from and what is judged on, each a data set of its own.

    <run>/learn/    new cases, and `replay0` ... that lead to curated data sets; `manifest.json` names all of them
    <run>/judge/    the hold-out
    <run>/frozen.json   written last: hashes of both, of the champion and of the recipe

A person whom the champion knows stays in the fold in which he was held out; a new one gets the fold that the hash of
his key gives him, so that it is the same in every later run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from plugins.errors import Refused
from store.patient_key import fold_of_patient, patient_key
from training.evaluate.data import open_data, open_learnable
from training.image_owners import Owners
from training.labelled_kind import KINDS
from training.manifest import FOLDS, Case, DataManifest, read_manifest
from training.recipe import Recipe
from training.replay import REPLAY, is_replayed

if TYPE_CHECKING:
    pass

KEY = re.compile(r"[0-9a-f]{16}")
LEARN, JUDGE, FROZEN, MANIFEST = "learn", "judge", "frozen.json", "manifest.json"
SERIES = "series_instance_uid"
"""Tag of a case that names the series of its images."""
People = Mapping[str, tuple[str, ...]]
"""The keys of all identifiers of a person, first the one that came first, by each; who is missing has one."""
NOBODY: People = {}


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """What was collected into the folders `learn` and `judge`; None where nothing was."""

    learn: DataManifest | None
    """Cases of persons that are learned from."""
    judge: DataManifest | None
    """Cases of persons that are judged on."""
    told: tuple[str, ...] = ()
    """What was left out, and why."""
    people: People = field(default_factory=dict)
    """Persons with several identifiers."""


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """The data of a run."""

    folder: Path
    """Where it lies."""
    learn: DataManifest
    """What is learned from, with what is replayed."""
    judge: DataManifest
    """The hold-out."""
    champion_sha256: str
    """Manifest hash of the model that is begun with and held against."""
    recipe_sha256: str
    """Hash of how is learned and judged."""

    @property
    def new(self) -> tuple[Case, ...]:
        """Return the cases that people drew here."""
        return tuple(case for case in self.learn.cases if not is_replayed(case))

    @property
    def replayed(self) -> tuple[Case, ...]:
        """Return the cases of curated data sets."""
        return tuple(case for case in self.learn.cases if is_replayed(case))

    def says(self) -> dict[str, str]:
        """Return what two runs must have in common for one to go on where the other was killed."""
        return {
            "learn_sha256": self.learn.sha256,
            "judge_sha256": self.judge.sha256,
            "champion_sha256": self.champion_sha256,
            "recipe_sha256": self.recipe_sha256,
        }


def freeze(
    folder: Path, gathered: Gathered, recipe: Recipe, champion_sha256: str, held_out: Mapping[str, int]
) -> Frozen:
    """Return the data of a run after its manifests were written; `held_out` is that of the champion's card.

    Refuses what `require_apart` does, and what `open_data` refuses of a data set that is replayed; of those, cases of
    other families and persons of the hold-out are left out, under whatever identifier, or known by their images, and
    cases with the images of another patient.
    """
    assert gathered.learn is not None and gathered.judge is not None
    people, hold_out = gathered.people, gathered.judge.cases
    require_apart(gathered.learn.cases, hold_out, people)
    cases = list(gathered.learn.cases)
    held, owners = Owners(hold_out), Owners(cases)
    for number, place in enumerate(recipe.replay):
        own = _replayed(folder / LEARN, f"{REPLAY}{number}", place, KINDS[recipe.family].image_role)
        series = {case.tags.get(SERIES) for case in hold_out} - {None}
        judged = _among(own, hold_out, people) | {c.patient_id for c in own if c.tags.get(SERIES) in series}
        judged |= {case.patient_id for case in own if held.other(case) is not None}
        cases += owners.apart(case for case in own if case.patient_id not in judged)
    folded = (replace(case, fold=fold_of(case.patient_id, held_out, people)) for case in cases)
    cases = sorted(folded, key=lambda case: case.case_id)
    learn = DataManifest(name=gathered.learn.name, cases=tuple(cases))
    learn.write(folder / LEARN / MANIFEST)
    gathered.judge.write(folder / JUDGE / MANIFEST)
    found = Frozen(
        folder=folder,
        learn=learn,
        judge=gathered.judge,
        champion_sha256=champion_sha256,
        recipe_sha256=sha256_of_recipe(recipe),
    )
    half = folder / f"{FROZEN}.half"
    half.write_text(json.dumps(found.says(), indent=1) + "\n")
    os.replace(half, folder / FROZEN)
    return found


def require_apart(learn: Collection[Case], hold_out: Collection[Case], people: People) -> None:
    """Refuse when a person (`patient-on-both-sides`) or an image (`image-of-two-patients`) is judged on and learned."""
    if both := sorted(_among(learn, hold_out, people)):
        raise Refused("patient-on-both-sides", f"patient {both[0]} is on the hold-out and learned from")
    owners = Owners(hold_out)
    for case in learn:
        if (other := owners.other(case)) is not None:
            raise Refused(
                "image-of-two-patients",
                f"an image of {case.case_id} that is learned from is also one of patient {other} on the hold-out; "
                "retrain, which leaves one of them out",
            )


def is_same(folder: Path, frozen: Frozen) -> bool:
    """Return whether a folder holds the whole data of a run that wanted the very same."""
    try:
        said = json.loads((folder / FROZEN).read_text())
        kept = {
            "learn_sha256": read_manifest(folder / LEARN / MANIFEST).sha256,
            "judge_sha256": read_manifest(folder / JUDGE / MANIFEST).sha256,
        }
    except (OSError, ValueError, Refused):
        return False
    wanted = frozen.says()
    return said == wanted and all(wanted[name] == value for name, value in kept.items())


def require_whole(folder: Path, made: Path) -> None:
    """Refuse (`missing-files`) a folder that lacks files of its cases; links are made again as in that just `made`.

    A home that was restored or moved has none, or they lead to where the curated data lay before.
    """
    for link in (made / LEARN).glob(f"{REPLAY}*"):
        _lead(folder / LEARN / link.name, link.readlink())
    for side in (LEARN, JUDGE):
        open_data(folder / side)


def learned_before(folders: Collection[Path]) -> tuple[Case, ...]:
    """Return the cases that earlier runs learned from; a folder that is gone had none."""
    found: list[Case] = []
    for folder in folders:
        with suppress(Refused):
            found += read_manifest(folder / LEARN / MANIFEST).cases
    return tuple(found)


def mask_of(case: Case) -> str:
    """Return the hash of the mask of a case, and of whose it is: what makes a label new or known."""
    return f"{case.patient_id} {case.case_id} {case.sha256['mask']}"


def sha256_of_recipe(recipe: Recipe) -> str:
    """Return the hash of everything that a recipe says but how busy the machine may be."""
    return hashlib.sha256(
        json.dumps(asdict(replace(recipe, threads=1)), sort_keys=True, default=str).encode()
    ).hexdigest()


def fold_of(patient_id: str, held_out: Mapping[str, int], people: People = NOBODY) -> int:
    """Return the fold in which a person is held out, under any of his identifiers (`Gathered.people`)."""
    keys = _keys(patient_id, people)
    folds = (fold_of_patient(key, held_out) for key in keys)
    return next((fold for fold in folds if fold is not None), int(keys[0], 16) % FOLDS)


def _keys(patient_id: str, people: People) -> tuple[str, ...]:
    """Return what may stand for a person: the keys of his identifiers, and, of a name that looks like one, its own."""
    key = patient_id if KEY.fullmatch(patient_id) else patient_key(patient_id)
    twice = patient_key(key)
    known = people.get(key) or people.get(twice)
    return (key, twice) if known is None else known


def _among(cases: Collection[Case], hold_out: Collection[Case], people: People) -> set[str]:
    """Return the patients of cases who are on a hold-out, by any identifier."""
    judged = {key for case in hold_out for key in _keys(case.patient_id, people)}
    return {case.patient_id for case in cases if not judged.isdisjoint(_keys(case.patient_id, people))}


def _replayed(learn: Path, name: str, place: Path, image_role: str) -> list[Case]:
    """Return the cases of a curated data set with images of a role, by a link in the folder of the new ones."""
    opened = open_learnable(place)
    _lead(learn / name, opened.root.absolute())
    return [
        replace(
            case,
            case_id=f"{name}_{case.case_id}",
            files={role: f"{name}/{path}" for role, path in case.files.items()},
        )
        for case in opened.manifest.cases
        if {image_role, "mask"} <= case.files.keys()
    ]


def _lead(link: Path, to: Path) -> None:
    """Let a link lead to a folder, whatever was there before."""
    if link.is_dir() and not link.is_symlink():  # as copied with what it led to
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(to, target_is_directory=True)


__all__ = [
    "SERIES",
    "Frozen",
    "Gathered",
    "fold_of",
    "freeze",
    "is_same",
    "learned_before",
    "mask_of",
    "require_apart",
    "require_whole",
    "sha256_of_recipe",
]
