"""Training students of 0.5 to 1.5 billion parameters on one GPU, without Ray: MFU, and time and memory against TRL.

    python tests/benchmarks/gpu_training.py [--students 0.5B 1B 1.5B] [--tiny-on-cpu]

Prompts with 8 chains each, as long as they are, in rows of 8192 tokens, bfloat16 over float32 weights and AdamW. The
sides are those of `training_sides.py`, one after the other, each alone on the GPU: FlexAttention over rows that share
prompts, over plainly packed rows, and TRL's SFTTrainer, with FlashAttention 2 and Liger's kernels where they are
installed; with SDPA otherwise, over shorter rows, since its mask costs the square of a row. MFU is that of
`training.speed`, of the tokens that are computed.

Without a GPU every figure is 'not measured'; `--tiny-on-cpu` runs the file on a tiny student instead, to see that it
runs: its figures say nothing. `bench_*.py` is what `make bench` runs; this file is not among them.
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import table
import torch
from bench_training import PLAIN_BAR, SHARED_BAR, Side, Steps, agreeing, compared
from training_sides import STUDENTS, Job

APART = 1e-2
"""How far the losses of a step may be apart, by their size: bfloat16 rounds to 1 in 256."""
MFU_BARS = {"1B": 0.45}
HAS_FLASH = find_spec("flash_attn") is not None
PARTS = {"ours": "prompts shared", "plain": "nothing shared"}


def alone(names: Sequence[str], job: Job) -> Steps:
    """The steps of each side but its first, one side after the other."""
    steps: Steps = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder, Side(name, job, Path(folder)) as side:
            side.hear()
            for _ in range(1, job.steps):
                side.go()
            steps[name] = side.steps
    return agreeing(steps, APART)


def figures(job: Job, steps: Steps) -> list[table.Result]:
    """MFU of our sides, what sharing gains, and TRL by both."""
    what = f"{job.student} on {job.device}"
    found: list[table.Result] = []
    for side in PARTS:
        shares = [step.mfu for step in steps[side] if step.mfu is not None]
        found.append(utilisation(mfu_name(what, side), shares, MFU_BARS.get(job.student)))
    seconds = [[step.seconds for step in steps[side]] for side in ("plain", "ours")]
    found.append(table.of_pairs(sharing_name(what), None, *seconds))
    if "trl" in steps:
        found += compared(what, job, steps, {"ours": SHARED_BAR, "plain": PLAIN_BAR})
    return found


def utilisation(name: str, found: Sequence[float], bar: float | None) -> table.Result:
    """The figure of MFU, a share of 1 and no ratio."""
    runs = [{"mfu": mfu} for mfu in found]
    return table.Result(name, statistics.median(found), bar, None, (min(found), max(found)), runs)


def mfu_name(what: str, side: str) -> str:
    """What a figure of MFU is called."""
    return f"MFU: {what}, {PARTS[side]}"


def sharing_name(what: str) -> str:
    """What the figure of sharing alone is called."""
    return f"training: plain packing / shared prompts, {what}"


def not_measured(students: Sequence[str]) -> None:
    """A row for each figure that there would be."""
    for what in (f"{student} on cuda" for student in students):
        trl = [f"training{kind}: TRL / ours, {what}" for kind in ("", " memory")]
        for name in (*(mfu_name(what, side) for side in PARTS), sharing_name(what), *trl):
            print(f"{name:<72} not measured: no GPU")


def main() -> None:
    """Measure and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", nargs="+", choices=STUDENTS, default=["0.5B", "1B", "1.5B"])
    parser.add_argument("--rounds", type=int, default=8, help="steps that are timed")
    parser.add_argument("--row-tokens", type=int, default=8192)
    parser.add_argument("--trl-row-tokens", type=int, default=8192 if HAS_FLASH else 2048)
    parser.add_argument("--tokens", type=int, default=65536, help="of a step")
    parser.add_argument("--chain-tokens", type=int, default=256, help="and of a prompt")
    parser.add_argument("--activation-checkpointing", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--trl-attention", default="flash_attention_2" if HAS_FLASH else "sdpa")
    parser.add_argument("--tiny-on-cpu", action="store_true", help="see that this file runs")
    parser.add_argument("--out", type=Path, default=table.FOLDER)
    arguments = parser.parse_args()
    if not torch.cuda.is_available() and not arguments.tiny_on_cpu:
        not_measured(arguments.students)
        return
    length = arguments.chain_tokens
    job = Job(
        num_chains=8,
        prompt_tokens=length,
        chain_tokens=length,
        num_groups=max(1, arguments.tokens // (8 * 2 * length)),
        steps=arguments.rounds + 1,
        row_tokens=arguments.row_tokens,
        trl_row_tokens=arguments.trl_row_tokens,
        device="cuda",
        dtype="bfloat16",
        activation_checkpointing=arguments.activation_checkpointing,
        compile=arguments.compile,
        trl_attention=arguments.trl_attention,
    )
    if arguments.tiny_on_cpu:
        small = {"num_groups": 2, "row_tokens": 512, "trl_row_tokens": 512}
        job = replace(job, device="cpu", prompt_tokens=32, chain_tokens=32, **small)
    names = [*PARTS, *(["trl"] if find_spec("trl") else [])]
    results: list[table.Result] = []
    for student in ["tiny"] if arguments.tiny_on_cpu else arguments.students:
        sized = replace(job, student=student)
        results += figures(sized, alone(names, sized))
    table.write("gpu_training", results, arguments.out)


if __name__ == "__main__":
    main()
