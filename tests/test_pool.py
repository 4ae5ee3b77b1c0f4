"""The pool (DESIGN, invariants 1 to 3): which rows answer a plan, what is missing, and what a damaged segment does."""

import itertools
import json
import pickle
import random
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from requested import missing, requests_of
from retort import sampling
from retort.asking import student_asked
from retort.records import SCHEMA_VERSION, Chain, FinishReason, Problem, Request, Verdict, to_table
from retort.rollouts import Rollout
from retort.solvers.zygote import Sandbox
from retort.store import Object, Store, open_store
from retort.store.artifacts import Address, File, Writer, parquet_bytes
from retort.store.compaction import compact
from retort.store.local import LocalStore
from retort.store.plan import Gap, Plan, PlannedPrompt, distinct, row_batches, seed, shares
from retort.store.pool import Key, Pool, answers, content_hash, open_pool, partition_of, pools, rows_digest
from retort.store.reading import MERGED, SMALL_BYTES, segment_name
from retort.tasks import arithmetic
from retort.verification import VerificationConfig, verify_partition

plan = partial(sampling.plan, asked=student_asked(Rollout()))
HASH = "a" * 64
CHAIN = Chain(HASH, 0, '"Q"', "The answer is 3.", "stop", 5, 6, 8, 0, "t/train/0", "cot", 1.5)


@pytest.fixture
def any_pool(store_uri: str) -> Pool:
    """A pool in a store of each kind."""
    return Pool(open_store(store_uri), {"model": {"model": "m"}})


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


def append(wanted: Plan, requests: Iterable[Request], finish: FinishReason = "stop") -> None:
    """Chains for requests, one segment a partition."""
    for partition, group in itertools.groupby(requests, key=lambda request: partition_of(request.prompt_hash)):
        wanted.pool.append(f"batch{partition}", [completed(request, finish=finish) for request in group])


def answer_all(wanted: Plan, finish: FinishReason = "stop") -> None:
    append(wanted, missing(wanted), finish)


def durable(pool: Pool, partition: str, max_new_tokens: int) -> set[Key]:
    """Keys that are there, as a plan that wants more than there is finds them."""
    tables = [table.to_pylist() for table in pool.keys(partition)]
    return {
        (row["prompt_hash"], row["index"])
        for row in itertools.chain.from_iterable(tables)
        if answers(row["finish_reason"], row["max_new_tokens"], max_new_tokens)
    }


def keys(requests: Iterable[Request]) -> list[tuple[str, int]]:
    return [(request.prompt_hash, request.index) for request in requests]


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
    assert durable(pool, "a", wanted) == ({(HASH, 0)} if does else set())
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


def test_rows_that_sampled_the_same_are_chosen_in_any_order_of_segments_too(tmp_path: Path):
    rows = [replace(CHAIN, finished_at_s=float(number)) for number in range(3)]
    chosen: set[Chain] = set()
    for number, order in enumerate(itertools.permutations(rows)):
        pool = Pool(open_store(str(tmp_path / str(number))), {})
        for name, row in zip("abc", order, strict=True):
            pool.append(name, [row])
        chosen.update(pool.chains("a", {(HASH, 0)}, 8))
    assert len(chosen) == 1


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
    for name in ("a", "b", "c"):
        pool.append(name, [CHAIN, other, replace(CHAIN, index=2), replace(CHAIN, prompt_hash="ab" + HASH[2:])])
    assert len(pool.segments("a")) == 3
    assert pool.chains("a", {(HASH, 1), (HASH, 0), (HASH, 7)}, 8) == [CHAIN, other]


def test_the_digest_of_rows_does_not_depend_on_their_order():
    rows = [replace(CHAIN, index=number) for number in range(5)]
    assert rows_digest(rows) == rows_digest(rows[::-1]) != rows_digest(rows[:4])


def test_a_pool_is_the_model_and_the_distribution(store: Store, pool: Pool):
    assert Pool(store, {**pool.identity}).id == pool.id
    others = [{"model": {"model": "n"}}, {"distribution": {"temperature": 0.9}}]
    assert len({pool.id, *(Pool(store, {**pool.identity, **other}).id for other in others)}) == 3


