"""Prompts: the one producer of every text that a model is asked with (DESIGN, invariant 5).

    Question: Tom has 12 apples. He buys 5 more. How many apples does Tom have now?
    Let's think step by step.

The layout is ETD's (PAPERS 3.2): a `Question:` line, then the cue of the thought on its own line. Training and
sampling both call `render`, so a student is asked exactly as it was taught.
"""

import hashlib
import json
from collections.abc import Sequence

from retort.records import Problem

Messages = list[dict[str, str]]


def render(problem: Problem, cue: str, steps: Sequence[str] = ()) -> str:
    """The prompt of one problem under one cue; `steps` are shown where a teacher is asked to annotate them."""
    lines = [f"Question: {problem.question}"]
    if problem.context:
        lines.insert(0, f"Context: {problem.context}")
    if problem.choices:
        lines.append("Answer Choices:")
        lines += [
            f"({letter}) {choice}"
            for letter, choice in zip("abcdefghijklmnopqrstuvwxyz", problem.choices, strict=False)
        ]
    if steps:
        lines += ["Steps:", *steps]
    return "\n".join([*lines, cue, ""])


def as_chat(text: str) -> Messages:
    """The same prompt as one user message, for a teacher with a chat template."""
    return [{"role": "user", "content": text.rstrip("\n")}]


def canonical(prompt: str | Messages) -> str:
    """Canonical JSON of what an engine is handed: the content that a chain's key is made of."""
    return json.dumps(prompt, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def prompt_hash(canonical_prompt: str) -> str:
    """SHA-256 (hex) of a canonical prompt."""
    return hashlib.sha256(canonical_prompt.encode("utf-8", "surrogatepass")).hexdigest()
