"""Compaction: many small segments of a partition become few large ones. Rows in = rows out, but for exact repeats.

    segments/a/1f3c…-09ab….parquet   64 rows ┐
    segments/a/1f3c…-77e0….parquet   12 rows ├─►  segments/a/merged-5b21….parquet   140 rows, sorted by key
    segments/a/90d2…-c41f….parquet   64 rows ┘    its metadata names the three

The merged segment is written, read back, and only then are those it replaces deleted: at every moment each row is in a
segment. A compaction that was killed leaves both; the next one deletes what a merged segment names. Readers that lose a
segment list again (`store/pool.py`); what a sampler adds meanwhile is not touched; two compactions at once write the
same segment, or two with the same rows, of which readers drop one.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retort.records import Chain, from_table, schema, to_table
from retort.store import Object, address
from retort.store.artifacts import parquet_bytes
from retort.store.pool import KEY_COLUMNS, PARTITIONS, Pool, Written
from retort.store.reading import MERGED, REPLACES, batch_of, name_of, parse, replaced_by, segment_name

logger = logging.getLogger(__name__)

TARGET_CHAINS = 50_000
GROUP_BYTES = 256 << 20
"""Bytes of rows, decoded, that are merged at a time: what bounds the memory, about three times as much in all."""


class Compacted(NamedTuple):
    """What a compaction did, in segments and in rows."""

    num_replaced: int = 0
    num_written: int = 0
    num_rows: int = 0
    num_repeats: int = 0

    def plus(self, other: "Compacted") -> "Compacted":
        return Compacted(*(one + another for one, another in zip(self, other, strict=True)))


def compact(pool: Pool, partition: str | None = None, target_chains: int = TARGET_CHAINS) -> Compacted:
    """Merge the segments of a pool, or of one partition of it, into such of at most `target_chains` rows.

    Raises:
        ValueError: a segment of a release that this one does not read.
        OSError: a merged segment that does not read back as it was written; nothing was deleted for it.
    """
    done = Compacted()
    for name in PARTITIONS if partition is None else (partition,):
        done = done.plus(_compact(pool, name, target_chains))
    return done


def _compact(pool: Pool, partition: str, target_chains: int) -> Compacted:
    segments = pool.segments(partition)
    merged = {segment: rows for segment, rows in pool.read(filter(_is_merged, segments), []) if rows is not None}
    segments = _without_replaced(pool, segments, merged)
    # Half full is left alone, or each compaction would write everything anew.
    small = [segment for segment in segments if segment not in merged or 2 * len(merged[segment]) < target_chains]
    done = Compacted()
    for group in _groups(pool, small, target_chains):
        if len(group) > 1:
            done = done.plus(_merge(pool, partition, group))
    return done


def _is_merged(segment: Object) -> bool:
    return batch_of(name_of(segment)) == MERGED


def _without_replaced(pool: Pool, segments: Iterable[Object], merged: Mapping[Object, pa.Table]) -> list[Object]:
    """Segments without those that a merged one has replaced, which are deleted: a compaction died before it did."""
    names = {name_of(segment): segment for segment in segments}
    for keeper, metadata in merged.items():
        left = [names[name] for name in replaced_by(metadata) if name in names]
        # Now all of its bytes: nothing is deleted on the word of a damaged segment.
        if left and all(rows is not None for _, rows in pool.read([keeper])):
            for segment in left:
                pool.store.delete(segment.key)
                del names[name_of(segment)]
    return list(names.values())


def _groups(pool: Pool, segments: Iterable[Object], target_chains: int) -> Iterator[dict[Object, pa.Table]]:
    """Segments with their rows, as many at a time as go into one; those that are gone or damaged are left out."""
    group: dict[Object, pa.Table] = {}
    num_rows = num_bytes = 0
    for segment, rows in pool.read(segments):
        if rows is None:
            continue
        if num_rows + len(rows) > target_chains or num_bytes + rows.nbytes > GROUP_BYTES:
            yield group
            group, num_rows, num_bytes = {}, 0, 0
        group[segment] = rows
        num_rows, num_bytes = num_rows + len(rows), num_bytes + rows.nbytes
    yield group


def _merge(pool: Pool, partition: str, group: Mapping[Object, pa.Table]) -> Compacted:
    """Put one segment, sorted by key, instead of a group."""
    rows = pa.concat_tables([upgraded(rows) for rows in group.values()])
    merged = _without_repeats(rows.sort_by([("prompt_hash", "ascending"), ("index", "ascending")]))
    written = put_instead(pool, partition, group, merged)
    logger.info("%s: %d rows of %d segments", address(pool.store, written.key), len(merged), len(group))
    return Compacted(len(group), 1, len(merged), len(rows) - len(merged))


def put_instead(pool: Pool, partition: str, group: Mapping[Object, pa.Table], rows: pa.Table) -> Written:
    """Write rows as one segment, read it back, and delete the segments that it replaces, those of `group`.

    It says which they are, and which those replaced, so that whoever looks for one of them finds it.

    Raises:
        OSError: it does not read back as it was written; the others stay.
    """
    names = {name_of(segment) for segment in group}.union(*map(replaced_by, group.values()))
    metadata = {**(schema(Chain).metadata or {}), REPLACES: json.dumps(sorted(names)).encode()}
    data = parquet_bytes(rows.replace_schema_metadata(metadata))
    key = f"{pool.folder(partition)}{segment_name(MERGED, data)}"
    pool.store.put(key, data)
    # Keys alone: the pages of all columns have checksums, and a log-probability that is no number equals none.
    if pool.store.get(key) != data or not _keys(parse(pa.BufferReader(data))).equals(_keys(rows)):
        raise OSError(f"{address(pool.store, key)}: does not read back as it was written; what it was made of stays")
    for segment in group:
        pool.store.delete(segment.key)
    return Written(key, len(data))


def _keys(rows: pa.Table) -> pa.Table:
    return rows.select(KEY_COLUMNS).replace_schema_metadata(None)


def upgraded(rows: pa.Table) -> pa.Table:
    """Rows as this release writes them: columns that the release before did not have get their defaults."""
    if rows.schema.names != schema(Chain).names:
        rows = to_table(Chain, from_table(Chain, rows))
    return rows.replace_schema_metadata(None)


def _without_repeats(rows: pa.Table) -> pa.Table:
    """Rows, sorted by key, without those that equal one before them in every column."""
    hashes, indexes = rows["prompt_hash"], rows["index"].to_numpy()
    is_same = pc.call_function("equal", [hashes[1:], hashes[:-1]]).to_numpy() & (indexes[1:] == indexes[:-1])
    repeats: list[int] = []
    seen: set[str] = set()
    for place in np.flatnonzero(is_same).tolist():
        # `place` and the row after it have one key: of most keys there is but one row, and nothing is looked at.
        one, other = (repr(row) for row in rows.slice(place, 2).to_pylist())
        if not place or not is_same[place - 1]:
            seen = {one}
        if other in seen:
            repeats.append(place + 1)
        seen.add(other)
    return rows.take(np.delete(np.arange(len(rows)), repeats)) if repeats else rows
