"""Flushing: the chains of one batch become durable as they finish, in segments named after the batch."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple, Self

from retort.metrics import SamplerMetrics
from retort.records import Chain
from retort.store.pool import Pool

logger = logging.getLogger(__name__)
PATIENCE_S = 900.0
"""How long finished chains are held in memory for a store that takes nothing (down, or a full disk)."""


class Flush(NamedTuple):
    """When finished chains are written."""

    flush_s: float
    segment_chains: int


@dataclass
class Counts:
    """What became of the chains of a batch; tokens of those that are durable."""

    sampled: int = 0
    lacking: int = 0
    withheld: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    judged: int = 0
    judged_tokens: int = 0
    accepted: int = 0
    accepted_tokens: int = 0
    segments: int = 0
    segment_bytes: int = 0

    @classmethod
    def of(cls, chains: Sequence[Chain]) -> Self:
        """Of chains that are durable."""
        prompt_tokens = sum(chain.num_prompt_tokens for chain in chains)
        return cls(len(chains), prompt_tokens=prompt_tokens, output_tokens=sum(chain.num_tokens for chain in chains))

    @classmethod
    def judged_as(cls, chain: Chain, is_accepted: bool) -> Self:
        """Of a verdict."""
        tokens = chain.num_tokens
        return cls(judged=1, judged_tokens=tokens, accepted=is_accepted, accepted_tokens=is_accepted * tokens)

    def add(self, other: "Counts") -> None:
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


class Flusher:
    """Makes the chains of one batch durable as they finish."""

    def __init__(self, pool: Pool, name: str, when: Flush, counts: Sequence[Counts], metrics: SamplerMetrics) -> None:
        self._pool, self._name, self._when, self._counts, self._metrics = pool, name, when, counts, metrics
        self._waiting: list[Chain] = []
        self._since = 0.0
        self._wake = asyncio.Event()
        self._is_over = False
        self._task = asyncio.create_task(self._run())

    def add(self, chain: Chain) -> None:
        """Take a finished chain. Raises what ended the writing before, if anything did."""
        if self._task.done():
            self._task.result()
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append(chain)
        if len(self._waiting) in (1, self._when.segment_chains):
            self._wake.set()

    async def close(self) -> None:
        """Write what is left; every chain is durable when this returns."""
        self._is_over = True
        self._wake.set()
        await self._task

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._waiting and len(self._waiting) < self._when.segment_chains and not self._is_over:
                # Half of the promise is left for the write itself, and for one that is under way when a chain comes.
                left_s = self._since + self._when.flush_s / 2 - time.monotonic()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), max(left_s, 0.0))
            await self._write()
            if self._is_over and not self._waiting:
                return

    async def _write(self) -> None:
        taken, self._waiting = self._waiting, []
        if not taken:
            return
        size = await append(self._pool, self._name, taken)
        self._metrics.appended(size)
        durable = Counts.of(taken)
        durable.segments, durable.segment_bytes = 1, size
        for counts in self._counts:
            counts.add(durable)


async def append(pool: Pool, name: str, chains: Sequence[Chain]) -> int:
    """Make chains durable; the size of their segment. They are paid for: a store that takes nothing is waited for."""
    began, delay_s = time.monotonic(), 1.0
    while True:
        try:
            return (await asyncio.to_thread(pool.append, name, chains)).size
        except OSError as error:
            if time.monotonic() - began > PATIENCE_S:
                raise
            logger.warning("%d finished chains wait for the store: %s", len(chains), error)
        await asyncio.sleep(delay_s)
        delay_s = min(2 * delay_s, 30.0)
