r"""Exemplars: worked examples that a teacher is shown before the question (PAPERS 1.1, 2.1 and 3.1, step 1 of each).

One file a task, one row an exemplar: the problem once, and its completion under each thought that the task has.

    {"question": "Leila had 8 ribbons and 15 beads. She used 6 of the beads for …", "answer": "9", "answer_kind":
     "number", "steps": ["Of her 15 beads she used 6, so 15 - 6 = <<15-6=9>>9 beads are left."], "completions":
     {"answer": "9", "cot": "… The answer is 9.", "pot": "beads = 15\n…", "eot": "% Leila had …", "socratic": "…"}}

All were written for this project in the style of each data set, and none is taken from one. `steps` and `facts` are
what the `socratic` completion answers its sub-questions with, so that a teacher who has to find sub-questions for a
given solution can be shown the same rows. A changed row is another prompt: chains sampled with it are sampled anew.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from retort.records import AnswerKind, Problem, from_rows

DEFAULTS: dict[AnswerKind, str] = {
    "number": "gsm8k",
    "choice": "commonsense_qa",
    "yes_no": "strategyqa",
    "text": "text",
}
"""Whose exemplars a task without its own is shown, by the kind of its answers."""


@dataclass(frozen=True)
class Exemplar:
    """A problem and a right completion of it under each of some thoughts."""

    problem: Problem
    completions: dict[str, str]

    def completion(self, thought: str) -> str:
        """The completion under one thought. Raises ValueError where there is none."""
        if thought not in self.completions:
            raise ValueError(
                f"exemplars of {self.problem.task!r}: none for the thought {thought!r}; expected one of "
                f"{', '.join(self.completions)}, or no exemplars"
            )
        return self.completions[thought]


@cache
def load(task_kind: str, answer_kind: AnswerKind) -> tuple[Exemplar, ...]:
    """The exemplars of a kind of task, in the order of their file; those of the kind of answer where it has no file."""
    folder = resources.files(__name__)
    name = task_kind if (folder / f"{task_kind}.jsonl").is_file() else DEFAULTS[answer_kind]
    lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(_exemplar(name, number, line) for number, line in enumerate(lines))


@cache
def identity() -> str:
    """A digest of all exemplars."""
    files = [each for each in resources.files(__name__).iterdir() if each.name.endswith(".jsonl")]
    return hashlib.sha256(b"".join(each.read_bytes() for each in sorted(files, key=lambda each: each.name))).hexdigest()


def shown(exemplars: Sequence[Exemplar], problem_id: str, count: int, shuffle: bool) -> tuple[Exemplar, ...]:
    """The exemplars that one problem is asked with: the first `count`, or with `shuffle` those of an order of its own.

    That order depends on the ids alone (PAPERS 1.2), and fewer exemplars are the first of more.

    Raises:
        ValueError: there are fewer than `count`.
    """
    if count > len(exemplars):
        of_task = f" of {exemplars[0].problem.task!r}" if exemplars else ""
        raise ValueError(f"exemplars{of_task}: got a count of {count}, expected at most the {len(exemplars)} there are")
    if shuffle:
        exemplars = sorted(exemplars, key=lambda exemplar: _place(problem_id, exemplar))
    return tuple(exemplars[:count])


def _place(problem_id: str, exemplar: Exemplar) -> bytes:
    return hashlib.sha256(f"{problem_id} {exemplar.problem.id}".encode()).digest()


def _exemplar(name: str, number: int, line: str) -> Exemplar:
    row = json.loads(line)
    completions = row.pop("completions")
    named = {"id": f"{name}/exemplar/{number:02d}", "task": name, "split": "train"}
    (problem,) = from_rows(Problem, [named | row])
    return Exemplar(problem, completions)
