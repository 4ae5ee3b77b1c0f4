"""Thoughts: one contract for all, and the papers' cues byte for byte."""

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import pytest

from retort import answers
from retort.records import AnswerKind, Problem
from retort.solvers.zygote import Sandbox
from retort.tasks import arithmetic
from retort.thoughts import THOUGHTS, cues

STORIES = list(islice(arithmetic.stories("train", 0), 50))

# What a perfect model says under each thought.
PERFECT: dict[str, Callable[[arithmetic.Story], str]] = {
    "answer": lambda story: str(story.answer),
    "cot": lambda story: story.chain_of_thought(random.Random(0)),
    "pot": lambda story: story.program(),
    "eot": lambda story: story.equations(),
    "socratic": lambda story: story.socratic(),
}
IN_WORDS = ("answer", "cot", "socratic")
CHOICE = Problem("t/train/0", "t", "train", "Which is a fruit?", "choice", "b", ("stone", "apple"))


def test_every_thought_has_a_perfect_text():
    assert PERFECT.keys() == THOUGHTS.keys()


def test_no_two_thoughts_share_a_cue():
    used = [getattr(cues, name) for name in dir(cues) if name.isupper()]
    assert {thought.CUE for thought in THOUGHTS.values()} < set(used)
    assert len(set(used)) == len(used)
    assert all(cue == cue.strip() and "\n" not in cue and cue for cue in used)


@pytest.mark.parametrize("name", THOUGHTS)
def test_the_answer_of_a_perfect_text_is_the_gold_one(name: str, sandbox: Sandbox):
    for number, story in enumerate(STORIES):
        problem = story.problem("train", number)
        assert problem.answer is not None
        value, reason = THOUGHTS[name].read(PERFECT[name](story), problem, False, sandbox)
        assert reason is None
        assert answers.compare("number", value or "", problem.answer) is True


@pytest.mark.parametrize("name", THOUGHTS)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "I do not know.",
        "12 and 14",
        "\ud800 the answer is",
        "The answer is " * 9,
        "\x00\x1b[2J",
        "ответ",
        "x" * 3_000_000,
    ],
    ids=lambda text: repr(text[:20]),
)
def test_text_without_an_answer_gives_a_reason_or_what_cannot_be_read(name: str, text: str, sandbox: Sandbox):
    problem = STORIES[0].problem("train", 0)
    value, reason = THOUGHTS[name].read(text, problem, False, sandbox)
    assert (value is None) != (reason is None)
    assert value is None or answers.canonical("number", value) is None


@pytest.mark.parametrize("name", IN_WORDS)
def test_the_last_number_counts_only_where_it_is_asked_for(name: str, sandbox: Sandbox):
    problem = STORIES[0].problem("train", 0)
    text = "First 12, and then there are 14 of them"
    assert THOUGHTS[name].read(text, problem, False, sandbox) == (None, "no_answer")
    assert THOUGHTS[name].read(text, problem, True, sandbox) == ("14", None)


@pytest.mark.parametrize("name", IN_WORDS)
@pytest.mark.parametrize("said", ["The answer is (b).", "The answer is apple."])
def test_a_choice_is_found_by_its_letter_and_by_its_text(name: str, said: str, sandbox: Sandbox):
    value, _ = THOUGHTS[name].read(said, CHOICE, False, sandbox)
    assert answers.canonical("choice", value or "", choices=CHOICE.choices) == "b"


@pytest.mark.parametrize(
    ("program", "kind", "value", "reason"),
    [
        ("ans = 12 + 5", "number", "17", None),
        ("ans = 12 > 5", "yes_no", "True", None),
        ("ans = 'yes'", "yes_no", "yes", None),
        ("ans = 12 > 5", "number", None, "not_a_number"),
        ("ans = 'many'", "number", None, "not_a_number"),
        ("ans = 'perhaps'", "yes_no", None, "no_answer"),
        ("ans = 1 / 0", "number", None, "raised ZeroDivisionError"),
        ("ans = (", "number", None, "syntax"),
    ],
)
def test_a_program_answers_in_the_kind_that_the_problem_asks_for(
    program: str, kind: AnswerKind, value: str | None, reason: str | None, sandbox: Sandbox
):
    problem = Problem("t/train/0", "t", "train", "?", kind)
    assert THOUGHTS["pot"].read(program, problem, False, sandbox) == (value, reason)


@pytest.mark.parametrize("name", THOUGHTS)
def test_what_annotations_teach_is_right_and_nothing_is_taught_without_an_answer(name: str, sandbox: Sandbox):
    problem = STORIES[0].problem("train", 0)
    taught = THOUGHTS[name].gold(problem)
    assert THOUGHTS[name].gold(replace(problem, answer=None)) is None
    if taught is not None:
        assert THOUGHTS[name].read(taught, problem, False, sandbox) == (problem.answer, None)


def test_labels_teach_answers_but_no_reasoning():
    assert [name for name in THOUGHTS if THOUGHTS[name].gold(CHOICE) is not None] == ["answer"]
    assert THOUGHTS["answer"].gold(CHOICE) == "b"


@pytest.mark.parametrize(
    ("cue", "of_the_paper"),
    [
        (cues.COT, b"Let's think step by step."),
        (cues.POT, b"Let\xe2\x80\x99s break down the code step by step"),
        (cues.EOT, b"System of linear equations: (Do not simplify)"),
        (THOUGHTS["cot"].CUE, b"Let's think step by step."),
    ],
)
def test_cues_are_the_papers_byte_for_byte(cue: str, of_the_paper: bytes):
    assert cue.encode() == of_the_paper
