"""Machines that are killed in every stage: a run goes on where others are, loses and buys nothing twice, and ends with
the same results to the byte, or within their interval where a real engine samples.
"""

import ast
import json
import random
import re
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from faults import seam
from faults.job import ACTOR, Job, title_of
from faults.killing import wait_for_moment
from faults.ledger import Ledger, Segments, on_disk, plan_of
from machines import Machine, Machines
from recordings import COUNTS, recipe, write_recording
from retort.intervals import wilson
from retort.records import Example, Prediction, Verdict, as_row
from retort.store import Store, open_store
from retort.store.artifacts import Artifact, open_artifact
from retort.store.plan import Plan

FLUSH_S = 4.0
NUM_CHAINS = 16
NUM_WANTED = (COUNTS["train"] + COUNTS["dev"]) * NUM_CHAINS
STUDENT = """
[[student]]
id = "student"
base = "shipped:student"
corpus = "chains"
engine = "hf"
training = { steps = 150, batch_examples = 8, learning_rate = 1e-3, save_every_s = 0.5 }
[evaluation]
tasks = ["arithmetic"]
max_new_tokens = 24
"""
STAGES = {
    "sampling": (r"sampling rec: starting", r"sampling rec: [\d,]+ chains in", r"SampleBatches"),
    "verification": (r"sampling rec: [\d,]+ chains in", r"verification of cot", r"Map\("),
    "selection": (r"verification of cot", r"selection: ", r"read_verdicts|[Ss]huffle|select_group"),
    "training": (r"training student: starting", r"training student: \d+ \+ ", r"RayTrainWorker"),
    "evaluation": (r"sampling student: starting", r"evaluation student: ", r"SampleBatches|Map\("),
}
"""Of each stage, what the log says when it has begun and when it has ended, and what its processes call themselves."""
COMPARED: dict[str, Any] = {
    "verdicts": Verdict,
    "corpus": Example,
    "evaluation": Prediction,
}


def job_on(machines: Machines, folder: Path, name: str, *overrides: str) -> Job:
    """The whole of a recipe, from a recording to a report, in a store of the job's own."""
    recording, store = folder / "rec.jsonl", folder / name / "store"
    recording = recording if recording.exists() else write_recording(recording, NUM_CHAINS)
    (folder / name).mkdir()
    recipe_file = folder / name / "recipe.toml"
    recipe_file.write_text(recipe(recording, str(store), NUM_CHAINS, student=STUDENT))
    environment = {"RAY_ADDRESS": machines.address, "RAY_AUTH_MODE": "disabled", seam.UNTIL: "report"}
    return Job(folder / name, recipe_file, f"sampling.flush_s={FLUSH_S}", *overrides, environment=environment)


def result_of(folder: Path, output: str) -> dict[str, Any]:
    """All rows and weights that the report of a job is made of, by stage and name."""
    store = open_store(str(folder / "store"))
    found = re.search(r"^artifact: file://\S+/(artifacts/report/\w+)", output, re.MULTILINE)
    assert found, output[-2000:]
    report = open_artifact(store, f"{found[1]}/")
    assert report is not None
    index = open_artifact(store, f"artifacts/run/{report.manifest['inputs']['run']}/")
    assert index is not None
    names: Mapping[str, Mapping[str, str]] = index.manifest["inputs"]
    rows = {
        f"{stage}/{name}": _rows(_open(store, prefix), record)
        for stage, record in COMPARED.items()
        for name, prefix in names[stage].items()
    }
    weights = {name: _open(store, prefix).read("model.safetensors") for name, prefix in names["checkpoint"].items()}
    assert len(rows) >= len(COMPARED), "nothing is compared"
    return {"names": names, **rows, **weights}


def _open(store: Store, prefix: str) -> Artifact:
    made = open_artifact(store, prefix)
    assert made is not None
    return made


def _rows(made: Artifact, record: Any) -> list[str]:
    return sorted(json.dumps(as_row(row), sort_keys=True) for row in made.records(record))


def durations(job: Job) -> dict[str, float]:
    """How long each stage of a job takes that nobody disturbs."""
    seen: dict[str, float] = {}
    job.start()
    while job.is_running:
        output = job.output
        for stage, (begun, ended, _) in STAGES.items():
            for name, pattern in ((f"{stage} begun", begun), (f"{stage} ended", ended)):
                if name not in seen and re.search(pattern, output):
                    seen[name] = time.monotonic()
        time.sleep(0.05)
    assert job.wait() == 0, job.output[-3000:]
    return {stage: seen[f"{stage} ended"] - seen[f"{stage} begun"] for stage in STAGES}


def pool_of(plan: Plan, store: Path) -> Segments:
    """The segments of the pool that a plan wants chains of, among others in a store."""
    all_of = on_disk(store)
    return lambda: {name: read for name, read in all_of().items() if f"/{plan.pool.prefix}" in name}


def at_work_on(stage: str, machines: Machines) -> list[Machine]:
    """The machines whose processes say that they work on a stage."""
    return [each for each in machines.workers if re.search(STAGES[stage][2], " ".join(each.working()))]


