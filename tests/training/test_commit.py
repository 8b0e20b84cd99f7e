"""The commit that is written down with a run: of the code that ran, and honest about changes to it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from training.commit import commit


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """Return a file of a checkout that has a commit and a tag."""
    for name in ("code.py", "other.py"):
        (tmp_path / name).write_text("1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    git(tmp_path, "tag", "-a", "v1", "-m", "v1")
    return tmp_path / "code.py"


def test_a_checkout_as_it_was_committed_is_named_by_its_whole_hash(code: Path) -> None:
    assert commit(code) == git(code.parent, "rev-parse", "HEAD")
    assert len(commit(code) or "") == 40
    (code.parent / "notes.txt").write_text("not of the code\n")
    assert commit(code) == git(code.parent, "rev-parse", "HEAD")


@pytest.mark.parametrize("name", ["code.py", "other.py"])
def test_a_checkout_that_was_changed_says_so(code: Path, name: str) -> None:
    (code.parent / name).write_text("2\n")
    assert commit(code) == git(code.parent, "rev-parse", "HEAD") + "-dirty"
    git(code.parent, "add", name)
    assert commit(code) == git(code.parent, "rev-parse", "HEAD") + "-dirty"


def test_code_that_was_installed_below_the_checkout_of_something_else_names_no_commit_of_it(
    code: Path,
) -> None:
    installed = code.parent / "venv" / "code.py"
    installed.parent.mkdir()
    installed.write_text("1\n")
    assert commit(installed) is None


def test_code_outside_of_any_checkout_names_no_commit(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("1\n")
    assert commit(tmp_path / "code.py") is None
