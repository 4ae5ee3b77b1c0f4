"""The running cluster: what machines it has, which it may still start, and what a stage waits for.

The head of a cluster that scales itself names the file that it was launched with in `RETORT_CLUSTER`: Ray does not tell
a driver which machines an autoscaler could add.
"""

import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from retort.cluster.nodes import LAUNCH, Launch, NodeType, read_launch, told
from retort.cluster.room import Demand, capacity, refuse_unmet

logger = logging.getLogger(__name__)
FILE = "RETORT_CLUSTER"
SHARED = "RETORT_NODE_TYPES"
"""What the file says, as a driver hands it to its workers: those of other machines have no such file."""
PATIENCE_S = 2.0
"""What is there sooner is not waited for."""
REPORT_EVERY_S = 30.0
COUNT_EVERY_S = 10.0
"""Between two looks at which machines are there, whose time is added up."""
VERIFIER = "verifier"
"""A custom resource of machines that verify: where any type declares it, verification runs on such machines alone."""


def launch() -> Launch | None:
    """What this cluster was launched with; None where its head does not say.

    Raises:
        ValueError: the file that the environment names cannot be read.
    """
    if shared := os.environ.get(SHARED):
        return LAUNCH.validate_json(shared)
    path = os.environ.get(FILE)
    return read_launch(Path(path)) if path else None


def for_workers() -> dict[str, str]:
    """Environment variables that a driver hands to all of its workers, by which `launch` answers there as here."""
    launched = launch()
    return {} if launched is None else {SHARED: LAUNCH.dump_json(launched).decode()}


def machines() -> list[NodeType]:
    """The machines that are there now."""
    import ray

    rows: list[dict[str, Any]] = ray.nodes()
    return [NodeType(row["NodeManagerHostname"], row["Resources"], least=1, most=1) for row in rows if row["Alive"]]


def node_types() -> list[NodeType]:
    """What there may be: the types that the cluster was launched with, or the machines that it has."""
    launched = launch()
    return machines() if launched is None else list(launched.types)


def has_gpus() -> bool:
    """Whether there is a GPU, or the autoscaler could start a machine with one."""
    return any(kind.gpus for kind in [*machines(), *node_types()])


def has_other_machines() -> bool:
    """Whether work may land on another machine than this one."""
    launched = launch()
    if launched is not None and launched.provider == "fake_multinode":
        return False  # its machines are processes of this one
    may_grow = launched is not None and any(kind.most for kind in launched.types if kind.name != launched.head)
    return may_grow or len({machine.name for machine in machines()}) > 1


def verifying() -> dict[str, float]:
    """What a task of verification asks for beside a CPU: machines set apart for it, where there are any."""
    return {VERIFIER: 1.0} if any(kind.resources.get(VERIFIER) for kind in node_types()) else {}


def refuse(demands: Sequence[Demand]) -> None:
    """Raises ValueError for what neither the machines that are there nor those that may come have room for.

    A cluster that others launched, and that does not say what it may start, is given the benefit of the doubt.
    """
    if launch() is None and os.environ.get("RAY_ADDRESS"):
        return
    refuse_unmet(demands, node_types())


class Uptime:
    """While it lasts, adds up how long machines are there, whoever uses them, in `seconds` by what each offers."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="uptime", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(PATIENCE_S)  # it may be asking a head that is gone

    def _run(self) -> None:
        counted_s = time.monotonic()
        there = machines()
        while True:
            is_over = self._is_over.wait(COUNT_EVERY_S)
            now_s = time.monotonic()
            for machine in there:
                kind = told(machine.resources)
                self._seconds[kind] = self._seconds.get(kind, 0.0) + now_s - counted_s
            if is_over:
                return
            counted_s, there = now_s, machines()


class Waiting:
    """While it lasts, says now and then what is waited for, how long, and what there is.

    A demand is there when the machines have room for all of it, whoever uses them now.
    """

    def __init__(self, demand: Demand) -> None:
        self._demand = demand
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="waiting", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        began, waited_s = time.monotonic(), 0.0
        pause_s = PATIENCE_S
        while not self._is_over.wait(pause_s):
            there = machines()
            if capacity(self._demand.bundle, there) >= self._demand.count:
                if waited_s:
                    logger.info("%s: the machines are there, after %.0f s", self._demand.what, waited_s)
                return
            waited_s = time.monotonic() - began
            logger.info("%s", self._line(there, waited_s))
            pause_s = min(REPORT_EVERY_S, PATIENCE_S + waited_s)

    def _line(self, there: Sequence[NodeType], waited_s: float) -> str:
        demand, launched = self._demand, launch()
        has = capacity(demand.bundle, there)
        total = {
            kind: sum(machine.resources.get(kind, 0) for machine in there)
            for kind in sorted({kind for machine in there for kind in machine.resources} & {"CPU", "GPU", VERIFIER})
        }
        said = f"{demand.text}: {has} of {demand.count} have room, waiting for {waited_s:.0f} s"
        said += f"; {len(there)} machines with {told(total)}"
        if launched is not None:
            fitting = [kind.name for kind in launched.types if kind.fits(demand.bundle)]
            return f"{said}; the autoscaler may start: {', '.join(fitting)} ({launched.source.name})"
        return f"{said}; an autoscaler, or someone, has to add machines"
