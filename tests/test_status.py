"""`jobs/status.py`: what runs, was done, cost and failed; of drivers that end, fail or are killed, also elsewhere."""

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from recordings import recipe, write_recording
from retort.instances import Instance, instances
from retort.journal import ROOT, Journal
from retort.logs import event
from retort.sampling import Sampled
from retort.status import status_commands
from retort.store import Store, gc, open_store
from retort.store.artifacts import Address, Writer
from retort.store.claims import Session, present
from test_journal import until

logger = logging.getLogger("retort.tests")

# A driver of a recipe of which the problems alone are made, without Ray. One that waits says that it samples.
DRIVER = """\
import sys, time
from retort import logs
from retort.journal import Journal
from retort.loading import load
from retort.run import prepare
from retort.store import open_store
from retort.store.artifacts import Address, Writer
from retort.store.claims import Session, present
logs.configure(logs.asked_for())
recipe = load(sys.argv[1], [])
store = open_store(recipe.store)
with present(store), Journal(store, recipe.name, "curate"):
    run = prepare(recipe, store)
    if sys.argv[2] == "wait":
        Writer(store, Address("sampling", 1, {}, {}), "rec/cot")
        member = Session(store).join(lambda: {"sampled": 120, "prompt_tokens": 4000, "output_tokens": 6000})
        print("there", flush=True)
        time.sleep(600)
"""


@pytest.fixture(autouse=True)
def levels(caplog: pytest.LogCaptureFixture) -> None:
    """As jobs set them."""
    caplog.set_level(logging.INFO)


def lines_of(store: Store, *arguments: str) -> list[str]:
    uri = store.uri.removeprefix("file://")
    return list(status_commands(argparse.ArgumentParser(description="Status."), [uri, *arguments]))


def newest(store: Store) -> Instance:
    return instances(store, 1)[0][0]


def drive(folder: Path, uri: str, how: str) -> subprocess.Popen[str]:
    if not (folder / "recipe.toml").exists():
        (folder / "recipe.toml").write_text(recipe(write_recording(folder / "rec.jsonl", 4), uri, 4))
    command = [sys.executable, "-c", DRIVER, str(folder / "recipe.toml"), how]
    return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stdout=subprocess.PIPE, text=True)


