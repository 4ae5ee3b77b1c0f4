"""The sampler: chains become durable as they finish, whatever becomes of their batch, its engine or the store."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest

from retort import sampling
from retort.asking import student_asked
from retort.engines.interface import Completion, EngineDiedError, PromptTooLongError, SamplingDistribution
from retort.metrics import SamplerMetrics
from retort.prompts import Messages
from retort.records import Chain, Request
from retort.rollouts import Rollout
from retort.sampling import flushing
from retort.sampling.drawing import Allowance, Order, batch_name
from retort.sampling.flushing import Flush
from retort.sampling.sampler import Sampler, Work
from retort.sampling.supervision import Supervised
from retort.store import Store
from retort.store.compaction import compact
from retort.store.local import LocalStore
from retort.store.plan import Plan, distinct
from retort.store.pool import PARTITIONS, Pool, Written
from retort.tasks import arithmetic
from retort.verification import VerificationConfig

plan = partial(sampling.plan, asked=student_asked(Rollout()))
DISTRIBUTION = SamplingDistribution(temperature=1.0)
Answers = Callable[[int], tuple[float, str] | None]


@dataclass
class Scripted:
    """An engine whose chains finish when the test says so: (seconds, text) by index, or it dies where None."""

    answers: Answers
    asked: list[int] = field(default_factory=list[int])

    num_prompt_tokens: int = 3
    fails_at: int | None = None

    num_tokens = None

    async def start(self) -> None:
        return

    async def complete(
        self, prompt: str | Messages, request: Request, distribution: SamplingDistribution
    ) -> Completion | None:
        self.asked.append(request.index)
        if request.index == self.fails_at:
            raise ValueError("refused")
        answer = self.answers(request.index)
        if answer is None:
            raise EngineDiedError("killed")
        seconds, text = answer
        await asyncio.sleep(seconds)
        return Completion(text, "stop", self.num_prompt_tokens, 2)

    def close(self) -> None:
        return


def one_prompt(store: Store, num_chains: int) -> Plan:
    problems = arithmetic.load(arithmetic.Config(id="arithmetic", train=1, dev=0, test=0))
    return plan(problems, "cot", Pool(store, {"model": "scripted"}), num_chains, 16)


def order_of(wanted: Plan) -> Order:
    (prompt,) = distinct(list(wanted.prompts))
    return Order((prompt,), tuple(range(prompt.num_chains)))


def sampler(
    wanted: Plan,
    engine: Scripted,
    flush_s: float = 60.0,
    segment_chains: int = 256,
    num_correct: int | None = None,
    tokens: int | None = None,
) -> Sampler:
    metrics = SamplerMetrics("test")
    return Sampler(
        [Supervised(lambda: engine, 64, 60.0, metrics)],
        Rollout(),
        [Work(wanted.pool, DISTRIBUTION, wanted.max_new_tokens, num_correct)],
        Flush(flush_s, segment_chains),
        VerificationConfig(),
        Allowance(tokens),
        metrics,
    )


def in_pool(wanted: Plan) -> set[int]:
    keys = {(prompt.prompt_hash, index) for prompt in wanted.prompts for index in range(prompt.num_chains)}
    found = (wanted.pool.chains(partition, keys, wanted.max_new_tokens) for partition in PARTITIONS)
    return {chain.index for chains in found for chain in chains}


def test_a_finished_chain_is_durable_before_its_slow_sibling_ends(store: Store) -> None:
    wanted = one_prompt(store, 3)

    async def check() -> None:
        made = sampler(wanted, Scripted(lambda index: ((0.0, 0.1, 4.0)[index], "The answer is 1.")), flush_s=1.0)
        running = asyncio.create_task(made.answer(0, [order_of(wanted)]))
        while in_pool(wanted) != {0, 1}:
            assert not running.done()
            await asyncio.sleep(0.1)
        counts = await running
        assert (counts.sampled, counts.segments) == (3, 2)
        made.close()

    asyncio.run(check())
    assert in_pool(wanted) == {0, 1, 2}


def test_a_full_segment_does_not_wait(store: Store) -> None:
    wanted = one_prompt(store, 5)

    async def check() -> None:
        script = Scripted(lambda index: (0.05 * index if index < 4 else 30.0, "The answer is 1."))
        made = sampler(wanted, script, flush_s=600.0, segment_chains=4)
        running = asyncio.create_task(made.answer(0, [order_of(wanted)]))
        deadline = time.monotonic() + 10
        while in_pool(wanted) != {0, 1, 2, 3}:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        running.cancel()
        made.close()

    asyncio.run(check())


def test_chains_that_finished_before_the_engine_died_for_good_are_durable(store: Store) -> None:
    wanted = one_prompt(store, 30)

    async def check() -> None:
        made = sampler(wanted, Scripted(lambda index: None if index == 2 else (0.01 * index, "The answer is 1.")))
        counts = await made.answer(0, [order_of(wanted)])
        assert "killed" in made.failure
        assert counts.sampled + counts.withheld == 30
        assert counts.sampled == len(in_pool(wanted)) >= 1
        made.close()

    asyncio.run(check())


def test_a_prompt_that_is_too_long_is_told_and_the_others_are_drawn(store: Store) -> None:
    wanted = one_prompt(store, 30)

    class Short(Scripted):
        async def complete(self, prompt, request, distribution):
            if request.index == 7:
                raise PromptTooLongError("too long")
            return await super().complete(prompt, request, distribution)

    async def check() -> None:
        made = sampler(wanted, Short(lambda index: (0.01 * index, "The answer is 1.")))
        counts = await made.answer(0, [order_of(wanted)])
        assert (counts.sampled, counts.withheld, made.failure) == (29, 1, "too long")
        made.close()

    asyncio.run(check())
    assert in_pool(wanted) == set(range(30)) - {7}


def test_a_batch_that_is_given_up_leaves_its_finished_chains_in_the_pool(store: Store) -> None:
    wanted = one_prompt(store, 20)

    async def check() -> None:
        made = sampler(wanted, Scripted(lambda index: (0.0 if index < 12 else 60.0, "The answer is 1.")))
        running = asyncio.create_task(made.answer(0, [order_of(wanted)]))
        await asyncio.sleep(1.0)
        assert in_pool(wanted) == set(), "they wait for more"
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        made.close()

    asyncio.run(check())
    assert in_pool(wanted) == set(range(12))


def test_slow_verdicts_hold_up_no_chain(store: Store) -> None:
    problem = next(iter(arithmetic.load(arithmetic.Config(id="arithmetic", train=1, dev=0, test=0))))
    wanted = plan([problem], "pot", Pool(store, {"model": "scripted"}), 4, 16)

    async def check() -> None:
        made = sampler(wanted, Scripted(lambda index: (0.0, "while True:\n    pass")), flush_s=0.5)
        running = asyncio.create_task(made.answer(0, [order_of(wanted)]))
        began = time.monotonic()
        while len(in_pool(wanted)) < 4:
            assert not running.done()
            await asyncio.sleep(0.1)
        assert time.monotonic() - began < 10, "each verdict takes five seconds"
        running.cancel()
        made.close()

    asyncio.run(check())


def test_a_batch_that_is_tried_again_asks_only_for_what_is_not_durable(store: Store) -> None:
    wanted = one_prompt(store, 6)
    order = order_of(wanted)

    async def check(script: Scripted, num_correct: int | None) -> None:
        made = sampler(wanted, script, num_correct=num_correct)
        await made.answer(0, [order])
        made.close()

    first = replace(order, indexes=(0, 1, 4))
    gold = wanted.prompts[0].problem.answer
    right = Scripted(lambda index: (0.0, f"The answer is {gold if index == 1 else 'blue'}."))

    async def die_half_way() -> None:
        # What an actor that was killed over this batch had written: segments of the batch's own name.
        made = sampler(wanted, right)
        name = batch_name([order], wanted.max_new_tokens)
        await made.answer(0, [first])
        written = [chain for p in PARTITIONS for chain in wanted.pool.chains(p, keys(wanted), wanted.max_new_tokens)]
        for key in store.keys(f"{wanted.pool.prefix}segments/"):
            store.delete(key)
        wanted.pool.append(name, written)
        made.close()

    asyncio.run(die_half_way())
    assert in_pool(wanted) == {0, 1, 4}
    again = Scripted(lambda index: (0.0, f"The answer is {gold}."))
    asyncio.run(check(again, num_correct=2))
    assert again.asked == [2], "0 was wrong, 1 is right and durable: one more right one is needed"
    rest = Scripted(lambda index: (0.0, f"The answer is {gold}."))
    asyncio.run(check(rest, num_correct=None))
    assert sorted(rest.asked) == [3, 5]


def test_a_batch_that_is_tried_again_counts_its_own_chains_of_a_merged_segment(store: Store) -> None:
    wanted = one_prompt(store, 60)
    order = replace(order_of(wanted), indexes=(50, 51, 52, 53))

    async def check() -> None:
        made = sampler(wanted, Scripted(lambda index: (0.0, "The answer is 1.")))
        await made.answer(0, [replace(order, indexes=tuple(range(50)))])
        await made.answer(0, [order])
        compact(wanted.pool)
        assert len(store.keys(f"{wanted.pool.prefix}segments/")) == 1
        counts = await made.answer(0, [order])
        assert (counts.sampled, counts.output_tokens) == (4, 8)
        made.close()

    asyncio.run(check())


def keys(wanted: Plan) -> set[tuple[str, int]]:
    return {(prompt.prompt_hash, index) for prompt in wanted.prompts for index in range(prompt.num_chains)}


def test_until_correct_stops_at_enough_right_chains_and_says_what_was_accepted(store: Store) -> None:
    wanted = one_prompt(store, 10)
    gold = wanted.prompts[0].problem.answer
    script = Scripted(lambda index: (0.0, f"The answer is {gold if index in (2, 5, 6) else 'blue'}."))

    async def check() -> None:
        made = sampler(wanted, script, num_correct=2)
        counts = await made.answer(0, [order_of(wanted)])
        assert (counts.sampled, counts.accepted, counts.accepted_tokens) == (6, 2, 4)
        made.close()

    asyncio.run(check())
    assert in_pool(wanted) == set(range(6))


def test_no_request_is_begun_that_the_allowance_might_not_cover(store: Store) -> None:
    wanted = one_prompt(store, 50)
    # A model without merges: a token a byte.
    script = Scripted(
        lambda index: (0.01, "The answer is 1."), num_prompt_tokens=len(wanted.prompts[0].prompt.encode())
    )
    most = script.num_prompt_tokens + wanted.max_new_tokens

    async def check() -> None:
        made = sampler(wanted, script, tokens=10 * most)
        counts = await made.answer(0, [order_of(wanted)])
        assert counts.sampled + counts.withheld == 50
        assert 9 * most < counts.prompt_tokens + counts.output_tokens <= 10 * most
        made.close()

    asyncio.run(check())


def test_after_a_refusal_what_waits_is_not_asked(store: Store) -> None:
    wanted = one_prompt(store, 300)
    script = Scripted(lambda index: (0.2, "The answer is 1."), fails_at=40)

    async def check() -> None:
        made = sampler(wanted, script)
        counts = await made.answer(0, [order_of(wanted)])
        assert (made.failure, counts.sampled, counts.withheld) == ("refused", 63, 237)
        made.close()

    asyncio.run(check())
    assert sorted(script.asked) == list(range(64)), "as many as the engine takes at once, all of which are kept"


def test_a_batch_does_not_wait_for_verdicts_on_which_nothing_depends(store: Store) -> None:
    problem = next(iter(arithmetic.load(arithmetic.Config(id="arithmetic", train=1, dev=0, test=0))))
    wanted = plan([problem], "pot", Pool(store, {"model": "scripted"}), 4, 16)

    async def check() -> None:
        made = sampler(wanted, Scripted(lambda index: (0.0, "while True:\n    pass")))
        began = time.monotonic()
        counts = await made.answer(0, [order_of(wanted)])
        assert time.monotonic() - began < 4, "each verdict takes five seconds"
        assert (counts.sampled, counts.judged) == (4, 0)
        made.close()

    asyncio.run(check())


class SlowPool(Pool):
    """On a store that takes its time."""

    def append(self, batch: str, chains: Sequence[Chain]) -> Written:
        time.sleep(1.6)
        return super().append(batch, chains)


def test_a_chain_that_comes_while_another_is_written_is_durable_in_time(store: Store) -> None:
    wanted = one_prompt(store, 3)
    wanted = replace(wanted, pool=SlowPool(store, wanted.pool.identity))

    async def check() -> None:
        # The first is written from 2.0 to 3.6 s, beside which the second comes.
        script = Scripted(lambda index: ((0.0, 2.1, 30.0)[index], "The answer is 1."))
        made = sampler(wanted, script, flush_s=4.0)
        began = time.monotonic()
        running = asyncio.create_task(made.answer(0, [order_of(wanted)]))
        while in_pool(wanted) != {0, 1}:
            await asyncio.sleep(0.05)
        assert time.monotonic() - began < 2.1 + 4.0 + 0.5
        running.cancel()
        made.close()

    asyncio.run(check())


def test_finished_chains_wait_for_a_store_that_takes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "store"
    root.write_bytes(b"in the way")
    wanted = one_prompt(LocalStore(str(root)), 2)

    async def check() -> None:
        made = sampler(wanted, Scripted(lambda index: (0.0, "The answer is 1.")), flush_s=0.1)
        running = asyncio.create_task(made.answer(0, [order_of(wanted)]))
        await asyncio.sleep(1.5)
        assert not running.done()
        root.unlink()
        assert (await running).sampled == 2
        made.close()

    with caplog.at_level(logging.WARNING, flushing.__name__):
        asyncio.run(check())
    assert "2 finished chains wait for the store" in caplog.text
    assert in_pool(wanted) == {0, 1}