def test_a_pool_is_found_again_by_what_it_says_of_itself(any_pool: Pool):
    store = any_pool.store
    older = Pool(store, {"model": {"model": "older"}})
    store.put(f"{older.prefix}pool.json", json.dumps(older.identity).encode())  # as it was before formats
    any_pool.describe()
    any_pool.append("batch", [CHAIN])
    assert open_pool(store, any_pool.id) == any_pool
    assert open_pool(store, older.id) == older
    assert {found.id for found in pools(store)} == {any_pool.id, older.id}
    with pytest.raises(ValueError, match=rf"no pool 'abc'.*{any_pool.id}"):
        open_pool(store, "abc")


@pytest.mark.parametrize(
    ("description", "said"),
    [({"format": 2, "identity": {}}, "format 2; expected 1"), ({"format": 1, "identity": {"a": 1}}, "moved or edited")],
)
def test_a_description_of_another_format_or_pool_is_refused(description: object, said: str, store: Store, pool: Pool):
    store.put(f"{pool.prefix}pool.json", json.dumps(description).encode())
    with pytest.raises(ValueError, match=r"^[^\n]+\Z") as refused:
        open_pool(store, pool.id)
    assert said in str(refused.value)
    assert f"{pool.prefix}pool.json" in str(refused.value)


# What is missing

PROMPTS = [f"a{number:063x}" for number in range(3)]
ROWS = st.tuples(
    st.sampled_from(PROMPTS), st.integers(0, 3), st.sampled_from(["stop", "length"]), st.sampled_from([4, 8, 16])
)
PROBLEM = Problem("t/train/0", "t", "train", "q?", "number", "3")


def row_of(name: str, index: int, finish: FinishReason, most: int, length: int = 6) -> Chain:
    return replace(CHAIN, prompt_hash=name, index=index, finish_reason=finish, max_new_tokens=most, num_tokens=length)


@settings(max_examples=60, deadline=None)
@given(
    segments=st.lists(st.lists(ROWS, min_size=1, max_size=6), max_size=4),
    wanted=st.dictionaries(st.sampled_from(PROMPTS), st.integers(1, 4), min_size=1),
    budget=st.sampled_from([4, 8, 16]),
)
def test_what_is_missing_is_what_is_wanted_without_what_is_there(
    segments: list[list[tuple[str, int, FinishReason, int]]], wanted: dict[str, int], budget: int
):
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool(open_store(folder), {})
        planned = tuple(PlannedPrompt(PROBLEM, "cot", '"Q"', name, count) for name, count in wanted.items())
        plan = Plan(pool, planned, budget)
        for number, rows in enumerate(segments):
            pool.append(f"batch{number}", [row_of(*row) for row in rows])
        there = {
            (name, index)
            for name, index, finish, most in itertools.chain.from_iterable(segments)
            if finish == "stop" or most >= budget
        }
        asked = [(name, index) for name, count in wanted.items() for index in range(count)]
        left = missing(plan)
        assert sorted(keys(left)) == sorted(set(asked) - there)
        assert all(request.max_new_tokens == budget for request in left)
        assert {(c.prompt_hash, c.index) for c in pool.chains("a", set(asked), budget)} == set(asked) & there


LENGTHS = st.integers(0, 9)


