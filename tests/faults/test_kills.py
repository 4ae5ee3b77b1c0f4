"""Invariant 1 under SIGKILL: nothing durable is lost, changed or asked for again, and nothing is missing at the end.

A job outlives its actor and its engine; one whose driver or whose Ray is dead is run again.
"""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from faults.job import Job
from faults.killing import kill_again_and_again
from faults.ledger import Ledger, keys_of, on_disk, plan_of
from recordings import recipe, write_recording

FLUSH_S = 4.0


def check_killed(folder: Path, seed: int, kinds: Sequence[str], num_chains: int, is_real: bool = False) -> None:
    """Kill a job at random moments, let it end, and check the invariant; prints the figures."""
    recording = None if is_real else write_recording(folder / "rec.jsonl", num_chains)
    recipe_file = folder / "recipe.toml"
    recipe_file.write_text(recipe(recording, str(folder / "store"), num_chains))
    num_wanted = len(keys_of(plan_of(recipe_file)))
    with (
        Job(folder, recipe_file, f"sampling.flush_s={FLUSH_S}") as job,
        Ledger(job.log, on_disk(folder / "store"), FLUSH_S) as ledger,
    ):
        kill_again_and_again(job, ledger, random.Random(seed), kinds, num_wanted)
        print(f"seed {seed}: {ledger.check(recipe_file)}")


def test_five_kills_lose_and_repeat_nothing(tmp_path: Path) -> None:
    kinds = ["driver", "actor", "raylet", "actor", "driver"]
    check_killed(tmp_path, 0, random.Random(0).sample(kinds, len(kinds)), num_chains=20)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_fifteen_random_kills_lose_and_repeat_nothing(tmp_path: Path, seed: int) -> None:
    kinds = random.Random(seed).choices(["driver", "actor", "raylet"], [6, 7, 2], k=15)
    check_killed(tmp_path, seed, kinds, num_chains=40)


@pytest.mark.slow
def test_ten_random_kills_of_a_job_with_a_real_engine_lose_and_repeat_nothing(tmp_path: Path) -> None:
    kinds = random.Random(0).choices(["driver", "actor", "engine", "raylet"], [3, 3, 4, 1], k=10)
    check_killed(tmp_path, 0, kinds, num_chains=60, is_real=True)
