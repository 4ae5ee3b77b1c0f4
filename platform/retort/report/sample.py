"""A seeded, even sample of all verdicts of a run, and what all of them, sampled or not, came to.

Rows in: `Verdict`, file by file. Out: at most `MAX_CHAINS` rows, as evenly as possible over model and reason, so that
rare reasons are there to be read, and a `Tally` for every model, thought and problem. Held in memory are a quarter more
rows than the sample has, one file, and the tallies, which hold no texts but answers.
"""

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from retort.records import Split, Verdict
from retort.report.contents import Contents, Sampling
from retort.report.formatting import shortened, visible
from retort.report.tallies import Asked, Said, Tally
from retort.store.hashing import digest

MAX_CHAINS = 100_000
MAX_CHARACTERS = 6000
"""Longer texts are shown with their middle left out."""
SEED = 0


@dataclass(frozen=True, slots=True)
class Row:
    """A chain as the page shows it: each of its characters is visible, and long texts have their middle left out."""

    model: str
    plan: str
    wording: str
    task: str
    split: Split
    thought: str
    problem: str
    index: int
    question: str
    gold: str | None
    answer: str | None
    text: str
    reason: str
    is_correct: bool | None
    tokens: int
    likelihood: float | None

    @property
    def id(self) -> str:
        """The name of its verdicts in the run's index, and which chain it is there."""
        return f"{self.model}/{self.plan}/{self.problem}/{self.thought}/{self.index:03d}"

    @property
    def asked(self) -> Asked:
        """By which its tally is found."""
        return Asked(self.model, self.thought, self.task, self.split, self.problem)


Stratum = tuple[str, str]
Ranked = tuple[int, int, int, Row]
"""A row with its rank in the draw, the place of its plan in the run, and a number that tells equal ranks apart."""


@dataclass
class Sample:
    """The rows drawn so far by model and reason, the sizes of these strata, and the tallies over all verdicts."""

    strata: dict[Stratum, list[Ranked]] = field(default_factory=lambda: defaultdict(list))
    sizes: Counter[Stratum] = field(default_factory=Counter[Stratum])
    tallies: dict[Asked, Tally] = field(default_factory=lambda: defaultdict(Tally))

    @property
    def total(self) -> int:
        """The number of all verdicts."""
        return self.sizes.total()

    @property
    def rows(self) -> list[Row]:
        """What was drawn, in the order of the run, the chains of one problem side by side."""
        kept = [(place, row) for ranked in self.strata.values() for _, place, _, row in ranked]
        return [row for _, row in sorted(kept, key=lambda one: (one[0], one[1].problem, one[1].index))]

    def cut(self, most: int) -> "Sample":
        """The sample had it been drawn with at most `most` rows."""
        level = quotas(self.sizes.values(), most)
        strata = {key: heapq.nsmallest(level, ranked) for key, ranked in self.strata.items()}
        return Sample(defaultdict(list, strata), self.sizes, self.tallies)


def draw(contents: Contents, most: int = MAX_CHAINS) -> Sample:
    """At most `most` rows; the same ones, whatever the order in which verdicts are read."""
    sample = Sample()
    held, highest = 0, dict[Stratum, int]()
    for place, sampling in enumerate(contents.samplings):
        for verdict in sampling.verdicts.records(Verdict) if sampling.verdicts else ():
            _count(sample, sampling, verdict)
            stratum, rank = (sampling.model, verdict.reason), _rank(sampling, verdict)
            if rank > highest.get(stratum, rank):
                continue
            sample.strata[stratum].append((rank, place, sample.total, _row(sampling, verdict)))
            held += 1
            if held >= most + most // 4 + 1:
                # Quotas only shrink as verdicts come in: what is cut now, or ranks above what is left, is never missed.
                sample = sample.cut(most)
                held = sum(map(len, sample.strata.values()))
                highest = {key: rows[-1][0] if rows else -1 for key, rows in sample.strata.items()}
                highest = {key: rank for key, rank in highest.items() if len(sample.strata[key]) < sample.sizes[key]}
    return sample.cut(most)


def quotas(sizes: Iterable[int], most: int) -> int:
    """The largest size of a stratum at which all of them, cut to it, hold at most `most` rows.

    >>> quotas([10, 2, 10], most=12)
    5
    """
    ordered, left = sorted(sizes), most
    for position, size in enumerate(ordered):
        level = left // (len(ordered) - position)
        if size > level:
            return level
        left -= size
    return ordered[-1] if ordered else 0


def _count(sample: Sample, sampling: Sampling, verdict: Verdict) -> None:
    model, thought, task = shown(sampling.model), shown(verdict.thought), shown(verdict.task)
    asked = Asked(model, thought, task, verdict.split, shown(verdict.problem_id))
    answer = None if verdict.answer is None else shown(verdict.answer)
    sample.tallies[asked].said[Said(verdict.is_correct, verdict.reason, answer)] += 1
    sample.sizes[sampling.model, verdict.reason] += 1


def _rank(sampling: Sampling, verdict: Verdict) -> int:
    key = [SEED, sampling.model, sampling.plan, verdict.problem_id, verdict.thought, verdict.index]
    return int(digest(key)[:16], 16)


def _row(sampling: Sampling, verdict: Verdict) -> Row:
    """A verdict as the page shows it. What is likely is told by the token, so that length does not decide."""
    logprob, tokens = verdict.logprob, verdict.num_tokens
    return Row(
        model=shown(sampling.model),
        plan=shown(sampling.plan),
        wording=shown(sampling.wording),
        task=shown(verdict.task),
        split=verdict.split,
        thought=shown(verdict.thought),
        problem=shown(verdict.problem_id),
        index=verdict.index,
        question=shown(verdict.question),
        gold=None if verdict.gold is None else shown(verdict.gold),
        answer=None if verdict.answer is None else shown(verdict.answer),
        text=shown(verdict.text),
        reason=shown(verdict.reason),
        is_correct=verdict.is_correct,
        tokens=tokens,
        likelihood=round(logprob / tokens, 4) if logprob is not None and math.isfinite(logprob) and tokens else None,
    )


def shown(text: str) -> str:
    """A text as the page shows it. Most have nothing to hide but line ends, which is quick to see."""
    short = shortened(text, MAX_CHARACTERS)
    return short if short.replace("\n", "").isprintable() else visible(short)
