"""C-FIND, C-GET and C-MOVE as the asking side: with Orthanc and DCMTK, and with peers that misbehave."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import Asking, uids
from dicom_series import make_series
from orthanc_server import OrthancServer, orthanc
from patience import PATIENCE_SECONDS
from ports import free_port
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom import AE, build_context, evt
from query_peers import dcmqrscp, finder, peer
from small_node import SmallNode

from node.intake import Intake
from node.listener import Listener
from node.pacs import HeldSeries
from node.prior_sources import open_source
from node.priors import request
from node.query_retrieve import GET
from node.scu import Timeouts
from node.settings import Settings
from node.spool import LARGEST_UNSPOOLED_BYTES
from plugins.errors import NadirError, Refused, Unavailable
from store import priors
from store.prior_tables import Prior
from store.tables import Instance, Job, Study

SINCE, UNTIL = date(2024, 1, 1), date(2026, 3, 1)
QUICK = Timeouts(connect=2.0, associate=2.0, answer=1.0)
"""Of a client of a peer that falls silent."""


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    made = Asking(tmp_path)
    yield made
    made.stop()


def fails(ask: Callable[[], object]) -> NadirError:
    """Return the error of a call that must neither succeed nor wait for the end of patience."""
    began = time.monotonic()
    with pytest.raises(NadirError) as caught:
        ask()
    assert time.monotonic() - began < PATIENCE_SECONDS / 2
    return caught.value


# --- real archives ----------------------------------------------------------------------------------------------


@contextmanager
def archive(kind: str, paths: list[Path], node_port: int) -> Iterator[str]:
    """Give the address of a real archive that holds these files and knows this node."""
    with ExitStack() as stack:
        if kind == "dcmqrscp":
            yield stack.enter_context(dcmqrscp(paths, node_port))
            return
        known = {"node": {"AET": "NADIR", "Host": "127.0.0.1", "Port": node_port}}
        server: OrthancServer = stack.enter_context(orthanc(modalities=known))
        for path in paths:
            server.upload(path)
        yield f"ORTHANC@127.0.0.1:{server.dicom_port}"


@pytest.mark.parametrize("how", ["get", "move", "auto"])
@pytest.mark.parametrize("kind", ["orthanc", "dcmqrscp"])
def test_earlier_studies_come_from_a_real_archive_byte_for_byte_and_nobody_elses(
    asking: Asking, kind: str, how: str
) -> None:
    # dcmqrscp 3.6.7 sends what is compressed neither by C-GET nor by C-MOVE.
    packed = ExplicitVRLittleEndian if kind == "dcmqrscp" else JPEG2000Lossless
    own = [
        *asking.files("a", 12, study_date="20250101"),
        *asking.files("b", study_date="20250601", transfer_syntax=packed),
        *asking.files("c", modality="PT", study_date="20250601", transfer_syntax=packed),
    ]
    others = [
        *asking.files("later", study_date="20260302"),
        *asking.files("case", patient_id="p1", study_date="20250102"),
        *asking.files("longer", patient_id="P11", study_date="20250103"),
    ]
    wanted = uids([path for path in own if "/c/" not in str(path)])
    with archive(kind, [*own, *others], asking.listener.port) as address:
        asking.asked(address)
        settings = Settings(home=asking.node.home, priors_by=how)
        source = open_source(address, settings, asking.node.objects)
        assert asking.fetch(source) == [("done", None)] * 2  # type: ignore[arg-type]
    assert asking.held() == wanted
    originals = {d.SOPInstanceUID: d for d in map(dcmread, own)}
    for row in asking.node.rows(Instance):
        if row.sop_instance_uid in wanted:
            kept, original = dcmread(asking.node.objects.path(row.sha256)), originals[row.sop_instance_uid]
            assert kept.PixelData == original.PixelData
            assert row.transfer_syntax_uid == original.file_meta.TransferSyntaxUID
    assert [study.prior for study in asking.node.rows(Study)] == [False, True, True]
    assert asking.node.rows(Job) == []
    assert asking.node.incoming() == []


@pytest.mark.parametrize("patient_id", ["A*", "A?", "a1", "*"])
def test_a_wildcard_in_a_patient_id_brings_no_other_patient_from_orthanc(
    asking: Asking, patient_id: str
) -> None:
    own = asking.files("own", patient_id=patient_id, study_date="20250101")
    others = asking.files("other", patient_id="A1", study_date="20250102")
    others += asking.files("another", patient_id="AB", study_date="20250103")
    with archive("orthanc", [*own, *others], asking.listener.port) as address:
        (today,) = asking.files("today", 1, patient_id=patient_id, study_date="20260301")
        copy = asking.node.objects.temporary()
        copy.write_bytes(today.read_bytes())
        study = asking.intake.take(copy, source="CT1").study_pk
        with asking.node.database.transaction() as session:
            request(session, study, [address], now=asking.node.database.now())
        source = open_source(address, Settings(home=asking.node.home), asking.node.objects)
        asking.fetch(source)  # type: ignore[arg-type]
    assert asking.held() == uids(own)
    with asking.node.database.reading() as session:
        assert len(priors.earlier(session, study)) == 1


# --- peers that misbehave ---------------------------------------------------------------------------------------


def test_a_peer_that_is_not_there_or_turns_us_away_is_told_apart(asking: Asking) -> None:
    assert isinstance(fails(lambda: asking.client(free_port()).study_series("1.2")), Unavailable)
    with peer({evt.EVT_C_FIND: finder([])}, models=[GET]) as port:
        error = fails(lambda: asking.client(port).study_series("1.2"))
    assert isinstance(error, Refused)
    assert error.code == "association-rejected"
    ae = AE("PACS")
    ae.require_called_aet = True
    ae.ae_title = "OTHER"
    ae.add_supported_context("1.2.840.10008.5.1.4.1.2.2.1")
    server = ae.start_server(("127.0.0.1", 0), block=False)
    try:
        error = fails(lambda: asking.client(server.server_address[1]).study_series("1.2"))
    finally:
        server.shutdown()
    assert isinstance(error, Refused)


@pytest.mark.fault
def test_a_peer_that_falls_silent_or_goes_away_is_given_up(asking: Asking) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        fails(lambda: asking.client(deaf.getsockname()[1], QUICK).study_series("1.2"))
    silence = threading.Event()

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        silence.wait(2 * PATIENCE_SECONDS)
        yield 0x0000, None

    def leave(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        event.assoc.abort()
        yield 0x0000, None

    for handle in (find, leave):
        with peer({evt.EVT_C_FIND: handle}) as port:
            assert isinstance(fails(lambda: asking.client(port, QUICK).study_series("1.2")), Unavailable)
            silence.set()


def test_a_peer_whose_answer_is_too_long_is_aborted_in_order(
    asking: Asking, caplog: pytest.LogCaptureFixture
) -> None:
    closed = threading.Event()

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        row = Dataset()
        row.TextValue = "x" * LARGEST_UNSPOOLED_BYTES
        yield 0xFF00, row
        closed.wait(PATIENCE_SECONDS)

    def learn(event: evt.Event) -> None:
        closed.set()

    with peer({evt.EVT_C_FIND: find, evt.EVT_CONN_CLOSE: learn}) as port:
        assert isinstance(fails(lambda: asking.client(port).study_series("1.2")), Unavailable)
        assert closed.wait(PATIENCE_SECONDS)
    assert "action=association-aborted reason=protocol error=ValueError" in caplog.text


@pytest.mark.fault
@pytest.mark.parametrize("service", ["get", "move"])
def test_a_retrieve_that_is_pending_for_ever_is_given_up(asking: Asking, service: str) -> None:
    stop = threading.Event()

    def pend(event: evt.Event) -> Iterator[Any]:
        if service == "move":
            contexts = [build_context("1.2.840.10008.1.1")]
            yield "127.0.0.1", asking.listener.port, {"contexts": contexts, "ae_title": "NADIR"}
        yield 10_000
        while not stop.wait(0.2):
            yield 0xFF00, None

    old = asking.files("old", study_date="20250101")
    event = evt.EVT_C_GET if service == "get" else evt.EVT_C_MOVE
    with peer({evt.EVT_C_FIND: finder(old), event: pend}) as port:
        client = asking.client(port, QUICK, how=service, progress_seconds=1.0)
        series = HeldSeries(series_instance_uid="1.2.3", modality="CT")
        keep, missing = (lambda path: None), (lambda: frozenset(uids(old)))
        instances = asking.client(port).series_instances("1.2", str(dcmread(old[0]).SeriesInstanceUID))
        error = fails(lambda: client.fetch("1.2", series, instances, whole=True, keep=keep, missing=missing))
        stop.set()
    assert isinstance(error, Unavailable)


def test_rows_without_end_are_not_read_without_end(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.find.MAX_ROWS", 10)
    with peer({evt.EVT_C_FIND: finder(asking.files("many", 40, study_date="20250101"))}) as port:
        series = dcmread(next(asking.folder.glob("many/*"))).SeriesInstanceUID
        error = fails(lambda: asking.client(port).series_instances("1.2", series))
    assert isinstance(error, Refused)
    assert error.code == "query-too-wide"


def test_rows_that_trickle_in_are_not_waited_for_to_the_last(asking: Asking) -> None:
    def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        row = Dataset()
        row.SeriesInstanceUID = "1.2.3"
        for _ in range(200):
            time.sleep(0.1)
            yield 0xFF00, row
        yield 0x0000, None

    with peer({evt.EVT_C_FIND: find}) as port:
        error = fails(lambda: asking.client(port, find_seconds=1.0).study_series("1.2"))
    assert isinstance(error, Refused)


@pytest.mark.parametrize(
    ("receive_path", "originator"), [("fast", "NADIR"), ("pynetdicom", "NADIR"), ("fast", "PACS")]
)
def test_what_a_c_move_of_ours_brings_is_known_by_its_originator_or_by_a_peer_that_names_itself(
    tmp_path: Path, receive_path: str, originator: str
) -> None:
    node = SmallNode.make(tmp_path / "node")
    asking = Intake(node.database, node.objects)
    listener = Listener(
        node.database, node.objects, host="127.0.0.1", port=free_port(), accept_any=True, reserve_bytes=0,
        receive_path=receive_path,
    )  # fmt: skip
    listener.start()
    try:
        (today,), (old,), (other,) = (
            make_series(tmp_path / day, np.zeros((1, 8, 8)), study_date=day)
            for day in ("20260301", "20250101", "20250601")
        )
        copy = node.objects.temporary()
        copy.write_bytes(today.read_bytes())
        study = asking.take(copy, source="CT1").study_pk
        found = dcmread(old).StudyInstanceUID
        with node.database.transaction() as session:
            now = node.database.now()
            request(session, study, ["PACS@host:104"], now=now)
            session.add(Prior(search_pk=1, study_instance_uid=found, run_after=now, requested_at=now))
        ae = AE("PACS")
        ae.add_requested_context(dcmread(old).SOPClassUID, dcmread(old).file_meta.TransferSyntaxUID)
        association = ae.associate("127.0.0.1", listener.port, ae_title="NADIR")
        for path, named in ((old, originator), (other, originator), (other, "VIEWER")):
            status = association.send_c_store(dcmread(path), originator_aet=named, originator_id=7)
            assert status.Status == 0x0000
        association.release()
        by_date = {f"{row.study_date:%Y%m%d}": row.prior for row in node.rows(Study)}
        assert by_date == {"20260301": False, "20250101": True, "20250601": False}
        association = ae.associate("127.0.0.1", listener.port, ae_title="NADIR")
        with node.database.transaction() as session:
            session.get_one(Prior, 1).state = "done"
        assert association.send_c_store(dcmread(old), originator_aet=originator, originator_id=7).Status == 0
        association.release()
        assert not [row for row in node.rows(Study) if row.prior]
    finally:
        listener.stop()
        node.database.dispose()
