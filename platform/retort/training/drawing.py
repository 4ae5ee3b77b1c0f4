"""The order in which examples are drawn.

A step's examples depend on the seed, the step and the corpus only: neither packing nor the number of workers changes
which examples form a step, and a training that goes on after it died draws what it would have drawn.
"""

import math
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
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
    fewer), so that a problem weighs the same however many chains and thoughts it has. Under a curriculum the epochs of
    the first steps visit the easier problems alone.

    Raises:
        ValueError: there are weights, and an example's thought has none; a curriculum, and a pass rate is not known.
    """
    weights = config.thought_weights or {example.thought: 1.0 for example in examples}
    by_problem = _by_problem(examples, weights)
    problems = sorted(by_problem)
    easiest_first = _easiest_first(by_problem) if config.curriculum_steps else problems
    rng = random.Random(config.seed)
    pending: list[TokenizedExample] = []
    step = 0
    while True:
        come_in = _come_in(step, len(problems), config.curriculum_steps)
        if come_in < len(problems):
            visited = easiest_first[:come_in]
            rng.shuffle(visited)
        else:
            rng.shuffle(problems)
            visited = problems
        for problem in visited:
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
