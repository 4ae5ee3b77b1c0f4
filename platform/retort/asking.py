"""What a model is asked on a problem: a student the problem alone, a teacher perhaps exemplars before and gold within.

    Question: Ann has 3 pens. …
    Let's think step by step.
    3 + 4 = 7. The answer is 7.

    Question: Tom has 12 apples. He buys 5 more. How many apples does Tom have now?
    Let's think step by step.

The Socratic teacher annotates in three modes (PAPERS 2.1): it adds sub-questions to given steps or to given facts, or
it sees the answer only.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from retort import prompts
from retort.prompts import Messages
from retort.records import Problem
from retort.rollouts import Rollout
from retort.thoughts import THOUGHTS, cues, exemplars, socratic

Asked = Callable[[Problem, str], str | Messages]
"""(problem, thought) → prompt."""


class Lesson(BaseModel):
    """How a teacher is asked."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    chat: bool = False
    """Ask through the model's chat template."""
    exemplars: int = Field(default=0, ge=0, le=64)
    """Worked examples shown before each question."""
    shuffle_exemplars: bool = False
    """Show them in an order that the problem's id decides; off: in the order of the file."""
    given: Literal["nothing", "steps", "facts", "answer"] = "nothing"
    """What of the gold annotation a teacher of `socratic` is shown, to add sub-questions to."""

    def asked(self, kinds: Mapping[str, str]) -> Asked:
        """The prompts of such a teacher; `kinds` says which kind of task (and so of exemplars) a task is."""

        def prompt(problem: Problem, thought: str) -> str | Messages:
            asked = self._prompt(problem, thought)
            known = exemplars.load(kinds[problem.task], problem.answer_kind) if self.exemplars else ()
            shown = [
                (self._prompt(exemplar.problem, thought), exemplar.completion(thought))
                for exemplar in exemplars.shown(known, problem.id, self.exemplars, self.shuffle_exemplars)
            ]
            return prompts.as_chat(asked, shown) if self.chat else prompts.few_shot(asked, shown)

        return prompt

    def _prompt(self, problem: Problem, thought: str) -> str:
        given = self.given if thought == "socratic" else "nothing"
        body = prompts.body(problem)
        match given:
            case "nothing":
                return prompts.ask(body, THOUGHTS[thought].CUE)
            case "steps" if problem.steps:
                return prompts.ask(body, cues.SUB_QUESTIONS, ["Steps:", *problem.steps])
            case "facts" if problem.facts:
                return prompts.ask(body, cues.FACT_QUESTIONS, ["Facts:", *problem.facts])
            case "answer" if problem.answer is not None:
                return prompts.ask(body, cues.SOCRATIC, [f"Answer: {problem.answer}"])
            case _:
                raise ValueError(f"{problem.id} has no {given}: expected some for given = {given!r} of its teacher")


def student_asked(rollout: Rollout) -> Asked:
    """The prompts of a student (with a pair, the first of each rollout)."""

    def prompt(problem: Problem, thought: str) -> str:
        if rollout.iterative is not None:
            return socratic.first_prompt(problem, rollout.iterative)
        return prompts.render(problem, THOUGHTS[thought].CUE)

    return prompt
