"""Combining: several answers to one problem into one; from the chains of a thought (`vote`) or from several thoughts.

Rows in: `Prediction` of one model, one a problem, decode and thought. Rows out: `Prediction`, one a problem and decode,
with the combiner's text as its thought. A combiner is written in a recipe as `rule:thought,thought,…`:

    fallback:pot,eot,cot    the answer of the first thought that has one (ETD's rule at inference)
    majority:cot,pot,eot    the most frequent answer
    weighted:cot,pot,eot    the answer with the largest sum of the accuracies that its thoughts have on dev problems
    oracle:cot,pot,eot      right if any thought is: an upper bound that is told the gold answer, not a method

A thought without an answer (its program failed, its equations have no solution, its text says none) has no voice: it
neither votes nor ties. Of answers with equally many votes, or equal sums, the one of the thought that is listed first
wins. No answer at all is a wrong answer. Two thoughts say the same where `answers.compare` says so: numbers within the
task's tolerance (a program's `0.3333333` is the `1/3` of equations), everything else as canonical text.
"""

import difflib
import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from retort import answers
from retort.records import Prediction
from retort.thoughts import THOUGHTS

logger = logging.getLogger(__name__)

Rule = Literal["fallback", "majority", "weighted", "oracle"]
RULES: tuple[Rule, ...] = get_args(Rule)


