"""Links in a node's home: behind which of them a backup copies, and which it names."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from backed_up_home import files_below, made_home, make

from plugins.errors import Refused
from store.backup import backups
from store.database import Database
from store.home_files import home_files
from store.restored import restore


@pytest.fixture
def home(tmp_path: Path, database: Database) -> Path:
    return made_home(tmp_path, database)


def led(path: Path, elsewhere: Path) -> Path:
    """Move a part of a home to another disk and let a link lead there; returns where it lies now."""
    elsewhere.mkdir(exist_ok=True)
    shutil.move(path, elsewhere / path.name)
    path.symlink_to(elsewhere / path.name)
    return elsewhere / path.name


def test_what_lies_behind_a_link_at_the_top_of_the_home_is_in_the_backup_and_comes_back(
    database: Database, home: Path, tmp_path: Path
) -> None:
    for name in ("models", "reports", "audit.key"):
        led(home / name, tmp_path / "disk")
    made, again = make(database, home, tmp_path / "backups"), tmp_path / "again"
    names = {"home/audit.key", "home/models/f/1-abc/card.json", "home/reports/p.html"}
    assert (set(made.files) - {"nadir.sqlite"}, made.links) == (names, ())
    assert restore(tmp_path / "backups", again, f"sqlite:///{again / 'nadir.sqlite'}").damaged == ()
    assert (again / "models/f/1-abc/card.json").read_text() == "models/f/1-abc/card.json"
    assert not any((again / name).is_symlink() for name in ("models", "reports", "audit.key"))


def test_a_link_that_is_not_followed_is_named(database: Database, home: Path, tmp_path: Path) -> None:
    led(home / "models/f/1-abc", tmp_path / "disk")
    led(home / "reports/p.html", tmp_path / "disk")
    for name, target in {
        "circle": home,
        "above": tmp_path,
        "newest": home / "models/f",
        "training": tmp_path / "not-mounted",
        "itself": home / "itself",
        "models/back": home,
        "cache": tmp_path / "disk",
        ".old": tmp_path / "disk",
    }.items():
        (home / name).symlink_to(target)
    made = make(database, home, tmp_path / "backups")
    links = (
        "above",
        "circle",
        "itself",
        "models/back",
        "models/f/1-abc",
        "newest",
        "reports/p.html",
        "training",
    )
    assert made.links == links
    assert set(made.files) == {"nadir.sqlite", "home/audit.key"}
    assert backups(tmp_path / "backups") == (made,)


def test_the_links_to_curated_data_are_left_out_without_a_word(home: Path, tmp_path: Path) -> None:
    learn = home / "training/nodule_segmenter/3/learn"
    learn.mkdir(parents=True)
    (learn / "manifest.json").touch()
    for name in ("replay0", "replay", "other0"):
        (learn / name).symlink_to(tmp_path)
    files, links = home_files(home)
    assert [path for path in files if "training" in path.parts] == [learn / "manifest.json"]
    assert links == tuple(f"training/nodule_segmenter/3/learn/{name}" for name in ("other0", "replay"))


def test_a_backup_is_never_made_behind_a_link_that_it_would_follow(
    database: Database, home: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    led(home / "models", disk)
    (home / "backups").symlink_to(disk, target_is_directory=True)
    before = files_below(disk)
    for folder in (disk, disk / "models" / "backups"):
        with pytest.raises(Refused, match="lies inside the node's folder") as caught:
            make(database, home, folder)
        assert caught.value.code == "backup-inside-home"
    assert files_below(disk) == before
