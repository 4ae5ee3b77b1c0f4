"""What a swept parameter does: accuracy at each of its levels with an interval, and pairs of trials alike in all else.

    estimate of 3 seeds          mean, and Student's t on them
    pairs of 30 and 1 chains     each two trials that differ in nothing else: their mean difference for each seed,
                                 Student's t on the seeds: what else was swept was not drawn by chance

A searcher that moves all parameters at once makes no pairs; what lies between two levels then may be owed to another
parameter, and nothing is said of them.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from retort.evaluation import Score
from retort.report.findings import listed
from retort.report.formatting import count, interval, points
from retort.report.trials import SEED, Parameter, Sweep, Trial, key

LEVEL_T = 0.975
"""Quantile of a 95% interval of two sides."""
MOST_LINES = 4
"""Lines of one plot that can be told apart."""

Fate = Literal["ahead", "behind", "open", "few", "unpaired"]
Scored = tuple[Trial, Score]
Kind = Literal["t", "range", "wilson"]
KIND_WORDS: dict[Kind, str] = {
    "t": "Student's t over the seeds of a point",
    "range": "from the lowest to the highest of two trials, or of trials that differ in more than the seed",
    "wilson": "Wilson's where there is one trial, or all are equal",
}


@dataclass(frozen=True)
class Estimate:
    """The mean accuracy of some trials, and how far it is known: `kind` says by what."""

    value: float
    low: float
    high: float
    kind: Kind
    trials: int


@dataclass(frozen=True)
class Pairs:
    """Two levels by the trials that differ in nothing else: the scores of each pair, the first level's first."""

    scores: tuple[tuple[Score, Score], ...]
    seeds: tuple[str, ...]
    """The seed of each pair; one for all where seeds are not swept."""

    @property
    def differences(self) -> tuple[float, ...]:
        """First minus second; 0.5 − 0.4 and 0.4 − 0.3 are one number, as they are not in binary."""
        return tuple(round(first.accuracy - second.accuracy, 12) for first, second in self.scores)

    @property
    def by_seed(self) -> list[float]:
        """The mean difference of each seed."""
        of_seed: dict[str, list[float]] = {}
        for seed, difference in zip(self.seeds, self.differences, strict=True):
            of_seed.setdefault(seed, []).append(difference)
        return [round(statistics.fmean(each), 12) for each in of_seed.values()]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.by_seed)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Student's 95% interval of the mean over seeds; None from fewer than three, or where they do not vary."""
        found = self.by_seed
        if len(found) < 3 or len(set(found)) == 1:
            return None
        half = _half(found)
        return self.mean - half, self.mean + half


def estimate(scored: Sequence[Scored]) -> Estimate:
    """The mean accuracy of at least one trial. Equal ones have no spread to go by: they are as sure as one of them is.

    What was swept besides the seed was not drawn by chance: its spread is no uncertainty.
    """
    scores = [score for _, score in scored]
    values = [score.accuracy for score in scores]
    if len(set(values)) == 1:
        return Estimate(values[0], scores[0].low, scores[0].high, "wilson", len(values))
    mean = statistics.fmean(values)
    if len(values) == 2 or len({trial.rest(SEED) for trial, _ in scored}) > 1:
        return Estimate(mean, min(values), max(values), "range", len(values))
    half = _half(values)
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half), "t", len(values))


def _half(values: Sequence[float]) -> float:
    """Half the width of Student's 95% interval of a mean."""
    from scipy.special import stdtrit

    return float(stdtrit(len(values) - 1, LEVEL_T)) * statistics.stdev(values) / math.sqrt(len(values))


def having(sweep: Sweep, parameter: Parameter, level: int, decode: str) -> list[Scored]:
    """Trials at one of the levels of a parameter that varies in their table, with their scores under a decode."""
    found = [trial for trial in sweep.varying(parameter.name) if parameter.level(trial.params[parameter.name]) == level]
    scored = [(trial, sweep.score(trial, decode)) for trial in found]
    return [(trial, score) for trial, score in scored if score is not None]


def pairs(parameter: Parameter, first: Sequence[Scored], second: Sequence[Scored]) -> Pairs:
    """Each trial of the first level beside the one of the second that is alike in all else."""
    others = {trial.rest(parameter.name): score for trial, score in second}
    met = [(trial, score) for trial, score in first if trial.rest(parameter.name) in others]
    return Pairs(
        tuple((score, others[trial.rest(parameter.name)]) for trial, score in met),
        tuple(key(trial.params.get(SEED)) for trial, _ in met),
    )


def judged(found: Pairs) -> Fate:
    """Whether the first level is ahead of the second: only where an interval says so.

    Of one pair Wilson's intervals of the two trials decide, which know nothing of other seeds.
    """
    if not found.scores:
        return "unpaired"
    if len(found.scores) == 1:
        first, second = found.scores[0]
        low, high = first.low - second.high, first.high - second.low
    elif found.interval is None:
        return "few"
    else:
        low, high = found.interval
    return "ahead" if low > 0 else "behind" if high < 0 else "open"


