"""`pot`: a Python program that leaves its answer in `ans` (or prints it last), run in the sandbox.

apples = 12
apples = apples + 5
ans = apples
"""

from retort import answers
from retort.records import Problem
from retort.solvers import Outcome, program
from retort.solvers.zygote import Sandbox
from retort.thoughts import cues

CUE = cues.POT


def read(text: str, problem: Problem, last_number: bool, sandbox: Sandbox) -> Outcome:
    """What the program computes."""
    del last_number
    outcome = program.run(text, sandbox)
    if (
        outcome.value is not None
        and answers.canonical(problem.answer_kind, outcome.value, choices=problem.choices) is None
    ):
        return Outcome(None, "not_a_number" if problem.answer_kind == "number" else "no_answer")
    return outcome


def gold(problem: Problem) -> str | None:
    """None: no data set has gold programs."""
    del problem
    return None
