"""Judging on the cluster: in batches, on the machines that verify, with a sandbox for each batch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from retort import logs
from retort.cluster import live
from retort.cluster.skew import Installed, installed
from retort.solvers.zygote import Limits, Sandbox

CHAINS_AT_ONCE = 100_000
"""Chains that a task holds, with their verdicts: 0.3 GB where each has 700 characters. A larger partition is read in
several tasks, each of which reads through all of its segments."""
CHAINS_IN_A_BATCH = 250
"""A batch takes on partitions until it has so many chains: a sandbox takes seconds to start, where one is needed."""

Row = dict[str, Any]
Work = Callable[[Row, Sandbox], Row]


def judged(batches: Iterable[Sequence[Row]], work: Work, limits: Limits) -> Iterator[Row]:
    """What `work` makes of each row, in any order; rows of a batch share a task and its sandbox.

    Raises:
        ray.exceptions.RayTaskError: `work` raised, or a machine has other versions than the driver.
    """
    import ray

    rows = [{"batch": list(batch)} for batch in batches]
    if not rows:
        return
    judging = ray.data.from_items(rows, override_num_blocks=len(rows)).flat_map(
        partial(_judge, work=work, limits=limits, driver=installed(), log=logs.current()),
        num_cpus=1,
        resources=live.verifying() or None,
    )
    with live.waiting([live.verification()]):
        yield from judging.iter_rows()


def _judge(row: Row, work: Work, limits: Limits, driver: Installed, log: logs.Log) -> list[Row]:
    """One batch, on some machine of the cluster, which logs as the `driver` does.

    Raises:
        ValueError: it has other versions than the driver, by which artifacts are addressed.
    """
    driver.check()
    logs.configure(log, "%(message)s", replaces=log.is_json)
    with Sandbox(limits) as sandbox:
        return [work(each, sandbox) for each in row["batch"]]
