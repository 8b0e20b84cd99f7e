"""DICOM by TLS as dcmtk, Orthanc and the node speak it, the certificates of a node, and what the doctor tells of it."""

from __future__ import annotations

import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp

import httpx
import numpy as np
import pytest
from certificates import HOST, Certificates
from dcmtk_tools import run_dcmtk, start_dcmtk
from dicom_series import make_series
from listener_process import ListenerProcess
from orthanc_server import orthanc
from patience import PATIENT, eventually
from ports import free_port
from small_node import SmallNode, instances_in
from sqlmodel import select
from typer.testing import CliRunner

from node.cli import app
from node.doctor import examine
from node.expiry import Expiry
from node.metrics import Counts
from node.scu import echo, send_files
from node.serve import Node
from node.settings import Settings
from node.tls import certificate_names, client_context, expires_at, server_context
from plugins.errors import Refused, Unavailable
from store.tables import Event

pytestmark = pytest.mark.sec


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module", params=["fast", "pynetdicom"])
def listener(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates, request: pytest.FixtureRequest
) -> Iterator[ListenerProcess]:
    home = tmp_path_factory.mktemp("node")
    with ListenerProcess(home, tls=certificates.settings(), receive_path=request.param) as process:
        yield process


def images(folder: Path, count: int = 3) -> list[Path]:
    array = np.random.default_rng(1).integers(0, 1000, (count, 128, 128))
    return make_series(folder, array, patient_id=folder.parent.name)


def test_objects_come_by_tls_as_they_do_without(
    listener: ListenerProcess, certificates: Certificates, tmp_path: Path
) -> None:
    large = make_series(tmp_path / "large", np.zeros((1, 2048, 2048)), patient_id="large", series_number=2)
    paths = [*images(tmp_path / "in", 11), *large]
    sent = send_files(
        paths, ae_title="NADIR", host=HOST, port=listener.tls_port, associations=2, tls=certificates.caller()
    )
    assert [one.status for one in sent] == [0x0000] * 12
    by_tls = {one.sop_instance_uid: instances_in(listener.home)[one.sop_instance_uid] for one in sent}
    sent = send_files(paths, ae_title="NADIR", host=HOST, port=listener.port)
    assert [one.status for one in sent] == [0x0000] * 12
    known = instances_in(listener.home)
    assert {uid: known[uid] for uid in by_tls} == by_tls
    assert len(by_tls) == 12


def test_dcmtk_sends_by_tls(listener: ListenerProcess, certificates: Certificates, tmp_path: Path) -> None:
    certificate, key = certificates.peer
    paths, before = images(tmp_path / "in"), len(instances_in(listener.home))
    for profile in ("--profile-bcp195-nd", "--profile-bcp195", "--profile-bcp195-ex"):
        said = run_dcmtk(
            "storescu",
            *("+tls", key, certificate, "+cf", certificates.ours.ca, profile, "-aec", "NADIR"),
            *(HOST, listener.tls_port, *paths),
        )
        assert said.returncode == 0, said.stderr
    assert len(instances_in(listener.home)) - before == 3


def test_dcmtk_receives_by_tls(certificates: Certificates, tmp_path: Path) -> None:
    certificate, key = certificates.peer
    port = free_port()
    (tmp_path / "out").mkdir()
    options = ("+tls", key, certificate, "+cf", certificates.ours.ca, "-od", tmp_path / "out")
    process = start_dcmtk("storescp", [*options, str(port)])
    try:
        wait_for(port)
        tls = certificates.caller(certificates.node)
        echo(ae_title="ANY", host=HOST, port=port, tls=tls)
        sent = send_files(images(tmp_path / "in"), ae_title="ANY", host=HOST, port=port, tls=tls)
        assert [one.status for one in sent] == [0x0000] * 3
        with pytest.raises(Unavailable):
            echo(ae_title="ANY", host=HOST, port=port)
    finally:
        process.kill()
        process.wait()
    assert len(list((tmp_path / "out").iterdir())) == 3


def wait_for(port: int) -> None:
    def answers() -> bool:
        with suppress(OSError):
            socket.create_connection((HOST, port)).close()
            return True
        return False

    assert eventually(answers)


