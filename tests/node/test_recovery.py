from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from dicom_series import make_series
from small_node import SmallNode
from sqlmodel import select
from whole_node import image

from node import recovery as recovery_module
from node.fsck import look, repair
from node.intake import Intake
from node.recovery import Recovery
from store.objects import ObjectStore
from store.part10 import normalise
from store.tables import Event, Instance, Study


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallNode]:
    node = SmallNode.make(tmp_path / "node")
    yield node
    node.database.dispose()


def kept(small: SmallNode, path: Path) -> str:
    """Keep a file as a process would that is killed before it records it; return its hash."""
    temporary = small.objects.temporary()
    normalise(path, temporary)
    return small.objects.keep(temporary).sha256


def images(folder: Path, count: int = 3, **keywords: object) -> list[Path]:
    return make_series(folder, np.arange(count * 64.0).reshape(count, 8, 8), **keywords)  # type: ignore[arg-type]


def version(small: SmallNode, content: int, came: float, *, number: int = 1, patient_id: str = "") -> Path:
    """Return the object of one content of an image, kept and not recorded, with the time at which it came."""
    source = small.home / "sent.dcm"
    source.write_bytes(image(1, number, content, patient_id=patient_id))
    path = small.objects.path(kept(small, source))
    os.utime(path, (came, came))
    return path


def acknowledged(small: SmallNode, content: int, came: float, *, number: int = 1) -> Path:
    """Return the object of one content of an image that was taken in."""
    temporary = small.objects.temporary()
    temporary.write_bytes(image(1, number, content))
    recorded = Intake(small.database, small.objects).take(temporary, source="CT")
    (row,) = [one for one in small.rows(Instance) if one.id == recorded.instance_pk]
    os.utime(small.objects.path(row.sha256), (came, came))
    return small.objects.path(row.sha256)


def counts(small: SmallNode) -> list[str]:
    """Return the hashes of what is current."""
    return [row.sha256 for row in small.rows(Instance) if row.current]


def fsck(small: SmallNode) -> None:
    faults = look(small.database, small.objects, patience_seconds=0)
    assert all(one.mended for one in repair(small.database, small.objects, faults))
    assert look(small.database, small.objects, patience_seconds=0) == []


