"""How we speak HTTP to other systems: a server that trickles its answer is cut off, as one that is silent is."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

from node.pace import SLOWEST_BYTES_PER_SECOND, Pace

TIMEOUT = httpx.Timeout(60.0, connect=10.0)
BEHIND_SECONDS = 60.0
"""How far behind the pace of a slow line an answer may be."""
TOO_SLOW = f"sends its answer slower than {SLOWEST_BYTES_PER_SECOND} bytes a second"


def paced_client(tls: ssl.SSLContext | None) -> httpx.Client:
    """Return a client that goes to the address it is given or nowhere: no redirects, and no environment."""
    transport = httpx.HTTPTransport(verify=tls or True, trust_env=False)
    # httpx gives no other way to its sockets; a version that has none of this ends here.
    transport._pool._network_backend = _PacedBackend(transport._pool._network_backend)
    return httpx.Client(transport=transport, timeout=TIMEOUT, trust_env=False, follow_redirects=False)


def what_failed(error: httpx.HTTPError) -> str:
    """Return what the server does that the request failed by, as the rest of a sentence."""
    return TOO_SLOW if str(error) == TOO_SLOW else f"does not answer ({type(error).__name__})"


def is_packed_twice(answer: httpx.Response) -> bool:
    """Return whether an answer is packed more than once: a few bytes of such are gigabytes, and nobody needs it."""
    return "," in answer.headers.get("Content-Encoding", "")


class _PacedStream(httpcore.NetworkStream):
    """A connection with the account of what the server owes; the time that we take ourselves is not counted."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self._waited_seconds = 0.0
        self._pace = Pace(float("inf"), clock=lambda: self._waited_seconds)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what comes next; ReadTimeout from a server that is too far behind."""
        if self._pace.behind_seconds > BEHIND_SECONDS:
            raise httpcore.ReadTimeout(TOO_SLOW)
        began = time.monotonic()
        data = self._stream.read(max_bytes, timeout)
        self._waited_seconds += time.monotonic() - began
        self._pace.got(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send some of a request: nothing is owed until its answer begins."""
        self._pace.rest()
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Return the connection with TLS over it."""
        return _PacedStream(self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """Return what is known of the connection."""
        return self._stream.get_extra_info(info)


class _PacedBackend(httpcore.NetworkBackend):
    """Makes connections that are paced."""

    def __init__(self, backend: httpcore.NetworkBackend) -> None:
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Return a new connection."""
        return _PacedStream(self._backend.connect_tcp(host, port, timeout, local_address, socket_options))


__all__ = ["is_packed_twice", "paced_client", "what_failed"]
