"""Compaction: fewer segments, the same rows, whenever it is killed and whoever reads or writes meanwhile."""

import itertools
import math
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retort.records import Chain, from_table, schema, to_table
from retort.store import open_store
from retort.store.artifacts import parquet_bytes
from retort.store.compaction import Compacted, compact
from retort.store.local import LocalStore
from retort.store.pool import Pool
from retort.store.reading import MERGED, SMALL_BYTES, batch_of, name_of, replaced_by, segment_name

HASH = "a" * 64
CHAIN = Chain(HASH, 0, '"Q"', "The answer is 3.", "stop", 5, 6, 8, 0, "t/train/0", "cot", 1.5)
PROMPTS = [f"a{number:063x}" for number in range(40)]

COMPACT = """
import sys
from retort.store import open_store
from retort.store.compaction import compact
from retort.store.pool import Pool

pool = Pool(open_store(sys.argv[1]), {})
print("ready", flush=True)
sys.stdin.readline()
compact(pool, target_chains=int(sys.argv[2]))
print("done", flush=True)
"""


@pytest.fixture
def any_pool(store_uri: str) -> Pool:
    """A pool in a store of each kind."""
    return Pool(open_store(store_uri), {"model": {"model": "m"}})


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool(open_store(str(tmp_path / "store")), {})


def rows_of(pool: Pool, partition: str = "a") -> Counter[Chain]:
    """Every row of a partition, repeats counted, sources of a half-done compaction too."""
    return Counter(itertools.chain.from_iterable(from_table(Chain, table) for table in pool.tables(partition)))


def fill(pool: Pool, num_segments: int, rows: int = 12, seed: int = 0, text_bytes: int = 0) -> set[Chain]:
    """Segments with rows of their own, some repeats, and keys with several rows."""
    rng = random.Random(seed)
    written: list[Chain] = []
    for number in range(num_segments):
        texts = [f"{seed} {number} {row} {rng.randbytes(text_bytes).hex()}" for row in range(rows)]
        chains = [replace(CHAIN, prompt_hash=rng.choice(PROMPTS), index=rng.randrange(30), text=text) for text in texts]
        chains += rng.sample(written, min(3, len(written)))
        pool.append(f"batch{seed}.{number}", chains)
        written += chains
    return set(written)


def test_many_segments_become_one_sorted_by_key(pool: Pool):
    written = fill(pool, 20)
    before = sum(rows_of(pool).values())
    assert before > len(written), "nothing is repeated"
    done = compact(pool)
    assert done == Compacted(20, 1, len(written), before - len(written))
    assert rows_of(pool) == Counter(written)
    (segment,) = pool.segments("a")
    assert batch_of(name_of(segment)) == MERGED
    assert segment_name(MERGED, pool.store.get(segment.key)) == name_of(segment)
    (table,) = pool.tables("a")
    keys = list(zip(table["prompt_hash"].to_pylist(), table["index"].to_pylist(), strict=True))
    assert keys == sorted(keys)
    assert compact(pool) == Compacted()
    assert pool.segments("a") == [segment]


def test_a_segment_holds_at_most_the_target_and_a_full_one_is_left_alone(pool: Pool):
    written = fill(pool, 20)
    compact(pool, "a", target_chains=50)
    sizes = [len(table) for table in pool.tables("a")]
    assert max(sizes) <= 50
    assert len(sizes) < 8
    before = set(pool.segments("a"))
    more = fill(pool, 3, seed=1)
    compact(pool, "a", target_chains=50)
    assert len(before & set(pool.segments("a"))) >= len(before) - 1
    assert set(rows_of(pool)) == written | more


def test_only_the_partition_that_is_asked_for_is_compacted(any_pool: Pool):
    for number in range(2):
        any_pool.append(f"batch{number}", [replace(CHAIN, index=number)])
        any_pool.append(f"batch{number}", [replace(CHAIN, prompt_hash="b" * 64, index=number)])
    assert compact(any_pool, "b").num_replaced == 2
    assert (len(any_pool.segments("a")), len(any_pool.segments("b"))) == (2, 1)
    assert compact(any_pool).num_replaced == 2


ROWS = st.builds(
    lambda name, index, text, logprob, tokens: replace(
        CHAIN, prompt_hash=name, index=index, text=text, logprob=logprob, token_logprobs=tokens, token_ids=(1,)
    ),
    st.sampled_from(PROMPTS[:3]),
    st.integers(0, 2),
    st.sampled_from(["", "one", "two", "ä\U0001f600"]),
    st.sampled_from([None, -1.5, float("-inf")]),
    st.sampled_from([(), (-0.5, -1.0)]),
)


