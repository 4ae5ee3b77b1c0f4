"""Programs per second, one after the other: a subprocess each, the sandbox, and `program.run`.

    RETORT_DATA=… python tests/benchmarks/bench_programs.py

On recorded SVAMP programs of a large model where RETORT_DATA names the folder of corpora, else on made-up arithmetic of
the same shape. All three see the same programs; the rounds alternate, so that a busy machine slows all of them.
"""

import gzip
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from retort.solvers import program
from retort.solvers.expressions import RefusedError, tree
from retort.solvers.zygote import Sandbox

RECORDED = "data/chains/program_of_thoughts/svamp_sc_*.jsonl.gz"
ROUNDS = 7
NUM_SUBPROCESSES, NUM_SANDBOXED, NUM_RUN = 30, 500, 3_000  # programs of a round


def recorded(folder: Path) -> list[str]:
    """Every sampled program of the recording, repeats included: they are what verification meets."""
    (file,) = folder.glob(RECORDED)
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [text for row in rows if isinstance(row, dict) for text in row.get("generated", [])]


def made_up(seed: int = 0) -> list[str]:
    """Straight lines of arithmetic, for where there is no recording."""
    draw = random.Random(seed)
    return [
        f"apples = {draw.randint(2, 99)}\npears = {draw.randint(2, 99)}\neach = {draw.randint(2, 9)}\n"
        f"fruits = apples {draw.choice('+-')} pears\nans = fruits {draw.choice('*/')} each"
        for _ in range(30_000)
    ]


def in_subprocess(text: str) -> None:
    """One interpreter for one program: what there is without a sandbox, and without its protection."""
    command = [sys.executable, "-I", "-c", f"{text}\nprint(ans)"]
    subprocess.run(command, capture_output=True, timeout=5, check=False)


def needs_no_sandbox(text: str) -> bool:
    """Whether the fast path covers a program."""
    try:
        program.walk(tree(program.source(text), program.MAX_TEXT).body)
    except RefusedError:
        return False
    return True


def rate(run: Callable[[str], object], texts: Sequence[str]) -> float:
    """Programs per second."""
    began = time.perf_counter()
    for text in texts:
        run(text)
    return len(texts) / (time.perf_counter() - began)


def main() -> None:
    """Measure and print."""
    folder = os.environ.get("RETORT_DATA")
    texts = recorded(Path(folder)) if folder else made_up()
    random.Random(0).shuffle(texts)
    texts = texts[:NUM_RUN]
    rates: dict[str, list[float]] = {"subprocess": [], "Sandbox.run": [], "program.run": []}
    with Sandbox() as sandbox:
        sandbox.run("")  # starts it
        for _ in range(ROUNDS):
            rates["subprocess"].append(rate(in_subprocess, texts[:NUM_SUBPROCESSES]))
            rates["Sandbox.run"].append(rate(sandbox.run, texts[:NUM_SANDBOXED]))
            rates["program.run"].append(rate(lambda text: program.run(text, sandbox), texts))
        layers = ", ".join(sandbox.layers)
    print(f"{len(texts)} {'recorded' if folder else 'made-up'} programs, {ROUNDS} rounds, layers {layers}")
    print(f"{sum(map(needs_no_sandbox, texts)) / len(texts):.1%} of them are walked without the sandbox")
    print(f"{'':12} {'median/s':>9} {'min':>7} {'max':>7} {'x subprocess':>13}")
    for name, measured in rates.items():
        ratio = statistics.median(own / base for own, base in zip(measured, rates["subprocess"], strict=True))
        print(f"{name:12} {statistics.median(measured):9.0f} {min(measured):7.0f} {max(measured):7.0f} {ratio:13.1f}")


if __name__ == "__main__":
    main()
