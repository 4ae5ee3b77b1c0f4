"""Watching the processes of a Ray on this machine: CPU seconds, memory, and what the object store holds.

A thread of the driver looks every two seconds; what it takes itself is not counted as the driver's.
"""

import contextlib
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import psutil

EVERY_S = 2.0
ROLES = {
    "actors": "SampleBatches",
    "raylet": "raylet/raylet",
    "gcs": "gcs_server",
    "dashboard and agents": "dashboard/",
    "other workers": "ray::|default_worker",
    "sandboxes": "zygote",
}


class Seen(NamedTuple):
    """The processes of one role: how many at once at most, CPU seconds of all, memory of one at most."""

    processes: int
    cpu_s: float
    mib: float


class Watch:
    """Watches the driver, which is this process, and all that it started, from `with` to its end."""

    def __init__(self) -> None:
        self._driver = psutil.Process()
        self._spent: dict[psutil.Process, tuple[str, float]] = {}
        self._most: Counter[str] = Counter()
        self._mib: dict[str, float] = {}
        self._own_s = 0.0
        self.object_store_mib = 0.0
        self.total_mib = 0.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._began_s = sum(self._driver.cpu_times()[:2])
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def seen(self) -> dict[str, Seen]:
        """What there was of each role; `driver` is this process."""
        cpu: dict[str, float] = {"driver": sum(self._driver.cpu_times()[:2]) - self._began_s - self._own_s}
        for role, seconds in self._spent.values():
            cpu[role] = cpu.get(role, 0.0) + seconds
        self._most["driver"] = 1
        return {role: Seen(self._most[role], seconds, self._mib.get(role, 0.0)) for role, seconds in cpu.items()}

    def _run(self) -> None:
        while not self._is_over.wait(EVERY_S):
            self._look()
        self._look()

    def _look(self) -> None:
        began = time.thread_time()
        self.object_store_mib = max(self.object_store_mib, _stored_mib())
        now: Counter[str] = Counter()
        total = 0.0
        for process in (self._driver, *self._driver.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                role = "driver" if process == self._driver else _role(" ".join(process.cmdline()))
                found = process.memory_info()
                # Without what is shared: the object store, which everybody maps, and pages of libraries.
                own = (found.rss - found.shared) / 2**20
                total += own
                now[role] += 1
                self._mib[role] = max(self._mib.get(role, 0.0), own)
                if role != "driver":
                    # An actor has the name of an idle worker at first: the last one counts.
                    self._spent[process] = role, sum(process.cpu_times()[:2])
        self._most |= now
        self.total_mib = max(self.total_mib, total)
        self._own_s += time.thread_time() - began


def _role(command: str) -> str:
    return next((role for role, part in ROLES.items() if re.search(part, command)), "others")


def _stored_mib() -> float:
    """What Ray's object store holds now, of all nodes."""
    import ray

    if not ray.is_initialized():
        return 0.0
    total: Mapping[str, Any] = ray.cluster_resources()
    free: Mapping[str, Any] = ray.available_resources()
    return (total.get("object_store_memory", 0.0) - free.get("object_store_memory", 0.0)) / 2**20
