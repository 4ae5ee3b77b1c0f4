"""`answer`: the label alone, without reasoning; what label-only students learn (PAPERS 1.6).

14
"""

from retort import answers
from retort.records import Problem
from retort.thoughts import cues

CUE = cues.ANSWER


def answer_in(text: str, problem: Problem, last_number: bool) -> str | None:
    """The completion as a whole, or what follows a marker in it."""
    return answers.find(problem.answer_kind, text, choices=problem.choices, last_number=last_number)


def gold(problem: Problem) -> str | None:
    """The gold answer."""
    return problem.answer
