"""The running cluster: what machines it has, which it may still start, and what a stage waits for.

The head of a cluster that scales itself names the file that it was launched with in `RETORT_CLUSTER`: Ray does not tell
a driver which machines an autoscaler could add.
"""

import contextlib
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from retort.cluster.nodes import LAUNCH, Launch, NodeType, read_launch, told
from retort.cluster.room import Demand, capacity, refuse_unmet

logger = logging.getLogger(__name__)
FILE = "RETORT_CLUSTER"
JOINED = "RETORT_JOINED"
"""Tells workers that others launched the cluster, as `RAY_ADDRESS` tells their driver."""
SHARED = "RETORT_NODE_TYPES"
"""What the file says, as a driver hands it to its workers: those of other machines have no such file."""
PATIENCE_S = 2.0
"""What is there sooner is not waited for."""
REPORT_EVERY_S = 600.0
"""Between two lines of what is waited for, at most; at first they come after as long as has been waited."""
ANSWER_S = 60.0
"""What a machine may take to say what it sees."""
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
    """Environment variables that a driver hands to all of its workers, by which this module answers there as here."""
    launched = launch()
    if launched is not None:
        return {SHARED: LAUNCH.dump_json(launched).decode()}
    return {JOINED: "1"} if _is_joined() else {}


def _is_joined() -> bool:
    return bool(os.environ.get("RAY_ADDRESS") or os.environ.get(JOINED))


def machines() -> list[NodeType]:
    """The machines that are there now."""
    import ray

    rows: list[dict[str, Any]] = ray.nodes()
    return [_machine(row) for row in rows if row["Alive"]]


def _machine(row: Mapping[str, Any]) -> NodeType:
    """A node of Ray's, by its type where an autoscaler started it, else by its host's name."""
    name = row["Labels"].get("ray.io/node-group") or row["NodeManagerHostname"]
    return NodeType(name, row["Resources"], least=1, most=1, is_head="node:__internal_head__" in row["Resources"])


def node_types() -> list[NodeType]:
    """What there may be: the types that the cluster was launched with, or the machines that it has."""
    launched = launch()
    return machines() if launched is None else list(launched.types)


def has_gpus() -> bool:
    """Whether there is a GPU, or the autoscaler could start a machine with one."""
    return any(kind.gpus for kind in [*machines(), *node_types()])


def shares(folder: str) -> bool:
    """Whether every machine that work may land on has this folder of this machine."""
    launched = launch()
    if launched is not None and launched.provider == "fake_multinode":
        return True  # its machines are processes of this one
    may_grow = launched is not None and any(kind.most for kind in launched.types if not kind.is_head)
    return not may_grow and _have(folder)


def _have(folder: str) -> bool:
    """Whether all nodes see the folder as it is here: several may be processes of one machine, as in tests."""
    import ray
    from ray.exceptions import GetTimeoutError, NodeDiedError, TaskUnschedulableError, WorkerCrashedError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [row["NodeID"] for row in ray.nodes() if row["Alive"]]
    if len(nodes) == 1:
        return True
    there = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    asked = [ray.remote(num_cpus=0)(_place).options(scheduling_strategy=each).remote(folder) for each in there]
    for each in asked:
        try:
            if ray.get(each, timeout=ANSWER_S) != _place(folder):
                return False
        except (NodeDiedError, TaskUnschedulableError, WorkerCrashedError):  # it has gone since
            continue
        except GetTimeoutError:
            return False
    return True


def _place(folder: str) -> tuple[str, int, int] | None:
    """What tells a folder from all others: the start of its machine, its device and inode. None where there is none."""
    try:
        found = Path(folder).stat()
    except FileNotFoundError:
        return None
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip(), found.st_dev, found.st_ino


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
    elif not _is_joined():
        refuse_unmet(demands, machines())


@contextlib.contextmanager
def _looking(look: Callable[[Sequence[NodeType]], float], first_s: float) -> Generator[None]:
    """While it lasts, looks at the machines that are there, in a thread: after `first_s`, then after as long as `look`
    says, and at the end.
    """
    from ray.exceptions import RayError

    is_over = threading.Event()

    def run() -> None:
        pause_s, is_last = first_s, False
        while not is_last:
            is_last = is_over.wait(pause_s)
            try:
                pause_s = look(machines())
            except (RayError, ConnectionError) as error:
                logger.warning("which machines there are is not known now: %s", error)

    thread = threading.Thread(target=run, name="machines", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(PATIENCE_S)  # it may be asking a head that is gone


@contextlib.contextmanager
def uptime(seconds: dict[str, float]) -> Generator[None]:
    """While it lasts, adds up how long machines are there, whoever uses them, in `seconds` by their types and what each
    offers; by that alone where types are not known.
    """
    counted_s, launched = time.monotonic(), launch()
    names = {kind.name for kind in launched.types} if launched is not None else set[str]()

    def look(there: Sequence[NodeType]) -> float:
        nonlocal counted_s
        now_s = time.monotonic()
        for machine in there:
            kind, name = told(machine.resources), "head" if machine.is_head else machine.name
            if names and (machine.is_head or name in names):
                kind = f"{name} ({kind})"
            seconds[kind] = seconds.get(kind, 0.0) + now_s - counted_s
        counted_s = now_s
        return COUNT_EVERY_S

    with _looking(look, COUNT_EVERY_S):
        yield


@contextlib.contextmanager
def waiting(demands: Sequence[Demand]) -> Generator[None]:
    """While it lasts, says now and then which demand lacks machines, for how long, and what there is.

    A demand is met when the machines have room for all of it, or for as much of it as they ever may, whoever uses them.
    """
    wait = _Wait(demands)
    with _looking(wait.look, PATIENCE_S):
        try:
            yield
        finally:
            wait.is_over = True


class _Wait:
    """What `waiting` remembers between two looks."""

    def __init__(self, demands: Sequence[Demand]) -> None:
        self._demands = demands
        self._since_s: float | None = time.monotonic()
        """Since when machines lack; None where none did."""
        self._has_said = False
        self.is_over = False

    def look(self, there: Sequence[NodeType]) -> float:
        """Say what is lacking; seconds to the next look."""
        now_s = time.monotonic()
        lacking = [each for each in self._demands if capacity(each.bundle, there) < self._wanted(each)]
        if self.is_over:
            return COUNT_EVERY_S
        if lacking:
            self._since_s = self._since_s or now_s
            waited_s = now_s - self._since_s
            for demand in lacking:
                logger.info("%s", self._line(demand, there, waited_s))
            self._has_said = True
            return min(max(waited_s, PATIENCE_S), REPORT_EVERY_S)
        if self._has_said and self._since_s is not None:
            told_of = ", ".join(each.what for each in self._demands)
            logger.info("%s: the machines are there, after %.0f s", told_of, now_s - self._since_s)
        self._since_s, self._has_said = None, False
        return COUNT_EVERY_S

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
