"""One producer of prompts (DESIGN, invariant 5), and the canonical form that chains are kept under."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retort import evaluation, prompts
from retort.asking import Lesson, student_asked
from retort.engines import replay
from retort.engines.interface import SamplingDistribution
from retort.records import Chain, Problem
from retort.rollouts import Rollout
from retort.sampling import Model, plan
from retort.selection import label
from retort.solvers.zygote import Sandbox
from retort.store import open_store
from retort.store.pool import Pool
from retort.thoughts import THOUGHTS
from retort.verification import VerificationConfig, verdict

PLAIN = Problem("t/train/0", "t", "train", "Tom has 12 apples. How many?", "number", "12")
FULL = Problem("t/test/1", "t", "test", "Which is a fruit?", "choice", "a", ("apple", "Stein äöü"), "Fruit grows.")
CHAIN = Chain("0" * 64, 0, '"asked"', "The answer is 12.", "stop", 1, 1, 8, 0, "t/train/0", "cot", 1.5)


@pytest.mark.parametrize("problem", [PLAIN, FULL], ids=["plain", "choices and context"])
@pytest.mark.parametrize("thought", THOUGHTS)
def test_students_are_taught_and_asked_with_one_text(problem: Problem, thought: str, tmp_path: Path, sandbox: Sandbox):
    store = open_store(str(tmp_path))
    recording = tmp_path / "rec.jsonl"
    recording.write_text('{"question": "q", "completions": []}')
    model = Model("replay", (replay.Config(paths=(str(recording),)),))
    drawn, ask = SamplingDistribution(temperature=0.7), student_asked(Rollout())
    asked = evaluation.plans(model, store, [problem], [], [thought], ["greedy", "maj@2"], drawn, 8, ask)
    taught = verdict(problem, thought, CHAIN, 8, "m", VerificationConfig(), sandbox).prompt
    labelled = label(problem, thought)
    assert asked.keys() == {"greedy", "maj"}
    assert {json.loads(prompt.prompt) for one, _ in asked.values() for prompt in one.prompts} == {taught}
    assert labelled is None or labelled.prompt == taught
    (sampled,) = plan([problem], thought, Pool(store, {}), 1, 8, ask).prompts
    assert sampled.prompt == prompts.canonical(taught)
    assert sampled.prompt_hash == prompts.prompt_hash(sampled.prompt)


def test_some_thought_is_taught_from_labels():
    assert [thought for thought in THOUGHTS if label(PLAIN, thought)] != []


def test_a_chat_holds_the_same_text():
    (sampled,) = plan(
        [PLAIN], "cot", Pool(open_store("/unused"), {}), 1, 8, Lesson(chat=True).asked({"t": "jsonl"})
    ).prompts
    (message,) = json.loads(sampled.prompt)
    assert message == {"role": "user", "content": prompts.render(PLAIN, THOUGHTS["cot"].CUE).rstrip("\n")}


def test_the_layout_is_the_papers():
    assert prompts.render(PLAIN, "Think.") == "Question: Tom has 12 apples. How many?\nThink.\n"
    body = "Context: Fruit grows.\nQuestion: Which is a fruit?\nAnswer Choices:\n(a) apple\n(b) Stein äöü"
    assert prompts.body(FULL) == body
    assert prompts.ask(body, "Think.", ["Steps:", "One.", "Two."]) == f"{body}\nSteps:\nOne.\nTwo.\nThink.\n"


@given(st.text(), st.text(st.characters(exclude_characters="\n"), min_size=1))
def test_the_body_of_a_prompt_is_found_again(asked: str, cue: str):
    assert prompts.asked_in(prompts.ask(asked, cue), cue) == asked


def test_canonical_json_does_not_depend_on_the_order_of_keys():
    one = prompts.canonical([{"role": "user", "content": "a"}])
    assert one == prompts.canonical([{"content": "a", "role": "user"}]) == '[{"content":"a","role":"user"}]'


def test_hashes_of_prompts_never_change():
    # Pools outlive releases: with another hash every chain in them would be paid for again.
    assert prompts.canonical("Frage: “ä”?\n") == '"Frage: “ä”?\\n"'
    assert prompts.prompt_hash(prompts.canonical("Frage: “ä”?\n")) == (
        "7c24299eb458248296ba2f25507d1d617382fa35e6e33670bb1d6131469061de"
    )
    assert prompts.prompt_hash(prompts.canonical(prompts.as_chat("Frage: “ä”?\n"))) == (
        "267d7a52f38b83dc9db54a48dc4245fa9e91ef94f0985831d66d90530a63aecb"
    )


@given(st.text(st.characters()), st.text(st.characters()))
def test_prompts_differ_exactly_where_their_hashes_do(one: str, other: str):
    hashes = [prompts.prompt_hash(prompts.canonical(prompt)) for prompt in (one, other, prompts.as_chat(one))]
    assert json.loads(prompts.canonical(one)) == one
    assert (hashes[0] == hashes[1]) == (one == other)
    assert hashes[2] not in hashes[:2]


def test_problems_with_another_question_context_or_choice_are_asked_something_else():
    others = [replace(FULL, question="?"), replace(FULL, context=None), replace(FULL, choices=("apple", "stone")), FULL]
    assert len({prompts.render(problem, "Think.") for problem in others}) == len(others)
