"""Reading segments, the immutable Parquet files of a pool: their names, and telling damage from all else.

    <batch>-<sha256 of the bytes, 16 hex>.parquet     one flush of one batch of requests
    merged-<sha256 of the bytes, 16 hex>.parquet      what compaction made of several
    <batch>-<five digits>.parquet                     of releases before digests

The name says what the bytes are: one name, one set of rows. So a write that is tried again writes the same object, and
what was read under a name is true for ever. A small segment is fetched whole and checked against its name; of a large
one only the asked columns are fetched, which their page checksums cover.
"""

import contextlib
import functools
import hashlib
import json
import re
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from retort.records import Chain, from_table
from retort.store import Object, Store, address

SMALL_BYTES = 1 << 20
"""Up to here one request for everything is cheaper than one for the footer and one for each column."""
MERGED = "merged"
REPLACES = b"retort.replaces"
"""Schema metadata of a merged segment: the names of all segments whose rows it holds."""
_DIGEST = re.compile(r"-([0-9a-f]{16})\.parquet\Z")
# `Arrow` for pages and footers, `OSError` for the format's own thrift and checksums, the last for names of columns.
_UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)


class Damage(NamedTuple):
    """Why a segment cannot be read."""

    reason: str


def segment_name(batch: str, data: bytes) -> str:
    """The name of a segment with these bytes."""
    return f"{batch}-{_digest(data)}.parquet"


def name_of(segment: Object) -> str:
    """The name of a segment in its folder."""
    return segment.key.rsplit("/", 1)[1]


def batch_of(name: str) -> str:
    """The batch that a segment's name names."""
    return name.rsplit("-", 1)[0]


def replaced_by(table: pa.Table) -> list[str]:
    """Names of the segments that a segment replaces; none if no compaction made it."""
    return json.loads((table.schema.metadata or {}).get(REPLACES, b"[]"))


def read(store: Store, segment: Object, columns: list[str] | None = None) -> pa.Table | Damage:
    """A segment's rows, or some columns of them (none: only the number of rows and the metadata).

    Raises:
        FileNotFoundError: it is gone, as after a compaction.
        ValueError: it is whole, but of a release that this one does not read.
    """
    if columns is not None and segment.size > SMALL_BYTES:
        # Whatever fails here is tried on the whole of the bytes, which their digest judges.
        with contextlib.suppress(*_UNREADABLE, ValueError), store.open(segment.key) as file:
            return parse(file, columns)
    expected = _DIGEST.search(segment.key)
    reason = ""
    for _ in range(2):  # what was damaged on its way here is whole the second time
        data = store.get(segment.key)
        if expected is not None and expected[1] != _digest(data):
            reason = "its bytes do not match the digest in its name"
            continue
        try:
            return parse(pa.BufferReader(data), columns)
        except _UNREADABLE as error:
            reason = f"not readable as Parquet: {' '.join(str(error).split())}"
            if expected is not None:
                raise ValueError(
                    f"{address(store, segment.key)}: {reason}, although it is as it was written"
                ) from error
        except ValueError as error:
            raise ValueError(f"{address(store, segment.key)}: {error}") from error
    return Damage(reason)


def parse(source: pa.BufferReader | BinaryIO, columns: list[str] | None = None) -> pa.Table:
    """Rows of a Parquet file of chains. Raises ValueError where `records.from_table` would."""
    with pq.ParquetFile(source, page_checksum_verification=True) as file:
        _check(file.schema_arrow)
        return file.read(columns=columns, use_threads=False)


@functools.lru_cache(maxsize=16)
def _check(schema: pa.Schema) -> None:
    from_table(Chain, schema.empty_table())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
