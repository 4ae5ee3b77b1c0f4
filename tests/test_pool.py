"""The pool (DESIGN, invariants 1 to 3): which rows answer a plan, what is missing, and what a damaged segment does."""

import itertools
import random
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retort import sampling
from retort.asking import student_asked
from retort.records import SCHEMA_VERSION, Chain, FinishReason, Problem, Request, Verdict, to_table
from retort.rollouts import Rollout
from retort.sampling import batches
from retort.store import Store, open_store
from retort.store.artifacts import Address, Writer, parquet_bytes
from retort.store.plan import Plan, PlannedPrompt, seed
from retort.store.pool import Pool, answers, batch_name, content_hash, partition_of, rows_digest
from retort.tasks import arithmetic
from retort.verification import VerificationConfig, verify_partition

plan = partial(sampling.plan, asked=student_asked(Rollout()))
HASH = "a" * 64
CHAIN = Chain(HASH, 0, '"Q"', "The answer is 3.", "stop", 5, 6, 8, 0, "t/train/0", "cot", 1.5)


@pytest.fixture
def pool(store: Store) -> Pool:
    return Pool(store, {"model": {"model": "m"}, "distribution": {"temperature": 1.0}})


def problems(count: int) -> list[Problem]:
    return list(arithmetic.load(arithmetic.Config(id="arithmetic", train=count, dev=0, test=0)))


def completed(request: Request, text: str = "The answer is 3.", finish: FinishReason = "stop") -> Chain:
    return Chain(
        prompt_hash=request.prompt_hash,
        index=request.index,
        prompt=request.prompt,
        text=text,
        finish_reason=finish,
        num_prompt_tokens=5,
        num_tokens=request.max_new_tokens if finish == "length" else 6,
        max_new_tokens=request.max_new_tokens,
        seed=request.seed,
        problem_id=request.problem_id,
        thought=request.thought,
        finished_at_s=1.5,
    )


def answer_all(wanted: Plan, finish: FinishReason = "stop") -> None:
    for batch in batches(wanted.missing()):
        wanted.pool.append(batch_name(batch), [completed(request, finish=finish) for request in batch])


def keys(requests: Iterable[Request]) -> list[tuple[str, int]]:
    return [(request.prompt_hash, request.index) for request in requests]


def all_requests(wanted: Plan) -> Iterator[Request]:
    return itertools.chain.from_iterable(map(wanted.requests, wanted.partitions))


# Which rows answer a plan


@pytest.mark.parametrize(
    ("finish", "sampled_with", "wanted", "does"),
    [
        ("stop", 64, 64, True),  # ended by itself within the budget
        ("stop", 32, 64, True),  # it would have ended there under any larger budget
        ("stop", 64, 32, True),  # a longer chain counts as cut off at the smaller budget: known without asking
        ("length", 64, 64, True),  # cut off at exactly that budget
        ("length", 64, 32, True),  # cut off later: cut off at the smaller budget too
        ("length", 32, 64, False),  # cut off too early to say
        ("length", 63, 64, False),
    ],
)
def test_a_row_answers_a_budget(finish: FinishReason, sampled_with: int, wanted: int, does: bool, pool: Pool):
    assert answers(finish, sampled_with, wanted) is does
    row = replace(CHAIN, finish_reason=finish, max_new_tokens=sampled_with, num_tokens=sampled_with)
    pool.append("batch", [row])
    assert pool.durable("a", wanted) == ({(HASH, 0)} if does else set())
    assert pool.chains("a", {(HASH, 0)}, wanted) == ([row] if does else [])


def test_the_row_with_the_smallest_content_hash_wins_in_any_order_of_segments(tmp_path: Path):
    rows = [replace(CHAIN, text=f"The answer is {number}.", finished_at_s=float(number)) for number in range(4)]
    smallest = min(rows, key=content_hash)
    assert smallest != rows[0], "the first row would win anyway"
    for number, order in enumerate(itertools.permutations(rows)):
        pool = Pool(open_store(str(tmp_path / str(number))), {})
        for name, row in zip("abcd", order, strict=True):
            pool.append(name, [row])
        assert pool.chains("a", {(HASH, 0)}, 8) == [smallest]


