"""Query/retrieve peers: DCMTK's dcmqrscp, and one made of pynetdicom that is wrong in the way a test asks for."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dcmtk_tools import dcmtk
from ports import free_port
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, evt
from pynetdicom.presentation import AllStoragePresentationContexts

from node.query_retrieve import FIND, GET, MOVE
from node.scu import send_files
from plugins.errors import Unavailable

CONFIG = """NetworkTCPPort = {port}
MaxPDUSize = 16384
MaxAssociations = 16
HostTable BEGIN
node = (NADIR, 127.0.0.1, {node_port})
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
QRSCP {folder} RW (200, 1024mb) ANY
AETable END
"""


@contextmanager
def dcmqrscp(paths: Sequence[Path], node_port: int) -> Iterator[str]:
    """Give the address of a dcmqrscp that holds these files and may move them to AE NADIR at `node_port`."""
    program, port = dcmtk("dcmqrscp"), free_port()
    with tempfile.TemporaryDirectory(prefix="nadir-qrscp-") as name:
        folder = Path(name)
        (folder / "db").mkdir()
        config = folder / "dcmqrscp.cfg"
        config.write_text(CONFIG.format(port=port, node_port=node_port, folder=folder / "db"))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([program, "-c", str(config)], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 120
            while True:
                with suppress(Unavailable):
                    sent = send_files(paths, ae_title="QRSCP", host="127.0.0.1", port=port)
                    assert all(one.ok for one in sent), sent
                    break
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.1)
            yield f"QRSCP@127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait(60)


Handler = Callable[[evt.Event], Any]


@contextmanager
def peer(
    handlers: Mapping[Any, Handler],
    models: Sequence[str] = (FIND, MOVE, GET),
    *,
    may_get: bool = True,
) -> Iterator[int]:
    """Give the port of a query/retrieve SCP that answers as the handlers do."""
    ae = AE("PACS")
    for model in models:
        ae.add_supported_context(model)
    for context in AllStoragePresentationContexts:
        ae.add_supported_context(str(context.abstract_syntax), scu_role=may_get, scp_role=True)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(event, handle) for event, handle in handlers.items()]
    )
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()


def rows(paths: Sequence[Path]) -> list[Dataset]:
    """Return what a C-FIND at any level may tell of files: of each its identity."""
    found = []
    for path in paths:
        header, row = dcmread(path, stop_before_pixels=True), Dataset()
        for keyword in (
            "PatientID", "StudyDate", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "SOPInstanceUID",
            "SOPClassUID",
        ):  # fmt: skip
            setattr(row, keyword, header.get(keyword))
        row.ModalitiesInStudy = header.Modality
        found.append(row)
    return found


def finder(paths: Sequence[Path]) -> Handler:
    """Return a handler of C-FIND that tells of all files at the level that it is asked for."""
    told = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        level = str(event.identifier.QueryRetrieveLevel)
        unique = {getattr(row, told[level]): row for row in rows(paths)}
        wanted = str(event.identifier.get("SeriesInstanceUID") or "")
        for row in unique.values():
            row.QueryRetrieveLevel = level
            if level != "IMAGE" or row.SeriesInstanceUID == wanted:
                yield 0xFF00, row
        yield 0x0000, None

    return find


def getter(paths: Sequence[Path], *, cancel_after: int = 10**6) -> Handler:
    """Return a handler of C-GET that gives these files whatever it is asked for, and perhaps stops in the middle."""

    def get(event: evt.Event) -> Iterator[Any]:
        wanted = event.identifier.get("SOPInstanceUID")
        wanted = {wanted} if isinstance(wanted, str) else set(wanted or ())
        given = [dcmread(p) for p in paths]
        given = [d for d in given if not wanted or d.SOPInstanceUID in wanted]
        yield len(given)
        for number, dataset in enumerate(given):
            if number == cancel_after or event.is_cancelled:
                yield 0xFE00, None
                return
            yield 0xFF00, dataset

    return get


def mover(
    paths: Sequence[Path], port: int, *, announced: int | None = None, last: int | None = None
) -> Handler:
    """Return a handler of C-MOVE that sends these files to a port of this machine, and perhaps ends with a status."""

    def move(event: evt.Event) -> Iterator[Any]:
        given = [dcmread(path) for path in paths]
        contexts = [build_context(d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in given]
        contexts = contexts or [build_context("1.2.840.10008.1.1")]
        yield "127.0.0.1", port, {"contexts": contexts, "ae_title": "NADIR"}
        yield len(given) if announced is None else announced
        for dataset in given:
            yield 0xFF00, dataset
        if last is not None:
            yield last, None

    return move


__all__ = ["dcmqrscp", "finder", "getter", "mover", "peer", "rows"]
