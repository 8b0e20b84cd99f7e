"""What no command can work with, told in one line: text that is none, standard streams that are closed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from empty_database import empty_database
from node_process import NADIR, nadir

NO_TEXT = os.fsdecode(b"M\xfcller")


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["findings", "--patient", NO_TEXT], "'--patient'"),
        (["lesions", "list", "--patient", NO_TEXT], "'--patient'"),
        (["patients", "merge", NO_TEXT, "P1"], "'patient'"),
        (["users", "password", NO_TEXT], "'NAME'"),
        (["jobs", "abandon", NO_TEXT], "'destination'"),
        (["serve", "--ae-title", NO_TEXT], "'--ae-title'"),
        (["analyse", "x", "--out", "y", "--plugin", "contours", "--plugin", NO_TEXT], "'--plugin'"),
    ],
)
def test_text_that_is_not_utf_8_is_a_wrong_command_line(
    tmp_path: Path, arguments: list[str], where: str
) -> None:
    home = [] if arguments[0] == "analyse" else ["--home", str(tmp_path)]
    done = nadir(*arguments, *home)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("nadir: ") and f"{where}: this text is not UTF-8; 'nadir {arguments[0]}" in line


def test_a_path_may_be_any_bytes(tmp_path: Path) -> None:
    path = tmp_path / f"{NO_TEXT}.dcm"
    path.write_bytes(b"note")
    done = nadir("check", str(path))
    assert done.returncode == 1 and "M\\udcfcller.dcm" in done.stderr and "unreadable-file" in done.stderr


def test_standard_streams_that_are_closed_are_no_fault(tmp_path: Path) -> None:
    home = str(tmp_path)
    empty_database(tmp_path).dispose()
    done = _closing(">&-", "jobs", "list", "--home", home)
    assert (done.returncode, done.stderr) == (0, "")
    done = _closing("2>&-", "jobs", "list", "--home", home)
    assert (done.returncode, done.stdout) == (0, "no jobs\n")
    done = _closing("2>&-", "jobs", "show", "7", "--home", home)
    assert (done.returncode, done.stdout) == (1, "")
    assert _closing("<&- >&- 2>&-", "findings", "--home", home).returncode == 0


@pytest.mark.parametrize("how", ["<&-", "</dev/null"])
def test_a_password_from_a_standard_input_that_is_closed_says_so(tmp_path: Path, how: str) -> None:
    home = str(tmp_path)
    empty_database(tmp_path).dispose()
    done = _closing(how, "users", "add", "ada", "--role", "viewer", "--home", home)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "nadir: standard input is closed or ends before a password; give one line there, or --password-file"
        " (weak-password)\n"
    )


def _closing(streams: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command by a shell that closes standard streams."""
    command = ["sh", "-c", f'exec "$0" "$@" {streams}', str(NADIR), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
