"""Sampling against a bare engine loop, `ray.data.llm` and `LLM.generate`, on lengths that are fixed or heavy-tailed.

    python tests/benchmarks/bench_sampling.py [--rounds N] [--chains N] [--against SIDE …]

Every run is a process of its own (`sides.py`). What is measured lies between the first request to a loaded engine and
the last durable chain, and is read off the files that a side leaves. Sides take turns within a round, in the opposite
order in every other one, so that a busy machine slows all of them; a ratio is the median over rounds.

On two cores the model and vLLM's own loop, which spins, leave no core free: what Ray and we compute is taken from the
model. So the overhead is measured a second time with the model's process on a core of its own, as a device would be,
and all others on those that remain.
"""

import argparse
import contextlib
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psutil
import table
from sides import GENERATE_BATCH, SIDES, requests_of
from workload import MAX_NEW_TOKENS, Lengths, Workload, durable_s, ending, llama, mark_of

HERE = Path(__file__).parent
NAMES = {
    "bare": "bare AsyncLLM loop",
    "ray_data_llm": "ray.data.llm",
    "generate": f"LLM.generate, {GENERATE_BATCH} a batch",
}
BARS = {"bare": 0.97, "ray_data_llm": 1.15, "generate": 1.3}
SHARES = (0.5, 0.9, 0.99)


class Case(NamedTuple):
    """What sides are compared on."""

    lengths: Lengths
    is_apart: bool = False
    """Whether the model has a core of its own."""

    def __str__(self) -> str:
        return f"{self.lengths} lengths" + (", model on its own core" if self.is_apart else "")


CASES = {Case("fixed"): ["bare"], Case("fixed", is_apart=True): ["bare"], Case("heavy"): list(NAMES)}
"""Lengths that are fixed have no long chain for a batch to wait for."""

Runs = dict[tuple[Case, str], list[list[float]]]
"""For each side, and each of its runs, the seconds after which its chains were durable."""


def run(side: str, case: Case, work: Workload, model: Path, folder: Path) -> list[float]:
    """One run of one side. Raises RuntimeError where it fails, ValueError where it did not do all the work."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    asked = [side, str(folder), str(model), work.lengths, str(work.num_chains), str(work.seed)]
    log = folder / "log"
    with log.open("wb") as output:
        started = subprocess.Popen([sys.executable, str(HERE / "sides.py"), *asked], stdout=output, stderr=output)
    while case.is_apart and started.poll() is None and not mark_of(folder).exists():
        time.sleep(0.05)
    if case.is_apart:
        set_apart(started.pid)
    if started.wait():
        raise RuntimeError(f"{side} failed:\n{log.read_text()[-6000:]}")
    requests = requests_of(work, folder)
    seconds = durable_s(folder, work, requests)
    tokens = sum(ending(request, work.lengths)[0] for request in requests)
    print(f"{case!s:36} {side:13} {seconds[-1]:7.2f} s {tokens / seconds[-1]:7.0f} tokens/s", flush=True)
    shutil.rmtree(folder)
    return seconds


def set_apart(pid: int) -> None:
    """Give the process of a side that holds the model one core, and all others that belong to the side the rest."""
    first, *others = sorted(os.sched_getaffinity(0))
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            cores = {first} if "VLLM::Worker" in " ".join(process.cmdline()) else set(others)
            for thread in process.threads():
                os.sched_setaffinity(thread.id, cores)


def at(seconds: Sequence[float], share: float) -> float:
    """When such a share of the chains was durable."""
    return seconds[math.ceil(share * len(seconds)) - 1]


def measure(rounds: int, num_chains: int, against: Sequence[str], model: Path) -> Runs:
    """All runs."""
    runs: Runs = {}
    with tempfile.TemporaryDirectory(dir=table.FOLDER) as folder:
        for number in range(rounds):
            for case, sides in CASES.items():
                others = [side for side in sides if side in against]
                turns = [*others, "ours"] if others else []
                for side in turns[:: -1 if number % 2 else 1]:
                    work = Workload(case.lengths, num_chains, number)
                    runs.setdefault((case, side), []).append(run(side, case, work, model, Path(folder, side)))
    return runs


def results(runs: Runs, num_chains: int) -> list[table.Result]:
    """Figures of all runs."""
    found: list[table.Result] = []
    for (case, side), theirs in runs.items():
        if side == "ours":
            continue
        ours = runs[case, "ours"]
        kind = "overhead" if side == "bare" else "barrier"
        name = f"{kind}: {NAMES[side]} / ours, {case}"
        facts = {"chains": num_chains, "max_new_tokens": MAX_NEW_TOKENS[case.lengths]}
        ends = [[seconds[-1] for seconds in of_side] for of_side in (theirs, ours)]
        found.append(table.of_pairs(name, BARS[side], *ends, **facts))
        if side != "bare":
            for share in SHARES:
                times = [[at(seconds, share) for seconds in of_side] for of_side in (theirs, ours)]
                found.append(table.of_pairs(f"{name}, {share:.0%} durable", None, *times, **facts))
    return found


def main() -> None:
    """Measure and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chains", type=int, default=2048)
    parser.add_argument("--against", nargs="+", choices=[side for side in SIDES if side != "ours"], default=list(NAMES))
    parser.add_argument("--hidden-size", type=int, default=512, help="512: 20 million parameters")
    parser.add_argument("--out", type=Path, default=table.FOLDER)
    arguments = parser.parse_args()
    model = llama(arguments.hidden_size)
    runs = measure(arguments.rounds, arguments.chains, arguments.against, model)
    table.write("sampling", results(runs, arguments.chains), arguments.out)


if __name__ == "__main__":
    main()
