"""Votes, intervals and scores: the pure part of `evaluation`, against values computed by hand or by brute force."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retort.evaluation import num_votes, pass_at_k, predict, score, vote, wilson
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


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        (["3"], "3"),
        (["4", "3", "3"], "3"),
        (["4", "3"], "4"),
        (["3", "4", "4", "3"], "3"),
        ([None, None, "3"], "3"),
        ([None, "4", None, "3", "3"], "3"),
        ([None, None], None),
        ([], None),
    ],
)
def test_the_most_frequent_answer_wins_and_of_equals_the_first_seen(answers: list[str | None], winner: str | None):
    assert vote(answers) == winner


@given(st.lists(st.none() | st.sampled_from("abc"), max_size=9))
def test_a_vote_is_the_first_of_the_most_frequent(answers: list[str | None]):
    said = [answer for answer in answers if answer is not None]
    most = max(map(said.count, said), default=0)
    assert vote(answers) == next((answer for answer in said if said.count(answer) == most), None)


# Wilson (1927), to four places; the last two from Newcombe (1998), Table I.
@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 20, 0.0, 0.1611),
        (20, 20, 0.8389, 1.0),
        (1, 1, 0.2065, 1.0),
        (0, 0, 0.0, 1.0),
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
    ],
)
def test_the_interval_is_wilsons(correct: int, total: int, low: float, high: float):
    assert wilson(correct, total) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 5_000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_the_interval_holds_the_share_and_mirrors(counts: tuple[int, int]):
    correct, total = counts
    low, high = wilson(correct, total)
    assert 0 <= low <= correct / total + 1e-12
    assert correct / total - 1e-12 <= high <= 1
    assert wilson(total - correct, total) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize("samples", range(1, 8))
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_chain(samples: int):
    for correct in range(samples + 1):
        is_correct = [True] * correct + [False] * (samples - correct)
        for k in range(1, samples + 1):
            subsets = list(itertools.combinations(is_correct, k))
            assert pass_at_k(samples, correct, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


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
        (made,) = predict(order, decode)
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
    (made,) = predict(chains(*answers, gold=gold), "maj@3")
    assert (made.answer, made.is_correct) == (answer, is_correct)


def test_problems_and_thoughts_are_predicted_apart():
    rows = chains("3", "3") + chains("4", problem_id="t/test/1")
    rows += [replace(verdict, thought="answer", answer="5", is_correct=False) for verdict in chains("3")]
    made = predict(rows, "maj@2")
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
    made = score(predict(rows, "maj@3"), rows)
    assert (made.task, made.thought, made.decode) == ("t", "cot", "maj@3")
    assert (made.problems, made.correct, made.accuracy, made.chains) == (4, 2, 0.5, 15)
    assert (made.low, made.high) == wilson(2, 4)
    assert made.pass_at_k == 3 / 4
    assert made.no_answer == 1 / 5
    assert made.truncated == 2 / 15
    assert made.mean_tokens == 6


def test_pass_at_k_of_a_score_uses_the_chains_that_are_there():
    rows = [*chains("3", "4", problem_id="t/test/0"), *chains("4", problem_id="t/test/1")]
    assert score(predict(rows, "maj@8"), rows).pass_at_k == 1 / 2
    assert score(predict(rows, "greedy"), [verdict for verdict in rows if verdict.index < 1]).pass_at_k == 1 / 2


def test_a_score_without_any_gold_answer_is_open():
    rows = chains("3", gold=None)
    made = score(predict(rows, "greedy"), rows)
    assert (made.problems, made.correct, made.accuracy, made.low, made.high) == (0, 0, 0.0, 0.0, 1.0)
