"""Budgets over a whole corpus: how many chains of each problem are taken, from ids and numbers alone.

    {"problem_id": "arithmetic/train/00017", "source": "cot/3fa94c…", "split": "train", "thought": "cot",
     "bigrams": 212, "chains": 6}

A source is a thought and a teacher: a problem's picks are counted by source (`picks`).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from retort.selection.config import SelectionConfig
from retort.selection.picks import lot

QUINTILES = (1, 3, 5, 7, 9)
"""SCoTD's budgets from the least to the most open-ended fifth of the problems, where the mean is to be 5."""


class Source(NamedTuple):
    """Where chains of a corpus come from: a problem, and a thought and a teacher."""

    problem_id: str
    source: str


@dataclass(frozen=True, slots=True)
class Supply:
    """What a source offers: so many chains that its rule took; `bigrams` says how open-ended its problem is."""

    split: str
    thought: str
    bigrams: int
    chains: int


class Limit(NamedTuple):
    """How many chains of a source its pick leaves within its budget, and how many of these the total leaves."""

    by_pick: int
    by_total: int


def limits(offers: Mapping[Source, Supply], config: SelectionConfig) -> dict[Source, Limit]:
    """The limit of each source, for the settings that look at the whole corpus."""
    taken = {source: supply.chains for source, supply in offers.items()}
    if config.pick == "open_ended" and config.chains_per_problem is not None:
        budgets = _open_ended(offers, config.chains_per_problem, config.seed)
        taken = {source: min(count, budgets[source]) for source, count in taken.items()}
    training = {source: count for source, count in taken.items() if offers[source].split == "train"}
    in_turn = training if config.total_chains is None else take_turns(training, config.total_chains, config.seed)
    return {source: Limit(count, in_turn.get(source, count)) for source, count in taken.items()}


def _open_ended(offers: Mapping[Source, Supply], budget: int, seed: int) -> dict[Source, int]:
    """The budget of each source by the quintile of its problem among those of its split and thought."""
    groups: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for source, supply in offers.items():
        groups[supply.split, supply.thought][source.problem_id] = supply.bigrams
    budgets = {group: quintile_budgets(bigrams, budget, seed) for group, bigrams in groups.items()}
    return {source: budgets[supply.split, supply.thought][source.problem_id] for source, supply in offers.items()}


def quintile_budgets(bigrams: Mapping[str, int], budget: int, seed: int) -> dict[str, int]:
    """The budget of each problem, by how open-ended it is: 1/5, 3/5, 1, 7/5 and 9/5 of the budget, a fifth each.

    Their mean is the budget where it and the number of problems are multiples of 5, and near it elsewhere. Problems
    with equally many bigrams are ordered by lot.
    """
    ordered = sorted(bigrams, key=lambda problem_id: (bigrams[problem_id], lot(seed, "quintile", problem_id)))
    return {
        problem_id: round(budget * QUINTILES[place * 5 // len(ordered)] / 5) for place, problem_id in enumerate(ordered)
    }


def take_turns(offered: Mapping[Source, int], total: int, seed: int) -> dict[Source, int]:
    """How many chains of each source are taken, `total` in all, or all that are offered if they are fewer.

    Problems take turns, each with one chain, and each draws on its sources by turns too, which start by lot. The
    turn that does not fit whole goes to the problems with the smallest lots. A larger total keeps what a smaller takes.
    """
    queues = _queues(offered, seed)
    turn, left = 0, total
    while (waiting := [problem for problem, queue in queues.items() if len(queue) > turn]) and len(waiting) <= left:
        turn += 1
        left -= len(waiting)
    drawn = set(sorted(waiting, key=lambda problem_id: lot(seed, "turn", problem_id))[:left])
    taken = dict.fromkeys(offered, 0)
    for problem_id, queue in queues.items():
        for source in queue[: turn + (problem_id in drawn)]:
            taken[source] += 1
    return taken


def _queues(offered: Mapping[Source, int], seed: int) -> dict[str, list[Source]]:
    """The sources of each problem in the order in which it draws on them, each as often as it has chains."""
    sources: dict[str, list[Source]] = defaultdict(list)
    for source in sorted(offered, key=lambda source: lot(seed, "source", *source)):
        sources[source.problem_id].append(source)
    turns = {problem_id: range(max(map(offered.__getitem__, own))) for problem_id, own in sources.items()}
    return {
        problem_id: [source for turn in turns[problem_id] for source in own if offered[source] > turn]
        for problem_id, own in sources.items()
    }


def supplies(rows: Iterable[dict[str, Any]]) -> dict[Source, Supply]:
    """Supplies by source, from rows of which two may count chains of the same one."""
    found: dict[Source, Supply] = {}
    for row in rows:
        source = Source(row["problem_id"], row["source"])
        before = found[source].chains if source in found else 0
        found[source] = Supply(row["split"], row["thought"], row["bigrams"], before + row["chains"])
    return found
