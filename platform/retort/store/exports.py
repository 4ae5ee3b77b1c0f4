"""A pool as files: what one store has, another can have too, row for row (`imports`), and so can other programs.

    parquet   OUT                one file; its metadata says which pool it is of
    jsonl     OUT                a row a line; OUT.pool.json beside it says which pool it is of
    datasets  OUT/README.md      a directory that `datasets.load_dataset(OUT)` opens, and the Hugging Face hub too;
              OUT/data/*.parquet it can be read as a stream, and is a quarter of what `load_from_disk` would need

Rows are `records.Chain`. Those that no plan reads are left out (`replaced`), unless all are asked for. Several rows of
one key come in the order of their reach, so that an import can take each that reaches further than what is there.
"""

import contextlib
import itertools
import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow.parquet as pq

from retort.records import SCHEMA_VERSION, Chain, as_row, schema, to_table
from retort.store import Object
from retort.store.hashing import canonical_json
from retort.store.inventory import partitions
from retort.store.pool import ROWS_AT_ONCE, Pool
from retort.store.replaced import chains_of, never_read, readable, repeated

Format = Literal["parquet", "jsonl", "datasets"]
IDENTITY = b"retort.pool"
"""Schema metadata of an exported Parquet file: the identity of its pool, as JSON."""
LEFT_OUT = -1
_CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/*.parquet
---

# Reasoning chains

{rows} chains, sampled with retort from one model under one distribution. `prompt` is the JSON of what the model was
handed (a text, or chat messages), `text` what it wrote; chains of one `prompt_hash` are numbered by `index`.

```json
{identity}
```
"""


class Exported(NamedTuple):
    """Rows that an export wrote, and rows that it left out because no plan reads them."""

    rows: int
    left_out: int


def export(pool: Pool, out: Path, form: Format, everything: bool = False) -> Exported:
    """Write a pool to a file or a directory, which is there when all of it is.

    Raises:
        ValueError: there is something at `out` already, or nothing in the pool; a segment is damaged.
    """
    beside = identity_beside(out)
    if out.exists():
        raise ValueError(f"{out} is there already; expected a new name")
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    counts: Counter[str] = Counter()
    try:
        if form == "datasets":
            _write_dataset(pool, partial, everything, counts)
        else:
            with _FILES[form](partial, pool.identity) as write:
                for _, segments in partitions(pool, "exporting"):
                    _write(write, rows(pool, segments, everything, counts))
        if not counts["rows"]:
            raise ValueError(f"pool {pool.id} holds no chains; there is nothing to export")
        if form == "jsonl":
            described = {"identity": pool.identity, "schema_version": SCHEMA_VERSION}
            beside.write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
        partial.rename(out)
    finally:
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)
    return Exported(counts["rows"], counts["left out"])


def identity_beside(out: Path) -> Path:
    """The file that says of which pool the JSON lines at a path are."""
    return out.with_name(f"{out.name}.pool.json")


def rows(pool: Pool, segments: Sequence[Object], everything: bool, counts: Counter[str]) -> Iterator[Chain]:
    """The rows of a partition, those of one key in the order of their reach; adds to `rows` and `left out`."""
    candidates = repeated(pool, segments)
    # A key's second row comes in a second pass over the segments that have such rows, and so on: few have any.
    passes: dict[tuple[str, int], int] = {}
    for several in candidates.values():
        hidden = set() if everything else set(never_read(several))
        order = itertools.count()
        passes |= {(each.segment, each.row): LEFT_OUT if each in hidden else next(order) for each in several}
    counts["left out"] += sum(number == LEFT_OUT for number in passes.values())
    later: dict[int, set[str]] = defaultdict(set)
    for (segment, _), number in passes.items():
        later[number].add(segment)
    for number in range(max(later, default=0) + 1):
        for segment in segments:
            if number == 0 or segment.key in later[number]:
                for row, chain in enumerate(chains_of(readable(pool, segment))):
                    if passes.get((segment.key, row), 0) == number:
                        counts["rows"] += 1
                        yield chain


def _write_dataset(pool: Pool, folder: Path, everything: bool, counts: Counter[str]) -> None:
    (folder / "data").mkdir(parents=True)
    for partition, segments in partitions(pool, "exporting"):
        if segments:
            with _parquet(folder / "data" / f"train-{partition}.parquet", pool.identity) as write:
                _write(write, rows(pool, segments, everything, counts))
    card = _CARD.format(rows=counts["rows"], identity=json.dumps(pool.identity, indent=1, sort_keys=True))
    (folder / "README.md").write_text(card, encoding="utf-8")


def _write(write: Callable[[list[Chain]], None], chains: Iterable[Chain]) -> None:
    remaining = iter(chains)
    while part := list(itertools.islice(remaining, ROWS_AT_ONCE)):
        write(part)


@contextlib.contextmanager
def _parquet(path: Path, identity: dict[str, Any]) -> Generator[Callable[[list[Chain]], None]]:
    plain = schema(Chain)
    metadata = {**(plain.metadata or {}), IDENTITY: canonical_json(identity)}
    described = plain.with_metadata(metadata)
    with pq.ParquetWriter(path, described, compression="zstd", write_page_checksum=True) as writer:
        yield lambda chains: writer.write_table(to_table(Chain, chains).cast(described))


@contextlib.contextmanager
def _json_lines(path: Path, identity: dict[str, Any]) -> Generator[Callable[[list[Chain]], None]]:
    del identity  # stands beside the file
    with path.open("w", encoding="utf-8") as file:
        yield lambda chains: file.writelines(json.dumps(as_row(chain), ensure_ascii=False) + "\n" for chain in chains)


_FILES = {"parquet": _parquet, "jsonl": _json_lines}
