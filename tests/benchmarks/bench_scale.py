"""A cluster's worth of sampling on one machine: 64 actors and a million chains, through all that is ours and Ray's.

    PYTHONPATH=tests python tests/benchmarks/bench_scale.py [--chains N] [--actors N] [--chains-per-s N]
    PYTHONPATH=tests python tests/benchmarks/bench_scale.py --chains 20000 --actors 8 --chains-per-s 400     # 2 minutes

The first takes half an hour on two cores, and 13 GB.

Only the model is made up: `sampling.sample` runs on a real Ray that is told of as many CPUs as the actors take, and
writes real segments to a local folder, behind a wrapper that counts what S3 would be asked. Lengths are heavy-tailed,
and a token takes as long as it must for all actors together to finish so many chains a second. Then the same again,
which finds everything. Afterwards all chains are read: each must be there once, with its length.

What CPUs do is measured, not how long a cluster of 64 machines would take: here all share the cores of one.
"""

import argparse
import logging
import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import made_up
import psutil
import table
from counting import CountingStore, Counts
from watching import Seen, Watch
from workload import DISTRIBUTION, MAX_NEW_TOKENS, Workload, ending

from retort.engines import ENGINES
from retort.sampling import Model, SamplingConfig, sample
from retort.store import open_store
from retort.store.plan import Plan, request_of
from retort.verification import VerificationConfig

MEAN_TOKENS = 26.0
WORDS_PER_TOKEN = 8
"""Of a made-up chain, so that it is as long as a chain of 200 real tokens."""
TAIL = 0.99
"""The rest of the chains is the tail."""


class Phases(logging.Handler):
    """When the driver had said what."""

    def __init__(self) -> None:
        super().__init__()
        self.said: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        for name, words in (("ordered", "chains wanted"), ("starting", ": starting")):
            if words in message:
                self.said[name] = record.created


class Session(NamedTuple):
    """One call of `sample` as it was measured; times of the clock."""

    began_s: float
    ended_s: float
    said: dict[str, float]
    requests: dict[int, Counts]
    seen: dict[str, Seen]
    object_store_mib: float
    total_mib: float


class Durable(NamedTuple):
    """When the chains that a pool holds became durable, and the segments, in order."""

    seconds: list[float]
    segments_s: list[float]


def session(model: Model, planned: Plan, store: CountingStore, phases: Phases) -> Session:
    """Sample, and watch."""
    before = store.counts()
    phases.said.clear()
    began = time.time()
    with Watch() as watch:
        sample(model, [(planned, DISTRIBUTION)], SamplingConfig(), "scale", VerificationConfig())
        ended = time.time()
    asked = {pid: counts - before.get(pid, Counter()) for pid, counts in store.counts().items()}
    return Session(began, ended, dict(phases.said), asked, watch.seen(), watch.object_store_mib, watch.total_mib)


def durable(planned: Plan) -> Durable:
    """What is in the pool. Raises ValueError where a chain is missing, comes twice, or has not its length."""
    pool, seconds, segments_s = planned.pool, list[float](), list[float]()
    for partition, prompts in planned.partitions.items():
        wanted = {
            (prompt.prompt_hash, index): ending(request_of(prompt, index, planned.max_new_tokens), "heavy")[0]
            for prompt in prompts
            for index in range(prompt.num_chains)
        }
        for segment, rows in pool.read(pool.segments(partition), ["prompt_hash", "index", "num_tokens"]):
            assert rows is not None
            segments_s.append(segment.modified_at_s)
            seconds += [segment.modified_at_s] * rows.num_rows
            for hash_, index, tokens in zip(*(column.to_pylist() for column in rows.columns), strict=True):
                if (expected := wanted.pop((hash_, index), None)) != tokens:
                    raise ValueError(f"{segment.key}: chain {index} has {tokens} tokens; expected {expected}")
        if wanted:
            raise ValueError(f"{pool.prefix}: partition {partition} lacks {len(wanted)} chains")
    return Durable(sorted(seconds), sorted(segments_s))


def idle_share(spans: Sequence[Sequence[tuple[float, float]]], began: float, ended: float) -> float:
    """Share of the engines' time between two moments in which they had no request open."""
    idle = 0.0
    for of_engine in spans:
        free_from = began
        for start, end in sorted(of_engine):
            idle += max(0.0, min(start, ended) - free_from)
            free_from = max(free_from, min(end, ended))
        idle += ended - free_from
    return idle / (len(spans) * (ended - began)) if ended > began else 0.0


def requests(counts: Counts, *kinds: str) -> int:
    """Requests about some kinds of objects, or all."""
    return sum(
        number
        for name, number in counts.items()
        if not name.startswith("B ") and (not kinds or name.split()[1] in kinds)
    )


