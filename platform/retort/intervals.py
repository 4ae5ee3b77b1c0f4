"""Intervals: how sure a measured share is, and whether two models differ on the same problems.

Counts and right-or-wrong by problem in, numbers out; nothing is sampled, so the same counts give the same digits.

    wilson(8, 10)                                                  0.490 and 0.943
    paired({"a": True, "b": True}, {"a": True, "b": False})        difference 0.5, between −0.273 and 0.905, p = 1

Two scores on the same problems are compared by problem: what both get right or wrong says nothing about their
difference, and their two separate intervals may overlap where the difference is sure.
"""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Z_95 = 1.959964  # standard normal, 97.5%


@dataclass(frozen=True, slots=True)
class Paired:
    """Two models on the same problems: counts, the difference of their accuracies, and how sure it is.

    `difference` is first minus second. `low` and `high` are Newcombe's 95% interval of it for paired shares (his method
    10, 1998): Wilson's intervals of the two shares, joined by their correlation. `p` is the exact McNemar test.
    """

    both_right: int
    only_first: int
    only_second: int
    neither: int
    difference: float
    low: float
    high: float
    p: float

    @property
    def problems(self) -> int:
        """How many problems were compared."""
        return self.both_right + self.only_first + self.only_second + self.neither


def wilson(correct: int, total: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927), 95% by default.

    >>> [round(bound, 4) for bound in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    if total == 0:
        return 0.0, 1.0
    share = correct / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Chance that at least one of k chains is correct, unbiased, from n ≥ k samples (Chen et al. 2021)."""
    if samples - correct < k:
        return 1.0
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1) of one measure over several seeds; no deviation from one value.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("a mean needs at least one value, got none")
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value of McNemar's test: were the problems that only one model gets right shared by a coin?

    Twice the smaller binomial tail, at most 1. In whole numbers until the last division: exact for any counts.

    >>> mcnemar(1, 7)  # 2 × (1 + 8) / 2⁸
    0.0703125
    """
    total = only_first + only_second
    tail, term = 0, 1
    for count in range(min(only_first, only_second) + 1):
        tail += term
        term = term * (total - count) // (count + 1)
    return min(1.0, 2 * tail / 2**total)


def paired(first: Mapping[str, bool], second: Mapping[str, bool]) -> Paired:
    """The comparison over the problem ids that both mappings have; True is right.

    Raises:
        ValueError: they have no problem in common.
    """
    shared = first.keys() & second.keys()
    if not shared:
        raise ValueError(f"no problem is in both: {len(first)} in the first, {len(second)} in the second")
    counts = Counter((first[problem], second[problem]) for problem in shared)
    both, only_first, only_second, neither = (
        counts[outcome] for outcome in ((True, True), (True, False), (False, True), (False, False))
    )
    low, high = _newcombe(both, only_first, only_second, neither)
    return Paired(
        both_right=both,
        only_first=only_first,
        only_second=only_second,
        neither=neither,
        difference=(only_first - only_second) / len(shared),
        low=low,
        high=high,
        p=mcnemar(only_first, only_second),
    )


def _newcombe(both: int, only_first: int, only_second: int, neither: int) -> tuple[float, float]:
    """Newcombe's interval of a difference of paired shares: method 10 of Statist. Med. 17 (1998), 2635–2650."""
    total = both + only_first + only_second + neither
    right_first, right_second = both + only_first, both + only_second
    share_first, share_second = right_first / total, right_second / total
    low_first, high_first = wilson(right_first, total)
    low_second, high_second = wilson(right_second, total)
    product = right_first * (total - right_first) * right_second * (total - right_second)
    surplus = both * neither - only_first * only_second
    if surplus > 0:
        surplus = max(surplus - total / 2, 0)  # the continuity correction that makes it method 10
    phi = surplus / math.sqrt(product) if product else 0.0
    below, above = (
        math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))
        for one, other in (
            (share_first - low_first, high_second - share_second),
            (share_second - low_second, high_first - share_first),
        )
    )
    difference = share_first - share_second
    return max(-1.0, difference - below), min(1.0, difference + above)
