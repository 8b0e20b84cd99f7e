"""The command `nadir models drift`: whether what comes in and what is found are as they were."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node import printing
from node.cli_options import AsJson, Config, Home, open_database
from node.flags import load_settings
from node.logs import line

if TYPE_CHECKING:
    from store.drifts import Alarm
    from training.drift import Limits
    from training.drift_told import Course

log = logging.getLogger(__name__)

MEDIANS = {
    "findings": "findings",
    "volume": "volume",
    "long_axis": "long",
    "suv_max": "SUVmax",
    "entropy": "entropy",
    "disagreement": "disagree",
}
"""Numbers whose median of each week the table has room for, with their headings."""


def drift(
    of: Annotated[
        str | None,
        typer.Argument(
            help="A family of models, or an analysis; all when not given.", metavar="FAMILY|PLUGIN"
        ),
    ] = None,
    weeks: Annotated[int, typer.Option(min=1, max=520, help="So many of the newest weeks.")] = 12,
    reference: Annotated[
        int, typer.Option(min=1, max=520, help="So many weeks from the beginning on are the reference.")
    ] = 8,
    studies: Annotated[
        int, typer.Option(min=5, help="With fewer studies on either side nothing is judged.")
    ] = 20,
    record: Annotated[
        bool, typer.Option("--record", help="Keep the alarms, log them and count them in /metrics.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder for a page with drawings.", show_default=False)
    ] = None,
    home: Home = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Compare what came in and what was found, week by week, with the first weeks of the model that counts.

    An alarm is no failure: the exit status is 0. The reference begins when a model of the analysis was last approved or
    rolled back, else with its first study.
    """
    from training.drift import Limits
    from training.drift_told import alarms, plain

    courses = _courses(of, Limits(reference_weeks=reference, studies=studies), home, config)
    told = {course.plugin: alarms(course, course.last(weeks)) for course in courses}
    new = _recorded(told, home, config) if record else {}
    if folder is not None:
        _write_page(courses, weeks, folder, home, config)
    if as_json:
        rows = [{**plain(c, c.last(weeks)), "recorded": len(new.get(c.plugin, ()))} for c in courses]
        printing.print_json({"analyses": rows})
        return
    if not courses:
        printing.say("nothing was analysed yet")
    for course in courses:
        _print(course, weeks, told[course.plugin])


def _courses(of: str | None, limits: Limits, home: Path | None, config: Path | None) -> list[Course]:
    """Return the weeks of every analysis that is asked for. Refuses `no-such-analysis`."""
    from node import drift_view

    settings = load_settings(config, {"home": home})
    with open_database(home, config) as database, database.reading() as session:
        return drift_view.courses(session, settings, database.now(), of, limits)


def _recorded(
    told: dict[str, tuple[Alarm, ...]], home: Path | None, config: Path | None
) -> dict[str, tuple[Alarm, ...]]:
    """Return the alarms that are new, after they were kept and logged."""
    from store import drifts

    with open_database(home, config) as database:
        now = database.now()
        with database.transaction() as session:
            new = {plugin: drifts.record(session, plugin, alarms, now) for plugin, alarms in told.items()}
    for plugin, alarms in new.items():
        for alarm in alarms:
            said = {"statistic": alarm.statistic, "value": f"{alarm.value:.3f}", "limit": alarm.limit}
            log.warning(line("drift", plugin=plugin, week=alarm.week, what=alarm.what, **said))
    return new


def _write_page(
    courses: Sequence[Course], weeks: int, folder: Path, home: Path | None, config: Path | None
) -> None:
    from training.drift_page import drift_html

    with open_database(home, config) as database:
        now = database.now()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "drift.html").write_text(drift_html(courses, weeks, now))


def _print(course: Course, weeks: int, alarms: Sequence[Alarm]) -> None:
    from training.drift import short
    from training.drift_told import left_out, newest, state

    last = course.last(weeks)
    if course.dated_ahead:
        printing.say(f"{course.plugin}: {left_out(course)}")
    if not last:
        printing.say(f"{course.plugin}: no study since its model was approved or rolled back")
        return
    known = {name: heading for name, heading in MEDIANS.items() if any(name in w.quartiles for w in last)}
    columns = {"week": "week", "studies": "studies", **known, "state": "what became of it"}
    shown = [
        {
            "week": week.week,
            "studies": week.studies,
            "state": state(week),
            **{name: short(week.quartiles[name][1]) for name in known if name in week.quartiles},
        }
        for week in last
    ]
    title = f"{course.plugin} (medians of the studies)"
    printing.print_table(shown, columns, numbers=("studies", *known), wrapped=("state",), title=title)
    for alarm in newest(alarms):
        printing.say(f"{alarm.week} {alarm.sentence}")


__all__ = ["drift"]