@settings(max_examples=60, deadline=None)
@given(
    segments=st.lists(st.lists(st.tuples(ROWS, LENGTHS), min_size=1, max_size=6), max_size=4),
    wanted=st.dictionaries(st.sampled_from(PROMPTS), st.integers(1, 4), min_size=1),
    budget=st.sampled_from([4, 8, 16]),
)
def test_a_survey_counts_what_a_loop_over_the_rows_counts(
    segments: list[list[tuple[tuple[str, int, FinishReason, int], int]]], wanted: dict[str, int], budget: int
):
    lengths: dict[Key, int] = {}
    cost = 0
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool(open_store(folder), {})
        for number, rows in enumerate(segments):
            pool.append(f"batch{number}", [row_of(*row, length) for row, length in rows])
            for (name, index, finish, most), length in rows:
                cost += (5 + length) * (index < wanted.get(name, 0))
                if answers(finish, most, budget) and index < wanted.get(name, 0):
                    lengths[name, index] = max(length, lengths.get((name, index), 0))
        planned = [PlannedPrompt(PROBLEM, "cot", '"Q"', name, count) for name, count in wanted.items()]
        survey = Plan(pool, tuple(planned), budget).survey("a")
    gaps: list[Gap] = []
    for prompt in distinct(planned):
        there = [length for (name, _), length in lengths.items() if name == prompt.prompt_hash]
        left = [index for index in range(prompt.num_chains) if (prompt.prompt_hash, index) not in lengths]
        if left:
            gaps.append(Gap(prompt, left, sum(there) / len(there) if there else None))
    assert survey.gaps == gaps
    assert survey.num_durable == len(lengths)
    assert survey.num_tokens == cost, "prompts are of 5 tokens; what was cut off too early is paid for too"


def test_a_survey_of_a_partition_without_prompts_is_empty(pool: Pool):
    pool.append("batch", [CHAIN])
    assert plan(problems(0), "cot", pool, 2, 16).survey("a") == ([], 0, 0)


def test_twice_the_chains_miss_exactly_as_many_new_ones(pool: Pool):
    first, more = (plan(problems(40), "cot", pool, count, 16) for count in (4, 8))
    assert len(missing(first)) == first.num_wanted == 160
    answer_all(first)
    assert missing(first) == []
    new = missing(more)
    assert len(new) == 160
    assert {request.index for request in new} == {4, 5, 6, 7}
    answer_all(more)
    assert missing(more) == []
    assert len({*keys(requests_of(more))}) == 320


def test_a_larger_budget_misses_only_what_was_cut_off(pool: Pool):
    small, large = (plan(problems(40), "cot", pool, 2, budget) for budget in (16, 32))
    requests = missing(small)
    cut = set(keys(random.Random(0).sample(requests, 13)))
    append(small, [request for request in requests if (request.prompt_hash, request.index) in cut], "length")
    append(small, [request for request in requests if (request.prompt_hash, request.index) not in cut])
    assert missing(small) == []
    assert set(keys(missing(large))) == cut
    answer_all(large)
    assert missing(large) == []
    assert missing(small) == []


def test_another_thought_or_more_problems_reuse_all_that_is_there(pool: Pool):
    answer_all(plan(problems(20), "cot", pool, 2, 16))
    assert len(missing(plan(problems(30), "cot", pool, 2, 16))) == 20
    assert len(missing(plan(problems(20), "answer", pool, 2, 16))) == 40
    assert missing(plan(problems(10), "cot", pool, 1, 16)) == []


def test_problems_that_ask_the_same_share_their_chains(pool: Pool, store: Store):
    (one,) = problems(1)
    two = replace(one, id="copy/train/00000", task="copy", answer="0")
    wanted = plan([one, two], "cot", pool, 3, 16)
    left = missing(wanted)
    assert [request.index for request in left] == [0, 1, 2]
    answer_all(wanted)
    assert missing(wanted) == []
    (partition,) = wanted.partitions
    writer = Writer(store, Address("verdicts", 1, {}, {}))
    row = {"plan": 0, "partition": partition, "share": 0, "prompts": [prompt.as_row() for prompt in wanted.prompts]}
    verify_partition(row, Sandbox(), [(wanted.without_prompts(), "m", writer)], VerificationConfig())
    (key,) = store.keys(writer.address.prefix)
    file = writer.put("again", store.get(key))
    verdicts = list(writer.commit([replace(file, name="v.parquet")], {}).records(Verdict))
    assert [(verdict.problem_id, verdict.index, verdict.gold) for verdict in verdicts] == [
        (problem.id, index, problem.answer) for problem in (one, two) for index in range(3)
    ]


