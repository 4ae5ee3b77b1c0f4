"""What growing a pool costs: tokens that had to be bought, divided by tokens that were, counted at the engine seam.

    python tests/benchmarks/bench_growth.py [--problems N]

More chains of each problem: exactly the new ones are sampled. A larger budget: only chains that were cut off are asked
again. The same again: nothing. What a re-run from nothing costs, as of tools that key their cache by all settings, is
given beside.
"""

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import made_up
import table
from made_up import Asked
from workload import DISTRIBUTION, ending, problems, requests_of

from retort.command import start_ray
from retort.engines import ENGINES
from retort.records import Request
from retort.sampling import Model, SamplingConfig, plan, sample
from retort.store import open_store
from retort.store.plan import Plan
from retort.verification import VerificationConfig

CHAINS, MORE_CHAINS = 4, 8
BUDGET, LARGER_BUDGET = 32, 256


def costs(wanted: Iterable[Request]) -> list[Asked]:
    """What each request costs."""
    return [(each.prompt_hash, each.index, ending(each, "heavy")[0]) for each in wanted]


def compared(name: str, needed: list[Asked], planned: Plan, bought: list[Asked]) -> table.Result:
    """What was needed against what was asked for. Raises ValueError where they are not the same chains."""
    if sorted(needed) != sorted(bought):
        raise ValueError(f"{name}: {len(bought)} chains were asked for; expected exactly {len(needed)} others")
    least, spent = (sum(tokens for _, _, tokens in chains) for chains in (needed, bought))
    anew = sum(tokens for _, _, tokens in costs(requests_of(planned)))
    run = {"chains": len(bought), "needed_tokens": least, "bought_tokens": spent, "tokens_from_nothing": anew}
    ratio = least / spent if spent else 1.0
    return table.Result(f"growth: {name}, needed / bought tokens", ratio, 1.0, None, (ratio, ratio), [run])


def main() -> None:
    """Grow a pool and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=128)
    parser.add_argument("--out", type=Path, default=table.FOLDER)
    arguments = parser.parse_args()
    ENGINES["made_up"] = SimpleNamespace(Config=made_up.Config, Engine=made_up.Engine, SEEDING="exact")  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        log, store = Path(folder, "seam.jsonl"), open_store(folder)
        model = Model("made_up", (made_up.Config(log=str(log)),))
        pool, asked = model.pool(store, DISTRIBUTION), problems(arguments.problems, 0)
        start_ray(store)

        def grow(chains: int, budget: int) -> tuple[Plan, list[Asked]]:
            """A plan, and what the engine was asked for it."""
            before = len(made_up.asked(log))
            planned = plan(asked, "cot", pool, chains, budget, lambda problem, _: problem.question)
            sample(model, [(planned, DISTRIBUTION)], SamplingConfig(), "growth", VerificationConfig())
            return planned, made_up.asked(log)[before:]

        first, bought = grow(CHAINS, BUDGET)
        results = [compared(f"first {CHAINS} chains", costs(requests_of(first)), first, bought)]
        more, bought = grow(MORE_CHAINS, BUDGET)
        new = [each for each in requests_of(more) if each.index >= CHAINS]
        results.append(compared(f"{CHAINS} to {MORE_CHAINS} chains", costs(new), more, bought))
        larger, bought = grow(MORE_CHAINS, LARGER_BUDGET)
        cut = {(each.prompt_hash, each.index) for each in requests_of(more) if ending(each, "heavy")[1] == "length"}
        again = [each for each in requests_of(larger) if (each.prompt_hash, each.index) in cut]
        results.append(compared(f"{BUDGET} to {LARGER_BUDGET} tokens", costs(again), larger, bought))
        same, bought = grow(MORE_CHAINS, LARGER_BUDGET)
        results.append(compared("the same again", [], same, bought))
    table.write("growth", results, arguments.out)


if __name__ == "__main__":
    main()