def kill_one(machines: Machines, ledger: Ledger, stage: str, rng: random.Random) -> bool:
    """Kill a machine, one that works on a stage if there is any, and start another; whether there was one."""
    machines.until_joined(2)
    at_work = at_work_on(stage, machines)
    worker = rng.choice(at_work or machines.workers)
    actors = [process.pid for process in worker.processes() if ACTOR in title_of(process)]
    machines.replace(worker)
    if actors and stage == "sampling":
        ledger.hit("machine", time.monotonic(), actors)
    return bool(at_work)


def kill_machines(
    job: Job, machines: Machines, ledger: Ledger, lasts: Mapping[str, float], rng: random.Random
) -> list[str]:
    """Kill a machine at a random moment of each stage; the stages that lost one which worked on them."""
    struck: list[str] = []
    since_s = job.start()
    for stage, (begun, ended, _) in STAGES.items():
        job.until(lambda begun=begun: re.search(begun, job.output) is not None, f"{stage} began")
        if stage == "sampling":
            wait_for_moment(job, ledger, rng, since_s, NUM_WANTED // 2)
        else:
            time.sleep(rng.uniform(0, lasts[stage] / 2))
            while not at_work_on(stage, machines) and not re.search(ended, job.output):
                time.sleep(0.02)
        if kill_one(machines, ledger, stage, rng):
            struck.append(stage)
    assert job.wait() == 0, job.output[-3000:]
    return struck


def check_kills(folder: Path, rounds: int, seed: int) -> None:
    """Runs that lose a machine in each stage, against one that loses none."""
    rng, log = random.Random(seed), folder / "seam.jsonl"
    environment = {seam.LOG: str(log), seam.NAME: "one"}
    struck: Counter[str] = Counter()
    with Machines(folder / "machines", environment) as machines:
        with job_on(machines, folder, "undisturbed") as job:
            lasts = durations(job)
            expected = result_of(folder / "undisturbed", job.output)
        print({stage: round(seconds, 1) for stage, seconds in lasts.items()})
        for number in range(rounds):
            name = f"round-{number}"
            log.unlink()
            with job_on(machines, folder, name) as job:
                job.log = seam.Log(log)
                pool = pool_of(plan_of(folder / name / "recipe.toml"), folder / name / "store")
                with Ledger(job.log, pool, FLUSH_S) as ledger:
                    hit = kill_machines(job, machines, ledger, lasts, rng)
                    print(f"round {number}: at work on {hit}; {ledger.check(folder / name / 'recipe.toml')}")
                found = result_of(folder / name, job.output)
            struck.update(hit)
            assert found.keys() == expected.keys()
            assert [key for key in found if found[key] != expected[key]] == []
    assert set(struck) == set(STAGES), f"no machine died that worked on {set(STAGES) - set(struck)}"


@pytest.mark.slow
def test_twenty_machines_die_and_the_results_are_the_same_to_the_byte(tmp_path: Path) -> None:
    check_kills(tmp_path, rounds=4, seed=0)


def sample_with_kills(machines: Machines, folder: Path, log: Path, num_kills: int, rng: random.Random) -> int:
    """How many chains of the shipped teacher are right where so many machines die while it is sampled."""
    folder.mkdir()
    file, store = folder / "recipe.toml", folder / "store"
    file.write_text(recipe(None, str(store), NUM_CHAINS))
    log.unlink(missing_ok=True)
    environment = {"RAY_ADDRESS": machines.address, "RAY_AUTH_MODE": "disabled", seam.UNTIL: "curate"}
    with Job(folder, file, f"sampling.flush_s={FLUSH_S}", environment=environment) as job:
        job.log = seam.Log(log)
        with Ledger(job.log, pool_of(plan_of(file), store), FLUSH_S) as ledger:
            since_s = job.start()
            for left in range(num_kills, 0, -1):
                wait_for_moment(job, ledger, rng, since_s, (NUM_WANTED - len(ledger.durable)) // (left + 1))
                kill_one(machines, ledger, "sampling", rng)
                since_s = ledger.hits[-1].at_s
            assert job.wait(600) == 0, job.output[-3000:]
            print(ledger.check(file))
        counts = re.search(r"verdicts: ({.*})", job.output)
        assert counts, job.output[-2000:]
    return ast.literal_eval(counts[1])["correct"]


@pytest.mark.slow
def test_machines_die_under_a_real_engine_and_the_share_of_right_chains_stays_within_its_interval(
    tmp_path: Path,
) -> None:
    rng, log = random.Random(0), tmp_path / "seam.jsonl"
    with Machines(tmp_path / "machines", {seam.LOG: str(log), seam.NAME: "one"}) as machines:
        undisturbed, disturbed = (
            sample_with_kills(machines, tmp_path / f"{number}-kills", log, number, rng) for number in (0, 4)
        )
    low, high = wilson(undisturbed, NUM_WANTED, z=3)
    print(f"of {NUM_WANTED} chains {undisturbed} are right undisturbed, {disturbed} with 4 kills")
    assert low <= disturbed / NUM_WANTED <= high
