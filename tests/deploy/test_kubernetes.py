"""The Kubernetes manifests: built as `kubectl apply -k` would, and held against the schemas and what is asked for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from programs import ROOT, program

from node.secrets import WITH_PASSWORDS, is_secret
from node.serve import ROLES, STOP_SECONDS
from node.settings import Settings

FOLDER = ROOT / "kubernetes"
OVERLAYS = ("cpu", "gpu", "example")
NOT_OF_KUBERNETES = {
    "ScaledObject": "keda.sh/v1alpha1",
    "ServiceMonitor": "monitoring.coreos.com/v1",
    "PodMonitor": "monitoring.coreos.com/v1",
    "PrometheusRule": "monitoring.coreos.com/v1",
}
VERSION = "1.32"


@cache
def built(overlay: str) -> list[dict[str, Any]]:
    """Return what an overlay makes."""
    return kustomized(FOLDER / "overlays" / overlay)


def kustomized(folder: Path) -> list[dict[str, Any]]:
    """Return what a folder makes."""
    done = subprocess.run(
        [program("kubectl", "kubernetes-client"), "kustomize", folder],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(overlay: str, kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in built(overlay) if one["kind"] == kind}


def pods(overlay: str) -> dict[str, dict[str, Any]]:
    """Return the pod templates by the name of what makes them."""
    made = {**of_kind(overlay, "Deployment"), **of_kind(overlay, "StatefulSet")}
    return {name: one["spec"]["template"] for name, one in made.items()}


def test_the_patches_of_the_page_change_what_they_name(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    patches = [
        one for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) for one in yaml.safe_load(text)
    ]
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    (tmp_path / "page").mkdir()
    whole = {"resources": ["../base"], "patches": patches}
    (tmp_path / "page" / "kustomization.yaml").write_text(yaml.safe_dump(whole))
    made = kustomized(tmp_path / "page")
    maps = {one["metadata"]["name"]: one["data"] for one in made if one["kind"] == "ConfigMap"}
    roles = {one["metadata"]["name"]: one for one in made if one["kind"] == "Deployment"}
    (sender,) = roles["sender"]["spec"]["template"]["spec"]["containers"]
    assert variables_of(sender, maps)["NADIR_DESTINATIONS"] == maps["archive"]["NADIR_DESTINATIONS"]
    for role in roles.values():
        (container,) = role["spec"]["template"]["spec"]["containers"]
        assert not {"NADIR_PACS_URL", "NADIR_PACS_URL_FILE"} & set(variables_of(container, maps))


@cache
def validate(one: str) -> None:
    """Hold a manifest against its schema, once for all overlays that have it."""
    kubernetes_validate.validate(json.loads(one), VERSION, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_is_what_kubernetes_takes(overlay: str) -> None:
    for one in built(overlay):
        if one["kind"] in NOT_OF_KUBERNETES:
            assert one["apiVersion"] == NOT_OF_KUBERNETES[one["kind"]]
            assert set(one) == {"apiVersion", "kind", "metadata", "spec"}
        else:
            validate(json.dumps(one, sort_keys=True))
        assert one["kind"] == "Namespace" or one["metadata"]["namespace"] == "nadir"


def test_a_misspelt_field_is_refused() -> None:
    worker = of_kind("cpu", "Deployment")["worker"]
    bad = {**worker, "spec": {**worker["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(bad, VERSION, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_keeps_the_standard_restricted(overlay: str) -> None:
    labels = of_kind(overlay, "Namespace")["nadir"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, template in pods(overlay).items():
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        assert all(set(v) <= {"name", "secret", "emptyDir", "persistentVolumeClaim"} for v in spec["volumes"])
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert set(container["resources"]) == {"limits", "requests"}, name
            assert ":" in container["image"] and not container["image"].endswith(":latest"), name
            assert "readinessProbe" in container and "livenessProbe" in container, name
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            claimed = {"database"} if name == "postgres" else set()
            assert mounted == {volume["name"] for volume in spec["volumes"]} | claimed, name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_role_has_a_deployment_that_shares_the_home_folder(overlay: str) -> None:
    deployments = of_kind(overlay, "Deployment")
    assert set(deployments) == set(ROLES)
    for role, one in deployments.items():
        spec = one["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        assert container["args"] == ["serve", "--role", role]
        assert spec["terminationGracePeriodSeconds"] >= 2 * STOP_SECONDS + 20
        assert {"name": "home", "persistentVolumeClaim": {"claimName": "home"}} in spec["volumes"]
        assert container["livenessProbe"]["httpGet"] == {"path": "/alive", "port": "metrics"}
        wanted = one["spec"]["selector"]["matchLabels"]
        assert wanted.items() <= one["spec"]["template"]["metadata"]["labels"].items()
    assert of_kind(overlay, "PersistentVolumeClaim")["home"]["spec"]["accessModes"] == ["ReadWriteMany"]


def variables_of(container: dict[str, Any], maps: dict[str, dict[str, str]]) -> dict[str, str]:
    """Return what a container finds in its environment."""
    variables: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        variables |= maps[source["configMapRef"]["name"]]
    for variable in container.get("env", ()):
        if "valueFrom" not in variable:
            variables[variable["name"]] = variable["value"]
            continue
        key = variable["valueFrom"]["configMapKeyRef"]
        if key["key"] in maps[key["name"]] or not key.get("optional"):
            variables[variable["name"]] = maps[key["name"]][key["key"]]
    return variables


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_setting_is_one_and_every_secret_comes_by_reference(overlay: str) -> None:
    maps, known = of_kind(overlay, "ConfigMap"), Settings.model_fields
    assert of_kind(overlay, "Secret") == {}
    for role, one in of_kind(overlay, "Deployment").items():
        spec = one["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        variables = variables_of(container, {name: one["data"] for name, one in maps.items()})
        (held,) = [volume["secret"] for volume in spec["volumes"] if volume["name"] == "secrets"]
        assert held["secretName"] == "nadir" and held["defaultMode"] == 0o440
        files = {f"/run/secrets/nadir/{item['path']}" for item in held["items"]}
        named = {value for variable, value in variables.items() if variable.endswith("_FILE")}
        assert named == files, role
        for variable, value in variables.items():
            setting = variable.removeprefix("NADIR_").lower()
            if variable.endswith("_FILE"):
                setting = setting.removesuffix("_file")
                assert is_secret(known[setting]) or setting in WITH_PASSWORDS
                assert variable.removesuffix("_FILE") not in variables, (role, variable)
            assert setting in known, (role, variable)
            assert "://" not in value or "@" not in value, (role, variable)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_role_that_meets_a_dicom_archive_is_told_of_it_and_of_its_settings(overlay: str) -> None:
    pacs, own = "PACS@10.0.0.5:104", '{"PACS@10.0.0.5:104": {"tls": true}}'
    maps = {name: one["data"] for name, one in of_kind(overlay, "ConfigMap").items()}
    maps["archive"] = {**maps["archive"], "NADIR_DESTINATIONS": pacs, "NADIR_DELIVERY": own}
    for role in ("listener", "worker", "web", "sender"):
        (container,) = pods(overlay)[role]["spec"]["containers"]
        told = variables_of(container, maps)
        assert told["NADIR_DELIVERY"] == own, role
        if role != "sender":  # an overlay gives it the key in the place of its file
            assert told["NADIR_DESTINATIONS"] == pacs, role


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nobody_speaks_to_anybody_but_for_what_is_said(overlay: str) -> None:
    policies = of_kind(overlay, "NetworkPolicy")
    assert policies["nothing"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    dns = policies["names"]["spec"]["egress"][0]["to"][0]["podSelector"]["matchLabels"]
    assert dns == {"k8s-app": "kube-dns"}
    reached = {
        port["port"]
        for name, policy in policies.items()
        for rule in policy["spec"].get("ingress", ())
        for port in rule["ports"]
    }
    assert reached <= {11112, 8080, 9108, 5432}
    outward = [name for name, policy in policies.items() if "egress" in policy["spec"]]
    assert set(outward) == {"names", "database", "archive"}
    values = policies["archive"]["spec"]["podSelector"]["matchExpressions"][0]["values"]
    assert values == ["sender", "web"]  # what analyses reaches no archive


def test_a_machine_that_is_emptied_keeps_a_listener() -> None:
    budgets = of_kind("cpu", "PodDisruptionBudget")
    assert (
        budgets["listener"]["spec"]["minAvailable"]
        < of_kind("cpu", "Deployment")["listener"]["spec"]["replicas"]
    )
    for name, budget in budgets.items():
        labels = pods("cpu")[name]["metadata"]["labels"]
        assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_services_reach_the_ports_of_their_pods(overlay: str) -> None:
    for service in of_kind(overlay, "Service").values():
        wanted = service["spec"]["selector"].items()
        chosen = [t for t in pods(overlay).values() if wanted <= t["metadata"]["labels"].items()]
        (template,) = chosen
        ports = {p["name"] for c in template["spec"]["containers"] for p in c["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_workers_with_a_gpu_ask_for_one_and_the_queue_says_how_many_there_are() -> None:
    (container,) = pods("gpu")["worker"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["resources"]["requests"]["nvidia.com/gpu"] == "1"
    assert "gpu" in container["image"]
    (scaled,) = of_kind("gpu", "ScaledObject").values()
    assert scaled["spec"]["scaleTargetRef"]["name"] in of_kind("gpu", "Deployment")
    assert 1 <= scaled["spec"]["minReplicaCount"] < scaled["spec"]["maxReplicaCount"]
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["type"] == "prometheus" and "nadir_jobs{" in trigger["metadata"]["query"]
    assert all("nvidia.com/gpu" not in str(pod) for pod in pods("cpu").values())


def test_what_is_scraped_is_there_and_the_alerts_are_those_of_monitoring() -> None:
    (monitor,) = of_kind("gpu", "ServiceMonitor").values()
    services = of_kind("gpu", "Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= services["web"]["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] in {p["name"] for p in services["web"]["spec"]["ports"]}
    (rule,) = of_kind("gpu", "PrometheusRule").values()
    alerts = yaml.safe_load((ROOT / "monitoring" / "alerts.yml").read_text())
    assert rule["spec"] == alerts
