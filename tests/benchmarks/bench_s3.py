"""What sampling costs in S3: requests and bytes, counted between us and a real server, for 100,000 chains.

    PYTHONPATH=tests python tests/benchmarks/bench_s3.py [--chains N] [--chains-per-s N]

Two runs with an engine that makes its chains up, of about 800 characters on average, as fast as some GPUs: one with N
chains and one with half of them. What 100,000 would cost lies on the line through both, so that what goes by partitions
or sessions is not counted again and again. Flushes go by time: a slower engine makes more and smaller segments. The
server is Swift, which the benchmark starts; a proxy before it counts.
"""

import argparse
import itertools
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import made_up
import table
from workload import DISTRIBUTION, Workload

from retort.command import start_ray
from retort.engines import ENGINES
from retort.sampling import Model, SamplingConfig, sample
from retort.store import open_store
from retort.store.compaction import compact
from retort.verification import VerificationConfig, verify
from s3_servers.faulty import Faulty, _Handler
from s3_servers.processes import ACCESS_KEY, BUCKET, SECRET_KEY
from s3_servers.swift import Swift

PER_CHAINS = 100_000
MEAN_TOKENS = 26.0
WORDS_PER_TOKEN = 8
"""Of a made-up chain, so that it is as long as a chain of 200 real tokens."""
PHASES = ("sampling", "again, all found", "verification", "compaction", "again, compacted", "verification, compacted")
KINDS = ("segments", "claims", "sessions", "artifacts")

Counts = Counter[str]
"""Requests by method and kind of object, and `B sent` and `B received`."""


class Counting(Faulty):
    """Forwards to a server, and counts."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self._counts: Counts = Counter()

        class Handler(_Counted):
            between, counting, upstream_host = self, self, urlsplit(upstream).netloc

        self._server.RequestHandlerClass = Handler

    def count(self, request: str, sent: int, received: int) -> None:
        """Note one request, and the bytes of its body and of the answer's."""
        with self._lock:
            self._counts.update({request: 1, "B sent": sent, "B received": received})

    def take_counts(self) -> Counts:
        """What was counted since the last time."""
        with self._lock:
            taken, self._counts = self._counts, Counter()
            return taken


class _Counted(_Handler):
    counting: Counting

    def reply(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        sent = int(self.headers.get("Content-Length") or 0)
        self.counting.count(named(self.command, self.path), sent, len(data))
        super().reply(status, headers, data)


class Roomy(Swift):
    """Swift with listings as long as those of S3; for tests they are short."""

    def _proxy(self) -> str:
        return super()._proxy().replace("max_bucket_listing = 100\n", "max_bucket_listing = 1000\n")


def named(method: str, path: str) -> str:
    """The method, or LIST, and the folder of a store that a request is about."""
    asked = urlsplit(path)
    prefix = parse_qs(asked.query).get("prefix")
    method, key = ("LIST", prefix[0]) if method == "GET" and prefix else (method, asked.path)
    return f"{method} {next((kind for kind in KINDS if f'{kind}/' in key), 'other')}"


def extrapolated(half: Counts, whole: Counts, num_chains: int) -> dict[str, float]:
    """What 100,000 chains would cost, from what N and half of them did."""
    slopes = {name: (whole[name] - half[name]) / (num_chains - num_chains // 2) for name in half.keys() | whole.keys()}
    return {name: max(0.0, whole[name] + slope * (PER_CHAINS - num_chains)) for name, slope in sorted(slopes.items())}


def figures(phase: str, half: Counts, whole: Counts, num_chains: int) -> list[table.Result]:
    """Requests and megabytes of one phase."""
    run: dict[str, Any] = {"chains": num_chains, "half": dict(half), "whole": dict(whole)}
    costs = run["per_100000_chains"] = extrapolated(half, whole, num_chains)
    moved = costs["B sent"] + costs["B received"]
    requests = sum(count for name, count in costs.items() if not name.startswith("B "))
    return [
        table.Result(f"s3: {what} per 100,000 chains, {phase}", cost, None, None, (cost, cost), [run])
        for what, cost in (("requests", requests), ("MB moved", moved / 1e6))
    ]


def measure(between: Counting, folder: Path, num_chains: int, chains_per_s: float) -> list[Counts]:
    """What each phase costs with so many chains, in a store of their own."""
    store = open_store(f"s3://{BUCKET}/{num_chains}?endpoint={between.endpoint}&region=us-east-1")
    config = made_up.Config(log=str(folder / "seam.jsonl"), words_per_token=WORDS_PER_TOKEN)
    token_s = min(config.capacity, num_chains) / chains_per_s / MEAN_TOKENS
    model = Model("made_up", (config.model_copy(update={"token_s": token_s}),))
    pool = model.pool(store, DISTRIBUTION)
    planned = Workload("heavy", num_chains, 0).plan(pool)

    def sampled() -> object:
        return sample(model, [(planned, DISTRIBUTION)], SamplingConfig(), "bench", VerificationConfig())

    def verified(tolerance: float) -> object:
        """Verdicts under a tolerance of its own, so that none are found."""
        return verify(store, [planned], "bench", VerificationConfig(relative_tolerance=tolerance))

    steps: list[Callable[[], object]] = [sampled, sampled, lambda: verified(1e-4), lambda: compact(pool)]
    steps += [sampled, lambda: verified(1e-5)]
    between.take_counts()
    counts: list[Counts] = []
    for step in steps:
        step()
        counts.append(between.take_counts())
    return counts


def main() -> None:
    """Measure and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chains", type=int, default=8192)
    parser.add_argument("--chains-per-s", type=float, default=40.0)
    parser.add_argument("--out", type=Path, default=table.FOLDER)
    arguments = parser.parse_args()
    ENGINES["made_up"] = SimpleNamespace(Config=made_up.Config, Engine=made_up.Engine, SEEDING="exact")  # type: ignore[assignment]
    os.environ |= {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    with tempfile.TemporaryDirectory() as folder:
        start_ray(open_store(folder))
        server = Roomy(Path(folder, "swift"))
        server.start()
        try:
            with (between := Counting(server.endpoint)):
                half, whole = (
                    measure(between, Path(folder), num_chains, arguments.chains_per_s)
                    for num_chains in (arguments.chains // 2, arguments.chains)
                )
        finally:
            server.stop()
    found = [figures(*each, arguments.chains) for each in zip(PHASES, half, whole, strict=True)]
    table.write("s3", list(itertools.chain.from_iterable(found)), arguments.out)


if __name__ == "__main__":
    main()
