"""The Kubernetes manifests against KubeRay's definitions (`$RETORT_DATA/schemas`), as Ray's autoscaler sees them."""

import copy
import gzip
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from test_cluster_files import CLUSTER, GROUPS, MACHINES

pytestmark = pytest.mark.data

KUBERAY = CLUSTER / "kuberay"
DEFINITIONS = {"RayCluster": "ray.io_rayclusters", "RayJob": "ray.io_rayjobs"}


def manifests() -> list[dict[str, Any]]:
    files = [file for file in sorted(KUBERAY.glob("*.yaml")) if file.name != "kustomization.yaml"]
    return [manifest for file in files for manifest in yaml.safe_load_all(file.read_text())]


def of_ray() -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in manifests() if one["apiVersion"] == "ray.io/v1"}


@cache
def validator(kind: str) -> Draft7Validator:
    file = Path(os.environ["RETORT_DATA"]) / "schemas" / f"{DEFINITIONS[kind]}.yaml.gz"
    versions = yaml.load(gzip.decompress(file.read_bytes()), Loader=yaml.CSafeLoader)["spec"]["versions"]
    (schema,) = [one["schema"]["openAPIV3Schema"] for one in versions if one["name"] == "v1"]
    for field in ("apiVersion", "kind", "metadata"):  # these are Kubernetes' own
        schema["properties"][field] = {}
    return Draft7Validator(strict(schema))


def strict(schema: Any) -> Any:
    """A schema that refuses fields that it does not list, as `kubectl apply` does."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: strict(one) for name, one in schema.items()}
    is_open = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and "type" in schema and not is_open:
        inner["additionalProperties"] = False
    return inner


def faults(manifest: dict[str, Any]) -> list[str]:
    return [f"{error.json_path}: {error.message[:200]}" for error in validator(manifest["kind"]).iter_errors(manifest)]


def groups() -> dict[str, dict[str, Any]]:
    """The pod template and Ray's parameters of each group, the head among them."""
    spec = of_ray()["retort"]["spec"]
    return {"head": spec["headGroupSpec"], **{group["groupName"]: group for group in spec["workerGroupSpecs"]}}


@pytest.mark.parametrize("name", ["retort", "distill", "sweep"])
def test_manifests_are_what_kuberay_defines(name: str):
    assert faults(of_ray()[name]) == []


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("retort", ("autoscalerOptions", "idleTimeoutSecond")),
        ("retort", ("headGroupSpec", "template", "spec", "nodeSelectors")),
        ("retort", ("gcsFaultToleranceOptions", "redisAdress")),
        ("sweep", ("submitterConfig", "backofLimit")),
    ],
)
def test_a_misspelt_field_is_refused(name: str, path: tuple[str, ...]):
    planted = copy.deepcopy(of_ray()[name])
    inside = planted["spec"]
    for step in path[:-1]:
        inside = inside[step]
    inside[path[-1]] = 1
    assert any(path[-1] in fault for fault in faults(planted))


def test_rays_autoscaler_reads_the_groups_and_what_they_offer():
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    derived = _derive_autoscaling_config_from_ray_cr(of_ray()["retort"])
    types = {name.removesuffix("group"): one for name, one in derived["available_node_types"].items()}
    assert list(types) == GROUPS
    offered = {name: {k: v for k, v in one["resources"].items() if k != "memory"} for name, one in types.items()}
    assert offered["head"]["CPU"] == 0
    assert offered["teacher"] == {"CPU": 14, "GPU": 1, "accelerator_type:L40S": 1}
    assert offered["trainer"] == {"CPU": 46, "GPU": 4, "accelerator_type:L40S": 1}
    assert offered["verifier"] == {"CPU": 14, "GPU": 0, "verifier": 14}
    assert all(types[name]["min_workers"] == 0 for name in GROUPS[1:])


