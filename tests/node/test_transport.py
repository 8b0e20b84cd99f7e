"""How results travel: in the encoding that a destination takes, at its pace, and by its own rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from orthanc_server import orthanc
from outbox_rows import waiting_results
from ports import free_port
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom import AE, evt
from small_node import SmallNode
from small_results import make_case
from sqlmodel import select

from node.deliveries import DeliverySettings
from node.pacs import DicomWeb
from node.scu import Reencoding
from node.sender import Outcome, Sender, outcome
from node.transport import Answer, Parcel, dimse, stow
from plugins.errors import Refused
from store.dicom.reencode import reencode
from store.tables import Delivery


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallNode]:
    made = SmallNode.make(tmp_path / "home")
    yield made
    made.database.dispose()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return a SEG and both reports of a small study, as files."""
    folder = tmp_path_factory.mktemp("results")
    case = make_case(folder / "study")
    seg = case.seg()
    paths = []
    for number, dataset in enumerate((seg, case.volumetric(seg), case.planar(seg))):
        paths.append(folder / f"{number}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def rows(small: SmallNode) -> list[Delivery]:
    with small.database.reading() as session:
        return list(session.exec(select(Delivery).order_by(Delivery.id)))  # type: ignore[arg-type]


@contextmanager
def taking(
    syntaxes: list[str], sop_classes: list[str]
) -> Iterator[tuple[int, list[tuple[str, bytes]], list[str]]]:
    """Give the port of a storage SCP, what it takes as (transfer syntax, bytes), and the syntaxes it was offered."""
    took: list[tuple[str, bytes]] = []
    offered: list[str] = []

    def requested(event: evt.Event) -> None:
        for context in event.assoc.requestor.primitive.presentation_context_definition_list:
            offered.extend(map(str, context.transfer_syntax))

    def store(event: evt.Event) -> int:
        took.append((str(event.context.transfer_syntax), event.encoded_dataset(include_meta=False)))
        return 0

    ae = AE(ae_title="PEER")
    for sop_class in sop_classes:
        ae.add_supported_context(sop_class, syntaxes)
    port = free_port()
    handlers = [(evt.EVT_REQUESTED, requested), (evt.EVT_C_STORE, store)]
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    try:
        yield port, took, offered
    finally:
        server.shutdown()


def parcels(paths: list[Path]) -> list[Parcel]:
    return [Parcel(path=p, sop_instance_uid=str(dcmread(p).SOPInstanceUID)) for p in paths]


def values(dataset: Dataset) -> list[tuple[object, ...]]:
    """Return tag, VR and value of every element below, in order; an OB that travels without a VR is an OW."""
    return [
        (element.tag, {"OB": "OW"}.get(element.VR, element.VR), element.value)
        for element in dataset.iterall()
        if element.VR != "SQ"
    ]


def test_a_pacs_that_takes_implicit_vr_only_gets_the_same_values_and_the_same_bytes_each_time(
    results: list[Path], small: SmallNode
) -> None:
    classes = [str(dcmread(p).SOPClassUID) for p in results]
    reencoding = Reencoding(
        transfer_syntaxes=(ExplicitVRLittleEndian, ImplicitVRLittleEndian), temporary=small.objects.temporary
    )
    with taking([ImplicitVRLittleEndian], classes) as (port, took, _):
        send = dimse("PEER", "127.0.0.1", port, "NADIR", reencoding=reencoding)
        assert [send(p).status for p in parcels(results) * 2] == [0] * 6
    assert {syntax for syntax, _ in took} == {ImplicitVRLittleEndian}
    assert took[:3] == took[3:]
    for path, (_, body) in zip(results, took, strict=False):
        out = small.objects.temporary()
        assert reencode(path, ImplicitVRLittleEndian, out).read_bytes().endswith(body)
        assert values(dcmread(out)) == values(dcmread(path))
        assert dcmread(out).file_meta.MediaStorageSOPInstanceUID == dcmread(path).SOPInstanceUID
        out.unlink()
    assert small.incoming() == []


def test_a_pacs_that_takes_explicit_vr_gets_the_file_as_it_is(results: list[Path], small: SmallNode) -> None:
    settings = DeliverySettings()
    reencoding = Reencoding(transfer_syntaxes=settings.transfer_syntaxes, temporary=small.objects.temporary)
    classes = [str(dcmread(p).SOPClassUID) for p in results]
    with taking([ImplicitVRLittleEndian, ExplicitVRLittleEndian], classes) as (port, took, offered):
        send = dimse("PEER", "127.0.0.1", port, "NADIR", reencoding=reencoding)
        assert send(parcels(results)[0]).status == 0
    assert offered == [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
    assert results[0].read_bytes().endswith(took[0][1])


def test_only_the_encodings_of_the_settings_are_offered(results: list[Path], small: SmallNode) -> None:
    settings = DeliverySettings(transfer_syntaxes=("implicit",))
    classes = [str(dcmread(results[1]).SOPClassUID)]
    with taking([ExplicitVRLittleEndian, ImplicitVRLittleEndian], classes) as (port, took, offered):
        destination = f"PEER@127.0.0.1:{port}"
        sender = Sender(small.database, small.objects, destination, settings=settings)
        assert sender._transport(parcels(results)[1]).status == 0
        sender.close()
    assert offered == [ImplicitVRLittleEndian]
    assert took[0][0] == ImplicitVRLittleEndian


def test_orthanc_keeps_what_came_by_stow_in_implicit_vr(results: list[Path], small: SmallNode) -> None:
    reencoding = Reencoding(transfer_syntaxes=(ImplicitVRLittleEndian,), temporary=small.objects.temporary)
    with orthanc() as pacs:
        dicomweb = DicomWeb(pacs.dicomweb)
        assert [stow(dicomweb, reencoding)(p).status for p in parcels(results)] == [0] * 3
        dicomweb.close()
        syntaxes = {
            httpx.get(f"{pacs.url}/instances/{i}/metadata/TransferSyntax", trust_env=False).text
            for i in pacs.get("/instances")
        }
    assert syntaxes == {ImplicitVRLittleEndian}
    assert small.incoming() == []


def test_what_would_need_a_codec_is_refused(results: list[Path], tmp_path: Path) -> None:
    with pytest.raises(Refused, match="codec"):
        reencode(results[0], JPEG2000Lossless, tmp_path / "out.dcm")


def test_a_destination_may_move_statuses_between_retry_and_park() -> None:
    settings = DeliverySettings(retry_statuses=("0xC001", "0x0122"), park_statuses="0xa702, 0x0110")
    assert outcome(0xC001, settings) is outcome(0x0122, settings) is Outcome.RETRY
    assert outcome(0xA702, settings) is outcome(0x0110, settings) is Outcome.REFUSED
    assert outcome(0xC000, settings) is Outcome.REFUSED
    assert outcome(0xA700, settings) is Outcome.RETRY
    assert outcome(0x0000, settings) is Outcome.DELIVERED


# --- pace -------------------------------------------------------------------------------------------------------


def paced(
    small: SmallNode, folder: Path, answers: list[Answer], settings: DeliverySettings | None = None
) -> tuple[Sender, Callable[[float], int]]:
    """Return a sender with a waiting result in each of ten studies, and how many it has sent by a second."""
    sent: list[Parcel] = []

    def transport(parcel: Parcel) -> Answer:
        sent.append(parcel)
        return answers[min(len(sent), len(answers)) - 1]

    for number in range(10):
        waiting_results(small.database, small.objects, folder, ["P@h:104"], count=1, patient_id=f"P{number}")
    sender = Sender(small.database, small.objects, "P@h:104", settings=settings, transport=transport)
    began = small.database.now()

    def sent_after(seconds: float) -> int:
        while sender.tick(began + timedelta(seconds=seconds)):
            pass
        return len(sent)

    return sender, sent_after


def test_a_destination_is_sent_no_more_a_minute_than_it_is_set(small: SmallNode, tmp_path: Path) -> None:
    _, sent_after = paced(small, tmp_path, [Answer(status=0)], DeliverySettings(max_per_minute=6))
    assert [sent_after(seconds) for seconds in (0, 9, 10.1, 15, 20.2, 60)] == [1, 1, 2, 2, 3, 4]


def test_a_destination_without_resources_is_left_alone_for_longer_and_longer(
    small: SmallNode, tmp_path: Path
) -> None:
    busy, well = Answer(status=0xA700), Answer(status=0)
    _, sent_after = paced(small, tmp_path, [busy, busy, busy, well])
    assert [sent_after(seconds) for seconds in (0, 0.5, 1.2, 2.5, 3.5, 6, 8, 9)] == [1, 1, 2, 2, 3, 3, 10, 13]
    assert {row.state for row in rows(small)} == {"delivered"}


def test_a_destination_that_says_how_long_is_left_alone_for_that_long(
    small: SmallNode, tmp_path: Path
) -> None:
    later, well = Answer(status=None, retry_after_seconds=120), Answer(status=0)
    _, sent_after = paced(small, tmp_path, [later, well])
    assert [sent_after(seconds) for seconds in (0, 60, 119, 121)] == [1, 1, 1, 11]


def test_an_object_that_is_refused_does_not_slow_the_others(small: SmallNode, tmp_path: Path) -> None:
    _, sent_after = paced(small, tmp_path, [Answer(status=0xA900)])
    assert sent_after(0) == 10


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"Retry-After": "120"}, 120.0),
        (503, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, 0.0),
        (503, {"Retry-After": "soon"}, 0.0),
        (503, {}, 0.0),
    ],
)
def test_retry_after_is_read(
    results: list[Path], status: int, headers: dict[str, str], seconds: float
) -> None:
    client = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(status, headers=headers)))
    answer = stow(DicomWeb("http://pacs/dicom-web", client=client))(parcels(results)[0])
    assert (answer.status, answer.was_reached, answer.retry_after_seconds) == (None, True, seconds)


