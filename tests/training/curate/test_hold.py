"""The folder of a data set while it is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.errors import Refused, Unavailable
from training.curate.hold import hold
from training.evaluate.data import UNFINISHED, manifest_of


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")


def test_of_two_commands_in_one_folder_the_second_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with hold(out):
        make(out, "images/a", "manifest.json")
        with pytest.raises(Refused, match="folder-in-use"), hold(out):
            pass
    assert {path.name for path in out.iterdir()} == {"images", "manifest.json"}
    with pytest.raises(Refused, match="data-set-there"), hold(out):
        pass


def test_what_is_interrupted_leaves_nothing_that_it_made(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with pytest.raises(KeyboardInterrupt), hold(out):
        make(out, "images/a", "masks/a")
        raise KeyboardInterrupt
    assert not out.exists()
    out.mkdir()
    make(out, "notes.txt")
    with pytest.raises(KeyboardInterrupt), hold(out):
        make(out, "images/a")
        raise KeyboardInterrupt
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_what_was_cut_short_behind_its_manifest_is_not_opened_and_is_made_anew(tmp_path: Path) -> None:
    with pytest.raises(Unavailable), hold(tmp_path):
        make(tmp_path, "images/old", "manifest.json")
        raise Unavailable("no space left")
    with pytest.raises(Refused, match="unfinished"):
        manifest_of(tmp_path)
    with hold(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [UNFINISHED]
        make(tmp_path, "images/new", "manifest.json")
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["new"]
    assert not (tmp_path / UNFINISHED).exists()


def test_images_of_somebody_else_stay(tmp_path: Path) -> None:
    make(tmp_path, "images/mine.nii.gz")
    with pytest.raises(Refused, match="folder-not-empty"), hold(tmp_path):
        pass
    assert (tmp_path / "images" / "mine.nii.gz").is_file()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    make(tmp_path, "file")
    with (
        pytest.raises(Unavailable, match=r"file/out cannot be written: Not a directory"),
        hold(tmp_path / "file" / "out"),
    ):
        pass
