"""Where a study stands, in words: one stage, why it waits or failed, and how far each analysis is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from node.settings import Settings
from node.web.frame import span
from store.standing import Sent, Standing, Task
from store.tables import Study
from store.worklist import Listed

WORDS = {
    "receiving": ("receiving", "run"),
    "waiting": ("waiting", "wait"),
    "running": ("running", "run"),
    "delivering": ("delivering", "run"),
    "failed": ("failed", "bad"),
    "refused": ("refused", "bad"),
    "parked": ("parked", "plain"),
    "done": ("done", "good"),
    "earlier": ("earlier study", "plain"),
    "superseded": ("superseded", "plain"),
}
"""What each stage is called, and the tone of its chip."""
HELD = {
    "priors": "waits for earlier studies of the patient that were asked for",
    "arriving": "waits for an earlier study of the patient that is being received",
    "order": "waits for the same analysis of an earlier study, so that lesions keep their identity",
    "report": "waits for the other analyses of the patient",
}
"""What keeps a job from beginning, by the names of `store.turn.reasons`."""
ORDER = ("failed", "refused", "running", "waiting", "delivering", "parked")
"""Which stage of its analyses is that of the study: what needs a person first."""


@dataclass(frozen=True, kw_only=True)
class Staged:
    """What stands at a stage."""

    stage: str
    """A key of `WORDS`."""

    @property
    def word(self) -> str:
        """Return what its stage is called."""
        return WORDS[self.stage][0]

    @property
    def tone(self) -> str:
        """Return the tone of its chip."""
        return WORDS[self.stage][1]


@dataclass(frozen=True, kw_only=True)
class TaskSaid(Staged):
    """One analysis in words."""

    job: int
    """Number of its job."""
    plugin: str
    """The analysis."""
    why: tuple[str, ...]
    """Sentences: why it waits or failed, how far it is, what it refused."""
    elapsed_seconds: float | None
    """How long it has run; None when it does not."""
    usual_seconds: float | None
    """How long it usually takes here; None when that is not known."""
    findings: int
    """Findings that count."""
    run: int
    """How often it was asked for again."""
    sent: tuple[Sent, ...]
    """Where its results go."""
    may: tuple[str, ...]
    """What a person may do with it: retry, rerun, park, unpark, send."""


@dataclass(frozen=True, kw_only=True)
class StudySaid(Staged):
    """One study in words."""

    why: tuple[str, ...]
    """Sentences: why it waits or failed, what is to come."""
    tasks: tuple[TaskSaid, ...]
    """Its analyses."""
    may: tuple[str, ...]
    """What a person may do with it: park, unpark, settle."""

    @property
    def running(self) -> TaskSaid | None:
        """Return the analysis that runs, the first of several."""
        return next((task for task in self.tasks if task.stage == "running"), None)


def said(listed: Listed, now: datetime, settings: Settings) -> StudySaid:
    """Return where one study stands."""
    study, standing = listed.study, listed.standing
    tasks = tuple(task_said(task, now, is_parked=study.parked_at is not None) for task in standing.tasks)
    if study.prior:
        stage, why = "earlier", ["only here as an earlier study of the patient; not analysed by this node"]
    elif study.state == "receiving":
        stage, why = "receiving", _receiving(study, standing, now, settings)
    else:
        stages = {task.stage for task in tasks}
        stage = next((one for one in ORDER if one in stages), "done")
        why = _told(stage, tasks)
        if not tasks:
            why = ["no analysis applies to what it holds" if study.revision else "nothing was analysed yet"]
    if study.parked_at is not None:
        stage, why = (
            "parked",
            [f"parked {_by(study.parked_by)} {span(now - study.parked_at)} ago; nothing of it runs"],
        )
    may = ("unpark",) if study.parked_at is not None else () if study.prior else ("park",)
    if study.state == "receiving" and not study.prior and not study.settle_now:
        may = (*may, "settle")
    return StudySaid(stage=stage, why=(*why, *_past(study, standing, now)), tasks=tasks, may=may)


def task_said(task: Task, now: datetime, *, is_parked: bool = False) -> TaskSaid:
    """Return how far one analysis is."""
    job = task.job
    elapsed = max(0.0, (now - job.started_at).total_seconds()) if job.started_at else None
    refusals = [sentence for _, sentence in task.refused]
    stage = {"queued": "waiting", "dead": "failed"}.get(job.state, job.state)
    why: list[str] = []
    if job.state == "queued":
        why = _queued(task, now)
    elif job.state == "running":
        why = [_running(elapsed or 0.0, task.usual_seconds)]
        why += [f"attempt {job.attempt} of {job.max_attempts}"] if job.attempt > 1 else []
    elif job.state == "parked":
        why = [f"parked {_by(job.owner)}; it does not run until it is unparked"]
    elif job.state == "dead":
        is_refused = any(code == job.error_code for code, _ in task.refused)
        stage = "refused" if is_refused else "failed"
        why = [_sentence(job.error_text or "no reason was kept", job.error_code)]
        why += (
            [] if is_refused else [f"given up after {job.attempt} attempt{'' if job.attempt == 1 else 's'}"]
        )
    elif job.state == "superseded":
        why = [job.error_text or "another job does its work"]
    if any(one.parked for one in task.sent) and stage in ("done", "delivering"):
        stage = "failed"
    if job.state != "dead":
        why += [f"not accepted: {sentence}" for sentence in dict.fromkeys(refusals)]
    why += [_sending(one) for one in task.sent if one.delivered < one.total]
    may = {
        "dead": ("retry",),
        "queued": ("park",),
        "running": ("park",),
        "done": ("rerun",),
        "delivering": ("rerun",),
    }
    mine = may.get(job.state, () if is_parked or job.state != "parked" else ("unpark",))
    return TaskSaid(
        job=int(job.id or 0),
        plugin=job.plugin,
        stage=stage,
        why=tuple(why),
        elapsed_seconds=elapsed if job.state == "running" else None,
        usual_seconds=task.usual_seconds,
        findings=task.findings,
        run=job.run,
        sent=task.sent,
        may=(*mine, "send") if any(one.parked for one in task.sent) else mine,
    )


def _receiving(study: Study, standing: Standing, now: datetime, settings: Settings) -> list[str]:
    held = f"{standing.images} images so far"
    quiet = study.last_arrival_at + timedelta(seconds=settings.quiet_seconds) - now
    cap = study.first_arrival_at + timedelta(seconds=settings.hard_cap_seconds) - now
    if cap <= timedelta(0):
        return [f"{held}; it settles now, because it has been coming for {span(settings.hard_cap_seconds)}"]
    if standing.is_open:
        return [f"{held}; who sends it is still connected"]
    if study.settle_now or quiet <= timedelta(0):
        return [f"{held}; it settles now"]
    return [f"{held}; it settles when nothing more comes for {span(quiet + timedelta(seconds=1))}"]


def _told(stage: str, tasks: tuple[TaskSaid, ...]) -> list[str]:
    """Return what is said of the study: the sentences of the analyses that its stage is of."""
    of_stage = [task for task in tasks if task.stage == stage]
    told = [f"{task.plugin}: {sentence}" for task in of_stage for sentence in task.why[:2]]
    if stage == "done":
        found = sum(task.findings for task in tasks)
        told = [f"{found} finding{'' if found == 1 else 's'}", *told]
    if len(of_stage) > 2:
        names = ", ".join(task.plugin for task in of_stage)
        first = dict.fromkeys(task.why[0] for task in of_stage if task.why)
        told = told if stage == "done" else [f"{names}: {'; '.join(first)}"]
    return list(dict.fromkeys(told))


def _past(study: Study, standing: Standing, now: datetime) -> list[str]:
    """Return what else is to be known: earlier studies, the PACS, earlier revisions."""
    told: list[str] = []
    if standing.priors_waiting:
        told.append(f"{standing.priors_waiting} searches or earlier studies of the patient are still to come")
    told += [f"earlier studies were given up: {why}" for why in standing.priors_parked[:1]]
    if (pull := standing.pull) is not None and pull.state == "parked":
        told.append(f"the PACS has more of it, which was given up: {pull.error_text or 'no reason was kept'}")
    elif pull is not None:
        told.append(f"the PACS has more of it, which is fetched{_again(pull.run_after, now)}")
    if study.revision > 1:
        told.append(f"revision {study.revision}: what was found in earlier content is superseded")
    return told


def _queued(task: Task, now: datetime) -> list[str]:
    job = task.job
    if job.run_after > now:
        failed = (
            f"attempt {job.attempt} of {job.max_attempts} failed: {job.error_text}" if job.error_text else ""
        )
        return [f"{failed or 'it pauses'}; it is tried again{_again(job.run_after, now)}"]
    if task.held_by:
        return [HELD[name] for name in task.held_by]
    return [f"place {task.position} in the queue" if task.position else "far back in a long queue"]


def _running(elapsed: float, usual: float | None) -> str:
    if usual is None:
        return f"{span(elapsed)} so far; how long it takes here is not known yet"
    if elapsed > usual:
        return f"{span(elapsed)} so far, longer than the usual {span(usual)}"
    return f"{span(elapsed)} of about {span(usual)}, as it usually takes here"


def _sending(one: Sent) -> str:
    told = f"{one.delivered} of {one.total} delivered to {one.destination}"
    if one.abandoned:
        told += f", {one.abandoned} given up"
    if one.parked:
        return f"{told}, {one.parked} parked: {one.error or 'a person has to look after it'}"
    return f"{told}: {one.error}; it is tried again" if one.error else told


def _again(at: datetime, now: datetime) -> str:
    return f" in {span(at - now)}" if at > now else " now"


def _sentence(text: str, code: str | None) -> str:
    return f"{text.rstrip('.')} ({code})" if code else text


def _by(who: str | None) -> str:
    return f"by {who}" if who else "by a person"


__all__ = ["HELD", "WORDS", "StudySaid", "TaskSaid", "said", "task_said"]
