"""Serves the web application in a thread of its own, and gives up on who is silent."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
import time
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from node.address import not_listening
from node.logs import line
from plugins.errors import Unavailable

log = logging.getLogger(__name__)

HEAD_SECONDS = 10.0
HEAD_BYTES = 1 << 14
MOST_CONNECTIONS = 512
TELL_SECONDS = 60.0


class ImpatientProtocol(H11Protocol):
    """Closes a connection on which no whole request head has come in time: uvicorn itself would wait for ever."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Stop waiting when a request is under way, go on when only a part of its head is there."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._end_wait()
        elif self._deadline is None:
            self._wait()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of a body that nobody wanted."""
        super().on_response_complete()
        self._end_wait()
        if self.cycle is not None and self.cycle.response_complete:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the wait."""
        self._end_wait()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _end_wait(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Crowd(logging.Filter):
    """Says once a minute that too many are connected, in place of uvicorn, which says it of every request."""

    _told_at = -TELL_SECONDS

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for what uvicorn says of it."""
        if record.getMessage() != "Exceeded concurrency limit.":
            return True
        if time.monotonic() - self._told_at >= TELL_SECONDS:
            self._told_at = time.monotonic()
            log.warning(line("web-full", connections=MOST_CONNECTIONS, answered=503))
        return False


class WebServer:
    """Serves an application in a thread of its own.

    Parameters
    ----------
    app
        The application.
    host, port
        Where to listen; port 0 takes a free one, see `port` after `start`.
    tls
        How it answers by HTTPS; plain HTTP when None.

    """

    def __init__(self, app: FastAPI, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._host = host
        self.port = port
        options: dict[str, Any] = {}
        if tls is not None:
            context = tls
            options["ssl_context_factory"] = lambda config, default: context
        config = uvicorn.Config(
            app,
            http=ImpatientProtocol,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MOST_CONNECTIONS,
            h11_max_incomplete_event_size=HEAD_BYTES,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=10,
            lifespan="off",
            **options,
        )
        self._server = uvicorn.Server(config)
        self._crowd = Crowd()
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen; returns once requests are answered. Raises `Unavailable` when the address is taken or not ours."""
        try:
            family = socket.getaddrinfo(self._host, self.port, type=socket.SOCK_STREAM)[0][0]
            self._socket = socket.create_server((self._host, self.port), family=family, backlog=128)
        except OSError as error:
            raise not_listening("HTTP ", self._host, self.port, error, "http_port") from error
        self.port = self._socket.getsockname()[1]
        logging.getLogger("uvicorn.error").addFilter(self._crowd)
        run = {"sockets": [self._socket]}
        thread = threading.Thread(target=self._server.run, kwargs=run, name="web", daemon=True)
        thread.start()
        self._thread = thread
        deadline = time.monotonic() + 15
        while not self._server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise Unavailable("the web server did not start; its log says why")
            time.sleep(0.01)

    def stop(self, timeout_seconds: float = 15.0) -> bool:
        """Let running requests end; returns whether they did in time."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(timeout_seconds)
        if self._socket is not None:
            self._socket.close()
        logging.getLogger("uvicorn.error").removeFilter(self._crowd)
        return self._thread is None or not self._thread.is_alive()


__all__ = ["WebServer"]
