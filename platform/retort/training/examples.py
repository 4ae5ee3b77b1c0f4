"""Examples as token ids.

Prompt and target are tokenised apart, so that the prompt's tokens are those that the student is later asked with.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from retort.records import Example
from retort.thoughts.socratic import Iterative, Role, views

TEXTS_AT_A_TIME = 1000

View = tuple[Role, Iterative]
"""What one student of several learns of a corpus of `socratic` chains: its role, and how the roles share a problem."""


@dataclass(frozen=True, slots=True)
class TokenizedExample:
    """`prompt_ids` carry no loss; `target_ids` end with the end-of-text token, unless they were cut off."""

    problem_id: str
    thought: str
    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    weight: float = 1.0
    """Of its tokens in the loss."""
    pass_rate: float | None = None
    """Share of right chains that the teacher had on the problem; None where nobody knows."""

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
            turns.append(replace(example, thought=role, index=seen[example.problem_id], prompt=prompt, target=target))
            seen[example.problem_id] += 1
    return turns


def tokenize(tokenizer: Any, examples: Sequence[Example]) -> list[TokenizedExample]:
    """Examples as token ids, in order.

    Raises:
        ValueError: the tokenizer has no end-of-text token, without which a student never learns to stop; a prompt is
            empty, so that nothing predicts the first token of its target.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError("tokenizer has no eos_token: expected one that ends a target; set it in tokenizer_config.json")
    distinct = list(dict.fromkeys(example.prompt for example in examples))
    prompts = dict(zip(distinct, _ids(tokenizer, distinct, is_prompt=True), strict=True))
    made: list[TokenizedExample] = []
    for example, target in zip(examples, _ids(tokenizer, [each.target for each in examples], False), strict=True):
        if not prompts[example.prompt]:
            raise ValueError(f"{example.problem_id}: its prompt {example.prompt!r} has no tokens; expected some")
        ids = prompts[example.prompt], (*target, tokenizer.eos_token_id)
        made.append(TokenizedExample(example.problem_id, example.thought, *ids, pass_rate=example.pass_rate))
    return made


def _ids(tokenizer: Any, texts: Sequence[str], is_prompt: bool) -> Iterator[tuple[int, ...]]:
    """The token ids of each text; special tokens begin a prompt.

    A tokenizer makes a new int for each token, and tells more than ids: one int for all tokens that are the same, and
    some texts at a time, keep a corpus of 10⁸ tokens below a gigabyte.
    """
    ints = list(range(len(tokenizer)))
    for start in range(0, len(texts), TEXTS_AT_A_TIME):
        some = list(texts[start : start + TEXTS_AT_A_TIME])
        for ids in tokenizer(some, add_special_tokens=is_prompt)["input_ids"]:
            yield tuple(ints[each] for each in ids)


@dataclass(slots=True)
class Fitted:
    """Examples that fit a model, and what became of those that did not, in examples and in tokens."""

    examples: list[TokenizedExample] = field(default_factory=list)
    dropped: int = 0
    dropped_tokens: int = 0
    truncated: int = 0
    truncated_tokens: int = 0


def fit_to(
    examples: Sequence[TokenizedExample], most: int, long_examples: Literal["drop", "truncate"], apart: bool
) -> Fitted:
    """Leave out, or cut off, what is longer than `most` tokens: prompt and target together, or each where they are
    `apart` (an encoder-decoder's)."""
    made = Fitted()
    for example in examples:
        room = most if apart else most - len(example.prompt_ids)
        if len(example.target_ids) <= room and len(example.prompt_ids) <= most:
            made.examples.append(example)
        elif long_examples == "truncate" and room > 0 and len(example.prompt_ids) <= most:
            made.examples.append(replace(example, target_ids=example.target_ids[:room]))
            made.truncated += 1
            made.truncated_tokens += len(example.target_ids) - room
        else:
            made.dropped += 1
            made.dropped_tokens += len(example)
    return made
