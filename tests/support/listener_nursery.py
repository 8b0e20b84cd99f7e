"""Listeners that start within milliseconds, to be killed: a process that has imported everything forks each of them.

As a program, `python listener_nursery.py HOME URL`: a JSON object with the keywords of Listener and `failpoint` starts
one, and is answered with its port; a signal number then ends it, and is answered with its exit code.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from node.listener import Listener
from node.logs import configure
from store.database import Database
from store.objects import ObjectStore


class Nursery:
    """Starts one listener after the other in one folder."""

    def __init__(self, home: Path, *, database_url: str = "") -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.log = home / "log.txt"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(home), database_url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)  # with the listener that it forked
        self._process.communicate()

    def start(self, failpoint: str = "", **keywords: object) -> int:
        """Return the port of a new listener; with a fail point it ends by itself when it comes there."""
        return int(self._ask(json.dumps({"failpoint": failpoint, **keywords})))

    def end(self, number: int = signal.SIGKILL) -> int:
        """Send a signal to the listener, when it still runs, and return its exit code, negative for a signal."""
        return int(self._ask(str(int(number))))

    def _ask(self, question: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(question + "\n")
        said = self._process.stdout.readline()
        if not said:
            raise RuntimeError(f"the nursery ended: {self.log.read_text()[-4000:]}")
        return said


def say(text: str) -> None:
    """Write a line to whoever asked."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def live(home: Path, url: str, keywords: dict[str, object]) -> None:
    """Run one listener until it is killed, or until SIGTERM."""
    os.environ["NADIR_FAILPOINT"] = str(keywords.pop("failpoint"))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    values = {"port": 0, "accept_any": True, "reserve_bytes": 0, **keywords}
    listener = Listener(Database(url), ObjectStore(home / "store"), host="127.0.0.1", **values)  # type: ignore[arg-type]
    listener.start()
    say(str(listener.port))
    signal.sigwait({signal.SIGTERM})
    listener.drain(10.0)


def main(home: Path, url: str) -> None:
    """Fork a listener, end it, and so on; it is waited for only when it is ended, so that its number stays its own."""
    configure("INFO")
    database = Database(url)
    database.upgrade()
    database.dispose()
    while keywords := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            live(home, url, json.loads(keywords))
            os._exit(0)
        os.kill(child, int(sys.stdin.readline() or signal.SIGKILL))
        say(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] or f"sqlite:///{Path(sys.argv[1]) / 'nadir.sqlite'}")
