"""The performer: claims what a worklist offers, tells it how the work goes, and ends it (IHE AIW-I, Task Performer).

Every step begins with a row that says what is to come and can be done again: after a crash the same Transaction UID
asks the same thing, and what the worklist says then counts. What is made goes its usual way whatever the worklist does.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection
from dataclasses import asdict
from datetime import datetime, timedelta
from itertools import islice
from uuid import uuid4
from zoneinfo import ZoneInfo

from pydicom.dataset import Dataset
from sqlmodel import Session

from node import ups
from node.logs import line
from node.pacs import Answered
from node.rest import Rest
from node.settings import Settings
from node.ups_rs import Answer, Outcome, Worklist
from node.workitem_choice import analyses, is_for_us, judge, station_of, urgency
from node.workitem_words import comments, not_done_here, without_study
from node.worklist_faults import NOT_SERVED, Denials, pause_after
from plugins.errors import Broken, Refused, Unavailable
from store import asked, jobs, leases, workitems
from store.database import Database
from store.failpoint import reach
from store.outbox import GIVE_UP
from store.workitems import Workitem

log = logging.getLogger(__name__)

MOST_REFUSALS = 5
MOST_LOOKED_AT = 1000
LEASE_SECONDS = 20.0
"""How long a worklist waits for a process that died; two that work on it at once do no harm, but the same things."""
SILENT_TIMES = 4
"""The worklist hears of a workitem that does not move every so many rounds."""
FOREIGN = "transaction uid"


def transaction_uid() -> str:
    """Return a new Transaction UID (PS3.5 B.2)."""
    return f"2.25.{uuid4().int}"


class Performer:
    """Works off one worklist.

    Parameters
    ----------
    database, worklist, settings
        Of the node, and the worklist that its settings name.
    known
        Analyses that can be asked for.
    owner
        Who holds the worklist: one process of a node at a time does.
    new_uid
        Gives Transaction UIDs.

    """

    def __init__(
        self,
        database: Database,
        worklist: Worklist,
        settings: Settings,
        *,
        known: Collection[str],
        owner: str,
        new_uid: Callable[[], str] = transaction_uid,
    ) -> None:
        self._database = database
        self._worklist = worklist
        self._settings = settings
        self._known = frozenset(known)
        self._owner = owner
        self._new_uid = new_uid
        self._key = settings.worklist.url
        self._every = timedelta(seconds=settings.worklist.seconds)
        self._searched = self._rest = Rest()
        self._outages = 0
        self._failed_searches = 0
        self._denials = Denials(database, self._key)

    def look_now(self) -> None:
        """Have the next round ask the worklist what is new."""
        self._searched = Rest()

    def give_back(self) -> None:
        """Let another process have the worklist at once."""
        with self._database.transaction() as session:
            leases.give_back(session, f"worklist {self._key}", self._owner)

    def tick(self, now: datetime) -> bool:
        """Take each workitem a step further, and claim new ones; returns whether there may be more to do at once.

        A worklist that cannot be reached rests as a whole, and what it does not serve waits for itself; what it
        cancelled, or a person, is stopped all the same.
        """
        with self._database.transaction() as session:
            if not leases.take(session, f"worklist {self._key}", self._owner, now, LEASE_SECONDS):
                return False
            due = workitems.due(session, self._key, workitems.OPEN, now)
        for row in due:
            if row.state == workitems.CANCELLING:
                self._stop_jobs(row, now)
        if self._rest.holds(now):
            return False
        try:
            for row in due:
                self._step(row, now)
            is_more = not self._searched.holds(now) and self._found(now)
        except Unavailable as error:
            self._outages += 1
            pause = pause_after(self._outages)
            self._rest = Rest(now, pause)
            log.warning(line("worklist-rests", seconds=round(pause.total_seconds()), error=str(error)))
            return False
        self._outages, self._rest = 0, Rest()
        return is_more

    def _found(self, now: datetime) -> bool:
        """Search, and return whether anything is to be claimed; a search that is not served waits for itself."""
        try:
            found = self._search(now)
        except (Answered, Refused) as error:
            self._denials.note(None, error, now)
            self._failed_searches += 1
            pause = max(pause_after(self._failed_searches), self._every)
            self._searched = Rest(now, pause)
            log.warning(line("worklist-not-searched", seconds=round(pause.total_seconds()), error=str(error)))
            return False
        self._failed_searches = 0
        self._denials.over(None)
        return found > 0

    def _step(self, row: Workitem, now: datetime) -> None:
        """Take one workitem further. Raises `Unavailable` when the worklist cannot be reached."""
        steps: dict[str, Callable[[Workitem, datetime], None]] = {
            workitems.CLAIMING: self._claim,
            workitems.CLAIMED: self._read,
            workitems.FETCHING: self._tell_fetching,
            workitems.ANALYSING: self._watch,
            workitems.COMPLETING: self._complete,
            workitems.CANCELLING: self._cancel,
        }
        try:
            steps[row.state](row, now)
        except Refused as error:
            is_denied = self._denials.note(row.id, error, now)
            self._failed(row, NOT_SERVED if is_denied else error.code, error.sentence, now)
        except Answered as error:
            self._failed(row, NOT_SERVED, str(error), now)
        except Broken as error:
            self._failed(row, "broken", str(error), now)
        else:
            self._denials.over(row.id)
            if row.error_code == NOT_SERVED:  # as it was read: a step to another state has cleared it already
                with self._database.transaction() as session:
                    workitems.stay(session, row, attempt=0, error_code=None)

    def _search(self, now: datetime) -> int:
        """Write down which workitems are to be claimed; returns how many."""
        self._searched = Rest(now, self._every)
        with self._database.reading() as session:
            room = self._settings.worklist.at_once - workitems.count_open(session)
        if room <= 0:
            return 0
        zone = ZoneInfo(self._settings.time_zone)
        found: dict[str, ups.Step] = {}
        for label in self._settings.worklist.labels or ("",):
            for row in islice(self._worklist.scheduled(label), MOST_LOOKED_AT):
                try:
                    step = ups.read(row, zone)
                except Refused as error:  # one that cannot be read holds no other back
                    log.warning(line("workitem-not-read", code=error.code))
                    continue
                if is_for_us(step, self._settings, self._known, now):
                    found[step.uid] = step
        with self._database.transaction() as session:
            known = workitems.settled_elsewhere(session, self._key, found, now)
            chosen = sorted((s for s in found.values() if s.uid not in known), key=urgency)[:room]
            for step in chosen:
                uid = self._new_uid()
                workitems.begin(session, self._key, step.uid, uid, label=step.label, now=now)
        return len(chosen)

    def _claim(self, row: Workitem, now: datetime) -> None:
        """Ask for a workitem; one that answers that it is taken may have been given to us before we could note it."""
        reach("workitem-written")
        uid, lock = row.workitem_uid, row.transaction_uid
        try:
            answer = self._worklist.change(uid, lock, ups.IN_PROGRESS)
        except Answered as error:
            if self._worklist.state(uid) != ups.SCHEDULED:
                raise
            raise Refused("claim-refused", str(error)) from error  # it is nobody's: it need not wait for ours
        reach("workitem-claimed")
        if answer.outcome is Outcome.DONE:
            self._to(row, workitems.CLAIMED, now, "It was claimed.", claimed_at=now, told_at=now)
            return
        state = None if answer.outcome is Outcome.GONE else self._worklist.state(uid)
        if state == ups.SCHEDULED:
            raise Refused("claim-refused", f"the worklist does not give the workitem: {answer}")
        if state == ups.IN_PROGRESS:
            proof = self._worklist.update(uid, lock, ups.progress(0, "The workitem was claimed."))
            if proof.outcome is Outcome.DONE:
                self._to(row, workitems.CLAIMED, now, "It was claimed.", claimed_at=now, told_at=now)
                return
        told = f"It is {state} by another performer." if state else "The worklist no longer has it."
        self._to(row, workitems.LOST, now, told)

    def _read(self, row: Workitem, now: datetime) -> None:
        """Read what a claimed workitem asks for, and say that the work begins."""
        plain = self._worklist.workitem(row.workitem_uid)
        if plain is None:
            self._to(row, workitems.FORGOTTEN, now, "The worklist no longer knows the workitem.")
            return
        step = ups.read(plain, ZoneInfo(self._settings.time_zone))
        if step.state != ups.IN_PROGRESS:
            self._ended_elsewhere(row, step.state, now)
            return
        wanted = analyses(step.codes, self._settings, self._known)
        content = {"content": json.dumps(asdict(step) | {"start": None}), "study_instance_uid": step.study}
        if not wanted or not step.study:
            told, reason = without_study(step) if wanted else not_done_here(step)
            self._to(row, workitems.CANCELLING, now, told, reason=reason, **content)
            return
        plugins = json.dumps(sorted(wanted))
        if self._to(row, workitems.FETCHING, now, "Its input is fetched.", asked=plugins, **content):
            log.info(line("workitem-claimed", workitem=row.id, analyses=",".join(sorted(wanted))))
            with self._database.reading() as session:
                begun = workitems.get(session, int(row.id or 0))
            self._tell(begun, 1, "The input is fetched.", now, begins=True)

    def _tell_fetching(self, row: Workitem, now: datetime) -> None:
        if self._is_silent(row, now, SILENT_TIMES):
            self._tell(row, row.progress, "The input is fetched.", now)

    def _watch(self, row: Workitem, now: datetime) -> None:
        """Tell how far the analyses are, and go on to the end when they are."""
        with self._database.reading() as session:
            standing = self._standing(session, row)
        judged = judge(standing, row.plugins, row.claimed_at or row.created_at, now)
        if judged.is_over:
            state = workitems.CANCELLING if judged.reason else workitems.COMPLETING
            if self._to(row, state, now, judged.text, reason=judged.reason):
                with self._database.reading() as session:
                    row = workitems.get(session, int(row.id or 0))
                (self._cancel if judged.reason else self._complete)(row, now)
            return
        is_new = (judged.percent, judged.text) != (row.progress, row.told)
        if self._is_silent(row, now, 1 if is_new else SILENT_TIMES):
            self._tell(row, judged.percent, judged.text, now)

    def _complete(self, row: Workitem, now: datetime) -> None:
        """Tell what was made and where it is, and end the workitem."""
        update = self._performed(row, now, ups.progress(100, row.told))
        if missing := ups.lacking(update, ups.COMPLETED, only=ups.OURS_TO_SET):
            raise Broken(f"a workitem would be completed without {', '.join(missing)}")
        reach("workitem-made")
        self._end(row, update, ups.COMPLETED, workitems.COMPLETED, now)

    def _cancel(self, row: Workitem, now: datetime) -> None:
        """Tell why it is cancelled and what was made all the same, and end the workitem."""
        update = ups.cancelled(row.reason, row.told, now, row.progress)
        if row.study_instance_uid:
            update = self._performed(row, now, update)
        reach("workitem-made")
        self._end(row, update, ups.CANCELED, workitems.CANCELLED, now)

    def _end(self, row: Workitem, update: Dataset, wanted: str, state: str, now: datetime) -> None:
        uid, lock = row.workitem_uid, row.transaction_uid
        answer = self._worklist.update(uid, lock, update)
        reach("workitem-told")
        if answer.outcome is Outcome.DONE:
            answer = self._worklist.change(uid, lock, wanted)
            reach("workitem-ended")
        if answer.outcome is Outcome.DONE:
            self._to(row, state, now, row.told, progress=100 if wanted == ups.COMPLETED else row.progress)
            log.info(line("workitem-ended", workitem=row.id, state=state))
            return
        self._look(row, answer, now, wanted, state)

    def _tell(self, row: Workitem, percent: int, text: str, now: datetime, *, begins: bool = False) -> None:
        """Tell progress; what the worklist makes of a workitem that it no longer lets us have is taken in.

        Whatever it dislikes in what is told of the way, the work goes on: the end is what counts.
        """
        update = ups.progress(percent, text)
        if begins:
            update = self._performed(row, now, update, is_over=False)
        try:
            answer = self._worklist.update(row.workitem_uid, row.transaction_uid, update)
            if answer.outcome is not Outcome.DONE:
                self._look(row, answer, now)
        except (Refused, Answered) as error:
            log.warning(line("progress-not-taken", workitem=row.id, text=str(error)))
        with self._database.transaction() as session:
            workitems.stay(session, row, progress=percent, told=text, told_at=now)

    def _look(self, row: Workitem, answer: Answer, now: datetime, wanted: str = "", state: str = "") -> None:
        """Take in why the worklist did not do what was asked. Refuses `worklist-refused` when nothing shows why."""
        is_gone = answer.outcome is Outcome.GONE
        stands = None if is_gone else self._worklist.state(row.workitem_uid)
        if stands is None:
            told = "The worklist no longer knows the workitem; what was made lies at the destinations."
            self._to(row, workitems.FORGOTTEN, now, told)
        elif stands == wanted:
            self._to(row, state, now, row.told)
        elif stands == ups.IN_PROGRESS and FOREIGN not in answer.warning.lower():
            raise Refused("worklist-refused", f"the worklist did not take what it was told: {answer}")
        elif stands == ups.IN_PROGRESS:
            self._to(row, workitems.FORGOTTEN, now, f"The worklist no longer takes it for ours: {answer}.")
        else:
            self._ended_elsewhere(row, stands, now)

    def _ended_elsewhere(self, row: Workitem, stands: str, now: datetime) -> None:
        if stands == ups.CANCELED:
            self._stop_jobs(row, now)
            self._to(row, workitems.CANCELLED, now, "The worklist cancelled it.")
        else:
            self._to(row, workitems.FORGOTTEN, now, f"It is {stands or 'in no state'} without our doing.")

    def _stop_jobs(self, row: Workitem, now: datetime) -> None:
        """Take the analyses that nobody else asks for off the list, and let those that run end without results."""
        with self._database.transaction() as session:
            standing = self._standing(session, row)
            mine = row.plugins - workitems.wanted_by_others(session, row)
            for plugin in mine & set(standing.states):
                job = jobs.get(session, standing.job_pks[plugin])
                if job.state == jobs.QUEUED and standing.study_pk is not None:
                    jobs.take_off(session, plugin, [standing.study_pk], 0, now)
                elif job.state == jobs.RUNNING:
                    text = "the workitem that asked for it was cancelled"
                    jobs.overtake(session, int(job.id or 0), job.attempt, now, "workitem-cancelled", text)

    def _performed(self, row: Workitem, now: datetime, update: Dataset, *, is_over: bool = True) -> Dataset:
        """Add to an update who performed what, and everything that was made of it so far."""
        step = json.loads(row.content)
        with self._database.reading() as session:
            standing = self._standing(session, row)
        there = [one for one in standing.outputs if one.places] if is_over else []
        what = ups.Performed(
            station=station_of(self._settings),
            codes=tuple(ups.Code(**code) for code in step.get("codes", ())),
            study=row.study_instance_uid,
            began=row.claimed_at or row.created_at,
            ended=now if is_over else None,
            description=", ".join(sorted(row.plugins)) or "nothing",
            comments=" ".join(comments(standing, step, row.study_instance_uid, is_over=is_over)),
            outputs=there,
        )
        return ups.performed(what, update)

    def _standing(self, session: Session, row: Workitem) -> asked.Asked:
        inputs = json.loads(row.content).get("inputs", ())
        series = {one["series"] for one in inputs if one["study"] == row.study_instance_uid and one["series"]}
        return asked.standing(session, row.study_instance_uid, row.plugins, series)

    def _is_silent(self, row: Workitem, now: datetime, rounds: int) -> bool:
        return row.told_at is None or now - row.told_at >= rounds * self._every

    def _to(self, row: Workitem, state: str, now: datetime, told: str, **values: object) -> bool:
        with self._database.transaction() as session:
            return workitems.move(session, row, state, now, told=told, **values)

    def _failed(self, row: Workitem, code: str, text: str, now: datetime) -> None:
        """Try again later; what was refused again and again, or not served for a week, ends here, and tells so."""
        with self._database.reading() as session:
            row = workitems.get(session, int(row.id or 0))
        is_outage = code == NOT_SERVED
        attempt = row.attempt + 1 if (row.error_code == NOT_SERVED) == is_outage else 1
        log.warning(
            line("workitem-waits", workitem=row.id, state=row.state, code=code, attempt=attempt, text=text)
        )
        is_late = now - (row.told_at or row.created_at) > GIVE_UP
        if attempt >= MOST_REFUSALS and (is_late or not is_outage) and row.state in workitems.OPEN:
            state = workitems.LOST if row.state == workitems.CLAIMING else workitems.FORGOTTEN
            self._to(row, state, now, text)
            self._denials.over(row.id)
            return
        with self._database.transaction() as session:
            again = now + pause_after(attempt)
            workitems.stay(session, row, attempt=attempt, error_code=code, run_after=again)


__all__ = ["Performer", "transaction_uid"]
