"""A Ray cluster of several machines on this one: a head that takes no work, and others that are killed and replaced.

A machine is a `ray start` with all that it starts; its death is SIGKILL of the lot. Ended by process id.
"""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from faults.job import end, title_of
from namespaces import Namespace
from s3_servers.processes import free_ports

TESTS = Path(__file__).parent
RAY = str(Path(sys.executable).parent / "ray")


class Machine:
    """One `ray start --block`, and what it starts."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.name = name
        with log.open("a") as out:
            # Where the tests themselves are killed, the machine is too.
            command = ["setpriv", "--pdeathsig", "KILL", *command]
            self._process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)

    @property
    def is_up(self) -> bool:
        return self._process.poll() is None

    def processes(self) -> list[psutil.Process]:
        """What runs on it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._process.pid)
            return [root, *root.children(recursive=True)]
        return []

    def working(self) -> list[str]:
        """The titles of its workers that have something to do."""
        titles = [title_of(each) for each in self.processes()]
        return [title for title in titles if title.startswith("ray::") and "IDLE" not in title and "Agent" not in title]

    def kill(self) -> None:
        """SIGKILL everything on it at once."""
        end(self.processes())
        self._process.wait()


class Machines:
    """A head and some workers of two CPUs each, on ports of their own."""

    def __init__(
        self,
        folder: Path,
        environment: dict[str, str],
        num_workers: int = 2,
        object_store_bytes: int = 200_000_000,
        ip: str = "127.0.0.1",
    ) -> None:
        self._folder, self._num_started, self._object_store_bytes = folder, 0, object_store_bytes
        folder.mkdir(exist_ok=True)
        clean = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        # Engines that tests define are imported by workers too.
        paths = [environment.get("PYTHONPATH"), str(TESTS / "faults"), str(TESTS), os.environ.get("PYTHONPATH")]
        path = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self._environment = {**clean, "RAY_AUTH_MODE": "disabled", **environment, **path}
        self._num_workers, self._ip = num_workers, ip
        self._temporary = Path("/tmp", f"ray-{os.getpid()}-{secrets.token_hex(3)}")  # its sockets bear no longer path
        self.workers: list[Machine] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill_all()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def start(self) -> None:
        """Start the head, and then the workers; returns when all have joined."""
        self._port, dashboard, client = free_ports(3)
        self.address = f"{self._ip}:{self._port}"
        self.head = self._machine(
            "head",
            *("--head", f"--port={self._port}", "--num-cpus=0", f"--ray-client-server-port={client}"),
            *("--include-dashboard=false", f"--dashboard-port={dashboard}"),
            f"--temp-dir={self._temporary}",
        )
        _until(lambda: self._has_started(self.head), "the head started", self._folder / "head.log")
        for number in range(self._num_workers):  # several at once may be too much for a small machine
            self.add()
            self.until_joined(number + 1)

    def add(self, namespace: Namespace | None = None) -> Machine:
        """A new worker, which joins within seconds; it may have a network of its own."""
        self._num_started += 1
        name = f"worker-{self._num_started}"
        arguments = (f"--address={self.address}", "--num-cpus=2", f"--object-store-memory={self._object_store_bytes}")
        self.workers.append(self._machine(name, *arguments, namespace=namespace))
        return self.workers[-1]

    def _machine(self, name: str, *arguments: str, namespace: Namespace | None = None) -> Machine:
        ip, within = (self._ip, []) if namespace is None else (namespace.ip, namespace.within)
        common = ["--dashboard-agent-listen-port=0", f"--node-ip-address={ip}", f"--node-name={name}"]
        common += ["--min-worker-port=0", "--max-worker-port=0"]  # by default several machines' would be the same
        command = [*within, RAY, "start", "--block", "--disable-usage-stats", *common, *arguments]
        return Machine(name, command, self._environment, self._folder / f"{name}.log")

    def until_joined(self, number: int) -> None:
        """Wait until so many workers have a raylet that others can reach."""
        logs = [self._folder / f"{each.name}.log" for each in self.workers]
        _until(lambda: sum(map(self._has_started, self.workers)) >= number, f"{number} machines joined", *logs)

    def _has_started(self, machine: Machine) -> bool:
        return "Ray runtime started" in (self._folder / f"{machine.name}.log").read_text()

    def replace(self, worker: Machine) -> None:
        """SIGKILL a worker and start another in its place."""
        worker.kill()
        self.workers.remove(worker)
        self.add()

    def logs(self) -> list[str]:
        """What the raylets wrote."""
        return [path.read_text(errors="replace") for path in self._temporary.rglob("raylet*.out")]

    def kill_all(self) -> None:
        """SIGKILL of the head, too."""
        for machine in [*self.workers, self.head]:
            machine.kill()
        self.workers.clear()


def _until(is_so: Callable[[], bool], what: str, *logs: Path, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        told = "\n".join(log.read_text()[-1000:] for log in logs)
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s: {told}"
        time.sleep(0.2)
