"""Predictions and scores: the pure part of `evaluation`, against values computed by hand or by brute force."""

from dataclasses import replace

import pytest

from retort.combining import Tolerance
from retort.evaluation import decide, num_votes, predict, score
from retort.intervals import wilson
from retort.records import Verdict

VERDICT = Verdict(
    "t/test/0", "t", "test", "cot", 0, "q?", "Question: q?\n", "3", "It is 3.", "3", True, "correct", 5, 6, "m"
)


def chains(*answers: str | None, gold: str | None = "3", problem_id: str = "t/test/0") -> list[Verdict]:
    """One problem's verdicts; `…` was cut off."""
    rows: list[Verdict] = []
    for index, said in enumerate(answers):
        answer = None if said == "…" else said
        right = None if gold is None else answer == gold
        reason = "truncated" if said == "…" else "no_answer" if answer is None else "correct" if right else "wrong"
        rows.append(
            replace(
                VERDICT, problem_id=problem_id, index=index, answer=answer, gold=gold, is_correct=right, reason=reason
            )
        )
    return rows


@pytest.mark.parametrize(("decode", "votes"), [("greedy", 1), ("maj@1", 1), ("maj@8", 8), ("maj@30", 30)])
def test_a_decode_says_how_many_chains_vote(decode: str, votes: int):
    assert num_votes(decode) == votes


@pytest.mark.parametrize(
    ("decode", "answer", "is_correct", "num_chains", "num_correct"),
    [
        ("greedy", "4", False, 1, 0),
        ("maj@1", "4", False, 1, 0),
        ("maj@2", "4", False, 2, 1),
        ("maj@3", "3", True, 3, 2),
        ("maj@5", "4", False, 5, 2),
        ("maj@9", "4", False, 5, 2),
    ],
)
def test_the_first_chains_by_index_vote(decode: str, answer: str, is_correct: bool, num_chains: int, num_correct: int):
    rows = chains("4", "3", "3", "4", "4")
    for order in (rows, rows[::-1], rows[2:] + rows[:2]):
        (made,) = predict(order, decode, Tolerance())
        assert (made.answer, made.is_correct) == (answer, is_correct)
        assert (made.num_chains, made.num_correct, made.num_tokens) == (num_chains, num_correct, 6 * num_chains)
        assert (made.decode, made.gold, made.question) == (decode, "3", "q?")


@pytest.mark.parametrize(
    ("answers", "gold", "answer", "is_correct"),
    [
        ([None, None], "3", None, False),
        ([None, "3"], "3", "3", True),
        (["…", "4"], "3", "4", False),
        (["3", "4", "4"], None, "4", None),
        ([None], None, None, None),
    ],
)
def test_no_answer_is_wrong_and_no_gold_is_neither(
    answers: list[str | None], gold: str | None, answer: str | None, is_correct: bool | None
):
    (made,) = predict(chains(*answers, gold=gold), "maj@3", Tolerance())
    assert (made.answer, made.is_correct) == (answer, is_correct)


def test_problems_and_thoughts_are_predicted_apart():
    rows = chains("3", "3") + chains("4", problem_id="t/test/1")
    rows += [replace(verdict, thought="answer", answer="5", is_correct=False) for verdict in chains("3")]
    made = predict(rows, "maj@2", Tolerance())
    assert [(p.problem_id, p.thought, p.answer, p.num_chains) for p in made] == [
        ("t/test/0", "answer", "5", 1),
        ("t/test/0", "cot", "3", 2),
        ("t/test/1", "cot", "4", 1),
    ]


