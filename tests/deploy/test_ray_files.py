"""The files of deploy/ray without a cluster; its Serve configs are judged by Ray's own schema."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import FILE, PREFIX, Settings
from tests.deploy.test_prometheus_files import promtool

ROOT = Path(__file__).parents[2]
DIRECTORY = ROOT / "deploy" / "ray"
CONFIGS = ("serve.yaml", "serve-gpu.yaml")
VALIDATE = """
import json, sys, warnings
warnings.simplefilter("ignore")
from ray.serve.schema import ServeDeploySchema
from deploy.ray.deployment import Patronus, build
for config in json.load(sys.stdin):
    for application in ServeDeploySchema.model_validate(config).applications:
        module, _, name = application.import_path.partition(":")
        assert getattr(sys.modules[module], name) is build
        assert application.deployment_names == [Patronus.name]
        build(application.args)
    if not ServeDeploySchema.model_validate(config).model_fields_set >= set(config):
        raise SystemExit(f"ignored: {config.keys()}")
print("valid", Patronus.max_ongoing_requests)
"""

# Of KubeRay 1.5: what is not among them `kubectl apply` refuses.
RAY_SERVICE = {
    "rayClusterConfig",
    "rayClusterDeletionDelaySeconds",
    "serveConfigV2",
    "serveService",
    "upgradeStrategy",
}
RAY_CLUSTER = {
    "autoscalerOptions",
    "enableInTreeAutoscaling",
    "headGroupSpec",
    "rayVersion",
    "workerGroupSpecs",
}
AUTOSCALER = {"idleTimeoutSeconds", "resources", "upscalingMode"}


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DIRECTORY / name).read_text())
    return loaded


@pytest.fixture(scope="module")
def objects() -> dict[tuple[str, str], dict[str, Any]]:
    """Of kuberay.yaml, by kind and name."""
    documents = yaml.safe_load_all((DIRECTORY / "kuberay.yaml").read_text())
    return {(one["kind"], one["metadata"]["name"]): one for one in documents}


@pytest.fixture(scope="module")
def service(objects: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = objects["RayService", "patronus"]["spec"]
    return spec


def groups(service: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = service["rayClusterConfig"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_configs_are_what_ray_wants_and_the_application_takes() -> None:
    checked = subprocess.run(
        [sys.executable, "-c", VALIDATE],
        input=json.dumps([load(name) for name in CONFIGS]),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert checked.returncode == 0, checked.stderr
    max_ongoing_requests = int(checked.stdout.split()[-1])
    for name in CONFIGS:
        scaling = load(name)["applications"][0]["deployments"][0]["autoscaling_config"]
        # It must be able to see more than its target, and fill a step.
        assert scaling["target_ongoing_requests"] < max_ongoing_requests
    assert max_ongoing_requests >= Settings().max_batch


def test_kubernetes_serves_the_same_application(service: dict[str, Any]) -> None:
    assert yaml.safe_load(service["serveConfigV2"]) == load("serve.yaml")


def test_fields_are_those_that_the_operator_knows(service: dict[str, Any]) -> None:
    cluster = service["rayClusterConfig"]
    assert set(service) <= RAY_SERVICE
    assert set(cluster) <= RAY_CLUSTER
    assert set(cluster["autoscalerOptions"]) <= AUTOSCALER
    assert set(cluster["headGroupSpec"]) == {"rayStartParams", "template"}
    for group in cluster["workerGroupSpecs"]:
        assert set(group) == {
            "groupName",
            "replicas",
            "minReplicas",
            "maxReplicas",
            "rayStartParams",
            "template",
        }
    for group in groups(service):  # `ray start` gets them as they are
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_a_worker_has_what_one_replica_asks_for(service: dict[str, Any]) -> None:
    for name, group, resource in (("serve.yaml", "cpu", "cpu"), ("serve-gpu.yaml", "gpu", "nvidia.com/gpu")):
        asked = load(name)["applications"][0]["deployments"][0]["ray_actor_options"]
        [found] = [
            one for one in service["rayClusterConfig"]["workerGroupSpecs"] if one["groupName"] == group
        ]
        [container] = found["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        assert float(limits[resource]) == asked["num_gpus" if group == "gpu" else "num_cpus"]
        assert float(limits["cpu"]) == asked["num_cpus"]
        assert container["resources"]["requests"] == limits
        assert found["minReplicas"] <= found["replicas"] <= found["maxReplicas"]


def test_every_node_is_bounded_watched_and_not_root(service: dict[str, Any]) -> None:
    for group in groups(service):
        spec = group["template"]["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        [container] = spec["containers"]
        assert container["resources"]["limits"]["memory"]
        assert container["livenessProbe"]["httpGet"]["path"]
        assert container["readinessProbe"]["httpGet"]["path"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == {
            one["name"] for one in spec["volumes"]
        }


def test_names_of_prototypes_are_kept_where_all_pods_reach_them(
    service: dict[str, Any], objects: dict[tuple[str, str], dict[str, Any]]
) -> None:
    assert objects["PersistentVolumeClaim", "patronus-names"]["spec"]["accessModes"] == ["ReadWriteMany"]
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    found = re.search(r"PATRONUS_STATE_DIR=(\S+)", dockerfile)
    assert found is not None
    for group in groups(service):
        mounts = group["template"]["spec"]["containers"][0]["volumeMounts"]
        assert found[1] in {mount["mountPath"] for mount in mounts if mount["name"] == "names"}


def test_variables_are_settings_of_the_service(service: dict[str, Any]) -> None:
    for group in groups(service):
        for container in group["template"]["spec"]["containers"]:
            names = {variable["name"] for variable in container["env"]}
            assert PREFIX + "CACHE_URL" + FILE in names
            assert {name for name in names if name.startswith(PREFIX)} == {PREFIX + "CACHE_URL" + FILE}


def test_old_cluster_stays_until_its_requests_are_answered(service: dict[str, Any]) -> None:
    limit_s = Settings().request_timeout_s
    assert service["rayClusterDeletionDelaySeconds"] > limit_s
    for group in service["rayClusterConfig"]["workerGroupSpecs"]:
        assert group["template"]["spec"]["terminationGracePeriodSeconds"] > limit_s


def test_ray_is_of_one_version_everywhere(service: dict[str, Any]) -> None:
    constraints = (ROOT / "deploy" / "constraints.txt").read_text()
    assert f"\nray=={service['rayClusterConfig']['rayVersion']}\n" in constraints


def test_only_what_is_asked_from_outside_is_open(objects: dict[tuple[str, str], dict[str, Any]]) -> None:
    policy = objects["NetworkPolicy", "patronus-ray"]["spec"]
    inside, outside = policy["ingress"]
    assert "ports" not in inside
    assert "from" not in outside
    first = load("serve.yaml")["applications"][0]["args"]["scrape_ports"][0]
    assert {one["port"] for one in outside["ports"]} == {8000, 8080, first}


def test_images_hold_the_application_and_have_the_proxy_keep_the_contract() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    starts = {stage: start for start, stage in re.findall(r"^FROM (\S+) AS (\S+)$", dockerfile, re.MULTILINE)}
    assert starts["ray"] == starts["ray-gpu"] == "ray-base"
    assert starts["ray-base"] == "base"
    found = re.search(r"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=deploy\.ray\.(\w+):(\w+)", dockerfile)
    assert found is not None
    assert f"def {found[2]}()" in (DIRECTORY / f"{found[1]}.py").read_text()


def test_prometheus_takes_the_scrape_configuration() -> None:
    checked = promtool("check", "config", str(DIRECTORY / "prometheus.yml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
