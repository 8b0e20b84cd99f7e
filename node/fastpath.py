"""The fast receive path: one thread for each association reads, writes to disk and answers, and never polls.

pynetdicom negotiates and answers every service but C-STORE. The data set of a C-STORE goes from the buffer that its
PDUs are read into to its file, undecoded and uncopied; the answer leaves in one call.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pynetdicom import AE
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL
from pynetdicom.pdu_primitives import P_DATA

from node.agreements import Agreements
from node.association import StorageAssociation
from node.inline_association import InlineAssociation
from node.inline_dul import (
    A_RELEASE_RQ,
    CONNECTION_CLOSED,
    HEADER_BYTES,
    IdleError,
    ProtocolError,
    TooLongError,
)
from node.socket_guard import P_DATA_TF, Limits
from node.spool import LARGEST_UID_CHARACTERS, LARGEST_UNSPOOLED_BYTES, Spool
from node.status import CANNOT_UNDERSTAND, SUCCESS
from store.failpoint import reach

ITEM = struct.Struct(">LBB")
ELEMENT = struct.Struct("<HHL")
LARGEST_COMMAND_BYTES = 1 << 16
C_STORE_RQ, C_STORE_RSP, NO_DATA_SET = 0x0001, 0x8001, 0x0101
COMMAND, LAST = 0x01, 0x02

Store = Callable[[StorageAssociation, str, str, str, Spool | None], int]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreRequest:
    """The command set of a C-STORE request (PS3.7 9.3.1.1)."""

    message_id: int
    """Message ID."""
    sop_class_uid: str
    """Affected SOP Class UID, empty when it is missing or longer than a UID can be."""
    sop_instance_uid: str
    """Affected SOP Instance UID, likewise."""
    move_originator: str
    """Move Originator Application Entity Title; empty unless a C-MOVE brings the object."""
    has_data: bool
    """True when a data set follows."""

    @classmethod
    def of(cls, values: dict[int, bytes]) -> StoreRequest:
        """Return the request that a command set holds. Raises ProtocolError when it cannot even be answered."""
        if len(values.get(0x0110, b"")) != 2:
            raise ProtocolError("the C-STORE request has no Message ID")
        return cls(
            message_id=_number(values, 0x0110),
            sop_class_uid=_uid(values, 0x0002),
            sop_instance_uid=_uid(values, 0x1000),
            move_originator=values.get(0x1030, b"").decode("ascii", "replace").strip("\0 "),
            has_data=_number(values, 0x0800) != NO_DATA_SET,
        )

    def answer(self, status: int) -> bytes:
        """Return the command set of the response (PS3.7 9.3.1.2)."""
        number = struct.Struct("<HHLH").pack
        body = _uid_element(0x0002, self.sop_class_uid)
        body += number(0, 0x0100, 2, C_STORE_RSP) + number(0, 0x0120, 2, self.message_id)
        body += number(0, 0x0800, 2, NO_DATA_SET) + number(0, 0x0900, 2, status)
        body += _uid_element(0x1000, self.sop_instance_uid)
        return struct.pack("<HHLL", 0, 0x0000, 4, len(body)) + body


def command_values(data: bytes) -> dict[int, bytes]:
    """Return the values of a command set by element number (PS3.7 6.3.1). Raises ProtocolError when it is none."""
    values, at = {}, 0
    while at < len(data):
        if at + 8 > len(data):
            raise ProtocolError("the command set ends within an element")
        group, element, length = ELEMENT.unpack_from(data, at)
        at += 8
        if group != 0 or at + length > len(data):
            raise ProtocolError("the command set is no list of command elements")
        values[element] = data[at : at + length]
        at += length
    return values


def fragments(body: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Give (context ID, message control header, data) of each item of a P-DATA-TF (PS3.8 9.3.5)."""
    at = 0
    while at < len(body):
        if at + HEADER_BYTES > len(body):
            raise ProtocolError("a P-DATA-TF ends within an item's header")
        length, context_id, control = ITEM.unpack_from(body, at)
        end = at + 4 + length
        if length < 2 or end > len(body):
            raise ProtocolError("an item of a P-DATA-TF is longer than the PDU, or shorter than its header")
        yield context_id, control, body[at + HEADER_BYTES : end]
        at = end


