from __future__ import annotations

import errno
import os
import re
import stat
import tomllib
from pathlib import Path

import pytest
from full_disk import full_disk
from node_process import nadir
from typer.testing import CliRunner

from node.cli import app
from node.deliveries import DeliverySettings
from node.doctor import Line
from node.next_steps import next_steps
from node.settings import Settings
from node.settings_file import settings_text, write_settings
from plugins.errors import Refused, Unavailable

RUN = CliRunner()
WELL = (Line(what="DICOM port", ok=True, says="free"),)
RUNNING = (Line(what="DICOM port", ok=False, says="in use", needed=False),)


def test_four_answers_become_a_private_file_that_a_node_starts_from(tmp_path: Path) -> None:
    out = tmp_path / "nadir.toml"
    home = tmp_path / "a home"
    answers = f"{home}\nCT1@10.0.0.7, CT2\nPACS@10.0.0.5:104\nhttp://10.0.0.5:8042/dicom-web\n"
    done = RUN.invoke(app, ["init", "--out", str(out)], input=answers)
    assert done.exit_code == 0, done.output
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    settings = Settings.load(out)
    assert settings.home == home
    assert settings.callers == ("CT1@10.0.0.7", "CT2")
    assert settings.destinations == ("PACS@10.0.0.5:104",)
    assert settings.pacs_url == "http://10.0.0.5:8042/dicom-web"
    assert f"nadir doctor --config {out}" in done.output


def test_a_wrong_answer_is_told_and_asked_again(tmp_path: Path) -> None:
    out = tmp_path / "nadir.toml"
    answers = f"{tmp_path}\nnot a caller\nCT1\nnowhere\n\n\n"
    done = RUN.invoke(app, ["init", "--out", str(out)], input=answers)
    assert done.exit_code == 0, done.output
    assert "is not a caller" in done.output and "is not a destination" in done.output
    assert Settings.load(out).callers == ("CT1",)


def test_without_questions_everything_is_as_usual_and_a_wrong_flag_is_refused(tmp_path: Path) -> None:
    assert RUN.invoke(app, ["init", "--yes", "--out", str(tmp_path / "a.toml")]).exit_code == 0
    assert Settings.load(tmp_path / "a.toml").callers == ()
    done = RUN.invoke(app, ["init", "--yes", "--callers", "not a caller", "--out", str(tmp_path / "b.toml")])
    assert done.exit_code == 1 and not (tmp_path / "b.toml").exists()


def test_a_home_is_a_folder_of_the_person_and_never_the_folder_that_happens_to_be_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    out = tmp_path / "a.toml"
    done = RUN.invoke(app, ["init", "--yes", "--home", " ", "--out", str(out)])
    assert done.exit_code == 1 and not out.exists()
    assert isinstance(done.exception, Refused) and "home: name a folder" in str(done.exception)
    assert RUN.invoke(app, ["init", "--yes", "--home", "~/n", "--out", str(out)]).exit_code == 0
    assert f'home = "{tmp_path}/n"' in out.read_text()


def test_a_file_that_is_there_is_never_written_over(tmp_path: Path) -> None:
    out = tmp_path / "nadir.toml"
    out.write_text("mine")
    done = nadir("init", "--yes", "--out", str(out))
    assert done.returncode == 1 and "is there already" in done.stderr
    assert out.read_text() == "mine"


def test_a_full_disk_leaves_no_empty_file_that_stands_in_the_way_of_the_next_try(tmp_path: Path) -> None:
    out = tmp_path / "etc" / "nadir.toml"
    with full_disk(), pytest.raises(Unavailable, match=r"nadir\.toml cannot be written: File too large"):
        write_settings(out, "ae_title = 'NADIR'\n")
    assert list(out.parent.iterdir()) == []
    write_settings(out, "ae_title = 'NADIR'\n")
    assert out.read_text() == "ae_title = 'NADIR'\n"
    assert [path.name for path in out.parent.iterdir()] == ["nadir.toml"]
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_on_a_disk_without_links_a_file_that_is_there_is_not_written_over_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    out = tmp_path / "nadir.toml"
    write_settings(out, "mine")
    with pytest.raises(Refused, match="is there already"):
        write_settings(out, "another")
    assert out.read_text() == "mine"


