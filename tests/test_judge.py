"""The verdict on one chain: every reason, and what is stored beside it."""

import json
from dataclasses import replace

import pytest

from retort import answers
from retort.records import Chain, FinishReason, Problem
from retort.solvers.zygote import Sandbox
from retort.verification import REASONS, VerificationConfig, judge, verdict

NUMBER = Problem("t/train/0", "t", "train", "How many?", "number", "17")
CHOICE = Problem("t/train/1", "t", "train", "Which?", "choice", "b", ("stone", "apple"))
YES_NO = Problem("t/train/2", "t", "train", "Is it?", "yes_no", "yes")
TEXT = Problem("t/train/3", "t", "train", "Who?", "text", "ann")
PROBLEMS = {"number": NUMBER, "choice": CHOICE, "yes_no": YES_NO, "text": TEXT}

CASES: list[tuple[str, str, str, str | None]] = [
    ("number", "12 + 5 = 17. The answer is 17.", "correct", "17"),
    ("number", "The answer is $17.00.", "correct", "17"),
    ("number", "The answer is 34 / 2.", "correct", "17"),
    ("number", "The answer is 17.00001.", "correct", "17.00001"),
    ("number", "The answer is 17.001.", "wrong", "17.001"),
    ("number", "The answer is 16. No: the answer is 17.", "correct", "17"),
    ("number", "The answer is 16.\n\nQ: Another?\nA: The answer is 17.", "wrong", "16"),
    ("number", "The answer is 17%.", "wrong", "17%"),
    ("number", "17", "correct", "17"),
    ("number", "There are 17 of them, I think", "no_answer", None),
    ("number", "", "no_answer", None),
    ("number", "The answer is 2 * x.", "wrong", "2 * x"),
    ("number", "The answer is 3:45.", "undecided", None),
    ("number", "\ud800 The answer is 17.", "correct", "17"),
    ("choice", "The answer is (b).", "correct", "b"),
    ("choice", "The answer is apple.", "correct", "b"),
    ("choice", "The answer is (a).", "wrong", "a"),
    ("choice", "The answer is (c).", "no_answer", None),
    ("choice", "Both (a) and (b) fit.", "no_answer", None),
    ("yes_no", "So the answer is yes.", "correct", "yes"),
    ("yes_no", "The answer is false.", "wrong", "no"),
    ("yes_no", "The answer is perhaps.", "no_answer", None),
    ("text", "The answer is Ann.", "correct", "ann"),
    ("text", "The answer is Bob.", "wrong", "bob"),
]


def chain(text: str, finish: FinishReason = "stop", num_tokens: int = 6, max_new_tokens: int = 8) -> Chain:
    return Chain("0" * 64, 4, '"asked"', text, finish, 5, num_tokens, max_new_tokens, 9, "t/train/0", "cot", 1.5)


@pytest.mark.parametrize(("kind", "text", "reason", "answer"), CASES)
def test_a_chain_is_judged(kind: str, text: str, reason: str, answer: str | None, sandbox: Sandbox):
    assert judge(PROBLEMS[kind], "cot", chain(text), 8, VerificationConfig(), sandbox) == (reason, answer)


@pytest.mark.parametrize(("kind", "text", "reason", "answer"), CASES)
def test_without_a_gold_answer_a_found_one_is_unlabelled(
    kind: str, text: str, reason: str, answer: str | None, sandbox: Sandbox
):
    problem = replace(PROBLEMS[kind], answer=None)
    is_read = answer is not None and answers.canonical(problem.answer_kind, answer, choices=problem.choices) is not None
    expected = ("unlabelled", answer) if is_read else (reason if answer is None else "undecided", None)
    assert judge(problem, "cot", chain(text), 8, VerificationConfig(), sandbox) == expected


@pytest.mark.parametrize(
    ("finish", "num_tokens", "sampled_with", "budget", "is_cut_off"),
    [
        ("stop", 8, 8, 8, False),
        ("stop", 8, 64, 8, False),  # ended within the budget, whatever it was sampled with
        ("stop", 9, 64, 8, True),  # longer than the budget: had not ended there
        ("length", 8, 8, 8, True),
        ("length", 64, 64, 8, True),
        ("stop", 0, 8, 8, False),  # a recording does not know its tokens
    ],
)
def test_a_chain_that_is_longer_than_the_budget_is_cut_off_there(
    finish: FinishReason, num_tokens: int, sampled_with: int, budget: int, is_cut_off: bool, sandbox: Sandbox
):
    right = chain("The answer is 17.", finish, num_tokens, sampled_with)
    expected = ("truncated", None) if is_cut_off else ("correct", "17")
    assert judge(NUMBER, "cot", right, budget, VerificationConfig(), sandbox) == expected


def test_the_tables_give_every_reason(sandbox: Sandbox):
    met = {reason for _, _, reason, _ in CASES} | {"truncated", "undecided", "unlabelled", "wrong_step"}
    assert met == set(REASONS)


def test_a_gold_answer_that_cannot_be_read_leaves_the_chain_undecided(sandbox: Sandbox):
    problem = replace(NUMBER, answer="a dozen")
    reason, _ = judge(problem, "cot", chain("The answer is 12."), 8, VerificationConfig(), sandbox)
    assert reason == "undecided"


