"""`socratic`: sub-questions and their solutions, then the answer, in the layout of GSM8K's Socratic file (PAPERS 2.3).

How many apples does Tom have after he buys 5 more? ** 12 + 5 = <<12+5=17>>17
How many apples does Tom have after he gives away 3? ** 17 - 3 = <<17-3=14>>14
#### 14

One student learns the whole (unified), or two share it (iterative): one asks, one solves, a third may give hints. The
parts of a chain that each of them learns are `views`; the same functions make the prompts that `rollouts` asks with.
"""

import re
from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from retort import answers, prompts
from retort.records import Problem
from retort.solvers import Outcome, calculator
from retort.solvers.zygote import Sandbox
from retort.thoughts import cues

CUE = cues.SOCRATIC
BETWEEN = " ** "
HINT_LINE = "Hint: "
NO_MORE = "That is all."
OPERATORS = re.compile(r"(?<=[\d.)%]) ?([-+*/]) ?(?=[\d.($])")
SPOKEN = re.compile(r"\W{0,3}(?:yes|no|true|false)\b|\([a-z]\)", re.I)

Role = Literal["hint", "ask", "solve"]


class Step(NamedTuple):
    """A sub-question and its solution."""

    question: str
    solution: str


class Iterative(BaseModel):
    """How two students (three, where hints are predicted) share a problem. What the paper leaves open is a choice."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    questions: Literal["at_once", "interleaved"] = "at_once"
    """All sub-questions first, or each after the solution of the one before."""
    guidance: Literal["none", "operators", "equations"] = "none"
    """What the asking student is told of the way to the answer."""
    hints: Literal["gold", "predicted"] = "predicted"
    """Hints from the problem's own steps, or from a third student."""
    max_steps: int = Field(default=12, ge=1, le=100)
    """Sub-questions of one problem; GSM8K has at most 11."""

    @property
    def roles(self) -> tuple[Role, ...]:
        """The students that it takes, in the order in which they are first asked."""
        return ("hint", "ask", "solve") if self.predicts_hints else ("ask", "solve")

    @property
    def predicts_hints(self) -> bool:
        return self.guidance != "none" and self.hints == "predicted"


def read(text: str, problem: Problem, last_number: bool, sandbox: Sandbox) -> Outcome:
    """What stands behind `####`."""
    del sandbox
    found = answers.find(problem.answer_kind, text, choices=problem.choices, last_number=last_number)
    return Outcome(None, "no_answer") if found is None else Outcome(found, None)


def gold(problem: Problem) -> str | None:
    """The human's sub-questions and steps, where the data set has as many of one as of the other."""
    if problem.answer is None or not problem.steps or len(problem.sub_questions) != len(problem.steps):
        return None
    return text_of(list(map(Step, problem.sub_questions, problem.steps)), problem.answer)


def steps_of(text: str) -> list[Step]:
    """The steps of a chain, in order; lines in another form are left out."""
    pairs = (line.partition(BETWEEN) for line in text.splitlines())
    return [
        Step(question.strip(), solution.strip()) for question, found, solution in pairs if found and question.strip()
    ]


def is_in_layout(text: str) -> bool:
    """Whether a chain is steps, one a line, and then its answer: only of such a chain are all parts learned."""
    *lines, last = text.strip().splitlines() or [""]
    return bool(lines) and last.startswith("####") and len(steps_of("\n".join(lines))) == len(lines)


def concludes(text: str) -> bool:
    """Whether the last solution of a chain says the chain's answer: a pair of students learns the solution alone."""
    steps, answer = steps_of(text), text.strip().rpartition("####")[2]
    said = answer_of(steps[-1].solution) if steps else ""
    for kind in ("number", "yes_no", "text"):
        found, wanted = (answers.find(kind, f"#### {part}") for part in (said, answer))
        if found and wanted and answers.compare(kind, found, wanted):
            return True
    return False


def text_of(steps: Sequence[Step], answer: str) -> str:
    """A chain of these steps, one a line, and the answer."""
    return "\n".join([*(_line(step) for step in steps), f"#### {answer}"])


