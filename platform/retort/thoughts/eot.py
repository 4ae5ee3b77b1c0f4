"""`eot`: lines of equations under `%` comments; the last gives `ans`. Solved exactly, without running anything.

% Tom has 12 apples
a = 12
% He buys 5 more
b = a + 5
ans = b
"""

from retort.records import Problem
from retort.solvers import Outcome, equations
from retort.solvers.zygote import Sandbox
from retort.thoughts import cues

CUE = cues.EOT


def read(text: str, problem: Problem, last_number: bool, sandbox: Sandbox) -> Outcome:
    """What `ans` is in the solution of the system."""
    del problem, last_number
    return equations.solve(text, sandbox)


def gold(problem: Problem) -> str | None:
    """None: no data set has gold equations in this form."""
    del problem
    return None
