"""Who may not come in by TLS, or be called by it, is refused in time and told of, and the others are served."""

from __future__ import annotations

import hashlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from certificates import HOST, Certificates
from figures import write_figure
from listener_process import ListenerProcess
from patience import PATIENCE_SECONDS, PATIENT, PATIENT_LIMITS, eventually
from raw_peer import RawPeer, associate_rq
from sqlmodel import select

from node.scu import Timeouts, echo
from node.settings import Settings
from node.tls import client_context, server_context
from plugins.errors import Refused, Unavailable
from store.database import Database
from store.tables import Event

pytestmark = pytest.mark.sec
OLD = ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
LIMITS = {"silent_seconds": 2.0, "stall_seconds": 2.0}
SILENT = 20
"""As many clients as there are seats."""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module", params=["fast", "pynetdicom"])
def listener(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates, request: pytest.FixtureRequest
) -> Iterator[ListenerProcess]:
    home = tmp_path_factory.mktemp("node")
    with ListenerProcess(
        home, tls=certificates.settings(), receive_path=request.param, max_associations=SILENT
    ) as process:
        yield process


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[ListenerProcess]:
    """Give a listener that cuts off after two seconds whoever says nothing."""
    with ListenerProcess(
        tmp_path_factory.mktemp("node"), tls=certificates.settings(), limits=LIMITS
    ) as process:
        yield process


