from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from dcmtk_tools import start_dcmtk
from dicom_series import make_series
from patience import PATIENCE_SECONDS, PATIENT, eventually
from pydicom import Dataset, dcmread
from pydicom.uid import JPEG2000Lossless, RLELossless
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.association import MODE_REQUESTOR, Association

from node.archive import Archive
from node.requestor import AttentiveDimse, DialingSocket, SendingAE
from node.scu import Sent, Timeouts, echo, send_files
from plugins.errors import Refused, Unavailable

SHORT = Timeouts(connect=2.0, associate=2.0, answer=2.0)


def series(folder: Path, count: int = 3, **keywords: object) -> list[Path]:
    return make_series(folder, np.arange(count * 64.0).reshape(count, 8, 8), **keywords)  # type: ignore[arg-type]


@contextmanager
def peer_that_answers(answer: Callable[[evt.Event], int | Dataset], ae_title: str = "PEER") -> Iterator[int]:
    ae = AE(ae_title)
    ae.supported_contexts = AllStoragePresentationContexts[:120]
    for context in ae.supported_contexts:
        context.transfer_syntax = ["1.2.840.10008.1.2.1"]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, answer)])
    assert server is not None
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def answers(port: int) -> bool:
    with suppress(Unavailable):
        echo(ae_title="STORESCP", host="127.0.0.1", port=port)
        return True
    return False


def dataset_bytes(path: Path) -> bytes:
    raw = path.read_bytes()
    return raw[raw.index(b"\x08\x00\x05\x00CS") :]


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", RLELossless, JPEG2000Lossless])
def test_the_peer_gets_the_very_bytes_of_the_file(tmp_path: Path, syntax: str) -> None:
    paths = series(tmp_path / "in", transfer_syntax=syntax)
    archive = Archive(tmp_path / "archive")
    archive.start()
    try:
        sent = send_files(paths, ae_title="ARCHIVE", host="127.0.0.1", port=archive.port)
    finally:
        archive.stop()

    assert [one.status for one in sent] == [0x0000] * 3
    assert [one.path for one in sent] == paths
    assert all(one.ok for one in sent)
    held = {one.sop_instance_uid: one.path for one in archive.listing()}
    for one in sent:
        assert dataset_bytes(held[one.sop_instance_uid]) == dataset_bytes(one.path)
        assert dcmread(held[one.sop_instance_uid]).file_meta.TransferSyntaxUID == syntax


def test_dcmtk_storescp_takes_a_mixed_folder(tmp_path: Path, free_port: Callable[[], int]) -> None:
    port, out = free_port(), tmp_path / "out"
    out.mkdir()
    paths = [
        *series(tmp_path / "a"),
        *series(tmp_path / "b", transfer_syntax=RLELossless, series_number=2),
        *series(tmp_path / "c", modality="PT", series_number=3),
    ]
    server = start_dcmtk("storescp", ["+xa", "--bit-preserving", "-od", out, str(port)])
    try:
        assert eventually(lambda: answers(port))
        sent = send_files(paths, ae_title="STORESCP", host="127.0.0.1", port=port)
    finally:
        server.kill()
        server.wait()

    assert {one.status for one in sent} == {0x0000}
    assert len(list(out.iterdir())) == 9


def test_each_answer_is_kept_and_warnings_and_what_the_peer_holds_already_count_as_stored(
    tmp_path: Path,
) -> None:
    paths = series(tmp_path / "in", 6)
    statuses = dict(
        zip(
            (str(dcmread(p).SOPInstanceUID) for p in paths),
            (0x0000, 0xB000, 0xA700, 0xC001, 0xB007, 0x0111),
            strict=True,
        )
    )

    def answer(event: evt.Event) -> Dataset:
        status = Dataset()
        status.Status = statuses[event.request.AffectedSOPInstanceUID]
        if status.Status == 0xA700:
            status.ErrorComment = "no room"
        return status

    told: list[Sent] = []
    with peer_that_answers(answer) as port:
        sent = send_files(paths, ae_title="PEER", host="127.0.0.1", port=port, on_progress=told.append)

    assert [one.status for one in sent] == [0x0000, 0xB000, 0xA700, 0xC001, 0xB007, 0x0111]
    assert [one.ok for one in sent] == [True, True, False, False, True, True]
    assert sent[2].text == "no room"
    assert told == list(sent)


