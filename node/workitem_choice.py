"""Which workitems are for this node, and how the work that they asked for stands: pure, from what was read."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import entry_points

from node.settings import Settings
from node.ups import PRIORITIES, READY, SCHEDULED, Code, Step
from plugins.private_scheme import PRIVATE_SCHEME
from store import jobs
from store.asked import Asked

GIVE_UP = timedelta(days=8)
"""A day longer than the outbox tries: then a result that lies nowhere ends its workitem."""
FETCHED_PERCENT, MADE_PERCENT = 20, 80


def installed(settings: Settings) -> frozenset[str]:
    """Return the names of the analyses that this node offers, without loading any."""
    names = {entry.name for entry in entry_points(group="nadir.plugins")}
    names |= {name for name, values in settings.plugins.items() if "adapter" in values}
    return frozenset(names if settings.enabled is None else names & set(settings.enabled))


def analyses(codes: Iterable[Code], settings: Settings, known: Collection[str]) -> frozenset[str]:
    """Return the analyses that workitem codes ask for; none when one of them cannot be done here."""
    found: set[str] = set()
    for code in codes:
        own = (code.value,) if code.scheme == PRIVATE_SCHEME else ()
        wanted = settings.worklist.codes.get(code.key, own)
        if not wanted or not set(wanted) <= set(known):
            return frozenset()
        found |= set(wanted)
    return frozenset(found)


def is_for_us(step: Step, settings: Settings, known: Collection[str], now: datetime) -> bool:
    """Return whether a workitem is to be claimed now.

    Not what has no input yet, begins later, is scheduled for another station or for a person, bears another label; and
    what cannot be done here only when the settings say that it is to be refused.
    """
    ours = settings.worklist
    is_open = (
        step.state == SCHEDULED and step.readiness == READY and (step.start is None or step.start <= now)
    )
    is_ours = not step.stations or station_of(settings) in step.stations or settings.ae_title in step.stations
    has_label = not ours.labels or step.worklist_label in ours.labels
    if not (is_open and is_ours and has_label) or step.is_for_person:
        return False
    return ours.unknown == "refuse" or bool(analyses(step.codes, settings, known))


def station_of(settings: Settings) -> str:
    """Return our name as a station."""
    return settings.worklist.station or settings.ae_title


def urgency(step: Step) -> tuple[int, str, str]:
    """Return what orders workitems, the most urgent first."""
    rank = PRIORITIES.index(step.priority) if step.priority in PRIORITIES else 1
    return rank, step.start.isoformat() if step.start else "", step.uid


@dataclass(frozen=True, kw_only=True)
class Judged:
    """How far the work of a workitem is."""

    percent: int
    """Of 100."""
    text: str
    """The same in a sentence."""
    is_over: bool = False
    """True when nothing is going to change any more."""
    reason: str = ""
    """Why it is to be cancelled, a key of `node.ups.REASONS`; empty for a success."""


def judge(asked: Asked, plugins: Collection[str], claimed_at: datetime, now: datetime) -> Judged:
    """Return how far the work is, and how it ended when it is over: completed only when every analysis has a result."""
    is_late = now - claimed_at > GIVE_UP
    if not asked.is_settled and is_late:
        text = "The study holds nothing that could be analysed."
        return Judged(percent=FETCHED_PERCENT, text=text, is_over=True, reason="input")
    if not asked.is_settled:
        return Judged(percent=FETCHED_PERCENT, text="The input is here.")
    over = [p for p in plugins if asked.states.get(p) in (jobs.DELIVERING, jobs.DONE, jobs.DEAD)]
    names = ", ".join(sorted(set(plugins) - set(over)))
    share = (MADE_PERCENT - FETCHED_PERCENT) * len(over) // max(len(plugins), 1)
    if names:
        runs = any(asked.states.get(p) == jobs.RUNNING for p in plugins)
        text = f"{len(over)} of {len(plugins)} analyses are done; {names} {'runs' if runs else 'waits'}."
        return Judged(percent=FETCHED_PERCENT + share, text=text)
    nowhere = [one for one in asked.outputs if not one.places]
    if any(one.is_on_the_way for one in asked.outputs) and not is_late:
        there = len(asked.outputs) - len(nowhere)
        percent = MADE_PERCENT + (99 - MADE_PERCENT) * there // len(asked.outputs)
        return Judged(percent=percent, text=f"{there} of {len(asked.outputs)} results lie at a destination.")
    return _ended(asked, plugins, len(nowhere))


def _ended(asked: Asked, plugins: Collection[str], nowhere: int) -> Judged:
    made = len(asked.outputs) - nowhere
    if asked.failures:
        sentences = " ".join(f"{plugin}: {why}" for plugin, why in sorted(asked.failures.items()))
        part = (
            f" Of {len(plugins)} analyses {len(plugins) - len(asked.failures)} have results: {made} objects."
        )
        is_refusal = all(asked.states[plugin] == jobs.DONE for plugin in asked.failures)
        text = sentences + (part if made else "")
        return Judged(percent=100, text=text, is_over=True, reason="unsuitable" if is_refusal else "failed")
    if nowhere:
        text = f"{nowhere} of {len(asked.outputs)} results could not be delivered to any destination."
        return Judged(percent=100, text=text, is_over=True, reason="resources")
    return Judged(percent=100, text=f"{made} objects were made and delivered.", is_over=True)


__all__ = ["Judged", "analyses", "installed", "is_for_us", "judge", "station_of", "urgency"]
