"""Intervals and paired comparisons, against published values, values computed by hand, and brute force."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retort.intervals import Paired, mcnemar, paired, pass_at_k, spread, wilson

COUNTS = st.tuples(*[st.integers(0, 60)] * 4).filter(any)


def outcomes(both: int, only_first: int, only_second: int, neither: int) -> tuple[dict[str, bool], dict[str, bool]]:
    """Right or wrong by problem of two models with these counts."""
    rows = (
        [(True, True)] * both
        + [(True, False)] * only_first
        + [(False, True)] * only_second
        + [(False, False)] * neither
    )
    first, second = ({f"t/test/{index:05}": row[side] for index, row in enumerate(rows)} for side in (0, 1))
    return first, second


def compared(*counts: int) -> Paired:
    return paired(*outcomes(*counts))


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


@pytest.mark.parametrize(
    ("samples", "correct", "k"), [(5, 2, 3), (6, 1, 2), (4, 4, 1), (4, 0, 4), (5, 4, 2), (3, 1, 3)]
)
def test_pass_at_k_is_the_share_of_draws_that_hold_a_correct_chain(samples: int, correct: int, k: int):
    draws = list(itertools.combinations([True] * correct + [False] * (samples - correct), k))
    assert pass_at_k(samples, correct, k) == pytest.approx(sum(map(any, draws)) / len(draws))


# By hand: 2 × P(X ≤ the smaller) of a fair coin. 1 of 8: 2 × 9/2⁸; 6 of 22: 2 × 110056/2²², which the R package
# contingencytables gives as 0.052479 (Cavo et al. 2012); 2 of 14: 2 × 106/2¹⁴; a tie is at most 1.
@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        (1, 7, 0.0703125),
        (7, 1, 0.0703125),
        (6, 16, 220112 / 2**22),
        (12, 2, 212 / 2**14),
        (0, 5, 0.0625),
        (0, 6, 0.03125),
        (1, 0, 1.0),
        (0, 0, 1.0),
        (9, 9, 1.0),
    ],
)
def test_the_test_is_mcnemars_exact_one(only_first: int, only_second: int, p: float):
    assert mcnemar(only_first, only_second) == p


@given(st.integers(0, 80), st.integers(0, 80))
def test_the_p_value_is_what_the_coin_gives_that_is_at_least_as_one_sided(only_first: int, only_second: int):
    total = only_first + only_second
    as_far = [
        math.comb(total, heads) for heads in range(total + 1) if abs(2 * heads - total) >= abs(only_first - only_second)
    ]
    assert mcnemar(only_first, only_second) == pytest.approx(sum(as_far) / 2**total)


def test_a_p_value_of_thousands_of_problems_neither_overflows_nor_vanishes():
    # The normal approximation with its continuity correction, good to a percent this far out.
    assert mcnemar(2_000, 2_300) == pytest.approx(math.erfc((300 - 1) / math.sqrt(2 * 4_300)), rel=0.01)


# Newcombe (1998), Statist. Med. 17, 2635–2650, Table III, method 10; the last is of Cavo et al. 2012, as the R package
# contingencytables computes it.
@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((20, 12, 2, 16), 0.0562, 0.3292),
        ((18, 12, 2, 18), 0.0562, 0.3290),
        ((36, 14, 0, 0), 0.1528, 0.4167),
        ((35, 14, 0, 1), 0.1461, 0.4175),
        ((18, 14, 0, 18), 0.1441, 0.3963),
        ((2, 97, 1, 0), 0.8721, 0.9854),
        ((1, 98, 0, 1), 0.9171, 0.9916),
        ((0, 29, 1, 0), 0.6666, 0.9882),
        ((0, 30, 0, 0), 0.8395, 1.0),
        ((54, 0, 0, 0), -0.0664, 0.0664),
        ((53, 0, 0, 1), -0.0729, 0.0729),
        ((30, 0, 0, 24), -0.0358, 0.0358),
        ((27, 0, 0, 27), -0.0351, 0.0351),
        ((59, 6, 16, 80), -0.1186, -0.0046),
    ],
)
def test_the_paired_interval_is_newcombes(counts: tuple[int, ...], low: float, high: float):
    found = compared(*counts)
    assert found.difference == pytest.approx((counts[1] - counts[2]) / sum(counts))
    assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)


@given(COUNTS)
def test_the_paired_interval_holds_the_difference_and_mirrors(counts: tuple[int, int, int, int]):
    both, only_first, only_second, neither = counts
    found, mirrored = compared(*counts), compared(both, only_second, only_first, neither)
    assert (found.both_right, found.only_first, found.only_second, found.neither) == counts
    assert found.problems == sum(counts)
    assert -1 <= found.low <= found.difference + 1e-12
    assert found.difference - 1e-12 <= found.high <= 1
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))
    assert mirrored.p == found.p


def test_a_paired_interval_is_narrower_than_two_separate_ones():
    found = compared(500, 40, 10, 450)
    (low_first, high_first), (low_second, high_second) = wilson(540, 1000), wilson(510, 1000)
    assert low_first < high_second, "the separate intervals overlap"
    assert found.low > 0, "the paired one does not hold 0"
    assert found.high - found.low < (high_first - low_second) - (low_first - high_second)


def test_only_problems_that_both_have_are_compared():
    first = {"a": True, "b": False, "c": True}
    second = {"b": True, "c": True, "d": False}
    found = paired(first, second)
    assert (found.both_right, found.only_first, found.only_second, found.neither) == (1, 0, 1, 0)
    assert found.difference == -0.5


def test_a_comparison_without_a_shared_problem_is_refused():
    with pytest.raises(ValueError, match="no problem is in both: 1 in the first, 2 in the second"):
        paired({"a": True}, {"b": True, "c": False})


def test_the_spread_over_seeds_is_the_sample_standard_deviation():
    assert spread([2, 4, 4, 4, 5, 5, 7, 9]) == pytest.approx((5, math.sqrt(32 / 7)))
    assert spread([0.6, 0.6]) == (0.6, 0.0)
    assert spread([0.25]) == (0.25, None)


def test_a_spread_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one value"):
        spread([])
