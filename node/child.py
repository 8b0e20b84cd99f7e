"""The child process that one analysis runs in, so that a crash in a decoder kills one job and not the node.

The parent writes a `Task` to the child's standard input; the child writes `result.json` into a scratch folder.
It opens no connection, and the parent sets how much memory and time it may take.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from plugins.errors import Broken, NadirError, Refused, Unavailable

RESULT = "result.json"


def run_in_child(
    task_json: str,
    scratch: Path,
    *,
    memory_bytes: int,
    seconds: float,
    keep_going: Callable[[], bool] = lambda: True,
    ask_seconds: float = 0.5,
) -> dict[str, Any]:
    """Return the plain data of the answer, after a child process ran the task.

    `scratch` is a folder for what the two processes tell each other; results go to the task's own folder.
    `keep_going` is asked every `ask_seconds` and may stop the child by returning False (then `Unavailable`).
    Raises `Refused` (`analysis-crashed`, `analysis-too-long`, `analysis-out-of-memory`) when the child ended
    without a result, and `Broken` for a fault of our own that the child reports.
    """
    with (scratch / "child.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "node.child", str(scratch), str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _feed(child, task_json)
            _wait(child, seconds, keep_going, ask_seconds)
        finally:
            _end(child)
    return _result(child.returncode, scratch)


def _feed(child: subprocess.Popen[bytes], text: str) -> None:
    assert child.stdin is not None
    with suppress(BrokenPipeError):
        child.stdin.write(text.encode())
        child.stdin.close()


def _wait(
    child: subprocess.Popen[bytes], seconds: float, keep_going: Callable[[], bool], ask_seconds: float
) -> None:
    deadline = time.monotonic() + seconds
    beat = time.monotonic() + ask_seconds
    pause = 0.02
    while child.poll() is None:
        now = time.monotonic()
        if now > deadline:
            raise Refused(
                "analysis-too-long", f"the analysis did not end within {seconds:.0f} s and was stopped"
            )
        if now > beat:
            if not keep_going():
                raise Unavailable("the analysis was stopped because its job is no longer ours")
            beat = now + ask_seconds
        with suppress(subprocess.TimeoutExpired):
            child.wait(pause)
        pause = min(pause * 2, 0.5)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _result(returncode: int, scratch: Path) -> dict[str, Any]:
    path = scratch / RESULT
    if not path.is_file():
        how = f"signal {signal.Signals(-returncode).name}" if returncode < 0 else f"exit status {returncode}"
        raise Refused("analysis-crashed", f"the process that analysed the study ended with {how}")
    answer: dict[str, Any] = json.loads(path.read_text())
    if "analysed" in answer:
        return answer
    if answer["kind"] == "refused":
        raise Refused(answer["code"], answer["sentence"])
    raise Broken(answer["sentence"])


def main() -> None:
    """Run the task on standard input; always leave a result, whatever happens."""
    scratch, memory_bytes = Path(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _die_with_parent()
    answer: dict[str, object]
    try:
        from node.pipeline import Task, analyse

        answer = analyse(Task.from_json(sys.stdin.read())).to_json()
    except Refused as refusal:
        answer = {"kind": "refused", "code": refusal.code, "sentence": refusal.sentence}
    except MemoryError:
        sentence = f"the analysis needs more than {memory_bytes >> 20} MiB; raise job_memory_bytes"
        answer = {"kind": "refused", "code": "analysis-out-of-memory", "sentence": sentence}
    except NadirError as error:
        answer = {"kind": "broken", "sentence": str(error)}
    except Exception as error:
        answer = {"kind": "broken", "sentence": _where(error)}
    partial = scratch / (RESULT + ".partial")
    partial.write_text(json.dumps(answer))
    partial.replace(scratch / RESULT)


def _where(error: BaseException) -> str:
    """Return the type of an error and the line of ours that it came from; never its text, which may hold PHI."""
    trace, place = error.__traceback__, "?"
    root = Path(__file__).parents[1]
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_relative_to(root) and "site-packages" not in file.parts[len(root.parts) :]:
            place = f"{file.relative_to(root)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__} at {place}"


def _die_with_parent() -> None:
    """End this process when the parent is gone, so that a killed node leaves no analysis behind."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main()
