"""Fixtures that several test files share: Ray, a sandbox and S3 servers for the session, a store for each test."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from retort.solvers.zygote import Sandbox
from retort.store import Store, open_store
from s3_servers.ceph import Ceph
from s3_servers.processes import ACCESS_KEY, BUCKET, SECRET_KEY, Server
from s3_servers.swift import Swift

S3_SERVERS: dict[str, type[Swift] | type[Ceph]] = {"swift": Swift}
if os.environ.get("RETORT_TEST_CEPH") == "1":
    S3_SERVERS["ceph"] = Ceph


@pytest.fixture(scope="session", autouse=True)
def aws_environment() -> Iterator[None]:
    """Credentials of the tests' own servers, and nobody else's; before Ray starts, so that its workers have them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        patch.setenv("AWS_CONFIG_FILE", "/nowhere")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="session")
def s3_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """Real S3 servers by name, each started when it is first asked for."""
    running: dict[str, Server] = {}

    def server(name: str) -> Server:
        if name not in running:
            running[name] = S3_SERVERS[name](tmp_path_factory.mktemp(name))
            running[name].start()
        return running[name]

    yield server
    for started in running.values():
        started.stop()


@pytest.fixture(params=S3_SERVERS)
def s3_server(request: pytest.FixtureRequest, s3_servers: Callable[[str], Server]) -> Server:
    """Each of the servers; one that kills it starts it again."""
    return s3_servers(request.param)


@pytest.fixture
def s3_uri(s3_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store on each of the servers, with nothing in it and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return prefix_on(s3_server)


@pytest.fixture
def swift_uri(s3_servers: Callable[[str], Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store on one of them, for what is not about stores."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return prefix_on(s3_servers("swift"))


@pytest.fixture(params=["local", *S3_SERVERS])
def store_uri(
    request: pytest.FixtureRequest,
    s3_servers: Callable[[str], Server],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """A store of each kind, with nothing in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return str(tmp_path / "store") if request.param == "local" else prefix_on(s3_servers(request.param))


def prefix_on(server: Server) -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex}?endpoint={server.endpoint}&region=us-east-1"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """One sandbox for all tests that run what a model might have written."""
    with Sandbox() as made:
        yield made


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A real Ray on this machine, with the settings that the jobs use."""
    import ray

    from retort.command import start_ray

    # What tests define is imported by Ray's workers too, such as engines.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    start_ray(open_store("/tmp"))
    yield
    ray.shutdown()