def run(small: SmallNode) -> tuple[int, int]:
    intake = Intake(small.database, small.objects)
    time.sleep(0.02)  # the clock of files is coarser than ours
    return Recovery(intake).run(lambda: False)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_taken_in_after_a_start_and_stays(
    small: SmallNode, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    strange = small.objects.path("ab" * 32)
    make(strange)
    sha256 = kept(small, images(tmp_path, 1)[0])
    assert run(small) == (1, 0)
    assert [row.sha256 for row in small.rows(Instance)] == [sha256]
    assert strange.exists()


@pytest.mark.parametrize("few", [recovery_module.FEW, -1], ids=["in one pass", "folder by folder"])
def test_what_was_kept_and_not_recorded_is_taken_in_after_a_start(
    small: SmallNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(recovery_module, "FEW", few)
    known, *lonely = images(tmp_path / "in")
    temporary = small.objects.temporary()
    normalise(known, temporary)
    Intake(small.database, small.objects).take(temporary, source="CT")
    hashes = {kept(small, path) for path in lonely}

    assert run(small) == (2, 0)
    assert run(small) == (0, 0)

    assert {row.sha256 for row in small.rows(Instance) if row.source == "recovery"} == hashes
    assert small.check_whole() == 3
    assert [(row.kind, row.text[:9]) for row in small.rows(Event)] == [("recovered", "2 objects")]


def test_a_row_whose_object_is_gone_raises_an_alarm(small: SmallNode, tmp_path: Path) -> None:
    for path in images(tmp_path / "in"):
        kept(small, path)
    run(small)
    lost = small.rows(Instance)[0]
    small.objects.path(lost.sha256).unlink()

    assert run(small) == (0, 1)
    assert [row.kind for row in small.rows(Event)] == ["recovered", "object-missing"]


def test_an_object_that_rotted_or_is_no_dicom_is_put_aside(small: SmallNode, tmp_path: Path) -> None:
    (path,) = images(tmp_path / "in", 1)
    rotten = small.objects.path(kept(small, path))
    rotten.chmod(0o600)
    rotten.write_bytes(b"rot")
    small.objects.put(b"no dicom")

    assert run(small) == (0, 0)
    assert small.rows(Instance) == []
    assert list(small.objects.names()) == []
    assert len(list((small.home / "store" / "quarantine").glob("*.dcm"))) == 2


def test_results_without_a_row_and_objects_that_just_came_are_left_alone(
    small: SmallNode, tmp_path: Path
) -> None:
    (result,) = images(tmp_path / "result", 1, modality="OT", Manufacturer="Nadir", Modality="SEG")
    kept(small, result)
    assert run(small) == (0, 0)

    recovery = Recovery(Intake(small.database, small.objects))
    (late,) = images(tmp_path / "late", 1)
    time.sleep(0.02)
    kept(small, late)
    assert recovery.run(lambda: False) == (0, 0)
    assert small.rows(Instance) == []
    assert len(list(small.objects.names())) == 2


by_both = pytest.mark.parametrize("take_in", [run, fsck])
TakeIn = Callable[[SmallNode], object]


@by_both
def test_what_was_refused_never_takes_the_place_of_what_was_acknowledged_after_it(
    small: SmallNode, take_in: TakeIn
) -> None:
    wrong = version(small, 0, 1000.0, patient_id="SOMEBODY ELSE")
    right = acknowledged(small, 1, 1000.5)
    (before,) = small.rows(Study)
    take_in(small)
    assert counts(small) == [right.stem]
    assert {row.sha256 for row in small.rows(Instance)} == {wrong.stem, right.stem}
    assert small.rows(Study) == [before]
    told = [(row.kind, row.subject) for row in small.rows(Event)]
    assert told[0] == ("conflict", wrong.stem) and ("patient-conflict", str(before.id)) not in told
    assert run(small) == (0, 0)
    assert counts(small) == [right.stem]


@by_both
def test_what_came_at_the_same_time_as_what_was_acknowledged_does_not_count(
    small: SmallNode, take_in: TakeIn
) -> None:
    version(small, 0, 1000.0)
    right = acknowledged(small, 1, 1000.0)
    take_in(small)
    assert counts(small) == [right.stem]


@by_both
def test_what_came_after_what_is_recorded_counts_so_that_lost_rows_lose_nothing(
    small: SmallNode, take_in: TakeIn
) -> None:
    early = acknowledged(small, 0, 1000.0)
    late = version(small, 1, 1001.0)
    take_in(small)
    assert counts(small) == [late.stem]
    assert {row.sha256 for row in small.rows(Instance)} == {early.stem, late.stem}


def test_content_that_came_again_came_when_it_came_last(small: SmallNode) -> None:
    acknowledged(small, 0, 1000.0)
    acknowledged(small, 1, 1001.0)
    again = acknowledged(small, 0, 1003.0)
    version(small, 2, 1002.0)
    assert run(small) == (1, 0)
    assert counts(small) == [again.stem]


def test_of_what_is_gone_the_row_tells_when_it_came(small: SmallNode) -> None:
    gone = acknowledged(small, 0, 1000.0)
    gone.unlink()
    version(small, 1, time.time() - 60)
    assert run(small) == (1, 1)
    assert counts(small) == [gone.stem]
    late = version(small, 2, time.time() + 60)
    assert run(small) == (1, 1)
    assert counts(small) == [late.stem]


@by_both
@pytest.mark.parametrize("few", [recovery_module.FEW, -1], ids=["in one pass", "folder by folder"])
def test_without_any_rows_what_came_last_of_each_image_counts(
    small: SmallNode, monkeypatch: pytest.MonkeyPatch, few: int, take_in: TakeIn
) -> None:
    monkeypatch.setattr(recovery_module, "FEW", few)
    for number in range(1, 9):
        version(small, 0, 1000.0 + number, number=number)
    last = {version(small, 1, 2000.0 + number, number=number).stem for number in range(1, 9)}
    take_in(small)
    assert set(counts(small)) == last
    assert small.check_whole() == 16


def test_when_two_contents_of_an_image_are_current_what_lay_without_a_row_is_not_chosen(
    small: SmallNode,
) -> None:
    version(small, 0, 1000.0)
    for content in (1, 2):
        last = acknowledged(small, content, 1001.0 + content)
    run(small)
    with small.database.transaction() as session:
        for row in session.exec(select(Instance).where(Instance.source == "CT")):
            row.current = True
    fsck(small)
    assert counts(small) == [last.stem]


def test_a_name_whose_bytes_a_power_cut_took_gets_them_when_the_object_is_sent_again(
    small: SmallNode, tmp_path: Path
) -> None:
    (path,) = images(tmp_path / "in", 1)
    torn = small.objects.path(kept(small, path))
    torn.chmod(0o600)
    torn.write_bytes(b"")
    temporary = small.objects.temporary()
    normalise(path, temporary)
    Intake(small.database, small.objects).take(temporary, source="CT")

    assert run(small) == (0, 0)
    assert small.check_whole() == 1
    assert list((small.home / "store" / "quarantine").iterdir()) == []


def test_what_was_acknowledged_cut_within_its_pixel_data_is_taken_in_again(tmp_path: Path) -> None:
    small = SmallNode.make(tmp_path / "node")
    (path,) = images(tmp_path / "in", 1)
    path.write_bytes(path.read_bytes()[:-2])
    sha256 = kept(small, path)
    assert Intake(small.database, ObjectStore(small.home / "store")).adopt(sha256, "recovery") is not None
    assert [row.sha256 for row in small.rows(Instance)] == [sha256]
    small.database.dispose()


def test_what_a_killed_process_had_named_is_on_disk_before_it_has_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = SmallNode.make(tmp_path / "node")
    objects = ObjectStore(small.home / "store")
    sha256 = kept(small, images(tmp_path / "in", 1)[0])
    path, real, seen = objects.path(sha256), os.fsync, []

    def fsync(descriptor: int) -> None:
        seen.append((os.readlink(f"/proc/self/fd/{descriptor}"), len(small.rows(Instance))))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert Intake(small.database, objects).adopt(sha256, "recovery") is not None
    assert seen == [(str(path), 0), (str(path.parent), 0)]
    assert len(small.rows(Instance)) == 1
    small.database.dispose()
