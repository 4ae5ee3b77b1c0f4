"""Whether a pool is what it says: every segment read whole, every key computed again.

What is found is told, and nothing is changed unless asked: segments whose bytes are damaged can be set aside, as the
sampler does when it meets them, and their chains are then sampled anew. A digest covers what was written: of a text
that was wrong before that, nothing can be told.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, get_args

import pyarrow as pa

from retort.prompts import prompt_hash
from retort.records import Chain, FinishReason, schema
from retort.store import Object, address
from retort.store.inventory import partitions
from retort.store.pool import Key, Pool, partition_of
from retort.store.reading import Damage
from retort.store.replaced import Candidate, chains_of, fetched, repeated

_REASONS = get_args(FinishReason)


class Finding(NamedTuple):
    """A line on a pool: a problem, or what was counted."""

    text: str
    is_problem: bool = True


def verify(pool: Pool, set_aside: bool = False) -> Iterator[Finding]:
    """Every problem of a pool, as it is found, and at last what was counted."""
    counts: Counter[str] = Counter()
    for partition, segments in partitions(pool, "verifying"):
        for finding in _verify_partition(pool, partition, segments, counts, set_aside):
            counts["problems"] += finding.is_problem
            yield finding
    told = f"pool {pool.id}: {counts['segments']} segments, {counts['rows']} rows, {counts['problems']} problems"
    told += f"; {counts['copies']} rows are copies of others, of which one is read" if counts["copies"] else ""
    yield Finding(told, is_problem=False)


def _verify_partition(
    pool: Pool, partition: str, segments: Sequence[Object], counts: Counter[str], set_aside: bool
) -> Iterator[Finding]:
    whole: list[Object] = []
    for segment in segments:
        where = address(pool.store, segment.key)
        counts["segments"] += 1
        try:
            found = fetched(pool, segment)
        except ValueError as error:  # names the segment
            yield Finding(str(error))
            continue
        if isinstance(found, Damage):
            yield Finding(f"{where}: {found.reason}")
            if set_aside:
                yield from (Finding(f"{where}: set aside", is_problem=False) for _ in pool.read([segment]))
            continue
        whole.append(segment)
        counts["rows"] += len(found)
        yield from (Finding(f"{where}: {wrong}") for wrong in _wrong_rows(partition, found))
    for key, candidates in repeated(pool, whole).items():
        yield from _sampled_twice(key, candidates, counts)


def empty_columns(table: pa.Table) -> list[str]:
    """Columns of a table of chains that lack a value somewhere, though no chain can be without it."""
    required = (name for name in table.column_names if not schema(Chain).field(name).nullable)
    return [name for name in required if table[name].null_count]


def wrong_with(chain: Chain) -> Iterator[str]:
    """What no sampled chain could be."""
    if prompt_hash(chain.prompt) != chain.prompt_hash:
        yield "a key that is not the hash of the prompt"
    if chain.finish_reason not in _REASONS:
        yield f"a finish reason other than {' and '.join(_REASONS)}"
    if chain.index < 0 or chain.max_new_tokens < 1:
        yield "an index below 0, or a budget below 1"


def _wrong_rows(partition: str, table: pa.Table) -> Iterator[str]:
    """What is wrong with the rows of a segment, a line a kind."""
    empty = empty_columns(table)
    if empty:
        yield f"rows without {', '.join(empty)}"
        return
    kinds: Counter[str] = Counter()
    first: dict[str, int] = {}
    for number, chain in enumerate(chains_of(table)):
        strayed = partition_of(chain.prompt_hash) != partition
        for kind in [*wrong_with(chain), *([f"another partition than {partition}"] if strayed else [])]:
            kinds[kind] += 1
            first.setdefault(kind, number)
    yield from (
        f"{count} of {len(table)} rows have {kind}; the first is row {first[kind]}" for kind, count in kinds.items()
    )


def _sampled_twice(key: Key, candidates: Sequence[Candidate], counts: Counter[str]) -> Iterator[Finding]:
    """Rows of one key that reach equally far, of which one would have done."""
    for one, two in pairwise(candidates):
        if one.reach == two.reach and one.content == two.content:
            counts["copies"] += 1
        elif one.reach == two.reach:
            prompt, index = key
            yield Finding(f"chain {index} of prompt {prompt} was sampled twice: in {one.segment} and {two.segment}")
