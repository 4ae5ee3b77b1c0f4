"""The tests' own accounts of a pool: what engines were asked for (the seam's log) and the rows that lie in the store.

A row is durable from when a look finds it. Looks read the segments by themselves, not through the pool. From the two
accounts follows whether invariant 1 held, whatever happened in between.
"""

import contextlib
import io
import json
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import pyarrow.parquet as pq

from faults import seam
from retort.loading import load
from retort.planning import teacher_plans
from retort.records import as_row
from retort.run import prepare
from retort.store import open_store
from retort.store.plan import Plan, wanted_keys
from s3_servers.processes import ACCESS_KEY, BUCKET, SECRET_KEY

Segments = Callable[[], Mapping[str, Callable[[], bytes]]]
"""Lists the segments of a store by name, each with what reads it. Both raise OSError where the store is not there."""
LOOK_EVERY_S = 0.5


def on_disk(store: Path) -> Segments:
    """The segments of a store in a local folder."""
    return lambda: {str(path): path.read_bytes for path in store.glob("pools/*/segments/*/[!.]*.parquet")}


def in_bucket(endpoint: str, prefix: str) -> Segments:
    """The segments of a store below a prefix of the tests' bucket, asked of the server itself."""
    from boto3.session import Session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, connect_timeout=2)
    session = Session(ACCESS_KEY, SECRET_KEY, region_name="us-east-1")
    client = session.client("s3", endpoint_url=endpoint, config=config)

    def read(key: str) -> bytes:
        try:
            return client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        except (BotoCoreError, ClientError) as error:
            raise OSError(key) from error

    def segments() -> dict[str, Callable[[], bytes]]:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/pools/")
        try:
            keys = [row["Key"] for page in pages for row in page.get("Contents", [])]
        except (BotoCoreError, ClientError) as error:
            raise OSError(prefix) from error
        return {key: partial(read, key) for key in keys if "/segments/" in key}

    return segments


class Durable(NamedTuple):
    """A row, as JSON, and when a look first found it."""

    row: str
    at_s: float


class Hit(NamedTuple):
    """A fault: what, when, how things stood then, and the actors that cannot go on."""

    kind: str
    at_s: float
    num_durable: int
    num_in_flight: int
    gone: frozenset[int]


