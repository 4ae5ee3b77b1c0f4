"""The order in which examples are drawn.

A step's examples depend on the seed, the step and the corpus only: neither packing nor the number of workers changes
which examples form a step, and a training that goes on after it died draws what it would have drawn.
"""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from retort.training.config import TrainingConfig
from retort.training.examples import TokenizedExample

EASIEST = 0.1
"""Share of the problems that a curriculum starts with."""

Thoughts = Mapping[str, Sequence[TokenizedExample]]


def draw_steps(examples: Sequence[TokenizedExample], config: TrainingConfig) -> Iterator[list[TokenizedExample]]:
    """Endless steps of `batch_examples` examples, balanced over problems (SCoTD's `all_correct_paths_balanced`).

    Each epoch visits every problem once, in a new order, draws one of its thoughts by weight (all weigh the same where
    no weights are given), and of that thought `group_chains` chains without repeats (all of them where there are
    fewer), so that a problem weighs the same however many chains and thoughts it has. Under a curriculum the first
    steps visit the easier problems alone.

    Raises:
        ValueError: there are weights, and an example's thought has none; a curriculum, and a pass rate is not known.
    """
    weights = config.thought_weights or {example.thought: 1.0 for example in examples}
    by_problem = _by_problem(examples, weights)
    rng = random.Random(config.seed)
    pending: list[TokenizedExample] = []
    step = 0
    visits = (
        _easy_ones_first(_easiest_first(by_problem), config.curriculum_steps, rng, lambda: step)
        if config.curriculum_steps
        else _epochs(sorted(by_problem), rng)
    )
    for problem in visits:
        thoughts = sorted(by_problem[problem])
        # One thought leaves nothing to draw: the order of a corpus of one is that of the seed alone.
        (thought,) = rng.choices(thoughts, [weights[name] for name in thoughts]) if len(thoughts) > 1 else thoughts
        chains = by_problem[problem][thought]
        drawn = rng.sample(chains, min(config.group_chains, len(chains)))
        if config.chain_weights == "per_problem":
            drawn = [replace(chain, weight=1 / len(drawn)) for chain in drawn]
        pending += drawn
        while len(pending) >= config.batch_examples:
            yield pending[: config.batch_examples]
            step += 1
            pending = pending[config.batch_examples :]


def _epochs(problems: list[str], rng: random.Random) -> Iterator[str]:
    """All problems, again and again, each time in a new order."""
    while True:
        rng.shuffle(problems)
        yield from problems


def _easy_ones_first(
    easiest_first: Sequence[str], curriculum_steps: int, rng: random.Random, step: Callable[[], int]
) -> Iterator[str]:
    """The problems that have come in, again and again; whoever comes in takes a random place among those to come."""
    come_in, waiting = 0, list[str]()
    while True:
        known, come_in = come_in, _come_in(step(), len(easiest_first), curriculum_steps)
        for problem in easiest_first[known:come_in]:
            waiting.insert(rng.randint(0, len(waiting)), problem)
        if not waiting:
            waiting = list(easiest_first[:come_in])
            rng.shuffle(waiting)
        yield waiting.pop()


def _by_problem(examples: Sequence[TokenizedExample], weights: Mapping[str, float]) -> dict[str, Thoughts]:
    """The examples of each problem by thought."""
    by_problem: dict[str, dict[str, list[TokenizedExample]]] = defaultdict(lambda: defaultdict(list))
    for example in examples:
        if example.thought not in weights:
            raise ValueError(
                f"thought_weights has none for {example.thought!r}, got {sorted(weights)}; expected a weight for each "
                f"thought of the corpus, or none at all"
            )
        by_problem[example.problem_id][example.thought].append(example)
    return dict(by_problem)


def _easiest_first(by_problem: Mapping[str, Thoughts]) -> list[str]:
    """Problems by their pass rate, the mean over thoughts, those of one rate by id."""
    rates: dict[str, float] = {}
    for problem, thoughts in by_problem.items():
        found = [chains[0].pass_rate for chains in thoughts.values()]
        known = [rate for rate in found if rate is not None]
        if len(known) < len(found):
            raise ValueError(
                f"curriculum_steps: nobody knows how hard {problem} is; expected chains of a teacher on problems with "
                f"gold answers, or curriculum_steps = 0"
            )
        rates[problem] = sum(known) / len(known)
    return sorted(rates, key=lambda problem: (-rates[problem], problem))


def _come_in(step: int, num_problems: int, curriculum_steps: int) -> int:
    """How many problems take part at a step: competence grows with the square root of the steps (Platanios et al. 2019,
    "Competence-based curriculum learning", eq. 7), so that new ones come in ever more slowly."""
    if step >= curriculum_steps:
        return num_problems
    share = math.sqrt(step * (1 - EASIEST**2) / curriculum_steps + EASIEST**2)
    return max(1, math.ceil(share * num_problems))
