"""A disk that is full for a while: what finished in the meantime waits in memory, and nothing is lost or repeated."""

import contextlib
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.job import Job
from faults.ledger import Ledger, on_disk
from recordings import recipe, write_recording

FLUSH_S = 4.0
SIZE_MIB = 32


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk takes root")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all the room that is left."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    return ballast


@pytest.mark.slow
@pytest.mark.parametrize("ends", [False, True], ids=["goes on", "killed"])
@pytest.mark.parametrize("seed", range(3))
def test_a_full_disk_loses_and_repeats_nothing(disk: Path, tmp_path: Path, seed: int, ends: bool) -> None:
    rng = random.Random(seed)
    recipe_file = tmp_path / "recipe.toml"
    recipe_file.write_text(recipe(write_recording(tmp_path / "rec.jsonl", 20), str(disk / "store"), 20))
    with (
        Job(tmp_path, recipe_file, f"sampling.flush_s={FLUSH_S}") as job,
        Ledger(job.log, on_disk(disk / "store"), FLUSH_S) as ledger,
    ):
        job.start()
        job.until(lambda: bool(ledger.durable), "a chain was durable")
        time.sleep(rng.uniform(0, 3))
        hit = ledger.hit("full disk", time.monotonic())
        ballast = fill(disk)
        time.sleep(rng.uniform(4, 8))
        waiting = {line.key for line in job.lines(hit.at_s) if line.event == "finished"} - ledger.durable.keys()
        assert waiting, "no chain finished while the disk was full, so that this shows nothing"
        if ends:
            job.kill()
            job.has_ended()
        ballast.unlink()
        if ends:
            job.start()
        assert job.wait() == 0, job.output[-3000:]
        print(f"seed {seed}: {len(waiting)} chains waited for room; {ledger.check(recipe_file)}")
