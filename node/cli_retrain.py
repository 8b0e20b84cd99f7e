"""The commands `nadir models retrain` and `nadir models runs`: learning again from what people drew, by hand."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node import printing
from node.cli_options import AsJson, Config, Home, open_database
from node.flags import load_settings
from node.learn_extra import require_learn
from plugins.errors import Refused

if TYPE_CHECKING:
    from sqlmodel import Session

    from models.shipped import Model
    from store.model_tables import ModelVersion
    from training.fit import Progress
    from training.frozen import Gathered

NICE = 19
"""The last to get the processor: analyses come first."""
TOLD_EVERY = 100
"""Steps from one line to the next."""
COLUMNS = {
    "id": "run",
    "family": "model",
    "state": "state",
    "begun": "begun (UTC)",
    "labels": "masks",
    "new_labels": "new",
    "said": "what became of it",
}


def retrain(
    family: Annotated[str, typer.Argument(help="Model by its purpose: nodule_segmenter or petct_multitask.")],
    home: Home = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Let a model learn from what people drew since the last run, and judge it against the one that counts.

    It is proposed or refused, and never used before a person approves it (nadir models approve). With too few new
    masks nothing is trained. A run that was killed is gone on with. The exit status is 0 unless the run failed.
    """
    from training.recipe import FAMILIES

    settings = load_settings(config, {"home": home})
    if family not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise Refused("unknown-family", f"nobody knows how to retrain '{family}'; known: {known}")
    require_learn()
    with open_database(home, config) as database, _stoppable():
        from node.cli_plan import schedule_of
        from store.objects import ObjectStore
        from training.gather import gather
        from training.retrain import Retraining

        objects = ObjectStore(settings.home / "store")

        def labels(folder: Path, champion: Model) -> Gathered:
            learned = champion.card["held_out"]
            drawn = settings.retrain.drawn
            return gather(database, objects, settings.home, family, folder, learned, drawn=drawn)

        os.nice(NICE)
        ended = Retraining(
            database=database,
            home=settings.home,
            recipe=settings.retrain.recipe(family),
            gather=labels,
            owner=f"{socket.gethostname()}:{os.getpid()}",
            lease_seconds=settings.retrain.lease_seconds,
            say=lambda text: printing.complain(f"{family}: {text}"),
            tell=_steps(family),
            schedule=schedule_of(settings.retrain),
            record=partial(_record, settings.ae_title),
        ).run()
    if as_json:
        printing.print_json(asdict(ended))
        return
    for left in ended.left_out:
        printing.complain(f"{family}: left out: {left}")
    made = f" as {family} {ended.model}" if ended.model is not None else ""
    printing.say(f"run {ended.number}: {ended.state}{made}. {ended.said}")


def runs(home: Home = None, config: Config = None, as_json: AsJson = False) -> None:
    """List the runs of retraining, oldest first, and when the schedule begins the next ones."""
    with open_database(home, config) as database:
        from sqlmodel import col, select

        from store.model_tables import ScheduledJob
        from store.runs import list_runs

        with database.reading() as session:
            rows = [run.model_dump(mode="json", exclude={"slot"}) for run in list_runs(session)]
            jobs = session.exec(select(ScheduledJob).order_by(col(ScheduledJob.next_run_time)))
            following = [{"job": job.id, "at": _iso(job.next_run_time)} for job in jobs]
    if as_json:
        printing.print_json({"runs": rows, "next": following})
        return
    shown = [{**row, "begun": row["begun_at"][:16].replace("T", " ")} for row in rows]
    if shown:
        printing.print_table(shown, COLUMNS, numbers=("id", "labels", "new_labels"), wrapped=("said",))
    else:
        printing.say("no runs")
    for one in following:
        printing.say(f"next: {one['job']} at {one['at']}")


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _record(ae_title: str, session: Session, model: ModelVersion) -> None:
    """Tell the audit trail, in the transaction that registers a model."""
    from node.audit_events import model_changed
    from store import audit

    what = f"registered, {'proposed' if model.is_proposed else 'refused by the gate'}"
    named, by = f"{model.family}/{model.number}", f"nadir models retrain, run {model.run_pk}"
    message = model_changed(what, named, model.manifest_sha256, by)
    audit.append(session, [(model.made_at, message.xml(model.made_at, ae_title))])


def _steps(family: str) -> Callable[[Progress], None]:
    def tell(now: Progress) -> None:
        if now.step % TOLD_EVERY == 0 or now.step == now.steps:
            step = f"fold {now.fold}: step {now.step} of {now.steps}, loss {now.loss:.4f}"
            printing.complain(f"{family}: {step}")

    return tell


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM end a run as Ctrl-C does, so that the next one need not wait for its lease."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


__all__ = ["retrain", "runs"]
