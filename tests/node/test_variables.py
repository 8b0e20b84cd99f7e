"""Variables of the environment that are no setting: a misspelt one is refused, a stranger told."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.doctor import examine
from node.flags import load_settings
from node.serve import serve
from node.settings import Settings
from node.variables import foreign
from plugins.errors import Refused


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("NADIR_CALLER", "NADIR_CALLERS"),
        ("NADIR_HOOK_TOKN", "NADIR_HOOK_TOKEN"),
        ("NADIR_HOOK_TOKEN_FIL", "NADIR_HOOK_TOKEN_FILE"),
        ("NADIR_DESTINATION", "NADIR_DESTINATIONS"),
        ("NADIR_PLUGIN", "NADIR_ENABLED"),
        ("NADIR_AE_TITLE_FILE", "NADIR_AE_TITLE"),
        ("NADIR_WORKLIST_SECONDS", "NADIR_WORKLIST__SECONDS"),
        ("nadir_caller", "NADIR_CALLERS"),
    ],
)
def test_a_variable_that_is_nearly_a_setting_is_refused_with_the_nearest(
    variable: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "a-secret")
    with pytest.raises(Refused) as caught:
        load_settings(None, {})
    assert caught.value.code == "bad-settings"
    assert caught.value.sentence == f"{variable}: there is no such setting; {meant} is the nearest"


@pytest.mark.parametrize(
    "variable",
    [
        "NADIR_AE_TITLE", "nadir_ae_title", "NADIR_HOOK_TOKEN_FILE", "NADIR_DESTINATIONS_FILE",
        "NADIR_PLUGINS__PET_LESION__THRESHOLD",
        "NADIR_WORKLIST__URL", "NADIR_RETRAIN__MARGINS__FEWEST_PATIENTS", "NADIR_TOKEN", "NADIR_URL",
        "NADIR_TOKEN_FILE",
        "NADIR_VERSION", "NADIR_SECRETS_GROUP", "NADIR_TEST_DATA", "NADIR_DEBUG", "NADIR_FAILPOINT", "NADIRS", "PATH",
    ],
)  # fmt: skip
def test_settings_and_our_other_variables_are_no_strangers(variable: str) -> None:
    assert foreign({variable: "1"}) == []


SERVICES = [
    f"NADIR_{service}{ending}"
    for service in ("", "WEB_", "HTTP_", "DICOM_", "METRICS_", "TLS_", "WORKER_")
    for ending in ("SERVICE_HOST", "SERVICE_PORT", "PORT_104_TCP", "PORT_104_TCP_ADDR", "PORT_104_TCP_PORT")
]


@pytest.mark.parametrize("variable", [*SERVICES, "NADIR_PORT", "NADIR_WEB_PORT", "NADIR_SITE", "NADIR_DEST"])
def test_what_a_platform_sets_for_a_service_is_a_stranger_and_no_error(variable: str) -> None:
    assert foreign({variable: "tcp://10.0.0.1:80"}) == [variable]


def test_the_doctor_names_a_stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NADIR_SITE", "north")
    (told,) = [line for line in examine(Settings(home=tmp_path, enabled=())) if "variable" in line.what]
    assert (told.what, told.ok, told.needed) == ("variable NADIR_SITE", False, False)
    assert told.says == "is no setting and changes nothing"


def test_a_node_that_starts_tells_a_stranger_in_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setenv("NADIR_SITE", "north")
    monkeypatch.setattr("node.serve.logs.configure", lambda *_, **__: None)
    monkeypatch.setattr("node.serve.log.warning", told.append)
    monkeypatch.setattr("node.serve.keep_one_heap", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        serve(Settings(home=tmp_path))
    assert told == ["action=no-setting variable=NADIR_SITE"]