def test_orthanc_and_the_node_speak_tls_both_ways(
    certificates: Certificates, tmp_path: Path, listener: ListenerProcess
) -> None:
    certificate, key = certificates.peer
    before = len(instances_in(listener.home))
    folder = Path(mkdtemp(prefix="nadir-tls-", dir="/tmp"))  # Orthanc runs as nobody, who may not enter ours
    folder.chmod(0o755)
    try:
        for source in (certificate, key, certificates.ours.ca):
            shutil.copy(source, folder / source.name)
            (folder / source.name).chmod(0o644)
        node = {"AET": "NADIR", "Host": HOST, "Port": listener.tls_port, "UseDicomTls": True}
        extra = {
            "DicomTlsEnabled": True,
            "DicomTlsCertificate": str(folder / certificate.name),
            "DicomTlsPrivateKey": str(folder / key.name),
            "DicomTlsTrustedCertificates": str(folder / certificates.ours.ca.name),
        }
        with orthanc(modalities={"nadir": node}, extra=extra) as server:
            tls = certificates.caller(certificates.node)
            paths = images(tmp_path / "in")
            echo(ae_title="ORTHANC", host=HOST, port=server.dicom_port, tls=tls)
            sent = send_files(paths, ae_title="ORTHANC", host=HOST, port=server.dicom_port, tls=tls)
            assert [one.status for one in sent] == [0x0000] * 3
            assert len(server.get("/instances")) == 3
            for instance in server.get("/instances"):
                httpx.post(
                    f"{server.url}/modalities/nadir/store", content=instance, timeout=30, trust_env=False
                ).raise_for_status()
    finally:
        shutil.rmtree(folder)
    assert len(instances_in(listener.home)) - before == 3


def test_tls_alone_has_no_plain_port_and_shows_a_renewed_certificate_without_a_restart(
    certificates: Certificates, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "node.pem", tmp_path / "node.key"

    def install(pair: tuple[Path, Path]) -> None:
        for source, target in zip(pair, (certificate, key), strict=True):
            target.write_bytes(source.read_bytes())

    install(certificates.elsewhere)
    tls, shown = certificates.caller(), certificates.settings((certificate, key))
    with ListenerProcess(tmp_path / "home", tls=shown, port=None) as process:
        assert process.port == 0
        with pytest.raises(Unavailable, match="mismatch"):
            echo(ae_title="NADIR", host=HOST, port=process.tls_port, tls=tls)
        install(certificates.node)
        echo(ae_title="NADIR", host=HOST, port=process.tls_port, tls=tls)
        certificate.write_text("no certificate")
        echo(ae_title="NADIR", host=HOST, port=process.tls_port, tls=tls)
        assert "action=certificate-not-renewed" in process.log.read_text()


def test_a_node_without_any_dicom_port_is_refused() -> None:
    with pytest.raises(Refused, match="tls_port"):
        Settings.load(plain_dicom=False)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tls_certificate": None}, "needs a certificate"),
        ({"tls_certificate": "/no/such.pem"}, "tls_certificate /no/such.pem cannot be read"),
        ({"tls_key": "/no/such.key"}, "tls_key /no/such.key cannot be read"),
        ({"tls_certificate": "{ca_key}"}, "holds no PEM certificate"),
        ({"tls_key": "{other_key}"}, "does not belong to the certificate"),
        ({"tls_key": "{ca}"}, "is no PEM key"),
        ({"tls_ca": None}, "set tls_ca"),
        ({"tls_ca": "{other_key}"}, "holds no PEM certificate"),
    ],
)
def test_bad_files_are_refused_at_the_start(
    certificates: Certificates, changes: dict[str, str | None], says: str
) -> None:
    names = {
        "ca": certificates.ours.ca,
        "ca_key": certificates.ours.folder / "ca.key",
        "other_key": certificates.peer[1],
    }
    filled = {name: value and value.format(**names) for name, value in changes.items()}
    with pytest.raises(Refused, match=says) as refused:
        server_context(Settings(**{**certificates.settings(), **filled}))  # type: ignore[arg-type]
    assert refused.value.code == "bad-tls"


def test_a_key_with_a_passphrase_is_opened_by_it_alone(certificates: Certificates) -> None:
    pair = certificates.ours.issue("locked", passphrase="geheim")
    server_context(Settings(**certificates.settings(pair, tls_key_passphrase="geheim")))  # type: ignore[arg-type]
    for wrong in ("", "falsch"):
        with pytest.raises(Refused, match="passphrase"):
            server_context(Settings(**certificates.settings(pair, tls_key_passphrase=wrong)))  # type: ignore[arg-type]


