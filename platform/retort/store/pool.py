"""The pool: every chain ever sampled from one model with one sampling distribution, in immutable segments.

    pools/<id>/pool.json                        what the pool is of
    pools/<id>/segments/<partition>/<name>      chains, as they finished (`store/reading.py` has the names)
    pools/<id>/damaged/<partition>/<name>       segments that could not be read
    pools/<id>/claims/<partition>/<generation>  who samples a partition (`store/claims.py`)

A partition is the first hex digit of the prompt's hash, so that what is missing can be found partition by partition. A
segment is named after the batch of requests that it answers: a batch that is tried again finds what is durable already.
Readers drop repeated keys. No row is ever changed; compaction moves rows to larger segments.

Readers take no lock, so a segment may vanish between listing and reading: its rows are then in one that a later listing
shows. Nor is a listing one moment: it may miss a new segment and then those that it replaced. So readers list until a
second look misses nothing.
"""

import contextlib
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from retort.records import Chain, as_row, from_table, schema, to_table
from retort.store import Object, Store, address
from retort.store.artifacts import parquet_bytes
from retort.store.hashing import digest
from retort.store.reading import MERGED, Damage, batch_of, read, replaced_by, segment_name

logger = logging.getLogger(__name__)

FORMAT = 1
PARTITIONS = tuple("0123456789abcdef")
KEY_COLUMNS = ["prompt_hash", "index", "finish_reason", "max_new_tokens", "num_prompt_tokens", "num_tokens"]
KEYS_AT_ONCE = 1 << 17
"""Rows of a table of keys: many segments' worth, so that a join is paid once for all of them; 20 MB."""
READERS = 16
"""Segments that are fetched at once: an object store answers in tens of milliseconds, but many at a time."""
READ_BYTES = 64 << 20
"""Size of the segments that are held at once, waiting for their turn."""
ROWS_AT_ONCE = 4096
"""Rows that become Python objects together, of a segment that may hold very many."""
MAX_LISTINGS = 10
"""Looks at a partition of which segments keep vanishing; a compaction takes two."""

Key = tuple[str, int]


class Written(NamedTuple):
    """A segment that is durable."""

    key: str
    size: int


def answers(finish_reason: str, sampled_max_new_tokens: int, max_new_tokens: int) -> bool:
    """Whether a row settles what a plan with `max_new_tokens` would have got.

    It does if the chain ended by itself (a longer one would have been cut off at the plan's budget, which is known
    without asking) or if it was cut off at that budget or later.
    """
    return finish_reason == "stop" or sampled_max_new_tokens >= max_new_tokens


def answering(table: pa.Table, max_new_tokens: int) -> pa.Table:
    """The rows of a table of chains, or of their key columns, for which `answers` holds."""
    return table.filter((pc.field("finish_reason") == "stop") | (pc.field("max_new_tokens") >= max_new_tokens))


def keys_of(table: pa.Table) -> Iterator[Key]:
    """The keys of a table of chains, row by row."""
    return zip(table["prompt_hash"].to_pylist(), table["index"].to_pylist(), strict=True)


def content_hash(chain: Chain) -> str:
    """Hash of what was sampled; of several rows that answer one key the smallest wins, so that readers agree."""
    return digest([chain.text, chain.finish_reason, chain.num_tokens, chain.max_new_tokens])


def precedence(chain: Chain) -> tuple[str, str]:
    """What is smallest of the row that wins; the second part decides between rows that sampled the very same."""
    return content_hash(chain), repr(chain)


