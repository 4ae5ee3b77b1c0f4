"""Thoughts: one contract for all, and the papers' cues byte for byte."""

import random
from dataclasses import replace
from itertools import islice

import pytest

from retort import answers
from retort.records import Problem
from retort.tasks import arithmetic
from retort.thoughts import THOUGHTS, cues

STORIES = list(islice(arithmetic.stories("train", 0), 50))

# What a perfect model says under each thought.
PERFECT = {
    "answer": lambda story: str(story.answer),
    "cot": lambda story: story.chain_of_thought(random.Random(0)),
}
CHOICE = Problem("t/train/0", "t", "train", "Which is a fruit?", "choice", "b", ("stone", "apple"))


def test_every_thought_has_a_perfect_text():
    assert PERFECT.keys() == THOUGHTS.keys()


def test_no_two_thoughts_share_a_cue():
    used = [thought.CUE for thought in THOUGHTS.values()]
    assert len(set(used)) == len(used)
    assert all(cue == cue.strip() and "\n" not in cue and cue for cue in used)


@pytest.mark.parametrize("name", THOUGHTS)
def test_the_answer_of_a_perfect_text_is_the_gold_one(name: str):
    for number, story in enumerate(STORIES):
        problem = story.problem("train", number)
        assert problem.answer is not None
        found = THOUGHTS[name].answer_in(PERFECT[name](story), problem, False)
        assert answers.compare("number", found or "", problem.answer) is True


@pytest.mark.parametrize("name", THOUGHTS)
@pytest.mark.parametrize("text", ["", "I do not know.", "12 and 14", "\ud800 the answer is", "The answer is " * 9])
def test_text_without_an_answer_gives_none_or_what_cannot_be_read(name: str, text: str):
    problem = STORIES[0].problem("train", 0)
    found = THOUGHTS[name].answer_in(text, problem, False)
    assert found is None or answers.canonical("number", found) is None


@pytest.mark.parametrize("name", THOUGHTS)
def test_the_last_number_counts_only_where_it_is_asked_for(name: str):
    problem = STORIES[0].problem("train", 0)
    text = "First 12, and then there are 14 of them"
    assert THOUGHTS[name].answer_in(text, problem, False) is None
    assert THOUGHTS[name].answer_in(text, problem, True) == "14"


@pytest.mark.parametrize("name", THOUGHTS)
@pytest.mark.parametrize("said", ["The answer is (b).", "The answer is apple."])
def test_a_choice_is_found_by_its_letter_and_by_its_text(name: str, said: str):
    found = THOUGHTS[name].answer_in(said, CHOICE, False)
    assert answers.canonical("choice", found or "", choices=CHOICE.choices) == "b"


@pytest.mark.parametrize("name", THOUGHTS)
def test_what_labels_teach_is_right_and_nothing_is_taught_without_one(name: str):
    problem = STORIES[0].problem("train", 0)
    taught = THOUGHTS[name].gold(problem)
    assert THOUGHTS[name].gold(replace(problem, answer=None)) is None
    if taught is not None:
        assert THOUGHTS[name].answer_in(taught, problem, False) == problem.answer


def test_labels_teach_answers_but_no_reasoning():
    assert THOUGHTS["answer"].gold(CHOICE) == "b"
    assert THOUGHTS["cot"].gold(CHOICE) is None


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