def test_a_store_with_nothing_in_it_says_so(store_uri: str, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store = open_store(store_uri)
    (line,) = lines_of(store)
    assert line == f"{store.uri}: nothing has run here, or nothing that kept a journal"
    assert json.loads("\n".join(lines_of(store, "--json")))["runs"] == []


def test_a_mistyped_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        list(status_commands(argparse.ArgumentParser(description=""), [str(tmp_path / "none")]))


def test_a_killed_driver_has_died_with_what_it_had_done_and_the_next_run_of_it_is_done(
    store_uri: str, tmp_path: Path
) -> None:
    store = open_store(store_uri)
    with drive(tmp_path, store_uri, "wait") as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "there\n"
        until(lambda: [len(each.stages) for each in instances(store, 1)[0]] == [2])
        text = "\n".join(lines_of(store))
        assert ": 1 running; 1 of 1 runs follow" in text
        assert f"test (curate) on {os.uname().nodename}, pid {driver.pid}, since " in text
        assert "120 chains sampled, 10,000 tokens so far" in text
        os.kill(driver.pid, signal.SIGKILL)
    died = newest(store)
    assert died.state == "died"
    assert [(stage.stage, stage.of, stage.is_kept) for stage in died.stages] == [
        ("problems", "arithmetic", True),
        ("sampling", "rec/cot", False),
    ]
    text = "\n".join(lines_of(store))
    assert ": nothing runs now; 1 of 1 runs follow" in text
    assert " in sampling rec/cot; 120 chains sampled, 10,000 tokens; the same command goes on from there" in text

    with drive(tmp_path, store_uri, "go") as driver:
        assert driver.wait(60) == 0
    found, number = instances(store, 10)
    assert ([each.state for each in found], number) == (["ended", "died"], 2)
    assert [(stage.stage, stage.is_kept, stage.is_made) for stage in found[0].stages] == [("problems", True, False)]
    # What it had begun, nobody has ended.
    assert sum(" in sampling rec/cot;" in line and "goes on from there" in line for line in lines_of(store)) == 1
    (row,) = [line for line in lines_of(store) if " ended " in line]
    assert row.endswith(" (1)")


def elsewhere(store: Store, age_s: float) -> None:
    """Let what this process wrote be of a driver of another machine, whose last sign of life is of some time ago."""
    for key in [*store.keys(ROOT), *store.keys("sessions/")]:
        told: dict[str, Any] = json.loads(store.get(key))
        store.replace(key, json.dumps({**told, "host": "another"}).encode())
        then = time.time() - age_s
        os.utime(Path(store.directory(""), key), (then, then))


@pytest.mark.parametrize(("age_s", "state"), [(5, "running"), (60, "silent"), (200, "died")])
def test_a_driver_elsewhere_lives_by_its_signs_of_life(store: Store, age_s: float, state: str) -> None:
    member = Session(store, lease_s=10_000).join(None)
    journal = Journal(store, "mine", "train")
    journal.__enter__()
    until(lambda: bool(store.keys(ROOT)))
    elsewhere(store, age_s)
    assert newest(store).state == state
    told = "\n".join(lines_of(store))
    assert ("silent: it may have died" in told) == (state == "silent")
    assert (" died after " in told) == (state == "died")
    assert not store.keys(".probe-"), "the clock was asked"
    member.close()
    journal.__exit__(None, None, None)


def test_a_training_under_way_is_shown_with_the_step_of_its_last_state(store: Store) -> None:
    address = Address("checkpoint", 1, {}, {})
    with present(store), Journal(store, "mine", "train"):
        Writer(store, address, "cot@1")
        for step in (400, 600):
            store.put(f"{address.prefix}state/{step:08d}.pt", b"")
        until(lambda: any(each.stages for each in instances(store, 1)[0]))
        (stage,) = newest(store).stages
        assert (stage.of, stage.step) == ("cot@1", 600)
        assert any(line.split()[:2] == ["training", "cot@1"] and "step 600 saved" in line for line in lines_of(store))


def spend(store: Store, name: str, plan: str = "one", **figures: int) -> None:
    """Make what a teacher's sampling of a plan leaves, and a student's training."""
    stats = dict.fromkeys(Sampled.__dataclass_fields__, 0) | figures
    sampling = Writer(store, Address("sampling", 1, {"name": name, "plan": plan}, {}), f"{name}/cot").commit([], stats)
    learned = {"train_seconds": 90.0, "example_tokens": 5000, "computed": {"workers": 2}}
    checkpoint = Writer(store, Address("checkpoint", 1, {"name": name}, {}), "student").commit([], learned)
    for stage, of, made in (("sampling", f"{name}/cot", sampling), ("checkpoint", "student", checkpoint)):
        logger.info("kept", extra=event("kept", stage, of, made.prefix, made.manifest["attempt"]))


def test_two_plans_of_one_name_are_both_paid(store: Store) -> None:
    with Journal(store, "mine", "sweep"):
        for plan, sampled in (("one", 100), ("other", 20)):
            spend(store, "tiny", plan, sampled=sampled)
    told = json.loads("\n".join(lines_of(store, "--json")))
    assert told["runs"][0]["cost"]["tiny"]["sampled"] == 120


def test_what_two_runs_made_at_once_is_paid_by_the_one_that_was_first(store: Store) -> None:
    with Journal(store, "one", "distill"):
        spend(store, "tiny", sampled=100)
    with Journal(store, "two", "distill"):
        spend(store, "tiny", sampled=100)  # the same outputs: the first one's are kept
    told = json.loads("\n".join(lines_of(store, "--json")))
    costs = {run["run"]: run["cost"] for run in told["runs"]}
    assert costs["one"]["tiny"]["sampled"] == 100
    assert costs["two"] == {}


def test_what_a_run_made_is_what_it_cost_and_what_it_found_was_paid_before(store: Store) -> None:
    with Journal(store, "mine", "distill") as journal:
        journal.machine_s["8 CPU, 1 GPU"] = 5400.0
        spend(store, "tiny", sampled=120, prompt_tokens=4000, output_tokens=6000, engine_s=30)
    prefixes = {stage.stage: stage.artifact for stage in newest(store).stages}
    with Journal(store, "mine", "distill"):
        for stage, of in (("sampling", "tiny/cot"), ("checkpoint", "student")):
            logger.info("kept", extra=event("kept", stage, of, prefixes[stage], "an attempt of the first"))
    told = json.loads("\n".join(lines_of(store, "--json")))
    again, first = told["runs"]
    assert again["cost"] == {}
    tiny, student = first["cost"]["tiny"], first["cost"]["student"]
    assert (tiny["sampled"], tiny["prompt_tokens"], tiny["output_tokens"], tiny["engine_s"]) == (120, 4000, 6000, 30)
    assert (student["training_worker_s"], student["training_tokens"]) == (180, 5000)
    assert first["machine_s"] == {"8 CPU, 1 GPU": 5400.0}
    lines = lines_of(store)
    spent, machines = lines[lines.index("what it cost") + 1 :], lines[-1]
    assert machines.endswith("8 CPU, 1 GPU  1 h 30 min"), machines
    assert [line.split()[3:] for line in spent[1:3]] == [
        ["tiny", "120", "4,000", "6,000", "30.0", "s", "–"],
        ["student", "–", "–", "–", "–", "3", "min", "00", "s"],
    ]


def test_what_failed_says_why_and_warnings_are_counted(store: Store) -> None:
    def fail() -> None:
        for number in range(3):
            logger.warning("waits for %d GPUs", number)
        raise ValueError("training cot: no room")

    with pytest.raises(ValueError, match="no room"), Journal(store, "mine", "train"):
        fail()
    wrong = lines_of(store)[lines_of(store).index("what went wrong") + 1 :]
    assert wrong[0].endswith(": training cot: no room")
    assert " mine (train) failed at " in wrong[0]
    assert wrong[1].endswith(": 3 warnings, the last: waits for 2 GPUs")


def test_the_newest_runs_are_told_of_and_gc_leaves_journals_alone(store: Store) -> None:
    with Journal(store, "first", "train"):
        pass
    with Journal(store, "second", "train"):
        pass
    found, number = instances(store, 1)
    assert ([each.run for each in found], number) == (["second"], 2)
    assert "1 of 2 runs follow" in lines_of(store, "--last", "1")[0]
    before = store.keys(ROOT)
    with gc.alone_on(store) as now_s:
        assert not [each for each in gc.leftovers(store, now_s + 1) if each.prefix.startswith(ROOT)]
    assert gc.runs(store) == []
    assert store.keys(ROOT) == before
    store.put(f"{ROOT}20200101T000000Z-1-abcdef/00001.json", b'{"format": 9}')
    store.put(f"{ROOT}stray", b"?")
    assert [each.run for each in instances(store, 10)[0]] == ["second", "first"]
    assert asdict(found[0])["state"] == "ended"
