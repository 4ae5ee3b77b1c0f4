"""What our comparison makes of pairs that it was not fitted to: every failure by name, and math-verify beside it.

The lists are the published errors of `answers.compare`: a pair that leaves them is progress, one that joins is not.
"""

import pytest

from benchmarks.bench_answers import (
    CLEAR,
    CONVENTION,
    JUDGES,
    Pair,
    Report,
    math_verify_default,
    math_verify_latex,
    ours,
    ours_then_math_verify,
    report,
)

WRONG = """
    1000000 ≠ 1000001
    5 kg ≠ 5 g
    3 hours ≠ 3 minutes
    0.35 = 35%
    March 5, 2021 = 5 March 2021
    2021-03-05 = March 5, 2021
    Mar 5, 2021 = March 5, 2021
    3:30 PM = 15:30
    {1, 2, 3} = {3, 1, 2}
    {1/2, 3} = {0.5, 3}
    (4, 7) = (4,7)
    x + 1 = 1 + x
    (x+1)^2 = x^2 + 2x + 1
    x = 5 = x=5
    [0, \\infty) = [0,\\infty)
    well-known = well known
    \\text{east} = east
    café = cafe\u0301
"""
UNDECIDED = """
    6×10⁴ = 60000
    1 250 000 = 1250000
    12_500 = 12500
    3 x 10^5 = 300000
    twelve = 12
    one hundred and five = 105
    1e3 ≠ 10^4
    ≠ 0
    none ≠ 0
    USD 250 = 250
    16 m^2 = 16
    16 m^2 ≠ 162
    -\\frac{1}{4} = \\frac{-1}{4}
    \\boxed{204} = 204
    45^\\circ = 45
    2\\sqrt{3} = \\sqrt{12}
    2 \\times 10^{3} = 2000
    \\sqrt{2} ≠ 2
    2\\pi ≠ \\pi^2
    option C = C
    \\text{B} = B
"""
AGAINST_CONVENTION = """
    8 cats ≠ 8 dogs
    1, 2, 3 = {1, 2, 3}
    the cat = cat
    x = 5 = 5
"""


def lines(listed: str) -> set[str]:
    return {line.strip() for line in listed.strip().splitlines()}


def names(pairs: list[Pair]) -> set[str]:
    return {str(pair).strip() for pair in pairs}


@pytest.fixture(scope="module")
def reports() -> dict[str, Report]:
    return {judge.__name__: report(judge, CLEAR) for judge in JUDGES.values()}


def test_the_pairs_are_many_and_each_is_there_once():
    assert len(CLEAR) == 130
    pairs = [(pair.kind, pair.answer, pair.gold) for pair in CLEAR + CONVENTION]
    assert len(set(pairs)) == len(pairs)
    assert min(sum(pair.kind == kind for pair in CLEAR) for kind in ("number", "choice", "yes_no", "text")) >= 8


def test_every_pair_that_ours_gets_wrong_or_leaves_undecided_is_lines(reports: dict[str, Report]):
    found = reports[ours.__name__]
    assert names(found.wrong) == lines(WRONG)
    assert names(found.undecided) == lines(UNDECIDED)
    assert len(found.right) == 91


def test_every_pair_where_ours_is_against_the_convention_is_lines():
    assert names(report(ours, CONVENTION).wrong) == lines(AGAINST_CONVENTION)


def test_ours_is_wrong_on_fewer_pairs_than_math_verify(reports: dict[str, Report]):
    alone, default, latex = (reports[judge.__name__] for judge in (ours, math_verify_default, math_verify_latex))
    assert len(alone.wrong) < min(len(default.wrong), len(latex.wrong))
    # Where an undecided pair counts as different, as math-verify's own `verify` has it.
    assert alone.right_at_best > max(default.right_at_best, latex.right_at_best)


def test_verification_is_right_on_more_pairs_than_math_verify(reports: dict[str, Report]):
    default, latex, together = (
        reports[judge.__name__] for judge in (math_verify_default, math_verify_latex, ours_then_math_verify)
    )
    assert len(together.right) > max(len(default.right), len(latex.right))
