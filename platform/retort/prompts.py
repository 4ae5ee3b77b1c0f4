"""Prompts: the one producer of every text that a model is asked with (DESIGN, invariant 5).

    Question: Tom has 12 apples. He buys 5 more. How many apples does Tom have now?
    Let's think step by step.

The layout is ETD's (PAPERS 3.2): a `Question:` line, then the cue of the thought on its own line. Training and
sampling both call `ask`, so a student is asked exactly as it was taught. A teacher may see more between the two: given
steps to annotate, exemplars before it.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence

from retort.records import Problem

Messages = list[dict[str, str]]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def body(problem: Problem) -> str:
    """A problem as it is asked, without a cue."""
    lines = [f"Question: {problem.question}"]
    if problem.context:
        lines.insert(0, f"Context: {problem.context}")
    if problem.choices:
        lines.append("Answer Choices:")
        lines += [f"({letter}) {choice}" for letter, choice in zip(LETTERS, problem.choices, strict=False)]
    return "\n".join(lines)


def ask(asked: str, cue: str, given: Sequence[str] = ()) -> str:
    """The prompt of a body under a cue; `given` are lines between the two, such as steps to annotate."""
    return "\n".join([asked, *given, cue, ""])


def asked_in(prompt: str, cue: str) -> str:
    """The body in a prompt that `ask` made with this cue and nothing given."""
    return prompt.removesuffix(f"\n{cue}\n")


def render(problem: Problem, cue: str) -> str:
    """The prompt of one problem under one cue: what students are asked, in training and afterwards."""
    return ask(body(problem), cue)


def few_shot(prompt: str, exemplars: Iterable[tuple[str, str]]) -> str:
    """Worked examples (prompt, completion) before a prompt, with blank lines between them."""
    return "\n\n".join([*(f"{shown}{completion}" for shown, completion in exemplars), prompt])


def as_chat(prompt: str, exemplars: Iterable[tuple[str, str]] = ()) -> Messages:
    """The same for a teacher with a chat template: each exemplar a turn of both, the prompt the last user message."""
    messages: Messages = []
    for shown, completion in exemplars:
        messages += [
            {"role": "user", "content": shown.rstrip("\n")},
            {"role": "assistant", "content": completion},
        ]
    return [*messages, {"role": "user", "content": prompt.rstrip("\n")}]


def canonical(prompt: str | Messages) -> str:
    """Canonical JSON of what an engine is handed: the content that a chain's key is made of."""
    return json.dumps(prompt, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def prompt_hash(canonical_prompt: str) -> str:
    """SHA-256 (hex) of a canonical prompt."""
    return hashlib.sha256(canonical_prompt.encode("utf-8", "surrogatepass")).hexdigest()
