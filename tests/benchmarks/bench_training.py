"""Training a student of 20 million parameters on two cores, against TRL's SFTTrainer: seconds, memory, time to a loss.

    python tests/benchmarks/bench_training.py [--rounds N] [--quick]

Chains of a prompt × tokens of a prompt by those of a chain; a step of each cell has about as many tokens. Every side is
a process of its own (`training_sides.py`, which says how TRL is set) and takes the same examples in the same steps:
losses of a step must agree. Sides take turns step by step, in the opposite order in every other round, so that a busy
machine slows all of them; a ratio is the median over rounds. Start-up and the first step are not timed.

Useful tokens are those of all examples, each with its prompt, as plain training computes them: sides take the same, so
their tokens per second compare as their seconds do. A bound is what sharing prompts would gain if all tokens cost the
same. Memory is the most that a process used, above what it had when the student was loaded.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import table
from training_sides import STUDENTS, Job, Step

from retort.training.examples import TokenizedExample

HERE = Path(__file__).parent
CHAIN_TOKENS = 64
COUNTS = (1, 4, 8, 30)
RATIOS = (0.25, 1, 4)
SHARED_BAR, PLAIN_BAR = 1.5, 1.0
"""With 8 chains as long as their prompt; wherever nothing is shared."""
APART = 1e-3
"""How far the losses of a step may be apart, by their size."""
TARGET_LOSS = 1.0
"""Nats per token, of texts that follow a rule nine times out of ten: 0.74 is the least there is."""

Steps = dict[str, list[Step]]
"""What each side took, the first step left out."""


class Cell(NamedTuple):
    """What sides are compared on."""

    num_chains: int
    ratio: float

    def __str__(self) -> str:
        return f"{self.num_chains} chain{'s' * (self.num_chains > 1)}, prompt:chain {self.ratio:g}"

    @property
    def sides(self) -> tuple[str, ...]:
        """A single chain shares its prompt with nobody; eight tell what sharing gains over plain packing."""
        return ("ours", "trl", "plain") if self.num_chains == 8 else ("ours", "trl")

    def job(self, steps: int, tokens: int, student: str) -> Job:
        """A training whose steps have about so many tokens."""
        prompt_tokens = round(self.ratio * CHAIN_TOKENS)
        num_groups = max(1, round(tokens / (self.num_chains * (prompt_tokens + CHAIN_TOKENS))))
        return Job(self.num_chains, prompt_tokens, CHAIN_TOKENS, num_groups, steps, student)


class Side:
    """A side in its process, which takes its first step by itself and each other one when it is told to."""

    def __init__(self, name: str, job: Job, folder: Path) -> None:
        self.name, self._log = name, folder / f"{name}.log"
        command = [sys.executable, str(HERE / "training_sides.py"), name, json.dumps(asdict(job))]
        # Threads that spin while they wait for each other make all of them ten times slower on a busy machine.
        env = {"OMP_WAIT_POLICY": "passive", **os.environ}
        pipe = subprocess.PIPE
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True, env=env)
        self.steps: list[Step] = []

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def go(self) -> None:
        """Let it take a step."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.hear()

    def hear(self) -> None:
        """Wait for what it says of a step. Raises RuntimeError where it failed."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise RuntimeError(f"{self.name} failed:\n{self._log.read_text()[-6000:]}")
        self.steps.append(Step(**json.loads(line)))


def race(names: Sequence[str], job: Job) -> Steps:
    """All sides at once, in turns.

    Raises:
        ValueError: sides do not compute the same.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        sides = [stack.enter_context(Side(name, job, Path(folder))) for name in names]
        for side in sides:
            side.hear()
        for number in range(1, job.steps):
            for side in sides[:: -1 if number % 2 else 1]:
                side.go()
    return agreeing({side.name: side.steps for side in sides}, APART)


def agreeing(steps: Steps, apart: float) -> Steps:
    """The steps without the first. Raises ValueError where their losses are further apart, by their size."""
    for number, taken in enumerate(zip(*steps.values(), strict=True), start=1):
        losses = dict(zip(steps, (step.loss for step in taken), strict=True))
        first, *others = losses.values()
        if not all(abs(loss - first) <= apart * first for loss in others):
            raise ValueError(f"losses of step {number} are {losses}; expected all sides to compute the same")
    return {name: taken[1:] for name, taken in steps.items()}