def test_a_partition_that_is_verified_in_shares_has_the_same_verdicts(pool: Pool, store: Store):
    asked = problems(200)
    asked += [replace(each, id=f"copy/{each.id}", task="copy", answer="0") for each in asked[:100]]
    wanted = plan(asked, "cot", pool, 3, 16)
    answer_all(wanted)
    partition, prompts = max(wanted.partitions.items(), key=lambda item: len(item[1]))
    together, apart = shares(prompts, 10**6), shares(prompts, 12)
    assert together == [prompts]
    assert len(apart) > 2
    assert max(sum(each.num_chains for each in distinct(share)) for share in apart) == 12
    hashes = [{prompt.prompt_hash for prompt in share} for share in apart]
    assert sum(map(len, hashes)) == len(set().union(*hashes)), "problems that ask the same are in one share"
    found: list[list[Verdict]] = []
    for made in (together, apart):
        writer = Writer(store, Address("verdicts", 1, {"shares": len(made)}, {}))
        files: list[File] = []
        for number, share in enumerate(made):
            rows = [prompt.as_row() for prompt in share]
            row = {"plan": 0, "partition": partition, "share": number, "prompts": rows}
            done = verify_partition(row, Sandbox(), [(wanted.without_prompts(), "m", writer)], VerificationConfig())
            assert (done["gone"], done["chains"]) == (0, sum(each.num_chains for each in distinct(share)))
            files += [File(**file) for file in json.loads(done["files"])]
        found.append(sorted(writer.commit(files, {}).records(Verdict), key=lambda each: (each.problem_id, each.index)))
    assert found[0] == found[1]
    assert len(found[0]) == 3 * len(prompts)


def test_small_partitions_are_verified_in_one_task(pool: Pool):
    wanted = plan(problems(200), "cot", pool, 3, 16)
    together = list(row_batches(wanted.partitions, 10**6, 10**6))
    assert [[share["partition"] for share in batch] for batch in together] == [list(wanted.partitions)]
    apart = list(row_batches(wanted.partitions, 100, 12))
    counts = [sum(prompt["num_chains"] for share in batch for prompt in share["prompts"]) for batch in apart]
    assert sum(counts) == wanted.num_wanted == 600
    assert min(counts[:-1]) >= 100
    assert max(counts) < 112, "a batch ends with the share that fills it"
    hashes = [prompt["prompt_hash"] for batch in apart for share in batch for prompt in share["prompts"]]
    assert sorted(hashes) == sorted(prompt.prompt_hash for prompt in wanted.prompts)
    assert [share["share"] for batch in apart for share in batch][:3] == [0, 1, 2]


def test_a_batch_that_is_tried_again_finds_what_is_durable(any_pool: Pool):
    rows = [replace(CHAIN, index=number, max_new_tokens=8 + number) for number in range(6)]
    assert any_pool.answered("a", "batch", 8) == set()
    first = any_pool.append("batch", rows[:2])
    any_pool.append("batch", [replace(row, finish_reason="length") for row in rows[2:4]])
    any_pool.append("batch2", rows[4:5])
    any_pool.append("other", rows[5:])
    assert any_pool.answered("a", "batch", 8) == {(HASH, index) for index in range(4)}
    assert any_pool.answered("a", "batch", 11) == {(HASH, index) for index in (0, 1, 3)}, "2 was cut off at 10"
    assert any_pool.answered("b", "batch", 8) == set()
    assert len(any_pool.store.get(first.key)) == first.size


def test_a_segment_that_is_written_again_is_the_same_object(pool: Pool):
    once = pool.append("batch", [CHAIN])
    assert pool.append("batch", [CHAIN]) == once
    assert pool.append("batch", [replace(CHAIN, finished_at_s=2.0)]) != once
    assert len(pool.segments("a")) == 2


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
    seeds = {key: request.seed for request in requests_of(many) for key in keys([request])}
    assert {key: request.seed for request in requests_of(few) for key in keys([request])}.items() <= seeds.items()
    assert len(set(seeds.values())) == len(seeds) == 300
    # What is asked alone, because its siblings are there already, is the same draw.
    answer_all(plan(problems(10), "cot", pool, 29, 16))
    alone = missing(many)
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
    assert durable(pool, "a", 8) == {(HASH, 0)}


