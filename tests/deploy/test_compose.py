"""`compose.yaml`: what an engine would be told, and that a bad file is refused."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from composed import composed, make_secrets
from programs import ROOT, program

from node.reporters import Reporters
from node.secrets import SECRET, WITH_PASSWORDS, is_secret, read_secret
from node.serve import ROLES
from node.settings import Settings
from store.database import Database

OURS = {*ROLES, "worker-gpu"}


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """Return the file as docker-compose understands it, with every profile."""
    done = composed(ROOT / "compose.yaml", "--profile", "gpu")
    assert done.returncode == 0, done.stderr
    return dict(yaml.safe_load(done.stdout))


@pytest.fixture(scope="module")
def services(whole: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return dict(whole["services"])


def test_every_role_has_a_service_of_its_own_on_one_image_one_home_and_one_database(
    services: dict[str, dict[str, Any]],
) -> None:
    commands = {name: services[name]["command"] for name in ROLES}
    assert commands == {role: ["serve", "--role", role] for role in ROLES}
    assert len({services[role]["image"] for role in ROLES}) == 1
    assert all("home:/data:rw" in services[name]["volumes"] for name in OURS)
    urls = {services[name]["environment"]["NADIR_DATABASE_URL_FILE"] for name in OURS}
    assert urls == {"/run/secrets/database_url"}
    assert set(services) == OURS | {"postgres", "orthanc", "prometheus", "grafana"}
    assert services["worker-gpu"]["profiles"] == ["gpu"]


def test_no_service_has_more_rights_than_it_needs(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"] and "cap_add" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged") and "network_mode" not in service, name
        assert service["mem_limit"] and service["cpus"] and service["pids_limit"], name
        assert service["healthcheck"]["test"][0] == "CMD" and service["stop_grace_period"], name
        assert not service.get("user", "10001").startswith(("0", "root")), name


def test_every_foreign_image_has_a_version_and_ours_a_file_that_it_is_built_from(
    services: dict[str, dict[str, Any]],
) -> None:
    for name, service in services.items():
        if "build" in service:
            context = Path(service["build"]["context"])
            assert (context / service["build"].get("dockerfile", "Dockerfile")).is_file(), name
        assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+[\w.-]*", service["image"]), service["image"]


def test_ports_are_for_this_machine_alone_until_told_otherwise(services: dict[str, dict[str, Any]]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {
        "listener": ["127.0.0.1:11112:11112/tcp"],
        "web": ["127.0.0.1:8080:8080/tcp"],
        "orthanc": ["127.0.0.1:4242:4242/tcp", "127.0.0.1:8042:8042/tcp"],
        "grafana": ["127.0.0.1:3000:3000/tcp"],
    }


def test_only_what_speaks_to_the_outside_is_on_a_network_that_leads_there(
    whole: dict[str, Any], services: dict[str, dict[str, Any]]
) -> None:
    outward = {name for name, network in whole["networks"].items() if not network.get("internal")}
    assert outward == {"edge"}
    on_edge = {name for name, service in services.items() if "edge" in service["networks"]}
    assert on_edge == {"listener", "web", "orthanc", "grafana"}
    assert set(services["worker"]["networks"]) == set(services["worker-gpu"]["networks"]) == {"data", "watch"}
    assert set(services["postgres"]["networks"]) == {"data"}


def test_every_setting_in_it_is_one_and_no_secret_is_in_the_environment(
    services: dict[str, dict[str, Any]],
) -> None:
    known = Settings.model_fields
    for name in OURS:
        held = {str(s["source"]) for s in services[name]["secrets"]}
        for variable, value in services[name]["environment"].items():
            setting = variable.removeprefix("NADIR_").lower()
            if setting.endswith("_file") and setting not in known:
                setting = setting.removesuffix("_file")
                assert is_secret(known[setting]) or setting in WITH_PASSWORDS
                assert value.removeprefix("/run/secrets/") in held, (name, variable)
            else:
                assert setting in known, (name, variable)
                assert not is_secret(known[setting]) and "@" not in str(value), (name, variable)
    assert SECRET is not None


def test_what_the_page_puts_into_the_env_file_reaches_the_services_that_it_is_for(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "deploy.md").read_text().partition("## One machine")[2].partition("\n## ")[0]
    named = set(re.findall(r"NADIR_[A-Z_]+", page)) - {"NADIR_PACS_URL", "NADIR_DESTINATIONS"}
    named -= {
        "NADIR_DESTINATIONS_FILE",
        "NADIR_DELIVERY",
        "NADIR_PACS_URL_FILE",
    }  # stand in the services, not in the env file
    workers = {"worker", "worker-gpu"}
    places = {
        "NADIR_CALLERS": {"listener"},
        "NADIR_HTTP_NAMES": {"web"},
        "NADIR_HTTP_PROXIES": {"web"},
        "NADIR_JOB_MEMORY_BYTES": workers,
        "NADIR_LOG_FORM": OURS,
        "NADIR_TIME_ZONE": {"web"},
        "NADIR_WORKERS": workers,
    }
    assert named == {*places, "NADIR_SECRETS_GROUP"}
    env = tmp_path / "env"
    env.write_text("".join(f"{name}=of-{name}\n" for name in places))
    done = composed(ROOT / "compose.yaml", "--profile", "gpu", "--env-file", str(env))
    told = {
        name: service["environment"]
        for name, service in yaml.safe_load(done.stdout)["services"].items()
        if name in OURS
    }
    for variable, wanted in places.items():
        reached = {name for name, held in told.items() if held.get(variable) == f"of-{variable}"}
        assert reached == wanted, variable


def test_the_settings_of_each_service_are_accepted_with_the_secrets_that_are_made(
    services: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_secrets(tmp_path)
    for name in OURS:
        with monkeypatch.context() as patch:
            for variable, value in services[name]["environment"].items():
                patch.setenv(variable, str(value).replace("/run/secrets", str(made)))
            settings = Settings.load(home=tmp_path)
        assert settings.sql_url.startswith("postgresql://nadir:")
    listed = services["web"]["environment"]["NADIR_DESTINATIONS"]
    assert f"{(made / 'pacs_url').read_text().strip()}".endswith(listed.removeprefix("http://"))


def test_every_role_that_meets_a_dicom_archive_is_told_of_it_and_the_listener_takes_its_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pacs, own = "PACS@10.0.0.5:104", '{"PACS@10.0.0.5:104": {"reported_by": ["OTHER@10.0.0.6"]}}'
    text = (ROOT / "compose.yaml").read_text()
    text = text.replace(
        "DESTINATIONS: http://orthanc:8042/dicom-web", f"DESTINATIONS: {pacs}\n  NADIR_DELIVERY: '{own}'"
    )
    sender = "<<: *settings\n      NADIR_DESTINATIONS_FILE: /run/secrets/pacs_url"
    (tmp_path / "compose.yaml").write_text(text.replace(sender, "<<: [*settings, *archive]"))
    done = composed(tmp_path / "compose.yaml", "--profile", "gpu")
    told = {
        name: yaml.safe_load(done.stdout)["services"][name]["environment"] for name in OURS - {"scheduler"}
    }
    for name, held in told.items():
        assert (held["NADIR_DESTINATIONS"], held["NADIR_DELIVERY"]) == (pacs, own), name
    for variable, value in told["listener"].items():
        monkeypatch.setenv(variable, value.replace("/run/secrets", str(make_secrets(tmp_path))))
    callers = Reporters(Database(f"sqlite:///{tmp_path}/nadir.sqlite"), Settings.load(home=tmp_path)).callers
    assert callers.admits("PACS", "10.0.0.5") and callers.admits("OTHER", "10.0.0.6")
    assert not callers.admits("PACS", "10.0.0.6")


def test_secrets_are_random_private_and_made_once(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    made, other = make_secrets(tmp_path), make_secrets(tmp_path / "other")
    wanted = {
        Path(s["file"]).name for s in yaml.safe_load((ROOT / "compose.yaml").read_text())["secrets"].values()
    }
    assert {path.name for path in made.iterdir()} == wanted
    before = {path.name: path.read_text() for path in made.iterdir()}
    for path in made.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o440
        assert read_secret(path, path.name) and path.read_text() != (other / path.name).read_text()
    assert len(read_secret(made / "hook_token", "")) == 64
    users = json.loads(before["orthanc_users.json"])["RegisteredUsers"]
    assert f"nadir:{users['nadir']}@" in before["pacs_url"]
    assert f"nadir:{before['database_password'].strip()}@" in before["database_url"]
    assert {path.name: path.read_text() for path in make_secrets(tmp_path).iterdir()} == before


def test_whatever_a_service_names_is_there() -> None:
    read = yaml.safe_load((ROOT / "compose.yaml").read_text())
    for name, service in read["services"].items():
        secrets = {s if isinstance(s, str) else s["source"] for s in service.get("secrets", ())}
        assert secrets <= set(read["secrets"]), name
        assert set(service["networks"]) <= set(read["networks"]), name
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in read["volumes"] or (ROOT / source).exists(), (name, volume)


@pytest.mark.parametrize(
    ("instead_of", "stands"),
    [
        ("    mem_limit: 2g", "    memory: 2g"),
        ('volumes: ["home:/data"]', 'volumes: ["no_such_volume:/data"]'),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, instead_of: str, stands: str) -> None:
    text = (ROOT / "compose.yaml").read_text()
    bad = tmp_path / "compose.yaml"
    bad.write_text(text.replace(instead_of, stands))
    done = composed(bad)
    assert done.returncode != 0 and re.search("'memory'|no_such_volume", done.stderr)


def test_nothing_starts_before_the_secrets_are_made(tmp_path: Path) -> None:
    bare = tmp_path / "compose.yaml"
    bare.write_text((ROOT / "compose.yaml").read_text())
    command = [
        program("docker-compose", "docker-compose"),
        "--project-directory",
        tmp_path,
        "-f",
        bare,
        "config",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={"PATH": os.environ["PATH"]}
    )
    assert done.returncode != 0 and "make secrets" in done.stderr
