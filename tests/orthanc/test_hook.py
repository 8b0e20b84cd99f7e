"""The hook: inside a real Orthanc, and with a stand-in for Orthanc's module in the shapes of old and new versions."""

from __future__ import annotations

import ast
import datetime
import json
import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from dicom_series import make_series
from orthanc_module import STABLE, STARTED, STOPPED, Ear, FakeOrthanc, NewOutput, OldOutput, change, load_hook
from orthanc_server import HOOK, orthanc, require_orthanc
from patience import eventually
from pydicom import dcmread
from pynetdicom import AE

OTHER = 3


# --- with a stand-in -------------------------------------------------------------------------------------------


def test_outside_orthanc_the_file_loads_and_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not hasattr(load_hook(monkeypatch, None), "TELLER")
    assert not hasattr(load_hook(monkeypatch, ModuleType("orthanc")), "TELLER")


def test_it_needs_the_standard_library_only_and_the_grammar_of_python_3_9() -> None:
    tree = ast.parse(HOOK.read_text(), feature_version=(3, 9))
    named = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    named += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    roots = {name.partition(".")[0] for name in named}
    assert roots - {"orthanc"} <= set(sys.stdlib_module_names)
    assert not (HOOK.parent / "__init__.py").exists()


@pytest.mark.parametrize("output", [OldOutput, NewOutput])
def test_a_stable_study_is_told_with_token_and_shown_in_the_status(
    monkeypatch: pytest.MonkeyPatch, ear: Ear, output: type[OldOutput]
) -> None:
    fake = FakeOrthanc({"Nadir": {"Url": ear.url + "/", "Token": "s3cret"}})
    load_hook(monkeypatch, fake)
    change(fake, STARTED)
    change(fake, OTHER, "77")
    change(fake, STABLE, "5")
    assert eventually(lambda: len(ear.heard) == 1)
    assert ear.heard == [{"path": "/intake/study", "study_instance_uid": "1.2.5", "orthanc_id": "5"}]
    assert ear.tokens == ["Bearer s3cret"]
    shown, refused = output(), output()

    def told() -> bool:
        shown.sent.clear()
        fake.routes["/nadir/status"](shown, "/nadir/status", method="GET", groups=(), get={}, headers={})
        return json.loads(shown.sent[0][1])["told"] == 1

    assert eventually(told)
    status = json.loads(shown.sent[0][1])
    assert status == {"url": ear.url, "waiting": 0, "told": 1, "failures_in_a_row": 0, "last_error": ""}
    assert "s3cret" not in shown.sent[0][1]
    fake.routes["/nadir/status"](refused, "/nadir/status", method="POST", groups=(), headers={}, body=b"")
    assert refused.sent == [(405, "GET")]
    change(fake, STOPPED)


def test_the_callback_returns_at_once_while_the_node_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeOrthanc({})
    hook = load_hook(monkeypatch, None)
    gate = threading.Event()
    teller = hook.Teller(fake, "http://x", "", send=lambda *_: 202 if gate.wait(120) else 500)
    teller.start()
    began = time.monotonic()
    for number in range(1000):
        teller.queue(str(number))
    assert time.monotonic() - began < 60
    assert teller.status()["waiting"] == 1000
    gate.set()
    assert eventually(lambda: teller.status()["told"] == 1000)
    teller.stop()


def test_it_tells_again_until_the_node_takes_it_and_each_study_once(
    monkeypatch: pytest.MonkeyPatch, ear: Ear
) -> None:
    fake = FakeOrthanc({"Nadir": {"Url": ear.url}})
    hook = load_hook(monkeypatch, None)
    ear.answers = [503, 401, 404]
    teller = hook.Teller(fake, ear.url, "", delays=(0.01, 0.02))
    for study in ("1", "2", "1", "deleted"):
        teller.queue(study)
    teller.start()
    assert eventually(lambda: teller.status()["waiting"] == 0)
    assert sorted(ear.uids[3:]) == ["1.2.1", "1.2.2"]
    assert len(ear.heard) == 5
    teller.stop()


def test_a_study_that_orthanc_cannot_read_for_a_moment_is_told_afterwards(
    monkeypatch: pytest.MonkeyPatch, ear: Ear
) -> None:
    fake = FakeOrthanc({})
    hook = load_hook(monkeypatch, None)
    fake.is_ill = True
    teller = hook.Teller(fake, ear.url, "", delays=(0.01,))
    teller.queue("1")
    teller.start()
    assert eventually(lambda: teller.status()["failures_in_a_row"] > 1)
    assert teller.status()["last_error"] == "Orthanc does not say which study 1 is (OrthancException)"
    fake.is_ill = False
    assert eventually(lambda: ear.uids == ["1.2.1"])
    assert eventually(lambda: teller.status()["waiting"] == 0)
    teller.stop()


