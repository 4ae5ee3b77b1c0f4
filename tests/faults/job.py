"""Sampling jobs as a user starts them: a process of its own, and all that it starts. Ended by process id."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from faults import seam

DRIVER = Path(__file__).parent / "driver.py"
ACTOR = "ray::MapWorker(MapBatches(SampleBatches))"
ENGINE = "VLLM::EngineCore"
RAYLET = "/raylet/raylet"
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""They do no work, and may take minutes to notice that their Ray is gone."""


class Job:
    """`driver.py` on one recipe, started as often as a test likes; everything is ended when the context is left."""

    def __init__(
        self, folder: Path, recipe_file: Path, *overrides: str, name: str = "one", environment: Mapping[str, str] = {}
    ) -> None:
        self.log = seam.Log(folder / "seam.jsonl")
        self.name = name
        self._output = folder / f"{name}.log"
        # Where the tests themselves are killed, their jobs are too.
        self._command = ["setpriv", "--pdeathsig", "KILL", sys.executable, str(DRIVER), str(recipe_file), *overrides]
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(DRIVER.parent), os.environ.get("PYTHONPATH", "")]),
            seam.LOG: str(self.log.path),
            seam.NAME: name,
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._family: dict[int, psutil.Process] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end(self.family())
        if self._process is not None:
            self._process.wait()

    def start(self) -> float:
        """Run the command (again); when."""
        assert not self.is_running
        with self._output.open("ab") as file:
            self._process = subprocess.Popen(
                self._command, env=self.environment, stdout=file, stderr=file, start_new_session=True
            )
        self._family[self._process.pid] = psutil.Process(self._process.pid)
        return time.monotonic()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def family(self) -> list[psutil.Process]:
        """What lives of all that it ever started."""
        for member in list(self._family.values()):
            with contextlib.suppress(psutil.NoSuchProcess):
                self._family |= {child.pid: child for child in member.children(recursive=True)}
        self._family = {pid: member for pid, member in self._family.items() if is_alive(member)}
        return list(self._family.values())

    def find(self, title: str) -> list[psutil.Process]:
        """Living processes with this in the first word of their command line, the youngest first."""
        found = [member for member in self.family() if title in title_of(member)]
        return sorted(found, key=lambda member: member.create_time(), reverse=True)

    def lines(self, since_s: float = 0.0) -> list[seam.Line]:
        """What its engines wrote down from some time on."""
        return [line for line in self.log.lines() if line.job == self.name and line.at_s >= since_s]

    def until(self, is_so: Callable[[], bool], what: str, timeout_s: float = 180) -> None:
        """Wait for something to happen while it runs."""
        deadline = time.monotonic() + timeout_s
        while not is_so():
            self.family()
            assert self.is_running, f"the job ended before {what}:\n{self.output[-3000:]}"
            assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s:\n{self.output[-3000:]}"
            time.sleep(0.1)

    def wait(self, timeout_s: float = 300) -> int:
        """Its exit status, once it has ended by itself."""
        deadline = time.monotonic() + timeout_s
        while self.is_running:
            self.family()
            assert time.monotonic() < deadline, f"the job did not end in {timeout_s} s:\n{self.output[-3000:]}"
            time.sleep(0.1)
        assert self._process is not None
        return self._process.wait()

    def kill(self) -> None:
        """SIGKILL the driver."""
        assert self._process is not None
        self.family()
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def interrupt(self) -> None:
        """Ctrl-C."""
        assert self._process is not None
        self.family()
        self._process.send_signal(signal.SIGINT)

    def end_agents(self) -> None:
        """End the agents of a Ray that is gone."""
        end([member for member in self.family() if title_of(member).startswith(AGENTS)])

    def has_ended(self, timeout_s: float = 60) -> None:
        """Wait for all that it ever started to end by itself: an engine that lives on would go on spending."""
        self.end_agents()
        _, alive = psutil.wait_procs(self.family(), timeout=timeout_s)
        assert not alive, f"still alive {timeout_s} s after their job: {alive}"


def end(processes: list[psutil.Process]) -> None:
    """Kill processes, stopped ones too, by their id."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)


def is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def title_of(process: psutil.Process) -> str:
    """What a process calls itself: Ray's workers and vLLM's engines set the first word of their command line."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return next(iter(process.cmdline()), "")
    return ""
