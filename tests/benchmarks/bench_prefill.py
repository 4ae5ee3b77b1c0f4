"""What n chains of a prompt save by sharing its prefill: prompt tokens computed and seconds, with and without.

    python tests/benchmarks/bench_prefill.py [--rounds N] [--problems N]

The same requests to one engine, in turns: once they read vLLM's prefix cache, as all of ours do, once each computes its
whole prompt. Prompts are new in every round. vLLM shares whole blocks only, of 128 tokens on a CPU, and computes at
least a prompt's last token.
"""

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import table
from workload import DISTRIBUTION, llama

from retort.engines import vllm
from retort.records import Request
from retort.store.plan import seed

NUM_CHAINS = 8
CHAIN_TOKENS = 272
PROMPT_TOKENS = {0.5: 136, 2.0: 544, 8.0: 2176}
"""By the ratio of prompt to chain."""


class Took(NamedTuple):
    """What one pass over the prompts cost."""

    seconds: float
    prompt_tokens: int
    computed_tokens: int


async def ask(engine: vllm.Engine, prompts: Sequence[list[int]], is_shared: bool, chain_tokens: int) -> Took:
    """All chains of some prompts, one request a chain."""
    from vllm import TokensPrompt

    llm = engine._engine
    assert llm is not None

    async def one(number: int, index: int) -> tuple[int, int]:
        request = Request("", index, "", seed(f"{number:08x}", index), chain_tokens, "", "cot", "")
        params = engine._params(request, DISTRIBUTION)
        params.skip_reading_prefix_cache = not is_shared
        name = f"{is_shared}-{time.monotonic()}-{number}-{index}"
        generating = llm.generate(TokensPrompt(prompt_token_ids=prompts[number]), params, name)
        (output,) = [output async for output in generating]
        assert len(output.outputs[0].token_ids) == chain_tokens
        return len(prompts[number]), output.num_cached_tokens or 0

    began = time.perf_counter()
    counts = await asyncio.gather(
        *(one(number, index) for number in range(len(prompts)) for index in range(NUM_CHAINS))
    )
    seconds = time.perf_counter() - began
    total, cached = (sum(column) for column in zip(*counts, strict=True))
    return Took(seconds, total, total - cached)


async def measure(model: Path, rounds: int, num_problems: int, shorter: int) -> list[table.Result]:
    """Figures for each ratio."""
    engine = vllm.Engine(vllm.Config(model=str(model), dtype="bfloat16", cpu_kv_cache_gib=4))
    await engine.start()
    draw, found = random.Random(0), list[table.Result]()
    chain_tokens = CHAIN_TOKENS // shorter
    try:
        for ratio, prompt_tokens in PROMPT_TOKENS.items():
            runs: list[dict[str, Any]] = []
            for number in range(rounds):
                took: dict[bool, Took] = {}
                for is_shared in (True, False)[:: -1 if number % 2 else 1]:
                    prompts = [draw.choices(range(256), k=prompt_tokens // shorter) for _ in range(num_problems)]
                    took[is_shared] = await ask(engine, prompts, is_shared, chain_tokens)
                runs.append({"ratio": ratio, "shared": took[True]._asdict(), "alone": took[False]._asdict()})
            found += compared(ratio, runs)
    finally:
        engine.close()
    return found


def compared(ratio: float, runs: list[dict[str, Any]]) -> list[table.Result]:
    """How much more it costs without sharing: tokens, and seconds."""
    found: list[table.Result] = []
    for what in ("computed_tokens", "seconds"):
        ratios = [run["alone"][what] / run["shared"][what] for run in runs]
        name = f"prefill: {what.replace('_', ' ')}, alone / shared, prompt:chain {ratio:g}"
        seconds = statistics.median(run["shared"]["seconds"] for run in runs)
        found.append(table.Result(name, statistics.median(ratios), None, seconds, (min(ratios), max(ratios)), runs))
    return found


def main() -> None:
    """Measure and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--problems", type=int, default=8)
    parser.add_argument("--shorter", type=int, default=1, help="divide all lengths by it, to try it out")
    parser.add_argument("--hidden-size", type=int, default=512, help="512: 20 million parameters")
    parser.add_argument("--out", type=Path, default=table.FOLDER)
    arguments = parser.parse_args()
    model = llama(arguments.hidden_size)
    results = asyncio.run(measure(model, arguments.rounds, arguments.problems, arguments.shorter))
    table.write("prefill", results, arguments.out)


if __name__ == "__main__":
    main()
