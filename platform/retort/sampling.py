"""Sampling: wanted chains minus those in the pool become requests; engine actors under Ray Data answer them.

Rows in: `Problem`. Rows out: `Chain`, in the pool, durable within `flush_s` of finishing. Requests enter an engine's
continuous batch as they come and chains leave it as they finish; a batch of requests is only the unit that Ray
schedules and that names the segments.
"""

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from retort import prompts, rollouts
from retort.engines import ENGINES
from retort.engines.interface import Engine, EngineConfig, SamplingDistribution
from retort.records import Chain, Problem, Request, from_rows, to_table
from retort.rollouts import Rollout, roll_out
from retort.store import Store
from retort.store.plan import Plan, PlannedPrompt
from retort.store.pool import Pool, batch_name, partition_of

logger = logging.getLogger(__name__)

BATCH_CHAINS = 64
"""Requests that travel together: small enough to keep several engines busy to the end, large enough for one segment."""
BATCHES_IN_FLIGHT = 8
"""Batches that an actor works on at once; 512 open requests keep vLLM's default of 256 running sequences filled."""
REPORT_EVERY_S = 5.0


class SamplingConfig(BaseModel):
    """How sampling runs; nothing here changes what is sampled."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    flush_s: float = Field(default=10.0, gt=0, le=600)
    """A chain is durable at most so long after it has finished."""


@dataclass(frozen=True)
class Model:
    """What can be sampled: an engine's name, its settings for each role, and how the roles roll out a chain."""

    engine: str
    configs: tuple[EngineConfig, ...]
    rollout: Rollout = field(default_factory=Rollout)

    def identity(self) -> dict[str, Any]:
        """What distinguishes it from any other, by content."""
        parts = [config.identity() for config in self.configs]
        if self.rollout.is_plain:
            return parts[0]
        rollout = {"version": rollouts.VERSION, **self.rollout.model_dump(mode="json")}
        return {"parts": parts, "rollout": rollout}

    def pool(self, store: Store, distribution: SamplingDistribution) -> Pool:
        """The pool of this model under a distribution."""
        return Pool(store, {"model": self.identity(), "distribution": distribution.model_dump(mode="json")})


@dataclass(frozen=True)
class Sampled:
    """What sampling did for one plan. `lacking` counts chains that the engine could not give (a recording)."""

    wanted: int
    reused: int
    sampled: int
    lacking: int
    prompt_tokens: int
    output_tokens: int
    seconds: float


def plan(
    problems: Iterable[Problem],
    thought: str,
    pool: Pool,
    num_chains: int,
    max_new_tokens: int,
    asked: Callable[[Problem, str], str | prompts.Messages],
) -> Plan:
    """The chains wanted of each problem under one thought; `asked` makes its prompt."""
    planned: list[PlannedPrompt] = []
    for problem in problems:
        prompt = prompts.canonical(asked(problem, thought))
        planned.append(PlannedPrompt(problem, thought, prompt, prompts.prompt_hash(prompt), num_chains))
    return Plan(pool, tuple(planned), max_new_tokens)


def batches(requests: Iterable[Request]) -> Iterator[list[Request]]:
    """Requests in batches, none of which crosses a partition."""
    for _, group in groupby(requests, key=lambda request: partition_of(request.prompt_hash)):
        members = list(group)
        for start in range(0, len(members), BATCH_CHAINS):
            yield members[start : start + BATCH_CHAINS]


class SampleBatches:
    """The actor: the engines of one model, many batches at a time."""

    def __init__(
        self,
        engine_class: type[Engine],
        configs: Sequence[EngineConfig],
        rollout: Rollout,
        plans: Sequence[tuple[Pool, SamplingDistribution]],
        flush_s: float,
    ) -> None:
        # Engines' processes talk much; what they say is kept apart, so that the job's own lines can be read.
        self._log = Path(tempfile.gettempdir(), f"retort-engine-{os.getpid()}.log")
        with self._log.open("ab") as file:
            for descriptor in (1, 2):
                os.dup2(file.fileno(), descriptor)
        self._engines: list[Engine] = [engine_class(config) for config in configs]  # type: ignore[call-arg]
        self._rollout = rollout
        self._plans = plans
        self._flush_s = flush_s

    async def __call__(self, batch: pa.Table) -> AsyncIterator[pa.Table]:
        """Answer one batch: rows of `Request` with the column `plan` in, one row of counts out."""
        number = batch.column("plan")[0].as_py()
        pool, distribution = self._plans[number]
        requests = list(from_rows(Request, batch.drop_columns("plan").to_pylist()))
        name = batch_name(requests)
        # Asked of the pool once more: this may be a second try, or an actor of a killed driver may have flushed since.
        missing = list(pool.missing(requests))
        try:
            chains = await sample_batch(self._engines, self._rollout, pool, distribution, name, missing, self._flush_s)
        except Exception as error:
            error.add_note(f"what the engine said is in {self._log} on its machine")
            raise
        counts = {
            "plan": number,
            "sampled": len(chains),
            "lacking": len(missing) - len(chains),
            "prompt_tokens": sum(chain.num_prompt_tokens for chain in chains),
            "output_tokens": sum(chain.num_tokens for chain in chains),
        }
        yield pa.Table.from_pylist([counts])

    def __del__(self) -> None:
        for engine in getattr(self, "_engines", []):
            engine.close()


