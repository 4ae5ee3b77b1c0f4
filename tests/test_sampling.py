"""Sampling: what is wanted is sampled once, durable in time, and grows without buying anything twice."""

import asyncio
import json
import time
from functools import partial
from pathlib import Path

import pytest

from recordings import recipe, write_recording
from retort import rollouts, sampling
from retort.asking import student_asked
from retort.engines import replay
from retort.engines.interface import Completion, SamplingDistribution
from retort.loading import load
from retort.pipeline import judge
from retort.planning import teacher_plans
from retort.prompts import Messages
from retort.records import Problem, Request
from retort.rollouts import Rollout
from retort.run import prepare
from retort.sampling import BATCH_CHAINS, Model, SamplingConfig, batches, sample, sample_batch
from retort.store import Store
from retort.store.hashing import digest
from retort.store.plan import Plan
from retort.store.pool import PARTITIONS, Pool, batch_name, partition_of
from retort.tasks import arithmetic
from retort.thoughts.socratic import Iterative
from retort.verification import verify

plan = partial(sampling.plan, asked=student_asked(Rollout()))

DISTRIBUTION = SamplingDistribution(temperature=1.0)


class TimedEngine:
    """An engine whose chains finish when the test says so: request i after `seconds[i]`, or never where it is None."""

    def __init__(self, seconds: list[float | None]) -> None:
        self.seconds = seconds

    async def complete(
        self, prompt: str | Messages, request: Request, distribution: SamplingDistribution
    ) -> Completion | None:
        del prompt, distribution
        seconds = self.seconds[request.index]
        if seconds is None:
            raise RuntimeError("engine died")
        await asyncio.sleep(seconds)
        return Completion(f"chain {request.index}", "stop", 3, 2)

    def close(self) -> None:
        pass


def problems(count: int) -> list[Problem]:
    return list(arithmetic.load(arithmetic.Config(id="arithmetic", train=count, dev=0, test=0)))


def one_prompt(store: Store, num_chains: int) -> tuple[Plan, list[Request]]:
    wanted = plan(problems(1), "cot", Pool(store, {"model": "timed"}), num_chains, 16)
    return wanted, list(wanted.missing())


def in_pool(wanted: Plan) -> int:
    keys = {(request.prompt_hash, request.index) for p in PARTITIONS for request in wanted.requests(p)}
    return sum(len(wanted.pool.chains(partition, keys, wanted.max_new_tokens)) for partition in PARTITIONS)


def test_batches_hold_every_request_once_and_never_cross_a_partition(store: Store) -> None:
    wanted = plan(problems(100), "cot", Pool(store, {}), 7, 16)
    made = list(batches(wanted.missing()))
    assert sum(len(batch) for batch in made) == 700
    assert len({(request.prompt_hash, request.index) for batch in made for request in batch}) == 700
    assert max(len(batch) for batch in made) == BATCH_CHAINS
    assert all(len({partition_of(request.prompt_hash) for request in batch}) == 1 for batch in made)


def test_a_finished_chain_is_durable_before_its_slow_sibling_ends(store: Store) -> None:
    wanted, requests = one_prompt(store, 3)

    async def check() -> None:
        engine = TimedEngine([0.0, 0.1, 4.0])
        running = asyncio.create_task(
            sample_batch([engine], Rollout(), wanted.pool, DISTRIBUTION, batch_name(requests), requests, flush_s=1.0)
        )
        await asyncio.sleep(1.2)
        assert in_pool(wanted) == 2
        assert len(await running) == 3

    asyncio.run(check())
    assert in_pool(wanted) == 3


def test_chains_that_finished_before_the_engine_died_are_durable(store: Store) -> None:
    wanted, requests = one_prompt(store, 3)
    with pytest.raises(RuntimeError, match="engine died"):
        asyncio.run(
            sample_batch(
                [TimedEngine([0.0, 0.0, None])],
                Rollout(),
                wanted.pool,
                DISTRIBUTION,
                batch_name(requests),
                requests,
                flush_s=60.0,
            )
        )
    assert in_pool(wanted) == 2


