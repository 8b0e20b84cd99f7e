"""What a run learns from and what it judges on: the labels that stand now, on the side of the person who each is of.

The hold-out only grows by persons who are new to it, and loses those who turned out to stand on both sides: a person
whom earlier runs judged on keeps the cases that they had, whatever was drawn of him since.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from plugins.errors import Refused, Unavailable
from store import runs
from store.database import Database
from store.file_hash import sha256_of
from store.labels import Left, labelled
from store.objects import ObjectStore
from store.sides import JUDGE, LEARN, Sides, assign, salt_of
from training import frozen
from training.collect import collect
from training.curate.case_files import write_data_set
from training.frozen import Gathered
from training.labelled_kind import KINDS
from training.manifest import Case, read_manifest


def gather(
    database: Database,
    objects: ObjectStore,
    home: Path,
    family: str,
    folder: Path,
    learned: Collection[str],
    *,
    drawn: bool = False,
) -> Gathered:
    """Return what was collected into the folders `learn` and `judge` of a run's folder, patients apart.

    `home` is the folder of the node; `learned` are the keys `held_out` of the champion's card; with `drawn` also
    lesions that Nadir missed are learned from. Refuses `unknown-family`, and `changed-file` when what earlier runs left
    was changed or is missing; raises Unavailable when something cannot be written.
    """
    judge_folder = folder / frozen.JUDGE
    with database.reading() as session:
        found = labelled(session, objects, drawn=drawn)
        earlier = [home / run.folder for run in runs.list_runs(session, family, runs.LEARNED) if run.folder]
    labels = [label for label in found.labels if KINDS[family].why_not(label, None) is None]
    with database.transaction() as session:
        pks = {label.patient_pk for label in labels}
        sides = assign(session, pks, salt=salt_of(home), now=database.now(), learned=learned)
    kept = _kept(earlier[::-1], sides, judge_folder)
    known = {case.patient_id for case in kept}
    stand = [(label, sides.of(label.patient_key)) for label in labels]
    there: dict[str | None, set[object]] = {
        LEARN: _series(kept),
        JUDGE: _series(frozen.learned_before(earlier)),
    }
    on = [(label, side) for label, side in stand if label.series_instance_uid not in there.get(side, ())]
    new = [label for label, side in on if side == JUDGE and sides.person[label.patient_key] not in known]
    with database.reading() as session:
        learn_from = [label for label, side in on if side == LEARN]
        learn = collect(session, objects, learn_from, folder / frozen.LEARN, family)
        judge = collect(session, objects, new, judge_folder, family)
    judged = judge.manifest
    if kept:
        cases = [*kept, *(judged.cases if judged else ())]
        judged = write_data_set(judge_folder, family, cases, {case.patient_id: case.fold for case in cases})
    told = [_words(left) for left in (*found.left, *learn.left, *judge.left)]
    if neither := sum(side not in (LEARN, JUDGE) for _, side in on):
        told.append(f"{neither} masks are of persons who stand on neither side")
    if moved := len(stand) - len(on):
        told.append(f"{moved} masks lie on images that had another patient, on the other side")
    if kept:
        told.append(f"the hold-out keeps {len(kept)} cases of {len(known)} persons as earlier runs had them")
    return Gathered(learn=learn.manifest, judge=judged, told=tuple(told), people=sides.several)


def _words(left: Left) -> str:
    return f"{left.sentence} (object {left.sop_instance_uid})" if left.sop_instance_uid else left.sentence


def _series(cases: Collection[Case]) -> set[object]:
    """Return the series of the images of cases: they stay what they are when a study gets another patient."""
    return {case.tags.get(frozen.SERIES) for case in cases}


def _kept(runs_before: Collection[Path], sides: Sides, folder: Path) -> list[Case]:
    """Return the cases of the newest hold-out that is there, of persons who are still judged on, with their files.

    Refuses `changed-file`, and what `read_manifest` refuses.
    """
    for before in (run / frozen.JUDGE for run in runs_before):
        if not before.is_dir():
            continue
        todo = f"bring {before} back from another backup, or remove it: then the hold-out before it, if any, is kept"
        try:
            manifest = read_manifest(before / frozen.MANIFEST)
        except Refused as refused:
            raise Refused(refused.code, f"{refused.sentence}; {todo}") from refused
        kept = [
            replace(case, patient_id=sides.person[case.patient_id])  # two who turned out to be one are one
            for case in manifest.cases
            if sides.of(case.patient_id) == JUDGE
        ]
        for case in kept:
            for role, path in case.files.items():
                if is_there := (before / path).is_file():
                    _bring(before / path, folder / path)
                if not is_there or sha256_of(folder / path) != case.sha256[role]:
                    sentence = f"{before / path} is not the file that earlier runs judged on; {todo}"
                    raise Refused("changed-file", sentence)
        return kept
    return []


def _bring(source: Path, target: Path) -> None:
    """Let a file be in another folder too: the same file where the disk allows that, else a copy."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
    except OSError as error:
        raise Unavailable(f"{source} cannot be brought to {target.parent} ({error.strerror})") from error


__all__ = ["gather"]
