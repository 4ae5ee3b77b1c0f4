"""Invariant 1 with the store in S3, over a network and on a server that do what networks and servers do."""

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from faults.credentials import Credentials, name_of
from faults.job import Job
from faults.ledger import Ledger, in_bucket
from proxies import Fault, Proxy, Request, answer, reset_request, reset_response, slow
from recordings import recipe, write_recording
from s3_servers.processes import ACCESS_KEY, BUCKET, SECRET_KEY
from s3_servers.swift import Swift

FLUSH_S = 4.0
NETWORK: dict[str, tuple[Fault, float]] = {
    "503": (answer(503), 1.0),
    "500": (answer(500), 0.7),
    "slow": (slow(1.0, 50_000), 1.0),
    "reset requests": (reset_request(), 0.6),
    "reset responses": (reset_response(), 0.6),
}
"""Each with the share of the requests that it befalls."""
NUM_KEYS = 10


@pytest.fixture(scope="module")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    """A server that knows more than one pair of keys."""
    server = Swift(tmp_path_factory.mktemp("swift"))
    settings = server.folder / "etc" / "proxy.conf"
    first, *others = (
        f"user_{key.replace(':', '_')} = {SECRET_KEY} .admin\n" for key in (ACCESS_KEY, *map(name_of, range(NUM_KEYS)))
    )
    text = settings.read_text()
    assert first in text
    settings.write_text(text.replace(first, "".join([first, *others])))
    server.start()
    yield server
    server.stop()


class Sampling:
    """A job whose store is behind a proxy, and the accounts of it, which are not."""

    def __init__(self, stack: ExitStack, swift: Swift, folder: Path, num_chains: int, seed: int) -> None:
        self.proxy = stack.enter_context(Proxy(swift.endpoint, seed))
        self.recipe_file = folder / "recipe.toml"
        place = f"s3://{BUCKET}/{folder.name}?endpoint={self.proxy.endpoint}"
        self.recipe_file.write_text(recipe(write_recording(folder / "rec.jsonl", num_chains), place, num_chains))
        self.job = stack.enter_context(Job(folder, self.recipe_file, f"sampling.flush_s={FLUSH_S}"))
        self.ledger = stack.enter_context(Ledger(self.job.log, in_bucket(swift.endpoint, folder.name), FLUSH_S))
        self.job.start()
        self.job.until(lambda: bool(self.ledger.durable), "a chain was durable")

    def end(self) -> str:
        """Let it end well; the figures."""
        assert self.job.wait() == 0, self.job.output[-3000:]
        return f"{dict(self.proxy.requests)}; {self.ledger.check(self.recipe_file)}"


def use(credentials: Credentials, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let them be all that is found, here and in jobs."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in credentials.environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_trouble_with_network_server_and_keys_loses_and_repeats_nothing(
    swift: Swift, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    credentials = Credentials(tmp_path, lasts_s=3600)
    use(credentials, monkeypatch)
    with ExitStack() as stack:
        sampling = Sampling(stack, swift, tmp_path, num_chains=36, seed=seed)
        for name in rng.sample(list(NETWORK), len(NETWORK)):
            befall(sampling, name, rng)
            sampling.proxy.refused_keys.add(credentials.renew())
        kill_while_it_receives(sampling, swift, rng)
        print(f"seed {seed}: {sampling.end()}")
        assert sampling.proxy.requests["expired"], "no old key was used"


def befall(sampling: Sampling, name: str, rng: random.Random) -> None:
    """Let a fault befall requests for some seconds, and in any case some requests."""
    proxy = sampling.proxy
    before = proxy.requests["hit"]
    sampling.ledger.hit(name, time.monotonic())
    proxy.fault, proxy.share = NETWORK[name]
    time.sleep(rng.uniform(1, 3))
    sampling.job.until(lambda: proxy.requests["hit"] > before, f"{name} had befallen a request", timeout_s=20)
    proxy.fault = None
    over_s = time.monotonic()
    sampling.job.until(lambda: not sampling.ledger.open("finished", over_s), f"what waited during {name} was durable")


def kill_while_it_receives(sampling: Sampling, swift: Swift, rng: random.Random) -> None:
    """SIGKILL the server in the middle of an upload, and start it again on the same data."""
    proxy = sampling.proxy
    sampling.ledger.hit("server", time.monotonic())
    proxy.fault, proxy.share = slow(0.0, 10_000), 1.0
    sampling.job.until(lambda: any(map(is_segment, proxy.under_way)), "a segment was on its way", timeout_s=20)
    time.sleep(rng.uniform(0, 0.3))
    swift.kill()
    proxy.fault = None
    time.sleep(rng.uniform(0, 3))
    swift.start()


def is_segment(request: Request) -> bool:
    return request.method == "PUT" and "/segments/" in request.path


@pytest.mark.slow
def test_keys_whose_end_is_announced_are_changed_in_time(
    swift: Swift, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(0)
    credentials = Credentials(tmp_path, lasts_s=6)
    use(credentials, monkeypatch)
    with ExitStack() as stack:
        sampling = Sampling(stack, swift, tmp_path, num_chains=16, seed=0)
        for _ in range(3):
            time.sleep(rng.uniform(1, 3))
            sampling.ledger.hit("new key", time.monotonic())
            sampling.proxy.refused_keys.add(credentials.renew())
        print(sampling.end())