def test_a_row_that_does_not_answer_never_wins(pool: Pool):
    cut = next(
        row
        for number in range(100)
        if content_hash(row := replace(CHAIN, text=str(number), finish_reason="length", max_new_tokens=4))
        < content_hash(CHAIN)
    )
    pool.append("a", [cut])
    pool.append("b", [CHAIN])
    assert pool.chains("a", {(HASH, 0)}, 8) == [CHAIN]
    assert pool.chains("a", {(HASH, 0)}, 4) == [cut]


def test_repeated_rows_and_rows_that_nobody_asked_for_are_dropped(pool: Pool):
    other = replace(CHAIN, index=1)
    for name in ("a", "a", "b"):
        pool.append(name, [CHAIN, other, replace(CHAIN, index=2), replace(CHAIN, prompt_hash="ab" + HASH[2:])])
    assert len(pool.store.keys(f"{pool.prefix}segments/a/")) == 3
    assert pool.chains("a", {(HASH, 1), (HASH, 0), (HASH, 7)}, 8) == [CHAIN, other]


def test_the_digest_of_rows_does_not_depend_on_their_order():
    rows = [replace(CHAIN, index=number) for number in range(5)]
    assert rows_digest(rows) == rows_digest(rows[::-1]) != rows_digest(rows[:4])


def test_a_pool_is_the_model_and_the_distribution(store: Store, pool: Pool):
    assert Pool(store, {**pool.identity}).id == pool.id
    others = [{"model": {"model": "n"}}, {"distribution": {"temperature": 0.9}}]
    assert len({pool.id, *(Pool(store, {**pool.identity, **other}).id for other in others)}) == 3


# What is missing

PROMPTS = [f"a{number:063x}" for number in range(3)]
ROWS = st.tuples(
    st.sampled_from(PROMPTS), st.integers(0, 3), st.sampled_from(["stop", "length"]), st.sampled_from([4, 8, 16])
)


@settings(max_examples=60, deadline=None)
@given(
    segments=st.lists(st.lists(ROWS, min_size=1, max_size=6), max_size=4),
    wanted=st.dictionaries(st.sampled_from(PROMPTS), st.integers(1, 4), min_size=1),
    budget=st.sampled_from([4, 8, 16]),
)
def test_what_is_missing_is_what_is_wanted_without_what_is_there(
    segments: list[list[tuple[str, int, FinishReason, int]]], wanted: dict[str, int], budget: int
):
    problem = Problem("t/train/0", "t", "train", "q?", "number", "3")
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool(open_store(folder), {})
        planned = tuple(PlannedPrompt(problem, "cot", '"Q"', name, count) for name, count in wanted.items())
        plan = Plan(pool, planned, budget)
        for number, rows in enumerate(segments):
            chains = [
                replace(CHAIN, prompt_hash=name, index=index, finish_reason=finish, max_new_tokens=most)
                for name, index, finish, most in rows
            ]
            pool.append(f"batch{number}", chains)
        there = {
            (name, index)
            for name, index, finish, most in itertools.chain.from_iterable(segments)
            if finish == "stop" or most >= budget
        }
        asked = [(name, index) for name, count in wanted.items() for index in range(count)]
        missing = list(plan.missing())
        assert sorted(keys(missing)) == sorted(set(asked) - there)
        assert all(request.max_new_tokens == budget for request in missing)
        assert {(c.prompt_hash, c.index) for c in pool.chains("a", set(asked), budget)} == set(asked) & there


def test_twice_the_chains_miss_exactly_as_many_new_ones(pool: Pool):
    first, more = (plan(problems(40), "cot", pool, count, 16) for count in (4, 8))
    assert len(list(first.missing())) == first.num_wanted == 160
    answer_all(first)
    assert list(first.missing()) == []
    new = list(more.missing())
    assert len(new) == 160
    assert {request.index for request in new} == {4, 5, 6, 7}
    answer_all(more)
    assert list(more.missing()) == []
    assert len({*keys(all_requests(more))}) == 320


