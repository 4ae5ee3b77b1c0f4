"""Examples as token ids, and the order in which they are drawn.

A step's examples depend on the seed, the step and the corpus only: neither packing nor the number of workers changes
which examples form a step. Prompt and target are tokenised apart, so that the prompt's tokens are those that the
student is later asked with.
"""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from retort.records import Example


@dataclass(frozen=True, slots=True)
class TokenizedExample:
    """`prompt_ids` carry no loss; `target_ids` end with the end-of-text token."""

    problem_id: str
    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.target_ids)


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
        TokenizedExample(example.problem_id, tuple(prompt), (*target, tokenizer.eos_token_id))
        for example, prompt, target in zip(examples, prompts, targets, strict=True)
    ]


def draw_steps(
    examples: Sequence[TokenizedExample], batch_examples: int, group_chains: int, seed: int
) -> Iterator[list[TokenizedExample]]:
    """Endless steps of `batch_examples` examples, balanced over problems (SCoTD's `all_correct_paths_balanced`).

    Each epoch visits every problem once, in a new order, and draws `group_chains` of its chains without repeats (all
    of them where there are fewer), so that a problem weighs the same however many chains it has.
    """
    by_problem: dict[str, list[TokenizedExample]] = defaultdict(list)
    for example in examples:
        by_problem[example.problem_id].append(example)
    problems = sorted(by_problem)
    rng = random.Random(seed)
    pending: list[TokenizedExample] = []
    while True:
        rng.shuffle(problems)
        for problem in problems:
            chains = by_problem[problem]
            pending += rng.sample(chains, min(group_chains, len(chains)))
            while len(pending) >= batch_examples:
                yield pending[:batch_examples]
                pending = pending[batch_examples:]