@settings(max_examples=40, deadline=None)
@given(
    segments=st.lists(st.lists(ROWS, min_size=1, max_size=6), max_size=6),
    target=st.integers(1, 12),
    times=st.integers(1, 3),
)
def test_rows_before_are_rows_after(segments: list[list[Chain]], target: int, times: int):
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool(open_store(folder), {})
        for number, rows in enumerate(segments):
            pool.append(f"batch{number}", rows)
        before = rows_of(pool)
        wanted = {(row.prompt_hash, row.index) for row in before}
        chosen = pool.chains("a", wanted, 8)
        for _ in range(times):
            compact(pool, "a", target)
        assert set(rows_of(pool)) == set(before)
        assert sum(rows_of(pool).values()) <= sum(before.values())
        assert pool.chains("a", wanted, 8) == chosen


def test_rows_of_the_release_before_are_merged_with_those_of_this_one(pool: Pool):
    older = to_table(Chain, [replace(CHAIN, index=1)]).drop_columns(
        ["logprob", "token_logprobs", "token_ids", "source"]
    )
    older = older.replace_schema_metadata({"retort.record": "Chain", "retort.version": "2"})
    pool.store.put(f"{pool.prefix}segments/a/older-00000.parquet", parquet_bytes(older))
    pool.append("batch", [CHAIN])
    assert compact(pool).num_rows == 2
    assert pool.chains("a", {(HASH, 0), (HASH, 1)}, 8) == [CHAIN, replace(CHAIN, index=1)]
    (table,) = pool.tables("a")
    assert table.schema.names == schema(Chain).names


def test_rows_with_a_logprob_that_is_no_number_are_merged_too(pool: Pool):
    for number in range(3):
        pool.append(f"batch{number}", [replace(CHAIN, logprob=math.nan, token_logprobs=(math.nan,))])
    assert compact(pool) == Compacted(3, 1, num_rows=1, num_repeats=2)
    (row,) = rows_of(pool)
    assert row.logprob is not None
    assert math.isnan(row.logprob)


def test_a_batch_finds_its_chains_in_what_it_was_merged_into(any_pool: Pool):
    for number in range(4):
        any_pool.append("batch", [replace(CHAIN, index=number)])
    compact(any_pool)
    assert {(HASH, 0), (HASH, 3)} <= any_pool.answered("a", "batch", 8)
    any_pool.append("other", [replace(CHAIN, index=9)])
    compact(any_pool)
    assert len(any_pool.segments("a")) == 1
    assert {(HASH, 0), (HASH, 3)} <= any_pool.answered("a", "batch", 8), "merged twice"
    assert (HASH, 9) in any_pool.answered("a", "other", 8)
    assert any_pool.answered("a", "third", 8) == set()


def test_a_damaged_source_is_set_aside_and_not_merged(any_pool: Pool, caplog: pytest.LogCaptureFixture):
    written = fill(any_pool, 3)
    bad = f"{any_pool.prefix}segments/a/{segment_name('bad', b'what was written')}"
    any_pool.store.put(bad, b"what is there")
    assert compact(any_pool).num_replaced == 3
    assert set(rows_of(any_pool)) == written
    assert any_pool.store.get(bad.replace("/segments/", "/damaged/")) == b"what is there"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


# Trouble


@dataclass(frozen=True)
class EventfulStore(LocalStore):
    """A store in which things happen to what is written and deleted."""

    on_put: Callable[[str, bytes], bytes] = lambda _, data: data
    on_delete: Callable[[str], None] = lambda _: None

    def put(self, key: str, data: bytes) -> bool:
        return super().put(key, self.on_put(key, data))

    def delete(self, key: str) -> None:
        self.on_delete(key)
        super().delete(key)


def test_what_does_not_read_back_deletes_nothing(tmp_path: Path):
    written = fill(Pool(LocalStore(str(tmp_path)), {}), 5)
    pool = Pool(EventfulStore(str(tmp_path), on_put=lambda _, data: data[:-1]), {})
    with pytest.raises(OSError, match=r"merged-[0-9a-f]{16}\.parquet: does not read back as it was written"):
        compact(pool)
    assert len(pool.segments("a")) == 6
    assert set(rows_of(pool)) == written, "and readers set it aside"
    assert compact(Pool(LocalStore(str(tmp_path)), {})).num_replaced == 5