def test_every_comment_is_a_setting_with_the_default_that_it_has() -> None:
    text = settings_text({"ae_title": "NADIR"}, Path("nadir.toml"))
    lines = [line.removeprefix("# ") for line in text.splitlines()]
    entries = [line for line in lines if " = " in line and line.partition(" = ")[0] in Settings.model_fields]
    known = tomllib.loads("\n".join(line for line in entries if not line.endswith("...")))
    usual = Settings()
    for name, value in known.items():
        if name != "home":
            held = getattr(usual, name)
            assert value == (list(held) if isinstance(held, tuple) else held), name
    assert len(known) > 50
    assert "hook_token = " not in text


def steps(lines: tuple[Line, ...], *, has_people: bool = True, **settings: object) -> str:
    return " | ".join(
        next_steps(lines, Settings(**settings), Path("n.toml"), has_people=has_people)  # type: ignore[arg-type]
    )


def test_the_tables_that_the_comments_show_are_settings_and_so_is_every_value_that_they_name() -> None:
    text = settings_text({}, Path("nadir.toml"))
    shown = (
        text[text.index("# [delivery.") : text.index("# A provider")].replace("\n# ", "\n").removeprefix("# ")
    )
    tables = "\n".join(line for line in shown.splitlines() if line.startswith("[") or " = " in line)
    settings = Settings.load(destinations=("PACS@10.0.0.5:104",), **tomllib.loads(tables))
    (pacs,) = settings.delivery.values()
    assert (pacs.tls, pacs.results, pacs.commitment) == (True, ("pdf", "capture"), "query")
    named = re.search(r"what it got: (.+)", shown)
    assert named is not None and re.split(r", | or ", named[1]) == ["auto", "query", "off"]
    for value in re.split(r", | or ", named[1]):
        assert DeliverySettings.model_validate({"commitment": value}).commitment == value


def test_what_is_broken_comes_first_and_alone() -> None:
    broken = Line(what="home folder", ok=False, says="cannot be written; name another with --home")
    said = steps((*WELL, broken))
    assert said == (
        "mend home folder: cannot be written; name another with --home"
        " | then look again: nadir doctor --config n.toml"
    )


def test_a_new_node_is_led_from_its_scanners_to_its_first_study() -> None:
    said = steps(WELL)
    assert (
        said.index("nobody may send yet") < said.index("results go nowhere yet") < said.index("nadir serve")
    )
    complete = {"callers": ("CT1",), "destinations": ("P@h:104",)}
    assert steps(WELL, **complete).startswith("start the node: nadir serve --config n.toml")
    assert steps(RUNNING, **complete).startswith("send a study to NADIR@")
    for lines in (WELL, RUNNING):
        said = steps(lines, **complete, http_host="10.0.0.1", has_people=False)
        assert said.startswith("nobody can sign in yet: nadir users add")
    said = steps(WELL, **complete, http_host="10.0.0.1", has_people=False)
    assert said.split(" | ")[1] == "start the node: nadir serve --config n.toml"


@pytest.mark.parametrize("how", ["--config", "--home"])
def test_doctor_ends_with_what_to_do_next(tmp_path: Path, how: str) -> None:
    given = tmp_path / "home"
    if how == "--config":
        given = tmp_path / "n.toml"
        RUN.invoke(app, ["init", "--yes", "--home", str(tmp_path / "home"), "--out", str(given)])
    done = RUN.invoke(app, ["doctor", how, str(given)])
    last = done.output.partition("Next:")[2]
    assert "1. " in last and f"{how} {given}" in last