@dataclass(frozen=True, slots=True)
class Combiner:
    """A rule and the thoughts that it combines, in the order that decides ties; `text` is how a recipe says it."""

    text: str
    rule: Rule
    thoughts: tuple[str, ...]

    @property
    def is_upper_bound(self) -> bool:
        """Whether it needs gold answers to combine, so that no model can be used in this way."""
        return self.rule == "oracle"


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far apart two numbers may be and still be one answer, as in `answers.compare`."""

    relative: float = 1e-6
    absolute: float = 0.0


def parse(text: str) -> Combiner:
    """The combiner that a recipe's text names; spaces do not count.

    Raises:
        ValueError: an unknown rule or thought, fewer than two thoughts, or one that is listed twice.
    """
    said, _, listed = "".join(text.split()).partition(":")
    rule = next(filter(said.__eq__, RULES), None)
    thoughts = tuple(listed.split(",")) if listed else ()
    if rule is None:
        raise ValueError(f"combiner {text!r}: unknown rule {said!r}; {_expected(said, RULES)}")
    for thought in thoughts:
        if thought not in THOUGHTS:
            raise ValueError(f"combiner {text!r}: unknown thought {thought!r}; {_expected(thought, THOUGHTS)}")
        if thoughts.count(thought) > 1:
            raise ValueError(f"combiner {text!r} lists {thought!r} twice; expected each thought once")
    if len(thoughts) < 2:
        raise ValueError(f"combiner {text!r} has {len(thoughts)} of at least two thoughts, as in '{rule}:cot,pot'")
    return Combiner(f"{rule}:{','.join(thoughts)}", rule, thoughts)


def vote(said: Sequence[str | None], tolerance: Tolerance = Tolerance()) -> str | None:
    """The most frequent answer; of equally frequent ones the first seen (SCoTD's rule). None where no chain answers.

    Answers are canonical; numbers within the tolerance are one answer, which its first voice speaks.
    """
    winner = elect(said, [1.0] * len(said), tolerance)
    return None if winner is None else said[winner]


def elect(said: Sequence[str | None], weights: Sequence[float], tolerance: Tolerance) -> int | None:
    """The place of the first voice of the answer with the largest sum of weights; of equal sums the first."""
    firsts: list[int] = []
    sums: list[float] = []
    for place, (answer, weight) in enumerate(zip(said, weights, strict=True)):
        if answer is None:
            continue
        known = (number for number, first in enumerate(firsts) if same(said[first], answer, tolerance))
        number = next(known, len(firsts))
        if number == len(firsts):
            firsts.append(place)
            sums.append(0.0)
        sums[number] += weight
    # Accuracies are shares: 0.3 + 0.6 ties with 0.9, whatever their binary sum is.
    return max(zip(sums, firsts, strict=True), key=lambda counted: round(counted[0], 9))[1] if firsts else None


def same(one: str | None, other: str | None, tolerance: Tolerance = Tolerance()) -> bool:
    """Whether two canonical answers are one. A text that is its own canonical number is a number."""
    if one == other or one is None or other is None or any(answers.canonical("number", x) != x for x in (one, other)):
        return one == other
    return bool(
        answers.compare(
            "number", one, other, relative_tolerance=tolerance.relative, absolute_tolerance=tolerance.absolute
        )
    )


def combine(
    combiner: Combiner,
    predictions: Mapping[str, Prediction],
    weights: Mapping[str, float] | None = None,
    tolerance: Tolerance = Tolerance(),
) -> Prediction:
    """The combined prediction of one problem from those of its thoughts, by name; those of other thoughts are ignored.

    The answer and whether it is right are those of the first listed thought that says it. Chains and tokens are sums
    over the thoughts that were consulted: all of them, but for `fallback` those up to the first with an answer, since
    no other has to be sampled.

    Raises:
        ValueError: a thought has no prediction; `weighted` without a thought's weight; `oracle` without gold answer.
    """
    lacking = [thought for thought in combiner.thoughts if thought not in predictions]
    if lacking:
        raise ValueError(f"{combiner.text} needs predictions of {', '.join(lacking)}; has {', '.join(predictions)}")
    asked = [predictions[thought] for thought in combiner.thoughts]
    assert len({(prediction.problem_id, prediction.decode) for prediction in asked}) == 1
    answering = [prediction for prediction in asked if prediction.answer is not None]
    winner, consulted = (answering or asked)[0], asked
    match combiner.rule:
        case "fallback":
            consulted = asked[: asked.index(winner) + 1] if answering else asked
        case "majority" | "weighted":
            voices = _weights(combiner, weights) if combiner.rule == "weighted" else dict.fromkeys(combiner.thoughts, 1)
            elected = elect([one.answer for one in asked], [voices[one.thought] for one in asked], tolerance)
            winner = winner if elected is None else asked[elected]
        case "oracle":
            if winner.is_correct is None:
                raise ValueError(f"{combiner.text} needs gold answers; problem {winner.problem_id} has none")
            winner = next((prediction for prediction in asked if prediction.is_correct), winner)
    return replace(
        winner,
        thought=combiner.text,
        num_chains=sum(prediction.num_chains for prediction in consulted),
        num_correct=sum(prediction.num_correct for prediction in consulted),
        num_tokens=sum(prediction.num_tokens for prediction in consulted),
    )


def combine_all(
    combiner: Combiner,
    predictions: Sequence[Prediction],
    weights: Mapping[str, float] | None = None,
    tolerance: Tolerance = Tolerance(),
) -> list[Prediction]:
    """One combined prediction a problem and decode, sorted by them.

    A problem for which one of the thoughts has no prediction (a recording lacks its chains) is left out and counted in
    the log, as it is left out of that thought's own score.

    Raises:
        ValueError: what `combine` refuses; or one of the thoughts has no prediction of any problem.
    """
    groups: dict[tuple[str, str], dict[str, Prediction]] = defaultdict(dict)
    for prediction in predictions:
        by_thought = groups[prediction.problem_id, prediction.decode]
        assert prediction.thought not in by_thought, "two predictions of one problem, decode and thought"
        by_thought[prediction.thought] = prediction
    known = {prediction.thought for prediction in predictions}
    if predictions and not known.issuperset(combiner.thoughts):
        raise ValueError(f"{combiner.text}: no predictions of {', '.join(sorted(set(combiner.thoughts) - known))}")
    complete = [key for key in sorted(groups) if groups[key].keys() >= set(combiner.thoughts)]
    if len(complete) < len(groups):
        logger.warning("%s: %d of %d problems lack a thought", combiner.text, len(groups) - len(complete), len(groups))
    return [combine(combiner, groups[key], weights, tolerance) for key in complete]


def _weights(combiner: Combiner, weights: Mapping[str, float] | None) -> Mapping[str, float]:
    unknown = [thought for thought in combiner.thoughts if thought not in (weights or {})]
    if weights is None or unknown:
        raise ValueError(f"{combiner.text} needs the dev accuracy of {', '.join(unknown)}: evaluate the dev split too")
    return weights


def _expected(got: str, known: Collection[str]) -> str:
    nearest = difflib.get_close_matches(got, list(known), n=1)
    suggestion = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"{suggestion}expected one of {', '.join(known)}"
