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
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from test_metrics import ended, until

SCRIPT = Path(__file__).resolve().parents[1] / "cluster" / "spot_notice.py"
RAY = str(Path(sys.executable).parent / "ray")
# Asks the cluster's head alone: a driver would wait for a node that is not drained.
DRAINING = """\
import json, sys, time
from ray._private.state import state
from ray._raylet import GcsClientOptions
state._initialize_global_state(GcsClientOptions.create(sys.argv[1], None, allow_cluster_id_nil=True,
                                                       fetch_cluster_id_if_nil=False))
while not state.node_table():
    time.sleep(0.2)
(node,) = state.node_table()
left = {name: at / 1000 - time.time() for name, at in state.get_draining_nodes().items()}
address = f"{node['NodeManagerAddress']}:{sys.argv[1].split(':')[1]}"
print(json.dumps([node["NodeID"], left, address]))
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


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Without a proxy's help, and with token authentication, as on a cluster."""
    return {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}


@contextmanager
def one_node(environment: dict[str, str]) -> Generator[str]:
    """The address of a Ray of one node, as its own processes know it."""
    with tempfile.TemporaryDirectory(prefix="spot", ignore_cleanup_errors=True) as folder:
        port, client_port = free_port(), free_port()
        command = [RAY, "start", "--head", "--block", f"--port={port}", f"--ray-client-server-port={client_port}"]
        command += ["--node-ip-address=127.0.0.1", "--num-cpus=1", "--object-store-memory=80000000"]
        command += ["--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}"]
        with (Path(folder) / "log").open("w") as log:
            head = subprocess.Popen(command, stdout=log, stderr=log, env=environment, text=True)
            with ended(head):
                until(lambda: is_listening(port), True)
                yield draining(f"127.0.0.1:{port}", environment)[2]


def watching(cloud: str, address: str, url: str, environment: dict[str, str]) -> "subprocess.Popen[str]":
    command = [sys.executable, str(SCRIPT), cloud, address]
    return subprocess.Popen(command, env={**environment, "METADATA_SERVICE": url}, stderr=subprocess.PIPE, text=True)


def draining(address: str, environment: dict[str, str]) -> tuple[str, dict[str, float], str]:
    """The id of the cluster's one node, the seconds left to each node that is drained, and the cluster's address."""
    command = [sys.executable, "-c", DRAINING, address]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    node, left, address = json.loads(done.stdout.splitlines()[-1])
    return node, left, address


@pytest.mark.parametrize(("cloud", "expected_s"), [("aws", 90), ("gcp", 28)])
def test_a_notice_drains_the_machines_node(cloud: str, expected_s: int, environment: dict[str, str]):
    with metadata() as (served, url), one_node(environment) as address:
        with ended(watching(cloud, address, url, environment)) as script:
            until(lambda: served.asked > 1, True)
            assert draining(address, environment)[1] == {}, "nothing is drained without a notice"
            served.notice = datetime.now(UTC) + timedelta(seconds=90)
            assert script.wait(timeout=60) == 0
        node, left, _ = draining(address, environment)
        assert left.keys() == {node}
        assert expected_s - 30 < left[node] <= expected_s


def test_a_notice_is_tried_again_until_ray_was_told(environment: dict[str, str]):
    nowhere = f"127.0.0.1:{free_port()}"
    with metadata() as (served, url), ended(watching("gcp", nowhere, url, environment)) as script:
        served.notice = datetime.now(UTC)
        assert script.stderr is not None
        assert "no node of the cluster" in script.stderr.readline()
        until(lambda: served.asked > 1, True)
        assert script.poll() is None