@pytest.mark.parametrize(("last_number", "reason", "answer"), [(False, "no_answer", None), (True, "correct", "17")])
def test_the_last_number_counts_only_where_it_is_asked_for(
    last_number: bool, reason: str, answer: str | None, sandbox: Sandbox
):
    text = "He had 12 and now there are 17 of them"
    assert judge(NUMBER, "cot", chain(text), 8, VerificationConfig(last_number=last_number), sandbox) == (
        reason,
        answer,
    )


@pytest.mark.parametrize(("tolerance", "reason"), [(0, "wrong"), (1e-6, "wrong"), (1e-3, "correct")])
def test_numbers_within_the_tolerance_are_equal(tolerance: float, reason: str, sandbox: Sandbox):
    config = VerificationConfig(relative_tolerance=tolerance)
    assert judge(NUMBER, "cot", chain("The answer is 17.001."), 8, config, sandbox) == (reason, "17.001")


def test_a_verdict_holds_all_that_later_stages_need(sandbox: Sandbox):
    made = verdict(CHOICE, "cot", chain("The answer is (a)."), 8, "model", VerificationConfig(), sandbox)
    assert (made.problem_id, made.task, made.split, made.thought, made.index) == ("t/train/1", "t", "train", "cot", 4)
    assert made.prompt == "Question: Which?\nAnswer Choices:\n(a) stone\n(b) apple\nLet's think step by step.\n"
    assert (made.question, made.gold, made.text) == ("Which?", "b", "The answer is (a).")
    assert (made.answer, made.is_correct, made.reason) == ("a", False, "wrong")
    assert (made.num_prompt_tokens, made.num_tokens, made.model_id) == (5, 6, "model")


@pytest.mark.parametrize(
    ("text", "finish", "is_correct"),
    [
        ("The answer is 17.", "stop", True),
        ("The answer is 16.", "stop", False),
        ("Who knows?", "stop", False),
        ("The answer is 2 * x.", "stop", False),
        ("The answer is 17.", "length", False),
    ],
)
def test_only_a_correct_chain_is_correct(text: str, finish: FinishReason, is_correct: bool, sandbox: Sandbox):
    assert verdict(NUMBER, "cot", chain(text, finish), 8, "m", VerificationConfig(), sandbox).is_correct is is_correct
    unlabelled = replace(NUMBER, answer=None)
    assert verdict(unlabelled, "cot", chain(text, finish), 8, "m", VerificationConfig(), sandbox).is_correct is None


def test_a_wrong_step_rejects_a_right_answer_only_where_steps_are_checked(sandbox: Sandbox):
    lucky = chain("12 + 6 = <<12+6=19>>19, less one is <<18-1=17>>17. The answer is 17.")
    assert judge(NUMBER, "cot", lucky, 8, VerificationConfig(), sandbox) == ("correct", "17")
    assert judge(NUMBER, "cot", lucky, 8, VerificationConfig(check_steps=True), sandbox) == ("wrong_step", "17")
    made = verdict(NUMBER, "cot", lucky, 8, "m", VerificationConfig(), sandbox)
    assert (made.num_steps, made.num_right_steps) == (2, 1)
    strict = verdict(NUMBER, "cot", lucky, 8, "m", VerificationConfig(check_steps=True), sandbox)
    assert (strict.reason, strict.is_correct) == ("wrong_step", True)
    sound = replace(lucky, text="12 + 5 = <<12+5=17>>17. The answer is 17.")
    assert judge(NUMBER, "cot", sound, 8, VerificationConfig(check_steps=True), sandbox) == ("correct", "17")


@pytest.mark.parametrize(("tolerance", "reason"), [(0, "wrong"), (1e-3, "wrong"), (1e-2, "correct")])
def test_an_absolute_tolerance_is_the_papers_rule(tolerance: float, reason: str, sandbox: Sandbox):
    config = VerificationConfig(absolute_tolerance=tolerance)
    assert judge(NUMBER, "cot", chain("The answer is 17.005."), 8, config, sandbox) == (reason, "17.005")


@pytest.mark.parametrize(
    ("said", "gold", "reason", "answer"),
    [
        ("\\boxed{2\\sqrt{4}}", "4", "correct", "4"),
        ("\\boxed{\\frac{-34}{-2}}", "17", "correct", "17"),
        ("\\boxed{3\\sqrt{4}}", "4", "wrong", "3\\sqrt{4}"),
    ],
)
def test_what_only_computer_algebra_can_read_is_settled_in_the_sandbox(
    said: str, gold: str, reason: str, answer: str, sandbox: Sandbox
):
    problem = replace(NUMBER, answer=gold)
    assert judge(problem, "cot", chain(said), 8, VerificationConfig(), sandbox) == (reason, answer)


def test_a_rollout_is_cut_off_by_its_longest_turn_alone(sandbox: Sandbox):
    turns = tuple(json.dumps({"num_tokens": tokens}) for tokens in (5, 8, 7))
    rolled = replace(chain("The answer is 17.", num_tokens=20), turns=turns)
    assert judge(NUMBER, "cot", rolled, 8, VerificationConfig(), sandbox) == ("correct", "17")
    assert judge(NUMBER, "cot", rolled, 7, VerificationConfig(), sandbox) == ("truncated", None)
