"""`cot`: reasoning in prose that ends with its answer.

12 + 5 = 17. That makes 17 - 3 = 14. The answer is 14.
"""

from retort import answers
from retort.records import Problem
from retort.solvers import Outcome
from retort.solvers.zygote import Sandbox
from retort.thoughts import cues

CUE = cues.COT


def read(text: str, problem: Problem, last_number: bool, sandbox: Sandbox) -> Outcome:
    """What follows the last answer marker; `last_number` falls back to the last number where there is no marker."""
    del sandbox
    found = answers.find(problem.answer_kind, text, choices=problem.choices, last_number=last_number)
    return Outcome(None, "no_answer") if found is None else Outcome(found, None)


def gold(problem: Problem) -> str | None:
    """The human's own steps, where the data set has them ("GT steps" in Socratic CoT's terms)."""
    if problem.answer is None or not problem.steps:
        return None
    return "\n".join([*problem.steps, f"The answer is {problem.answer}."])
