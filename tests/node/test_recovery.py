from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from dicom_series import make_series
from small_node import SmallNode

from node import recovery as recovery_module
from node.intake import Intake
from node.recovery import Recovery
from store.part10 import normalise
from store.tables import Event, Instance


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


def run(small: SmallNode) -> tuple[int, int]:
    intake = Intake(small.database, small.objects)
    time.sleep(0.02)  # the clock of files is coarser than ours
    return Recovery(intake).run(lambda: False)


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
