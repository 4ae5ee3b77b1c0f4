"""Metrics of sub-questions: BLEU by hand, alignment by brute force, the real embeddings, and no network."""

import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retort.questions import alignment, embed, score

EATS = "How many eggs does Mia eat every day?"
SELLS = "How many eggs does she sell?"
EARNS = "How much money does she make at the market?"
FAR = "Which planet is the largest?"
QUESTIONS = (EATS, SELLS, EARNS, FAR, "What is 3 + 4?", "?")


def test_questions_that_are_the_reference_have_full_marks():
    reference = [[EATS, SELLS, EARNS], [FAR]]
    found = score(reference, reference)
    assert (found.bleu, found.same_count, found.similarity) == pytest.approx((100, 1, 1))
    assert found.problems == 2
    assert found.bleu <= 100
    assert found.similarity <= 1


# By hand: every n-gram of the four words is in the reference of five, so BLEU is the brevity penalty exp(1 - 5/4).
def test_bleu_is_of_the_whole_corpus_with_a_problems_questions_as_one_segment():
    assert score([["how many eggs remain"]], [["how many eggs remain today"]]).bleu == pytest.approx(
        100 * math.exp(-0.25)
    )
    one = score([["how many", "eggs remain"]], [["how many eggs", "remain today"]])
    assert one.bleu == pytest.approx(100 * math.exp(-0.25))
    two = score([["how many eggs remain"], [FAR]], [["how many eggs remain today"], [FAR]])
    assert two.bleu == pytest.approx(100 * math.exp(1 - 11 / 10))  # the question mark is a token


def test_the_share_of_problems_with_as_many_questions():
    asked = [[EATS], [EATS, SELLS], [], [EATS, SELLS]]
    reference = [[SELLS], [EATS], [EATS], [FAR, SELLS]]
    assert score(asked, reference).same_count == 0.5


def test_a_question_too_many_or_too_few_costs_its_share_and_moves_no_other():
    assert alignment([EATS, EARNS], [EATS, SELLS, EARNS]) == pytest.approx(2 / 3)
    assert alignment([FAR, EATS, SELLS, EARNS], [EATS, SELLS, EARNS]) == pytest.approx(3 / 4)


def test_nothing_asked_is_similar_to_nothing():
    assert alignment([], [EATS]) == 0
    assert alignment([""], [EATS]) == 0
    assert score([[], [EATS]], [[SELLS], [EATS]]).similarity == pytest.approx(0.5)


def test_the_same_questions_in_another_order_are_not_the_same():
    assert alignment([SELLS, EATS], [EATS, SELLS]) < alignment([EATS, SELLS], [EATS, SELLS])


def test_a_rephrased_question_is_nearer_than_another_one():
    rephrased = alignment(["What number of eggs does Mia eat each day?"], [EATS])
    assert 1 > rephrased > alignment([EARNS], [EATS]) > alignment([FAR], [EATS])


@settings(deadline=None, max_examples=50)
@given(*[st.lists(st.sampled_from(QUESTIONS), min_size=1, max_size=4)] * 2)
def test_the_alignment_is_the_best_one_in_order(asked: list[str], reference: list[str]):
    cosines = embed(asked) @ embed(reference).T
    best = max(
        sum(cosines[i, j] for i, j in zip(rows, columns, strict=True))
        for length in range(min(len(asked), len(reference)) + 1)
        for rows in itertools.combinations(range(len(asked)), length)
        for columns in itertools.combinations(range(len(reference)), length)
    )
    assert alignment(asked, reference) == pytest.approx(best / max(len(asked), len(reference)), abs=1e-5)
    assert alignment(reference, asked) == pytest.approx(alignment(asked, reference), abs=1e-5)
    assert 0 <= alignment(asked, reference) <= 1


def test_embeddings_have_length_one_and_do_not_depend_on_their_neighbours():
    together = embed([EATS, "", FAR])
    assert np.linalg.norm(together, axis=1) == pytest.approx([1, 0, 1], abs=1e-6)
    assert embed([FAR])[0] == pytest.approx(together[2], abs=1e-6)


def test_the_model_is_read_from_the_installed_package_without_network(tmp_path: Path):
    program = (
        "import socket\n"
        "def refuse(*_): raise AssertionError('a connection was asked for')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from retort.questions import alignment\n"
        "print(alignment(['one?'], ['one?']))\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert float(done.stdout or "nan") == pytest.approx(1), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("asked", "reference", "complaint"),
    [
        ([], [], "questions of 0 problems against 0"),
        ([[EATS]], [[EATS], [SELLS]], "questions of 1 problems against 2"),
        ([[EATS], [EATS]], [[EATS], []], "problem 1 of 2 has no reference questions"),
    ],
)
def test_what_cannot_be_compared_is_refused(asked: list[list[str]], reference: list[list[str]], complaint: str):
    with pytest.raises(ValueError, match=complaint):
        score(asked, reference)