@dataclass(frozen=True)
class Pool:
    """A pool in a store; picklable. `identity` is the model and the sampling distribution, and nothing else."""

    store: Store
    identity: dict[str, Any]
    sets_aside: bool = field(default=True, compare=False, repr=False)
    """Whether readers take damaged segments out of the pool, or pass over them: a dry run changes nothing."""
    _batches: dict[str, frozenset[str]] = field(
        default_factory=dict[str, frozenset[str]], init=False, compare=False, repr=False
    )
    """The batches of merged segments, by key: true for ever, and so asked of the store once."""

    @property
    def id(self) -> str:
        return digest(self.identity)[:24]

    @property
    def prefix(self) -> str:
        return f"pools/{self.id}/"

    def describe(self) -> None:
        """Leave word of what the pool is of."""
        description = {"format": FORMAT, "identity": self.identity}
        self.store.put(f"{self.prefix}pool.json", json.dumps(description, indent=1, sort_keys=True).encode())

    def append(self, batch: str, chains: Sequence[Chain]) -> Written:
        """Make chains of one batch (and so of one partition) durable: they are when this returns. Their segment."""
        data = parquet_bytes(to_table(Chain, chains))
        key = f"{self.folder(partition_of(chains[0].prompt_hash))}{segment_name(batch, data)}"
        self.store.put(key, data)  # where it is there already, a try before this one wrote it
        return Written(key, len(data))

    def answered(self, partition: str, batch: str, max_new_tokens: int) -> set[Key]:
        """Keys with a row that answers a plan's budget, of the segments of one batch and of those merged from them."""

        def list_segments() -> list[Object]:
            # In this order: what a compaction deletes before the first listing is in the second.
            own = self.store.objects(f"{self.folder(partition)}{batch}-")
            return own + self._merged_with(partition, batch)

        found: set[Key] = set()
        # Its segments are few: one page of a listing, which is of one moment.
        for table in self._tables(list_segments, KEY_COLUMNS, least=1):
            found.update(keys_of(answering(table, max_new_tokens)))
        return found

    def keys(self, partition: str) -> Iterator[pa.Table]:
        """The key columns of all rows of a partition, repeated ones too, in tables of about `KEYS_AT_ONCE` rows."""
        waiting: list[pa.Table] = []
        num_rows = 0
        for table in self.tables(partition, KEY_COLUMNS):
            waiting.append(table.replace_schema_metadata(None))  # which tells apart what two releases wrote
            num_rows += table.num_rows
            if num_rows >= KEYS_AT_ONCE:
                yield pa.concat_tables(waiting)
                waiting, num_rows = [], 0
        if waiting:
            yield pa.concat_tables(waiting)

    def chains(self, partition: str, wanted: set[Key], max_new_tokens: int) -> list[Chain]:
        """The rows that answer the wanted keys of a partition, one a key, sorted by key."""
        best: dict[Key, Chain] = {}
        for table in self.tables(partition):
            rows = answering(table, max_new_tokens)
            rows = rows.filter(pa.array([key in wanted for key in keys_of(rows)], pa.bool_()))
            for part in rows.to_batches(ROWS_AT_ONCE):
                for chain in from_table(Chain, pa.Table.from_batches([part])):
                    key = (chain.prompt_hash, chain.index)
                    if key not in best or precedence(chain) < precedence(best[key]):
                        best[key] = chain
        return [best[key] for key in sorted(best)]

    def tables(self, partition: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """All segments of a partition, or some columns of them, in no order. A row may come more than once."""
        return self._tables(partial(self.segments, partition), columns, least=2)

    def segments(self, partition: str) -> list[Object]:
        """The segments of a partition, as one listing shows them."""
        return self.store.objects(self.folder(partition))

    def folder(self, partition: str) -> str:
        """Prefix of a partition's segments."""
        return f"{self.prefix}segments/{partition}/"

    def read(
        self, segments: Iterable[Object], columns: list[str] | None = None
    ) -> Iterator[tuple[Object, pa.Table | None]]:
        """Segments with their rows, many fetched at once; None for one that is gone, or was damaged and is now.

        Where nothing is set aside, a damaged one has no rows.
        """
        left = deque(segments)
        begun: deque[tuple[Object, Future[pa.Table | Damage]]] = deque()
        with ThreadPoolExecutor(READERS, thread_name_prefix="segments") as threads:
            while left or begun:
                while left and len(begun) < READERS and sum(segment.size for segment, _ in begun) < READ_BYTES:
                    segment = left.popleft()
                    begun.append((segment, threads.submit(read, self.store, segment, columns)))
                segment, future = begun.popleft()
                try:
                    found = future.result()
                except FileNotFoundError:
                    yield segment, None
                    continue
                if not isinstance(found, Damage):
                    yield segment, found
                elif self.sets_aside:
                    self._set_aside(segment, found)
                    yield segment, None
                else:
                    told = address(self.store, segment.key), found.reason
                    logger.warning("%s is damaged (%s): its chains count as missing", *told)
                    empty = schema(Chain).empty_table()
                    yield segment, empty if columns is None else empty.select(columns)

    def _tables(
        self, list_segments: Callable[[], list[Object]], columns: list[str] | None, least: int
    ) -> Iterator[pa.Table]:
        """What listings show, each segment once, until at least so many listings are done and nothing has vanished."""
        seen: set[str] = set()
        for number in range(MAX_LISTINGS):
            num_gone = 0
            for segment, table in self.read((each for each in list_segments() if each.key not in seen), columns):
                if table is None:
                    num_gone += 1
                else:
                    seen.add(segment.key)
                    yield table
            if number + 1 >= least and not num_gone:
                return
        raise RuntimeError(
            f"{address(self.store, self.prefix)}: segments vanished during each of {MAX_LISTINGS} listings; "
            f"is something else than one compaction at work there? Nothing is lost: run again"
        )

    def _merged_with(self, partition: str, batch: str) -> list[Object]:
        """The merged segments that hold rows of a batch, and those that vanished, so that the reader looks again."""
        merged = self.store.objects(f"{self.folder(partition)}{MERGED}-")
        for segment, table in self.read((each for each in merged if each.key not in self._batches), []):
            if table is not None:
                self._batches[segment.key] = frozenset(map(batch_of, replaced_by(table)))
        return [segment for segment in merged if batch in self._batches.get(segment.key, (batch,))]

    def _set_aside(self, segment: Object, damage: Damage) -> None:
        """Take a damaged segment out of the pool, but keep it: whatever it held counts as missing from now on."""
        kept = segment.key.replace("/segments/", "/damaged/", 1)
        logger.warning(
            "%s is damaged (%s): it is set aside as %s, and its chains are sampled again",
            address(self.store, segment.key),
            damage.reason,
            kept,
        )
        # The object itself: what was read may have been damaged on its way here. Another reader may have been first.
        with contextlib.suppress(FileNotFoundError):
            self.store.move(segment.key, kept)


def open_pool(store: Store, pool_id: str) -> Pool:
    """The pool with an id.

    Raises:
        ValueError: there is none, or its description is of another format or pool.
    """
    key = f"pools/{pool_id}/pool.json"
    try:
        found: dict[str, Any] = json.loads(store.get(key))
    except FileNotFoundError:
        known = ", ".join(pool_ids(store)) or "no pool"
        raise ValueError(f"{store.uri} has no pool {pool_id!r}; it has {known}") from None
    except ValueError as error:
        raise ValueError(
            f"{address(store, key)} is damaged ({error}); delete it and run a recipe that samples this pool, which "
            f"writes it anew"
        ) from error
    # Before there was a format, the file was the identity itself.
    if found.get("format", FORMAT) != FORMAT:
        raise ValueError(
            f"{address(store, key)}: format {found['format']!r}; expected {FORMAT}; read it with the release that "
            f"wrote it"
        )
    pool = Pool(store, found["identity"] if "format" in found else found)
    if pool.id != pool_id:
        raise ValueError(
            f"{address(store, key)}: describes the pool {pool.id}, expected {pool_id}; was it moved or edited?"
        )
    return pool


def pools(store: Store) -> list[Pool]:
    """Every pool of a store."""
    return [open_pool(store, pool_id) for pool_id in pool_ids(store)]


def pool_ids(store: Store) -> list[str]:
    """Ids of the pools of a store."""
    parts = (key.split("/") for key in store.keys("pools/"))
    return [names[1] for names in parts if len(names) == 3 and names[2] == "pool.json"]


def partition_of(prompt_hash: str) -> str:
    """The partition of a prompt's chains."""
    return prompt_hash[0]


def rows_digest(chains: Iterable[Chain]) -> str:
    """Digest of the rows that a stage read, whatever the order in which they were sampled."""
    return digest(sorted(digest(as_row(chain)) for chain in chains))
