"""Two drivers on one pool at once ask for each chain once between them, also where the clock of one is stepped."""

import random
import time
from pathlib import Path

import pytest

from faults.clocks import SteppedClock
from faults.job import Job
from faults.killing import kill
from faults.ledger import Ledger, on_disk
from recordings import recipe, write_recording

FLUSH_S = 4.0


def write_recipes(folder: Path, counts: tuple[int, int]) -> list[Path]:
    """Recipes that differ in the number of chains and so have one pool."""
    recording = write_recording(folder / "rec.jsonl", max(counts))
    files = [folder / "recipe-one.toml", folder / "recipe-two.toml"]
    for file, num_chains in zip(files, counts, strict=True):
        file.write_text(recipe(recording, str(folder / "store"), num_chains))
    return files


def waits(job: Job) -> bool:
    return "waits for another driver" in job.output


def check_together(one: Job, two: Job, ledger: Ledger, recipes: list[Path]) -> None:
    """Each chain was asked for once, while both were at it."""
    asked = [line.key for line in ledger.log.lines() if line.event == "asked"]
    assert len(asked) == len(set(asked)), "a chain was asked for twice"
    shares = {job.name: sum(line.event == "asked" for line in job.lines()) for job in (one, two)}
    assert all(shares.values()) or waits(one) or waits(two), f"one came after the other: {shares}"
    print(f"shares {shares}; {ledger.check(*recipes)}")


@pytest.mark.slow
def test_two_drivers_ask_for_each_chain_once(tmp_path: Path) -> None:
    recipes = write_recipes(tmp_path, (16, 16))
    flush = f"sampling.flush_s={FLUSH_S}"
    with (
        Job(tmp_path, recipes[0], flush, name="one") as one,
        Job(tmp_path, recipes[1], flush, name="two") as two,
        Ledger(one.log, on_disk(tmp_path / "store"), FLUSH_S) as ledger,
    ):
        one.start()
        two.start()
        assert (one.wait(), two.wait()) == (0, 0), one.output[-2000:] + two.output[-2000:]
        check_together(one, two, ledger, recipes)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_two_drivers_on_recipes_that_overlap_and_a_clock_that_steps_ask_for_each_chain_once(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    recipes = write_recipes(tmp_path, (20, 30))
    clock = SteppedClock(tmp_path)
    flush = f"sampling.flush_s={FLUSH_S}"
    with (
        Job(tmp_path, recipes[0], flush, name="one", environment=clock.environment) as one,
        Job(tmp_path, recipes[1], flush, name="two") as two,
        Ledger(one.log, on_disk(tmp_path / "store"), FLUSH_S) as ledger,
    ):
        one.start()
        one.until(lambda: bool(one.lines()), "it had asked for a chain")
        two.start()
        for step_s in (3600, -3600):
            time.sleep(rng.uniform(1, 4))
            ledger.hit(f"clock put to {step_s:+} s", time.monotonic())
            clock.step(step_s)
        assert (one.wait(), two.wait()) == (0, 0), one.output[-2000:] + two.output[-2000:]
        check_together(one, two, ledger, recipes)
        off_s = [finished_at_s - time.time() for finished_at_s in ledger.column("finished_at_s")]
        assert max(off_s) > 1800, "the clock was not put forward while chains finished"
        assert min(off_s) < -1800, "the clock was not put back while chains finished"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_driver_that_waits_goes_on_where_a_killed_one_ended(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    recipes = write_recipes(tmp_path, (30, 30))
    flush = f"sampling.flush_s={FLUSH_S}"
    with (
        Job(tmp_path, recipes[0], flush, name="one") as one,
        Job(tmp_path, recipes[1], flush, name="two") as two,
        Ledger(one.log, on_disk(tmp_path / "store"), FLUSH_S) as ledger,
    ):
        one.start()
        one.until(lambda: bool(ledger.durable), "a chain was durable")
        two.start()
        one.until(lambda: waits(two), "the other was waiting")
        time.sleep(rng.uniform(0, 2))
        kill(one, ledger, "driver")
        assert two.wait() == 0, two.output[-2000:]
        one.has_ended()
        print(f"seed {seed}: {ledger.check(*recipes)}")
