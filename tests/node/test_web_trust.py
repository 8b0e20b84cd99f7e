"""DICOMweb over HTTPS: whose certificates are believed, and what is said of the others."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from certificates import HOST, Certificates
from empty_database import empty_database
from outbox_rows import deliveries, waiting_results
from storage_peer import work_off
from web_site import WebSite

from node import tls
from node.confirmer import Confirmer
from node.deliveries import DeliverySettings
from node.doctor_peers import peers
from node.pacs import DicomWeb
from node.prior_sources import open_source
from node.sender import Sender
from node.settings import Settings
from node.tls import context_to, web_context
from node.worklist_settings import WorklistSettings
from plugins.errors import Refused, Unavailable
from store.objects import ObjectStore

UNTRUSTED = (
    "its certificate is not trusted (unable to get local issuer certificate); name its authority in tls_ca"
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """The context is made once a process, of its environment."""
    web_context.cache_clear()
    yield
    web_context.cache_clear()


class Stub(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"[]")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


class Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A handshake that the caller breaks off is no fault here."""


@contextmanager
def serving(pair: tuple[Path, Path]) -> Iterator[str]:
    """Run a DICOMweb server that shows this certificate, and give its root."""
    server = Quiet((HOST, 0), Stub)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"https://{HOST}:{server.server_port}/rs"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def url(certificates: Certificates) -> Iterator[str]:
    with serving(certificates.peer) as root:
        yield root


def test_a_server_of_an_authority_in_tls_ca_is_asked_and_another_is_told_as_untrusted(
    url: str, certificates: Certificates, tmp_path: Path
) -> None:
    known = Settings(home=tmp_path, tls_ca=certificates.ours.ca)
    with closing(DicomWeb(url, tls=context_to(known, url))) as pacs:
        assert pacs.study_instances("1.2") == ()
    for settings in (Settings(home=tmp_path), Settings(home=tmp_path, tls_ca=certificates.theirs.ca)):
        with (
            closing(DicomWeb(url, tls=context_to(settings, url))) as pacs,
            pytest.raises(Unavailable) as told,
        ):
            pacs.study_instances("1.2")
        assert str(told.value) == f"{url} is not spoken to: {UNTRUSTED}"


def test_a_certificate_for_another_host_or_time_is_told_without_naming_an_authority(
    certificates: Certificates, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, tls_ca=certificates.ours.ca)
    for pair, says in (
        (certificates.elsewhere, "IP address mismatch"),
        (certificates.expired, "has expired"),
    ):
        with (
            serving(pair) as root,
            closing(DicomWeb(root, tls=context_to(settings, root))) as pacs,
            pytest.raises(Unavailable, match=f"certificate is not trusted .*{says}") as told,
        ):
            pacs.study_instances("1.2")
        assert "tls_ca" not in str(told.value)


def test_authorities_of_the_system_count_beside_the_public_ones_and_tls_ca(
    url: str, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ours.ca))
    context = context_to(Settings(home=tmp_path, tls_ca=certificates.theirs.ca), url)
    assert context is not None
    public = httpx.create_ssl_context(trust_env=False).cert_store_stats()["x509_ca"]
    assert context.cert_store_stats()["x509_ca"] == public + 2
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    with closing(DicomWeb(url, tls=context)) as pacs:
        assert pacs.answers()


def test_the_context_is_made_once_and_only_for_https(tmp_path: Path, certificates: Certificates) -> None:
    settings = Settings(home=tmp_path, tls_ca=certificates.ours.ca)
    assert context_to(settings, "https://a/rs") is context_to(settings, "HTTPS://b/rs")
    assert context_to(settings, "wss://a/rs") is context_to(settings, "https://a/rs")
    broken = Settings(home=tmp_path, tls_ca=tmp_path / "none.pem")
    assert context_to(broken, "http://a/rs") is None
    assert context_to(broken, "PACS@h:104") is None
    with pytest.raises(Refused, match="cannot be read"):
        context_to(broken, "https://a/rs")


def test_results_are_delivered_confirmed_and_earlier_studies_asked_for_by_it(
    url: str, certificates: Certificates, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, tls_ca=certificates.ours.ca)
    database, objects = empty_database(tmp_path), ObjectStore(tmp_path / "store")
    context = context_to(settings, url)
    waiting_results(database, objects, tmp_path, [url], count=1)
    sender = Sender(database, objects, url, tls=context)
    work_off(sender, database.now())
    (row,) = deliveries(database)
    assert (row.state, row.last_status) == ("delivered", "0x0000")
    confirmer = Confirmer.of(database, url, DeliverySettings(), calling_ae="NADIR", tls=context)
    source = open_source(url, settings, objects, tls=context)
    assert source.study_series("1.2") == ()
    for close in (sender.close, confirmer.close, source.close, database.dispose):
        close()


def test_the_viewer_is_answered_from_such_a_pacs_or_told_why_not(
    url: str, certificates: Certificates, tmp_path: Path
) -> None:
    for name, changes, status in (("known", {"tls_ca": certificates.ours.ca}, 200), ("unknown", {}, 502)):
        site = WebSite(tmp_path / name, pacs_url=url, **changes)
        try:
            answer = site.client().get("/dicom-web/studies")
        finally:
            site.stop()
        assert answer.status_code == status
        assert (UNTRUSTED in answer.text) == (status == 502)


@pytest.mark.parametrize("kind", ["destinations", "pacs_url", "priors_from", "worklist"])
def test_the_doctor_asks_as_the_node_does(
    kind: str, url: str, certificates: Certificates, tmp_path: Path
) -> None:
    own = {
        "destinations": {"destinations": (url,)},
        "pacs_url": {"pacs_url": url},
        "priors_from": {"priors_from": (url,)},
        "worklist": {"worklist": WorklistSettings(url=url), "destinations": ("http://127.0.0.1:9/rs",)},
    }[kind]

    def told(**more: object) -> tuple[bool, str]:
        line = next(one for one in peers(Settings(home=tmp_path, **own, **more)) if url in one.what)  # type: ignore[arg-type]
        return line.ok, line.says

    assert told() == (False, UNTRUSTED)
    assert told(tls_ca=certificates.ours.ca) == (True, "answers DICOMweb with HTTP 200")
    is_there, says = told(tls_ca=tmp_path / "none.pem")
    assert not is_there
    assert "none.pem cannot be read" in says
    assert tls.distrust(OSError("another fault")) == ""