async def sample_batch(
    engines: Sequence[Engine],
    rollout: Rollout,
    pool: Pool,
    distribution: SamplingDistribution,
    name: str,
    requests: Sequence[Request],
    flush_s: float,
) -> list[Chain]:
    """Answer requests of one batch; each chain is durable within `flush_s` of finishing, and all are at the end."""
    open_tasks = {asyncio.create_task(roll_out(engines, request, distribution, rollout)) for request in requests}
    finished: list[Chain] = []
    waiting: list[Chain] = []
    oldest = 0.0
    try:
        while open_tasks:
            # Half of the promise is left for the write itself.
            timeout = max(0.0, oldest + flush_s / 2 - time.monotonic()) if waiting else None
            done, open_tasks = await asyncio.wait(open_tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not waiting:
                oldest = time.monotonic()
            waiting += [chain for task in done if task.exception() is None and (chain := task.result()) is not None]
            for task in done:
                task.result()  # raises what its engine raised
            if waiting and (not open_tasks or time.monotonic() >= oldest + flush_s / 2):
                await asyncio.to_thread(pool.append, name, waiting)
                finished, waiting = finished + waiting, []
    finally:
        # Where an engine failed: what it finished before is paid for.
        for task in open_tasks:
            task.cancel()
        if waiting:
            pool.append(name, waiting)
    return finished


def sample(
    model: Model, plans: Sequence[tuple[Plan, SamplingDistribution]], config: SamplingConfig, label: str
) -> list[Sampled]:
    """Sample what the pools lack for the plans of one model, in one go: its engine starts once or not at all."""
    started = time.monotonic()
    tables: list[pa.Table] = []
    missing = [0] * len(plans)
    asked: set[tuple[str, str, int]] = set()
    for number, (wanted, _) in enumerate(plans):
        wanted.pool.describe()
        for batch in batches(_unasked(wanted, asked)):
            table = to_table(Request, batch)
            tables.append(table.append_column("plan", pa.array([number] * len(batch))))
            missing[number] += len(batch)
    reused = sum(plan.num_wanted for plan, _ in plans) - sum(missing)
    logger.info(
        "sampling %s: %d chains wanted, %d reused, %d to sample", label, reused + sum(missing), reused, sum(missing)
    )
    totals: list[dict[str, int]] = [{"sampled": 0, "lacking": 0, "prompt_tokens": 0, "output_tokens": 0} for _ in plans]
    if tables:
        for row in _run(model, tables, plans, config, label):
            for name in totals[row["plan"]]:
                totals[row["plan"]][name] += row[name]
    seconds = time.monotonic() - started
    return [
        Sampled(wanted=plan.num_wanted, reused=plan.num_wanted - lack, seconds=round(seconds, 3), **total)
        for (plan, _), lack, total in zip(plans, missing, totals, strict=True)
    ]


def _unasked(wanted: Plan, asked: set[tuple[str, str, int]]) -> Iterator[Request]:
    """What a plan misses and no earlier plan of the session has asked for (such as a greedy teacher's vote)."""
    for request in wanted.missing():
        key = (wanted.pool.id, request.prompt_hash, request.index)
        if key not in asked:
            asked.add(key)
            yield request


def _run(
    model: Model,
    tables: list[pa.Table],
    plans: Sequence[tuple[Plan, SamplingDistribution]],
    config: SamplingConfig,
    label: str,
) -> Iterator[dict[str, Any]]:
    """Counts of every batch, as batches end."""
    import ray
    from ray.data import ActorPoolStrategy

    actors = model.configs[0].num_actors
    has_gpus = ray.cluster_resources().get("GPU", 0) > 0
    logger.info("sampling %s: starting %d x %d engine(s) %s", label, actors, len(model.configs), model.engine)
    rows = ray.data.from_arrow(tables).map_batches(
        SampleBatches,
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(
            size=actors,
            max_tasks_in_flight_per_actor=BATCHES_IN_FLIGHT,
            max_concurrent_calls_per_actor=BATCHES_IN_FLIGHT,
        ),
        fn_constructor_kwargs={
            "engine_class": ENGINES[model.engine].Engine,
            "configs": [config.sharing(len(model.configs)) for config in model.configs],
            "rollout": model.rollout,
            "plans": [(plan.pool, distribution) for plan, distribution in plans],
            "flush_s": config.flush_s,
        },
        num_cpus=1,
        num_gpus=max(config.num_gpus(has_gpus) for config in model.configs),
    )
    yield from _told(rows.iter_rows(), sum(table.num_rows for table in tables), label)


def _told(rows: Iterable[dict[str, Any]], total: int, label: str) -> Iterator[dict[str, Any]]:
    """The same rows, with a line of progress now and then."""
    done = tokens = first_done = 0
    first_at = reported_at = 0.0
    for row in rows:
        now = time.monotonic()
        done += row["sampled"] + row["lacking"]
        tokens += row["output_tokens"]
        if not first_at:
            # The first batch also waited for the engine to start: rates are counted from its end on.
            first_at, first_done = now, done
        if now - reported_at >= REPORT_EVERY_S or done == total:
            rate = (done - first_done) / max(now - first_at, 1e-9)
            left = f", {(total - done) / rate:.0f} s left" if rate and done < total else ""
            logger.info("sampling %s: %d/%d chains, %d tokens%s", label, done, total, tokens, left)
            reported_at = now
        yield row
