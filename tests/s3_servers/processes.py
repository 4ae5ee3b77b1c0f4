"""What the launchers of S3 servers share: ports, processes that end with the tests, waiting, the credentials."""

import contextlib
import http.client
import random
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

ACCESS_KEY, SECRET_KEY, BUCKET = "test:tester", "testing-secret-0", "retort-tests"

# A process that is to end with its parent ends with the parent's thread that started it: this one stays.
_SPAWNER = ThreadPoolExecutor(1)


class Server(Protocol):
    """An S3 server with data of its own, on the loopback interface."""

    @property
    def endpoint(self) -> str: ...

    def start(self) -> None:
        """Come up, on the data that are there; returns when requests are answered and the bucket is there."""
        ...

    def stop(self) -> None: ...

    def kill(self) -> None:
        """End at once, in the middle of whatever it does."""
        ...


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below those of outgoing connections: they stay free while a server is down."""
    found: set[int] = set()
    while len(found) < count:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.add(port)
    return sorted(found)


def spawn(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A server's process, which is killed when the one that started it ends."""
    with log.open("ab") as output:
        whole = ["setpriv", "--pdeathsig", "KILL", *command]
        started = _SPAWNER.submit(
            subprocess.Popen, whole, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=dict(environment)
        )
        return started.result()


def end(processes: Sequence[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for process in processes:
        process.send_signal(number)
    for process in processes:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(ports: Sequence[int], processes: Sequence[subprocess.Popen[bytes]], timeout_s: float = 60) -> None:
    """Until each port answers HTTP. Raises RuntimeError where a process ended, or time is up."""
    until = time.monotonic() + timeout_s
    for port in ports:
        while not _answers(port):
            dead = [process.args for process in processes if process.poll() is not None]
            if dead or time.monotonic() > until:
                raise RuntimeError(f"port {port} does not answer; ended: {dead}")
            time.sleep(0.05)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/healthcheck")
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def make_bucket(endpoint: str) -> None:
    """The bucket of the tests, if it is not there."""
    from boto3.session import Session
    from botocore.config import Config

    client = Session().client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 10, "mode": "standard"}),
    )
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=BUCKET)
    client.close()
