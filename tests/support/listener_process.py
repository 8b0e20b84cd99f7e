"""A listener in a process of its own, so that it can be killed, limited and measured.

As a program: `python listener_process.py HOME JSON`, where the JSON object holds the keywords of Listener,
`file_size_limit` and `tls`, the settings of a TLS port; prints its ports, and drains on SIGTERM.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from empty_database import place_database
from patience import PATIENCE_SECONDS, PATIENT_LIMITS

from node.listener import Listener
from node.logs import configure
from node.process import End
from node.reception import Door
from node.settings import Settings
from node.socket_guard import Limits
from node.tls_renewed import listening
from store.database import Database
from store.objects import ObjectStore


class ListenerProcess:
    """A running listener; `home` holds its bytes and rows, `under` is a program that runs it, such as strace.

    It is patient with whoever is slow, unless `limits` are given; `{}` are those of the node.
    """

    def __init__(self, home: Path, *, under: Sequence[str] = (), **keywords: object) -> None:
        self.home = home
        keywords.setdefault("limits", asdict(PATIENT_LIMITS))
        self.log = home / "log.txt"
        place_database(home)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*under, sys.executable, __file__, str(home), json.dumps(keywords)],
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        if not said:
            raise RuntimeError(f"the listener did not start: {self.log.read_text()}")
        self.port, self.tls_port = map(int, said.split())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def resident_bytes(self) -> int:
        """Return the memory that the process has in use."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize()

    def terminate(self, timeout: float = PATIENCE_SECONDS) -> int:
        """Ask it to end, and return its exit code."""
        self.process.terminate()
        code = self.process.wait(timeout)
        self._close()
        return code

    def kill(self) -> None:
        """Kill it at once, and who traces it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._close()

    def _close(self) -> None:
        if self.process.stdout is not None:
            self.process.stdout.close()


def main(home: Path, keywords: dict[str, object]) -> None:
    """Run a listener until SIGTERM."""
    configure("INFO")
    file_size_limit = keywords.pop("file_size_limit", None)
    limits, tls = keywords.pop("limits", None), keywords.pop("tls", None)
    drain_seconds = keywords.pop("drain_seconds", 20.0)
    door = Door(port=0, new_context=listening(Settings(**tls))) if isinstance(tls, dict) else None
    database = Database(f"sqlite:///{home / 'nadir.sqlite'}")
    listener = Listener(
        database,
        ObjectStore(home / "store"),
        host="127.0.0.1",
        tls=door,
        **{"port": 0, "accept_any": True, "reserve_bytes": 0, **keywords},  # type: ignore[arg-type]
        limits=Limits(**limits) if isinstance(limits, dict) else None,
    )
    listener.start()
    if isinstance(file_size_limit, int):
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size_limit, file_size_limit))
    end = End(signal.SIGTERM)
    sys.stdout.write(f"{listener.port} {listener.tls_port}\n")
    sys.stdout.flush()
    end.wait()
    listener.drain(float(str(drain_seconds)))
    database.dispose()


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