def answer_of(solution: str) -> str:
    """What the solution of a last step says: the value of its last annotation, else the solution itself.

    A solution that begins with yes, no or a letter says that, whatever it computes on the way.
    """
    said = " ".join(calculator.without(solution).split())
    return said if SPOKEN.match(said) else calculator.value(solution) or said


def hint(steps: Sequence[str], guidance: str) -> str:
    """The operators (`+ -`) or the equations (`12+5=17; 17-3=14`) of worked steps, on one line."""
    marked = [match for step in steps for match in calculator.ANNOTATION.findall(step)]
    plain = [step.strip() for step in steps if "=" in step or answers.canonical("number", step) is not None]
    equations = [f"{left}={right}" for left, right in marked] or plain
    if guidance == "equations":
        return "; ".join(equations)
    return " ".join(sign for equation in equations for sign in OPERATORS.findall(equation.partition("=")[0]))


def hint_prompt(body: str) -> str:
    """What the hinting student is asked."""
    return prompts.ask(body, cues.HINT)


def ask_prompt(body: str, settings: Iterative, told: str | None, done: Sequence[Step]) -> str:
    """What the asking student is asked; `told` is the hint, `done` the steps so far (where it asks one by one)."""
    given = [HINT_LINE + told] if told else []
    if settings.questions == "at_once":
        return prompts.ask(body, cues.ASK_ALL, given)
    return prompts.ask(body, cues.ASK_NEXT, [*given, *_shown(done)])


def solve_prompt(body: str, done: Sequence[Step], question: str) -> str:
    """What the solving student is asked."""
    return prompts.ask(body, cues.SOLVE, [*_shown(done), question])


def first_prompt(problem: Problem, settings: Iterative) -> str:
    """The first prompt of a rollout; the only one that is planned.

    Raises:
        ValueError: gold hints are wanted of a problem that has no steps.
    """
    body = prompts.body(problem)
    if settings.predicts_hints:
        return hint_prompt(body)
    told = None
    if settings.guidance != "none":
        told = hint(problem.steps, settings.guidance)
        if not told:
            raise ValueError(
                f"{problem.id}: no steps with {settings.guidance} to hint at; expected them for hints = 'gold', "
                f"set hints = 'predicted'"
            )
    return ask_prompt(body, settings, told, [])


def parts_of_first(prompt: str, settings: Iterative) -> tuple[str, str | None]:
    """The body and the gold hint that `first_prompt` put into a prompt."""
    if settings.predicts_hints:
        return prompts.asked_in(prompt, cues.HINT), None
    body = prompts.asked_in(prompt, cues.ASK_ALL if settings.questions == "at_once" else cues.ASK_NEXT)
    if settings.guidance == "none":
        return body, None
    body, _, told = body.rpartition(f"\n{HINT_LINE}")
    return body, told


def views(prompt: str, text: str, role: Role, settings: Iterative) -> list[tuple[str, str]]:
    """What one role learns of a chain, given the unified student's prompt: (prompt, target) pairs."""
    body, steps = prompts.asked_in(prompt, CUE), steps_of(text)
    told = hint([step.solution for step in steps], settings.guidance) if settings.guidance != "none" else None
    match role:
        case "hint":
            return [(hint_prompt(body), told)] if told else []
        case "ask" if settings.questions == "at_once":
            return [(ask_prompt(body, settings, told, []), "\n".join(step.question for step in steps))]
        case "ask":
            nexts = [*(step.question for step in steps), NO_MORE]
            return [(ask_prompt(body, settings, told, steps[:number]), asked) for number, asked in enumerate(nexts)]
        case "solve":
            return [
                (solve_prompt(body, steps[:number], step.question), step.solution) for number, step in enumerate(steps)
            ]


def _line(step: Step) -> str:
    return f"{step.question}{BETWEEN}{step.solution}"


def _shown(done: Sequence[Step]) -> list[str]:
    return ["Steps:", *map(_line, done)] if done else []