class FastAssociation(InlineAssociation):
    """An association whose one thread does everything.

    Parameters
    ----------
    ae, new_spool, agreements, limits
        As of every association of one thread.
    store
        Deals with one C-STORE and returns its status; the last argument is None when it had no data set.
    answered
        Called when an answer has gone: what it does is done while the next object comes.

    """

    def __init__(
        self,
        ae: AE,
        new_spool: Callable[[str, str, str], Spool],
        store: Store,
        agreements: Agreements,
        limits: Limits,
        answered: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(ae, new_spool, agreements, limits)
        self._store = store
        self._answered = answered
        self._forget()

    @property
    def is_busy(self) -> bool:
        """Return True while a message is arriving or being served."""
        return self.is_serving or bool(self._command) or self._request is not None or self._other is not None

    def converse(self) -> None:
        """Negotiate, serve PDU after PDU, and close; what is incomplete then is dropped."""
        try:
            self.negotiate()
            while self.is_established:
                self._serve_pdu()
        except IdleError:
            if self.is_established:
                self.abort()
        except ProtocolError as error:
            self.is_aborted, self.is_established = True, False
            self.dul.socket._abort("pdu-too-long" if isinstance(error, TooLongError) else "protocol")
        finally:
            self.discard_unfinished()
            self.dul.finish()

    def discard_unfinished(self) -> None:
        """Delete what has not arrived whole."""
        if self._spool is not None:
            self._spool.discard()

    def _serve_pdu(self) -> None:
        pdu = self.dul.read()
        if pdu is not None and pdu[0] == P_DATA_TF:
            for context_id, control, data in fragments(pdu[1]):
                self._take(context_id, control, data)
            self._keep_pace()
            return
        if pdu is not None and pdu[0] == A_RELEASE_RQ:
            self.on_release(self)
            self.dul.released()
            self.is_released, self.is_established = True, False
            return
        if pdu is not None:
            self.dul.take(*pdu)
        if self.acse.is_aborted() or not self.dul.is_open:
            self.is_aborted, self.is_established = True, False

    def _keep_pace(self) -> None:
        """Let a peer rest between two messages; raise IdleError for a message slower than the slowest line."""
        pace = self.dul.socket.pace
        if not self.is_busy:
            pace.rest()
        elif pace.behind_seconds > self.network_timeout:
            raise IdleError

    def _forget(self) -> None:
        """Begin to wait for the next message."""
        self._command = bytearray()
        self._context_id: int | None = None
        self._request: StoreRequest | None = None
        self._spool: Spool | None = None
        self._other: DIMSEMessage | None = None
        self._other_bytes = 0

    def _take(self, context_id: int, control: int, data: memoryview) -> None:
        """Take in one fragment of a message (PS3.8 Annex E.2)."""
        awaits_command = self._request is None and self._other is None
        if bool(control & COMMAND) != awaits_command or self._context_id not in (None, context_id):
            raise ProtocolError("a fragment belongs to no message that has begun")
        if context_id not in self._accepted_cx:
            raise ProtocolError("a fragment is of a presentation context that was not accepted")
        self._context_id = context_id
        if awaits_command:
            self._command += data
            if len(self._command) > LARGEST_COMMAND_BYTES:
                raise ProtocolError("the command set is too long")
            if control & LAST:
                self._begin_message(context_id)
        elif self._spool is not None:
            self._spool.write(data)
            if control & LAST:
                self._serve_store(context_id)
        else:
            self._take_other(context_id, control, data)

    def _begin_message(self, context_id: int) -> None:
        values = command_values(bytes(self._command))
        if _number(values, 0x0100) != C_STORE_RQ:
            self._other = DIMSEMessage()
            self._take_other(context_id, COMMAND | LAST, memoryview(bytes(self._command)))
            return
        self._request = request = StoreRequest.of(values)
        if not request.has_data:
            self._serve_store(context_id)
            return
        syntax = str(self._accepted_cx[context_id].transfer_syntax[0])
        self._spool = self._new_spool(request.sop_class_uid, request.sop_instance_uid, syntax)

    def _serve_store(self, context_id: int) -> None:
        request, spool = self._request, self._spool
        assert request is not None
        self.is_serving, status = True, CANNOT_UNDERSTAND
        try:
            if request.sop_class_uid and request.sop_instance_uid:
                status = self._store(
                    self, request.sop_class_uid, request.sop_instance_uid, request.move_originator, spool
                )
            self._answer(context_id, request.answer(status))
        finally:
            if spool is not None and status != SUCCESS:
                spool.discard()
            self._forget()
            self.is_serving = False
        reach("after-response")
        if self._answered is not None:
            self._answered()

    def _answer(self, context_id: int, command: bytes) -> None:
        """Send a command set in one call, in more than one PDU only for a peer that takes very short ones."""
        room = max(1, (self.requestor.maximum_length or len(command) + HEADER_BYTES) - HEADER_BYTES)
        pdus = b""
        for start in range(0, len(command), room):
            data = command[start : start + room]
            control = COMMAND | (LAST if start + room >= len(command) else 0)
            pdus += struct.pack(">BxLLBB", P_DATA_TF, len(data) + 6, len(data) + 2, context_id, control)
            pdus += data
        try:
            self.dul.socket.socket.sendall(pdus)
        except (OSError, AttributeError):
            self.dul.happen(CONNECTION_CLOSED)

    def _take_other(self, context_id: int, control: int, data: memoryview) -> None:
        """Take in a fragment of a message of another service; pynetdicom decodes and serves it when it is whole."""
        self._other_bytes += len(data)
        if self._other_bytes > LARGEST_UNSPOOLED_BYTES:
            raise ProtocolError("a message other than C-STORE is too long")
        fragment = P_DATA()
        fragment.presentation_data_value_list = [[context_id, bytes([control]) + data]]
        message = self._other
        assert message is not None
        try:
            is_whole = message.decode_msg(fragment, self)
            primitive = message.message_to_primitive() if is_whole else None
        except Exception as error:  # a border: pynetdicom's decoders raise whatever they meet
            raise ProtocolError("a message cannot be decoded") from error
        if primitive is None:
            return
        self._forget()
        if not isinstance(primitive, C_CANCEL):  # nothing that we serve lasts, so there is nothing to cancel
            self._serve_request(primitive, context_id)


def _number(values: dict[int, bytes], element: int) -> int:
    return int.from_bytes(values.get(element, b"")[:2], "little")


def _uid(values: dict[int, bytes], element: int) -> str:
    text = values.get(element, b"").rstrip(b"\0 ").decode("ascii", "replace")
    return text if len(text) <= LARGEST_UID_CHARACTERS else ""


def _uid_element(element: int, uid: str) -> bytes:
    value = uid.encode("ascii", "replace")
    value += b"\0" * (len(value) % 2)
    return ELEMENT.pack(0, element, len(value)) + value if value else b""
