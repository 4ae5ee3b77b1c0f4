"""How many of the recorded systems of equations are solved a second, on one core: median and spread of repeats.

    RETORT_DATA=… python tests/benchmarks/bench_equations.py [repeats]

What stays nonlinear goes to the sandbox; the first line leaves those few out, the second waits for them too.
"""

import gzip
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from retort.solvers import Outcome, equations
from retort.solvers.zygote import Sandbox


class NoSandbox(Sandbox):
    """Starts nothing: for the time that our own solver takes."""

    def solve(self, equations: Sequence[str], unknown: str) -> Outcome:
        """Nothing is solved."""
        del equations, unknown
        return Outcome(None, "asked")


def rate(texts: Sequence[str], sandbox: Sandbox, repeats: int) -> str:
    """Systems a second: the median of the repeats, the slowest and the fastest."""
    rates: list[float] = []
    for _ in range(repeats):
        began = time.process_time()
        wall = time.perf_counter()
        for text in texts:
            equations.solve(text, sandbox)
        # Another process's time is ours only where it works for us.
        spent = time.process_time() - began if isinstance(sandbox, NoSandbox) else time.perf_counter() - wall
        rates.append(len(texts) / spent)
    return f"{statistics.median(rates):,.0f} systems/s ({min(rates):,.0f} to {max(rates):,.0f})"


def main(repeats: int) -> None:
    """Print both rates, and the slowest systems of our own solver."""
    file = Path(os.environ["RETORT_DATA"]) / "data/chains/xot/gsm8k_test_eot.jsonl.gz"
    texts = [json.loads(line)["completion"] for line in gzip.decompress(file.read_bytes()).decode().splitlines()]
    alone = NoSandbox()
    outcomes = [equations.solve(text, alone) for text in texts]
    num_asked = sum(outcome.reason == "asked" for outcome in outcomes)
    print(f"{len(texts)} systems, {num_asked} of them not linear; {repeats} repeats")
    print("own solver, CPU time: ", rate(texts, alone, repeats))
    with Sandbox() as sandbox:
        equations.solve("x * x = 49\nans = x", sandbox)  # starts it
        print("with sandbox, wall time:", rate(texts, sandbox, repeats))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
