"""The pool: every chain ever sampled from one model with one sampling distribution, in small immutable segments.

    pools/<id>/pool.json                                  what the pool is of
    pools/<id>/segments/<partition>/<batch>-<n>.parquet   chains of one batch of requests, as they finished

A partition is the first hex digit of the prompt's hash, so that what is missing can be found partition by partition. A
segment is named after the batch of requests that it answers: a batch that is tried again finds what is durable already.
Readers drop repeated keys. Nothing here is ever changed or deleted.
"""

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from retort.records import Chain, Request, as_row, from_table, to_table
from retort.store import Store
from retort.store.artifacts import parquet_bytes
from retort.store.hashing import digest

PARTITIONS = tuple("0123456789abcdef")
_KEY_COLUMNS = ["prompt_hash", "index", "finish_reason", "max_new_tokens"]

Key = tuple[str, int]
Row = TypeVar("Row")


def answers(finish_reason: str, sampled_max_new_tokens: int, max_new_tokens: int) -> bool:
    """Whether a row settles what a plan with `max_new_tokens` would have got.

    It does if the chain ended by itself (a longer one would have been cut off at the plan's budget, which is known
    without asking) or if it was cut off at that budget or later.
    """
    return finish_reason == "stop" or sampled_max_new_tokens >= max_new_tokens


def content_hash(chain: Chain) -> str:
    """Hash of what was sampled; of several rows that answer one key the smallest wins, so that readers agree."""
    return digest([chain.text, chain.finish_reason, chain.num_tokens, chain.max_new_tokens])


@dataclass(frozen=True)
class Pool:
    """A pool in a store; picklable. `identity` is the model and the sampling distribution, and nothing else."""

    store: Store
    identity: dict[str, Any]

    @property
    def id(self) -> str:
        return digest(self.identity)[:24]

    @property
    def prefix(self) -> str:
        return f"pools/{self.id}/"

    def describe(self) -> None:
        """Leave word of what the pool is of."""
        self.store.put(f"{self.prefix}pool.json", json.dumps(self.identity, indent=1, sort_keys=True).encode())

    def append(self, batch: str, chains: Sequence[Chain]) -> None:
        """Make chains of one batch (and so of one partition) durable: they are when this returns."""
        partition = partition_of(chains[0].prompt_hash)
        data = parquet_bytes(to_table(Chain, chains))
        number = len(self._segments(partition, batch))
        while not self.store.put(f"{self.prefix}segments/{partition}/{batch}-{number:05d}.parquet", data):
            number += 1

    def durable(self, partition: str, max_new_tokens: int) -> set[Key]:
        """Keys of a partition with a row that answers a plan's budget. Reads key columns only."""
        found: set[Key] = set()
        for segment in self._segments(partition):
            for row in self._rows(segment, lambda table: table.to_pylist(), _KEY_COLUMNS):
                if answers(row["finish_reason"], row["max_new_tokens"], max_new_tokens):
                    found.add((row["prompt_hash"], row["index"]))
        return found

    def missing(self, requests: Iterable[Request]) -> Iterator[Request]:
        """The requests of one partition and one budget that no durable row answers."""
        requests = list(requests)
        if not requests:
            return
        durable = self.durable(partition_of(requests[0].prompt_hash), requests[0].max_new_tokens)
        yield from (request for request in requests if (request.prompt_hash, request.index) not in durable)

    def chains(self, partition: str, wanted: set[Key], max_new_tokens: int) -> list[Chain]:
        """The rows that answer the wanted keys of a partition, one a key, sorted by key."""
        best: dict[Key, Chain] = {}
        for segment in self._segments(partition):
            for chain in self._rows(segment, lambda table: list(from_table(Chain, table))):
                key = (chain.prompt_hash, chain.index)
                if key not in wanted or not answers(chain.finish_reason, chain.max_new_tokens, max_new_tokens):
                    continue
                if key not in best or content_hash(chain) < content_hash(best[key]):
                    best[key] = chain
        return [best[key] for key in sorted(best)]

    def _segments(self, partition: str, batch: str = "") -> list[str]:
        keys = self.store.keys(f"{self.prefix}segments/{partition}/")
        return [key for key in keys if key.rsplit("/", 1)[1].startswith(batch)]

    def _rows(self, segment: str, read: Callable[[pa.Table], list[Row]], columns: list[str] | None = None) -> list[Row]:
        data = io.BytesIO(self.store.get(segment))
        try:
            return read(pq.read_table(data, columns=columns, page_checksum_verification=True, use_threads=False))
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{self.store.uri}/{segment}: not a readable segment ({reason}); expected Parquet. Move the object out "
                f"of the pool and run again: its chains are then sampled anew"
            ) from error
        except ValueError as error:
            raise ValueError(f"{self.store.uri}/{segment}: {error}") from error


def partition_of(prompt_hash: str) -> str:
    """The partition of a prompt's chains."""
    return prompt_hash[0]


def batch_name(requests: Sequence[Request]) -> str:
    """The name of a batch: the hash of its keys and budget."""
    return digest([[request.prompt_hash, request.index, request.max_new_tokens] for request in requests])[:20]


def rows_digest(chains: Iterable[Chain]) -> str:
    """Digest of the rows that a stage read, whatever the order in which they were sampled."""
    return digest(sorted(digest(as_row(chain)) for chain in chains))
