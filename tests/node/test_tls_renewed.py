"""Renewed certificates on the ports of a running node and on the connections that it opens itself."""

from __future__ import annotations

import logging
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from certificates import HOST, Certificates
from patience import eventually

from node.audit import sinks_of
from node.serve import Node
from node.settings import Settings
from node.tls import certificate_names
from node.tls_renewed import calling
from store.audit_tables import AuditRecord

pytestmark = pytest.mark.sec
RECORD = AuditRecord(id=1, at=datetime(2026, 3, 1, tzinfo=UTC), message="<AuditMessage/>", sha256="")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


class Files:
    """A certificate and a key that are replaced under a running node."""

    def __init__(self, folder: Path, pair: tuple[Path, Path]) -> None:
        self.certificate, self.key = folder / "own.pem", folder / "own.key"
        self.install(pair)

    def install(self, pair: tuple[Path, Path]) -> None:
        for source, target in zip(pair, (self.certificate, self.key), strict=True):
            new = target.with_name("new")
            shutil.copy(source, new)
            new.replace(target)


@contextmanager
def peer(certificates: Certificates) -> Iterator[tuple[int, list[str]]]:
    """Give the port of a peer by TLS, and by which common names it was called."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.peer)
    context.load_verify_locations(certificates.ours.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    called_by: list[str] = []

    def answer(server: socket.socket) -> None:
        while True:
            try:
                plain, _ = server.accept()
            except OSError:
                return
            with suppress(OSError), context.wrap_socket(plain, server_side=True) as connection:
                called_by.extend(certificate_names(connection) & {"elsewhere", "node"})
                connection.sendall(b"x")
                connection.recv(1)

    with socket.create_server((HOST, 0)) as server:
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        try:
            yield server.getsockname()[1], called_by
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def call(port: int, tls: ssl.SSLContext) -> None:
    """Shake hands, and wait for the answer: only then has the peer judged the certificate."""
    plain = socket.create_connection((HOST, port), timeout=60)
    with plain, tls.wrap_socket(plain, server_hostname=HOST) as connection:
        assert connection.recv(1) == b"x"


def test_https_shows_a_renewed_certificate_and_keeps_it_when_the_next_pair_does_not_fit(
    certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = Files(tmp_path, certificates.expired)
    made = Node(
        Settings(home=tmp_path, http_port=0, http_tls_certificate=files.certificate, http_tls_key=files.key),
        ["web"],
    )
    made.start()

    def shown() -> str:
        return ssl.get_server_certificate((HOST, made.http_port))

    try:
        assert shown() == pem_of(certificates.expired)
        files.install(certificates.node)
        assert shown() == pem_of(certificates.node)
        with caplog.at_level(logging.ERROR):
            files.install((certificates.peer[0], certificates.node[1]))
            assert shown() == pem_of(certificates.node)
        assert "certificate-not-renewed" in caplog.text
        assert "does not belong to the certificate" in caplog.text
        files.install(certificates.peer)
        assert shown() == pem_of(certificates.peer)
    finally:
        made.stop()


def pem_of(pair: tuple[Path, Path]) -> str:
    return ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(pair[0].read_text()))


def test_a_peer_is_called_with_the_renewed_certificate_and_judged_by_the_renewed_authority(
    certificates: Certificates, tmp_path: Path
) -> None:
    files, ca = Files(tmp_path, certificates.elsewhere), tmp_path / "ca.pem"
    shutil.copyfile(certificates.ours.ca, ca)
    settings = {"tls_certificate": files.certificate, "tls_key": files.key, "tls_ca": ca}
    tls = calling(Settings(**settings))  # type: ignore[arg-type]
    with peer(certificates) as (port, called_by):
        call(port, tls)
        files.install(certificates.node)
        call(port, tls)
        assert called_by == ["elsewhere", "node"]
        shutil.copyfile(certificates.theirs.ca, ca)
        with pytest.raises(ssl.SSLCertVerificationError):
            call(port, tls)


def test_the_audit_trail_calls_its_repository_with_the_renewed_certificate(
    certificates: Certificates, tmp_path: Path
) -> None:
    files = Files(tmp_path, certificates.elsewhere)
    named = {"tls_certificate": files.certificate, "tls_key": files.key, "tls_ca": certificates.ours.ca}
    with peer(certificates) as (port, called_by):
        (sink,) = sinks_of(
            Settings(home=tmp_path, audit_syslog=f"tls://{HOST}:{port}", tls_hostnames=False, **named)  # type: ignore[arg-type]
        )
        sink.send([RECORD])
        sink.close()
        files.install(certificates.node)
        sink.send([RECORD])
        sink.close()
        assert eventually(lambda: called_by == ["elsewhere", "node"])
