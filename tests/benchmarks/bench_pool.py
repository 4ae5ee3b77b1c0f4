"""The pool at 10⁶ and 10⁷ keys: listing, the anti-join of a plan with it (before and after compaction), compaction.

    python tests/benchmarks/bench_pool.py [--keys 1000000 10000000] [--runs 3] [--folder /large/disk]

Keys are synthetic: 30 chains a prompt, short texts, segments of 120 chains of which one in twenty was never written. A
ratio is the CPU time per key at the first size over that at the last: 1 where the time grows as the keys do. Each
measure runs in a process of its own; its memory is the most that it held beyond what it held idle.
"""

import argparse
import itertools
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import table

from retort import prompts
from retort.records import Chain, Problem, schema
from retort.store import open_store
from retort.store.artifacts import parquet_bytes
from retort.store.compaction import compact
from retort.store.plan import Plan, PlannedPrompt
from retort.store.pool import PARTITIONS, Pool, partition_of
from retort.store.reading import segment_name

CHAINS, PROMPTS_OF_SEGMENT, WRITTEN_OF_TWENTY = 30, 4, 19
BAR = 0.8
"""Linear, but for caches that the larger size does not fit into."""
MEASURES = ("listing", "survey of small segments", "compaction", "survey of merged segments")


def prompt_of(number: int) -> str:
    return prompts.canonical(f"Question: what is {number} times {number + 1}?\nAnswer:")


def pool_at(root: str) -> Pool:
    return Pool(open_store(root), {"model": {"model": "synthetic"}, "distribution": {"temperature": 1.0}})


