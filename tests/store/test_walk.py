"""The files under a folder, and what cannot be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import make_series
from drawn_regions import make_seg

from node.offline import analyse_folder
from node.prior_folder import PriorFolder
from node.send import send_folder
from node.settings import Settings
from plugins.errors import Refused
from store.file_hash import sha256_of
from store.walk import all_files_under, files_under
from training.curate.region_index import look


@pytest.fixture
def shut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder that cannot be read, also not by root, whom no mode keeps out."""
    folder = tmp_path / "source" / "shut"
    folder.mkdir(parents=True)
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        yield folder


def test_files_are_found_and_pipes_and_circles_of_links_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/x", "a"):
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to(tmp_path)
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    found, closed = files_under(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["a", "b/x"]
    assert closed == []
    assert all_files_under(tmp_path) == found


def test_a_folder_whose_names_may_be_read_and_not_its_files_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "names" / "below").mkdir(parents=True)
    for name in ("names/x", "a"):
        (tmp_path / name).touch()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "names")
    found, (closed,) = files_under(tmp_path)
    assert [path.name for path in found] == ["a"]
    sentence = f"{tmp_path / 'names'} cannot be read (Permission denied): what is in it is missing"
    assert (closed.code, closed.sentence) == ("closed-folder", sentence)
    with pytest.raises(Refused, match=r"closed-folder: .* missing; let the user that runs nadir read it"):
        all_files_under(tmp_path)


@pytest.mark.parametrize(
    "read",
    [
        lambda source: analyse_folder(source, source.parent / "out", Settings()),
        lambda source: send_folder(source, "A@127.0.0.1:1", calling_ae="A", associations=1),
        PriorFolder,
    ],
    ids=["analyse", "send", "prior"],
)
def test_what_lies_in_a_folder_that_cannot_be_read_is_not_passed_over_in_silence(
    shut: Path, read: Callable[[Path], object]
) -> None:
    make_series(shut.parent / "ct", np.zeros((4, 10, 11)))
    with pytest.raises(Refused, match=rf"closed-folder: {shut} cannot be read \(Permission denied\)"):
        read(shut.parent)


def test_a_file_of_a_study_that_cannot_be_read_is_named_when_it_is_analysed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_series(tmp_path / "ct", np.zeros((4, 10, 11)))
    one, real = sorted((tmp_path / "ct").iterdir())[0], sha256_of

    def refuse(path: Path) -> str:
        if path == one:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr("node.offline.sha256_of", refuse)
    with pytest.raises(
        Refused, match=rf"unreadable-file: {one} cannot be read \(Permission denied\); let the"
    ):
        analyse_folder(tmp_path / "ct", tmp_path / "out", Settings())


def test_a_folder_that_cannot_be_read_is_told_beside_what_was_found(shut: Path) -> None:
    source = shut.parent
    make_series(source / "ct", np.zeros((4, 10, 11)))
    make_seg(source / "seg", [(1, 1, np.ones((10, 11), dtype=np.uint8))])
    index = look(source, "SEG")
    assert len(index.regions) == 1
    (left,) = [one for one in index.left_out if one.code == "closed-folder"]
    assert str(shut) in left.sentence and "Permission denied" in left.sentence
