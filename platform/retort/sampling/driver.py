"""Sampling: wanted chains minus those in the pool become orders; engine actors under Ray Data answer them.

Rows in: `Problem`. Rows out: `Chain`, in the pool, durable within `flush_s` of finishing. Orders enter an engine's
continuous batch as they come and chains leave it as they finish; a batch of orders is only the unit that Ray schedules
and that names the segments. Partitions of the pool are claimed first, so that two drivers never sample the same.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from retort import logs, prompts, rollouts
from retort.cluster import live
from retort.cluster.room import Demand
from retort.cluster.skew import installed
from retort.engines import ENGINES
from retort.engines.interface import EngineConfig, SamplingDistribution
from retort.records import Problem
from retort.rollouts import Rollout
from retort.sampling.actor import SampleBatches, Settings
from retort.sampling.config import SamplingConfig
from retort.sampling.flushing import Flush
from retort.sampling.ordering import Batch, Ordered, order, phases
from retort.sampling.progress import Progress
from retort.sampling.sampler import Work
from retort.sampling.tally import Sampled, Tally
from retort.store import Store
from retort.store.claims import Session
from retort.store.plan import Plan, PlannedPrompt, Until
from retort.store.pool import Pool
from retort.verification import VerificationConfig

logger = logging.getLogger(__name__)

STRAGGLERS = 8
"""Batches in flight, in units of what fills the engine: most of those that are open wait for their longest chains."""
POLL_S = 2.0
"""How often a driver looks whether what another one holds has become free."""


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

    def bundles(self, has_gpus: bool) -> list[dict[str, float]]:
        """What one actor with the engines of all roles takes of Ray, and what these take beside."""
        return max((config.bundles(has_gpus) for config in self.configs), key=lambda bundles: bundles[0]["GPU"])

    def demands(self, what: str, has_gpus: bool, actors: int | None = None) -> list[Demand]:
        """What its actors ask for, on a cluster that has GPUs or not; sampling begins with one of them."""
        actors = self.configs[0].num_actors if actors is None else actors
        remedy = "the GPUs of an engine, or another accelerator_type"
        counts = Counter(tuple(sorted(bundle.items())) for bundle in self.bundles(has_gpus))
        return [Demand(what, dict(bundle), each * actors, each, remedy) for bundle, each in counts.items()]

    def pool(self, store: Store, distribution: SamplingDistribution) -> Pool:
        """The pool of this model under a distribution."""
        return Pool(store, {"model": self.identity(), "distribution": distribution.model_dump(mode="json")})


def plan(
    problems: Iterable[Problem],
    thought: str,
    pool: Pool,
    num_chains: int,
    max_new_tokens: int,
    asked: Callable[[Problem, str], str | prompts.Messages],
    until: Until | None = None,
) -> Plan:
    """The chains wanted of each problem under one thought; `asked` makes its prompt."""
    planned: list[PlannedPrompt] = []
    for problem in problems:
        prompt = prompts.canonical(asked(problem, thought))
        planned.append(PlannedPrompt(problem, thought, prompt, prompts.prompt_hash(prompt), num_chains))
    return Plan(pool, tuple(planned), max_new_tokens, until)


Plans = Sequence[tuple[Plan, SamplingDistribution]]
Place = tuple[str, str]
"""A pool's id and a partition of it."""


def sample(
    model: Model,
    plans: Plans,
    config: SamplingConfig,
    label: str,
    verification: VerificationConfig,
    left: Callable[[], int | None] = lambda: None,
) -> list[Sampled]:
    """Sample what the pools lack for the plans of one model: its engines start once as a rule, or not at all.

    Partitions that another driver is sampling are waited for; what it has sampled by then is found. Chains are judged
    by `verification` as they finish. `left` says how many prompt and new tokens may be bought; None sets no limit.

    Raises:
        ValueError: what an engine cannot do, such as a prompt that is too long; a server or a store that stays down.
    """
    started = time.monotonic()
    for planned, _ in plans:
        planned.pool.describe()
    todo = {(planned.pool.id, partition) for planned, _ in plans for partition in planned.partitions}
    session = Session(plans[0][0].pool.store)
    rounds = _Rounds(model, plans, config, label, verification, session, left)
    member = session.join(None)
    try:
        while todo and not rounds.tally.failure:
            held = _claim(session, plans, todo, label)
            for numbers in phases([planned for planned, _ in plans]):
                if not rounds.tally.failure:
                    rounds.fill(numbers, held)
            _release(session, plans, held)
            todo -= held
    except BaseException:
        # Actors may still be at work: the partitions are theirs until they are gone.
        member.abandon()
        raise
    member.close()
    return rounds.tally.summaries([planned for planned, _ in plans], time.monotonic() - started, label)


