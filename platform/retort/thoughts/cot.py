"""`cot`: reasoning in prose that ends with its answer.

12 + 5 = 17. That makes 17 - 3 = 14. The answer is 14.
"""

from retort import answers
from retort.records import Problem
from retort.thoughts import cues

CUE = cues.COT


def answer_in(text: str, problem: Problem, last_number: bool) -> str | None:
    """What follows the last answer marker; `last_number` falls back to the last number where there is no marker."""
    return answers.find(problem.answer_kind, text, choices=problem.choices, last_number=last_number)


def gold(problem: Problem) -> str | None:
    """None: labels alone do not tell how to reason."""
    del problem
    return None
