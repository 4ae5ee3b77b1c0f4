"""The files in cluster/: what Ray itself makes of those for `ray up`, and what all of them promise."""

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "cluster"
REGIONS = {"aws": "us-east-1", "gcp": "us-central1"}
GROUPS = ["head", "teacher", "trainer", "verifier"]
MACHINES = {  # CPUs, GPUs, what Ray calls them, GiB of memory: as the clouds describe their machines
    "m7i.2xlarge": (8, 0, None, 32),
    "m7i.4xlarge": (16, 0, None, 64),
    "g6e.4xlarge": (16, 1, "L40S", 128),
    "g6e.12xlarge": (48, 4, "L40S", 384),
    "n2-standard-8": (8, 0, None, 32),
    "n2-standard-16": (16, 0, None, 64),
    "a2-highgpu-1g": (12, 1, "A100", 85),
    "a2-highgpu-2g": (24, 2, "A100", 170),
}
ACTIONS = {  # what AWS asks a policy for, by boto3's calls
    "get_object": ["GetObject"],
    "head_object": ["GetObject", "ListBucket"],
    "list_objects_v2": ["ListBucket"],
    "put_object": ["PutObject"],
    "delete_object": ["DeleteObject"],
    "copy_object": ["GetObject", "PutObject"],
    "create_multipart_upload": ["PutObject"],
    "upload_part": ["PutObject"],
    "complete_multipart_upload": ["PutObject"],
    "abort_multipart_upload": ["AbortMultipartUpload"],
}
# `ray start --head ARGUMENTS`, and the environment that the command sets before it.
STARTED = re.compile(r"export (?P<environment>[^;]+); ray start (?P<arguments>.+)$")


def launched(cloud: str) -> dict[str, Any]:
    """The file as `ray up` goes on with it: with Ray's defaults, and accepted by its schema."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load((CLUSTER / f"{cloud}.yaml").read_text()))
    validate_config(config)
    return config


@pytest.fixture(params=REGIONS)
def cloud(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def config(cloud: str) -> dict[str, Any]:
    return launched(cloud)


def machine_of(node_config: dict[str, Any]) -> str:
    return node_config.get("InstanceType") or node_config["machineType"]


def start_options(command: str) -> tuple[dict[str, str], dict[str, Any]]:
    """The environment and the options of a `ray start`, read by Ray's own command line."""
    from ray.scripts.scripts import start

    found = STARTED.search(command)
    assert found, f"no `export …; ray start …` in {command!r}"
    environment = dict(word.split("=", 1) for word in shlex.split(found["environment"]))
    return environment, start.make_context("start", shlex.split(found["arguments"])).params


