"""The running cluster: what machines it has, which it may still start, and what a stage waits for.

The head of a cluster that scales itself names the file that it was launched with in `RETORT_CLUSTER`: Ray does not tell
a driver which machines an autoscaler could add.
"""

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
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
REPORT_EVERY_S = 600.0
"""Between two lines of what is waited for, at most; at first they come after as long as has been waited."""
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
    may_grow = launched is not None and any(kind.most for kind in launched.types if not kind.is_head)
    return may_grow or len({machine.name for machine in machines()}) > 1


def verifying() -> dict[str, float]:
    """What a task of verification asks for beside a CPU: machines set apart for it, where there may be any."""
    has = any(kind.resources.get(VERIFIER) for kind in node_types() if kind.most)
    return {VERIFIER: 1.0} if has else {}


def verification() -> Demand:
    """What verification asks for at least."""
    return Demand("verification", {"CPU": 1.0, **verifying()}, 1, 1, "nothing: it takes one CPU")


def most(bundle: Mapping[str, float]) -> int:
    """How many of a bundle there may be room for."""
    launched = launch()
    return capacity(bundle, machines()) if launched is None else capacity(bundle, launched.types, launched.most_workers)


def refuse(demands: Sequence[Demand]) -> None:
    """Raises ValueError for what neither the machines that are there nor those that may come have room for.

    A cluster that others launched, and that does not say what it may start, is given the benefit of the doubt.
    """
    launched = launch()
    if launched is not None:
        refuse_unmet(demands, launched.types, launched.most_workers)
    elif not os.environ.get("RAY_ADDRESS"):
        refuse_unmet(demands, machines())


class _Looks:
    """Looks at the machines that are there now and then, in a thread, while it lasts."""

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=type(self).__name__.lower(), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(PATIENCE_S)  # it may be asking a head that is gone

    def _run(self) -> None:
        from ray.exceptions import RayError

        is_over = False
        while not is_over:
            is_over = self._is_over.wait(self._pause_s)
            try:
                self._look(machines())
            except (RayError, ConnectionError) as error:
                logger.warning("which machines there are is not known now: %s", error)

    def _look(self, there: Sequence[NodeType]) -> None:
        raise NotImplementedError


class Uptime(_Looks):
    """While it lasts, adds up how long machines are there, whoever uses them, in `seconds` by what each offers."""

    def __init__(self, seconds: dict[str, float]) -> None:
        super().__init__(COUNT_EVERY_S)
        self._seconds, self._counted_s = seconds, time.monotonic()

    def _look(self, there: Sequence[NodeType]) -> None:
        now_s = time.monotonic()
        for machine in there:
            kind = told(machine.resources)
            self._seconds[kind] = self._seconds.get(kind, 0.0) + now_s - self._counted_s
        self._counted_s = now_s


class Waiting(_Looks):
    """While it lasts, says now and then which demand lacks machines, for how long, and what there is.

    A demand is met when the machines have room for all of it, or for as much of it as they ever may, whoever uses them.
    """

    def __init__(self, demands: Sequence[Demand]) -> None:
        super().__init__(PATIENCE_S)
        self._demands = demands
        self._since_s: float | None = time.monotonic()
        """Since when machines lack; None where none did."""
        self._has_said = False

    def _look(self, there: Sequence[NodeType]) -> None:
        if self._is_over.is_set():
            return
        now_s = time.monotonic()
        lacking = [each for each in self._demands if capacity(each.bundle, there) < self._wanted(each)]
        if lacking:
            self._since_s = self._since_s or now_s
            waited_s = now_s - self._since_s
            for demand in lacking:
                logger.info("%s", self._line(demand, there, waited_s))
            self._has_said, self._pause_s = True, min(max(waited_s, PATIENCE_S), REPORT_EVERY_S)
            return
        if self._has_said and self._since_s is not None:
            told_of = ", ".join(each.what for each in self._demands)
            logger.info("%s: the machines are there, after %.0f s", told_of, now_s - self._since_s)
        self._since_s, self._has_said, self._pause_s = None, False, COUNT_EVERY_S

    def _wanted(self, demand: Demand) -> int:
        return max(demand.least, min(demand.count, most(demand.bundle)))

    def _line(self, demand: Demand, there: Sequence[NodeType], waited_s: float) -> str:
        launched = launch()
        total: Counter[str] = Counter()
        for machine in there:
            total.update({kind: machine.resources.get(kind, 0) for kind in ("CPU", "GPU", VERIFIER)})
        has = capacity(demand.bundle, there)
        said = f"{demand.text}: {has} of {demand.count} have room, waiting for {waited_s:.0f} s"
        said += f"; {len(there)} machines with {told(total)}"
        if launched is not None:
            fitting = [kind.name for kind in launched.types if kind.most and kind.fits(demand.bundle)]
            return f"{said}; the autoscaler may start: {', '.join(fitting)} ({launched.source.name})"
        return f"{said}; an autoscaler, or someone, has to add machines"
