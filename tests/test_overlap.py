"""Texts that say the same: chains that repeat each other, training questions that tests hold too."""

from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retort.overlap import QUESTION_WORDS, Overlap, compare, measure, ngrams, repeats, shares, words
from retort.records import Problem
from retort.run import load_problems
from retort.store import Store
from retort.tasks import arithmetic

PROBLEM = Problem("t/train/0", "t", "train", "", "number", "3")
NINE = "Tom has twelve red apples and buys five more"


def problem(number: int, question: str, split: str = "train", context: str | None = None) -> Problem:
    return replace(PROBLEM, id=f"t/{split}/{number}", split=split, question=question, context=context)


def overlaps(question: str, *tests: str) -> Overlap:
    (found,) = compare([problem(0, question)], [problem(n, text, "test") for n, text in enumerate(tests)])
    return found


@pytest.mark.parametrize(
    ("one", "other", "are_same"),
    [
        ("It is 3.", "it  IS\n3 .", True),
        ("3+4=7", "3 + 4 = 7", True),
        ("3 + 4", "3 - 4", False),
        ("3.5", "35", False),
        ("1,000", "1000", False),  # how a number is written is left as it is
        ("12", "1 2", False),
        ("Straße", "STRASSE", True),
        ("", "  \n", True),
    ],
)
def test_texts_have_the_same_words_but_for_case_and_spaces(one: str, other: str, are_same: bool):
    assert (words(one) == words(other)) is are_same


def test_a_text_shorter_than_an_ngram_is_one():
    assert ngrams(words("a b c d"), 3) == [("a", "b", "c"), ("b", "c", "d")]
    assert ngrams(words("a b"), 3) == [("a", "b")]
    assert ngrams((), 3) == [()]


@pytest.mark.parametrize(
    ("texts", "near", "expected"),
    [
        (["It is 3.", "It is 4.", "it is 3 ."], None, [None, None, "duplicate"]),
        (["a b c d e f", "a b c d e g"], None, [None, None]),
        (["a b c d e f", "a b c d e g"], 0.6, [None, "near_duplicate"]),  # 3 of 5 trigrams are shared
        (["a b c d e f", "a b c d e g"], 0.61, [None, None]),
        (["a b c", "c b a"], 0.3, [None, None]),
        # The last is near the second, which was dropped, and not the first.
        (["a b c d e f", "a b c d e g", "a b c d f g"], 0.5, [None, "near_duplicate", None]),
        (["", ""], 1.0, [None, "duplicate"]),
        ([], 0.8, []),
    ],
)
def test_what_repeats_an_earlier_text_that_is_kept(texts: list[str], near: float | None, expected: list[str | None]):
    assert repeats(texts, near) == expected


@given(texts=st.lists(st.text("ab ", max_size=12), max_size=8), near=st.none() | st.floats(0.1, 1))
def test_texts_that_are_kept_are_unlike_and_each_other_is_like_one_of_them(texts: list[str], near: float | None):
    found = repeats(texts, near)
    kept = [text for text, fate in zip(texts, found, strict=True) if fate is None]
    assert repeats(kept, near) == [None] * len(kept)
    assert len({words(text) for text in texts}) == len(kept) or near is not None
    for text, fate in zip(texts, found, strict=True):
        assert fate is None or repeats([*kept, text], near)[-1] is not None


@pytest.mark.parametrize(
    ("question", "tests", "expected"),
    [
        (NINE, [NINE.upper() + " "], (1.0, True, "t/test/0")),
        (NINE, [f"{NINE} today"], (1.0, False, "t/test/0")),
        (NINE, ["Tom has twelve red apples and buys five"], (0.5, False, "t/test/0")),  # one of two 8-grams
        (NINE, ["Ann has twelve red apples and buys five more"], (0.5, False, "t/test/0")),
        (NINE, ["Tom has twelve red apples and buys six more"], (0.0, False, None)),
        ("How many apples", ["Tell me how many apples she has"], (1.0, False, "t/test/0")),  # a short one is whole
        ("How many apples", ["How many pears"], (0.0, False, None)),
        (NINE, [], (0.0, False, None)),
        ("", ["", "How"], (1.0, True, "t/test/0")),
        (f"{NINE} today", ["x", "Tom has twelve red apples and buys five", NINE], (2 / 3, False, "t/test/1")),
    ],
)
def test_what_a_question_shares_with_tests(question: str, tests: list[str], expected: tuple[float, bool, str | None]):
    found = overlaps(question, *tests)
    assert (found.overlap, found.is_equal, found.nearest) == (pytest.approx(expected[0], abs=1e-6), *expected[1:])


@given(
    questions=st.lists(st.text("ab ", max_size=40), min_size=1, max_size=4),
    tests=st.lists(st.text("ab ", max_size=40), max_size=4),
)
def test_the_overlap_is_what_looking_at_every_pair_of_questions_finds(questions: list[str], tests: list[str]):
    asked = [problem(number, text) for number, text in enumerate(questions)]
    found = list(compare(asked, [problem(number, text, "test") for number, text in enumerate(tests)]))
    for text, row in zip(questions, found, strict=True):
        grams = ngrams(words(text), QUESTION_WORDS)
        length = len(grams[0])
        held = [gram for gram in grams if any(_holds(words(test), gram, length) for test in tests)]
        assert row.overlap == pytest.approx(len(held) / len(grams), abs=1e-6)
        assert row.is_equal == any(words(test) == words(text) for test in tests)
        assert (row.nearest is None) == (row.overlap == 0)


def _holds(said: tuple[str, ...], gram: tuple[str, ...], length: int) -> bool:
    return len(said) >= length and gram in ngrams(said, length)


def test_questions_on_a_text_are_compared_with_their_text():
    same = "What is the sentiment of this review, all in all, would you say?"
    (found,) = compare([problem(0, same, context="Good. " * 30)], [problem(0, same, "test", "Bad. " * 30)])
    assert not found.is_equal
    assert found.overlap < 0.5


def test_the_artifact_has_a_row_for_each_problem_that_may_be_learned_and_is_found_again(
    store: Store, caplog: pytest.LogCaptureFixture
):
    made = load_problems(store, arithmetic.Config(id="arithmetic", train=30, dev=10, test=10))
    with caplog.at_level("INFO", "retort.overlap"):
        artifact = measure(store, [made], [made], "chains")
    rows = artifact.lines("overlap.jsonl")
    learned = [row.id for row in made.records(Problem) if row.split != "test"]
    assert [row["problem_id"] for row in rows] == learned
    assert artifact.stats["problems"] == len(rows) == 40
    assert artifact.stats["half"] == sum(row["overlap"] >= 0.5 for row in rows)
    assert "of 40 training and dev questions" in caplog.text
    problems = list(made.records(Problem))
    asked, tests = ([row for row in problems if (row.split == "test") is is_test] for is_test in (False, True))
    assert rows == [asdict(row) for row in compare(asked, tests)]
    assert shares(artifact) == {row["problem_id"]: row["overlap"] for row in rows}
    caplog.clear()
    assert measure(store, [made], [made], "chains").id == artifact.id
    assert not caplog.text