def test_a_score_counts_problems_and_chains():
    rows = [
        *chains("3", "3", "4", problem_id="t/test/0"),  # right
        *chains("4", "4", "3", problem_id="t/test/1"),  # wrong
        *chains(None, "…", "…", problem_id="t/test/2"),  # no answer
        *chains("3", "3", "3", problem_id="t/test/3"),  # right
        *chains("9", "9", None, gold=None, problem_id="t/test/4"),  # no gold: does not count
    ]
    made = score(predict(rows, "maj@3", Tolerance()), rows)
    assert (made.task, made.thought, made.decode) == ("t", "cot", "maj@3")
    assert (made.problems, made.correct, made.accuracy, made.chains) == (4, 2, 0.5, 15)
    assert (made.low, made.high) == wilson(2, 4)
    assert made.pass_at_k == 3 / 4
    assert made.no_answer == 1 / 5
    assert made.truncated == 2 / 15
    assert made.mean_tokens == 6


def test_pass_at_k_of_a_score_uses_the_chains_that_are_there():
    rows = [*chains("3", "4", problem_id="t/test/0"), *chains("4", problem_id="t/test/1")]
    assert score(predict(rows, "maj@8", Tolerance()), rows).pass_at_k == 1 / 2
    assert (
        score(predict(rows, "greedy", Tolerance()), [verdict for verdict in rows if verdict.index < 1]).pass_at_k
        == 1 / 2
    )


def test_a_score_without_any_gold_answer_is_open():
    rows = chains("3", gold=None)
    made = score(predict(rows, "greedy", Tolerance()), rows)
    assert (made.problems, made.correct, made.accuracy, made.low, made.high) == (0, 0, 0.0, 0.0, 1.0)


def thought(name: str, *answers: str | None, problem_id: str = "t/test/0") -> list[Verdict]:
    return [replace(row, thought=name) for row in chains(*answers, problem_id=problem_id)]


def test_combiners_are_scored_beside_their_thoughts_from_the_same_chains():
    rows = [
        *(thought("pot", None) + thought("eot", "3") + thought("cot", "4")),
        *(
            row
            for name, said in (("pot", "4"), ("eot", "3"), ("cot", "3"))
            for row in thought(name, said, problem_id="b")
        ),
    ]
    combiners = ("fallback:pot,eot,cot", "majority:cot,pot,eot", "weighted:pot,eot,cot", "oracle:pot,eot,cot")
    weights = {"pot": 0.1, "eot": 0.9, "cot": 0.2}
    predictions, scores = decide(rows, "greedy", combiners, weights, Tolerance())
    accuracy = {row.thought: row.accuracy for row in scores}
    assert accuracy == {
        "pot": 0.0,
        "eot": 1.0,
        "cot": 0.5,
        "fallback:pot,eot,cot": 0.5,
        "majority:cot,pot,eot": 0.5,
        "weighted:pot,eot,cot": 1.0,
        "oracle:pot,eot,cot": 1.0,
    }
    assert len(predictions) == 2 * 7
    assert {row.thought: row.no_answer for row in scores}["pot"] == 0.5


def test_a_combiner_of_thoughts_that_were_not_asked_is_left_out():
    _, scores = decide(thought("pot", "3"), "greedy", ("fallback:pot,cot",), {}, Tolerance())
    assert [row.thought for row in scores] == ["pot"]


def test_right_calculator_steps_are_counted():
    rows = [replace(row, num_steps=3, num_right_steps=2) for row in chains("3", "4")]
    made = score(predict(rows, "maj@2", Tolerance()), rows)
    assert (made.steps, made.right_steps) == (6, 4)


def test_numbers_within_the_tolerance_vote_together():
    rows = chains("9", "9", "0.3", "0.30000000000000004", "0.3000000001", gold="0.3")
    (made,) = predict(rows, "maj@5", Tolerance())
    assert made.answer == "0.3"
    (exact,) = predict(rows, "maj@5", Tolerance(relative=0.0))
    assert exact.answer == "9"


def test_a_weighted_combiner_is_left_out_where_there_are_no_weights():
    rows = thought("pot", "3") + thought("cot", "3")
    _, scores = decide(rows, "greedy", ("weighted:pot,cot", "majority:pot,cot"), {}, Tolerance())
    assert [row.thought for row in scores] == ["cot", "majority:pot,cot", "pot"]
