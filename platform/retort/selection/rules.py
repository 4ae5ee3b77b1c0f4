"""Rules: what becomes of every chain of one problem, and which problems are left out before any chain is looked at.

Rows in: `Verdict`. Rows out: the same, each with its fate, `selected` or the first reason that speaks against it.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import groupby

from retort.combining import same, vote
from retort.overlap import ngrams, repeats, words
from retort.records import Problem, Verdict
from retort.selection.config import SelectionConfig
from retort.selection.picks import ORDERS, lot
from retort.thoughts.socratic import concludes, is_in_layout

Fates = list[tuple[Verdict, str]]
Judged = list[tuple[Verdict, str | None]]


def left_out(problems: Iterable[Problem], overlaps: Mapping[str, float], config: SelectionConfig) -> dict[str, str]:
    """The problems that a corpus does without, by id: `unlabelled`, or `contaminated`.

    Each task keeps `label_fraction` of its own training problems. `overlaps` says of each problem how much of its
    question occurs in tests.
    """
    found: dict[str, str] = {}
    if config.label_fraction < 1:
        of_task: dict[str, list[str]] = defaultdict(list)
        for problem in problems:
            if problem.split == "train":
                of_task[problem.task].append(problem.id)
        for train in of_task.values():
            # The share as it is written: 0.1 of 30 is 3, and in binary more than that.
            count = math.ceil(Fraction(str(config.label_fraction)) * len(train))
            drawn = sorted(train, key=lambda problem_id: lot(config.seed, "label", problem_id))
            found |= dict.fromkeys(drawn[count:], "unlabelled")
    if config.max_overlap is not None:
        above = (problem_id for problem_id, overlap in overlaps.items() if overlap > config.max_overlap)
        found |= dict.fromkeys(above, "contaminated")
    return found


def select(verdicts: Iterable[Verdict], config: SelectionConfig, without: Mapping[str, str] | None = None) -> Fates:
    """The verdicts of one problem, each with what became of it; `without` are the problems that are left out, and why.

    By thought and teacher those that qualify come first, in the order in which they are picked, then the others by
    index. A fate is `selected` or, in this order: why the problem is left out; what the rule says against the chain
    (its verdict's reason; `minority`, outvoted; `not_in_layout`, a Socratic chain that cannot be taken apart;
    `not_concluded`, one whose last solution says another answer than the chain); `too_hard` or `too_easy`, by the pass
    rate; `duplicate` or `near_duplicate`; `over_budget`. Under `open_ended` all that qualify are `selected`: budgets
    depend on the whole corpus.
    """
    budget = None if config.pick == "open_ended" else config.chains_per_problem
    fates: Fates = []
    ordered = sorted(verdicts, key=lambda verdict: (verdict.thought, verdict.model_id, verdict.index))
    for _, chains in groupby(ordered, key=lambda verdict: verdict.thought):
        judged = _qualify(list(chains), config, without or {})
        for _, own in groupby(judged, key=lambda pair: pair[0].model_id):
            of_teacher = list(own)
            picked = ORDERS[config.pick]([chain for chain, against in of_teacher if against is None], config.seed)
            limit = len(picked) if budget is None else budget
            fates += [(chain, "selected" if rank < limit else "over_budget") for rank, chain in enumerate(picked)]
            fates += [(chain, against) for chain, against in of_teacher if against is not None]
    return fates


def _qualify(chains: Sequence[Verdict], config: SelectionConfig, without: Mapping[str, str]) -> Judged:
    """The chains of one problem and thought, in order, each with the reason against it, or None."""
    out = without.get(chains[0].problem_id)
    difficulty = _against_problem(chains, config)
    judged: Judged = []
    for _, own in groupby(chains, key=lambda chain: chain.model_id):
        of_teacher = list(own)
        elected = vote([chain.answer for chain in of_teacher])
        judged += [(chain, out or _against(chain, config, elected) or difficulty) for chain in of_teacher]
    return judged if config.deduplicate == "none" else _against_repeats(judged, config)


def _against_repeats(judged: Judged, config: SelectionConfig) -> Judged:
    """The same chains, those of them that qualify and teach what an earlier one teaches with that reason."""
    qualified = [chain for chain, against in judged if against is None]
    taught = [chain.text if config.target == "chain" else chain.answer or "" for chain in qualified]
    repeated = iter(repeats(taught, config.near_similarity if config.deduplicate == "near" else None))
    return [(chain, next(repeated) if against is None else against) for chain, against in judged]


def _against(chain: Verdict, config: SelectionConfig, elected: str | None) -> str | None:
    """What the rule says against a chain."""
    match config.rule:
        case "correct":
            is_wanted, against = chain.reason == "correct", chain.reason
        case "all":
            is_wanted, against = chain.reason != "truncated", chain.reason
        case "majority":
            is_wanted = chain.answer is not None and same(chain.answer, elected)
            against = chain.reason if chain.answer is None else "minority"
    if not is_wanted:
        return against
    if config.target == "answer":
        return chain.reason if chain.answer is None else None
    if chain.thought == "socratic" and not is_in_layout(chain.text):
        return "not_in_layout"
    if chain.thought == "socratic" and not concludes(chain.text):
        return "not_concluded"
    return None


def _against_problem(chains: Sequence[Verdict], config: SelectionConfig) -> str | None:
    """What the pass rate says against a problem: of one without a gold answer it is not known."""
    if config.min_pass_rate is None and config.max_pass_rate is None:
        return None
    rate = pass_rate(chains)
    if rate is None:
        return "unlabelled"
    if config.min_pass_rate is not None and rate < config.min_pass_rate:
        return "too_hard"
    return "too_easy" if config.max_pass_rate is not None and rate > config.max_pass_rate else None


def pass_rate(chains: Sequence[Verdict]) -> float | None:
    """The share of chains that are correct; None where the problem has no gold answer."""
    if chains[0].gold is None:
        return None
    return sum(chain.reason == "correct" for chain in chains) / len(chains)


def unique_bigrams(chains: Iterable[Verdict]) -> int:
    """How open-ended a problem is: the number of different pairs of neighbouring words in its chains, right or not."""
    return len({gram for chain in chains for gram in ngrams(words(chain.text), 2) if len(gram) == 2})