def test_a_wrong_token_is_told_as_such_and_forgotten_once_the_node_takes_a_study(
    monkeypatch: pytest.MonkeyPatch, ear: Ear
) -> None:
    fake = FakeOrthanc({})
    hook = load_hook(monkeypatch, None)
    ear.answers = [401]
    teller = hook.Teller(fake, ear.url, "", delays=(0.01,))
    teller.queue("1")
    teller.start()
    assert eventually(lambda: teller.status()["waiting"] == 0)
    why = '"Token" of the hook is not what the node asks for: its hook_token, or a token of the scope hook'
    assert any(line.endswith(f"answers HTTP 401: {why}") for line in fake.logged)
    assert (teller.status()["told"], teller.status()["last_error"]) == (1, "")
    teller.stop()


def test_a_study_that_the_node_refuses_for_good_does_not_hold_the_next(
    monkeypatch: pytest.MonkeyPatch, ear: Ear
) -> None:
    fake = FakeOrthanc({})
    hook = load_hook(monkeypatch, None)
    ear.answers = [422]
    teller = hook.Teller(fake, ear.url, "", delays=(60.0,))
    teller.queue("1")
    teller.queue("2")
    teller.start()
    assert eventually(lambda: teller.status()["waiting"] == 0)
    assert ear.uids == ["1.2.1", "1.2.2"]
    assert any("HTTP 422" in line for line in fake.logged)
    teller.stop()


def test_a_study_that_becomes_stable_while_it_is_told_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeOrthanc({})
    hook = load_hook(monkeypatch, None)
    told: list[str] = []

    def send(url: str, token: str, body: dict[str, str]) -> int:
        told.append(body["study_instance_uid"])
        if len(told) == 1:
            teller.queue("1")
        return 202

    teller = hook.Teller(fake, "http://x", "", send=send)
    teller.queue("1")
    teller.start()
    assert eventually(lambda: teller.status()["waiting"] == 0)
    assert told == ["1.2.1", "1.2.1"]
    teller.stop()


def test_a_redirect_is_not_followed_so_the_token_stays_with_the_node(
    monkeypatch: pytest.MonkeyPatch, ear: Ear
) -> None:
    hook = load_hook(monkeypatch, None)
    ear.answers = [302]
    assert hook.post(ear.url, "t", {"study_instance_uid": "1.2"}) == 302
    assert len(ear.heard) == 1


def test_studies_changed_in_the_last_days_are_found_in_orthancs_log_of_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeOrthanc({})
    hook = load_hook(monkeypatch, None)
    monkeypatch.setattr(hook, "CHANGES_PER_PAGE", 4)
    rows = [("Study", "old", "20250101T000000")] * 3 + [("Study", "lost", "20250110T120000")]
    rows += [("Instance", "i", "20250110T120001")] * 9 + [("Study", "told", "20250111T000000")]
    fake.changes = [
        {"Seq": number, "ResourceType": kind, "ID": name, "Date": at}
        for number, (kind, name, at) in enumerate(rows, start=1)
    ]
    since = datetime.datetime(2025, 1, 9, tzinfo=datetime.timezone.utc)  # noqa: UP017 - as the hook writes it
    assert hook.changed_studies(fake, since) == ["told", "lost"]
    fake.changes = []
    assert hook.changed_studies(fake, since) == []


DAY = 86400


@pytest.mark.parametrize("is_told_before", [True, False])
def test_what_a_node_that_was_away_for_weeks_was_not_told_is_told_when_orthanc_starts(
    monkeypatch: pytest.MonkeyPatch, is_told_before: bool
) -> None:
    fake = FakeOrthanc({})
    hook = load_hook(monkeypatch, None)
    now = datetime.datetime(2025, 1, 10, tzinfo=datetime.UTC).timestamp()
    monkeypatch.setattr(hook, "time", SimpleNamespace(time=lambda: now))
    told: list[str] = []

    def teller(answer: int) -> Any:
        def send(url: str, token: str, body: dict[str, Any]) -> int:
            told.append(body["orthanc_id"])
            return answer

        made = hook.Teller(fake, "http://x", "", send=send)
        made.start()
        return made

    first = teller(202 if is_told_before else 503)
    first.queue("before")
    assert eventually(lambda: told == ["before"])
    first.stop()
    fake.changes = [{"Seq": 1, "ResourceType": "Study", "ID": "lost", "Date": "20250110T120000"}]
    for _restart in range(2):
        told.clear()
        now += 20 * DAY
        away = teller(503)
        assert eventually(lambda: told == ["lost"])
        away.stop()
    back = teller(202)
    assert eventually(lambda: told == ["lost", "lost"] and back.status()["waiting"] == 0)
    back.stop()
    assert back.status()["told"] == 1
    now += 20 * DAY
    later = teller(202)
    later.queue("later")
    assert eventually(lambda: later.status()["told"] == 1)
    later.stop()
    assert told[2:] == ["later"]


