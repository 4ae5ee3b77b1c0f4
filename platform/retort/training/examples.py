"""Examples as token ids, and the order in which they are drawn.

A step's examples depend on the seed, the step and the corpus only: neither packing nor the number of workers changes
which examples form a step. Prompt and target are tokenised apart, so that the prompt's tokens are those that the
student is later asked with.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retort.records import Example
from retort.thoughts.socratic import Iterative, Role, views

View = tuple[Role, Iterative]
"""What one student of several learns of a corpus of `socratic` chains: its role, and how the roles share a problem."""


@dataclass(frozen=True, slots=True)
class TokenizedExample:
    """`prompt_ids` carry no loss; `target_ids` end with the end-of-text token."""

    problem_id: str
    thought: str
    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.target_ids)


def viewed(examples: Sequence[Example], view: View | None) -> list[Example]:
    """Examples as a role sees them, in order; as they are without a view.

    A chain becomes as many examples as the role has turns in it: their thought is the role, their index counts the
    turns of a problem.
    """
    if view is None:
        return list(examples)
    role, settings = view
    seen: Counter[str] = Counter()
    turns: list[Example] = []
    for example in examples:
        for prompt, target in views(example.prompt, example.target, role, settings):
            turns.append(Example(example.problem_id, example.split, role, seen[example.problem_id], prompt, target))
            seen[example.problem_id] += 1
    return turns


def tokenize(tokenizer: Any, examples: Sequence[Example]) -> list[TokenizedExample]:
    """Examples as token ids, in order.

    Raises:
        ValueError: the tokenizer has no end-of-text token, without which a student never learns to stop.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError("tokenizer has no eos_token: expected one that ends a target; set it in tokenizer_config.json")
    if not examples:
        return []
    prompts = tokenizer([example.prompt for example in examples])["input_ids"]
    targets = tokenizer([example.target for example in examples], add_special_tokens=False)["input_ids"]
    return [
        TokenizedExample(example.problem_id, example.thought, tuple(prompt), (*target, tokenizer.eos_token_id))
        for example, prompt, target in zip(examples, prompts, targets, strict=True)
    ]


def draw_steps(
    examples: Sequence[TokenizedExample],
    batch_examples: int,
    group_chains: int,
    seed: int,
    thought_weights: Mapping[str, float] | None = None,
) -> Iterator[list[TokenizedExample]]:
    """Endless steps of `batch_examples` examples, balanced over problems (SCoTD's `all_correct_paths_balanced`).

    Each epoch visits every problem once, in a new order, draws one of its thoughts by weight (all weigh the same where
    no weights are given), and of that thought `group_chains` chains without repeats (all of them where there are
    fewer), so that a problem weighs the same however many chains and thoughts it has.

    Raises:
        ValueError: there are weights, and an example's thought has none.
    """
    weights = thought_weights or {example.thought: 1.0 for example in examples}
    by_problem: dict[str, dict[str, list[TokenizedExample]]] = defaultdict(lambda: defaultdict(list))
    for example in examples:
        if example.thought not in weights:
            raise ValueError(
                f"thought_weights has none for {example.thought!r}, got {sorted(weights)}; expected a weight for each "
                f"thought of the corpus, or none at all"
            )
        by_problem[example.problem_id][example.thought].append(example)
    problems = sorted(by_problem)
    rng = random.Random(seed)
    pending: list[TokenizedExample] = []
    while True:
        rng.shuffle(problems)
        for problem in problems:
            thoughts = sorted(by_problem[problem])
            # One thought leaves nothing to draw: the order of a corpus of one is that of the seed alone.
            (thought,) = rng.choices(thoughts, [weights[name] for name in thoughts]) if len(thoughts) > 1 else thoughts
            chains = by_problem[problem][thought]
            pending += rng.sample(chains, min(group_chains, len(chains)))
            while len(pending) >= batch_examples:
                yield pending[:batch_examples]
                pending = pending[batch_examples:]