def test_callers_need_no_certificate_only_where_the_settings_say_so(certificates: Certificates) -> None:
    settings = certificates.settings()
    assert server_context(Settings(**settings)).verify_mode is ssl.CERT_REQUIRED  # type: ignore[arg-type]
    settings = {**settings, "tls_ca": None, "tls_mutual": False}
    assert server_context(Settings(**settings)).verify_mode is ssl.CERT_NONE  # type: ignore[arg-type]


def test_nobody_is_called_by_tls_without_an_authority_to_judge_by(certificates: Certificates) -> None:
    with pytest.raises(Refused, match="set it"):
        client_context(Settings())


def test_when_a_certificate_expires_is_read_from_it(certificates: Certificates) -> None:
    now = datetime.now(UTC)
    assert 29 <= (expires_at(certificates.node[0]) - now).days <= 30
    assert expires_at(certificates.expired[0]) <= now
    with pytest.raises(Refused, match="no PEM certificate"):
        expires_at(certificates.node[1])


def test_certificate_names_of_a_plain_connection_are_none() -> None:
    with socket.socket() as plain:
        assert certificate_names(plain) == frozenset()


def test_nadir_send_sends_by_tls_and_never_without_where_it_was_asked_for(
    certificates: Certificates, listener: ListenerProcess, tmp_path: Path
) -> None:
    certificate, key = certificates.peer
    files = ("--tls-certificate", certificate, "--tls-key", key, "--tls-ca", certificates.ours.ca)

    def send(port: int, *options: str | Path) -> tuple[int, str]:
        to = f"NADIR@{HOST}:{port}"
        done = CliRunner().invoke(app, ["send", str(folder), "--to", to, "--tls", *map(str, options)])
        return done.exit_code, done.output

    folder = images(tmp_path / "in")[0].parent
    code, said = send(listener.tls_port, *files)
    assert (code, "3 of 3 sent" in said) == (0, True), said
    assert send(listener.port, *files)[0] == 1
    assert send(listener.tls_port)[0] == 1


def test_an_event_a_day_tells_of_certificates_that_expire_soon(
    certificates: Certificates, tmp_path: Path
) -> None:
    node, now = SmallNode.make(tmp_path), datetime.now(UTC)
    expiry = Expiry(node.database, Settings(**certificates.settings()))  # type: ignore[arg-type]
    assert expiry.tick(now - timedelta(days=10)) is False
    assert [expiry.tick(now + timedelta(days=20, hours=hours)) for hours in (0, 1, 25)] == [True, False, True]
    assert [event.kind for event in node.rows(Event)] == ["certificate-expires"] * 4
    assert node.rows(Event)[0].text == "10 days are left"


def test_the_certificate_of_https_is_told_by_events_metrics_and_doctor_beside_one_that_is_gone(
    certificates: Certificates, tmp_path: Path
) -> None:
    made, now = SmallNode.make(tmp_path), datetime.now(UTC) + timedelta(days=1)
    path, key = certificates.expired
    named = {"tls_ca": tmp_path / "gone.pem", "http_tls_certificate": path, "http_tls_key": key}
    settings = Settings(home=tmp_path, **named)  # type: ignore[arg-type]
    assert Expiry(made.database, settings).tick(now) is True
    assert [(row.kind, row.subject, row.text) for row in made.rows(Event)] == [
        ("certificate-expires", str(path), "it has expired")
    ]
    families = {family.name: family for family in Counts(made.database, settings).collect()}
    (sample,) = families["nadir_certificate_days"].samples
    assert -1 < sample.value < 0
    said = {line.what: line for line in examine(settings)}
    assert said[f"TLS certificate {path}"].says == "expired 0 days ago"
    assert said[f"TLS certificate {path}"].needed
    assert "cannot be read" in said[f"TLS certificate {tmp_path / 'gone.pem'}"].says


def test_certificate_files_of_one_name_are_told_apart_in_the_metrics(
    certificates: Certificates, tmp_path: Path
) -> None:
    made, files = SmallNode.make(tmp_path), (tmp_path / "own" / "tls.crt", tmp_path / "ca" / "tls.crt")
    for source, target in zip((certificates.expired[0], certificates.ours.ca), files, strict=True):
        target.parent.mkdir()
        shutil.copyfile(source, target)
    settings = Settings(home=tmp_path, tls_certificate=files[0], tls_ca=files[1])
    families = {family.name: family for family in Counts(made.database, settings).collect()}
    days = {sample.labels["file"]: sample.value for sample in families["nadir_certificate_days"].samples}
    assert {file: round(left) for file, left in days.items()} == {str(files[0]): 0, str(files[1]): 30}


