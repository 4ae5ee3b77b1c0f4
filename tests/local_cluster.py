"""The cluster of `make cluster-local`, as its users start it and submit to it; ended by process id."""

import contextlib
import json
import os
import re
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import psutil

from faults.job import end

ROOT = Path(__file__).parents[1]
DASHBOARD = "http://127.0.0.1:8265"
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Seen(NamedTuple):
    """How many living machines of each type there were from some moment on, the head apart."""

    at_s: float
    machines: dict[str, int]


class LocalCluster:
    """`make cluster-local` with a home of its own, and a look at its machines twice a second."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self._home, self.history = home, list[Seen]()
        self._types: dict[str, str] = {}  # of nodes that have gone, Ray does not tell them
        clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
        self._environment = {**clean, "HOME": str(home), "RAY_AUTH_MODE": "token", **environment}
        self._log = home / "cluster.log"
        self._is_over = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._family: dict[int, psutil.Process] = {}

    def __enter__(self) -> Self:
        with self._log.open("w") as log:
            # Where the tests themselves are killed, the head is too, and with it all that it started.
            command = ["setpriv", "--pdeathsig", "KILL", "make", "cluster-local"]
            self._make = subprocess.Popen(
                command, cwd=ROOT, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._watcher.join()
        end([each for each in self._members() if each.is_running()])
        self._make.wait()

    @property
    def token(self) -> str:
        """What it lets in whoever has it by."""
        return (self._home / ".ray/auth_token").read_text().strip()

    def ask(self, path: str) -> Any:
        """What the dashboard tells who has the token."""
        asked = urllib.request.Request(DASHBOARD + path, headers={"Authorization": f"Bearer {self.token}"})
        with OPENER.open(asked, timeout=10) as answer:
            return json.load(answer)

    def machines(self) -> dict[str, int]:
        """Living machines by type, but for the head."""
        rows: list[dict[str, Any]] = self.ask("/nodes?view=summary")["data"]["summary"]
        alive = [row["raylet"] for row in rows if row["raylet"]["state"] == "ALIVE"]
        self._types |= {row["nodeId"]: row["nodeTypeName"] for row in alive}
        return dict(Counter(row["nodeTypeName"] for row in alive if row["nodeTypeName"]))

    def types_with(self, task: str) -> set[str]:
        """Types of the machines that ran tasks of Ray Data which map a function."""
        tasks: list[dict[str, Any]] = self.ask("/api/v0/tasks?limit=10000")["data"]["result"]["result"]
        return {self._types[each["node_id"]] for each in tasks if task in each["name"]}

    def logs(self) -> list[Path]:
        """Every log of this cluster."""
        session = Path("/tmp/ray/session_latest").resolve()
        return [self._log, *(path for path in (session / "logs").rglob("*") if path.is_file())]

    def submit(self, *entrypoint: str, timeout_s: float = 600) -> "subprocess.CompletedProcess[str]":
        """`ray job submit` as the README has it, once the head takes jobs."""
        options = ["--address", DASHBOARD, "--runtime-env", "cluster/runtime-env.yaml"]
        options += ["--working-dir", f"local://{ROOT}"]
        deadline = time.monotonic() + 120
        while True:
            done = subprocess.run(
                [str(ROOT / ".venv/bin/ray"), "job", "submit", *options, "--", "python", *entrypoint],
                cwd=ROOT,
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
            is_up = not re.search(r"No available agent|Failed to connect to Ray", done.stderr)
            if is_up or time.monotonic() > deadline:
                return done
            assert self._make.poll() is None, self._log.read_text()[-2000:]
            time.sleep(1)

    def until(self, machines: dict[str, int], timeout_s: float) -> None:
        """Wait until there are these machines beside the head."""
        deadline = time.monotonic() + timeout_s
        while not self.history or self.history[-1].machines != machines:
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {machines}; {self.told()}"
            time.sleep(0.2)

    def most(self, kind: str) -> int:
        """The most machines of a type that were there at a time."""
        return max((seen.machines.get(kind, 0) for seen in self.history), default=0)

    def told(self) -> str:
        """The machines over time, in seconds from the first look."""
        first = self.history[0].at_s if self.history else 0.0
        return ", ".join(f"{seen.at_s - first:.0f} s: {seen.machines or 'none'}" for seen in self.history)

    def _watch(self) -> None:
        while not self._is_over.wait(0.5):
            self._members()
            try:
                now = self.machines()
            except (OSError, ValueError, KeyError):  # it is starting, or busy
                continue
            if not self.history or self.history[-1].machines != now:
                self.history.append(Seen(time.monotonic(), now))

    def _members(self) -> list[psutil.Process]:
        """All that the head has ever started, as far as it was seen."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._family |= {each.pid: each for each in psutil.Process(self._make.pid).children(recursive=True)}
        return list(self._family.values())
