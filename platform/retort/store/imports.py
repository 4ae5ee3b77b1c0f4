"""Exported files back into a pool: of the same model and distribution, under the same keys, byte for byte.

A row is taken where it reaches further than what the pool has of its key (`replaced.reach`). So no row that is there is
repeated or put aside for another, an import that was killed goes on where it was, and a second import of a file changes
nothing. Rows say where they came from as they did in the pool that they left: they are the same rows.
"""

import contextlib
import dataclasses
import itertools
import json
import logging
import time
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from retort.records import SCHEMA_VERSION, Chain, from_table, schema
from retort.store import Store
from retort.store.claims import LEASE_S, Session
from retort.store.exports import IDENTITY, identity_beside
from retort.store.hashing import digest
from retort.store.integrity import empty_columns, wrong_with
from retort.store.pool import PARTITIONS, ROWS_AT_ONCE, Key, Pool, partition_of
from retort.store.replaced import reach

logger = logging.getLogger(__name__)
BATCH = "imported"
"""What the segments are named after."""


class Restored(NamedTuple):
    """Rows of a file: new in the pool, there already, and left out because others that reach as far have their keys."""

    pool: Pool
    added: int
    there: int
    left_out: int

    def __str__(self) -> str:
        told = f"{self.added} rows added to pool {self.pool.id}, {self.there} there already"
        return told + (f", {self.left_out} left out: other chains have their keys" if self.left_out else "")


def import_files(store: Store, paths: Sequence[Path]) -> Iterator[tuple[Path, Restored]]:
    """Add what exported files hold to the pools that they are of, which are made where they are not there.

    Raises:
        ValueError: a file that no export wrote, or that was changed since; a pool that is being sampled.
    """
    files = [(_identity(file), file) for path in paths for file in _files(path)]
    for _, group in itertools.groupby(files, key=lambda each: digest(each[0])):
        members = list(group)
        pool = Pool(store, members[0][0])
        pool.describe()
        with alone_in(pool, PARTITIONS):
            for _, file in members:
                yield file, _restore(pool, file)


@contextlib.contextmanager
def alone_in(pool: Pool, partitions: Iterable[str], lease_s: float = LEASE_S) -> Generator[None]:
    """Hold partitions of a pool, so that nobody samples chains there that are about to be imported.

    Raises:
        ValueError: others hold some of them, and are alive.
    """
    wanted = set(partitions)
    session = Session(pool.store, lease_s)
    member = session.join(None)
    try:
        deadline = time.monotonic() + 2 * lease_s  # by then a dead holder is known to be
        while session.claim(pool, wanted) != wanted:
            logger.info("waiting for %s, who may be sampling pool %s", session.holders(pool, wanted), pool.id)
            if time.monotonic() > deadline:
                raise ValueError(
                    f"pool {pool.id} is being sampled by {session.holders(pool, wanted)}; import when that has ended"
                )
            time.sleep(lease_s / 6)
        yield
    finally:
        session.release(pool, wanted)
        member.close()


