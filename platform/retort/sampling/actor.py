"""The Ray actor of sampling: batches of orders in, counts out. A `Sampler` with its engines, log and signs of life."""

import asyncio
import logging
import math
import os
import tempfile
import weakref
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from retort import logs
from retort.cluster.skew import Installed
from retort.engines.interface import Engine, EngineConfig
from retort.logs import Log
from retort.metrics import SamplerMetrics
from retort.rollouts import Rollout
from retort.sampling.drawing import Allowance, Order
from retort.sampling.flushing import Counts, Flush
from retort.sampling.sampler import Sampler, Work
from retort.sampling.supervision import Supervised
from retort.store.claims import Session
from retort.store.pool import partition_of
from retort.verification import VerificationConfig


@dataclass(frozen=True)
class Settings:
    """What every actor of a sampling session is given."""

    label: str
    engine_class: type[Engine]
    configs: tuple[EngineConfig, ...]
    rollout: Rollout
    works: tuple[Work, ...]
    session: Session
    when: Flush
    stall_s: float
    verification: VerificationConfig
    num_actors: int
    max_tokens: int | None
    """Tokens that they may buy together, each its share; None sets no limit."""
    driver: Installed
    log: Log


def quieten(log: Log) -> Path:
    """Send what this process writes to a file, for engines' processes talk much, but for our own log; the file."""
    stream = os.fdopen(os.dup(2), "w", buffering=1)
    logging.getLogger("retort").addHandler(logs.Handler(log, "%(asctime)s %(message)s", stream))
    path = Path(tempfile.gettempdir(), f"retort-engine-{os.getpid()}.log")
    with path.open("ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    return path


class SampleBatches:
    """The Ray actor."""

    def __init__(self, settings: Settings) -> None:
        self._log = quieten(settings.log)
        self._settings = settings
        self._sampler: Sampler | None = None
        self._is_renewed = False
        # Weakly: Ray ends an actor by letting go of it, and a thread that held it would keep its engines alive.
        this = weakref.ref(self)
        self._member = settings.session.join(lambda: {} if (actor := this()) is None else actor._progress())

    async def __call__(self, batch: pa.Table) -> AsyncIterator[pa.Table]:
        """Answer one batch: a row of its orders and their plan's number in; one row of counts out."""
        if self._sampler is None:
            self._sampler = self._begin()
        number = batch.column("plan")[0].as_py()
        orders = [Order.from_json(text) for text in batch.column("orders")[0].as_py()]
        pool, partition = self._settings.works[number].pool, partition_of(orders[0].prompts[0].prompt_hash)
        if await asyncio.to_thread(self._settings.session.holds, pool, partition):
            counts = await self._sampler.answer(number, orders)
            failure = self._sampler.failure
        else:
            counts = Counts(withheld=sum(len(order.indexes) for order in orders))
            failure = f"another driver took partition {partition} while this one had stopped for longer than its lease"
        if failure:
            failure += f" (what the engine said is in {self._log} on its machine)"
        told = {"plan": number, "actor": self._member.id, "failure": failure, "renewed": self._is_renewed}
        row = {**told, **asdict(counts), **self._usage()}
        yield pa.Table.from_pylist([row])

    def _begin(self) -> Sampler:
        """Everything that lives in the event loop."""
        import ray

        settings = self._settings
        settings.driver.check()
        metrics = SamplerMetrics(settings.label)
        share = None if settings.max_tokens is None else settings.max_tokens // settings.num_actors
        if share is not None and ray.get_runtime_context().was_current_actor_reconstructed:
            # The one before has spent some of it: the driver looks how much, and gives out what is left.
            share, self._is_renewed = 0, True
        allowance = Allowance(share)
        self._engines = [
            Supervised(partial(settings.engine_class, config), config.capacity, settings.stall_s, metrics)
            for config in settings.configs
        ]
        return Sampler(
            self._engines,
            settings.rollout,
            settings.works,
            settings.when,
            settings.verification,
            allowance,
            metrics,
        )

    def _progress(self) -> dict[str, int]:
        """Asked by the thread that gives signs of life; Ray forgets a gauge that is not set for 20 s."""
        if self._sampler is None:
            return {}
        used = self._usage()
        self._sampler.metrics.gauge(
            sum(engine.num_open for engine in self._engines), used["busy_s"] / max(used["engine_s"], 1e-9)
        )
        return asdict(self._sampler.total)

    def _usage(self) -> dict[str, float]:
        """Totals of this actor so far, over its engines."""
        assert self._sampler is not None
        usages = [asdict(engine.usage()) for engine in self._engines]
        began = min((engine.first_asked_s for engine in self._engines), default=math.inf)
        sampling_s = max(0.0, self._sampler.last_durable_s - began)
        return {"sampling_s": sampling_s, **{name: sum(usage[name] for usage in usages) for name in usages[0]}}

    def __del__(self) -> None:
        sampler = getattr(self, "_sampler", None)
        if sampler is not None:
            sampler.close()
        member = getattr(self, "_member", None)
        if member is not None:
            member.close()
