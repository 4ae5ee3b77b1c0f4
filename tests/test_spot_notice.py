"""The script that drains spot machines: a real Ray of one node, and a metadata server that serves notices."""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from test_metrics import ended, until

SCRIPT = Path(__file__).resolve().parents[1] / "cluster" / "spot_notice.py"
# A Ray of one node, which is kept busy: an idle one ends as soon as it is drained. Says the seconds left when asked.
DRIVER = """\
import json, sys, time
import ray
from ray._private.state import state

@ray.remote
class Worker:
    def work(self):
        time.sleep(3600)

answers, sys.stdout = sys.stdout, sys.stderr  # Ray has things to say as well
ray.init("local", _temp_dir=sys.argv[1], num_cpus=1, include_dashboard=False, object_store_memory=100_000_000,
         log_to_driver=False)
worker = Worker.options(num_cpus=1).remote()
ray.get(worker.__ray_ready__.remote())
worker.work.remote()
context = ray.get_runtime_context()
print(json.dumps([context.gcs_address, context.get_node_id()]), file=answers, flush=True)
for _ in sys.stdin:
    left = {node: at / 1000 - time.time() for node, at in state.get_draining_nodes().items()}
    print(json.dumps(left), file=answers, flush=True)
"""


class Metadata(BaseHTTPRequestHandler):
    """Both clouds' metadata servers: no notice until `notice` is set, and no answer without the right headers."""

    notice: datetime | None = None
    asked = 0

    def do_PUT(self) -> None:
        is_right = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self.answer(200 if is_right else 400, "secret")

    def do_GET(self) -> None:
        notice = type(self).notice
        if self.path == "/latest/meta-data/spot/instance-action":
            type(self).asked += 1
            if self.headers["X-aws-ec2-metadata-token"] != "secret":
                self.answer(401, "")
            elif notice is None:
                self.answer(404, "")
            else:
                self.answer(200, json.dumps({"action": "terminate", "time": f"{notice:%Y-%m-%dT%H:%M:%SZ}"}))
        elif self.path == "/computeMetadata/v1/instance/preempted":
            type(self).asked += 1
            is_right = self.headers["Metadata-Flavor"] == "Google"
            self.answer(200 if is_right else 403, "TRUE" if notice else "FALSE")
        else:
            self.answer(400, "")

    def answer(self, status: int, body: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        pass


@contextmanager
def metadata() -> Generator[tuple[type[Metadata], str]]:
    served = type("Served", (Metadata,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), served) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield served, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Without a proxy's help, and with token authentication, as on a cluster."""
    return {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}


@dataclass(frozen=True)
class Node:
    """A Ray of one node."""

    driver: "subprocess.Popen[str]"

    def answer(self) -> Any:
        assert self.driver.stdout is not None
        return json.loads(self.driver.stdout.readline())

    def draining(self) -> dict[str, float]:
        """The seconds that are left to each node that is drained."""
        assert self.driver.stdin is not None
        self.driver.stdin.write("\n")
        self.driver.stdin.flush()
        return self.answer()


@contextmanager
def one_node(environment: dict[str, str]) -> Generator[Node]:
    # Not below pytest's folder: the names of Ray's sockets would be too long.
    with tempfile.TemporaryDirectory(prefix="spot", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-c", DRIVER, folder]
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        driver = subprocess.Popen(command, env=environment, text=True, stdin=pipe, stdout=pipe, stderr=nothing)
        with ended(driver):
            yield Node(driver)


def watching(cloud: str, address: str, url: str, environment: dict[str, str]) -> "subprocess.Popen[str]":
    command = [sys.executable, str(SCRIPT), cloud, address]
    return subprocess.Popen(command, env={**environment, "METADATA_SERVICE": url}, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("cloud", "expected_s"), [("aws", 90), pytest.param("gcp", 28, marks=pytest.mark.slow)])
def test_a_notice_drains_the_machines_node(cloud: str, expected_s: int, environment: dict[str, str]):
    with metadata() as (served, url), one_node(environment) as ray:
        address, node = ray.answer()
        with ended(watching(cloud, address, url, environment)) as script:
            until(lambda: served.asked > 1, True)
            assert ray.draining() == {}, "nothing is drained without a notice"
            served.notice = datetime.now(UTC) + timedelta(seconds=90)
            assert script.wait(timeout=60) == 0
        left = ray.draining()
        assert left.keys() == {node}
        assert 0 < left[node] <= expected_s


def test_a_notice_is_tried_again_until_ray_was_told(environment: dict[str, str]):
    nowhere = f"127.0.0.1:{free_port()}"
    with metadata() as (served, url), ended(watching("gcp", nowhere, url, environment)) as script:
        served.notice = datetime.now(UTC)
        assert script.stderr is not None
        assert "no node of the cluster" in script.stderr.readline()
        until(lambda: served.asked > 1, True)
        assert script.poll() is None
