"""The sampler: engines, many batches at a time, and chains that leave as they finish.

Orders in: what is to be drawn of one prompt. Counts out. Chains go to the pool, in segments of the batch that they
belong to: at most `flush_s` after they finish. Knows nothing of Ray, in whose actors it runs (`sampling/actor.py`).
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from retort.engines.interface import EngineDiedError, PromptTooLongError, SamplingDistribution
from retort.metrics import SamplerMetrics
from retort.records import Chain
from retort.rollouts import Rollout, roll_out
from retort.sampling.drawing import Allowance, Drawn, Order, accepts, batch_name, draw_until_correct
from retort.sampling.flushing import Counts, Flush, Flusher
from retort.sampling.supervision import Supervised
from retort.solvers.zygote import Sandbox
from retort.store.plan import request_of
from retort.store.pool import Pool, partition_of
from retort.verification import VerificationConfig

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
MAX_JUDGING = 1024
"""Chains that wait for their verdict, where nothing but a figure depends on it."""
JUDGING_GRACE_S = 1.0
"""How long such verdicts may keep a batch whose chains are all durable."""


@dataclass(frozen=True)
class Work:
    """One plan, as far as an actor must know it. `num_correct`: a prompt is drawn until so many are correct."""

    pool: Pool
    distribution: SamplingDistribution
    max_new_tokens: int
    num_correct: int | None


@dataclass(frozen=True)
class _Batch:
    """An order under way, and what it shares with the others of its batch."""

    work: Work
    order: Order
    flusher: Flusher
    counts: Counts
    judging: set[asyncio.Task[bool]]


class Sampler:
    """The engines of one model and what they are asked, in one event loop."""

    def __init__(
        self,
        engines: Sequence[Supervised],
        rollout: Rollout,
        works: Sequence[Work],
        when: Flush,
        verification: VerificationConfig,
        allowance: Allowance,
        metrics: SamplerMetrics,
    ) -> None:
        self._engines, self._rollout, self._works, self._when = engines, rollout, works, when
        self._verification, self._allowance, self.metrics = verification, allowance, metrics
        # One thread: the sandbox answers one caller at a time, and the event loop is never kept waiting.
        self._verifying = ThreadPoolExecutor(1, thread_name_prefix="verify")
        self._sandbox = Sandbox(verification.sandbox)
        self._num_judging = 0
        self.failure = ""
        self.total = Counts()
        self.last_durable_s = 0.0

    async def answer(self, number: int, orders: Sequence[Order]) -> Counts:
        """Draw what a batch orders of one plan. All that finished is durable when this returns, or raises."""
        work = self._works[number]
        name = batch_name(orders, work.max_new_tokens)
        partition = partition_of(orders[0].prompts[0].prompt_hash)
        counts = Counts()
        # Empty, unless an actor died over this very batch.
        durable = await asyncio.to_thread(work.pool.answered, partition, name, work.max_new_tokens)
        # Of a segment that was merged with others, not all rows are of this batch.
        durable &= {(order.prompts[0].prompt_hash, index) for order in orders for index in order.indexes}
        if durable:
            chains = await asyncio.to_thread(work.pool.chains, partition, durable, work.max_new_tokens)
            orders = [await self._knowing(work, order, chains) for order in orders]
            counts.add(Counts.of(chains))  # not to the total: the dead actor's last sign of life has them
        flusher = Flusher(work.pool, name, self._when, (counts, self.total), self.metrics)
        judging: set[asyncio.Task[bool]] = set()
        try:
            await _gather(self._draw(_Batch(work, order, flusher, counts, judging)) for order in orders)
        finally:
            await flusher.close()
            self.last_durable_s = time.monotonic()
        await _finish(judging)
        return counts

    async def _draw(self, batch: "_Batch") -> None:
        """Draw what one order wants, but for what is durable."""
        order, num_correct = batch.order, batch.work.num_correct
        draw = partial(self._chain, batch)
        if num_correct is None:
            outcomes = Counter(await _gather(draw(index) for index in order.indexes if index not in order.known))
        else:
            outcomes = await draw_until_correct(num_correct, order.known, order.indexes, draw)
        for target in (batch.counts, self.total):
            target.lacking += outcomes["lacking"]
            target.withheld += outcomes["withheld"]

    async def _knowing(self, work: Work, order: Order, chains: Sequence[Chain]) -> Order:
        """An order that knows its durable chains and, where that decides what is drawn, whether they are accepted."""
        known = dict(order.known)
        for chain in chains:
            if chain.prompt_hash == order.prompts[0].prompt_hash:
                known[chain.index] = work.num_correct is not None and await self._accepts(work, order, chain)
        return replace(order, known=known)

    async def _chain(self, batch: "_Batch", index: int) -> Drawn:
        """Draw one chain and hand it to the pool."""
        work, order = batch.work, batch.order
        request = request_of(order.prompts[0], index, work.max_new_tokens)
        most = len(request.prompt.encode()) + work.max_new_tokens  # no token has less than a byte
        if not await self._allowance.reserve(most):
            return "withheld"
        used = 0
        try:
            chain = await roll_out(self._engines, request, work.distribution, self._rollout)
            if chain is None:
                return "lacking"
            used = chain.num_prompt_tokens + chain.num_tokens
            # Nothing is awaited before: a finished chain is paid for, whatever becomes of its verdict or its batch.
            batch.flusher.add(chain)
        except (ValueError, OSError, EngineDiedError) as error:
            self._fail(error)
            return "withheld"
        finally:
            self._allowance.settle(most, used)
        return await self._judge(batch, chain)

    def _fail(self, error: Exception) -> None:
        """Keep what went wrong, to be told at the end: open requests are paid for and go on.

        A prompt that is too long is its own matter. After anything else the engines are asked nothing new.
        """
        if not self.failure:
            self.failure = "; ".join([str(error), *getattr(error, "__notes__", [])])
            logger.error("%s", self.failure)
        if not isinstance(error, PromptTooLongError):
            for engine in self._engines:
                engine.give_up(error)

    async def _judge(self, batch: "_Batch", chain: Chain) -> Drawn:
        """Whether a chain is accepted. Where nothing depends on it, it is counted later, or not at all.

        Programs may be slower to run than to sample: a fixed number of chains never waits for verdicts.
        """
        if batch.work.num_correct is None and self._num_judging >= MAX_JUDGING:
            self.metrics.finished(chain, is_accepted=False)
            return "rejected"
        self._num_judging += 1
        task = asyncio.create_task(self._count_accepted(batch, chain))
        if batch.work.num_correct is None:
            batch.judging.add(task)
            return "rejected"
        return "accepted" if await task else "rejected"

    async def _count_accepted(self, batch: "_Batch", chain: Chain) -> bool:
        is_accepted = False
        try:
            is_accepted = await self._accepts(batch.work, batch.order, chain)
        finally:
            self._num_judging -= 1
            self.metrics.finished(chain, is_accepted)
        for target in (batch.counts, self.total):
            target.add(Counts.judged_as(chain, is_accepted))
        return is_accepted

    async def _accepts(self, work: Work, order: Order, chain: Chain) -> bool:
        return await asyncio.get_running_loop().run_in_executor(
            self._verifying, accepts, order.prompts, chain, work.max_new_tokens, self._verification, self._sandbox
        )

    def close(self) -> None:
        for engine in self._engines:
            engine.close()
        self._verifying.shutdown(wait=False, cancel_futures=True)
        self._sandbox.close()


async def _finish(judging: set[asyncio.Task[bool]]) -> None:
    """Give verdicts on which nothing depends a moment, and do without the others."""
    if not judging:
        return
    done, late = await asyncio.wait(judging, timeout=JUDGING_GRACE_S)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    for task in done:
        task.result()


async def _gather(work: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """What came of each; where one raises, the others are cancelled and have ended."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        return [await task for task in asyncio.as_completed(tasks)]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