def figures_of_sampling(
    done: Session, found: Durable, spans: list[list[tuple[float, float]]], token_s: float
) -> dict[str, float]:
    """What the first session came to."""
    total: Counts = sum(done.requests.values(), Counter())
    driver = done.requests[os.getpid()]
    millions = len(found.seconds) / 1e6
    wall, first, last = done.ended_s - done.began_s, found.seconds[0], found.seconds[-1]
    tail_began = found.seconds[math.ceil(TAIL * len(found.seconds)) - 1]
    started = min(start for of_engine in spans for start, _ in of_engine)
    longest = max(end - start for of_engine in spans for start, end in of_engine)
    return {
        "seconds": wall,
        "seconds until the plan is ordered": done.said["ordered"] - done.began_s,
        "seconds from there until actors are asked for": done.said["starting"] - done.said["ordered"],
        "seconds from there until an engine is asked": started - done.said["starting"],
        "seconds from there until a chain is durable": first - started,
        "seconds from the last durable chain to the end": done.ended_s - last,
        "chains/s, first request to last durable chain": len(found.seconds) / (last - started),
        "seconds of the tail, the last 1 % of the chains": last - tail_began,
        "seconds of the longest chain": longest,
        "seconds of the longest chain, as asked": MAX_NEW_TOKENS["heavy"] * token_s,
        "share of the engines idle in the tail": idle_share(spans, tail_began, last),
        "share of the engines idle before, starts included": idle_share(spans, started, tail_began),
        "driver's CPU s": done.seen["driver"].cpu_s,
        "driver's share of a core": done.seen["driver"].cpu_s / wall,
        "driver's MiB at most": done.seen["driver"].mib,
        "object store's MiB at most": done.object_store_mib,
        "all processes' MiB at most": done.total_mib,
        "segments per million chains": len(found.segments_s) / millions,
        "segments a second, of the busiest 10 s": max(Counter(it // 10 for it in found.segments_s).values()) / 10,
        "requests per million chains": requests(total) / millions,
        **{f"{name} per million chains": number / millions for name, number in sorted(total.items()) if number},
        "of these signs of life and progress": requests(total, "sessions") / millions,
        "of these the driver's": requests(driver, "sessions") / millions,
        "MB moved per million chains": (total["B sent"] + total["B received"]) / 1e6 / millions,
    }


def figures_of_finding(done: Session, num_chains: int) -> dict[str, float]:
    """What the second session came to."""
    total: Counts = sum(done.requests.values(), Counter())
    return {
        "again, all found: seconds": done.ended_s - done.began_s,
        "again, all found: driver's CPU s": done.seen["driver"].cpu_s,
        "again, all found: driver's MiB at most": done.seen["driver"].mib,
        "again, all found: requests per million chains": requests(total) / (num_chains / 1e6),
    }


def measure(num_chains: int, actors: int, chains_per_s: float, folder: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """All figures, and what each role of processes took while it sampled."""
    import ray

    from retort.pipeline import quieten_data

    store = CountingStore(open_store(str(folder / "store")), str(folder / "counters"))
    Path(store.folder).mkdir()
    config = made_up.Config(spans=str(folder / "spans"), actors=actors, words_per_token=WORDS_PER_TOKEN)
    token_s = actors * config.capacity / chains_per_s / MEAN_TOKENS
    model = Model("made_up", (config.model_copy(update={"token_s": token_s}),))
    logging.getLogger("retort").addHandler(phases := Phases())
    began, idle = time.perf_counter(), psutil.Process().memory_info().rss
    planned = Workload("heavy", num_chains, 0).plan(model.pool(store, DISTRIBUTION))
    of_plan = {"seconds to plan": time.perf_counter() - began}
    of_plan["MiB of the plan"] = (psutil.Process().memory_info().rss - idle) / 2**20
    ray.init("local", num_cpus=actors + 1, logging_level=logging.WARNING)
    quieten_data()
    try:
        first = session(model, planned, store, phases)
        again = session(model, planned, store, phases)
    finally:
        ray.shutdown()
    spans = made_up.spans_of(folder / "spans")
    assert len(spans) <= actors
    of_sampling = figures_of_sampling(first, durable(planned), spans, token_s)
    roles = {role: seen._asdict() for role, seen in sorted(first.seen.items())}
    return {**of_plan, **of_sampling, **figures_of_finding(again, num_chains)}, roles


def main() -> None:
    """Measure and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chains", type=int, default=1_000_000)
    parser.add_argument("--actors", type=int, default=64)
    parser.add_argument("--chains-per-s", type=float, default=1000.0)
    parser.add_argument("--out", type=Path, default=table.FOLDER)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    ENGINES["made_up"] = SimpleNamespace(Config=made_up.Config, Engine=made_up.Engine, SEEDING="exact")  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        figures, roles = measure(options.chains, options.actors, options.chains_per_s, Path(folder))
    run = {"chains": options.chains, "actors": options.actors, "chains_per_s": options.chains_per_s, "roles": roles}
    table.write(
        "scale",
        [table.Result(f"scale: {name}", it, None, None, (it, it), [run]) for name, it in figures.items()],
        options.out,
    )
    print(f"\n{'while sampling':24} {'processes':>9} {'CPU s':>9} {'MiB each':>9}")
    for role, seen in roles.items():
        print(f"{role:24} {seen['processes']:>9} {seen['cpu_s']:>9.1f} {seen['mib']:>9.0f}")


if __name__ == "__main__":
    main()
