"""What all chains of one model on one problem under one thought came to: how many are right, what they agree on.

The pass rate of a problem is the share of right chains among those that were judged, over all plans of the run; a
stratum is a range of pass rates.

    Tally of 3 right chains and 5 that say "12"  →  rate 0.375, stratum "up to 50% right", agreed ("12", 5)
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from retort.records import Split
from retort.selection import counts

STRATA = ("never right", "up to 25% right", "up to 50% right", "up to 75% right", "over 75% right", "always right")
"""What the page calls selection's ranges of pass rates, the hardest problems first."""
WORDS: dict[str, str] = dict(zip(counts.STRATA, STRATA, strict=True))
UNKNOWN = "not known"
"""The stratum of problems without gold answer."""


class Asked(NamedTuple):
    """A model, and what it was asked."""

    model: str
    thought: str
    task: str
    split: Split
    problem: str


class Said(NamedTuple):
    """What a verdict says of a chain."""

    is_correct: bool | None
    reason: str
    answer: str | None


@dataclass
class Tally:
    """The chains of one model on one problem under one thought, counted by what was said of them."""

    said: Counter[Said] = field(default_factory=Counter[Said])

    @property
    def chains(self) -> int:
        """How many there are."""
        return self.said.total()

    @property
    def judged(self) -> int:
        """How many were compared with a gold answer."""
        return sum(number for said, number in self.said.items() if said.is_correct is not None)

    @property
    def right(self) -> int:
        """How many have the gold answer."""
        return sum(number for said, number in self.said.items() if said.is_correct)

    @property
    def stratum(self) -> str:
        """The range that the pass rate lies in."""
        return stratum(self.right, self.judged)

    @property
    def agreed(self) -> tuple[str, int] | None:
        """The most frequent wrong answer and how many say it; of equally frequent ones the first in the alphabet."""
        votes: Counter[str] = Counter()
        for said, number in self.said.items():
            if said.reason == "wrong" and said.answer is not None:
                votes[said.answer] += number
        return min(votes.items(), key=lambda vote: (-vote[1], vote[0]), default=None)

    def number(self, reason: str) -> int:
        """How many have a reason."""
        return sum(number for said, number in self.said.items() if said.reason == reason)


def stratum(right: int, judged: int) -> str:
    """The range that a pass rate lies in.

    >>> stratum(2, 8), stratum(3, 8)
    ('up to 25% right', 'up to 50% right')
    """
    name = counts.stratum(right / judged if judged else None)
    return UNKNOWN if name is None else WORDS[name]


def by_reason(tallies: Iterable[Tally]) -> Counter[str]:
    """Chains by reason."""
    found: Counter[str] = Counter()
    for tally in tallies:
        for said, number in tally.said.items():
            found[said.reason] += number
    return found
