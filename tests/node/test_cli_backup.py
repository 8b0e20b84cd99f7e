from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from outbox_rows import waiting_results
from small_node import SmallNode
from typer.testing import CliRunner

from node.cli import app
from plugins.errors import Refused

RUN = CliRunner()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    small = SmallNode.make(tmp_path / "home")
    waiting_results(small.database, small.objects, tmp_path, ["P@h:104"], count=2)
    small.database.dispose()
    return tmp_path / "home"


def test_a_node_is_copied_listed_restored_and_clean(home: Path, tmp_path: Path) -> None:
    folder, again = str(tmp_path / "backups"), str(tmp_path / "again")
    made = RUN.invoke(app, ["backup", folder, "--home", str(home), "--keep", "2", "--json"])
    assert made.exit_code == 0, made.output
    told = json.loads(made.stdout)
    assert told["objects"] == 3 and told["missing"] == []
    assert told["name"] in RUN.invoke(app, ["backup", folder, "--list"]).output
    restored = RUN.invoke(app, ["restore", folder, "--home", again])
    assert restored.exit_code == 0 and f"nadir serve --home {again}" in restored.output
    before = RUN.invoke(app, ["findings", "--home", str(home), "--json"]).stdout
    assert RUN.invoke(app, ["findings", "--home", again, "--json"]).stdout == before


def test_what_was_missing_is_told_by_the_exit_status(home: Path, tmp_path: Path) -> None:
    next((home / "store" / "objects").rglob("*.dcm")).unlink()
    done = RUN.invoke(app, ["backup", str(tmp_path / "backups"), "--home", str(home)])
    assert done.exit_code == 1 and "1 objects are missing" in done.output


def test_a_restoration_names_its_folder(tmp_path: Path) -> None:
    done = RUN.invoke(app, ["restore", str(tmp_path)])
    assert done.exit_code == 1


def test_to_list_a_folder_that_is_not_there_is_refused_and_makes_none(tmp_path: Path) -> None:
    done = RUN.invoke(app, ["backup", str(tmp_path / "nosuch"), "--list"])
    assert done.exit_code == 1 and isinstance(done.exception, Refused)
    assert done.exception.code == "no-backup" and f"{tmp_path / 'nosuch'} is no folder" in str(done.exception)
    assert list(tmp_path.iterdir()) == []
    assert RUN.invoke(app, ["backup", str(tmp_path), "--list"]).stdout == "no backups\n"


def test_what_is_damaged_in_a_backup_is_told_after_all_else_came_back(home: Path, tmp_path: Path) -> None:
    folder, again = tmp_path / "backups", str(tmp_path / "again")
    RUN.invoke(app, ["backup", str(folder), "--home", str(home)])
    victim = next((folder / "objects").rglob("*.dcm"))
    victim.chmod(0o600)
    victim.write_bytes(b"?" + victim.read_bytes()[1:])
    done = RUN.invoke(app, ["restore", str(folder), "--home", again, "--json"])
    named = f"objects/{victim.parent.name}/{victim.name}"
    assert done.exit_code == 1 and json.loads(done.stdout)["damaged"] == [named]
    assert f"1 objects are missing or damaged in the backup and did not come back: {named}; " in done.stderr
    assert f"nadir fsck --home {again} tells whose they are, send those again" in done.stderr
    assert "files of the node's folder" not in done.stderr
    told = json.loads(RUN.invoke(app, ["fsck", "--home", again, "--json"]).stdout)
    assert [(fault["code"], fault["subject"]) for fault in told] == [("object-missing", victim.stem)]


def test_a_backup_that_cannot_be_read_keeps_no_other_from_being_listed_made_and_restored(
    home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "backups"
    first = json.loads(RUN.invoke(app, ["backup", str(folder), "--home", str(home), "--json"]).stdout)["name"]
    bad = "20200101T000000Z"
    (folder / bad).mkdir()
    (folder / bad / "backup.json").write_text("{")
    told = f"{folder / bad / 'backup.json'} cannot be read (damaged-backup); --keep removes no object while"
    listed = RUN.invoke(app, ["backup", str(folder), "--list"])
    assert (listed.exit_code, first in listed.stdout, told in listed.stderr) == (1, True, True)
    assert RUN.invoke(app, ["restore", str(folder), "--home", str(tmp_path / "again")]).exit_code == 0
    shutil.move(
        folder / first, folder / bad.replace("2020", "2021")
    )  # one made a second ago has the same name
    made = RUN.invoke(app, ["backup", str(folder), "--home", str(home), "--keep", "14"])
    assert (made.exit_code, told in made.stderr) == (1, True)
    assert "3 objects" in made.stdout


def test_a_link_that_is_not_followed_is_told_by_the_exit_status(home: Path, tmp_path: Path) -> None:
    disk, folder = tmp_path / "disk", str(tmp_path / "backups")
    (disk / "f").mkdir(parents=True)
    (disk / "f" / "card.json").write_text("{}")
    (home / "models").symlink_to(disk)
    made = RUN.invoke(app, ["backup", folder, "--home", str(home), "--json"])
    assert (made.exit_code, "home/models/f/card.json" in json.loads(made.stdout)["files"]) == (0, True)
    shutil.rmtree(folder)
    (home / "models").unlink()
    (home / "models").symlink_to(tmp_path / "not-mounted")
    made = RUN.invoke(app, ["backup", folder, "--home", str(home), "--json"])
    assert (made.exit_code, json.loads(made.stdout)["links"]) == (1, ["models"])
    assert "nadir: 1 links in the node's folder were not followed" in made.stderr
    assert "not in the backup: models; put there what they lead to, or remove them" in made.stderr


def test_a_file_of_the_home_that_did_not_come_back_is_to_be_brought_from_another_backup(
    home: Path, tmp_path: Path
) -> None:
    folder, again = tmp_path / "backups", str(tmp_path / "again")
    (home / "audit.key").write_text("key")
    RUN.invoke(app, ["backup", str(folder), "--home", str(home)])
    (victim,) = folder.glob("*/home/audit.key")
    victim.write_text("other")
    done = RUN.invoke(app, ["restore", str(folder), "--home", again])
    told = "nadir: 1 files of the node's folder are missing or damaged in the backup and did not come back: "
    assert done.exit_code == 1
    assert f"{told}{victim.relative_to(folder)}; bring them to {again} from another backup" in done.stderr
    assert "objects are missing" not in done.stderr and "send those again" not in done.stderr
