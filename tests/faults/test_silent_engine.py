"""An engine that dies or falls silent is replaced; the job ends well by itself."""

import random
import time
from pathlib import Path

import pytest

from faults.job import ENGINE, Job, is_alive
from faults.killing import kill, wait_for_moment
from faults.ledger import Ledger, on_disk
from recordings import recipe

FLUSH_S = 4.0
STALL_S = 10.0


@pytest.mark.slow
def test_a_dead_and_a_silent_engine_are_replaced(tmp_path: Path) -> None:
    rng = random.Random(0)
    recipe_file = tmp_path / "recipe.toml"
    recipe_file.write_text(recipe(None, str(tmp_path / "store"), 30))
    with (
        Job(tmp_path, recipe_file, f"sampling.flush_s={FLUSH_S}", f"sampling.stall_s={STALL_S}") as job,
        Ledger(job.log, on_disk(tmp_path / "store"), FLUSH_S) as ledger,
    ):
        since_s = job.start()
        wait_for_moment(job, ledger, rng, since_s, most=300)
        kill(job, ledger, "engine")
        wait_for_moment(job, ledger, rng, ledger.hits[-1].at_s, most=300)
        (silent,) = job.find(ENGINE)
        silent.suspend()
        ledger.hit("silence", time.monotonic())
        assert job.wait(timeout_s=300) == 0, job.output[-3000:]
        assert not is_alive(silent), "the silent engine was not ended"
        print(ledger.check(recipe_file))