def head_start(config: dict[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    (command,) = [command for command in config["head_start_ray_commands"] if "ray start" in command]
    return start_options(command)


def worker_start(config: dict[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    (command,) = [command for command in config["worker_start_ray_commands"] if "ray start" in command]
    return start_options(command)


def test_rays_schema_refuses_a_misspelt_key(cloud: str):
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import validate_config

    broken = launched(cloud) | {"idle_timeout_minuets": 5}
    with pytest.raises(ValidationError, match="idle_timeout_minuets"):
        validate_config(broken)


def test_node_types_declare_what_their_machines_have(config: dict[str, Any]):
    types = config["available_node_types"]
    assert list(types) == GROUPS
    for group, node_type in types.items():
        cpus, gpus, accelerator, _ = MACHINES[machine_of(node_type["node_config"])]
        truth = {"CPU": cpus, "GPU": gpus, f"accelerator_type:{accelerator}": 1} if gpus else {"CPU": cpus}
        wanted = {"head": {"CPU": 0}, "verifier": {**truth, "verifier": cpus}}.get(group, truth)
        assert node_type["resources"] == wanted, group
        assert bool(gpus) == (group in ("teacher", "trainer"))


def test_accelerators_have_rays_names():
    from ray.util.accelerators import accelerators

    names = {value for name, value in vars(accelerators).items() if name.startswith("NVIDIA_")}
    assert {accelerator for _, _, accelerator, _ in MACHINES.values() if accelerator} <= names


def test_workers_are_spot_machines_and_the_head_is_not(cloud: str, config: dict[str, Any]):
    for group, node_type in config["available_node_types"].items():
        node = node_type["node_config"]
        market = node.get("InstanceMarketOptions", {}).get("MarketType")
        provisioning = node.get("scheduling", {}).get("provisioningModel")
        assert (market == "spot" if cloud == "aws" else provisioning == "SPOT") == (group != "head"), group
        assert node_type["min_workers"] == 0
    assert config["max_workers"] == sum(one["max_workers"] for one in config["available_node_types"].values())
    assert any("spot_notice.py " + cloud in command for command in config["worker_start_ray_commands"])
    assert not any("spot_notice.py" in command for command in config["head_start_ray_commands"])


def test_the_dashboard_is_bound_to_loopback_and_every_start_asks_for_the_token(cloud: str, config: dict[str, Any]):
    environment, options = head_start(config)
    assert options["dashboard_host"] == "127.0.0.1"
    assert options["object_store_memory"]
    assert environment["RAY_AUTH_MODE"] == "token"
    assert worker_start(config)[0]["RAY_AUTH_MODE"] == "token"
    assert "0.0.0.0" not in (CLUSTER / f"{cloud}.yaml").read_text()
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    spoken = [line for line in config["worker_start_ray_commands"] if "python ~/retort/spot_notice.py" in line]
    assert all("RAY_AUTH_MODE=token" in line for line in spoken)


def test_drivers_find_the_node_types_in_the_file_that_ray_up_writes(config: dict[str, Any]):
    from ray.autoscaler._private.commands import _set_up_config_for_head_node
    from ray.autoscaler.node_provider import NodeProvider

    environment, options = head_start(config)
    written_to = environment["RETORT_CLUSTER"].replace("$HOME", "~")
    assert written_to == options["autoscaling_config"]
    mounted, file = _set_up_config_for_head_node(config, NodeProvider(config["provider"], "retort"), no_restart=False)
    assert mounted["file_mounts"][written_to] == file.name
    written = json.loads(Path(file.name).read_text())
    assert written["available_node_types"]["verifier"]["resources"]["verifier"] == 16
    assert written["head_node_type"] == "head"


def test_what_is_mounted_is_there_and_commands_are_shell(config: dict[str, Any]):
    local = [path for path in config["file_mounts"].values() if not path.startswith("~")]
    assert local
    assert all((ROOT / path).is_file() for path in local)
    lists = [commands for name, commands in config.items() if name.endswith("_commands")]
    for command in [command for commands in lists for command in commands]:
        checked = subprocess.run(["bash", "-n"], input=command, text=True, capture_output=True, check=False)
        assert checked.returncode == 0, (command, checked.stderr)


def test_prices_know_every_machine(cloud: str, config: dict[str, Any]):
    prices = tomllib.loads((CLUSTER / "prices.toml").read_text())[cloud][REGIONS[cloud]]
    used = {machine_of(node_type["node_config"]) for node_type in config["available_node_types"].values()}
    assert used <= prices.keys()
    assert config["provider"]["region"] == REGIONS[cloud]
    for machine, price in prices.items():
        assert price.keys() == {"on_demand", "spot"}, machine
        assert 0 < price["spot"] < price["on_demand"], machine


@pytest.mark.parametrize(
    "path", ["aws.yaml", "gcp.yaml", *sorted(f"kuberay/{p.name}" for p in CLUSTER.glob("kuberay/*"))]
)
def test_what_is_to_be_filled_in_is_explained(path: str):
    explained = False  # by a comment above, until the next blank line
    for number, line in enumerate((CLUSTER / path).read_text().splitlines(), 1):
        value, _, comment = line.partition(" #")
        if line.lstrip().startswith("#"):
            explained = explained or "FILL_IN:" in line
        elif not line.strip():
            explained = False
        elif "FILL_IN" in value:
            assert comment or explained, f"{path}:{number} says FILL_IN and not what to put there"


def test_one_version_of_uv_and_the_lock_of_gpus_everywhere():
    found = re.search(r"^UV_VERSION := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found
    for path in ("aws.yaml", "gcp.yaml", "Dockerfile"):
        assert re.findall(r"\buv[/:](\d[\d.]*\d)", (CLUSTER / path).read_text()) == [found[1]], path
    for name in REGIONS:
        setup = " ".join(launched(name)["setup_commands"])
        assert "--no-deps --compile-bytecode -r ~/retort/requirements-gpu.lock" in setup


def test_an_image_is_built_of_what_it_may_see():
    dockerfile = (CLUSTER / "Dockerfile").read_text()
    seen = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    copied = {
        word for line in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE) for word in line.split()
    }
    assert all((ROOT / path).exists() for path in copied)
    assert {path if "lock" not in path else "requirements-*.lock" for path in copied} == {
        line.removeprefix("!/") for line in seen if line.startswith("!")
    }
    assert re.findall(r"^FROM .+ AS (\w+)$", dockerfile, re.MULTILINE) == ["uv", "cpu", "gpu"]
    assert dockerfile.count("USER ray") == dockerfile.count("RAY_AUTH_MODE=token") == 2


def test_the_bucket_policy_allows_what_the_store_asks_for():
    (policy,) = re.findall(r"```json\n(.+?)```", (ROOT / "SECURITY.md").read_text(), re.DOTALL)
    listed = [statement["Action"] for statement in json.loads(policy)["Statement"]]
    allowed = {action for one in listed for action in ([one] if isinstance(one, str) else one)}
    store = (ROOT / "platform" / "retort" / "store" / "s3.py").read_text()
    asked = set(re.findall(r"\bs3\.([a-z_0-9]+)\(", store))
    assert allowed == {f"s3:{action}" for call in asked for action in ACTIONS[call]}