def plan_of(pool: Pool, keys: int) -> Plan:
    """A plan that wants every key."""
    planned: list[PlannedPrompt] = []
    for number in range(keys // CHAINS):
        question = f"What is {number} times {number + 1}?"
        problem = Problem(f"bench/train/{number:06d}", "bench", "train", question, "number", str(number * (number + 1)))
        prompt = prompt_of(number)
        planned.append(PlannedPrompt(problem, "cot", prompt, prompts.prompt_hash(prompt), CHAINS))
    return Plan(pool, tuple(planned), 96)


def chains_of(numbers: Sequence[int]) -> pa.Table:
    """Every chain of some prompts, made without a Python object for each field."""
    count = len(numbers) * CHAINS
    place = np.repeat(np.arange(len(numbers)), CHAINS)
    index = np.tile(np.arange(CHAINS), len(numbers))
    texts = [
        f"{numbers[at]} times {numbers[at] + 1}: try {chain}. The answer is {chain * 7}."
        for at, chain in zip(place.tolist(), index.tolist(), strict=True)
    ]
    asked = [prompt_of(number) for number in numbers]
    columns: dict[str, Any] = {
        "prompt_hash": pa.array([prompts.prompt_hash(prompt) for prompt in asked]).take(place),
        "index": index,
        "prompt": pa.array(asked).take(place),
        "text": texts,
        "finish_reason": pa.repeat("stop", count),
        "num_prompt_tokens": np.full(count, 14),
        "num_tokens": 20 + index % 7,
        "max_new_tokens": np.full(count, 96),
        "seed": index + 1000 * place,
        "problem_id": pa.array([f"bench/train/{number:06d}" for number in numbers]).take(place),
        "thought": pa.repeat("cot", count),
        "finished_at_s": 1.7e9 + index / 7,
        "logprob": -1.0 - index / 3,
        "source": pa.repeat("", count),
    }
    empty = pa.array([[]] * count)
    return pa.table(
        [pa.array(columns[field.name]) if field.name in columns else empty.cast(field.type) for field in schema(Chain)],
        schema=schema(Chain),
    )


def write_partitions(root: str, numbers: dict[str, list[int]]) -> int:
    """Write the segments of some partitions as plain files; how many."""
    pool, written = pool_at(root), 0
    for partition, members in numbers.items():
        folder = Path(root, pool.folder(partition))
        folder.mkdir(parents=True, exist_ok=True)
        for count, first in enumerate(range(0, len(members), PROMPTS_OF_SEGMENT)):
            if count % 20 < WRITTEN_OF_TWENTY:
                data = parquet_bytes(chains_of(members[first : first + PROMPTS_OF_SEGMENT]))
                (folder / segment_name(f"{count:020x}", data)).write_bytes(data)
                written += 1
    return written


def make(root: Path, keys: int) -> None:
    """A pool as sampling leaves it."""
    members: dict[str, list[int]] = defaultdict(list)
    for number in range(keys // CHAINS):
        members[partition_of(prompts.prompt_hash(prompt_of(number)))].append(number)
    began = time.perf_counter()
    with ProcessPoolExecutor(2, get_context("spawn")) as workers:
        parts = [{name: members[name]} for name in PARTITIONS]
        written = sum(workers.map(write_partitions, [str(root)] * len(parts), parts))
    print(f"made {keys:,} keys in {written:,} segments, {time.perf_counter() - began:.0f} s", flush=True)


def memory_mib(field: str) -> float:
    """This process's resident memory now (`VmRSS`) or at its most since it was reset (`VmHWM`)."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def measured(run: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What a call gives, its seconds, and the memory that it took beyond what was there."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the most
    idle = memory_mib("VmRSS")
    began, cpu = time.perf_counter(), time.process_time()
    result = run()
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    return result, {"s": seconds, "cpu_s": cpu_s, "peak_mib": memory_mib("VmHWM") - idle}


def measure(name: str, root: str, keys: int) -> dict[str, float]:
    """One measure, in this process."""
    pool = pool_at(root)
    if name == "listing":
        found, figures = measured(lambda: sum(len(pool.segments(partition)) for partition in PARTITIONS))
        assert found > 0
        return figures | {"segments": found}
    if name == "compaction":
        done, figures = measured(lambda: compact(pool))
        assert done.num_rows > 0.9 * keys
        assert done.num_repeats == 0
        return figures | {"segments": done.num_written}
    plan, planning = measured(lambda: plan_of(pool, keys))
    (surveys, missing), figures = measured(lambda: survey(plan))
    assert 0.9 * keys < surveys < keys
    assert surveys + missing == plan.num_wanted
    return figures | {"plan_s": planning["s"], "plan_mib": planning["peak_mib"]}


def survey(plan: Plan) -> tuple[int, int]:
    """How many chains of a plan are durable and how many are missing."""
    durable = missing = 0
    for partition in plan.partitions:
        found = plan.survey(partition)
        durable += found.num_durable
        missing += sum(len(gap.indexes) for gap in found.gaps)
    return durable, missing


def in_process(name: str, root: Path, keys: int) -> dict[str, float]:
    """One measure in a process of its own."""
    command = [sys.executable, __file__, "--measure", name, "--keys", str(keys), "--folder", str(root)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)


def runs_of(folder: Path, keys: int, runs: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Every measure at one size, `runs` times."""
    made = folder / f"{keys}"
    make(made, keys)
    for _ in range(runs):
        # Compaction replaces files and changes none: hard links are a copy.
        copy = folder / f"{keys}-copy"
        shutil.copytree(made, copy, copy_function=lambda source, target: Path(target).hardlink_to(source))
        for name in MEASURES:
            yield name, {"keys": keys, **in_process(name, copy, keys)}
        shutil.rmtree(copy)
    shutil.rmtree(made)


def results(runs: Sequence[tuple[str, dict[str, float]]], sizes: Sequence[int]) -> Iterator[table.Result]:
    """A figure for each measure, with all its runs."""
    for name in MEASURES:
        own = [figures for measure_of, figures in runs if measure_of == name]
        few, many = ([run for run in own if run["keys"] == size] for size in (sizes[0], sizes[-1]))
        ratios = [one["cpu_s"] / sizes[0] / (other["cpu_s"] / sizes[-1]) for one, other in itertools.product(few, many)]
        seconds = statistics.median(run["s"] for run in many)
        label = f"{name}, {sizes[0]:,} : {sizes[-1]:,} keys"
        yield table.Result(label, statistics.median(ratios), BAR, seconds, (min(ratios), max(ratios)), own)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, nargs="+", default=[10**6, 10**7])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", help="where the pools are made, 3 GB at 10⁷ keys")
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.folder, options.keys[0])))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        runs = [run for keys in options.keys for run in runs_of(Path(folder), keys, options.runs)]
    table.write("pool", list(results(runs, options.keys)))
    print(
        f"\n{'':28} {'keys':>12} {'seconds':>9} {'CPU s':>9} {'peak MiB':>9} {'segments':>9} {'plan s':>9} {'MiB':>9}"
    )
    for name, run in runs:
        more = [f"{run[field]:9.0f}" if field in run else f"{'':9}" for field in ("segments", "plan_s", "plan_mib")]
        print(f"{name:28} {run['keys']:>12,} {run['s']:9.1f} {run['cpu_s']:9.1f} {run['peak_mib']:9.0f}", *more)


if __name__ == "__main__":
    main()
