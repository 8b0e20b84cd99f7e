"""Drift as commands and pages show it: the weeks of every analysis with the models that count."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from sqlmodel import Session

from node import model_view
from node.settings import Settings
from plugins.errors import NadirError, Refused
from plugins.registry import load_plugins
from store import drifts

if TYPE_CHECKING:
    from training.drift import Limits
    from training.drift_told import Course


def courses(
    session: Session, settings: Settings, now: datetime, of: str | None = None, limits: Limits | None = None
) -> list[Course]:
    """Return the weeks of every analysis up to now, or of those that `of` (an analysis or a family) names.

    Refuses `no-such-analysis` when nothing is known of it.
    """
    from training.drift import Limits, judge
    from training.drift_told import Course

    limits = limits or Limits()
    families = {name: families_of(name, settings) for name in drifts.watched(session)}
    wanted = {n: f for n, f in families.items() if of is None or of == n or of in f}
    if of is not None and not wanted:
        known = ", ".join(sorted({*families, *(f for own in families.values() for f in own)})) or "none"
        raise Refused("no-such-analysis", f"nothing is known of '{of}' yet; there are: {known}")
    since = {n: drifts.promoted_at(session, f, now) for n, f in wanted.items()}
    return [
        Course(
            plugin=n,
            families=f,
            weeks=judge(drifts.observed(session, n, now, since[n]), limits),
            limits=limits,
            dated_ahead=drifts.dated_ahead(session, n, now),
        )
        for n, f in wanted.items()
    ]


def courses_of_family(session: Session, settings: Settings, now: datetime, family: str) -> list[Course]:
    """Return the weeks of every analysis that uses a family of models; none when nothing is known of one yet.

    Refuses `no-family`.
    """
    try:
        return courses(session, settings, now, model_view.require_family(session, family))
    except Refused as refused:
        if refused.code != "no-such-analysis":
            raise
        return []


def families_of(plugin: str, settings: Settings) -> tuple[str, ...]:
    """Return the families of models that an analysis uses; none for one that is not installed any more."""
    try:
        (made,) = load_plugins(settings.plugins, (plugin,))
    except NadirError:
        return ()
    return tuple(getattr(made, "families", ()))


__all__ = ["courses", "courses_of_family", "families_of"]