def test_a_larger_budget_misses_only_what_was_cut_off(pool: Pool):
    small, large = (plan(problems(40), "cot", pool, 2, budget) for budget in (16, 32))
    requests = list(small.missing())
    cut = set(keys(random.Random(0).sample(requests, 13)))
    for batch in batches(requests):
        chains = [completed(r, finish="length" if (r.prompt_hash, r.index) in cut else "stop") for r in batch]
        pool.append(batch_name(batch), chains)
    assert list(small.missing()) == []
    assert set(keys(large.missing())) == cut
    answer_all(large)
    assert list(large.missing()) == []
    assert list(small.missing()) == []


def test_another_thought_or_more_problems_reuse_all_that_is_there(pool: Pool):
    answer_all(plan(problems(20), "cot", pool, 2, 16))
    assert len(list(plan(problems(30), "cot", pool, 2, 16).missing())) == 20
    assert len(list(plan(problems(20), "answer", pool, 2, 16).missing())) == 40
    assert list(plan(problems(10), "cot", pool, 1, 16).missing()) == []


def test_problems_that_ask_the_same_share_their_chains(pool: Pool, store: Store):
    (one,) = problems(1)
    two = replace(one, id="copy/train/00000", task="copy", answer="0")
    wanted = plan([one, two], "cot", pool, 3, 16)
    missing = list(wanted.missing())
    assert [request.index for request in missing] == [0, 1, 2]
    answer_all(wanted)
    assert list(wanted.missing()) == []
    (partition,) = wanted.partitions
    writer = Writer(store, Address("verdicts", 1, {}, {}))
    row = {"plan": 0, "partition": partition, "prompts": [prompt.as_row() for prompt in wanted.prompts]}
    verify_partition(row, [(pool, 16, "m", writer)], VerificationConfig())
    (key,) = store.keys(writer.address.prefix)
    file = writer.put("again", store.get(key))
    verdicts = list(writer.commit([replace(file, name="v.parquet")], {}).records(Verdict))
    assert [(verdict.problem_id, verdict.index, verdict.gold) for verdict in verdicts] == [
        (problem.id, index, problem.answer) for problem in (one, two) for index in range(3)
    ]


def test_a_batch_that_is_tried_again_finds_what_is_durable(pool: Pool):
    batch = next(batches(plan(problems(40), "cot", pool, 8, 16).missing()))
    name = batch_name(batch)
    assert list(pool.missing(batch)) == batch
    pool.append(name, [completed(request) for request in batch[:5]])
    pool.append(name, [completed(request) for request in batch[5:7]])
    assert list(pool.missing(batch)) == batch[7:]
    assert batch_name(batch) == name
    assert batch_name(batch[7:]) != name
    assert batch_name([replace(request, max_new_tokens=17) for request in batch]) != name


def test_a_plan_wants_the_same_whatever_the_pool_holds(pool: Pool):
    wanted = plan(problems(5), "cot", pool, 2, 16)
    before = wanted.describe()
    answer_all(wanted)
    assert wanted.describe() == before
    others = [plan(problems(5), "cot", pool, 3, 16), plan(problems(5), "cot", pool, 2, 17)]
    others += [plan(problems(6), "cot", pool, 2, 16), plan(problems(5), "answer", pool, 2, 16)]
    assert before not in [other.describe() for other in others]


def test_a_planned_prompt_survives_as_a_row(pool: Pool):
    for prompt in plan(problems(3), "cot", pool, 2, 16).prompts:
        assert PlannedPrompt.from_row(prompt.as_row()) == prompt


# Seeds


def test_seeds_nest(pool: Pool):
    few, many = (plan(problems(10), "cot", pool, count, 16) for count in (1, 30))
    seeds = {key: request.seed for request in all_requests(many) for key in keys([request])}
    assert {key: request.seed for request in all_requests(few) for key in keys([request])}.items() <= seeds.items()
    assert len(set(seeds.values())) == len(seeds) == 300
    # What is asked alone, because its siblings are there already, is the same draw.
    answer_all(plan(problems(10), "cot", pool, 29, 16))
    alone = list(many.missing())
    assert {request.index for request in alone} == {29}
    assert all(request.seed == seeds[request.prompt_hash, 29] for request in alone)