class _Rounds:
    """Rounds of a session, in each of which the engines start once; and what has come of them."""

    def __init__(
        self,
        model: Model,
        plans: Plans,
        config: SamplingConfig,
        label: str,
        verification: VerificationConfig,
        session: Session,
        left: Callable[[], int | None],
    ) -> None:
        self.tally = Tally.of(len(plans))
        self._model, self._plans, self._label, self._session, self._left = model, plans, label, session, left
        self._config, self._verification = config, verification
        self._num_actors = model.configs[0].num_actors

    def fill(self, numbers: Sequence[int], held: set[Place]) -> None:
        """Sample what some plans lack in the partitions that are held.

        Each actor has its share of the tokens that may be bought. What is left over where others have none, or have
        died, is shared anew, for as long as that helps.
        """
        plans = {number: self._plans[number][0] for number in numbers}
        ordered = order(plans, held, self._verification, self._num_actors)
        for number, reused in ordered.reused.items():
            self.tally.plans[number]["reused"] += reused
        told = self._label, ordered.num_wanted, ordered.num_reused, ordered.num_missing
        logger.info("sampling %s: %d chains wanted, %d reused, %d to sample", *told)
        least = min(planned.max_new_tokens for planned in plans.values())
        withheld_elsewhere = {number: self.tally.plans[number]["withheld"] for number in numbers}
        while ordered.batches:
            settings = self._settings(min(self._num_actors, len(ordered.batches)))
            before, self.tally.renewed = (self.tally.total("sampled"), self.tally.total("withheld")), False
            with Progress(self._session, ordered.num_missing, self._label):
                self.tally.add(_run(self._model, settings, ordered))
            helped = (self.tally.total("sampled") > before[0] or self.tally.renewed) and not self.tally.failure
            left = self._left() if helped and self.tally.total("withheld") > before[1] else None
            if left is None or left // self._num_actors < least:
                return
            logger.info("sampling %s: %d tokens are left over, and shared anew", self._label, left)
            for number, withheld in withheld_elsewhere.items():
                self.tally.plans[number]["withheld"] = withheld
            ordered = order(plans, held, self._verification, self._num_actors)

    def _settings(self, num_actors: int) -> Settings:
        """What every actor of a round is told: no more of them than there are batches."""
        return Settings(
            label=self._label,
            engine_class=ENGINES[self._model.engine].Engine,
            configs=tuple(each.sharing(len(self._model.configs)) for each in self._model.configs),
            rollout=self._model.rollout,
            works=tuple(
                Work(planned.pool, distribution, planned.max_new_tokens, planned.until and planned.until.num_correct)
                for planned, distribution in self._plans
            ),
            session=self._session,
            when=Flush(self._config.flush_s, self._config.segment_chains),
            stall_s=self._config.stall_s,
            verification=self._verification,
            num_actors=num_actors,
            max_tokens=self._left(),
            driver=installed(),
            log=logs.current(),
        )


def _pools(plans: Plans) -> dict[str, Pool]:
    return {planned.pool.id: planned.pool for planned, _ in plans}


def _claim(session: Session, plans: Plans, todo: set[Place], label: str) -> set[Place]:
    """What of these places is ours to sample now; waits while all are another driver's."""
    said = False
    while True:
        held: set[Place] = set()
        for pool_id, pool in _pools(plans).items():
            wanted = sorted(partition for of_pool, partition in todo if of_pool == pool_id)
            held |= {(pool_id, partition) for partition in session.claim(pool, wanted)}
        if held:
            return held
        if not said:
            said = True
            for pool_id, pool in _pools(plans).items():
                others = session.holders(pool, sorted(place[1] for place in todo if place[0] == pool_id))
                logger.info("sampling %s: waits for another driver on pool %s: %s", label, pool_id, others)
        time.sleep(POLL_S)


def _release(session: Session, plans: Plans, held: set[Place]) -> None:
    for pool_id, pool in _pools(plans).items():
        session.release(pool, sorted(partition for of_pool, partition in held if of_pool == pool_id))


def _run(model: Model, settings: Settings, ordered: Ordered) -> Iterator[dict[str, Any]]:
    """Counts of every batch, as batches end."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    # A slow teacher may well finish nothing for half an hour, Ray Data's limit; engines have a watchdog of their own.
    DataContext.get_current().execution_no_progress_timeout_s = -1
    first, actors = model.configs[0], settings.num_actors
    has_gpus = live.has_gpus()
    own = dict(model.bundles(has_gpus)[0])
    logger.info("sampling %s: starting %d x %d engine(s) %s", settings.label, actors, len(model.configs), model.engine)
    fills = math.ceil(first.capacity / ordered.batch_chains)
    in_flight = max(1, min(STRAGGLERS * fills, math.ceil(len(ordered.batches) / actors)))
    rows = [_row(batch) for batch in ordered.batches]
    asked = model.demands(f"sampling {settings.label}", has_gpus, actors)
    live.refuse(asked)
    with live.waiting(asked):
        # A block each: Ray Data wants to know how many rows go to a GPU at a time, and would join smaller blocks to as
        # many. Not `from_arrow_refs`, which sends a task after each to ask what it holds, and starts workers for that.
        # Once all batches are handed out, Ray Data releases an actor as soon as it has none left.
        yield from (
            ray.data.from_items(rows, override_num_blocks=len(rows))
            .map_batches(
                SampleBatches,
                batch_size=1,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(
                    size=actors, max_tasks_in_flight_per_actor=in_flight, max_concurrent_calls_per_actor=in_flight
                ),
                fn_constructor_kwargs={"settings": settings},
                num_cpus=own.pop("CPU"),
                num_gpus=own.pop("GPU"),
                resources=own or None,
            )
            .iter_rows()
        )


def _row(batch: Batch) -> dict[str, Any]:
    """What an actor is handed."""
    return {"plan": batch.plan, "orders": [each.to_json() for each in batch.orders]}