def test_a_node_with_pages_alone_looks_at_the_certificate_of_https(
    certificates: Certificates, tmp_path: Path
) -> None:
    path, key = certificates.expired
    settings = Settings(home=tmp_path, http_port=0, http_tls_certificate=path, http_tls_key=key)
    made = Node(settings, ["web"])
    made.start()

    def told() -> bool:
        with made.database.reading() as session:
            return session.exec(select(Event.subject).where(Event.kind == "certificate-expires")).all() == [
                str(path)
            ]

    try:
        assert eventually(told)
    finally:
        made.stop()


def test_doctor_tells_of_the_tls_port_and_its_certificates(
    certificates: Certificates, tmp_path: Path
) -> None:
    def said(**changes: object) -> dict[str, tuple[bool, str]]:
        settings = {**certificates.settings(), "home": tmp_path, "tls_port": free_port(), **changes}
        lines = examine(Settings(**settings))  # type: ignore[arg-type]
        return {line.what: (line.ok, line.says) for line in lines}

    well = said()
    assert well["DICOM TLS port"][0]
    assert "TLS" not in well
    assert not well[f"TLS certificate {certificates.node[0]}"][0]  # 30 days are soon
    assert "set tls_ca" in said(tls_ca=None)["TLS"][1]
    expired = said(tls_certificate=certificates.expired[0], tls_key=certificates.expired[1])
    assert "expired 0 days ago" in expired[f"TLS certificate {certificates.expired[0]}"][1]
    certificate, key = certificates.peer
    key.chmod(0o644)
    try:
        open_key = said(tls_certificate=certificate, tls_key=key)
        open_https_key = said(http_tls_certificate=certificate, http_tls_key=key)
    finally:
        key.chmod(0o600)
    assert "open to everybody" in open_key["TLS key"][1]
    assert "HTTPS key" not in open_key
    assert open_https_key["HTTPS key"] == (
        False,
        f"{key} is open to everybody on this machine: chmod o-rwx {key}",
    )
    assert "TLS key" not in open_https_key


def test_doctor_tells_why_a_tls_destination_does_not_answer(
    certificates: Certificates, listener: ListenerProcess, tmp_path: Path
) -> None:
    destination = f"NADIR@{HOST}:{listener.tls_port}"
    for ca, answer in ((certificates.ours.ca, "answers C-ECHO"), (certificates.theirs.ca, "not accepted")):
        settings = {
            **certificates.settings(certificates.peer, tls_ca=ca),
            "home": tmp_path,
            "destinations": [destination],
            "delivery": {destination: {"tls": True}},
        }
        lines = {line.what: line.says for line in examine(Settings(**settings))}  # type: ignore[arg-type]
        assert answer in lines[f"destination {destination}"]


@pytest.mark.parametrize("by_tls", [True, False])
def test_who_speaks_tls_to_a_plain_peer_or_the_other_way_is_told_what_may_be_wrong(
    listener: ListenerProcess, certificates: Certificates, by_tls: bool
) -> None:
    port, tls = (listener.port, certificates.caller()) if by_tls else (listener.tls_port, None)
    with pytest.raises(Unavailable) as caught:
        echo(ae_title="NADIR", host=HOST, port=port, tls=tls, timeouts=PATIENT)
    why = ": TLS failed: wrong version number; perhaps it speaks no TLS: see `tls` of its delivery table"
    if not by_tls:
        why = "; is the port right, or does it speak TLS only (`tls` of its delivery table)?"
    assert str(caught.value).replace(": Connection reset by peer", "") == (
        f"NADIR@{HOST}:{port} cannot be reached{why}"
    )


def test_a_peer_that_hangs_up_on_tls_may_speak_none_and_one_that_is_not_there_is_asked_for(
    certificates: Certificates,
) -> None:
    with socket.create_server((HOST, 0)) as server:
        hung_up = threading.Thread(target=lambda: server.accept()[0].close())
        hung_up.start()
        with pytest.raises(Unavailable, match="perhaps it speaks no TLS"):
            port = server.getsockname()[1]
            echo(ae_title="ANY", host=HOST, port=port, tls=certificates.caller(), timeouts=PATIENT)
        hung_up.join()
    with pytest.raises(Unavailable, match=r"Connection refused; is it running, and is the port right\?"):
        echo(ae_title="ANY", host=HOST, port=port, timeouts=PATIENT)