class _Held:
    """How far the rows of each key of a partition reach, and the hash of the text of the one that reaches furthest.

    Of one partition at a time, since files come in that order.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._partition = ""
        self._reach: dict[Key, tuple[int, int]] = {}

    def new(self, chains: Sequence[Chain]) -> tuple[list[Chain], int]:
        """Those of some chains of one partition that reach further than what is held, and from then on are held.

        Also how many of the others have the very text that is held.
        """
        partition = partition_of(chains[0].prompt_hash)
        if partition != self._partition:
            self._partition, self._reach = partition, {}
            names = ["prompt_hash", "index", "finish_reason", "max_new_tokens", "text"]
            for table in self._pool.tables(partition, names):
                columns = (table[name].to_pylist() for name in names)
                for prompt, index, reason, budget, text in zip(*columns, strict=True):
                    self._is_new((prompt, index), reach(reason, budget), text)
        new: list[Chain] = []
        same = 0
        for chain in chains:
            key = chain.prompt_hash, chain.index
            if self._is_new(key, reach(chain.finish_reason, chain.max_new_tokens), chain.text):
                new.append(chain)
            else:
                same += self._reach[key][1] == hash(chain.text)
        return new, same

    def _is_new(self, key: Key, far: int, text: str) -> bool:
        is_new = far > self._reach.get(key, (0, 0))[0]
        if is_new:
            self._reach[key] = far, hash(text)
        return is_new


def _restore(pool: Pool, file: Path) -> Restored:
    held = _Held(pool)
    waiting: dict[str, list[Chain]] = defaultdict(list)
    added = there = left_out = 0

    def flush(partition: str) -> None:
        nonlocal added, there, left_out
        chains = waiting.pop(partition)
        new, same = held.new(chains)
        if new:
            pool.append(BATCH, new)
        added, there, left_out = added + len(new), there + same, left_out + len(chains) - len(new) - same

    for place, table in _tables(file):
        empty = empty_columns(table)
        if empty:
            raise ValueError(f"{place}: rows without {', '.join(empty)}; expected what an export wrote")
        for chain in from_table(Chain, table):
            wrong = next(wrong_with(chain), None)
            if wrong is not None:
                raise ValueError(f"{place}: chain {chain.index} of prompt {chain.prompt_hash} has {wrong}")
            waiting[partition_of(chain.prompt_hash)].append(chain)
        for partition in [name for name, chains in waiting.items() if len(chains) >= ROWS_AT_ONCE]:
            flush(partition)
    for partition in sorted(waiting):
        flush(partition)
    return Restored(pool, added, there, left_out)


def _files(path: Path) -> list[Path]:
    """The files of an exported directory, or the one file."""
    files = sorted(path.glob("data/*.parquet")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise ValueError(f"{path}: no exported file; expected one that `jobs/pool.py export` wrote, or its directory")
    return files


def _identity(file: Path) -> dict[str, Any]:
    """The identity of the pool that a file was exported from."""
    try:
        if file.suffix == ".parquet" or not identity_beside(file).exists():
            with pq.ParquetFile(file) as opened:
                return json.loads((opened.schema_arrow.metadata or {})[IDENTITY])
        described = json.loads(identity_beside(file).read_text(encoding="utf-8"))
        if not 1 <= described["schema_version"] <= SCHEMA_VERSION:
            raise ValueError(f"rows of schema version {described['schema_version']}")
        return described["identity"]
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file}: does not say of which pool it is ({' '.join(str(error).split())}); expected a file that "
            f"`jobs/pool.py export` wrote, JSON lines with their .pool.json. Chains from elsewhere: --recipe"
        ) from error


def _tables(file: Path) -> Iterator[tuple[str, pa.Table]]:
    """The rows of a file, some at a time, and where each part begins.

    Raises:
        ValueError: a row that is no chain, or another release's.
    """
    try:
        if identity_beside(file).exists():
            yield from _lines(file)
            return
        with pq.ParquetFile(file, page_checksum_verification=True) as opened:
            for number, batch in enumerate(opened.iter_batches(ROWS_AT_ONCE, use_threads=False)):
                yield f"{file}, rows from {number * ROWS_AT_ONCE}", pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: cannot be read ({' '.join(str(error).split())}); export it again") from error


def _lines(file: Path) -> Iterator[tuple[str, pa.Table]]:
    known = {field.name: field for field in dataclasses.fields(Chain)}
    required = {name for name, field in known.items() if field.default is dataclasses.MISSING}
    with file.open(encoding="utf-8") as lines:
        for first in itertools.count(1, ROWS_AT_ONCE):
            part = list(itertools.islice(lines, ROWS_AT_ONCE))
            if not part:
                return
            rows: list[dict[str, Any]] = []
            for number, line in enumerate(part, start=first):
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise ValueError(f"{file}, line {number}: not JSON ({error}); expected a chain") from error
                if not isinstance(row, dict) or not required <= row.keys() <= known.keys():
                    raise ValueError(f"{file}, line {number}: expected a chain, with the fields {', '.join(known)}")
                rows.append(row)
            yield f"{file}, lines from {first}", pa.Table.from_pylist(rows, schema=schema(Chain))