def test_a_deletion_that_was_broken_off_is_finished_by_the_next(tmp_path: Path):
    deleted: list[str] = []

    def die_after_two(key: str) -> None:
        if len(deleted) == 2:
            raise ConnectionResetError("the store is away")
        deleted.append(key)

    plain = Pool(LocalStore(str(tmp_path)), {})
    written = fill(plain, 5)
    with pytest.raises(ConnectionResetError):
        compact(Pool(EventfulStore(str(tmp_path), on_delete=die_after_two), {}))
    assert len(plain.segments("a")) == 4
    assert set(rows_of(plain)) == written
    assert compact(plain) == Compacted(), "nothing is left to merge"
    assert len(plain.segments("a")) == 1
    assert rows_of(plain) == Counter(written)


@pytest.mark.parametrize("text_bytes", [0, 40_000], ids=["small", "large"])
def test_a_damaged_merged_segment_deletes_nothing(text_bytes: int, tmp_path: Path):
    def never(key: str) -> None:
        raise ConnectionResetError("the store is away")

    plain = Pool(LocalStore(str(tmp_path)), {})
    written = fill(plain, 5, text_bytes=text_bytes)
    with pytest.raises(ConnectionResetError):
        compact(Pool(EventfulStore(str(tmp_path), on_delete=never), {}))
    (merged,) = (segment for segment in plain.segments("a") if batch_of(name_of(segment)) == MERGED)
    assert (merged.size > SMALL_BYTES) is bool(text_bytes), "of a large one, what it replaces is read without its rows"
    path = tmp_path / merged.key
    data = path.read_bytes()
    middle = len(data) // 2 if text_bytes else 50
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    assert compact(plain).num_replaced == 5
    assert rows_of(plain) == Counter(written)


def test_what_a_sampler_adds_meanwhile_is_not_touched(tmp_path: Path):
    plain = Pool(LocalStore(str(tmp_path)), {})
    written = fill(plain, 5)
    new = replace(CHAIN, index=29, text="new")

    def add(key: str, data: bytes) -> bytes:
        plain.append("new", [new])
        return data

    assert compact(Pool(EventfulStore(str(tmp_path), on_put=add), {})).num_replaced == 5
    assert sorted(batch_of(name_of(segment)) for segment in plain.segments("a")) == [MERGED, "new"]
    assert set(rows_of(plain)) == written | {new}


def start(root: Path, target_chains: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", COMPACT, str(root), str(target_chains)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_killed_compaction_loses_no_row_and_the_next_one_ends_it(tmp_path: Path):
    pool = Pool(open_store(str(tmp_path)), {})
    written = fill(pool, 80, rows=4)
    rng = random.Random(0)
    half_done = kills = 0
    for attempt in range(8):
        process = start(tmp_path, 60)
        go(process)
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        said, _ = process.communicate()
        kills += said == ""
        assert set(rows_of(pool)) == written
        half_done += len(pool.segments("a")) > 10
        written |= fill(pool, 10, rows=4, seed=1 + attempt)
    assert kills > 3, "most had ended before they were killed"
    assert half_done, "none was killed half-way"
    compact(pool, "a", 60)
    assert set(rows_of(pool)) == written
    replaced = {name for table in pool.tables("a", []) for name in replaced_by(table)}
    assert not replaced & {name_of(segment) for segment in pool.segments("a")}


def test_compactions_and_readers_at_once_see_every_row(tmp_path: Path):
    pool = Pool(open_store(str(tmp_path)), {})
    written = fill(pool, 60, rows=4)
    looks = 0
    for round_ in range(2):
        processes = [start(tmp_path, target) for target in (40 + 60 * round_, 70 + 60 * round_)]
        for process in processes:
            go(process)
        with ThreadPoolExecutor(2) as readers:
            while any(process.poll() is None for process in processes):
                for seen in readers.map(lambda _: set(rows_of(pool)), range(2)):
                    assert seen == written
                    looks += 1
        assert [process.communicate()[0] for process in processes] == ["done\n", "done\n"]
        assert set(rows_of(pool)) == written
        written |= fill(pool, 40, rows=4, seed=round_ + 1)
    assert looks > 3
    assert len(pool.segments("a")) < 60