def test_a_seed_is_the_prompts_base_plus_the_index():
    assert [seed("00000010" + HASH[8:], index) for index in (0, 1, 29)] == [16, 17, 45]
    assert seed("f" * 64, 10_000) < 2**63


# Hostile text and damaged segments


def test_a_chain_with_a_lone_surrogate_is_kept(pool: Pool):
    pool.append("batch", [replace(CHAIN, text="The answer is 3\ud800.")])
    (kept,) = pool.chains("a", {(HASH, 0)}, 8)
    assert kept.text == "The answer is 3\ufffd."
    assert pool.durable("a", 8) == {(HASH, 0)}


GOOD = parquet_bytes(to_table(Chain, [replace(CHAIN, text=str(number) * 50, index=number) for number in range(9)]))
NEWER = to_table(Chain, [CHAIN]).replace_schema_metadata(
    {"retort.record": "Chain", "retort.version": str(SCHEMA_VERSION + 1)}
)


def flipped(position: int) -> bytes:
    return GOOD[:position] + bytes([GOOD[position] ^ 1]) + GOOD[position + 1 :]


@pytest.mark.parametrize(
    "data",
    [b"", b"PAR1", b"not Parquet at all", GOOD[: len(GOOD) // 2], GOOD[:-1], b"\0" * len(GOOD), flipped(60)],
    ids=["empty", "four bytes", "a text", "half", "one byte short", "zeros", "one bit"],
)
def test_a_damaged_segment_is_refused_by_name_with_what_to_do(data: bytes, pool: Pool):
    pool.append("batch", [CHAIN])
    assert pool.store.put(f"{pool.prefix}segments/a/damaged-00000.parquet", data)
    for read in (lambda: pool.durable("a", 8), lambda: pool.chains("a", {(HASH, 0)}, 8)):
        with pytest.raises(ValueError, match=r"^[^\n]+\Z") as refused:
            read()
        assert f"{pool.store.uri}/{pool.prefix}segments/a/damaged-00000.parquet" in str(refused.value)
        assert "Move the object out of the pool and run again" in str(refused.value)
    assert pool.durable("b", 8) == set(), "another partition is not touched"


@pytest.mark.parametrize("table", [NEWER, to_table(Chain, [CHAIN]).append_column("more", pa.array([1]))])
def test_a_segment_of_a_newer_release_is_refused_and_stays_in_the_pool(table: pa.Table, pool: Pool):
    pool.store.put(f"{pool.prefix}segments/a/newer-00000.parquet", parquet_bytes(table))
    with pytest.raises(ValueError, match=r"^[^\n]+\Z") as refused:
        pool.chains("a", {(HASH, 0)}, 8)
    assert "segments/a/newer-00000.parquet" in str(refused.value)
    assert "Move" not in str(refused.value)


def test_no_flipped_bit_in_the_pages_goes_unnoticed(tmp_path: Path):
    wanted = {(HASH, index) for index in range(9)}
    whole = Pool(open_store(str(tmp_path / "whole")), {})
    whole.store.put(f"{whole.prefix}segments/a/x-00000.parquet", GOOD)
    rows = whole.chains("a", wanted, 8)
    assert len(rows) == 9
    noticed = 0
    for position in random.Random(0).sample(range(4, GOOD.index(b"prompt_hash")), 60):
        pool = Pool(open_store(str(tmp_path / str(position))), {})
        pool.store.put(f"{pool.prefix}segments/a/x-00000.parquet", flipped(position))
        try:
            assert pool.chains("a", wanted, 8) == rows, "a byte that nobody reads"
        except ValueError as error:
            noticed += "segments/a/x-00000.parquet" in str(error)
    assert noticed > 30


def test_the_partition_is_the_first_digit_of_the_hash(pool: Pool):
    wanted = plan(problems(60), "cot", pool, 1, 16)
    assert len(wanted.partitions) > 8
    assert all(
        partition_of(r.prompt_hash) == partition for partition in wanted.partitions for r in wanted.requests(partition)
    )
