"""Addresses of others: AE titles with host and port, and roots of DICOMweb; and our own that cannot be had."""

from __future__ import annotations

import errno
import re
import socket

from plugins.errors import Unavailable

AE_ADDRESS = re.compile(r"^(?P<ae>[^@\s\\]{1,16})@(?P<host>[^:@\s]+|\[[0-9A-Fa-f:]+\]):(?P<port>\d{1,5})$")
WEB_ADDRESS = re.compile(r"^https?://[^\s/]+[^\s]*$")


def parse_destination(text: str) -> tuple[str, str, int] | str:
    """Return (AE title, host, port) of `AE@host:port`, or the text itself for a DICOMweb URL. Raises ValueError."""
    if WEB_ADDRESS.match(text):
        return text.rstrip("/")
    match = AE_ADDRESS.match(text)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ValueError(
            f"'{text}' is not a destination: write AE@host:port or the http(s) URL of a DICOMweb root"
        )
    return match["ae"], match["host"].strip("[]"), int(match["port"])


def is_destination(text: str) -> bool:
    """Return True for what `parse_destination` understands."""
    try:
        parse_destination(text)
    except ValueError:
        return False
    return True


def not_listening(what: str, host: str, port: int, error: OSError, setting: str = "") -> Unavailable:
    """Return that an address cannot be listened on, why, and what to do; `setting` names the port's.

    It is the host's that has to be changed where no interface has the address, or nobody knows the name.
    """
    reason = str(error.strerror or error).partition(" (")[0]  # Python names the address once more
    is_elsewhere = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
    other, setting = ("address", setting.replace("_port", "_host")) if is_elsewhere else ("port", setting)
    todo = f"choose another {other} ({setting})" if setting else f"choose another {other}"
    return Unavailable(f"{what}cannot listen on {host}:{port}: {reason}; {todo}")


__all__ = ["WEB_ADDRESS", "is_destination", "not_listening", "parse_destination"]
