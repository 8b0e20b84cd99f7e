"""A storage SCP on one port that fails in the ways that real ones do, and later does not."""

from __future__ import annotations

import socket
from collections import Counter
from typing import Any

from ports import free_port
from pydicom.uid import CTImageStorage
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE

STATUSES = {"0xA700": 0xA700, "0xA900": 0xA900, "0xB000": 0xB000, "0xC000": 0xC000}
MOODS = (
    "refuses TCP", "rejects for now", "rejects for good", "is silent", "aborts after one", *STATUSES, "empty status",
    "dies after storing",
)  # fmt: skip
"""Every way to fail; any other mood stores what comes."""


class MoodyPeer:
    """Keeps what it stored: the SOP Instance UIDs in order of arrival."""

    def __init__(self) -> None:
        self.port = free_port()
        self.address = f"PEER@127.0.0.1:{self.port}"
        self.held: list[str] = []
        self.mood = "refuses TCP"
        self._server: Any = None
        self._silent: socket.socket | None = None

    @property
    def times(self) -> Counter[str]:
        """Return how often each instance was stored."""
        return Counter(self.held)

    def become(self, mood: str) -> None:
        """Change its mood; what is connected is cut off."""
        self.stop()
        self.mood = mood
        if mood == "is silent":
            self._silent = socket.create_server(("127.0.0.1", self.port))
        elif mood != "refuses TCP":
            ae = AE(ae_title="PEER")
            ae.add_supported_context(CTImageStorage)
            ae.add_supported_context("1.2.840.10008.1.1")
            handlers = [(evt.EVT_REQUESTED, self._on_requested), (evt.EVT_C_STORE, self._on_store)]
            self._server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def stop(self) -> None:
        """Leave the port."""
        if self._server is not None:
            self._server.shutdown()
        if self._silent is not None:
            self._silent.close()
        self._server = self._silent = None

    def _on_requested(self, event: evt.Event) -> None:
        reasons = {"rejects for now": (2, 3, 2), "rejects for good": (1, 1, 3)}
        if self.mood in reasons:
            event.assoc.acse.send_reject(*reasons[self.mood])
            event.assoc.kill()

    def _on_store(self, event: evt.Event) -> int:
        if self.mood == "aborts after one" and self.held:
            event.assoc.abort()
            return 0
        if self.mood == "empty status":
            answer = C_STORE()
            answer.MessageIDBeingRespondedTo = event.request.MessageID
            event.assoc.dimse.send_msg(answer, event.context.context_id)
            event.assoc.abort()
            return 0
        status = STATUSES.get(self.mood, 0x0000)
        if status in (0x0000, 0xB000):
            self.held.append(str(event.request.AffectedSOPInstanceUID))
        if self.mood == "dies after storing":
            event.assoc.abort()
        return status
