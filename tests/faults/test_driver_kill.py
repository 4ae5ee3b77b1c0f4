"""Invariant 1 under SIGKILL of the driver: nothing durable is lost, changed or asked for again; nothing is missing."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from faults import seam
from recordings import recipe, write_recording
from retort.loading import load
from retort.planning import teacher_plans
from retort.records import as_row
from retort.run import prepare
from retort.store import open_store
from retort.store.plan import Plan, wanted_keys

DRIVER = Path(__file__).parent / "driver.py"
FLUSH_S = 2.0


def start(recipe_file: Path, log: Path, output: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, seam.LOG: str(log), "PYTHONPATH": str(DRIVER.parent)}
    with output.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, str(DRIVER), str(recipe_file), f"sampling.flush_s={FLUSH_S}"],
            env=environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def plan_of(recipe_file: Path) -> Plan:
    wanted = load(recipe_file)
    run = prepare(wanted, open_store(wanted.store))
    ((plan, _),) = teacher_plans(run, wanted.teacher[0], with_references=False).values()
    return plan


def durable_rows(plan: Plan) -> dict[str, dict[str, object]]:
    rows: dict[str, dict[str, object]] = {}
    for partition, prompts in plan.partitions.items():
        for chain in plan.pool.chains(partition, wanted_keys(prompts), plan.max_new_tokens):
            rows[f"{chain.prompt_hash}/{chain.index}"] = as_row(chain)
    return rows


def kill_when(process: subprocess.Popen[bytes], log: Path, finished: int, delay_s: float) -> float:
    """SIGKILL the driver once so many chains have finished and a moment more; the time of the kill."""
    deadline = time.monotonic() + 240
    while sum(line["event"] == "finished" for line in seam.read(log)) < finished:
        assert process.poll() is None, "the driver ended before it could be killed"
        assert time.monotonic() < deadline, "the driver sampled nothing"
        time.sleep(0.05)
    time.sleep(delay_s)
    family = psutil.Process(process.pid).children(recursive=True)
    agents = [member for member in family if member.name().endswith("Agent")]
    process.send_signal(signal.SIGKILL)
    killed_at = time.time()
    process.wait()
    # An engine that lives on would go on spending. Ray's agents, which do no work, may take minutes to notice.
    _, alive = psutil.wait_procs([member for member in family if member not in agents], timeout=60)
    for agent in agents:
        with contextlib.suppress(psutil.NoSuchProcess):
            agent.kill()
    assert not alive, f"still alive a minute after their driver: {alive}"
    return killed_at


def check_killed_and_resumed(recipe_file: Path, tmp_path: Path, kills: list[tuple[int, float]]) -> str:
    """Kill the driver at each of some moments, let it end at last, and check the invariant; the figures."""
    log, output = tmp_path / "seam.jsonl", tmp_path / "driver.log"
    plan = plan_of(recipe_file)
    before: dict[str, dict[str, object]] = {}
    asked_again = late = 0
    for finished, delay_s in kills:
        seen = len(seam.read(log))
        killed_at = kill_when(start(recipe_file, log, output), log, finished, delay_s)
        lines = seam.read(log)
        asked_again += sum(line["event"] == "asked" and line["key"] in before for line in lines[seen:])
        after = durable_rows(plan)
        assert {key: after.get(key) for key in before} == before, "a durable row was lost or changed"
        ended = {
            line["key"] for line in lines if line["event"] == "finished" and float(line["at_s"]) < killed_at - FLUSH_S
        }
        late += len(ended - after.keys())
        before = after
    seen = len(seam.read(log))
    process = start(recipe_file, log, output)
    assert process.wait(timeout=300) == 0, output.read_text()[-3000:]
    lines = seam.read(log)
    asked_again += sum(line["event"] == "asked" and line["key"] in before for line in lines[seen:])
    final = durable_rows(plan)
    assert {key: final.get(key) for key in before} == before, "a durable row was lost or changed"
    wanted = {f"{hash_}/{index}" for prompts in plan.partitions.values() for hash_, index in wanted_keys(prompts)}
    assert final.keys() == wanted
    assert asked_again == 0, "a durable chain was asked for again"
    assert late == 0, "a chain was not durable in time"
    assert 0 < len(before) < len(wanted), "the kill came too early or too late to show anything"
    reused = f"{len(wanted)} chains wanted, {len(before)} reused, {len(wanted) - len(before)} to sample"
    assert reused in output.read_text()
    asked = sum(line["event"] == "asked" for line in lines)
    return (
        f"{len(kills)} kills, {len(wanted)} chains: {len(before)} reused, 0 lost, 0 repeated, {asked} requests in all"
    )


@pytest.mark.parametrize("seed", [0])
def test_a_killed_driver_loses_and_repeats_nothing(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    recording = write_recording(tmp_path / "rec.jsonl", 30)
    recipe_file = tmp_path / "recipe.toml"
    recipe_file.write_text(recipe(recording, str(tmp_path / "store"), 30))
    kills = [(rng.randint(100, 300), rng.uniform(0, 2)), (rng.randint(600, 900), rng.uniform(0, 2))]
    print(check_killed_and_resumed(recipe_file, tmp_path, kills))


def test_a_killed_driver_with_a_real_engine_loses_and_repeats_nothing(tmp_path: Path) -> None:
    recipe_file = tmp_path / "recipe.toml"
    text = recipe(Path("unused"), str(tmp_path / "store"), 30)
    settings = 'engine = "vllm"\nmodel = "shipped:teacher"\ndtype = "float32"'
    recipe_file.write_text(text.replace('engine = "replay"\npaths = ["unused"]', settings))
    print(check_killed_and_resumed(recipe_file, tmp_path, [(400, 0.3)]))