def sure(found: Pairs) -> str:
    """How far the mean difference of pairs is known, in points: `+12.2 to +49.1, 3 pairs`."""
    low_to_high = "" if found.interval is None else f"{points(found.interval[0])} to {points(found.interval[1])}, "
    num_pairs, num_seeds = len(found.scores), len(found.by_seed)
    of_seeds = f" of {count(num_seeds)} seeds" if num_seeds not in (1, num_pairs) else ""
    return f"{low_to_high}{count(num_pairs)} pair{'s' * (num_pairs > 1)}{of_seeds}"


def told(first: str, second: str, found: Pairs) -> str:
    """A clause on two levels of a parameter, by their names, of which there are pairs."""
    by = f"by {abs(100 * found.mean):.1f} points"
    words = {
        "ahead": f"{first} is ahead of {second} {by}",
        "behind": f"{first} is behind {second} {by}",
        "open": f"{first} cannot be told from {second}: {points(found.mean)} points",
        "few": f"{first} against {second} cannot be judged: {points(found.mean)} points",
    }
    return f"{words[judged(found)]} ({sure(found)})"


def apart(first: str, second: str, one: Estimate, other: Estimate) -> str:
    """A clause on two levels without pairs, by their intervals; whatever else differs between them may be behind it."""
    has_intervals = "range" not in (one.kind, other.kind)
    fate = "is ahead of" if one.low > other.high else "is behind" if one.high < other.low else ""
    if has_intervals and fate:
        return f"{first}, {stated(one)}, {fate} {second}, {stated(other)}"
    return f"{first}, {stated(one)}, cannot be told from {second}, {stated(other)}"


def grouped(usual: str, found: Mapping[str, Pairs]) -> str:
    """A sentence on several levels against the usual one: `Against first: random (+4.1; …) ahead; shortest (…) …`."""
    words: dict[Fate, str] = {
        "ahead": "ahead",
        "behind": "behind",
        "open": "not to be told from it",
        "few": "not to be judged",
    }
    clauses = [
        f"{listed([_item(level, each) for level, each in found.items() if judged(each) == fate])} {word}"
        for fate, word in words.items()
        if any(judged(each) == fate for each in found.values())
    ]
    return f"Against {usual}: {'; '.join(clauses)}."


def _item(level: str, found: Pairs) -> str:
    return f"{level} ({points(found.mean)}; {sure(found)})"


def against(sweep: Sweep, parameter: Parameter) -> Parameter | None:
    """The parameter of words whose levels are drawn as lines of their own: of those with few levels the widest."""
    others = [
        each
        for each in sweep.compared
        if each.name != parameter.name
        and not each.is_number
        and len(each.levels) <= MOST_LINES
        and all(each.name in trial.params for trial in sweep.varying(parameter.name))
    ]
    return max(others, key=lambda each: width(sweep, each), default=None)


def width(sweep: Sweep, parameter: Parameter) -> float:
    """The distance between the highest and the lowest level, in the mean accuracy of their trials."""
    means = [
        statistics.fmean(score.accuracy for _, score in rows)
        for level in range(len(parameter.levels))
        if (rows := having(sweep, parameter, level, sweep.metric.decode))
    ]
    return max(means) - min(means) if means else 0.0


def varies(sweep: Sweep, parameter: Parameter, held: Iterable[str]) -> str:
    """What differs among the trials of one point, in words."""
    inside = sweep.varying(parameter.name)
    names = [each for each in sweep.parameters if each.name not in {parameter.name, *held}]
    differ = [each for each in names if len({repr(trial.params.get(each.name)) for trial in inside}) > 1]
    if not differ:
        return "There is one trial a point."
    if [each.name for each in differ] == [SEED]:
        return "The trials of a point differ in their seed alone."
    return f"The trials of a point differ in {listed([each.called for each in differ])}."


def kinds(estimates: Iterable[Estimate]) -> str:
    """Which intervals a plot shows."""
    present = {each.kind for each in estimates}
    words = [text for kind, text in KIND_WORDS.items() if kind in present]
    return f"Bars: {'; '.join(words)}." if words else ""


def level_text(found: Estimate) -> str:
    """An estimate beside its dot: 48.0% (3)."""
    return f"{100 * found.value:.1f}% ({count(found.trials)})"


def none_or(number: int) -> str:
    """A count in a sentence: none, 1, 2."""
    return count(number) if number else "none"


def stated(found: Estimate) -> str:
    """An estimate in a sentence: its mean, and its interval where there is one."""
    trials = f"{count(found.trials)} trial{'s' * (found.trials > 1)}"
    if found.kind == "range":
        return f"{100 * found.value:.1f}% (mean of {trials})"
    return f"{100 * found.value:.1f}% (95% interval {interval(found.low, found.high)}, {trials})"
