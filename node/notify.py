"""Tells systemd how this process stands, by the datagram of sd_notify(3)."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping

from node.logs import line

log = logging.getLogger(__name__)


def notify(environment: Mapping[str, str], state: str) -> bool:
    """Send `READY=1` or `STOPPING=1` to who started us; False when that was not systemd, or it does not listen."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.connect("\0" + address[1:] if address.startswith("@") else address)
            sender.sendall(state.encode("ascii"))
    except OSError as error:
        log.warning(line("not-notified", state=state, why=error.strerror or ""))
        return False
    return True


__all__ = ["notify"]
