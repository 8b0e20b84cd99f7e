"""Nobody else on the machine reads what the node keeps of patients."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from node.demo import _prepare
from node.doctor import examine
from node.opened import opened
from node.settings import Settings


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _folder(path: Path, mode: int) -> Path:
    path.mkdir()
    path.chmod(mode)
    return path


def _said(home: Path) -> list[str]:
    return [line.says for line in examine(Settings(home=home)) if line.what == "rights of the home folder"]


def test_an_empty_home_that_is_open_to_everybody_is_closed(tmp_path: Path) -> None:
    home = _folder(tmp_path / "home", 0o755)
    assert _said(home) == []
    opened(Settings(home=home))[0].dispose()
    assert _mode(home) == 0o700
    assert _said(home) == []


def test_the_rows_are_for_the_node_alone_wherever_their_file_lies(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "shared", 0o755)
    database, _ = opened(Settings(home=tmp_path / "home", database_url=f"sqlite:///{folder / 'rows.sqlite'}"))
    with database.transaction():
        assert {path.name: _mode(path) for path in folder.iterdir()} == {
            "rows.sqlite": 0o600,
            "rows.sqlite-shm": 0o600,
            "rows.sqlite-wal": 0o600,
        }
    database.dispose()


def test_a_home_with_something_in_it_stays_as_it_is_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = _folder(tmp_path / "home", 0o755)
    (home / "models").mkdir()
    opened(Settings(home=home))[0].dispose()
    assert _mode(home) == 0o755
    assert f"everybody on this machine may enter {home} (mode 755)" in caplog.text
    assert _said(home) == [f"open to others (mode 755): chmod 700 {home}"]


def test_a_home_that_its_group_may_read_stays_so_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = _folder(tmp_path / "home", 0o750)
    opened(Settings(home=home))[0].dispose()
    assert (_mode(home), _said(home), "home-open" in caplog.text) == (0o750, [], False)


@pytest.mark.parametrize("is_there", [True, False])
def test_what_a_demo_makes_of_patients_is_closed(tmp_path: Path, is_there: bool) -> None:
    out = tmp_path / "out"
    if is_there:
        _prepare(_folder(out, 0o700), None)
        out.chmod(0o755)
    _prepare(out, None)
    assert _mode(out) == 0o700
