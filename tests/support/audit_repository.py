"""An audit repository that keeps the syslog messages it is sent."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import closing, suppress


class Repository:
    """An audit repository: takes syslog by TCP or TLS with octet counting."""

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.server = socket.create_server(("127.0.0.1", port))
        self.port = self.server.getsockname()[1]
        self.frames: list[bytes] = []
        self._tls = tls
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self._open.append(connection)
            with connection.makefile("rb") as file:
                while True:
                    length = b""
                    while (digit := file.read(1)) != b" ":
                        if not digit:
                            return
                        length += digit
                    self.frames.append(file.read(int(length)))
        except (OSError, ValueError):
            return

    def messages(self) -> list[str]:
        return [frame.partition(b"\xef\xbb\xbf")[2].decode() for frame in self.frames]

    def wait_for(self, count: int) -> list[str]:
        deadline = time.monotonic() + 60
        while len(self.frames) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.messages()

    def stop(self) -> None:
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        for connection in self._open:
            with closing(connection), suppress(OSError):  # the node may have closed it
                connection.shutdown(socket.SHUT_RDWR)