def test_a_syntax_that_the_peer_does_not_take_is_told_for_its_files_only(tmp_path: Path) -> None:
    paths = [*series(tmp_path / "a", 1), *series(tmp_path / "b", 1, transfer_syntax=RLELossless)]
    with peer_that_answers(lambda event: 0x0000) as port:
        sent = send_files(paths, ae_title="PEER", host="127.0.0.1", port=port)

    assert [one.status for one in sent] == [0x0000, 0x0122]
    assert "accepts no such" in sent[1].text


def test_when_nothing_of_it_is_taken_the_refusal_is_for_good(tmp_path: Path) -> None:
    paths = series(tmp_path / "in", 1, transfer_syntax=RLELossless)
    with peer_that_answers(lambda event: 0x0000) as port, pytest.raises(Refused, match="accepts none"):
        send_files(paths, ae_title="PEER", host="127.0.0.1", port=port)


def test_files_that_are_no_dicom_are_told_and_the_others_sent(tmp_path: Path) -> None:
    (good,) = series(tmp_path / "in", 1)
    note, gone = tmp_path / "note.txt", tmp_path / "gone.dcm"
    note.write_text("hello")
    with peer_that_answers(lambda event: 0x0000) as port:
        sent = send_files([note, good, gone], ae_title="PEER", host="127.0.0.1", port=port)

    assert [one.status for one in sent] == [None, 0x0000, None]
    assert [bool(one.text) for one in sent] == [True, False, True]


def test_more_than_128_kinds_of_object_go_over_several_associations(tmp_path: Path) -> None:
    paths = []
    (first,) = series(tmp_path / "in", 1)
    for number in range(150):
        ds = dcmread(first)
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = f"1.2.826.0.1.3680043.9.9999.{number + 1}"
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.9.1.{number + 1}"
        paths.append(tmp_path / f"{number}.dcm")
        ds.save_as(paths[-1])
    archive = Archive(tmp_path / "archive")
    archive.start()
    try:
        sent = send_files(paths, ae_title="ARCHIVE", host="127.0.0.1", port=archive.port)
    finally:
        archive.stop()

    assert {one.status for one in sent} == {0x0000}
    assert len(archive.listing()) == 150


def test_several_associations_share_the_files_and_the_order_of_answers_is_kept(tmp_path: Path) -> None:
    paths = series(tmp_path / "in", 20)
    archive = Archive(tmp_path / "archive")
    archive.start()
    try:
        sent = send_files(paths, ae_title="ARCHIVE", host="127.0.0.1", port=archive.port, associations=4)
    finally:
        archive.stop()

    assert [one.path for one in sent] == paths
    assert {one.status for one in sent} == {0x0000}
    assert len(archive.listing()) == 20


def test_nobody_at_the_port_is_unavailable_at_once(tmp_path: Path, free_port: Callable[[], int]) -> None:
    port = free_port()
    begun = time.monotonic()
    with pytest.raises(Unavailable, match="cannot be reached"):
        send_files(series(tmp_path / "in", 1), ae_title="PEER", host="127.0.0.1", port=port, timeouts=PATIENT)
    with pytest.raises(Unavailable, match="cannot be reached"):
        echo(ae_title="PEER", host="no.such.host.invalid", port=104, timeouts=PATIENT)
    assert time.monotonic() - begun < PATIENCE_SECONDS / 2


