"""Where the audit trail goes besides SQL: a file, and a repository by syslog (RFC 5424; by TLS after RFC 5425)."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from node.logs import line
from plugins.errors import Refused
from store.audit_tables import AuditRecord

log = logging.getLogger(__name__)

SECONDS = 10.0
REFUSAL_SECONDS = 0.2
# Facility 10, security; severity 5, normal but significant (PS3.15 A.6).
PRIORITY = 10 * 8 + 5
PORTS = {"udp": 514, "tcp": 601, "tls": 6514}


class Sink(Protocol):
    """Takes records of the trail. It may get one twice, after a failure, and misses none but by UDP."""

    name: str

    def send(self, records: Sequence[AuditRecord]) -> None:
        """Hand them on. Raises OSError when it cannot be known that all of them arrived."""

    def close(self) -> None:
        """Let go of what is open."""


class FileSink:
    """Appends one JSON object a line: id, at, sha256 of the chain, message.

    The file is opened for each batch, so that it may be moved away by whoever rotates it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = f"file {path}"

    def send(self, records: Sequence[AuditRecord]) -> None:
        """Append and sync them; what is written of a batch that fails is taken back."""
        lines = "".join(line_of(record) for record in records).encode()
        if self._is_torn():
            lines = b"\n" + lines
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        before_bytes = os.fstat(handle).st_size
        try:
            while lines:
                lines = lines[os.write(handle, lines) :]
            os.fsync(handle)
        except OSError:
            with suppress(OSError):
                os.ftruncate(handle, before_bytes)
            raise
        finally:
            os.close(handle)

    def close(self) -> None:
        """Do nothing: the file is not kept open."""

    def _is_torn(self) -> bool:
        """Return whether the last line has no end, as a loss of power may leave it."""
        try:
            with self.path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read() != b"\n"
        except OSError:  # none is there, or it is empty, or may only be appended to
            return False


class SyslogSink:
    """Sends each message to an audit repository.

    Parameters
    ----------
    url
        ``udp://host``, ``tcp://host:port`` or ``tls://host:port``; refuses `bad-settings` otherwise.
    tls
        How we call by TLS; needed for ``tls://``.

    """

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        self.scheme, self._host, self._port = parse_syslog(url)
        self.name = f"syslog {self.scheme}://{self._host}:{self._port}"
        self._tls = tls
        self._socket: socket.socket | None = None
        self._too_long_pk = 0

    def send(self, records: Sequence[AuditRecord]) -> None:
        """Send them; a connection that broke since is made anew, once. By UDP a failure is raised at once.

        What no datagram holds is told in the log and not sent: what comes after it is.
        """
        try:
            self._send(records)
        except OSError:
            is_unreached = self._socket is None
            self.close()
            if is_unreached or self.scheme == "udp":
                raise
            self._send(records)

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, records: Sequence[AuditRecord]) -> None:
        if self._socket is None or _has_ended(self._socket):
            self.close()
            self._socket = self._connect()
        if self.scheme == "udp":
            for record in records:
                self._send_datagram(self._socket, record)
            _wait_for_refusal(self._socket)
        else:  # octet counting: RFC 5425 4.3, RFC 6587 3.4.1
            frames = [syslog_frame(record.at, record.message) for record in records]
            self._socket.sendall(b"".join(b"%d %b" % (len(frame), frame) for frame in frames))

    def _send_datagram(self, sock: socket.socket, record: AuditRecord) -> None:
        try:
            sock.send(syslog_frame(record.at, record.message))
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            record_pk = record.id or 0
            if record_pk > self._too_long_pk:  # a batch is sent again while nobody listens there
                log.warning(line("audit-too-long", id=record_pk, sink=self.name))
                self._too_long_pk = record_pk

    def _connect(self) -> socket.socket:
        if self.scheme == "udp":
            family, kind, protocol, _, address = socket.getaddrinfo(
                self._host, self._port, type=socket.SOCK_DGRAM
            )[0]
            made = socket.socket(family, kind, protocol)
            made.connect(address)
            return made
        plain = socket.create_connection((self._host, self._port), timeout=SECONDS)
        if self._tls is None:
            return plain
        try:
            return self._tls.wrap_socket(plain, server_hostname=self._host)
        except BaseException:
            plain.close()
            raise


def parse_syslog(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port. Refuses `bad-settings`."""
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        scheme, host, port = "", None, None
    if scheme not in PORTS or not host or parts.path or parts.query or "@" in parts.netloc:
        raise Refused(
            "bad-settings", "audit_syslog: write udp://host:port, tcp://host:port or tls://host:port"
        )
    return scheme, host, port or PORTS[scheme]


def syslog_frame(at: datetime, message: str) -> bytes:
    """Return one RFC 5424 message with a DICOM audit message in it (PS3.15 A.6)."""
    stamp = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    host = "".join(c for c in socket.gethostname() if "!" <= c <= "~")[:255] or "-"
    head = f"<{PRIORITY}>1 {stamp} {host} nadir {os.getpid()} DICOM+RFC3881 - "
    return head.encode("ascii") + b"\xef\xbb\xbf" + message.encode("utf-8")


def line_of(record: AuditRecord) -> str:
    """Return a record as one line of JSON."""
    at = record.at.isoformat(timespec="milliseconds")
    said = {"id": record.id, "at": at, "sha256": record.sha256, "message": record.message}
    return json.dumps(said, ensure_ascii=False) + "\n"


def _has_ended(sock: socket.socket) -> bool:
    """Return True when the other end has closed: what is sent then is lost without an error."""
    if sock.type == socket.SOCK_DGRAM:
        return False
    sock.setblocking(False)
    try:
        while sock.recv(4096):
            pass
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    else:
        return True
    finally:
        sock.settimeout(SECONDS)


def _wait_for_refusal(sock: socket.socket) -> None:
    """Raise ConnectionRefusedError when the other machine answers a datagram by saying that nobody listens there."""
    sock.settimeout(REFUSAL_SECONDS)
    with suppress(TimeoutError):
        sock.recv(1)


__all__ = ["FileSink", "Sink", "SyslogSink", "line_of", "parse_syslog", "syslog_frame"]
