"""Node types out of cluster files, what a recipe asks of them, and what is said of both."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from retort import evaluation, loading, verification
from retort.cluster import live, skew
from retort.cluster.demands import demands, forecast
from retort.cluster.nodes import LAUNCH, Launch, NodeType, read_launch, told
from retort.cluster.prices import read_prices
from retort.cluster.room import Demand, capacity, refuse_unmet, unmet
from retort.selection import picks
from retort.training import trainer
from test_jobs import job as run_job

ROOT = Path(__file__).parents[1]
AWS = """
cluster_name: FILL_IN
max_workers: 6
provider: {type: aws, region: us-east-1}
head_node_type: head
available_node_types:
    head:
        resources: {"CPU": 0}
        node_config: {InstanceType: m7i.2xlarge}
    teacher:
        resources: {"CPU": 8, "GPU": 8, "accelerator_type:H100": 1}
        node_config: {InstanceType: p5.48xlarge, InstanceMarketOptions: {MarketType: spot}}
        min_workers: 0
        max_workers: 2
    trainer:
        resources: {"CPU": 4, "GPU": 1, "accelerator_type:L4": 1}
        node_config: {InstanceType: g6.xlarge, IamInstanceProfile: {Arn: "arn:FILL_IN"}}
        min_workers: 1
        max_workers: 9
"""
KUBERAY = """
apiVersion: v1
kind: Service
---
apiVersion: ray.io/v1
kind: RayCluster
spec:
  headGroupSpec:
    rayStartParams: {num-cpus: "0"}
    template: {spec: {containers: [{name: ray-head, resources: {limits: {cpu: "4"}}}]}}
  workerGroupSpecs:
    - groupName: teacher
      minReplicas: 0
      maxReplicas: 3
      rayStartParams: {}
      template:
        spec:
          tolerations: [{key: cloud.google.com/gke-spot, operator: Equal, value: "true"}]
          nodeSelector: {eks.amazonaws.com/capacityType: SPOT}
          containers: [{name: ray-worker, resources: {limits: {cpu: 3500m, nvidia.com/gpu: 2}}}]
    - groupName: verifier
      maxReplicas: 2
      rayStartParams: {resources: '"{\\"verifier\\": 16}"'}
      template: {spec: {containers: [{name: ray-worker, resources: {limits: {cpu: 16}}}]}}
"""
RECIPE = """
name = "small"
store = "{store}"

[[task]]
id = "arithmetic"
train = 4
dev = 2
test = 2

[[teacher]]
id = "tiny"
engine = "vllm"
model = "shipped:teacher"
temperature = 1.0
num_chains = 2
max_new_tokens = 16

[[corpus]]
id = "chains"
tasks = ["arithmetic"]
teachers = ["tiny"]
thoughts = ["cot"]

[[student]]
id = "student"
base = "shipped:student"
corpus = "chains"
training = {{ steps = 2, batch_examples = 2, learning_rate = 1e-3 }}