@pytest.fixture(scope="module")
def elsewhere(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[ListenerProcess]:
    """Give a listener whose certificate names another host, and that knows three callers by theirs."""
    encoded = ssl.PEM_cert_to_DER_cert(certificates.peer[0].read_text())
    bound = ["CT1=peer", "CT2=peer.test", f"CT3=sha256:{hashlib.sha256(encoded).hexdigest()}"]
    tls = certificates.settings(certificates.elsewhere)
    with ListenerProcess(
        tmp_path_factory.mktemp("node"), tls=tls, caller_certificates=bound, callers=["*@127.0.0.1"]
    ) as process:
        yield process


def reasons(home: Path, awaited: set[str]) -> set[str]:
    """Return why callers were sent away, once these reasons are told."""
    database = Database(f"sqlite:///{home / 'nadir.sqlite'}")
    found = set[str]()

    def told() -> bool:
        with database.reading() as session:
            found.update(e.text for e in session.exec(select(Event).where(Event.kind == "rejected")))
        return found >= awaited

    try:
        eventually(told)
    finally:
        database.dispose()
    return found


@contextmanager
def ended(port: int, say: bytes = b"") -> Iterator[None]:
    """Check that what begins in this way is closed."""
    with RawPeer(port) as peer:
        peer.send(say)
        yield
        assert peer.ended_within()


def client_hello() -> bytes:
    out = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(
            ssl.MemoryBIO(), out, server_hostname="node.test"
        ).do_handshake()
    return out.read()


def s_client(port: int, certificates: Certificates, *options: str) -> subprocess.CompletedProcess[str]:
    """Return what the openssl program says of a handshake."""
    certificate, key = certificates.peer
    program = shutil.which("openssl") or "openssl"
    files = ("-cert", certificate, "-key", key, "-CAfile", certificates.ours.ca)
    return subprocess.run(
        [program, "s_client", "-connect", f"{HOST}:{port}", *map(str, files), *options],
        input="",
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def test_tls_matrix_what_may_not_come_in_is_refused_in_time_and_told_and_the_others_are_served(
    listener: ListenerProcess, quick: ListenerProcess, certificates: Certificates
) -> None:
    nobody = {"tls_certificate": None, "tls_key": None, "tls_ca": certificates.ours.ca}
    callers = {
        "wrong CA": certificates.caller(certificates.stranger),
        "expired": certificates.caller(certificates.expired),
        "no certificate": client_context(Settings(**nobody)),  # type: ignore[arg-type]
        "we are not trusted": certificates.caller(tls_ca=certificates.theirs.ca),
    }
    cases = [(listener.tls_port, tls) for tls in callers.values()]
    for port, tls in [*cases, (listener.port, certificates.caller())]:
        begun = time.monotonic()
        with pytest.raises(Unavailable):
            echo(ae_title="NADIR", host=HOST, port=port, tls=tls, timeouts=PATIENT)
        assert time.monotonic() - begun < PATIENCE_SECONDS / 2  # nobody waited for the end of a limit
    assert "Cipher is (NONE)" in s_client(listener.tls_port, certificates, *OLD).stdout
    with ExitStack() as stack:
        for beginning in (
            associate_rq("NADIR", "PLAIN", []),
            b"GET / HTTP/1.1\r\n\r\n",
            client_hello()[:40],
            client_hello(),
            b"",
        ):
            stack.enter_context(ended(quick.tls_port, beginning))
        echo(ae_title="NADIR", host=HOST, port=listener.tls_port, tls=certificates.caller())
    told = {
        *("tls-unknown-ca", "tls-expired", "tls-no-certificate", "tls-refused-by-peer", "tls-version"),
        "tls-on-plain-port",
    }
    assert reasons(listener.home, told) == told
    cut_off = {"tls-not-tls", "tls-silent"}
    assert reasons(quick.home, cut_off) == cut_off
    write_figure("TLS matrix", cases=11, refused=11, got_through=0)


def test_tls_matrix_a_peer_of_another_name_is_called_only_when_names_are_not_asked_for(
    certificates: Certificates, elsewhere: ListenerProcess
) -> None:
    with pytest.raises(Unavailable, match="certificate is not accepted: IP address mismatch"):
        echo(ae_title="NADIR", host=HOST, port=elsewhere.tls_port, tls=certificates.caller())
    unnamed = certificates.caller(tls_hostnames=False)
    echo(ae_title="NADIR", host=HOST, port=elsewhere.tls_port, tls=unnamed)


@contextmanager
def tls_server(context: ssl.SSLContext | None) -> Iterator[int]:
    """Give the port of somebody who answers one TLS handshake, or none without a context."""
    with socket.create_server((HOST, 0)) as door:

        def serve() -> None:
            with suppress(OSError), door.accept()[0] as connection:
                assert context is not None
                context.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=serve)
        if context is not None:
            thread.start()
        yield door.getsockname()[1]
    if context is not None:
        thread.join()


@pytest.mark.parametrize(
    ("case", "says"),
    [("expired", "certificate has expired"), ("stranger", "not accepted"), ("", "timed out")],
)
def test_tls_matrix_whom_we_call_is_refused_too(certificates: Certificates, case: str, says: str) -> None:
    pair = getattr(certificates, case, None)
    context = server_context(Settings(**certificates.settings(pair))) if pair else None  # type: ignore[arg-type]
    with tls_server(context) as port, pytest.raises(Unavailable, match=says):
        limits = PATIENT if pair else Timeouts(connect=1, associate=1, answer=1)
        echo(ae_title="ANY", host=HOST, port=port, tls=certificates.caller(), timeouts=limits)


@pytest.mark.parametrize(
    ("options", "negotiated"),
    [
        (("-tls1_3",), "TLSv1.3"),
        (("-tls1_2",), "TLSv1.2"),
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"), "ECDHE-ECDSA-AES128-GCM-SHA256"),
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0"), "(NONE)"),
        (("-tls1_2", "-cipher", "AES128-GCM-SHA256:@SECLEVEL=0"), "(NONE)"),
        (("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"), "(NONE)"),
    ],
    ids=["1.3", "1.2", "gcm", "no-cbc", "no-static-rsa", "no-1.1"],
)
def test_bcp_195_decides_on_version_and_cipher(
    certificates: Certificates, elsewhere: ListenerProcess, options: tuple[str, ...], negotiated: str
) -> None:
    said = s_client(elsewhere.tls_port, certificates, *options).stdout
    (line,) = [line for line in said.splitlines() if "Cipher is" in line]
    assert negotiated in line
    assert "No ALPN" in said or "NONE" in line
    assert "Secure Renegotiation IS NOT supported" in said or negotiated != "TLSv1.3"
    assert "Compression: NONE" in said or "Compression" not in said


def has_ended(peer: RawPeer) -> bool:
    """Return True when the node has closed the connection, whatever it said before."""
    peer.socket.setblocking(False)
    try:
        while peer.socket.recv(65536):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    return True


@pytest.mark.fault
def test_twenty_silent_tls_clients_hold_nobody_up(
    listener: ListenerProcess, certificates: Certificates
) -> None:
    beginnings = (b"", client_hello()[:40], client_hello())
    with ExitStack() as stack:
        silent = [stack.enter_context(RawPeer(listener.tls_port)) for _ in range(SILENT)]
        for number, peer in enumerate(silent):
            peer.send(beginnings[number % 3])
        assert all(peer.socket.recv(1) for peer in silent[2::3])  # each was answered and says no more
        begun = time.monotonic()
        echo(ae_title="NADIR", host=HOST, port=listener.tls_port, tls=certificates.caller(), timeouts=PATIENT)
        seconds = time.monotonic() - begun
        assert not any(has_ended(peer) for peer in silent)  # nobody was served because another had gone
    assert seconds <= PATIENT_LIMITS.silent_seconds / 2
    write_figure("20 silent TLS clients", echo_seconds=round(seconds, 3))


def test_an_ae_title_that_is_bound_to_a_certificate_comes_with_no_other(
    certificates: Certificates, elsewhere: ListenerProcess
) -> None:
    def call(calling_ae: str, port: int, tls: ssl.SSLContext | None) -> None:
        echo(ae_title="NADIR", host=HOST, port=port, tls=tls, calling_ae=calling_ae)

    ours = certificates.caller(tls_hostnames=False)
    other = certificates.caller(certificates.elsewhere, tls_hostnames=False)
    call("CT4", elsewhere.port, None)
    for ae_title in ("CT1", "CT2", "CT3"):
        call(ae_title, elsewhere.tls_port, ours)
        for port, tls in ((elsewhere.tls_port, other), (elsewhere.port, None)):
            with pytest.raises(Refused, match="association-rejected"):
                call(ae_title, port, tls)
    assert "certificate" in reasons(elsewhere.home, {"certificate"})