@pytest.mark.parametrize(
    ("error", "state"),
    [(httpx.ConnectError("refused"), "unreachable"), (httpx.ReadTimeout("slow"), "no status")],
)
def test_a_server_that_was_not_reached_is_told_from_one_that_did_not_answer(
    small: SmallNode, tmp_path: Path, error: httpx.HTTPError, state: str
) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise error

    url = "http://pacs/dicom-web"
    waiting_results(small.database, small.objects, tmp_path, [url], count=1)
    transport = stow(DicomWeb(url, client=httpx.Client(transport=httpx.MockTransport(fail))))
    Sender(small.database, small.objects, url, transport=transport).tick(small.database.now())
    (row,) = rows(small)
    assert (row.state, row.last_status) == ("pending", state)


def test_what_a_sender_of_an_earlier_life_held_is_sent_at_once(small: SmallNode, tmp_path: Path) -> None:
    waiting_results(small.database, small.objects, tmp_path, ["P@h:104"], count=1)

    class Killed(BaseException):
        pass

    def die(parcel: Parcel) -> Answer:
        raise Killed

    earlier = Sender(small.database, small.objects, "P@h:104", transport=die)
    with pytest.raises(Killed):
        earlier.tick(small.database.now())
    later = Sender(small.database, small.objects, "P@h:104", transport=lambda _: Answer(status=0))
    assert not later.tick(small.database.now())
    assert later.take_over(small.database.now()) == 1
    assert later.tick(small.database.now())
    assert [(row.state, row.attempt) for row in rows(small)] == [("delivered", 2)]
