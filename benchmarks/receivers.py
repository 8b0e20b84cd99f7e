"""Receivers to compare, each in a process of its own: storescp, Orthanc, stock pynetdicom, and Nadir in two depths.

As a program, `python receivers.py pynetdicom|files FOLDER PORT`, it is one of those that need Python.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

PATH = f"/usr/bin:/usr/sbin:{os.environ.get('PATH', '')}"
PDU_BYTES = 1 << 17
PAGE_BYTES, TICKS = resource.getpagesize(), os.sysconf("SC_CLK_TCK")
START_SECONDS = 60.0


class Receiver(ABC):
    """One receiver, from `start` to `stop`, with its own folder and its own measured process."""

    name = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.peak_bytes = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._watching = threading.Event()

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Return the command line."""

    def stored(self) -> Iterator[Path]:
        """Give the files that hold the objects."""
        yield from (path for path in self.folder.rglob("*") if path.is_file() and _is_dicom(path))

    def start(self) -> None:
        """Start it; returns when its port answers."""
        self.folder.mkdir(parents=True)
        command = self.command()
        with (self.folder.parent / f"{self.folder.name}.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, "PATH": PATH, "TCP_NODELAY": "1"}
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
            except OSError:
                time.sleep(0.05)
                continue
            time.sleep(0.3)
            threading.Thread(target=self._watch, daemon=True).start()
            return
        raise RuntimeError(f"{self.name} did not start: {' '.join(command)}")

    def cpu_seconds(self) -> float:
        """Return the processor time it has used, of its processes that live and those that it has waited for."""
        ticks = 0
        for pid in self._pids():
            with suppress(OSError):  # it has ended meanwhile
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(int(field) for field in fields[11:15])
        return ticks / TICKS

    def stop(self) -> None:
        """End it."""
        self._watching.set()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _pids(self) -> list[int]:
        assert self._process is not None
        found, i = [self._process.pid], 0
        while i < len(found):
            with suppress(OSError):
                for task in Path(f"/proc/{found[i]}/task").glob("*/children"):
                    found += map(int, task.read_text().split())
            i += 1
        return found

    def _watch(self) -> None:
        """Keep the largest sum of resident memory over all of its processes."""
        while not self._watching.wait(0.02):
            total = 0
            for pid in self._pids():
                with suppress(OSError):
                    total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
            self.peak_bytes = max(self.peak_bytes, total)


class StoreScp(Receiver):
    """DCMTK's storescp as fast as it goes: long PDUs, and data sets written as they came."""

    name = "storescp"
    flags: tuple[str, ...] = ()

    def command(self) -> Sequence[str]:
        """Return the command line."""
        flags = ("-pdu", str(PDU_BYTES), "--bit-preserving", *self.flags)
        return (_program("storescp"), *flags, "-od", str(self.folder), str(self.port))


class ForkingStoreScp(StoreScp):
    """The same with a process for each association."""

    name = "storescp --fork"
    flags = ("--fork",)


class Orthanc(Receiver):
    """Orthanc without plugins and HTTP."""

    name = "Orthanc, no sync"
    sync = False

    def command(self) -> Sequence[str]:
        """Return the command line, with a configuration beside the folder."""
        config = {
            "StorageDirectory": str(self.folder / "db"),
            "IndexDirectory": str(self.folder / "db"),
            "HttpServerEnabled": False,
            "DicomPort": self.port,
            "DicomAlwaysAllowStore": True,
            "DicomCheckCalledAet": False,
            "MaximumPduLength": PDU_BYTES,
            "OverwriteInstances": True,
            "SyncStorageArea": self.sync,
            "Plugins": [],
        }
        path = self.folder / "orthanc.json"
        path.write_text(json.dumps(config))
        return (_program("Orthanc"), str(path))


class SyncingOrthanc(Orthanc):
    """Orthanc as it comes: it syncs the file, not the commit of its index."""

    name = "Orthanc, default"
    sync = True


class StockPynetdicom(Receiver):
    """pynetdicom as it comes, with the quickest handler: the encoded data set goes to a file."""

    name = "pynetdicom, stock"

    def command(self) -> Sequence[str]:
        """Return the command line."""
        return (sys.executable, __file__, "pynetdicom", str(self.folder), str(self.port))


class NadirFiles(Receiver):
    """Nadir's reception alone, which writes files as storescp does: no hash, no header scan, no SQL."""

    name = "Nadir, files only"

    def command(self) -> Sequence[str]:
        """Return the command line."""
        return (sys.executable, __file__, "files", str(self.folder), str(self.port))


class Nadir(Receiver):
    """The complete node's listener: hash, header scan, and a row in SQL for each image."""

    name = "Nadir"
    flags: tuple[str, ...] = ()

    def command(self) -> Sequence[str]:
        """Return the command line."""
        nadir = str(Path(sys.executable).with_name("nadir"))
        at = ("--dicom-host", "127.0.0.1", "--dicom-port", str(self.port), "--home", str(self.folder))
        bounds = ("--reserve-bytes", "0", "--log-level", "WARNING")
        return (nadir, "serve", "--role", "listener", "--accept-any", *at, *bounds, *self.flags)

    def stored(self) -> Iterator[Path]:
        """Give the files that hold the objects."""
        yield from (self.folder / "store" / "objects").rglob("*.dcm")


class NadirNoSync(Nadir):
    """The same, acknowledged before it is on disk for good."""

    name = "Nadir, no sync"
    flags = ("--no-sync",)


class NadirPynetdicom(NadirNoSync):
    """The same on the slow path, with pynetdicom's own threads."""

    name = "Nadir, no sync, slow path"
    flags = ("--no-sync", "--receive-path", "pynetdicom")


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _program(name: str) -> str:
    path = shutil.which(name, path=PATH)
    if path is None:
        raise FileNotFoundError(name)
    return path


def _is_dicom(path: Path) -> bool:
    """Return True for a whole Part 10 file; Orthanc also keeps each header in a file of its own."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM" and path.stat().st_size > 1 << 16


def _serve_files(folder: Path, port: int) -> None:
    import itertools

    from node.callers import Callers
    from node.desk import Arrival, Peer
    from node.reception import Reception

    class Files:
        def __init__(self) -> None:
            self._numbers = itertools.count()

        def temporary(self) -> Path:
            return folder / f"{next(self._numbers)}.dcm"

        def free_bytes(self) -> int:
            return 1 << 60

        def receive(self, arrival: Arrival) -> int:
            arrival.require_path()
            return 0

        def left(self, peer: Peer) -> None: ...

        def turned_away(self, reason: str, calling_ae: str, address: str) -> None: ...

    callers = Callers(entries=(), accept_any=True)
    reception = Reception(
        Files(),
        ae_title="NADIR",
        host="127.0.0.1",
        port=port,
        callers=callers,
        max_associations=500,
        reserve_bytes=0,
        hashing=False,
    )
    reception.start()
    threading.Event().wait()


def _serve_pynetdicom(folder: Path, port: int) -> None:
    from pynetdicom import AE, AllStoragePresentationContexts, evt
    from pynetdicom.events import Event

    def store(event: Event) -> int:
        path = folder / f"{event.request.AffectedSOPInstanceUID}.dcm"
        path.write_bytes(event.encoded_dataset())
        return 0

    ae = AE()
    ae.maximum_pdu_size, ae.maximum_associations = PDU_BYTES, 1000
    ae.supported_contexts = AllStoragePresentationContexts
    ae.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, store)])


if __name__ == "__main__":
    serve = {"pynetdicom": _serve_pynetdicom, "files": _serve_files}[sys.argv[1]]
    serve(Path(sys.argv[2]), int(sys.argv[3]))
