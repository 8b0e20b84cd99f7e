"""The child process against plugins that crash, hang, eat memory and talk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from alive import is_alive
from patience import PATIENCE_SECONDS, eventually

from node.child import LOG, run_in_child
from node.fault import DiskFault
from node.lifeline import end_strays
from node.task import Answer, Task
from plugins.errors import Broken, Refused, Unavailable

GIB = 1 << 30


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def run(make_task: Callable[..., Task], scratch: Path) -> Callable[..., Answer]:
    def go(mode: str, *, memory_bytes: int = 4 * GIB, seconds: float = 60, **changes: object) -> Answer:
        keep_going = changes.pop("keep_going", lambda: True)
        plain = run_in_child(
            make_task(mode, **changes).to_json(),
            scratch,
            memory_bytes=memory_bytes,
            seconds=seconds,
            keep_going=keep_going,  # type: ignore[arg-type]
        )
        return Answer.from_json(plain)

    return go


def test_findings_and_files_come_back_over_the_border(run: Callable[..., Answer]) -> None:
    (analysed,) = run("box").analysed
    assert analysed.error_code is None
    (found,) = analysed.results.found
    assert found.label == "Box box"
    assert found.centroid_mm == pytest.approx((7.0, 6.0, 5.0))
    assert [w.kind for w in analysed.results.written] == ["seg", "sr-volumetric", "sr-planar"]
    assert all(Path(w.path).is_file() for w in analysed.results.written)
    assert set(analysed.seconds) == {"read", "find", "write"}


def test_a_segmentation_fault_is_refused_by_its_signal(run: Callable[..., Answer], scratch: Path) -> None:
    with pytest.raises(Refused) as refused:
        run("segfault")
    assert refused.value.code == "analysis-crashed"
    assert "SIGSEGV" in refused.value.sentence
    # What a library prints stays in the scratch folder, which goes with the job.
    assert "P1-SECRET" in (scratch / LOG).read_text()
    assert "P1-SECRET" not in refused.value.sentence


def test_memory_ends_at_the_limit_and_the_sentence_says_what_to_raise(run: Callable[..., Answer]) -> None:
    with pytest.raises(Refused, match="raise job_memory_bytes") as refused:
        run("memory", memory_bytes=3 * GIB)
    assert refused.value.code == "analysis-out-of-memory"
    assert "3072 MiB" in refused.value.sentence


def test_a_hanging_analysis_is_stopped_at_its_time(run: Callable[..., Answer]) -> None:
    began = time.monotonic()
    with pytest.raises(Refused) as refused:
        run("hang", seconds=4)
    assert refused.value.code == "analysis-too-long"
    assert time.monotonic() - began < PATIENCE_SECONDS  # it hangs for as long as it is let


def test_a_fault_of_a_plugin_tells_its_place_and_no_word_of_the_patient(run: Callable[..., Answer]) -> None:
    (analysed,) = run("fault").analysed
    assert analysed.error_code == "broken"
    assert analysed.error_text is not None
    assert "ValueError at" in analysed.error_text
    assert "trouble.py:" in analysed.error_text
    assert "node/plugin_run.py:" in analysed.error_text
    assert "SECRET" not in analysed.error_text


@pytest.mark.parametrize("mode", ["exits", "exits_when_asked"])
def test_a_plugin_that_exits_is_a_fault_and_not_a_crash(run: Callable[..., Answer], mode: str) -> None:
    (analysed,) = run(mode).analysed
    assert analysed.error_code == "broken"
    assert "plugin 'trouble' 1 failed: SystemExit at" in (analysed.error_text or "")


def test_a_plugin_that_plays_ctrl_c_is_a_fault_and_not_a_crash(run: Callable[..., Answer]) -> None:
    with pytest.raises(Broken, match=r"^KeyboardInterrupt at "):
        run("interrupts")


def test_endless_recursion_is_a_fault_and_not_a_crash(run: Callable[..., Answer]) -> None:
    (analysed,) = run("deep").analysed
    assert analysed.error_code == "broken"
    assert "RecursionError" in (analysed.error_text or "")


def test_a_fault_in_writing_is_told_by_its_place(run: Callable[..., Answer]) -> None:
    (analysed,) = run("box", predecessors={"sr-planar": "/nowhere/SECRET.dcm"}).analysed
    assert analysed.error_code == "broken"
    assert "FileNotFoundError at node/pipeline.py:" in (analysed.error_text or "")
    assert "SECRET" not in (analysed.error_text or "")


def test_a_fault_of_ours_is_broken_with_its_place(run: Callable[..., Answer]) -> None:
    with pytest.raises(Broken, match=r"^TypeError at node/task.py:\d+"):
        run("box", files=None)


def test_a_plugin_that_is_not_there_is_refused_by_name(run: Callable[..., Answer]) -> None:
    with pytest.raises(Refused) as refused:
        run("box", plugins=("nobody",), plugin_settings={})
    assert refused.value.code == "unknown-plugin"


def test_the_child_is_told_no_setting_of_the_node(
    run: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NADIR_DATABASE_URL", "postgresql://nadir:secret@db/nadir")
    (analysed,) = run("secrets").analysed
    assert (analysed.error_code, analysed.error_text) == ("environment", "nothing")


def test_an_analysis_that_is_no_longer_wanted_is_stopped_at_once(run: Callable[..., Answer]) -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable):
        run("hang", seconds=4 * PATIENCE_SECONDS, keep_going=lambda: time.monotonic() - began < 2)
    assert time.monotonic() - began < PATIENCE_SECONDS


def test_a_child_that_writes_half_an_answer_has_crashed(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scratch / "answer.json").write_text('{"analysed": [')
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(Refused, match="half an answer"):
        run_in_child("{}", scratch, memory_bytes=GIB, seconds=10)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_child_that_can_leave_no_answer_for_want_of_space_says_so(
    make_task: Callable[..., Task], scratch: Path
) -> None:
    (scratch / "answer.json.partial").symlink_to("/dev/full")
    with pytest.raises(DiskFault, match="free or mend it"):
        run_in_child(make_task("box").to_json(), scratch, memory_bytes=4 * GIB, seconds=60)


def test_a_full_disk_under_the_results_is_no_fault_of_the_study(
    run: Callable[..., Answer], tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4096", "tmpfs", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        with pytest.raises(DiskFault, match=r"\(No space left on device\)"):
            run("box", out=str(small))
    finally:
        subprocess.run(["umount", small], check=True)


PARENT = """
import sys
from pathlib import Path
from node.child import run_in_child
run_in_child(Path(sys.argv[1]).read_text(), Path(sys.argv[2]), memory_bytes=4 << 30, seconds=600)
"""


def test_no_analysis_outlives_a_killed_parent(
    make_task: Callable[..., Task], scratch: Path, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    settings = {"trouble": {"mode": "hang", "journal": str(journal)}}
    (tmp_path / "task").write_text(make_task(plugin_settings=settings).to_json())
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "task"), str(scratch)])
    numbers = eventually(lambda: journal.read_text().split()[1:] if journal.is_file() else [])
    child = int(numbers.pop())
    for number in (signal.SIGTERM, signal.SIGHUP):
        os.kill(child, number)  # a whole service is told to end: the child leaves that to its parent
    time.sleep(0.3)
    assert is_alive(child)
    parent.kill()
    parent.wait(60)
    assert eventually(lambda: not is_alive(child))


def test_what_an_analysis_of_a_killed_parent_started_is_found_by_its_folder_and_ended(
    make_task: Callable[..., Task], scratch: Path, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    settings = {"trouble": {"mode": "leaves_one_and_hangs", "journal": str(journal)}}
    (tmp_path / "task").write_text(make_task(plugin_settings=settings).to_json())
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "task"), str(scratch)])
    told = eventually(lambda: "left" in (text := journal.read_text() if journal.is_file() else "") and text)
    child, left = (int(word) for word in str(told).split() if word.isdigit())
    parent.kill()
    parent.wait(60)
    assert eventually(lambda: not is_alive(child))
    assert is_alive(left)
    end_strays(tmp_path / "another" / scratch.name)
    assert is_alive(left)
    end_strays(scratch)
    assert eventually(lambda: not is_alive(left))


@pytest.mark.parametrize(
    ("mode", "code"), [("leaves_one_behind", None), ("leaves_one_and_crashes", "analysis-crashed")]
)
def test_what_a_plugin_started_ends_with_its_job_although_the_job_ended_by_itself(
    run: Callable[..., Answer], tmp_path: Path, mode: str, code: str | None
) -> None:
    journal = tmp_path / "journal"
    try:
        (analysed,) = run(mode, plugin_settings={"trouble": {"mode": mode, "journal": str(journal)}}).analysed
        ended = analysed.error_code
    except Refused as refused:
        ended = refused.code
    assert ended == code
    left = int(journal.read_text().split()[-1])
    assert eventually(lambda: not is_alive(left))


def test_the_number_of_a_child_that_ended_is_its_own_until_what_it_started_was_killed(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[str] = []

    def kill(group: int, how: int) -> None:
        killed.append(Path(f"/proc/{group}/stat").read_text().rpartition(")")[2].split()[0])

    (scratch / "answer.json").write_text('{"analysed": []}')
    monkeypatch.setattr(sys, "executable", "/bin/true")
    monkeypatch.setattr(os, "killpg", kill)
    assert run_in_child("{}", scratch, memory_bytes=GIB, seconds=10) == {"analysed": []}
    assert killed == ["Z"]


def test_a_large_task_does_not_block_the_parent(run: Callable[..., Answer], small_study: list[Path]) -> None:
    many = tuple(map(str, small_study)) + tuple(f"/nowhere/{'x' * 200}/{n}.dcm" for n in range(5000))
    (analysed,) = run("box", files=many).analysed
    assert analysed.error_code is None