@pytest.mark.parametrize("group", GROUPS)
def test_a_pod_asks_for_what_ray_counts_and_leaves_room_on_its_machine(group: str):
    template, parameters = groups()[group]["template"]["spec"], groups()[group]["rayStartParams"]
    (container,) = template["containers"]
    asked = container["resources"]["requests"]
    assert asked == container["resources"]["limits"]
    if group != "head":
        assert asked["cpu"] == parameters["num-cpus"]
        assert asked.get("nvidia.com/gpu", "0") == parameters["num-gpus"]
        assert groups()[group]["numOfHosts"] == 1
    cpus, gpus, accelerator, memory_gib = MACHINES[template["nodeSelector"]["node.kubernetes.io/instance-type"]]
    assert int(asked["cpu"]) < cpus
    assert int(asked["memory"].removesuffix("Gi")) < 0.95 * memory_gib
    assert int(asked.get("nvidia.com/gpu", 0)) == gpus
    assert (f"accelerator_type:{accelerator}" in parameters.get("resources", "")) == bool(gpus)
    shared = next(one["emptyDir"]["sizeLimit"] for one in template["volumes"] if one["name"] == "shared-memory")
    assert int(shared.removesuffix("Gi")) < int(asked["memory"].removesuffix("Gi")) / 2
    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in template["volumes"]}


def test_workers_are_spot_and_the_head_is_not():
    capacity = {
        name: group["template"]["spec"]["nodeSelector"]["eks.amazonaws.com/capacityType"]
        for name, group in groups().items()
    }
    assert capacity == {"head": "ON_DEMAND"} | dict.fromkeys(GROUPS[1:], "SPOT")


def test_the_cluster_asks_for_a_token_and_is_not_open_to_the_world():
    spec = of_ray()["retort"]["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert not any(one["kind"] == "Ingress" or one.get("spec", {}).get("type") == "LoadBalancer" for one in manifests())


def test_only_the_head_may_change_the_cluster():
    pods = {name: group["template"]["spec"] for name, group in groups().items()}
    assert {name for name, pod in pods.items() if pod.get("automountServiceAccountToken", True)} == {"head"}


def test_secrets_are_referred_to_and_never_written_into_a_pod():
    secret = ("KEY", "TOKEN", "PASSWORD")
    pods = [group["template"]["spec"] for group in groups().values()]
    pods += [one["spec"]["template"]["spec"] for one in manifests() if one["kind"] == "StatefulSet"]
    variables = [variable for pod in pods for container in pod["containers"] for variable in container["env"]]
    named = [variable for variable in variables if any(word in variable["name"] for word in secret)]
    assert len(named) == 3 * len(GROUPS) + 1
    assert all("secretKeyRef" in variable["valueFrom"] for variable in named)
    keys = {one["metadata"]["name"]: one["stringData"] for one in manifests() if one["kind"] == "Secret"}
    referred = [variable["valueFrom"]["secretKeyRef"] for variable in named]
    assert all(reference["key"] in keys[reference["name"]] for reference in referred)
    assert all(value == "FILL_IN" for data in keys.values() for value in data.values())


def test_drivers_find_the_node_types_in_the_mounted_manifest():
    kustomization = yaml.safe_load((KUBERAY / "kustomization.yaml").read_text())
    (generated,) = kustomization["configMapGenerator"]
    assert generated == {"name": "retort-cluster", "files": ["cluster.yaml"]}
    assert kustomization["generatorOptions"]["disableNameSuffixHash"]
    assert all((KUBERAY / file).is_file() for file in kustomization["resources"])
    for group in groups().values():
        (container,) = group["template"]["spec"]["containers"]
        environment = {variable["name"]: variable.get("value") for variable in container["env"]}
        mounted = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
        assert environment["RETORT_CLUSTER"] == f"{mounted['cluster']}/cluster.yaml"
        volumes = {one["name"]: one for one in group["template"]["spec"]["volumes"]}
        assert volumes["cluster"]["configMap"]["name"] == generated["name"]


@pytest.mark.parametrize("name", ["distill", "sweep"])
def test_jobs_run_on_the_cluster_and_leave_it_alone(name: str):
    spec = of_ray()[name]["spec"]
    assert spec["clusterSelector"] == {"ray.io/cluster": of_ray()["retort"]["metadata"]["name"]}
    # With a cluster that is not its own, KubeRay deletes it before a retry, and refuses the other modes and a TTL.
    assert spec["backoffLimit"] == 0
    assert not spec["shutdownAfterJobFinishes"]
    assert spec["submissionMode"] == "K8sJobMode"
    assert spec.keys().isdisjoint({"rayClusterSpec", "suspend", "ttlSecondsAfterFinished", "deletionStrategy"})
    program = spec["entrypoint"].split()[1].removeprefix("/opt/retort/")
    assert (CLUSTER.parent / program).is_file()