ROWS_OF_GOOD = [replace(CHAIN, text=str(number) * 50, index=number) for number in range(1, 10)]
GOOD = parquet_bytes(to_table(Chain, ROWS_OF_GOOD))
NEWER = to_table(Chain, [CHAIN]).replace_schema_metadata(
    {"retort.record": "Chain", "retort.version": str(SCHEMA_VERSION + 1)}
)
NAMES = [segment_name("bad", GOOD), "bad-00000.parquet"]
ALL = {(HASH, index) for index in range(10)}


def flipped(position: int, data: bytes = GOOD) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


@pytest.mark.parametrize("name", NAMES, ids=["digest", "older name"])
@pytest.mark.parametrize(
    "data",
    [b"", b"PAR1", b"not Parquet at all", GOOD[: len(GOOD) // 2], GOOD[:-1], b"\0" * len(GOOD), flipped(60)],
    ids=["empty", "four bytes", "a text", "half", "one byte short", "zeros", "one bit"],
)
def test_a_damaged_segment_is_set_aside_and_its_chains_are_missing(
    data: bytes, name: str, pool: Pool, caplog: pytest.LogCaptureFixture
):
    pool.append("batch", [CHAIN])
    key = f"{pool.prefix}segments/a/{name}"
    assert pool.store.put(key, data)
    assert durable(pool, "a", 8) == {(HASH, 0)}
    (told,) = [record.getMessage() for record in caplog.records]
    assert f"{pool.store.uri}/{key} is damaged" in told
    assert ("digest" if name == NAMES[0] else "Parquet") in told
    assert "\n" not in told
    assert pool.store.get(f"{pool.prefix}damaged/a/{name}") == data
    assert not pool.store.exists(key)
    assert pool.chains("a", ALL, 8) == [CHAIN]
    assert len(caplog.records) == 1, "it is reported once"
    pool.append("again", ROWS_OF_GOOD)
    assert durable(pool, "a", 8) == ALL


def test_a_damaged_segment_of_another_partition_is_not_touched(pool: Pool):
    pool.store.put(f"{pool.prefix}segments/a/{NAMES[0]}", b"")
    assert durable(pool, "b", 8) == set()
    assert len(pool.segments("a")) == 1


@pytest.mark.parametrize("named_by_digest", [True, False])
@pytest.mark.parametrize("table", [NEWER, to_table(Chain, [CHAIN]).append_column("more", pa.array([1]))])
def test_a_segment_of_a_newer_release_is_refused_and_stays_in_the_pool(
    table: pa.Table, named_by_digest: bool, pool: Pool
):
    data = parquet_bytes(table)
    key = f"{pool.prefix}segments/a/{segment_name('newer', data) if named_by_digest else 'newer-00000.parquet'}"
    pool.store.put(key, data)
    for read in (lambda: durable(pool, "a", 8), lambda: pool.chains("a", {(HASH, 0)}, 8)):
        with pytest.raises(ValueError, match=r"^[^\n]+\Z") as refused:
            read()
        assert key in str(refused.value)
        assert "schema version" in str(refused.value) or "columns" in str(refused.value)
    assert pool.store.get(key) == data


def test_no_flipped_bit_goes_unnoticed_where_the_name_has_a_digest(tmp_path: Path):
    for position in random.Random(0).sample(range(len(GOOD)), 60):
        pool = Pool(open_store(str(tmp_path / str(position))), {})
        pool.store.put(f"{pool.prefix}segments/a/{NAMES[0]}", flipped(position))
        assert pool.chains("a", ALL, 8) == []
        assert pool.segments("a") == []


def test_no_flipped_bit_in_the_pages_goes_unnoticed_where_it_has_none(tmp_path: Path):
    noticed = 0
    for position in random.Random(0).sample(range(4, GOOD.index(b"prompt_hash")), 60):
        pool = Pool(open_store(str(tmp_path / str(position))), {})
        pool.store.put(f"{pool.prefix}segments/a/{NAMES[1]}", flipped(position))
        rows = pool.chains("a", ALL, 8)
        assert rows == ([] if pool.segments("a") == [] else ROWS_OF_GOOD), "a byte that nobody reads"
        noticed += rows == []
    assert noticed > 30


# Large segments, and stores in which things happen


@dataclass(frozen=True)
class EventfulStore(LocalStore):
    """A store in which things happen while it is read."""

    on_get: Callable[[str, bytes], bytes] = lambda _, data: data
    on_list: Callable[[list[Object]], list[Object]] = lambda found: found

    def get(self, key: str) -> bytes:
        return self.on_get(key, super().get(key))

    def objects(self, prefix: str) -> list[Object]:
        return self.on_list(super().objects(prefix))


def large_rows() -> list[Chain]:
    """Rows that do not compress, so that their segment is a large one."""
    rng = random.Random(0)
    return [replace(CHAIN, text=rng.randbytes(2000).hex(), index=number) for number in range(1500)]


def test_of_a_large_segment_only_the_key_columns_are_fetched(tmp_path: Path):
    fetched: list[str] = []
    pool = Pool(EventfulStore(str(tmp_path), on_get=lambda key, data: fetched.append(key) or data), {})
    rows = large_rows()
    assert pool.append("large", rows).size > SMALL_BYTES
    small = pool.append("small", [replace(CHAIN, prompt_hash="ab" + HASH[2:])])
    assert durable(pool, "a", 8) >= {(HASH, row.index) for row in rows}
    assert pool.answered("a", "large", 8) == {(HASH, row.index) for row in rows}
    assert fetched == [small.key]
    assert pool.chains("a", {(HASH, 7)}, 8) == [rows[7]]


def test_a_damaged_large_segment_is_found_where_it_is_read(tmp_path: Path):
    rows = large_rows()
    data = parquet_bytes(to_table(Chain, rows))
    in_text = data.index(rows[700].text[:8].encode()) if rows[700].text[:8].encode() in data else len(data) // 2
    name = segment_name("large", data)
    for position, columns, is_seen in (
        (in_text, ["prompt_hash"], False),
        (in_text, None, True),
        (30, ["prompt_hash"], True),
    ):
        pool = Pool(open_store(str(tmp_path / f"{position}{columns}")), {})
        pool.store.put(f"{pool.prefix}segments/a/{name}", flipped(position, data))
        assert sum(table.num_rows for table in pool.tables("a", columns)) == (0 if is_seen else len(rows))
        assert pool.store.exists(f"{pool.prefix}damaged/a/{name}") is is_seen


@pytest.mark.parametrize("rows", [[CHAIN], large_rows()], ids=["small", "large"])
def test_what_is_damaged_only_on_its_way_is_read_again(
    rows: list[Chain], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    damages = iter([True])
    store = EventfulStore(
        str(tmp_path), on_get=lambda _, data: data[: len(data) // 2] if next(damages, False) else data
    )
    pool = Pool(store, {})
    pool.append("batch", rows)
    assert pool.chains("a", {(HASH, 0)}, 8) == rows[:1]
    assert next(damages, False) is False, "nothing was damaged"
    assert caplog.records == []


def test_a_segment_that_is_only_ever_damaged_on_its_way_is_kept_as_it_was_written(tmp_path: Path):
    plain = Pool(LocalStore(str(tmp_path)), {})
    good = plain.store.get(plain.append("batch", [CHAIN]).key)
    pool = Pool(EventfulStore(str(tmp_path), on_get=lambda _, data: data[:-1]), {})
    assert durable(pool, "a", 8) == set()
    (kept,) = plain.store.keys(f"{plain.prefix}damaged/a/")
    assert plain.store.get(kept) == good


@pytest.mark.parametrize("damaged", [b"", flipped(60)])
def test_a_survey_that_sets_nothing_aside_finds_the_same_and_changes_nothing(
    damaged: bytes, pool: Pool, caplog: pytest.LogCaptureFixture
):
    wanted = plan(problems(9), "cot", pool, 2, 16)
    partition, (prompt, *_) = next(iter(wanted.partitions.items()))
    append(wanted, [request for request in missing(wanted) if request.prompt_hash == prompt.prompt_hash])
    key = f"{pool.folder(partition)}{NAMES[0]}"
    pool.store.put(key, damaged)
    before = pool.store.objects("")
    seen = wanted.survey(partition, sets_aside=False)
    assert seen.num_durable == 2
    assert pool.store.objects("") == before
    assert [record.levelname for record in caplog.records] == ["WARNING"], "it is told once"
    assert wanted.survey(partition) == seen
    assert pool.store.keys(f"{pool.prefix}damaged/") == [key.replace("/segments/", "/damaged/")]


@pytest.mark.parametrize("read", [lambda pool: durable(pool, "a", 8), lambda pool: pool.answered("a", "batch0", 8)])
def test_a_segment_that_vanishes_while_it_is_read_is_found_where_it_went(
    read: Callable[[Pool], set[Key]], tmp_path: Path
):
    compactions = iter([True])

    def compact_first(_: str, data: bytes) -> bytes:
        if next(compactions, False):
            assert compact(plain).num_replaced == 3
            raise FileNotFoundError
        return data

    plain = Pool(LocalStore(str(tmp_path)), {})
    pool = Pool(EventfulStore(str(tmp_path), on_get=compact_first), {})
    for number in range(3):
        plain.append(f"batch{number}", [replace(CHAIN, index=number)])
    assert read(pool) == {(HASH, index) for index in range(3)}
    assert len(plain.segments("a")) == 1


def test_a_batch_is_found_where_it_went_while_a_merged_segment_was_read(tmp_path: Path):
    compactions = iter([True])

    def compact_first(key: str, data: bytes) -> bytes:
        if f"/{MERGED}-" in key and next(compactions, False):
            assert compact(plain).num_replaced == 2
            raise FileNotFoundError
        return data

    plain = Pool(LocalStore(str(tmp_path)), {})
    for number in range(2):
        plain.append("batch", [replace(CHAIN, index=number)])
    compact(plain)
    plain.append("other", [replace(CHAIN, index=2)])
    pool = Pool(EventfulStore(str(tmp_path), on_get=compact_first), {})
    assert pool.answered("a", "batch", 8) >= {(HASH, 0), (HASH, 1)}


def test_a_listing_that_misses_what_moved_behind_it_is_not_believed(tmp_path: Path):
    torn = iter([True])
    pool = Pool(EventfulStore(str(tmp_path), on_list=lambda found: [] if next(torn, False) else found), {})
    pool.append("batch", [CHAIN])
    assert durable(pool, "a", 8) == {(HASH, 0)}


def test_a_reader_gives_up_where_segments_never_stay(tmp_path: Path):
    ghost = Object("pools/x/segments/a/ghost-00000.parquet", 1, 0.0)
    pool = Pool(EventfulStore(str(tmp_path), on_list=lambda _: [ghost]), {})
    with pytest.raises(RuntimeError, match="vanished during each of 10 listings"):
        durable(pool, "a", 8)


def test_a_pool_travels_to_other_processes(any_pool: Pool):
    any_pool.append("batch", [CHAIN])
    any_pool.append("batch", [replace(CHAIN, index=1)])
    compact(any_pool)
    assert any_pool.answered("a", "batch", 8) == {(HASH, 0), (HASH, 1)}
    again: Pool = pickle.loads(pickle.dumps(any_pool))  # noqa: S301
    assert again == any_pool
    assert again.answered("a", "batch", 8) == {(HASH, 0), (HASH, 1)}
    assert again.answered("a", "other", 8) == set()


def test_the_partition_is_the_first_digit_of_the_hash(pool: Pool):
    wanted = plan(problems(60), "cot", pool, 1, 16)
    assert len(wanted.partitions) > 8
    assert all(
        partition_of(prompt.prompt_hash) == name for name, prompts in wanted.partitions.items() for prompt in prompts
    )
