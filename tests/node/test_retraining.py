"""The settings of retraining, and the times of the schedule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from node.crontab import Crontab
from node.flags import load_settings
from node.schedule_store import Cron
from node.settings import Settings
from plugins.errors import Refused

FRIDAY = datetime(2026, 11, 20, 17, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "next_time"),
    [
        ("0 2 * * 6", "2026-11-21T02:00"),
        ("0 2 * * sat", "2026-11-21T02:00"),
        ("0 2 * * 0", "2026-11-22T02:00"),
        ("0 2 * * 7", "2026-11-22T02:00"),
        ("0 2 * * 1-5", "2026-11-23T02:00"),
        ("*/20 * * * *", "2026-11-20T17:40"),
        ("5/20 * * * *", "2026-11-20T17:45"),
        ("15,45 17-18 20 nov *", "2026-11-20T17:45"),
        ("30 4 1 1 *", "2027-01-01T04:30"),
    ],
)
def test_a_crontab_means_what_cron_takes_it_for(expression: str, next_time: str) -> None:
    found = Crontab.of(expression).trigger(UTC).get_next_fire_time(None, FRIDAY.replace(minute=31))
    assert found.isoformat(timespec="minutes")[:16] == next_time


def test_a_crontab_is_read_in_its_time_zone() -> None:
    found = Crontab.of("0 2 * * *").trigger(ZoneInfo("Europe/Berlin")).get_next_fire_time(None, FRIDAY)
    assert found.astimezone(UTC) == datetime(2026, 11, 21, 1, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "times"),
    [
        ("30 2 * * *", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00", "2026-10-27T02:30+01:00"]),
        ("30 * * * *", ["2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00", "2026-10-25T03:30+01:00"]),
        ("30 */1 * * *", ["2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00", "2026-10-25T03:30+01:00"]),
    ],
)
def test_an_hour_that_comes_twice_counts_once_unless_every_hour_does(cron: str, times: list[str]) -> None:
    trigger, at, found = Cron(cron, "Europe/Berlin"), datetime(2026, 10, 25, 0, 0, tzinfo=UTC), []
    for _ in times:
        following = trigger.get_next_fire_time(None, at)
        assert following is not None
        found.append(following.isoformat(timespec="minutes"))
        at = following.astimezone(UTC) + timedelta(seconds=1)
    assert found == times


@pytest.mark.parametrize(
    ("cron", "zone", "start", "times"),
    [
        (
            "0 0 * * 0",
            "America/Santiago",
            "2026-08-28",
            ["2026-08-30T00:00-04:00", "2026-09-06T01:00-03:00", "2026-09-13T00:00-03:00"],
        ),
        (
            "30 0 * * 5",
            "Africa/Cairo",
            "2026-04-15",
            ["2026-04-17T00:30+02:00", "2026-04-24T01:30+03:00", "2026-05-01T00:30+03:00"],
        ),
        (
            "0 0 * * *",
            "Africa/Cairo",
            "2026-04-23",
            ["2026-04-24T01:00+03:00", "2026-04-25T00:00+03:00", "2026-04-26T00:00+03:00"],
        ),
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-28",
            ["2026-03-28T02:30+01:00", "2026-03-29T03:30+02:00", "2026-03-30T02:30+02:00"],
        ),
        (
            "0 2,3,4 * * *",
            "Europe/Berlin",
            "2026-03-29",
            ["2026-03-29T03:00+02:00", "2026-03-29T04:00+02:00", "2026-03-30T02:00+02:00"],
        ),
        (
            "30 * * * *",
            "Europe/Berlin",
            "2026-03-29",
            ["2026-03-29T01:30+01:00", "2026-03-29T03:30+02:00", "2026-03-29T04:30+02:00"],
        ),
        (
            "30 * * * 0",
            "America/Santiago",
            "2026-09-06T03:00",
            ["2026-09-06T01:30-03:00", "2026-09-06T02:30-03:00", "2026-09-06T03:30-03:00"],
        ),
    ],
)
def test_a_time_that_clocks_skip_is_later_by_what_they_skip(
    cron: str, zone: str, start: str, times: list[str]
) -> None:
    trigger, previous, now = Cron(cron, zone), None, datetime.fromisoformat(start).replace(tzinfo=UTC)
    found = []
    for _ in times:
        previous = now = trigger.get_next_fire_time(previous, now)
        assert now is not None
        found.append(now.isoformat(timespec="minutes"))
    assert found == times


def test_a_time_that_clocks_skip_is_still_to_come_right_after_the_change() -> None:
    change = datetime(2026, 3, 29, 1, 10, tzinfo=UTC)
    found = Cron("30 2 * * *", "Europe/Berlin").get_next_fire_time(None, change)
    assert found == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "expression",
    [
        *("0 2 * *", "60 2 * * *", "0 2 * * 8", "0 2 0 * *", "a 2 * * *", "5-2 * * * *", "*/0 * * * *"),
        *("0 2 1 * 1", "*-3 * * * *", "@daily", "0 2 30 2 *", "0 2 31 4,6 *"),
    ],
)
def test_a_crontab_that_nobody_can_read_is_refused_with_the_settings(expression: str) -> None:
    with pytest.raises(Refused, match=r"retrain\.cron"):
        Settings.load(retrain={"cron": expression})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"families": ["liver"]}, "nobody knows how to retrain 'liver'"),
        ({"timezone": "Mars/Base"}, "'Mars/Base' is no time zone"),
        ({"timezone": "../etc/passwd"}, "is no time zone"),
        ({"margins": {"dice": 1}}, "'dice' is no limit"),
        ({"margins": {"level": 2}}, "level lies between"),
        ({"seed": 10**20}, "retrain.seed: .* less than or equal"),
        ({"lease_seconds": float("inf")}, "retrain.lease_seconds: .* finite number"),
        ({"lease_seconds": 1e9}, "retrain.lease_seconds: .* less than or equal"),
        ({"replay_share": 1.0}, "less than 1"),
        ({"colour": "blue"}, "retrain.colour: there is no such setting"),
    ],
)
def test_a_wrong_setting_of_retraining_is_refused_in_one_line(changes: dict[str, object], says: str) -> None:
    with pytest.raises(Refused, match=says) as caught:
        Settings.load(retrain=changes)
    assert "\n" not in caught.value.sentence


def test_a_variable_that_has_to_be_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NADIR_RETRAIN", "on")
    with pytest.raises(Refused, match=r"bad-settings.*NADIR_RETRAIN.* is not JSON"):
        Settings.load()


def test_settings_of_retraining_come_from_file_environment_and_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml = tmp_path / "nadir.toml"
    toml.write_text(
        'home = "/nowhere"\n[retrain]\nfamilies = ["nodule_segmenter"]\nsteps = 5\nbatch = 3\n'
        "[retrain.margins]\ndice_gain = 0.02\n"
    )
    monkeypatch.setenv("NADIR_RETRAIN__BATCH", "4")
    monkeypatch.setenv("NADIR_RETRAIN__MARGINS__FEWEST_PATIENTS", "6")
    monkeypatch.setenv("NADIR_RETRAIN__DATA", "/a, /b")
    settings = load_settings(toml, {"retrain": ["steps=7"]})
    recipe = settings.retrain.recipe("nodule_segmenter")
    assert settings.retrain.families == ("nodule_segmenter",)
    assert (recipe.steps, recipe.batch, recipe.replay) == (7, 4, (Path("/a"), Path("/b")))
    assert (recipe.margins.dice_gain, recipe.margins.fewest_patients) == (0.02, 6)
