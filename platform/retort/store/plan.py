"""A plan: which chains of a pool are wanted. What it wants never depends on what the pool holds.

A plan lists prompts, not chains, so that thirty chains a problem cost no more memory than one.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from retort.records import Problem, Request, as_row, from_rows
from retort.store.hashing import digest
from retort.store.pool import Key, Pool, partition_of


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


_OWN_FIELDS = ("thought", "prompt", "prompt_hash", "num_chains")


@dataclass(frozen=True)
class Plan:
    """Wanted chains of one pool under one token budget."""

    pool: Pool
    prompts: tuple[PlannedPrompt, ...]
    max_new_tokens: int

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

    def requests(self, partition: str) -> Iterator[Request]:
        """Every wanted chain of a partition as a request."""
        for prompt in distinct(self.partitions.get(partition, [])):
            for index in range(prompt.num_chains):
                yield Request(
                    prompt_hash=prompt.prompt_hash,
                    index=index,
                    prompt=prompt.prompt,
                    seed=seed(prompt.prompt_hash, index),
                    max_new_tokens=self.max_new_tokens,
                    problem_id=prompt.problem.id,
                    thought=prompt.thought,
                    question=prompt.problem.question,
                )

    def missing(self) -> Iterator[Request]:
        """Wanted chains that no durable row answers, partition by partition."""
        return itertools.chain.from_iterable(
            self.pool.missing(self.requests(partition)) for partition in self.partitions
        )

    def describe(self) -> dict[str, Any]:
        """What addresses the outputs of stages that read the pool by this plan."""
        keys = sorted(
            [prompt.prompt_hash, prompt.num_chains, prompt.problem.id, prompt.thought] for prompt in self.prompts
        )
        return {"pool": self.pool.id, "keys": digest(keys), "max_new_tokens": self.max_new_tokens}


def distinct(prompts: list[PlannedPrompt]) -> list[PlannedPrompt]:
    """Each prompt once, with the most chains that any problem wants of it."""
    return list(
        {prompt.prompt_hash: prompt for prompt in sorted(prompts, key=lambda prompt: prompt.num_chains)}.values()
    )


def wanted_keys(prompts: list[PlannedPrompt]) -> set[Key]:
    """Keys of the chains that prompts want."""
    return {(prompt.prompt_hash, index) for prompt in prompts for index in range(prompt.num_chains)}


def seed(prompt_hash: str, index: int) -> int:
    """Seed of chain `index`: a base that only the prompt decides, plus the index, so that samples nest."""
    return int(prompt_hash[:8], 16) + index
