"""`answer`: the label alone, without reasoning; what label-only students learn (PAPERS 1.6).

14
"""

from retort import answers
from retort.records import Problem
from retort.solvers import Outcome
from retort.solvers.zygote import Sandbox
from retort.thoughts import cues

CUE = cues.ANSWER


def read(text: str, problem: Problem, last_number: bool, sandbox: Sandbox) -> Outcome:
    """The completion as a whole, or what follows a marker in it."""
    del sandbox
    found = answers.find(problem.answer_kind, text, choices=problem.choices, last_number=last_number)
    return Outcome(None, "no_answer") if found is None else Outcome(found, None)


def gold(problem: Problem) -> str | None:
    """The gold answer."""
    return problem.answer
