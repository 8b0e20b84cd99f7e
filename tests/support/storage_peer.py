"""A storage SCP that answers as a test wants it, how to call one, and a sender that works off what is due."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from patience import PATIENT
from ports import free_port
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt

from node.scu import Timeouts
from node.sender import Sender
from node.transport import dimse


def work_off(sender: Sender, now: datetime) -> None:
    """Let a sender send until nothing is due."""
    while sender.tick(now):
        pass


@contextmanager
def peer(
    answer: Callable[[evt.Event], Any], *, maximum: int = 10, called: list[str] | None = None
) -> Iterator[str]:
    """Give the address of a storage SCP whose C-STORE handler is `answer`."""
    ae = AE(ae_title="PEER")
    ae.maximum_associations = maximum
    if called is not None:
        ae.require_calling_aet = called
    ae.add_supported_context(CTImageStorage, ExplicitVRLittleEndian)
    port = free_port()
    running = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, answer)])
    try:
        yield f"PEER@127.0.0.1:{port}"
    finally:
        running.shutdown()


def calling(destination: str, timeouts: Timeouts = PATIENT) -> Any:
    """Return a transport to a destination by C-STORE, patient unless told otherwise."""
    ae_title, _, address = destination.partition("@")
    host, _, port = address.partition(":")
    return dimse(ae_title, host, int(port), "NADIR", timeouts=timeouts)
