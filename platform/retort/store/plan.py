"""A plan: which chains of a pool are wanted. What it wants never depends on what the pool holds.

A plan lists prompts, not chains, so that thirty chains a problem cost no more memory than one.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retort.records import Problem, Request, as_row, from_rows
from retort.store.hashing import digest
from retort.store.pool import Key, Pool, answering, partition_of


@dataclass(frozen=True, slots=True)
class PlannedPrompt:
    """One prompt of which the chains 0 … num_chains − 1 are wanted. `prompt` is canonical JSON."""

    problem: Problem
    thought: str
    prompt: str
    prompt_hash: str
    num_chains: int

    def as_row(self) -> dict[str, Any]:
        """Flat but for the problem, which stays a row of its own."""
        return {**{field: getattr(self, field) for field in _OWN_FIELDS}, "problem": as_row(self.problem)}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "PlannedPrompt":
        (problem,) = from_rows(Problem, [row["problem"]])
        return cls(problem=problem, **{field: row[field] for field in _OWN_FIELDS})


CHARACTERS_PER_TOKEN = 4
"""Rule of thumb for English text; used where no tokenizer is asked."""

LENGTHS = ("num_prompt_tokens", "num_tokens")
_OWN_FIELDS = ("thought", "prompt", "prompt_hash", "num_chains")


@dataclass(frozen=True)
class Until:
    """The policy `until_correct`: a prompt is drawn until `num_correct` chains of it are accepted by a verifier.

    `verifier` is what decides acceptance: settings, versions of code and libraries.
    """

    num_correct: int
    verifier: dict[str, Any]


def prefix(accepted: Mapping[int, bool], num_correct: int) -> tuple[int, bool]:
    """How many chains 0, 1, … `until_correct` takes: those up to the last that it needs; and whether it has enough.

    A chain that is missing ends the prefix, so that what is used never depends on which chains finished first.
    """
    found = length = 0
    while found < num_correct and length in accepted:
        found += accepted[length]
        length += 1
    return length, found >= num_correct


class Gap(NamedTuple):
    """Chains of one prompt that no durable row answers: indexes below its `num_chains`, ascending.

    `mean_tokens` is the mean length of its durable chains, and so what another is likely to cost; None without any.
    """

    prompt: PlannedPrompt
    indexes: list[int]
    mean_tokens: float | None


class Survey(NamedTuple):
    """What a plan finds in a partition. `num_tokens`: what rows of wanted chains cost, with those cut off too early."""

    gaps: list[Gap]
    num_durable: int
    num_tokens: int


@dataclass(frozen=True)
class Plan:
    """Wanted chains of one pool under one token budget; under `until`, `num_chains` of a prompt are the most."""

    pool: Pool
    prompts: tuple[PlannedPrompt, ...]
    max_new_tokens: int
    until: Until | None = None

    @property
    def num_wanted(self) -> int:
        """Distinct chains: problems that ask the same question share theirs."""
        return sum(prompt.num_chains for prompts in self.partitions.values() for prompt in distinct(prompts))

    @cached_property
    def partitions(self) -> dict[str, list[PlannedPrompt]]:
        """Prompts by partition of the pool."""
        found: dict[str, list[PlannedPrompt]] = defaultdict(list)
        for prompt in self.prompts:
            found[partition_of(prompt.prompt_hash)].append(prompt)
        return {partition: found[partition] for partition in sorted(found)}

    def survey(self, partition: str, sets_aside: bool = True) -> Survey:
        """The anti-join of what a partition's prompts want and what the pool holds.

        Each wanted chain has a place in arrays of numbers, 25 bytes in all; rows pass by as Arrow columns. Unless
        `sets_aside`, damaged segments stay where they are, and their chains are missing all the same.
        """
        prompts = distinct(self.partitions.get(partition, []))
        if not prompts:
            return Survey([], num_durable=0, num_tokens=0)
        hashes = pa.array([prompt.prompt_hash for prompt in prompts], pa.string())
        counts = np.array([prompt.num_chains for prompt in prompts], np.int64)
        firsts = np.cumsum(counts) - counts
        tokens = np.full((2, counts.sum()), -1, np.int64)  # of the prompt, and new ones; -1: not durable
        cost = 0
        for keys in replace(self.pool, sets_aside=sets_aside).keys(partition):
            prompt = pc.call_function("index_in", [keys["prompt_hash"]], pc.SetLookupOptions(hashes))
            prompt = prompt.fill_null(-1).to_numpy()
            index = keys["index"].to_numpy()
            is_wanted = (prompt >= 0) & (index < counts[prompt])
            places = pa.array((firsts[prompt] + index)[is_wanted])
            wanted = keys.filter(pa.array(is_wanted)).append_column("place", places)
            cost += sum(int(wanted[column].to_numpy().sum()) for column in LENGTHS)
            rows = answering(wanted, self.max_new_tokens)
            for known, column in zip(tokens, LENGTHS, strict=True):
                # Of several rows of a key the longest counts, so that surveys agree; reading them picks one by content.
                np.maximum.at(known, rows["place"].to_numpy(), rows[column].to_numpy())
        return _survey(prompts, counts, tokens, cost)

    def without_prompts(self) -> "Plan":
        """The plan without what it wants: for tasks that are handed their prompts."""
        return replace(self, prompts=())

    def describe(self) -> dict[str, Any]:
        """What addresses the outputs of stages that read the pool by this plan."""
        keys = sorted(
            [prompt.prompt_hash, prompt.num_chains, prompt.problem.id, prompt.thought] for prompt in self.prompts
        )
        address = {"pool": self.pool.id, "keys": digest(keys), "max_new_tokens": self.max_new_tokens}
        return address if self.until is None else {**address, "until": asdict(self.until)}


def distinct(prompts: list[PlannedPrompt]) -> list[PlannedPrompt]:
    """Each prompt once, with the most chains that any problem wants of it."""
    return list(
        {prompt.prompt_hash: prompt for prompt in sorted(prompts, key=lambda prompt: prompt.num_chains)}.values()
    )


def shares(prompts: Iterable[PlannedPrompt], most: int) -> list[list[PlannedPrompt]]:
    """The prompts of a partition, in order, in shares of about so many chains at most; same prompts stay together."""
    share_of: dict[str, int] = {}
    made: list[list[PlannedPrompt]] = []
    num_chains = 0
    for prompt in prompts:
        place = share_of.get(prompt.prompt_hash)
        if place is None:
            if not made or num_chains + prompt.num_chains > most:
                made.append([])
                num_chains = 0
            num_chains += prompt.num_chains
            place = share_of[prompt.prompt_hash] = len(made) - 1
        made[place].append(prompt)
    return made


def row_batches(partitions: Mapping[str, list[PlannedPrompt]], least: int, most: int) -> Iterator[list[dict[str, Any]]]:
    """Shares of partitions, of about `most` chains at most, in batches of at least `least`, but for the last.

    As rows for tasks, `{partition, share, prompts}`: the share's place in its partition, and its prompts as rows.
    """
    batch = list[dict[str, Any]]()
    num_chains = 0
    for partition, prompts in partitions.items():
        for place, share in enumerate(shares(prompts, most)):
            batch.append({"partition": partition, "share": place, "prompts": [each.as_row() for each in share]})
            num_chains += sum(prompt.num_chains for prompt in distinct(share))
            if num_chains >= least:
                yield batch
                batch, num_chains = [], 0
    if batch:
        yield batch


def united(plans: Iterable[Plan]) -> list[Plan]:
    """One plan for each pool, with the prompts of all that ask it: what several of them want is wanted once."""
    of_pool: dict[str, list[Plan]] = defaultdict(list)
    for plan in plans:
        of_pool[plan.pool.id].append(plan)
    return [
        replace(members[0], prompts=tuple(prompt for plan in members for prompt in plan.prompts), until=None)
        for members in of_pool.values()
    ]


def wanted_keys(prompts: list[PlannedPrompt]) -> set[Key]:
    """Keys of the chains that prompts want."""
    return {(prompt.prompt_hash, index) for prompt in prompts for index in range(prompt.num_chains)}


def _survey(prompts: list[PlannedPrompt], counts: np.ndarray, tokens: np.ndarray, cost: int) -> Survey:
    """The survey of prompts with so many wanted chains each, whose prompt and new tokens stand one after the other."""
    owner = np.repeat(np.arange(len(prompts)), counts)
    is_durable = tokens[1] >= 0
    num_durable = np.bincount(owner[is_durable], minlength=len(prompts))
    new_tokens = np.bincount(owner[is_durable], weights=tokens[1][is_durable], minlength=len(prompts))
    firsts = np.cumsum(counts) - counts
    gaps: list[Gap] = []
    for number in np.flatnonzero(num_durable < counts).tolist():
        first, count, durable = int(firsts[number]), int(counts[number]), int(num_durable[number])
        indexes: list[int] = np.flatnonzero(~is_durable[first : first + count]).tolist()
        gaps.append(Gap(prompts[number], indexes, float(new_tokens[number]) / durable if durable else None))
    return Survey(gaps, int(is_durable.sum()), cost)


def request_of(prompt: PlannedPrompt, index: int, max_new_tokens: int) -> Request:
    """One chain of a planned prompt as a request."""
    return Request(
        prompt_hash=prompt.prompt_hash,
        index=index,
        prompt=prompt.prompt,
        seed=seed(prompt.prompt_hash, index),
        max_new_tokens=max_new_tokens,
        problem_id=prompt.problem.id,
        thought=prompt.thought,
        question=prompt.problem.question,
    )


def seed(prompt_hash: str, index: int) -> int:
    """Seed of chain `index`: a base that only the prompt decides, plus the index, so that samples nest."""
    return int(prompt_hash[:8], 16) + index
