"""A sweep under SIGKILL of its driver and of its trials: it ends whole, and no trial that has ended is run again."""

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from faults.job import Job
from retort.loading import load
from retort.store import open_store
from retort.sweep.ledger import Row, rows
from sweeping import GRID, NUM_CHAINS, NUM_PROBLEMS, write_sweep

TRIAL = "ray::ImplicitFunc"
ASHA = """
[sweep]
student = "cot"
searcher = "tpe"
trials = 8
scheduler = "asha"
grace_steps = 2
reduction_factor = 2
max_concurrent = 2
[sweep.space]
training.learning_rate = { low = 1e-4, high = 1e-2, log = true }
"""


def ledger_of(recipe_file: Path) -> dict[str, Row]:
    return rows(open_store(load(recipe_file).store), "test")


def compared(row: Row) -> dict[str, Any]:
    """What a trial came to, without when and how fast."""
    return {"params": row.params, "state": row.state, "value": row.value, "scores": row.scores, "curve": row.curve}


def kill_thrice(folder: Path, recipe_file: Path, kinds: list[str], seed: int) -> Job:
    """Kill the driver, or a trial, while trials are under way; the entries that were there stay as they were."""
    rng = random.Random(seed)
    with Job(folder, recipe_file, environment={"XDG_DATA_HOME": str(folder / "home")}) as job:
        job.start()
        for number, kind in enumerate(kinds):
            job.until(lambda done=number: len(ledger_of(recipe_file)) >= done and job.find(TRIAL) != [], "trials ran")
            time.sleep(rng.uniform(0, 8))
            before = {name: json.dumps(compared(row)) for name, row in ledger_of(recipe_file).items()}
            if kind == "driver":
                assert job.is_running, "it had ended: nothing was killed"
                job.kill()
                job.end_agents()
                job.start()
            else:
                found = job.find(TRIAL)
                assert found, "no trial was running: nothing was killed"
                found[0].kill()
            after = {name: json.dumps(compared(row)) for name, row in ledger_of(recipe_file).items()}
            assert {name: after[name] for name in before} == before
        assert job.wait(600) == 0, job.output[-3000:]
        check_no_trial_ran_twice(job, recipe_file)
        drawn = [line for line in job.lines() if line.event == "finished"]
        assert len(drawn) == len({line.key for line in drawn}) == NUM_CHAINS * NUM_PROBLEMS
        job.has_ended()
        return job


def check_no_trial_ran_twice(job: Job, recipe_file: Path) -> None:
    """Of a trial that has ended the log says so once, and nothing after it of its start."""
    for name in ledger_of(recipe_file):
        said = [line for line in job.output.splitlines() if f": trial {name} " in line and "sweep test" in line]
        ended = [number for number, line in enumerate(said) if " starts" not in line and " failed" not in line]
        assert len(ended) <= 1, said
        assert not ended or ended[0] == len(said) - 1, said


@pytest.mark.slow
def test_a_grid_that_is_killed_ends_with_the_ledger_of_one_that_is_not(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    grid = GRID.replace("[1, 4]", "[1, 2, 4]")
    for folder in (killed, whole):
        folder.mkdir()
        write_sweep(folder, grid)
    with Job(whole, whole / "sweep.toml", environment={"XDG_DATA_HOME": str(whole / "home")}) as job:
        began = time.monotonic()
        job.start()
        assert job.wait(600) == 0, job.output[-3000:]
        print(f"undisturbed: {time.monotonic() - began:.0f} s")
    kill_thrice(killed, killed / "sweep.toml", ["driver", "trial", "driver"], seed=0)
    ends = [ledger_of(folder / "sweep.toml") for folder in (killed, whole)]
    ledgers = [{name: compared(row) for name, row in end.items()} for end in ends]
    assert ledgers[0] == ledgers[1]
    assert len(ledgers[0]) == 6


@pytest.mark.slow
def test_tpe_with_asha_that_is_killed_ends_with_its_number_of_trials(tmp_path: Path) -> None:
    recipe_file = write_sweep(tmp_path, ASHA)
    kill_thrice(tmp_path, recipe_file, ["trial", "driver", "driver"], seed=1)
    found = ledger_of(recipe_file)
    assert len(found) == 8
    assert any(row.state == "finished" for row in found.values())


@pytest.mark.slow
def test_a_sweep_that_is_interrupted_says_so_and_goes_on(tmp_path: Path) -> None:
    recipe_file = write_sweep(tmp_path)
    with Job(tmp_path, recipe_file, environment={"XDG_DATA_HOME": str(tmp_path / "home")}) as job:
        job.start()
        job.until(lambda: len(ledger_of(recipe_file)) > 0, "a trial ended")
        job.interrupt()
        assert job.wait() == 130, job.output[-3000:]
        assert "interrupted; the same command goes on from here" in job.output
        assert not list((tmp_path / "store/artifacts").glob("report/*/manifest.json")), "a page that looks final"
        assert len(ledger_of(recipe_file)) < 4
        job.end_agents()
        job.start()
        assert job.wait(600) == 0, job.output[-3000:]
        assert len(ledger_of(recipe_file)) == 4
        check_no_trial_ran_twice(job, recipe_file)


@pytest.mark.slow
def test_two_drivers_of_one_sweep_run_each_trial_once(tmp_path: Path) -> None:
    recipe_file = write_sweep(tmp_path)
    environment = {"XDG_DATA_HOME": str(tmp_path / "home")}
    with (
        Job(tmp_path, recipe_file, name="one", environment=environment) as one,
        Job(tmp_path, recipe_file, name="two", environment=environment) as two,
    ):
        one.start()
        two.start()
        assert [one.wait(600), two.wait(600)] == [0, 0], one.output[-2000:] + two.output[-2000:]
        said = [*one.output.splitlines(), *two.output.splitlines()]
        starts = [line for line in said if "sweep test: trial" in line and " starts" in line]
        assert len(starts) == len(ledger_of(recipe_file)) == 4
        assert any("waits for another driver" in line for line in said), "they did not meet"
