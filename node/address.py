"""Addresses of others: AE titles with host and port, and roots of DICOMweb; and our own that cannot be had."""

from __future__ import annotations

import errno
import re
import socket
from urllib.parse import urlsplit

from plugins.errors import Unavailable
from store.keys import without_credentials

AE = r"[\x21-\x3f\x41-\x5b\x5d-\x7e]{1,16}"
"""Pattern of an AE title in an address: characters that DICOM has for it (PS3.5 6.2), but no blank and no @."""
AE_ADDRESS = re.compile(rf"(?P<ae>{AE})@(?P<host>[^:@\s]+|\[[0-9A-Fa-f:]+\]):(?P<port>[0-9]{{1,5}})")
WEB_ADDRESS = re.compile(r"https?://[^\s/]+\S*")


def parse_destination(text: str) -> tuple[str, str, int] | str:
    """Return (AE title, host, port) of `AE@host:port`, or the text itself for a DICOMweb URL. Raises ValueError."""
    if WEB_ADDRESS.fullmatch(text):
        return web_root(text)
    match = AE_ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ValueError(
            f"'{shown(text)}' is not a destination: write AE@host:port or the http(s) URL of a DICOMweb root"
        )
    if match["port"].startswith("0"):  # two spellings would be two destinations
        raise ValueError(f"'{shown(text)}' has a port that begins with 0: write {int(match['port'])}")
    return match["ae"], match["host"].strip("[]"), int(match["port"])


def web_root(text: str) -> str:
    """Return the http(s) URL of a DICOMweb root without a closing slash. Raises ValueError for what cannot be one."""
    told = shown(text)
    if not WEB_ADDRESS.fullmatch(text):
        raise ValueError(f"'{told}' is not the http(s) URL of a DICOMweb root")
    if "#" in text:
        raise ValueError(f"'{told}' has a fragment: write it without #, and that of a password as %23")
    if "@" in "".join(re.split(r"[/?]", text.partition("//")[2], maxsplit=1)[1:]):
        todo = "write / as %2F and ? as %3F in a password, @ as %40 in a path"
        raise ValueError(f"'{told}' has an @ behind its host: {todo}")
    try:
        url = urlsplit(text)
        is_reachable = bool(url.hostname) and url.port != 0
    except ValueError:
        is_reachable = False
    if not is_reachable:
        raise ValueError(f"'{told}' names no host, or a port that is none: ports are 1 to 65535")
    return text.rstrip("/")


def shown(text: str) -> str:
    """Return what may be told of a text that is perhaps no address: nothing that may be a user and password."""
    before, at, behind = without_credentials(text).rpartition("@")
    return behind if ":" in before else f"{before}{at}{behind}"


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


__all__ = ["AE", "WEB_ADDRESS", "is_destination", "not_listening", "parse_destination", "shown", "web_root"]
