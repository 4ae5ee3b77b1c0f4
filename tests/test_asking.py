"""What teachers and students are asked: exemplars, given annotations, chat, one prompt for training and tests."""

import itertools
from dataclasses import replace

import pytest

from retort import prompts
from retort.asking import Lesson, student_asked
from retort.rollouts import Rollout
from retort.tasks import arithmetic
from retort.thoughts import THOUGHTS, cues, exemplars

PROBLEM, OTHER = (
    story.problem("train", number) for number, story in enumerate(itertools.islice(arithmetic.stories("train", 0), 2))
)
KINDS = {"arithmetic": "arithmetic"}
KNOWN = exemplars.load("arithmetic", "number")


@pytest.mark.parametrize("thought", THOUGHTS)
def test_a_teacher_without_extras_is_asked_like_a_student(thought: str):
    prompt = Lesson().asked(KINDS)(PROBLEM, thought)
    assert prompt == prompts.render(PROBLEM, THOUGHTS[thought].CUE) == student_asked(Rollout())(PROBLEM, thought)


@pytest.mark.parametrize("thought", THOUGHTS)
def test_exemplars_stand_before_the_question_in_its_own_layout(thought: str):
    prompt = Lesson(exemplars=3).asked(KINDS)(PROBLEM, thought)
    assert isinstance(prompt, str)
    cue = THOUGHTS[thought].CUE
    shown = [prompts.render(exemplar.problem, cue) + exemplar.completion(thought) for exemplar in KNOWN[:3]]
    assert prompt == "\n\n".join([*shown, prompts.render(PROBLEM, cue)])


def test_in_a_chat_each_exemplar_is_a_turn_of_both():
    messages = Lesson(exemplars=2, chat=True).asked(KINDS)(PROBLEM, "cot")
    assert isinstance(messages, list)
    assert [message["role"] for message in messages] == ["user", "assistant", "user", "assistant", "user"]
    assert messages[-1]["content"] == prompts.render(PROBLEM, cues.COT).rstrip("\n")
    assert messages[1]["content"] == KNOWN[0].completion("cot")


def test_shuffled_exemplars_are_fixed_by_the_problem():
    asked = Lesson(exemplars=4, shuffle_exemplars=True).asked(KINDS)
    assert asked(PROBLEM, "cot") == asked(PROBLEM, "cot")
    orders = {str(asked(replace(PROBLEM, id=f"arithmetic/train/{n}"), "cot")) for n in range(20)}
    assert len(orders) > 10
    assert asked(PROBLEM, "cot") != Lesson(exemplars=4).asked(KINDS)(PROBLEM, "cot")


@pytest.mark.parametrize(
    ("given", "cue", "lines"),
    [
        ("steps", cues.SUB_QUESTIONS, ["Steps:", *PROBLEM.steps]),
        ("facts", cues.FACT_QUESTIONS, ["Facts:", "Geese fly.", "Planes fly."]),
        ("answer", cues.SOCRATIC, [f"Answer: {PROBLEM.answer}"]),
    ],
)
def test_an_annotating_teacher_sees_what_it_is_to_annotate(given: str, cue: str, lines: list[str]):
    lesson = Lesson.model_validate({"given": given})
    problem = replace(PROBLEM, facts=("Geese fly.", "Planes fly."))
    prompt = lesson.asked(KINDS)(problem, "socratic")
    assert prompt == "\n".join([prompts.body(problem), *lines, cue, ""])
    # Other thoughts are never shown the gold annotation.
    assert lesson.asked(KINDS)(problem, "cot") == prompts.render(problem, cues.COT)


@pytest.mark.parametrize("given", ["steps", "facts", "answer"])
def test_a_problem_without_the_annotation_is_refused(given: str):
    bare = replace(PROBLEM, steps=(), facts=(), answer=None)
    with pytest.raises(ValueError, match=f"arithmetic/train/00000 has no {given}: expected some"):
        Lesson.model_validate({"given": given}).asked(KINDS)(bare, "socratic")


def test_more_exemplars_than_there_are_is_refused_in_one_line():
    with pytest.raises(ValueError, match="exemplar") as refusal:
        Lesson(exemplars=64).asked(KINDS)(PROBLEM, "cot")
    assert "\n" not in str(refusal.value)
