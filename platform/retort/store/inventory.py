"""What a pool holds, as lines to print: counted from columns alone, a partition at a time.

pool 7b1f41c2a0a94a5e3f0c2b1d: 1152 chains of 48 prompts, 20 to 24 each
  model         recording = 4c1f…
  distribution  stop = [], temperature = 1.0, top_k = 0, top_p = 1.0
  in the store  20 segments, 0.3 MB; 0 set aside
  replaced      11 rows that no plan reads
  imported      96 rows of chains.jsonl@4c1f0a2b3c4d

  thought  task        ended   rows  prompt tokens  new tokens
  cot      arithmetic  stop    1130          40320       61440
  cot      arithmetic  length    33              0        2112
"""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from retort.store import Object, Store, address
from retort.store.hashing import canonical_json
from retort.store.pool import PARTITIONS, Pool, open_pool, pool_ids, pools
from retort.store.reading import Damage
from retort.store.replaced import fetched, never_read, repeated

logger = logging.getLogger(__name__)
_ROW = ["prompt_hash", "index", "finish_reason", "max_new_tokens"]
_TOLD = ["thought", "problem_id", "num_prompt_tokens", "num_tokens", "source"]
SAY_EVERY_S = 5.0


class Group(NamedTuple):
    """Rows that are counted together."""

    thought: str
    task: str
    finish_reason: str


@dataclass
class Contents:
    """What a pool holds. `chains` counts keys; further rows were replaced, or still answer smaller budgets."""

    pool: Pool
    segments: int = 0
    size: int = 0
    set_aside: int = 0
    damaged: int = 0
    """Segments that could not be read, and are in no other count."""
    chains: int = 0
    prompts: int = 0
    fewest: int = 0
    most: int = 0
    """Chains of a prompt."""
    never_read: int = 0
    rows: Counter[Group] = field(default_factory=Counter[Group])
    prompt_tokens: Counter[Group] = field(default_factory=Counter[Group])
    new_tokens: Counter[Group] = field(default_factory=Counter[Group])
    imported: Counter[str] = field(default_factory=Counter[str])
    """Rows by the file that they were imported from."""


def chosen(store: Store, pool_id: str | None) -> list[Pool]:
    """One pool, or all. Raises ValueError where there is no such one."""
    return pools(store) if pool_id is None else [open_pool(store, pool_id)]


def undescribed(store: Store) -> list[str]:
    """A line on each pool that has segments but no longer says what it is of."""
    keys = [key.split("/") for key in store.keys("pools/")]
    sampled = {names[1] for names in keys if names[2] == "segments"}
    return [
        f"{address(store, f'pools/{pool_id}/')}: segments without pool.json, and so in no figure here; run a recipe "
        f"that samples this pool, which writes it anew"
        for pool_id in sorted(sampled - set(pool_ids(store)))
    ]


def show(store: Store, pool_id: str | None) -> Iterator[str]:
    """Lines on one pool, or on each: what it is of, and what it holds."""
    found = [contents(pool) for pool in chosen(store, pool_id)]
    yield from map(headline, found) if len(found) > 1 else ()
    yield from () if found else [f"{store.uri} has no pool"]
    for held in found:
        yield from ["", headline(held)] if len(found) > 1 else [headline(held)]
        yield from (f"  {line}".rstrip() for line in details(held))


def contents(pool: Pool) -> Contents:
    """Count what a pool holds; its damaged segments stay where they are."""
    held = Contents(pool, set_aside=len(pool.store.keys(f"{pool.prefix}damaged/")))
    for _, segments in partitions(pool, "counting"):
        held.segments += len(segments)
        held.size += sum(segment.size for segment in segments)
        whole: list[Object] = []
        tables: list[pa.Table] = []
        for segment in segments:
            table = fetched(pool, segment, _ROW + _TOLD)
            if isinstance(table, Damage):
                held.damaged += 1
                continue
            whole.append(segment)
            tables.append(table)
        if any(map(len, tables)):
            _count(held, _distinct(tables))
            held.never_read += sum(len(list(never_read(candidates))) for candidates in repeated(pool, whole).values())
    return held


