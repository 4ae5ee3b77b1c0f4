"""Ordering: what plans lack becomes batches of orders, the most expensive first.

What a prompt's chains cost is known from those that the pool has, or guessed from the length of its gold solution.
Where nothing is known the order is the plan's. A long chain that starts last would keep an engine busy almost alone.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from retort.judging import CHAINS_AT_ONCE, CHAINS_IN_A_BATCH, judged
from retort.sampling.drawing import Order, accepts
from retort.solvers.zygote import Sandbox
from retort.store.plan import (
    CHARACTERS_PER_TOKEN,
    Gap,
    Plan,
    PlannedPrompt,
    distinct,
    prefix,
    row_batches,
    united,
    wanted_keys,
)
from retort.verification import VerificationConfig

BATCH_CHAINS = (16, 256)
"""Fewest and most chains that travel together: a batch names its segments, so that large ones make few objects."""
BATCHES_PER_ACTOR = 8
"""Batches that each actor gets of a small job, so that none waits long for the last batch of another."""


@dataclass(frozen=True)
class Batch:
    """Orders of one partition of one plan, which one actor answers together.

    `cost`: tokens that the longest of its chains is likely to have, 0 where nothing is known.
    """

    plan: int
    orders: list[Order]
    cost: float


@dataclass(frozen=True)
class Ordered:
    """Batches in the order in which they are to be sampled, and how many chains of each plan need not be.

    `num_wanted` and `num_reused` count chains that several plans want once.
    """

    batches: list[Batch]
    reused: dict[int, int]
    num_wanted: int
    num_reused: int
    num_missing: int
    batch_chains: int


@dataclass(frozen=True)
class _Wanted:
    """An order with what places it."""

    plan: int
    partition: str
    order: Order
    weight: int
    cost: float


def phases(plans: Sequence[Plan]) -> list[list[int]]:
    """Numbers of the plans that can be sampled at once, phase by phase.

    What `until_correct` draws depends on the chains that are there: where it wants some that another plan wants too, it
    comes after that.
    """
    shared = _shared(plans)
    late = [
        number
        for number, plan in enumerate(plans)
        if plan.until and any((plan.pool.id, prompt.prompt_hash) in shared for prompt in plan.prompts)
    ]
    first = [number for number in range(len(plans)) if number not in late]
    return [numbers for numbers in (first, *([number] for number in late)) if numbers]


def order(
    plans: Mapping[int, Plan], places: set[tuple[str, str]], verification: VerificationConfig, actors: int
) -> Ordered:
    """What the plans of one phase lack in some partitions (`places`: pool id and partition), cut into batches."""
    wanted: list[_Wanted] = []
    reused, num_wanted = dict.fromkeys(plans, 0), 0
    shared, asked = _shared(list(plans.values())), set[tuple[str, str, int]]()
    for number, plan in plans.items():
        known = _known(plan, places, verification) if plan.until else {}
        for partition in plan.partitions:
            if (plan.pool.id, partition) not in places:
                continue
            survey = plan.survey(partition)
            reused[number] += survey.num_durable
            num_wanted += survey.num_durable + sum(len(gap.indexes) for gap in survey.gaps)
            askers: dict[str, list[PlannedPrompt]] = defaultdict(list)
            for prompt in plan.partitions[partition]:
                askers[prompt.prompt_hash].append(prompt)
            for gap in survey.gaps:
                hash_ = gap.prompt.prompt_hash
                fresh = tuple(gap.indexes)
                if (plan.pool.id, hash_) in shared:
                    # Plans of one session may want the same chains, such as a greedy teacher's vote: asked for once.
                    fresh = tuple(index for index in fresh if (plan.pool.id, hash_, index) not in asked)
                    asked.update((plan.pool.id, hash_, index) for index in fresh)
                reused[number] += len(gap.indexes) - len(fresh)
                made = Order(tuple(askers[hash_]), fresh, known.get(hash_, {}))
                if fresh and not (plan.until and prefix(made.known, plan.until.num_correct)[1]):
                    weight = min(len(fresh), plan.until.num_correct) if plan.until else len(fresh)
                    wanted.append(_Wanted(number, partition, made, weight, _cost(gap)))
    num_missing = sum(len(each.order.indexes) for each in wanted)
    total = sum(each.weight for each in wanted)
    batch_chains = min(max(total // (actors * BATCHES_PER_ACTOR), BATCH_CHAINS[0]), BATCH_CHAINS[1])
    batches = sorted(_batches(wanted, batch_chains), key=lambda batch: -batch.cost)
    doubled = num_wanted - _num_distinct(plans.values(), places)
    return Ordered(batches, reused, num_wanted - doubled, sum(reused.values()) - doubled, num_missing, batch_chains)


def _num_distinct(plans: Iterable[Plan], places: set[tuple[str, str]]) -> int:
    """Chains that plans want in some partitions, those of several plans once."""
    return sum(
        prompt.num_chains
        for plan in united(plans)
        for partition, prompts in plan.partitions.items()
        if (plan.pool.id, partition) in places
        for prompt in distinct(prompts)
    )


def _shared(plans: Sequence[Plan]) -> set[tuple[str, str]]:
    """Pool and hash of the prompts that several plans want."""
    counts = Counter(pair for plan in plans for pair in {(plan.pool.id, prompt.prompt_hash) for prompt in plan.prompts})
    return {pair for pair, count in counts.items() if count > 1} if len(plans) > 1 else set()


def _batches(wanted: Sequence[_Wanted], batch_chains: int) -> Iterator[Batch]:
    places: dict[tuple[int, str], list[_Wanted]] = defaultdict(list)
    for each in wanted:
        places[each.plan, each.partition].append(each)
    for (number, _), members in places.items():
        members.sort(key=lambda each: -each.cost)
        taken: list[_Wanted] = []
        for each in members:
            taken.append(each)
            if sum(one.weight for one in taken) >= batch_chains:
                yield _batch(number, taken)
                taken = []
        if taken:
            yield _batch(number, taken)


def _batch(number: int, members: Sequence[_Wanted]) -> Batch:
    return Batch(number, [each.order for each in members], max(each.cost for each in members))


def _cost(gap: Gap) -> float:
    """Tokens that a chain of a prompt is likely to have; 0 where nothing tells."""
    return gap.mean_tokens or sum(map(len, gap.prompt.problem.steps)) / CHARACTERS_PER_TOKEN


def _known(plan: Plan, places: set[tuple[str, str]], verification: VerificationConfig) -> dict[str, dict[int, bool]]:
    """Of each prompt: which of its durable chains are accepted."""
    there = {each: prompts for each, prompts in plan.partitions.items() if (plan.pool.id, each) in places}
    work = partial(_judge_partition, plan=plan.without_prompts(), verification=verification)
    found: dict[str, dict[int, bool]] = defaultdict(dict)
    for row in judged(row_batches(there, CHAINS_IN_A_BATCH, CHAINS_AT_ONCE), work, verification.sandbox):
        for hash_, index, is_accepted in zip(row["hashes"], row["indexes"], row["accepted"], strict=True):
            found[hash_][index] = is_accepted
    return found


def _judge_partition(
    row: dict[str, Any], sandbox: Sandbox, plan: Plan, verification: VerificationConfig
) -> dict[str, Any]:
    prompts = [PlannedPrompt.from_row(prompt) for prompt in row["prompts"]]
    askers: dict[str, list[PlannedPrompt]] = defaultdict(list)
    for prompt in prompts:
        askers[prompt.prompt_hash].append(prompt)
    chains = plan.pool.chains(row["partition"], wanted_keys(prompts), plan.max_new_tokens)
    accepted = [
        accepts(askers[chain.prompt_hash], chain, plan.max_new_tokens, verification, sandbox) for chain in chains
    ]
    return {
        "hashes": [chain.prompt_hash for chain in chains],
        "indexes": [chain.index for chain in chains],
        "accepted": accepted,
    }
