"""The child process that analyses run in, so that a crash in a decoder kills one job and not the node.

The parent writes a `Task` into a scratch folder, the child writes its answer beside it. The child opens no connection
and is given no password; the parent sets how much memory and time it may take.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from node.fault import DISK_FAULT, DiskFault, disk_fault, place
from node.lifeline import die_with, mark_of
from plugins.errors import Broken, NadirError, Refused, Unavailable

TASK = "task.json"
ANSWER = "answer.json"
LOG = "child.log"
MOST_PAUSE_SECONDS = 0.05


def run_in_child(
    task_json: str,
    scratch: Path,
    *,
    memory_bytes: int,
    seconds: float,
    keep_going: Callable[[], bool] = lambda: True,
    ask_seconds: float = 0.25,
) -> dict[str, Any]:
    """Return the plain data of the answer, after a child process ran the task.

    `scratch` is a folder for what the two processes tell each other, and for what libraries print (`child.log`, which
    may quote a patient's data and is for nobody's eyes but an administrator's); results go to the task's own folder.
    What the task started ends with it. `keep_going` is asked every `ask_seconds` and may stop the child by returning
    False (then `Unavailable`, which also a model raises that cannot be read from here, and, as `DiskFault`, a full or
    failing disk).
    Raises `Refused` (`analysis-crashed`, `analysis-too-long`, `analysis-out-of-memory`, and what loading the plugins
    refuses), and `Broken` for a fault of our own that the child reports.
    """
    (scratch / TASK).write_text(task_json)
    command = [sys.executable, "-P", "-m", "node.child", str(scratch), str(memory_bytes), str(os.getpid())]
    with (scratch / LOG).open("wb") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            # What reads foreign bytes is not told the database's password nor the hook's token.
            env={name: value for name, value in os.environ.items() if not name.startswith("NADIR_")}
            | mark_of(scratch),
        )
        try:
            _wait(child, seconds, keep_going, ask_seconds)
        finally:
            _end(child)
    return _answer(child.returncode, scratch)


def _wait(
    child: subprocess.Popen[bytes], seconds: float, keep_going: Callable[[], bool], ask_seconds: float
) -> None:
    deadline = time.monotonic() + seconds
    ask = time.monotonic() + ask_seconds
    pause = 0.01
    while not _has_ended(child):
        now = time.monotonic()
        if now > deadline:
            sentence = f"the analysis did not end within {seconds:g} s and was stopped; raise job_seconds"
            raise Refused("analysis-too-long", sentence)
        if now > ask:
            if not keep_going():
                raise Unavailable("the analysis was stopped: its job is no longer ours, or the node ends")
            ask = now + ask_seconds
        time.sleep(pause)
        pause = min(pause * 2, ask_seconds, MOST_PAUSE_SECONDS)


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    """Return True once the child ended; it is not reaped, so that its number goes to no other process."""
    try:
        return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # who started this process has the kernel reap its children
        return True


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill the child and what it started, also what it left behind when it ended by itself; then reap it."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _answer(returncode: int, scratch: Path) -> dict[str, Any]:
    path = scratch / ANSWER
    if returncode == os.EX_IOERR:
        raise DiskFault(DISK_FAULT.format(reason="no answer could be left"))
    if not path.is_file():
        how = f"signal {signal.Signals(-returncode).name}" if returncode < 0 else f"exit status {returncode}"
        raise Refused("analysis-crashed", f"the process that analysed the study ended with {how}")
    try:
        answer: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise Refused(
            "analysis-crashed", "the process that analysed the study left half an answer"
        ) from error
    if "analysed" in answer:
        return answer
    if answer["kind"] == "refused":
        raise Refused(answer["code"], answer["sentence"])
    if answer["kind"] == "disk":
        raise DiskFault(answer["sentence"])
    if answer["kind"] == "unavailable":
        raise Unavailable(answer["sentence"])
    raise Broken(answer["sentence"])


def main() -> None:
    """Run the task in the scratch folder; leave an answer, whatever happens short of a crash."""
    scratch, memory_bytes, parent = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    # A whole service may be told to end at once; it is for the parent to end this process.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    die_with(parent)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answer = _run(scratch, memory_bytes)
    gc.collect()  # after a MemoryError the arrays go before the answer is written
    partial = scratch / (ANSWER + ".partial")
    try:
        partial.write_text(json.dumps(answer))
        partial.replace(scratch / ANSWER)
    except OSError:
        sys.exit(os.EX_IOERR)


def _run(scratch: Path, memory_bytes: int) -> dict[str, object]:
    try:
        text = (scratch / TASK).read_text()
        if json.loads(text).get("task") == "response":
            from node.response_job import ResponseTask
            from node.response_report import write_response

            return write_response(ResponseTask.from_json(text)).to_json()
        from node.pipeline import analyse
        from node.task import Task

        return analyse(Task.from_json(text)).to_json()
    except Refused as refusal:
        return {"kind": "refused", "code": refusal.code, "sentence": refusal.sentence}
    except MemoryError:
        sentence = (
            f"the analysis needs more than {memory_bytes >> 20} MiB; raise job_memory_bytes and retry it"
        )
        return {"kind": "refused", "code": "analysis-out-of-memory", "sentence": sentence}
    except BaseException as error:  # the border of this process: no Ctrl-C comes here, foreign code may exit
        if fault := disk_fault(error):
            return {"kind": "disk", "sentence": str(fault)}
        kind = "unavailable" if isinstance(error, Unavailable) else "broken"
        return {"kind": kind, "sentence": str(error) if isinstance(error, NadirError) else place(error)}


if __name__ == "__main__":
    main()