def partitions(pool: Pool, doing: str) -> Iterator[tuple[str, list[Object]]]:
    """Each partition and its segments; logs how far its reader has come, now and then."""
    said_at = time.monotonic()
    for number, partition in enumerate(PARTITIONS):
        yield partition, pool.segments(partition)
        if time.monotonic() - said_at > SAY_EVERY_S:
            logger.info("%s pool %s: %d of %d partitions", doing, pool.id, number + 1, len(PARTITIONS))
            said_at = time.monotonic()


def headline(held: Contents) -> str:
    """One line on a pool."""
    each = str(held.most) if held.fewest == held.most else f"{held.fewest} to {held.most}"
    return f"pool {held.pool.id}: {held.chains} chains of {held.prompts} prompts, {each} each"


def details(held: Contents) -> Iterator[str]:
    """What a pool is of, what it takes, and a table of its rows."""
    facts = [(name, _said(value)) for name, value in held.pool.identity.items()]
    facts.append(("in the store", f"{held.segments} segments, {megabytes(held.size)}; {held.set_aside} set aside"))
    if held.damaged:
        facts.append(("damaged", f"{held.damaged} segments that are not counted here; `verify` tells of them"))
    facts.append(("replaced", f"{held.never_read} rows that no plan reads"))
    facts += [("imported", f"{count} rows of {source}") for source, count in sorted(held.imported.items())]
    width = max(len(name) for name, _ in facts)
    yield from (f"{name:{width}}  {text}" for name, text in facts)
    if held.rows:
        yield ""
        counted = [[*g, held.rows[g], held.prompt_tokens[g], held.new_tokens[g]] for g in sorted(held.rows)]
        yield from table(["thought", "task", "ended", "rows", "prompt tokens", "new tokens"], counted)


def footprint(pool: Pool) -> str:
    """Segments and bytes of a pool."""
    segments = [segment for partition in PARTITIONS for segment in pool.segments(partition)]
    return f"{len(segments)} segments, {megabytes(sum(segment.size for segment in segments))}"


def table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Rows as lines with aligned columns, numbers to the right."""
    lines = [tuple(names), *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    to_the_right = [all(cell.isdigit() for cell in column[1:]) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = zip(line, widths, to_the_right, strict=True)
        yield "  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in cells).rstrip()


def megabytes(size: int) -> str:
    """A size, in decimal megabytes."""
    return f"{size / 1e6:.1f} MB"


def _distinct(found: Sequence[pa.Table]) -> pa.Table:
    """The rows of a partition; those that a compaction has in two segments for a moment are one."""
    rows = pa.concat_tables([table.replace_schema_metadata(None) for table in found], promote_options="default")
    told = [name for name in rows.column_names if name not in _ROW]
    rows = rows.group_by(_ROW, use_threads=False).aggregate([(name, "first") for name in told])
    return rows.rename_columns([name.removesuffix("_first") for name in rows.column_names])


def _count(held: Contents, rows: pa.Table) -> None:
    """Add the rows of a partition."""
    summed = [([], "count_all"), ("num_prompt_tokens", "sum"), ("num_tokens", "sum")]
    for row in rows.group_by(["thought", "problem_id", "finish_reason"]).aggregate(summed).to_pylist():
        group = Group(row["thought"], row["problem_id"].split("/")[0], row["finish_reason"])
        held.rows[group] += row["count_all"]
        held.prompt_tokens[group] += row["num_prompt_tokens_sum"]
        held.new_tokens[group] += row["num_tokens_sum"]
    if "source" in rows.column_names:  # the schema version before this one had none
        held.imported.update(source.partition("#")[0] for source in rows["source"].to_pylist() if source)
    keys = rows.group_by(["prompt_hash", "index"]).aggregate([])
    each = keys.group_by("prompt_hash").aggregate([([], "count_all")])["count_all"].to_pylist()
    held.fewest = min(each) if not held.prompts else min(held.fewest, *each)
    held.most = max(held.most, *each)
    held.chains += len(keys)
    held.prompts += len(each)


def _said(value: Any) -> str:
    """A part of an identity, on one line."""
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(
        f"{name} = {canonical_json(part) if isinstance(part, dict | list) else part}" for name, part in value.items()
    )
