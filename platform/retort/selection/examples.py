"""Examples: what is learned of a chain that was selected, or of a gold annotation.

{"problem_id": "arithmetic/train/00017", "split": "train", "thought": "cot", "index": 3,
 "prompt": "Question: …\\nLet's think step by step.\\n", "target": "27 + 11 = 38. … The answer is 45.",
 "pass_rate": 0.625}
"""

from retort import prompts
from retort.records import Example, Problem, Verdict
from retort.selection.config import Target
from retort.thoughts import THOUGHTS, cues


def example(verdict: Verdict, target: Target, pass_rate: float | None) -> Example:
    """What is learned of a chain of a problem that the teacher gets right so often."""
    if target == "chain":
        prompt, thought, text = verdict.prompt, verdict.thought, verdict.text.strip()
    else:
        body = prompts.asked_in(verdict.prompt, THOUGHTS[verdict.thought].CUE)
        prompt, thought, text = prompts.ask(body, cues.ANSWER), "answer", verdict.answer or ""
    return Example(verdict.problem_id, verdict.split, thought, verdict.index, prompt, text, pass_rate)


def label(problem: Problem, thought: str) -> Example | None:
    """What gold labels alone teach of a problem; None where they teach nothing."""
    target = THOUGHTS[thought].gold(problem)
    if target is None:
        return None
    return Example(problem.id, problem.split, thought, 0, prompts.render(problem, THOUGHTS[thought].CUE), target)