def test_raising_n_samples_exactly_the_new_chains(store: Store, ray_session: None, tmp_path: Path) -> None:
    config = replay.Config(paths=(str(write_recording(tmp_path / "rec.jsonl", 8)),))
    model = Model("replay", (config,))
    pool = model.pool(store, DISTRIBUTION)
    asked = problems(30)
    four = plan(asked, "cot", pool, 4, 96)
    eight = plan(asked, "cot", pool, 8, 96)
    (first,) = sample(model, [(four, DISTRIBUTION)], SamplingConfig(), "rec")
    before = {(c.prompt_hash, c.index): c for p in PARTITIONS for c in pool.chains(p, keys(four), 96)}
    (second,) = sample(model, [(eight, DISTRIBUTION)], SamplingConfig(), "rec")
    after = {(c.prompt_hash, c.index): c for p in PARTITIONS for c in pool.chains(p, keys(eight), 96)}
    assert (first.sampled, first.reused) == (120, 0)
    assert (second.sampled, second.reused) == (120, 120)
    assert len(after) == 240
    assert all(after[key] == chain for key, chain in before.items())
    assert {chain.index for chain in after.values()} == set(range(8))


def keys(wanted: Plan) -> set[tuple[str, int]]:
    return {(request.prompt_hash, request.index) for p in PARTITIONS for request in wanted.requests(p)}


def test_what_a_recording_lacks_is_counted_and_the_rest_is_kept(
    store: Store, ray_session: None, tmp_path: Path
) -> None:
    asked = problems(3)
    rows = [{"question": problem.question, "completions": ["The answer is 1."]} for problem in asked[:2]]
    path = tmp_path / "rec.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    model = Model("replay", (replay.Config(paths=(str(path),)),))
    wanted = plan(asked, "cot", model.pool(store, DISTRIBUTION), 2, 96)
    (done,) = sample(model, [(wanted, DISTRIBUTION)], SamplingConfig(), "rec")
    assert (done.wanted, done.sampled, done.lacking) == (6, 2, 4)
    assert in_pool(wanted) == 2


def test_a_plan_that_is_already_sampled_starts_nothing(store: Store) -> None:
    wanted, requests = one_prompt(store, 2)
    engines, name = [TimedEngine([0.0, 0.0])], batch_name(requests)
    asyncio.run(sample_batch(engines, Rollout(), wanted.pool, DISTRIBUTION, name, requests, 1.0))
    began = time.monotonic()
    # No Ray is up for this pool's engine, and the model does not exist: asking it would fail.
    (done,) = sample(
        Model("nothing", (replay.Config.model_construct(),)), [(wanted, DISTRIBUTION)], SamplingConfig(), "x"
    )
    assert (done.reused, done.sampled) == (2, 0)
    assert time.monotonic() - began < 5


def test_chains_that_vanish_from_the_pool_are_sampled_anew_and_never_just_missing(
    store: Store, ray_session: None, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(recipe(write_recording(tmp_path / "rec.jsonl", 2), "/unused", 2))
    run = prepare(load(path), store)
    teacher = run.recipe.teacher[0]
    plans = teacher_plans(run, teacher, with_references=False)
    ((wanted, distribution),) = plans.values()
    (first,) = sample(teacher.model, [(wanted, distribution)], SamplingConfig(), "rec")
    lost = Path(store.directory(store.keys(f"{wanted.pool.prefix}segments/")[0]))
    lost.unlink()
    with pytest.raises(ValueError, match="no longer in pool"):
        verify(store, [wanted], "rec", run.recipe.verification)
    judge(run, teacher.model, plans, "rec")
    stats = run.artifacts["verdicts"]["rec/cot"].stats
    assert (stats["rows"], stats["lacking"]) == (first.wanted, 0)


def test_a_rollout_is_part_of_its_pools_identity_and_a_plain_one_is_not() -> None:
    config = replay.Config.model_construct(paths=())
    plain = Model("replay", (config,)).identity()
    assert plain == config.identity() == Model("replay", (config,), Rollout()).identity()
    others = [
        Rollout(calculator=True),
        Rollout(iterative=Iterative()),
        Rollout(iterative=Iterative(questions="interleaved")),
        Rollout(iterative=Iterative(guidance="equations")),
    ]
    made = [Model("replay", (config, config), rollout).identity() for rollout in others]
    assert len({digest(identity) for identity in [plain, *made]}) == 5
    assert all(identity["rollout"]["version"] == rollouts.VERSION for identity in made)
