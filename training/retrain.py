"""One run of retraining, from labels to a proposal. It promotes nobody.

    collecting   labels -> `gather` -> too few: end; else the data are frozen (`training.frozen`)
    fitting      each network learns on from the champion's of the same fold (`training.challenger`)
    judging      champion and challenger on the same hold-out (`training.challenge`), documents, then, in one
                 transaction, the model in the registry and the end of the run

Killed at any place, the registry is as it was. The next run goes on with the data and the checkpoints that a killed one
left, or one that found the disk full, when it would have frozen the very same and all of it is there, also in a home
that lies elsewhere now; it removes them otherwise and begins anew.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from models.files import BadModel
from models.place import open_current
from models.shipped import Model
from plugins.errors import NadirError, Refused, Unavailable
from store import registry, runs
from store.database import Database
from store.failpoint import reach
from store.model_folders import stage, unnamed
from store.runs import State
from store.sides import sides
from training.challenger import FIT, learn, pack
from training.frozen import (
    JUDGE,
    Frozen,
    Gathered,
    fold_of,
    freeze,
    is_same,
    learned_before,
    mask_of,
    require_apart,
    require_whole,
)
from training.gate import APPROVED
from training.image_owners import one_patient_each
from training.manifest import Case, DataManifest
from training.pulse import Pulse
from training.recipe import Recipe
from training.replay import is_replayed

if TYPE_CHECKING:
    from sqlmodel import Session

    from store.model_tables import ModelVersion
    from training.challenge import Challenge
    from training.fit import Progress

FOLDER, PLAN = "training", "plan"
LEASE_SECONDS = 120.0
NOTED_EVERY = 25
"""Steps of the optimiser from one word in the row of the run to the next: people look at it while it goes on."""
OF_ANOTHER = {"another-run", "bad-run"}
"""Refusals of networks that cannot be gone on with: these were begun with other settings, by another release say."""
Gather = Callable[[Path, Model], Gathered]
"""Writes the labels that stand now into the folders `learn` and `judge`, given the champion."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a run ended."""

    number: int
    """Its number."""
    state: State
    """Its last state."""
    said: str
    """Why, in sentences."""
    model: int | None = None
    """Number of the model in the registry, when one was made."""
    left_out: tuple[str, ...] = ()
    """What people drew and could not be learned from, and why."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Retraining:
    """A run of one family."""

    database: Database
    """Of the node."""
    home: Path
    """Folder of the node."""
    recipe: Recipe
    """How is learned and judged."""
    gather: Gather
    """Where the labels come from."""
    owner: str
    """Who runs it: host and process."""
    lease_seconds: float = LEASE_SECONDS
    """How long a run that was killed holds its place."""
    say: Callable[[str], None] = lambda _: None
    """Is told what is being done, in one line."""
    tell: Callable[[Progress], None] = lambda _: None
    """Is told each step of the optimiser."""
    schedule: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Settings of the node that say when it is run, for the documents: value and meaning by name."""
    record: Callable[[Session, ModelVersion], None] = lambda *_: None
    """Is told of the model in the transaction that registers it, for the audit trail."""

    def run(self) -> Ended:
        """Return how the run ended. Refuses `already-running`; raises what ended it otherwise."""
        with self.database.transaction() as session:
            now = self.database.now()
            number = runs.begin(session, self.recipe.family, self.owner, now, self.lease_seconds)
        reach("retrain-begun")
        ended, champion = self._guarded(number)
        if champion is not None:
            self._tell_plan(number, champion)
        return ended

    def _guarded(self, number: int) -> tuple[Ended, Model | None]:
        """Return how it ended, and the champion when another model was judged against it; a failure is written down."""
        try:
            with Pulse(self.database, number, self.owner, self.lease_seconds) as pulse:
                return self._run(number, pulse)
        except runs.Overtaken:
            raise
        except KeyboardInterrupt:
            self._end(number, State.ABANDONED, "It was stopped; the next run goes on with what it left.")
            raise
        except BadModel as bad:
            self._end(number, State.FAILED, bad.sentence)
            raise Refused(bad.code, bad.sentence) from bad
        except (
            Unavailable
        ) as error:  # a full disk, say: what was learned is good, and the next run goes on with it
            self._end(number, State.ABANDONED, str(error))
            raise
        except NadirError as error:
            self._end(number, State.FAILED, str(error))
            raise
        except MemoryError as error:
            said = "It needs more memory than it may use; raise retrain.memory_bytes, or replay fewer cases."
            self._end(number, State.FAILED, said)
            raise Refused("out-of-memory", said) from error
        except OSError as error:
            said = f"The disk or a file failed ({error.strerror or error}); mend that and retrain: it goes on there."
            self._end(number, State.ABANDONED, said)
            raise Unavailable(said) from error
        except Exception as error:
            self._end(number, State.FAILED, f"A fault of its own: {type(error).__name__}.")
            raise

    def _run(self, number: int, pulse: Pulse) -> tuple[Ended, Model | None]:
        champion = self._champion()
        work = self._folder(number)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True, mode=0o700)
        self._doing(number, "collecting what people drew and approved")
        before = self._learned_before()
        gathered = one_patient_each(self.gather(work, champion), before)
        reach("retrain-collected")
        new = _new(gathered, before)
        if (why := self._too_few(gathered, new, champion)) is not None:
            shutil.rmtree(work)
            self._end(number, State.TOO_FEW, why, **self._counts(gathered, new))
            return Ended(number=number, state=State.TOO_FEW, said=why, left_out=gathered.told), None
        frozen = self._frozen(work, gathered, champion)
        pulse.require()
        with self.database.transaction() as session:
            runs.move(
                session,
                number,
                self.owner,
                State.FITTING,
                folder=frozen.folder.relative_to(self.home).as_posix(),
                data_sha256=frozen.learn.sha256,
                judged_sha256=frozen.judge.sha256,
                champion_sha256=champion.manifest.sha256,
                **self._counts(gathered, new),
            )
        reach("retrain-frozen")
        folder = self._challenger(champion, frozen, number, pulse)
        with self.database.transaction() as session:
            runs.move(session, number, self.owner, State.JUDGING)
        reach("retrain-packed")
        self._doing(number, f"judging both on {len(frozen.judge.cases)} masks that neither has seen")
        found = self._challenge(champion, folder, frozen, pulse)
        return self._register(number, folder, frozen, found, gathered.told), champion

    def _champion(self) -> Model:
        with self.database.reading() as session:
            places = registry.active(session, self.home)
        return open_current(self.recipe.family, places)

    def _folder(self, number: int) -> Path:
        return self.home / FOLDER / self.recipe.family / str(number)

    def _learned_before(self) -> tuple[Case, ...]:
        """Return what the runs that ended with a model have learned from."""
        with self.database.reading() as session:
            finished = runs.list_runs(session, self.recipe.family, runs.LEARNED)
        return learned_before([self.home / run.folder for run in finished if run.folder])

    def _counts(self, gathered: Gathered, new: int) -> dict[str, int]:
        return {"labels": len(_cases(gathered.learn)), "new_labels": new}

    def _too_few(self, gathered: Gathered, new: int, champion: Model) -> str | None:
        """Return why nothing is trained, in one sentence; None when there is enough."""
        recipe = self.recipe
        if new < recipe.fewest_new_labels:
            return (
                f"{new} masks to learn from are new since the last run, and {recipe.fewest_new_labels} are asked for: "
                "nothing was trained."
            )
        held = _cases(gathered.judge)
        judged = {case.patient_id for case in held if case.tags.get("origin") != APPROVED}
        if len(judged) < recipe.margins.fewest_patients:
            return (
                f"{len(judged)} patients are on the hold-out with masks that people drew, and the gate needs "
                f"{recipe.margins.fewest_patients}: nothing was trained."
            )
        held_out = champion.card["held_out"]
        folds = {fold_of(case.patient_id, held_out, gathered.people) for case in _cases(gathered.learn)}
        if len(folds) == 1 and folds.issubset(champion.folds):
            return (
                f"All masks to learn from are of patients of fold {min(folds)}, so that its network could learn from "
                "none: nothing was trained."
            )
        return None

    def _frozen(self, work: Path, gathered: Gathered, champion: Model) -> Frozen:
        """Return the frozen data: of a run that was killed when it wanted the same, else as they were collected."""
        held_out = champion.card["held_out"]
        frozen = freeze(work, gathered, self.recipe, champion.manifest.sha256, held_out)
        folders = self._folders(State.ABANDONED, State.FAILED)
        stay, failed = self._folders(*runs.LEARNED), self._folders(State.FAILED)
        for folder in (one for one in reversed(folders) if one not in stay):
            is_next = frozen.folder == work and folder not in failed
            if is_next and is_same(folder, frozen) and self._is_whole(folder, work):
                self.say(f"going on with what {folder.name} left")
                shutil.rmtree(work)
                frozen = Frozen(**{**frozen.__dict__, "folder": folder})
            elif folder.exists():
                shutil.rmtree(folder)
        return frozen

    def _is_whole(self, folder: Path, work: Path) -> bool:
        """Return whether all files are there that a run left; tell what is not."""
        try:
            require_whole(folder, work)
        except Refused as refused:
            self.say(f"beginning anew, not with what {folder.name} left: {refused.sentence}")
            return False
        return True

    def _folders(self, *states: State) -> tuple[Path, ...]:
        """Return the folders of the runs that ended so, each once, oldest first; a later one may have gone on in it."""
        with self.database.reading() as session:
            ended = runs.list_runs(session, self.recipe.family, states)
        found = (self.home / run.folder if run.folder else self._folder(int(run.id or 0)) for run in ended)
        return tuple(dict.fromkeys(found))

    def _challenger(self, champion: Model, frozen: Frozen, number: int, pulse: Pulse) -> Path:
        import torch

        from training.recalibrate import recalibrated

        torch.set_num_threads(self.recipe.threads)

        def tell(now: Progress) -> None:
            pulse.require()
            self.tell(now)
            if now.step % NOTED_EVERY == 0:
                self._note(number, f"fold {now.fold}: step {now.step} of {now.steps}")
            reach("retrain-step")

        of = f"learning from {len(frozen.new)} masks, {len(frozen.replayed)} curated cases beside them"
        self._doing(number, of)
        fitted = partial(
            learn, champion, self.recipe, frozen, tell=tell, done=lambda _: reach("retrain-fold")
        )
        try:
            fitted()
        except Refused as refused:
            if refused.code not in OF_ANOTHER:
                raise
            self.say(f"beginning anew, not with the networks that are left ({refused.code})")
            shutil.rmtree(frozen.folder / FIT)
            fitted()
        self._doing(number, "learning what to doubt")
        doubt = recalibrated(champion, frozen, self.recipe.seed, lambda _: pulse.require())
        return pack(champion, self.recipe, frozen, number, doubt)

    def _challenge(self, champion: Model, folder: Path, frozen: Frozen, pulse: Pulse) -> Challenge:
        from training.challenge import challenge
        from training.evaluate.data import Data
        from training.evaluate.families import open_subject

        hold_out = Data(manifest=frozen.judge, root=frozen.folder / JUDGE)
        subjects = [open_subject(str(place)) for place in (champion.folder, folder)]
        return challenge(
            subjects[0],
            subjects[1],
            hold_out,
            self.recipe.margins,
            seed=self.recipe.seed,
            progress=lambda _: pulse.require(),
        )

    def _register(
        self, number: int, folder: Path, frozen: Frozen, found: Challenge, left_out: tuple[str, ...]
    ) -> Ended:
        """Write what was found, then let model and end of the run be there at once."""
        from training.plan.run import JUDGED

        found.write(frozen.folder / JUDGED)
        reach("retrain-judged")
        verdict = found.verdict
        with self.database.transaction() as session:
            runs.require_held(session, number, self.owner)
            # Fitting takes long: who was declared one person since then is one.
            require_apart(frozen.learn.cases, frozen.judge.cases, sides(session).several)
            self._sweep(session)
        staged = stage(self.home, self.recipe.family, folder)
        reach("retrain-staged")
        state = State.PROPOSED if verdict.is_proposed else State.REFUSED
        judged = registry.Judged(
            champion_sha256=frozen.champion_sha256,
            is_proposed=verdict.is_proposed,
            because=verdict.because,
            data_sha256=frozen.learn.sha256,
            judged_sha256=frozen.judge.sha256,
            figures=verdict.plain(),
        )
        with self.database.transaction() as session:
            now = self.database.now()
            runs.require_held(session, number, self.owner)
            model = registry.register(session, staged, judged, now=now, run_pk=number)
            self.record(session, model)
            reach("retrain-registered")
            runs.end(session, number, self.owner, state, verdict.because, now)
        reach("retrain-ended")
        said = verdict.because
        return Ended(number=number, state=state, said=said, model=model.number, left_out=left_out)

    def _sweep(self, session: Session) -> None:
        """Remove the folders of models that killed runs of this family left before any row named them."""
        named = [version.folder for version in registry.versions(session)]
        for folder in unnamed(self.home, named):
            if Path(folder).parent.name == self.recipe.family:
                shutil.rmtree(self.home / folder, ignore_errors=True)

    def _tell_plan(self, number: int, champion: Model) -> None:
        """Write the documents of the plan, with what this run found, into its folder."""
        from training.plan.plan import write_plan
        from training.plan.run import told_run

        with self.database.reading() as session:
            told = told_run(session, self.home, self.recipe.family, number)
            folder = self.home / runs.get(session, number).folder / PLAN
        write_plan(
            champion, self.recipe, folder, made_at=self.database.now(), schedule=self.schedule, run=told
        )

    def _doing(self, number: int, text: str) -> None:
        """Tell what is being done, also whoever looks at the row of the run."""
        self.say(text)
        self._note(number, text)

    def _note(self, number: int, text: str) -> None:
        with self.database.transaction() as session:
            runs.note(session, number, self.owner, said=text)

    def _end(self, number: int, state: State, said: str, **values: int) -> None:
        with self.database.transaction() as session:
            runs.end(session, number, self.owner, state, said, self.database.now(), **values)


def _new(gathered: Gathered, before: Collection[Case]) -> int:
    """Return how many masks were not learned from before."""
    known = {mask_of(case) for case in before if not is_replayed(case)}
    return sum(mask_of(case) not in known for case in _cases(gathered.learn))


def _cases(manifest: DataManifest | None) -> tuple[Case, ...]:
    return manifest.cases if manifest else ()


__all__ = ["Ended", "Gather", "Retraining"]
