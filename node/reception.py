"""The storage SCP that the listener and the archive role share: who is let in, what is offered, and an orderly end.

What becomes of an object is decided by the `Desk` behind it. Nothing here knows SQL.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from socketserver import BaseServer
from typing import Any

from pynetdicom import evt
from pynetdicom.events import Event
from pynetdicom.transport import AddressInformation

from node.address import not_listening
from node.agreements import Agreements, Offer
from node.application_entity import NamedAE
from node.association import StorageAssociation
from node.callers import AE_TITLE, Callers, plain_address
from node.contexts import is_sound, means_to_store
from node.desk import Arrival, Committers, Desk, Peer, Reporters
from node.fastpath import FastAssociation
from node.hasher import Hasher
from node.logs import line
from node.room import Room
from node.seats import Seats
from node.socket_guard import GuardedServer, GuardedSocket, Limits, assert_hooks
from node.spool import Spool
from node.status import CANNOT_UNDERSTAND, NOT_AUTHORISED, SUCCESS
from node.tls import certificate_names
from plugins.errors import Refused
from store.part10 import write_preamble

log = logging.getLogger(__name__)

UNNAMED = "2.25.0"
IDLE_SECONDS = 2.0

PERMANENT, TRANSIENT = 0x01, 0x02
CALLING_AE_NOT_RECOGNISED = (PERMANENT, 0x01, 0x03)
CALLED_AE_NOT_RECOGNISED = (PERMANENT, 0x01, 0x07)
NO_REASON_GIVEN = (PERMANENT, 0x02, 0x01)
LOCAL_LIMIT_EXCEEDED = (TRANSIENT, 0x03, 0x02)


@dataclass(frozen=True, kw_only=True)
class Door:
    """One port to listen on."""

    port: int
    """The port; 0 for any free one."""
    new_context: Callable[[], ssl.SSLContext] | None = None
    """Gives the TLS context of each connection; None for plain DICOM."""


class Reception:
    """A storage SCP on one port, or on two, one of them with TLS.

    Parameters
    ----------
    desk
        Where received objects go.
    ae_title, host, port
        Our AE title, and where to listen; port 0 takes any free one, None none without TLS.
    callers
        Who may open an association.
    tls
        The port with TLS, when there is one.
    max_associations, max_associations_per_address
        Associations served at one time, in all and of one address (0: no bound of its own); more are rejected as
        transient.
    largest_bytes, reserve_bytes
        Largest object, and the free space below which none is written and nobody who means to send is let in.
    limits
        Defence against silent, stalled and oversize peers.
    reporters
        Who may report storage commitment, and nothing else unless `callers` lets them; nobody when None.
    committers
        Who of the callers may ask for storage commitment; nobody when None.
    receive_path
        `fast`: one thread for each association, which never polls; `pynetdicom`: its own two.
    shares_port
        Whether other processes listen on the port too (SO_REUSEPORT).
    hashing
        Whether objects are hashed while they arrive.
    answered
        Called when the answer to a C-STORE has gone, on the fast path: there is time then until the next object.

    """

    def __init__(
        self,
        desk: Desk,
        *,
        ae_title: str,
        host: str,
        port: int | None,
        callers: Callers,
        tls: Door | None = None,
        max_associations: int = 50,
        max_associations_per_address: int = 0,
        largest_bytes: int = 8 << 30,
        reserve_bytes: int = 256 << 20,
        limits: Limits | None = None,
        receive_path: str = "fast",
        shares_port: bool = False,
        hashing: bool = True,
        reporters: Reporters | None = None,
        committers: Committers | None = None,
        answered: Callable[[], None] | None = None,
    ) -> None:
        assert_hooks()
        self._desk = desk
        self._host = host
        self._doors = [*([] if port is None else [Door(port=port)]), *([tls] if tls else [])]
        self._callers = callers
        self._largest_bytes = largest_bytes
        self._reserve_bytes = reserve_bytes
        self._room = Room(desk.free_bytes, reserve_bytes)
        self._limits = limits or Limits()
        self._receive_path = receive_path
        self._shares_port = shares_port
        self._reporters = reporters
        self._committers = committers
        self._hashing = hashing
        self._answered = answered
        self._ae = NamedAE(ae_title)
        self._ae.acse_timeout = self._limits.silent_seconds
        self._ae.network_timeout = self._ae.dimse_timeout = self._limits.idle_seconds
        self._ae.maximum_pdu_size = self._limits.pdu_bytes
        self._ae.maximum_associations = self._limits.connections  # our own count is of those that were let in
        self._agreements = Agreements()
        self._servers: list[GuardedServer] = []
        self._hasher = Hasher()
        self._seats: Seats[StorageAssociation] = Seats(max_associations, max_associations_per_address)

    def start(self) -> None:
        """Listen. Raises Unavailable when a port cannot be had."""
        for number, door in enumerate(self._doors):
            try:
                server = self._open(door)
            except OSError as error:
                self.stop()
                raise not_listening("", self._host, door.port, error) from error
            self._servers.append(server)
            self._doors[number] = replace(door, port=int(server.server_address[1]))
            threading.Thread(
                target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="dicom-port", daemon=True
            ).start()

    def _open(self, door: Door) -> GuardedServer:
        reception = self

        class Server(GuardedServer):
            def is_welcome(self, address: str) -> bool:
                return reception._is_welcome(address)

            def sent_away(self, reason: str, address: str) -> None:
                reception._desk.turned_away(reason, "", plain_address(address))

            def new_association(self, request: Any, client_address: Any) -> StorageAssociation:
                return reception._seat(self, request, client_address)

        return Server(
            self._ae,
            (self._host, door.port),
            self._ae.ae_title,
            [],
            limits=self._limits,
            new_context=door.new_context,
            shares_port=self._shares_port,
        )

    @property
    def port(self) -> int:
        """Return the port without TLS, the real one when any free one was asked for; 0 when there is none."""
        return next((door.port for door in self._doors if door.new_context is None), 0)

    @property
    def tls_port(self) -> int:
        """Return the port with TLS, likewise."""
        return next((door.port for door in self._doors if door.new_context is not None), 0)

    @property
    def peers(self) -> tuple[Peer, ...]:
        """Return who is associated now."""
        return self._seats.peers

    def drain(self, timeout_seconds: float = 20.0) -> bool:
        """Take no new association, let those that send finish, and end the idle ones and, at the limit, the rest.

        An object that is being stored at the time limit is still finished and answered, within a few seconds.
        Returns True when none had to be ended while it was sending.
        """
        servers, self._servers = self._servers, []
        for server in servers:
            BaseServer.shutdown(server)
            server.server_close()
        rest = self._wait_for_ends(servers, time.monotonic() + timeout_seconds)
        grace = time.monotonic() + 5.0
        while any(association.is_serving for association in rest) and time.monotonic() < grace:
            time.sleep(0.005)
        aborts = [threading.Thread(target=association.abort, daemon=True) for association in rest]
        for abort in aborts:
            abort.start()
        for abort in aborts:
            abort.join(5.0)
        gone = time.monotonic() + 5.0
        while any(server.active_associations for server in servers) and time.monotonic() < gone:
            time.sleep(0.005)
        self._hasher.stop()
        return not any(association.was_busy for association in rest)

    def _wait_for_ends(self, servers: list[GuardedServer], deadline: float) -> list[StorageAssociation]:
        """Return the associations that are still open when the time is over, or when all of them are idle."""
        busy_at: dict[StorageAssociation, float] = {}
        while True:
            rest: list[StorageAssociation] = [a for server in servers for a in server.active_associations]
            now = time.monotonic()
            for association in rest:
                if association.is_busy:
                    busy_at[association] = now
                busy_at.setdefault(association, now)
                association.was_busy = now - busy_at[association] < IDLE_SECONDS
            if now >= deadline or not any(association.was_busy for association in rest):
                return rest
            time.sleep(0.02)

    def stop(self) -> None:
        """End now."""
        self.drain(0.0)

    def _is_welcome(self, address: str) -> bool:
        reports = self._reporters is not None and self._reporters.callers.knows_address(
            plain_address(address)
        )
        if reports or self._callers.knows_address(plain_address(address)):
            return True
        self._desk.turned_away("address", "", plain_address(address))
        return False

    def _seat(self, server: GuardedServer, request: Any, client_address: Any) -> StorageAssociation:
        association: StorageAssociation
        if self._receive_path == "fast":
            association = FastAssociation(
                self._ae, self._new_spool, self._store, self._agreements, self._limits, self._answered
            )
        else:
            association = StorageAssociation(self._ae, self._new_spool)
        association._server = server
        association.on_release, association.on_end = self._seats.leave, self._on_end
        association.set_socket(GuardedSocket(association, request, self._limits))
        association.requestor.address_info = AddressInformation.from_tuple(client_address)
        association.bind(evt.EVT_REQUESTED, self._on_requested)
        association.bind(evt.EVT_C_STORE, self._on_store)
        association.bind(evt.EVT_N_EVENT_REPORT, self._on_report)
        association.bind(evt.EVT_N_ACTION, self._on_action)
        return association

    def _new_spool(self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> Spool:
        spool = Spool(
            self._desk.temporary(),
            largest_bytes=self._largest_bytes,
            free_bytes=self._desk.free_bytes,
            reserve_bytes=self._reserve_bytes,
            hashing=self._hashing,
            hasher=self._hasher,
        )
        try:
            preamble = write_preamble(sop_class_uid, sop_instance_uid, transfer_syntax_uid)
        except Refused:
            # The command names what is no UID: what the data set says is judged by whoever reads the file.
            preamble = write_preamble(UNNAMED, UNNAMED, transfer_syntax_uid)
        return spool.begin(preamble)

    def _on_requested(self, event: Event) -> None:
        association: StorageAssociation = event.assoc
        request = association.requestor.primitive
        calling_ae = str(request.calling_ae_title).strip(" ")
        address = plain_address(str(association.requestor.address))
        names = certificate_names(association.dul.socket.socket)
        proposed = request.presentation_context_definition_list
        verdict = self._judge(str(request.called_ae_title).strip(" "), calling_ae, address, names)
        if not is_sound(request.presentation_context_definition_list):
            verdict = ("malformed", NO_REASON_GIVEN)
        if verdict is None and means_to_store(proposed) and (lack := self._room.lack()):
            verdict = (lack, LOCAL_LIMIT_EXCEEDED)
        if verdict is None:
            association.dul.socket.pace.rest(self._limits.silent_seconds)
            association.peer = self._seats.take(association, calling_ae, address)
            verdict = None if association.peer else ("limit", LOCAL_LIMIT_EXCEEDED)
        if verdict is None:
            association.offer(
                Offer(
                    storage=self._callers.admits(calling_ae, address),
                    commitment=self._reports(calling_ae, address) or self._asks(calling_ae, address),
                )
            )
            return
        self._desk.turned_away(verdict[0], calling_ae, address)
        association.acse.send_reject(*verdict[1])
        association.kill()

    def _judge(
        self, called_ae: str, calling_ae: str, address: str, names: frozenset[str]
    ) -> tuple[str, tuple[int, int, int]] | None:
        if not AE_TITLE.fullmatch(calling_ae):
            return ("malformed", CALLING_AE_NOT_RECOGNISED)
        if not self._callers.accept_any and called_ae != self._ae.ae_title:
            return ("called-ae", CALLED_AE_NOT_RECOGNISED)
        if not self._callers.admits(calling_ae, address) and not self._reports(calling_ae, address):
            return ("calling-ae", CALLING_AE_NOT_RECOGNISED)
        if not self._callers.trusts(calling_ae, names):
            return ("certificate", CALLING_AE_NOT_RECOGNISED)
        return None

    def _reports(self, calling_ae: str, address: str) -> bool:
        return self._reporters is not None and self._reporters.callers.admits(calling_ae, address)

    def _asks(self, calling_ae: str, address: str) -> bool:
        return (
            self._committers is not None
            and self._callers.admits(calling_ae, address)
            and self._committers.callers.admits(calling_ae, address)
        )

    def _on_action(self, event: Event) -> tuple[int, None]:
        peer = event.assoc.peer
        if self._committers is None or peer is None or not self._asks(peer.calling_ae, peer.address):
            return NOT_AUTHORISED, None
        return self._committers.commit(peer, event.request, event.action_information), None

    def _on_report(self, event: Event) -> tuple[int, None]:
        peer = event.assoc.peer
        if self._reporters is None or peer is None or not self._reports(peer.calling_ae, peer.address):
            return NOT_AUTHORISED, None
        return self._reporters.report(peer, event.event_information), None

    def _on_store(self, event: Event) -> int:
        association: StorageAssociation = event.assoc
        request = event.request
        spool: Spool | None = request._dataset_file
        status = CANNOT_UNDERSTAND
        try:
            status = self._store(
                association,
                str(request.AffectedSOPClassUID),
                str(request.AffectedSOPInstanceUID),
                str(request.MoveOriginatorApplicationEntityTitle or "").strip(),
                spool,
            )
        finally:
            if spool is not None:
                association.dimse.served(spool, is_taken=status == SUCCESS)
            if status == SUCCESS:
                request._dataset_file = None  # pynetdicom would delete what is the desk's now
        return status

    def _store(
        self,
        association: StorageAssociation,
        sop_class_uid: str,
        sop_instance_uid: str,
        move_originator: str,
        spool: Spool | None,
    ) -> int:
        assert association.peer is not None
        if spool is not None:
            spool.close()
        return self._desk.receive(
            Arrival(
                peer=association.peer,
                sop_class_uid=sop_class_uid,
                sop_instance_uid=sop_instance_uid,
                move_originator=move_originator,
                path=spool.path if spool and spool.failure is None else None,
                failure=spool.failure if spool else None,
                size_bytes=spool.size_bytes if spool else 0,
                sha256=spool.sha256 if spool else None,
                head=spool.head if spool else b"",
            )
        )

    def _on_end(self, association: StorageAssociation) -> None:
        self._seats.leave(association)
        try:
            if association.peer is not None:
                self._desk.left(association.peer)
        except Exception:  # the border of the association's thread
            log.exception(line("end-not-taken"))
