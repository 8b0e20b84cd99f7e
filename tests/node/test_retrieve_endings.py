"""How a retrieve of earlier studies ends: whole, in part, refused, with what nobody asked for, on a full disk."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import Asking, uids
from pydicom import dcmread
from pynetdicom import evt
from query_peers import finder, getter, mover, peer

from node.query_retrieve import FIND, GET, MOVE
from store.prior_tables import Prior
from store.tables import Event, Study


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    made = Asking(tmp_path)
    yield made
    made.stop()


def test_what_a_cancelled_c_get_brought_is_kept_and_only_the_rest_is_asked_for(asking: Asking) -> None:
    old = asking.files("old", 5, study_date="20250101")
    given: list[set[str]] = []

    def get(event: evt.Event) -> Iterator[Any]:
        wanted = event.identifier.get("SOPInstanceUID")
        given.append(set(wanted or ()))
        yield from getter(old, cancel_after=2 if len(given) == 1 else 99)(event)

    with peer({evt.EVT_C_FIND: finder(old), evt.EVT_C_GET: get}) as port:
        source = asking.client(port, how="get")
        asking.asked(source.name)
        assert asking.fetch(source) == [("waiting", "unavailable")]
        assert len(asking.held()) == 2
        left = uids(old) - asking.held()
        with asking.node.database.transaction() as session:
            session.get_one(Prior, 1).run_after = asking.node.database.now()
        assert asking.fetch(source) == [("done", None)]
    assert given == [set(), left]
    assert asking.held() == uids(old)


def test_objects_of_others_within_a_c_get_are_refused_and_told(asking: Asking) -> None:
    old = asking.files("old", study_date="20250101")
    study = str(dcmread(old[0]).StudyInstanceUID)
    foreign = asking.files("foreign", 1, patient_id="P2", study_uid=study, series_number=2)
    elsewhere = asking.files("elsewhere", 1, study_date="20250102")
    with peer({evt.EVT_C_FIND: finder(old), evt.EVT_C_GET: getter([*foreign, *elsewhere, *old])}) as port:
        source = asking.client(port, how="get")
        asking.asked(source.name)
        assert asking.fetch(source) == [("done", None)]
    assert asking.held() == uids(old)
    assert sorted(asking.codes()) == ["prior-not-asked", "prior-of-another-patient"]


def test_a_c_move_whose_sub_operations_fail_is_tried_again_and_parked(asking: Asking) -> None:
    old = asking.files("old", study_date="20250101")
    move = mover(old[:1], asking.listener.port, announced=3, last=0xB000)
    with peer({evt.EVT_C_FIND: finder(old), evt.EVT_C_MOVE: move}) as port:
        source = asking.client(port, how="move")
        asking.asked(source.name)
        for _ in range(3):
            state = asking.fetch(source)
            with asking.node.database.transaction() as session:
                session.get_one(Prior, 1).run_after = asking.node.database.now()
    assert state == [("parked", "incomplete-prior")]
    assert asking.held() == uids(old[:1])
    assert [event.kind for event in asking.node.rows(Event)] == ["prior-parked"]


@pytest.mark.filterwarnings("ignore:.*VR UI:UserWarning")
@pytest.mark.parametrize("odd", ["1" * 70, "CT Image Storage", "1.2.840.10008.5.1.4.1.1.2 "])
def test_a_sop_class_that_is_no_uid_or_padded_keeps_no_image_from_coming(asking: Asking, odd: str) -> None:
    old = asking.files("old", study_date="20250101")

    def find(event: evt.Event) -> Iterator[Any]:
        for status, row in finder(old)(event):
            if row is not None and event.identifier.QueryRetrieveLevel == "IMAGE":
                row.SOPClassUID = odd
            yield status, row

    with peer({evt.EVT_C_FIND: find, evt.EVT_C_GET: getter(old)}) as port:
        source = asking.client(port, how="get")
        asking.asked(source.name)
        assert asking.fetch(source) == [("done", None)]
    assert asking.held() == uids(old)


@pytest.mark.parametrize("status", [0xA801, 0xC000, 0xA900])
def test_an_unknown_move_destination_is_a_refusal_whatever_status_says_so(
    asking: Asking, status: int
) -> None:
    old = asking.files("old", study_date="20250101")
    move = mover([], asking.listener.port, announced=3, last=status)
    with peer({evt.EVT_C_FIND: finder(old), evt.EVT_C_MOVE: move}) as port:
        source = asking.client(port, how="move")
        asking.asked(source.name)
        assert asking.fetch(source) == [("waiting", "retrieve-refused")]


def test_what_c_get_does_not_bring_c_move_does(asking: Asking) -> None:
    old = asking.files("old", study_date="20250101")
    move = mover(old, asking.listener.port)
    handlers = {evt.EVT_C_FIND: finder(old), evt.EVT_C_MOVE: move, evt.EVT_C_GET: getter(old[:1])}
    with peer(handlers, may_get=False) as port:
        source = asking.client(port)
        asking.asked(source.name)
        assert asking.fetch(source) == [("done", None)]
    assert asking.held() == uids(old)
    assert [study.prior for study in asking.node.rows(Study)] == [False, True]


def ended(paths: list[Path], announced: int, last: int) -> Callable[[evt.Event], Iterator[Any]]:
    """Return a handler of C-GET that gives these files and ends with a status."""

    def get(event: evt.Event) -> Iterator[Any]:
        yield announced
        for path in paths:
            yield 0xFF00, dcmread(path)
        yield last, None

    return get


@pytest.mark.parametrize("is_offered", [True, False])
@pytest.mark.parametrize(
    ("given", "last", "code", "sentence"),
    [
        (1, 0xA702, "unavailable", "ended C-GET with 0xA702"),
        (1, 0xFE00, "unavailable", "ended C-GET with 0xFE00"),
        (2, 0xB000, "incomplete-prior", "gave 2 of the 3 instances"),
        (0, 0x0000, "incomplete-prior", "gave 0 of the 3 instances"),
    ],
)
def test_how_a_c_get_ended_is_told_when_c_move_cannot_bring_the_rest(
    asking: Asking, given: int, last: int, code: str, sentence: str, is_offered: bool
) -> None:
    old = asking.files("old", study_date="20250101")
    handlers = {
        evt.EVT_C_FIND: finder(old),
        evt.EVT_C_GET: ended(old[:given], given if last == 0 else 3, last),
        evt.EVT_C_MOVE: mover([], asking.listener.port, announced=3, last=0xA801),
    }
    with peer(handlers, models=[FIND, GET, *([MOVE] if is_offered else [])]) as port:
        source = asking.client(port)
        asking.asked(source.name)
        assert asking.fetch(source) == [("waiting", code)]
    (row,) = asking.node.rows(Prior)
    assert sentence in str(row.error_text)
    assert asking.held() == uids(old[:given])


def test_a_c_get_that_is_refused_is_told_by_the_c_move_that_is_refused_too(asking: Asking) -> None:
    old = asking.files("old", study_date="20250101")
    handlers = {
        evt.EVT_C_FIND: finder(old),
        evt.EVT_C_GET: ended([], 3, 0xA900),
        evt.EVT_C_MOVE: mover([], asking.listener.port, announced=3, last=0xA801),
    }
    with peer(handlers) as port:
        source = asking.client(port)
        asking.asked(source.name)
        assert asking.fetch(source) == [("waiting", "retrieve-refused")]
    (row,) = asking.node.rows(Prior)
    assert "refused C-MOVE with 0xA801" in str(row.error_text)


@pytest.mark.parametrize("how", ["get", "auto"])
@pytest.mark.parametrize("last", [0x0000, 0xA702, 0xA900])
def test_objects_of_another_patient_park_a_study_at_once_however_the_retrieve_ends(
    asking: Asking, last: int, how: str
) -> None:
    old = asking.files("old", study_date="20250101")
    study = str(dcmread(old[0]).StudyInstanceUID)
    foreign = asking.files("foreign", 1, patient_id="P2", study_uid=study, series_number=2)
    elsewhere = asking.files("elsewhere", 1, study_date="20250102")
    given = ended([*elsewhere, *foreign], 2 if last == 0 else 3, last)
    with peer({evt.EVT_C_FIND: finder(old), evt.EVT_C_GET: given}, models=[FIND, GET]) as port:
        source = asking.client(port, how=how)
        asking.asked(source.name)
        assert asking.fetch(source) == [("parked", "prior-of-another-patient")]
    assert asking.held() == set()


def test_a_full_disk_ends_a_c_get_in_order_and_nothing_is_left_of_it(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = asking.files("old", 30, study_date="20250101")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with peer({evt.EVT_C_FIND: finder(old), evt.EVT_C_GET: getter(old)}) as port:
        source = asking.client(port, how="get")
        asking.asked(source.name)
        with monkeypatch.context() as patch:
            patch.setattr("store.object_name.Unnamed.name", full)
            assert asking.fetch(source) == [("waiting", "unavailable")]
        assert asking.held() == set()
        assert asking.node.incoming() == []
        with asking.node.database.transaction() as session:
            session.get_one(Prior, 1).run_after = asking.node.database.now()
        assert asking.fetch(source) == [("done", None)]
    assert asking.held() == uids(old)