[evaluation]
tasks = ["arithmetic"]
"""


@pytest.fixture
def aws(tmp_path: Path) -> Path:
    file = tmp_path / "aws.yaml"
    file.write_text(AWS)
    return file


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPE.format(store=tmp_path / "store"))
    return file


def test_a_launcher_file_says_which_machines_there_may_be(aws: Path) -> None:
    launch = read_launch(aws)
    assert (launch.provider, launch.region, launch.most_workers) == ("aws", "us-east-1", 6)
    head, teacher, trainer = launch.types
    assert (head.least, head.most, head.instance) == (1, 1, "m7i.2xlarge")
    assert (teacher.least, teacher.most, teacher.is_spot, teacher.gpus) == (0, 2, True, 8)
    assert (trainer.least, trainer.most, trainer.is_spot) == (1, 6, False), "max_workers bounds every type"
    assert launch.unfilled == ("cluster_name", "available_node_types.trainer.node_config.IamInstanceProfile.Arn")


def test_a_raycluster_says_what_its_pods_offer(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(KUBERAY)
    head, teacher, verifier = read_launch(file).types
    assert head.resources == {"CPU": 0}, "its start parameters count, not what its container may have"
    assert (teacher.resources, teacher.most, teacher.is_spot) == ({"CPU": 4, "GPU": 2}, 3, True)
    assert (verifier.resources, verifier.is_spot) == ({"CPU": 16, "verifier": 16}, False)


@pytest.mark.parametrize(
    "group",
    [
        "{rayStartParams: {}, limits: {cpu: 3500m, nvidia.com/gpu: 2}}",
        "{rayStartParams: {num-cpus: '3', num-gpus: '1'}, limits: {cpu: 16}}",
        r"""{rayStartParams: {resources: '"{\"verifier\": 16}"'}, limits: {cpu: "16"}}""",
        "{resources: {CPU: '4', verifier: '4'}, rayStartParams: {}, limits: {cpu: 3500m}}",
        "{resources: {CPU: '4', memory: 1Ti}, rayStartParams: {}, limits: {cpu: 4}}",
        "{rayStartParams: {}, limits: {amd.com/gpu: 2, cpu: 8}}",
        "{resources: {GPU: '1', verifier: '2'}, rayStartParams: {num-cpus: '6'}, limits: {cpu: 8}}",
    ],
)
def test_pods_offer_what_rays_autoscaler_says(tmp_path: Path, group: str) -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import _get_ray_resources_from_group_spec

    row = {"groupName": "workers", **yaml.safe_load(group)}
    row["template"] = {"spec": {"containers": [{"name": "ray-worker", "resources": {"limits": row.pop("limits")}}]}}
    file = tmp_path / "cluster.yaml"
    head = {"rayStartParams": {}, "template": row["template"]}
    file.write_text(yaml.safe_dump({"kind": "RayCluster", "spec": {"headGroupSpec": head, "workerGroupSpecs": [row]}}))
    assert read_launch(file).types[1].resources == _get_ray_resources_from_group_spec(row, is_head=False)


def test_what_kustomize_applies_with_a_raycluster_is_looked_at_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(KUBERAY)
    (tmp_path / "store.yaml").write_text("kind: Secret\nstringData: {key: FILL_IN}\n")
    (tmp_path / "job.yaml").write_text("kind: RayJob\nspec: {entrypoint: FILL_IN}\n")
    (tmp_path / "values.yaml").write_text("- {{ a template }}\n")
    assert read_launch(file).unfilled == ()
    (tmp_path / "kustomization.yaml").write_text("resources: [store.yaml, cluster.yaml]\n")
    assert read_launch(file).unfilled == ("store.yaml: Secret.stringData.key",)


def test_a_launch_survives_json(aws: Path) -> None:
    launch = read_launch(aws)
    assert LAUNCH.validate_json(LAUNCH.dump_json(launch)) == launch


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 1", "expected a file of `ray up`"),
        ("a: [", "cluster file"),
        (AWS.replace('"CPU": 4', '"CPU": "four"'), "trainer: CPU = 'four'; expected a number"),
        ("kind: RayJob\nspec: {clusterSelector: {a: b}}", "this RayJob joins another cluster"),
    ],
)
def test_what_is_no_cluster_file_is_refused_in_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=complaint) as refused:
        read_launch(file)
    assert "\n" not in str(refused.value)


EIGHT = NodeType("teacher", {"CPU": 8, "GPU": 8, "accelerator_type:H100": 1}, 0, 2)
SMALL = NodeType("trainer", {"CPU": 4, "GPU": 1, "accelerator_type:L4": 1}, 0, 6)


@pytest.mark.parametrize(
    ("bundle", "holds"),
    [
        ({"CPU": 1, "GPU": 8}, 2),
        ({"CPU": 1, "GPU": 4}, 4),
        ({"CPU": 1, "GPU": 1}, 22),
        ({"CPU": 1, "GPU": 1, "accelerator_type:L4": 0.001}, 6),
        ({"CPU": 5, "GPU": 1}, 2),
        ({"CPU": 1, "GPU": 16}, 0),
        ({"verifier": 1, "CPU": 1}, 0),
    ],
)
def test_a_bundle_never_spans_machines(bundle: dict[str, float], holds: int) -> None:
    assert capacity(bundle, [EIGHT, SMALL]) == holds


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "head_node_type: head",
            "head_node_type: nix",
            "head_node_type = 'nix'; expected one of head",
        ),
        ("type: aws, ", "", "provider has no type"),
        ("max_workers: 2", "max_workers: many", "teacher.max_workers = 'many'; expected a number of machines"),
        ("min_workers: 0", "min_workers: 5", "teacher: at least 5 machines, at most 2"),
        ('"GPU": 8', '"GPU": -8', "teacher: GPU = -8; expected a number of at least 0"),
        ('        resources: {"CPU": 0}\n', "", "head has no resources"),
        ("max_workers: 6", "max_workers: 0", "expected the second to be larger"),
    ],
)
def test_a_cluster_file_that_cannot_be_meant_is_refused_in_one_line(aws: Path, old: str, new: str, said: str) -> None:
    assert old in AWS
    aws.write_text(AWS.replace(old, new, 1))
    with pytest.raises(ValueError, match=rf"\Acluster file {aws}: [^\n]+\Z") as refused:
        read_launch(aws)
    assert said in str(refused.value)


def test_all_types_together_have_no_more_workers_than_the_cluster_may() -> None:
    head = NodeType("head", {"CPU": 8}, 1, 1, is_head=True)
    assert capacity({"CPU": 1, "GPU": 1}, [EIGHT, SMALL, head], most_workers=3) == 2 * 8 + 1
    assert capacity({"CPU": 8}, [EIGHT, SMALL, head], most_workers=1) == 2


def test_sampling_begins_with_one_engine_where_not_all_have_room() -> None:
    four = Demand("teacher", {"CPU": 1, "GPU": 8}, 4, 1, "actors")
    assert unmet(four, [EIGHT]) is None
    assert unmet(replace(four, bundle={"GPU": 9}), [EIGHT]) is not None


def test_every_library_that_addresses_outputs_is_compared_between_machines() -> None:
    stages = {*verification.LIBRARIES, *picks.LIBRARIES, *trainer.LIBRARIES, *evaluation.LIBRARIES}
    assert stages <= set(skew.LIBRARIES)


def test_a_demand_that_no_machine_can_meet_is_refused_with_the_numbers() -> None:
    fits = Demand("teacher large", {"CPU": 1, "GPU": 8}, 2, 2, "actors")
    assert unmet(fits, [EIGHT, SMALL]) is None
    too_many = Demand("teacher large", {"CPU": 1, "GPU": 8}, 3, 3, "actors")
    too_wide = Demand("training student", {"CPU": 1, "GPU": 16}, 1, 1, "gpus_per_worker")
    with pytest.raises(ValueError, match="there is room for 2") as refused:
        refuse_unmet([fits, too_many, too_wide], [EIGHT, SMALL])
    first, second = str(refused.value).splitlines()
    machines = "(machines: teacher 8 CPU, 8 GPU, H100 (up to 2); trainer 4 CPU, 1 GPU, L4 (up to 6))"
    assert first == (
        f"teacher large: 3 x (1 CPU, 8 GPU): there is room for 2 {machines}; lower actors, or add machines"
    )
    assert second.startswith("training student: 1 x (1 CPU, 16 GPU): no machine has room for one")


def test_a_recipe_asks_for_gpus_where_the_cluster_may_start_some(recipe_file: Path) -> None:
    recipe = loading.load(str(recipe_file), ["teacher.tiny.tensor_parallel_size=4", "teacher.tiny.actors=2"])
    texts = {has: [each.text for each in demands(recipe, has)] for has in (True, False)}
    assert texts[True] == [
        "teacher tiny: 2 x (1 CPU, 4 GPU)",
        "training student: 1 x (1 CPU)",
        "answers of student: 1 x (1 CPU, 1 GPU)",
    ]
    assert texts[False][0] == "teacher tiny: 2 x (1 CPU)"
    assert [each.what for each in demands(recipe, True, until="curate")] == ["teacher tiny"]


def test_when_a_student_is_trained_others_need_no_room_for_it(recipe_file: Path) -> None:
    recipe = loading.load(str(recipe_file), [])
    (one,) = recipe.student
    other = one.model_copy(update={"id": "other"})
    both = recipe.model_copy(update={"student": (one, other)})
    asked = [each.what for each in demands(both, has_gpus=False, training=other)]
    assert asked == ["training other", "answers of other"]


def test_groups_of_gpus_may_be_in_several_machines(recipe_file: Path) -> None:
    overrides = ["teacher.tiny.tensor_parallel_size=8", "teacher.tiny.pipeline_parallel_size=2"]
    recipe = loading.load(str(recipe_file), [*overrides, "teacher.tiny.accelerator_type=H100"])
    (actor, groups, *_) = demands(recipe, has_gpus=True)
    assert (actor.text, groups.text) == ("teacher tiny: 1 x (1 CPU, H100)", "teacher tiny: 2 x (8 GPU)")
    with pytest.raises(ValueError, match="that the engine is led from"):
        loading.load(str(recipe_file), overrides)


def test_a_kind_of_gpu_decides_where_an_engine_may_be(recipe_file: Path, aws: Path) -> None:
    launch = read_launch(aws)
    anywhere = forecast(loading.load(str(recipe_file), []), launch)
    assert "machines for teacher tiny: 1 x (1 CPU, 1 GPU), on teacher or trainer" in anywhere
    there = forecast(loading.load(str(recipe_file), ["teacher.tiny.accelerator_type=H100"]), launch)
    assert "machines for teacher tiny: 1 x (1 CPU, 1 GPU, H100), on teacher" in there
    with pytest.raises(ValueError, match=r"A100.*no machine has room"):
        forecast(loading.load(str(recipe_file), ["teacher.tiny.accelerator_type=A100"]), launch)


def test_a_dry_run_refuses_what_a_cluster_can_never_give(recipe_file: Path, aws: Path) -> None:
    fits = run_job("distill", str(recipe_file), "--dry-run", "--cluster", str(aws))
    assert fits.returncode == 0, fits.stderr
    assert "machines for training student: 1 x (1 CPU), on teacher or trainer" in fits.stdout
    wide = run_job(
        "distill", str(recipe_file), "--dry-run", "--cluster", str(aws), "teacher.tiny.tensor_parallel_size=16"
    )
    assert (wide.returncode, wide.stdout) == (2, "")
    assert "teacher tiny: 1 x (1 CPU, 16 GPU): no machine has room for one" in wide.stderr
    assert run_job("distill", str(recipe_file), "--cluster", str(aws)).returncode == 2


def test_the_check_says_what_is_empty_what_fits_and_what_an_hour_costs(recipe_file: Path, aws: Path) -> None:
    prices = aws.with_name("prices.toml")
    prices.write_text(
        '[aws."us-east-1"]\n"m7i.2xlarge" = { on_demand = 0.4 }\n'
        '"p5.48xlarge" = { on_demand = 55.0, spot = 20.0 }\n"g6.xlarge" = { on_demand = 0.8 }\n'
    )
    job = ("check_cluster", str(aws), str(recipe_file), "teacher.tiny.tensor_parallel_size=8", "--prices", str(prices))
    done = run_job(*job)
    assert done.returncode == 1
    assert "an hour: $1.20 at rest, $43.60 with every machine" in done.stdout
    assert "teacher tiny: 1 x (1 CPU, 8 GPU): on teacher; too few GPUs for one: head" in done.stdout
    assert "trainer (g6.xlarge, 1 GPUs)" in done.stdout
    assert "still empty: cluster_name" in done.stdout
    aws.write_text(AWS.replace("FILL_IN", "mine"))
    assert run_job(*job).returncode == 0
    for wrong in ("-1", "inf", "nan"):
        prices.write_text(f'[aws."us-east-1"]\n"m7i.2xlarge" = {{ on_demand = {wrong} }}\n')
        with pytest.raises(ValueError, match=r"aws.us-east-1.m7i.2xlarge.on_demand"):
            read_prices(prices)


def test_a_cluster_that_may_grow_is_known_before_it_has_grown(
    aws: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_gpus = any(machine.gpus for machine in live.machines())
    assert (live.has_gpus(), live.shares(str(aws.parent)), live.verifying()) == (has_gpus, True, {})
    live.refuse([Demand("training student", {"CPU": 1}, 1, 1, "num_workers")])
    with pytest.raises(ValueError, match=r"room for|no machine has room"):
        live.refuse([Demand("training student", {"CPU": 1}, 1000, 1000, "num_workers")])
    monkeypatch.setenv(live.FILE, str(aws))
    assert (live.has_gpus(), live.shares(str(aws.parent))) == (True, False)
    launched = live.launch()
    monkeypatch.setenv(live.SHARED, live.for_workers()[live.SHARED])
    monkeypatch.delenv(live.FILE)
    assert live.launch() == launched
    verifier = NodeType("verifier", {"CPU": 16, "verifier": 16}, 0, 4)
    assert launched is not None
    wider = Launch(aws, "aws", "", (*launched.types, verifier), 6, ())
    monkeypatch.setenv(live.SHARED, LAUNCH.dump_json(wider).decode())
    assert live.verifying() == {"verifier": 1.0}


def test_workers_are_as_patient_with_a_cluster_of_others_as_their_driver(
    ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = [Demand("training student", {"CPU": 1000}, 1, 1, "num_workers")]
    assert live.for_workers() == {}
    with pytest.raises(ValueError, match="no machine has room"):
        live.refuse(large)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    live.refuse(large)
    handed_on = live.for_workers()
    monkeypatch.delenv("RAY_ADDRESS")
    for name, value in handed_on.items():
        monkeypatch.setenv(name, value)
    live.refuse(large)
    assert live.for_workers() == handed_on


def test_a_folder_of_the_same_name_elsewhere_is_another(tmp_path: Path) -> None:
    see = f"{sys.executable} -c 'from retort.cluster.live import _place; print(_place(\"{tmp_path}\"))'"
    seen = [
        subprocess.run(["unshare", "--mount", "sh", "-c", each], capture_output=True, text=True, check=True).stdout
        for each in (see, f"mount -t tmpfs none {tmp_path} && {see}")
    ]
    assert seen[0] == f"{live._place(str(tmp_path))}\n" != seen[1]
    assert live._place(str(tmp_path / "nothing")) is None


def test_resources_read_as_words() -> None:
    assert told({"GPU": 8, "CPU": 4.0, "accelerator_type:H100": 1, "verifier": 2}) == "4 CPU, 8 GPU, 2 verifier, H100"
    assert told({"CPU": 0}) == "nothing"


def test_the_clusters_own_file_is_read() -> None:
    launch = read_launch(ROOT / "cluster/local.yaml")
    assert {kind.name: kind.most for kind in launch.types} == {
        "ray.head.default": 1,
        "sampler": 2,
        "verifier": 1,
        "trainer": 1,
    }
    assert launch.unfilled == ()