@dataclass
class Ledger:
    """Looks at a store every half second from a thread of its own, until the context is left."""

    log: seam.Log
    segments: Segments
    flush_s: float
    hits: list[Hit] = field(default_factory=list)
    durable: dict[str, Durable] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)
    _read: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _is_over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(LOOK_EVERY_S):
            with contextlib.suppress(OSError):
                self.look()

    def look(self) -> None:
        """Note the rows that have become durable."""
        with self._lock:
            found = {name: read for name, read in self.segments().items() if name not in self._read}
            new = [row for read in found.values() for row in rows_of(read())]
            now = time.monotonic()
            self._read |= found.keys()
            for row in new:
                self.durable.setdefault(key_of(row), Durable(as_json(row), now))

    def hit(self, kind: str, at_s: float, gone: Iterable[int] = ()) -> Hit:
        """Note that a fault struck at a time, at which something must have been in flight."""
        self.look()
        self.late |= self.open("finished", at_s - self.flush_s)
        num_in_flight = len(self.open("asked", at_s))
        hit = Hit(kind, at_s, len(self.durable), num_in_flight, frozenset(gone))
        assert hit.num_in_flight, f"{kind}: nothing was in flight, so that this shows nothing"
        self.hits.append(hit)
        return hit

    def open(self, event: str, before_s: float) -> set[str]:
        """Chains that had been asked for, or had finished, before some time and are not durable."""
        # What an actor had not yet made durable when it was killed is lost, and to be asked for again.
        lost = {pid for hit in self.hits for pid in hit.gone}
        lines = [line for line in self.log.lines() if line.pid not in lost]
        keys = {line.key for line in lines if line.event == event and line.at_s < before_s}
        with self._lock:
            return keys - self.durable.keys()

    def check(self, *recipe_files: Path) -> str:
        """That invariant 1 held for what some recipes want of one pool, now that all is done; the figures."""
        self.look()
        lines = self.log.lines()
        plans = [plan_of(file) for file in recipe_files]
        wanted = {key for plan in plans for key in keys_of(plan)}
        kept: dict[str, list[str]] = defaultdict(list)
        for read in self.segments().values():
            for row in rows_of(read()):
                kept[key_of(row)].append(as_json(row))
        before = {key: durable.row for key, durable in self.durable.items()}
        assert {key: rows[0] for key, rows in kept.items()} == before, "a durable row was lost or changed"
        assert {key for key, rows in kept.items() if len(rows) > 1} == set(), "a chain was kept twice"
        assert kept.keys() == wanted, "a chain is missing, or was not wanted"
        assert {key: row for plan in plans for key, row in rows_in(plan).items()} == before, "readers see other rows"
        given = {(line.key, line.text) for line in lines if line.event == "finished"}
        told = {(key, seam.digest(json.loads(row)["text"])) for key, row in before.items()}
        assert told <= given, "a row is not what an engine gave"
        asked = [line for line in lines if line.event == "asked"]
        again = [line for line in asked if self.durable[line.key].at_s < line.at_s]
        assert not again, f"{len(again)} durable chains were asked for again: {again[:3]}"
        assert not self.late, f"{len(self.late)} chains were not durable {self.flush_s} s after they had finished"
        return self._figures(len(wanted), len(asked))

    def _figures(self, num_wanted: int, num_asked: int) -> str:
        kinds = [hit.kind for hit in self.hits]
        told = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        return (
            f"{len(kinds)} faults ({told}), {num_wanted} chains: 0 lost, 0 durable ones asked again; "
            f"durable at the last fault {self.hits[-1].num_durable if self.hits else 0}, "
            f"in flight at the faults {[hit.num_in_flight for hit in self.hits]}, "
            f"{num_asked - num_wanted} of those asked again, first new chain after "
            f"{[round(seconds, 1) for seconds in self.recoveries()]} s"
        )

    def column(self, name: str) -> list[Any]:
        """A field of every row that was seen."""
        return [json.loads(durable.row)[name] for durable in self.durable.values()]

    def recoveries(self) -> list[float]:
        """Seconds from each fault to the end of the first chain that was asked for after it."""
        lines = self.log.lines()
        found: list[float] = []
        for hit in self.hits:
            new = [line for line in lines if line.at_s > hit.at_s and line.pid not in hit.gone]
            asked = {line.key for line in new if line.event == "asked"}
            ends = [line.at_s for line in new if line.event == "finished" and line.key in asked]
            found.append(min(ends, default=math.nan) - hit.at_s)
        return found


def rows_of(segment: bytes) -> list[dict[str, Any]]:
    return pq.read_table(io.BytesIO(segment)).to_pylist()


def key_of(row: Mapping[str, Any]) -> str:
    return f"{row['prompt_hash']}/{row['index']}"


def as_json(row: Mapping[str, Any]) -> str:
    return json.dumps(row, sort_keys=True)


def plan_of(recipe_file: Path) -> Plan:
    """What a recipe with one teacher and one thought wants."""
    recipe = load(recipe_file)
    run = prepare(recipe, open_store(recipe.store))
    ((plan, _),) = teacher_plans(run, recipe.teacher[0], with_references=False).values()
    return plan


def keys_of(plan: Plan) -> set[str]:
    return {f"{hash_}/{index}" for prompts in plan.partitions.values() for hash_, index in wanted_keys(prompts)}


def rows_in(plan: Plan) -> dict[str, str]:
    """The rows that the pool's readers see."""
    rows: dict[str, str] = {}
    for partition, prompts in plan.partitions.items():
        for chain in plan.pool.chains(partition, wanted_keys(prompts), plan.max_new_tokens):
            row = as_row(chain)
            rows[key_of(row)] = as_json(row)
    return rows
