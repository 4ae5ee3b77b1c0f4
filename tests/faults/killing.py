"""SIGKILL of one of a job's processes at a seeded random moment."""

import random
import time
from collections.abc import Sequence

from faults.job import ACTOR, ENGINE, RAYLET, Job
from faults.ledger import Ledger

TITLES = {"actor": ACTOR, "engine": ENGINE, "raylet": RAYLET}
ENDS_THE_JOB = ("driver", "raylet")
DELAY_S = 1.0


def kill(job: Job, ledger: Ledger, kind: str) -> None:
    """Kill the driver or the process of another kind: the youngest, as one of an earlier run may not have ended yet."""
    actors = [] if kind == "engine" else [actor.pid for actor in job.find(ACTOR)]
    if kind == "driver":
        job.kill()
    else:
        job.find(TITLES[kind])[0].kill()
    ledger.hit(kind, time.monotonic(), actors)


def wait_for_moment(job: Job, ledger: Ledger, rng: random.Random, since_s: float, most: int) -> None:
    """Wait for up to `most` chains of actors that are still there, some being open, and up to a second more."""
    gone = ledger.hits[-1].gone if ledger.hits else frozenset[int]()
    wanted = rng.randint(1, max(1, most))
    job.until(
        lambda: sum(line.event == "finished" and line.pid not in gone for line in job.lines(since_s)) >= wanted,
        f"{wanted} chains had finished",
    )
    time.sleep(rng.uniform(0, DELAY_S))


def kill_again_and_again(job: Job, ledger: Ledger, rng: random.Random, kinds: Sequence[str], num_wanted: int) -> None:
    """Kill a job's processes, one after another; where the job is then dead, run the same command again at once."""
    since_s = job.start()
    for number, kind in enumerate(kinds):
        left = num_wanted - len(ledger.durable)
        wait_for_moment(job, ledger, rng, since_s, left // (len(kinds) - number + 1))
        kill(job, ledger, kind)
        since_s = ledger.hits[-1].at_s
        if kind in ENDS_THE_JOB:
            status = job.wait(timeout_s=120)
            assert status != 0, f"the job ended well without its {kind}:\n{job.output[-2000:]}"
            job.end_agents()
            since_s = job.start()
    assert job.wait() == 0, job.output[-3000:]
    job.has_ended()
