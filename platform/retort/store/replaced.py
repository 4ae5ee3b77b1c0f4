"""Which rows of a pool no plan reads: mostly chains that were cut off at a budget which a later row has outgrown.

A row that ended by itself answers every budget, one that was cut off at b answers each up to b: that is its reach. Of
the rows that answer a budget, the one with the smallest content hash is read. So a row is never read where another of
its key reaches as far and has a smaller hash: whatever budget it answers, the other answers too, and comes first. And
only there: any other row is the smallest of those that answer the budget at which its own reach ends. Rows that come
later change nothing of this, so that rows never read can be left out of an export, or deleted.

    prompt_hash  index  finish_reason  max_new_tokens  content hash
    a71f…            0  length                     32  9c…            never read: the next reaches further, 41 < 9c
    a71f…            0  stop                       64  41…            read by every plan
    a71f…            1  length                     32  05…            read by plans of at most 32 tokens
    a71f…            1  stop                       64  77…            read by plans of more
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from retort.records import Chain, from_table
from retort.store import Object, address
from retort.store.pool import ROWS_AT_ONCE, Key, Pool, content_hash
from retort.store.reading import Damage, read

UNLIMITED = 2**63 - 1
"""Reach of a chain that ended by itself: no token budget is larger."""


class Candidate(NamedTuple):
    """A row of a key that has several: what decides whether it is read, and then where it lies."""

    reach: int
    content: str
    rest: str
    """Decides between rows of equal content, as `pool.precedence` does."""
    segment: str
    row: int


def reach(finish_reason: str, max_new_tokens: int) -> int:
    """The largest budget that a row answers (`pool.answers`)."""
    return UNLIMITED if finish_reason == "stop" else max_new_tokens


def never_read(candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """The rows of one key that no plan reads."""
    smallest = ""
    for candidate in sorted(candidates, key=lambda candidate: (-candidate.reach, *candidate[1:])):
        if smallest and candidate.content >= smallest:
            yield candidate
        else:
            smallest = candidate.content


def repeated(pool: Pool, segments: Sequence[Object]) -> dict[Key, list[Candidate]]:
    """The rows of every key that has several in these segments of one partition, in the order of their reach.

    Raises:
        ValueError: a segment is damaged, or gone.
    """
    if not segments:
        return {}
    keys = pa.concat_tables([_numbered(pool, segment, number) for number, segment in enumerate(segments)])
    counts = keys.group_by(["prompt_hash", "index"]).aggregate([([], "count_all")])
    several = counts.filter(pc.field("count_all") > 1)
    rows = keys.join(several, ["prompt_hash", "index"], join_type="left semi")
    found: dict[Key, list[Candidate]] = defaultdict(list)
    for number in rows["segment"].unique().to_pylist():
        segment = segments[number]
        wanted = rows.filter(pc.field("segment") == number)["row"].to_pylist()
        for row, chain in zip(wanted, chains_of(readable(pool, segment).take(wanted)), strict=True):
            far = reach(chain.finish_reason, chain.max_new_tokens)
            rest = repr(replace(chain, prompt="", text=""))  # which are equal where it matters, and long
            candidate = Candidate(far, content_hash(chain), rest, segment.key, row)
            found[chain.prompt_hash, chain.index].append(candidate)
    return {key: sorted(candidates) for key, candidates in found.items()}


def fetched(pool: Pool, segment: Object, columns: list[str] | None = None) -> pa.Table | Damage:
    """A segment's rows, or some columns of them; one that is damaged stays where it is.

    Raises:
        ValueError: it is gone, or of a release that this one does not read.
    """
    try:
        return read(pool.store, segment, columns)
    except FileNotFoundError as error:
        raise ValueError(
            f"{address(pool.store, segment.key)} is gone: compaction or a sampler moved it. Nothing is lost: run again"
        ) from error


def readable(pool: Pool, segment: Object, columns: list[str] | None = None) -> pa.Table:
    """A segment's rows, or some columns of them.

    Raises:
        ValueError: it is damaged, gone, or of a release that this one does not read.
    """
    found = fetched(pool, segment, columns)
    if isinstance(found, Damage):
        raise ValueError(
            f"{address(pool.store, segment.key)} is damaged ({found.reason}); set it aside with `jobs/pool.py verify "
            f"--set-aside`, and run again"
        )
    return found


def chains_of(table: pa.Table) -> Iterator[Chain]:
    """The rows of a table as records, not all of them at once."""
    for part in table.to_batches(ROWS_AT_ONCE):
        yield from from_table(Chain, pa.Table.from_batches([part]))


def _numbered(pool: Pool, segment: Object, number: int) -> pa.Table:
    """The keys of a segment, with the numbers of the segment and of each row."""
    keys = readable(pool, segment, ["prompt_hash", "index"]).replace_schema_metadata(None)
    keys = keys.append_column("segment", pa.repeat(pa.scalar(number, pa.int32()), len(keys)))
    return keys.append_column("row", pa.array(range(len(keys)), pa.int32()))