def bound(drawn: Sequence[Sequence[TokenizedExample]]) -> float:
    """The most that sharing prompts could speed steps up, if all tokens cost the same.

    Of n chains of C tokens behind a prompt of P, (n − 1) · P of n · (P + C) tokens are spared: a share s; 1 / (1 − s).
    """
    computed = sum(
        sum(len(example.target_ids) for example in step) + sum(map(len, {example.prompt_ids for example in step}))
        for step in drawn
    )
    return sum(len(example) for step in drawn for example in step) / computed


def compared(what: str, job: Job, steps: Steps, bars: dict[str, float]) -> list[table.Result]:
    """TRL's seconds and memory by ours, for each of our sides."""
    drawn, found = job.drawn(), list[table.Result]()
    tokens = [sum(map(len, step)) for step in drawn[1:]]
    for side in (name for name in steps if name != "trl"):
        most = bound(drawn) if side == "ours" else 1.0
        name = f"{what}, " + (f"bound {most:.2f}" if most > 1 else "nothing shared")
        theirs, ours = steps["trl"], steps[side]
        seconds = [[step.seconds for step in taken] for taken in (theirs, ours)]
        timed = table.of_pairs(f"training: TRL / ours, {name}", bars.get(side), *seconds, bound=most)
        for run, their, our, count in zip(timed.runs, theirs, ours, tokens, strict=True):
            run |= {"tokens": count, "theirs": their._asdict(), "ours": our._asdict()}
            run |= {f"{who}_tokens_per_s": count / run[f"{who}_s"] for who in ("theirs", "ours")}
        cpu = statistics.median(their.cpu_seconds / our.cpu_seconds for their, our in zip(theirs, ours, strict=True))
        print(f"{timed.row()}   by CPU seconds {cpu:.2f}", flush=True)
        found += [timed, memory(f"training memory: TRL / ours, {name}", theirs[-1], ours[-1])]
    return found


def memory(name: str, their: Step, our: Step) -> table.Result:
    """The figure of peak memory, read off the last steps."""
    ratio = their.memory_bytes / our.memory_bytes
    runs: list[dict[str, Any]] = [{"theirs_bytes": their.memory_bytes, "ours_bytes": our.memory_bytes}]
    return table.Result(name, ratio, 1.0, None, (ratio, ratio), runs)


def to_a_loss(steps: Steps) -> table.Result:
    """Seconds until a step's loss was low enough, TRL's by ours. Raises ValueError where it never was."""
    took, cpu = dict[str, float](), dict[str, float]()
    for side, taken in steps.items():
        reached = next((number for number, step in enumerate(taken, start=1) if step.loss <= TARGET_LOSS), None)
        if reached is None:
            raise ValueError(
                f"{side} ended at a loss of {taken[-1].loss:.2f}; expected {TARGET_LOSS}: train for longer"
            )
        took[side] = sum(step.seconds for step in taken[:reached])
        cpu[side] = sum(step.cpu_seconds for step in taken[:reached])
    curves = {side: [step.loss for step in taken] for side, taken in steps.items()}
    name = f"training: seconds to a loss of {TARGET_LOSS:g}, TRL / ours, {Cell(8, 1)}"
    return table.of_pairs(name, None, [took["trl"]], [took["ours"]], losses=curves, cpu_s=cpu)


def main() -> None:
    """Measure and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="steps of each cell that are timed")
    parser.add_argument("--quick", action="store_true", help="1 and 8 chains as long as their prompt, in smaller steps")
    parser.add_argument("--tokens", type=int, help="of a step; 9600, which 30 chains of the longest prompt have")
    parser.add_argument("--learning-steps", type=int, default=40, help="in which the loss is to come down; 0: none")
    parser.add_argument("--student", choices=STUDENTS, default="20M")
    parser.add_argument("--out", type=Path, default=table.FOLDER)
    arguments = parser.parse_args()
    counts, ratios, tokens = ((1, 8), (1,), 4096) if arguments.quick else (COUNTS, RATIOS, 9600)
    results: list[table.Result] = []
    for cell in (Cell(count, ratio) for count in counts for ratio in ratios):
        job = cell.job(arguments.rounds + 1, arguments.tokens or tokens, arguments.student)
        bars = {"plain": PLAIN_BAR} | {Cell(8, 1): {"ours": SHARED_BAR}}.get(cell, {})
        bars |= {"ours": PLAIN_BAR} if cell.num_chains == 1 else {}
        results += compared(str(cell), job, race(cell.sides, job), bars)
    if arguments.learning_steps:
        job = Cell(8, 1).job(arguments.learning_steps, 2048, arguments.student)
        results.append(to_a_loss(race(("ours", "trl"), replace(job, is_learnable=True, learning_rate=1e-3))))
    table.write("training", results, arguments.out)


if __name__ == "__main__":
    main()