def test_a_peer_that_accepts_and_stays_silent_is_given_up_in_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        begun = time.monotonic()
        with pytest.raises(Unavailable):
            send_files(
                series(tmp_path / "in", 1),
                ae_title="PEER",
                host="127.0.0.1",
                port=server.getsockname()[1],
                timeouts=SHORT,
            )
    assert time.monotonic() - begun < Timeouts().answer / 2


def test_a_rejection_for_good_and_one_for_now_are_told_apart(tmp_path: Path) -> None:
    ae = AE("PEER")
    ae.add_supported_context("1.2.840.10008.1.1")
    ae.require_called_aet = True
    server = ae.start_server(("127.0.0.1", 0), block=False)
    assert server is not None
    port = server.server_address[1]
    try:
        with pytest.raises(Refused, match="association-rejected"):
            echo(ae_title="OTHER", host="127.0.0.1", port=port)
        server.ae._maximum_associations = 0
        with pytest.raises(Unavailable, match="for now"):
            echo(ae_title="PEER", host="127.0.0.1", port=port)
    finally:
        server.shutdown()


def test_after_an_abort_the_rest_is_sent_over_a_new_association(tmp_path: Path) -> None:
    paths = series(tmp_path / "in", 4)
    seen: list[str] = []

    def answer(event: evt.Event) -> int:
        seen.append(event.request.AffectedSOPInstanceUID)
        if len(seen) == 2:
            event.assoc.abort()
        return 0x0000

    with peer_that_answers(answer) as port:
        sent = send_files(paths, ae_title="PEER", host="127.0.0.1", port=port, timeouts=PATIENT)

    assert [one.status for one in sent] == [0x0000, None, 0x0000, 0x0000]
    assert sent[1].text


def test_a_peer_that_dies_within_an_answer_leaves_the_outcome_open(tmp_path: Path) -> None:
    paths = series(tmp_path / "in", 3)

    def answer(event: evt.Event) -> int:
        threading.Thread(target=event.assoc._server.shutdown).start()
        event.assoc.dul.socket._shutdown_socket()
        time.sleep(0.2)
        return 0x0000

    begun = time.monotonic()
    with pytest.raises(ValueError, match="not in list"), peer_that_answers(answer) as port:
        sent = send_files(paths, ae_title="PEER", host="127.0.0.1", port=port, timeouts=PATIENT)
    assert [one.status for one in sent] == [None] * 3
    assert time.monotonic() - begun < PATIENCE_SECONDS / 2


def test_an_answer_is_not_lost_to_the_thread_of_the_association_that_was_paused_too_late() -> None:
    association = Association(SendingAE(), MODE_REQUESTOR)
    dimse = AttentiveDimse(association)
    dimse.msg_queue.put((1, "the answer"))
    association._reactor_checkpoint.clear()  # a service waits
    assert dimse.get_msg(block=False) == (None, None)
    assert dimse.get_msg(block=True) == (1, "the answer")
    association._reactor_checkpoint.set()
    dimse.msg_queue.put((1, "a request of the peer"))
    assert dimse.get_msg(block=False) == (1, "a request of the peer")


def test_a_rejection_that_comes_before_pynetdicom_looks_is_still_a_rejection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = threading.Event.wait

    class LateEvent(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            done = wait(self, timeout)
            time.sleep(0.5)
            return done

    class LateSocket(DialingSocket):
        def __init__(self, *args: object, **keywords: object) -> None:
            super().__init__(*args, **keywords)
            self._ready = LateEvent()

    monkeypatch.setattr(
        SendingAE, "_new_socket", lambda self, assoc, address: LateSocket(assoc, address=address)
    )
    archive = Archive(tmp_path / "archive", callers=("NADIR",))
    archive.start()
    try:
        with pytest.raises(Refused, match="association-rejected"):
            echo(ae_title="ARCHIVE", host="127.0.0.1", port=archive.port, calling_ae="OTHER")
    finally:
        archive.stop()