@pytest.mark.parametrize(
    "section", [[], {"Url": "ftp://x"}, {"Url": 5}, {"Token": "a\nb"}, {"Url": "http://x", "Token": 7}]
)
def test_a_wrong_configuration_is_told_in_one_line_and_registers_nothing(
    monkeypatch: pytest.MonkeyPatch, section: object
) -> None:
    fake = FakeOrthanc({"Nadir": section})
    load_hook(monkeypatch, fake)
    assert fake.on_change is None
    assert len(fake.logged) == 1 and "\n" not in fake.logged[0]


def test_the_environment_wins_over_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    hook = load_hook(monkeypatch, None)
    configuration = json.dumps({"Nadir": {"Url": "http://a", "Token": "1"}})
    assert hook.read_settings(configuration, {}) == ("http://a", "1")
    assert hook.read_settings(configuration, {"NADIR_URL": "https://b/", "NADIR_TOKEN": "2"}) == (
        "https://b",
        "2",
    )
    assert hook.read_settings("{}", {}) == ("http://127.0.0.1:8080", "")


def test_the_token_may_come_from_a_file_as_containers_hand_secrets_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hook = load_hook(monkeypatch, None)
    secret = tmp_path / "token"
    for before in ("", "\ufeff"):  # some editors begin a file with a byte order mark
        secret.write_text(f"{before}long-and-random\n", encoding="utf-8")
        assert hook.read_settings("{}", {"NADIR_TOKEN_FILE": str(secret)})[1] == "long-and-random"
    with pytest.raises(ValueError, match="NADIR_TOKEN_FILE"):
        hook.read_settings("{}", {"NADIR_TOKEN_FILE": str(tmp_path / "none")})


# --- inside a real Orthanc ------------------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make_series(tmp_path, np.zeros((1, 8, 8)))[0]


def test_a_real_orthanc_tells_a_stable_study_once_the_node_is_up(ear: Ear, image: Path) -> None:
    ear.answers = [503]
    with orthanc(node_url=ear.url, token="abc") as server:
        study = server.upload(image)["ParentStudy"]
        uid = server.get(f"/studies/{study}")["MainDicomTags"]["StudyInstanceUID"]
        assert eventually(lambda: len(ear.heard) >= 2)
        assert ear.heard[0] == {"path": "/intake/study", "study_instance_uid": uid, "orthanc_id": study}
        assert set(ear.uids) == {uid} and set(ear.tokens) == {"Bearer abc"}
        assert eventually(lambda: server.get("/nadir/status")["told"] == 1)
        refused = httpx.post(server.url + "/nadir/status", content=b"x", trust_env=False)
        assert refused.status_code == 405


def test_what_a_killed_orthanc_never_told_is_told_when_it_starts_again(ear: Ear, image: Path) -> None:
    with orthanc(node_url=ear.url, stable_seconds=3600) as server:
        study = server.upload(image)["ParentStudy"]
        server.kill()
        assert ear.heard == []
        server.start()
        assert eventually(lambda: len(ear.heard) == 1)
        assert ear.heard[0]["orthanc_id"] == study


def test_the_shipped_configuration_is_one_that_orthanc_starts_with(ear: Ear, image: Path) -> None:
    require_orthanc()
    shipped = json.loads((HOOK.parent / "orthanc.json").read_text())
    local = (
        "StorageDirectory",
        "IndexDirectory",
        "HttpPort",
        "DicomPort",
        "PythonScript",
        "Nadir",
        "StableAge",
    )
    extra = {key: value for key, value in shipped.items() if key not in local}
    with orthanc(node_url=ear.url, extra=extra) as server:
        assert server.get("/modalities") == ["nadir"]
        assert {"dicom-web", "python"} <= set(server.get("/plugins"))
        assert store(image, server.dicom_port, "NADIR") == 0x0000
        assert store(image, server.dicom_port, "STRANGER") is None
        assert eventually(lambda: len(ear.heard) == 1)


def store(path: Path, port: int, calling_ae: str) -> int | None:
    dataset = dcmread(path)
    ae = AE(ae_title=calling_ae)
    ae.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", port, ae_title="ORTHANC")
    if not association.is_established:
        return None
    status = association.send_c_store(dataset).get("Status")
    association.release()
    return None if status is None else int(status)
