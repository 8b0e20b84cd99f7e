"""Certificates that are renewed while the node runs: each connection is made with the files as they are then."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from node.logs import line
from node.settings import Settings
from node.tls import client_context, context_to, https_context, https_files, server_context, tls_files
from plugins.errors import Refused

log = logging.getLogger(__name__)


class Renewed:
    """Gives a context that is made again when a file has changed.

    Parameters
    ----------
    make
        Makes it out of the files; what it refuses at first is refused here.
    files
        Of certificates and keys.

    """

    def __init__(self, make: Callable[[], ssl.SSLContext], files: tuple[Path, ...]) -> None:
        self._make = make
        self._files = files
        self._lock = threading.Lock()
        self._stamps = self._look()
        self._context = make()

    def __call__(self) -> ssl.SSLContext:
        """Return the context for the next connection; files that cannot be used leave the one before in force."""
        with self._lock:
            stamps = self._look()
            if stamps != self._stamps:
                self._stamps = stamps
                try:
                    self._context = self._make()
                except Refused as refused:
                    log.error(line("certificate-not-renewed", why=refused.sentence))
                else:
                    log.info(line("certificate-renewed"))
            return self._context

    def _look(self) -> tuple[tuple[int, int], ...]:
        return tuple(map(_stamp, self._files))


class RenewedContext(ssl.SSLContext):
    """Stands where one context is wanted for good, and wraps each connection by the newest; has no files itself."""

    _newest: Renewed

    def __new__(cls, newest: Renewed) -> RenewedContext:
        """Return it for whichever end `newest` makes contexts for."""
        made = super().__new__(cls, newest().protocol)
        made._newest = newest
        return made

    def wrap_socket(self, *args: Any, **named: Any) -> ssl.SSLSocket:
        """Wrap a socket by the newest context."""
        return self._newest().wrap_socket(*args, **named)

    def wrap_bio(self, *args: Any, **named: Any) -> ssl.SSLObject:
        """Wrap buffers by the newest context."""
        return self._newest().wrap_bio(*args, **named)


def listening(settings: Settings) -> Renewed:
    """Return what gives the context of the TLS port. Refuses `bad-tls`."""
    return Renewed(lambda: server_context(settings), tls_files(settings))


def calling(settings: Settings) -> ssl.SSLContext:
    """Return how we call by TLS, for as long as the node runs. Refuses `bad-tls`."""
    return RenewedContext(Renewed(lambda: client_context(settings), tls_files(settings)))


def calling_to(settings: Settings, address: str) -> ssl.SSLContext | None:
    """Return how an address of the settings is called, for as long as the node runs; None for plain DICOM and HTTP.

    Refuses `bad-tls`.
    """
    if "://" in address:
        return context_to(settings, address)
    return calling(settings) if settings.delivery_of(address).tls else None


def https(settings: Settings) -> ssl.SSLContext | None:
    """Return how the HTTP port answers by TLS, for as long as the node runs; None without. Refuses `bad-tls`."""
    if https_context(settings) is None:
        return None
    return RenewedContext(Renewed(lambda: _https(settings), https_files(settings)))


def _https(settings: Settings) -> ssl.SSLContext:
    made = https_context(settings)
    assert made is not None
    return made


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_ino)


__all__ = ["Renewed", "RenewedContext", "calling", "calling_to", "https", "listening"]
