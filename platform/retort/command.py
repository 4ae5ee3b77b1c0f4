"""The command line that the jobs share: a recipe, overrides, and how far to go.

Wrong input ends with exit status 2 and one line, before Ray starts.
"""

import argparse
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from retort import loading, logs, pipeline, run
from retort.cluster import live
from retort.cluster.demands import forecast
from retort.cluster.nodes import read_launch
from retort.config import Recipe
from retort.journal import Journal
from retort.store import Store, open_store
from retort.store.artifacts import Artifact
from retort.store.claims import present
from retort.sweep import driver

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """What a job does with a recipe: how it finds out what is wrong, tells what it would do, and does it."""

    prepare: Callable[[Recipe, Store], object]
    dry_run: Callable[[Recipe, Store], list[str]]
    carry_out: Callable[[Recipe, Store], Artifact]
    until: pipeline.Stage = "report"


SWEEP = Work(driver.check_and_prepare, driver.dry_run, driver.carry_out)


def up_to(stage: pipeline.Stage) -> Work:
    """The stages of a recipe up to one."""
    return Work(run.prepare, pipeline.dry_run, partial(pipeline.distill, until=stage), stage)


def main(description: str | None, work: Work) -> None:
    """Do a job's work on a recipe and print the artifact's address as the last line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="path of the recipe (TOML)")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="dotted overrides: teacher.tiny.num_chains=16"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be sampled, and start nothing")
    told = "with --dry-run: the file of a cluster, which is to have room for what the recipe asks of machines"
    parser.add_argument("--cluster", metavar="FILE", type=Path, help=told)
    arguments = parser.parse_intermixed_args()
    if arguments.cluster and not arguments.dry_run:
        parser.error("--cluster goes with --dry-run; to run on a cluster, submit the job to it")
    try:
        logs.configure(logs.asked_for())
        recipe = loading.load(arguments.recipe, arguments.overrides)
        logs.configure(replace(logs.current(), run=recipe.name))
        store = open_store(recipe.store)
        if arguments.dry_run:
            launched = read_launch(arguments.cluster) if arguments.cluster else live.launch()
            machines = [] if launched is None else forecast(recipe, launched, work.until)
            print("\n".join([*work.dry_run(recipe, store), *machines]), flush=True)
            # Not `return`: threads of native libraries, which have nothing left to do, may abort a normal exit.
            os._exit(0)
    except (ValueError, OSError) as error:
        logs.refuse(error)
        raise SystemExit(2) from None
    artifact = _carry_out(work, recipe, store)
    if artifact.manifest["stage"] == "report":
        print(f"report: {artifact.directory()}/index.html")
    print(f"artifact: {artifact.uri}")


def _carry_out(work: Work, recipe: Recipe, store: Store) -> Artifact:
    """Do it, seen by others and written down; what goes wrong before Ray has started is the user's, with status 2."""
    status = 2
    try:
        with present(store), Journal(store, recipe.name, logs.current().job) as journal:
            work.prepare(recipe, store)
            journal.ray_job = start_ray(store)
            status = 1
            with live.uptime(journal.machine_s):
                return work.carry_out(recipe, store)
    except KeyboardInterrupt:
        logs.refuse("interrupted; the same command goes on from here")
        raise SystemExit(130) from None
    except (ValueError, OSError, ImportError) as error:
        # Ray wraps what a task raises. Subclasses of ValueError are libraries' own, and so bugs.
        cause = getattr(error, "cause", error)
        if isinstance(cause, ValueError) and type(cause) is not ValueError:
            raise
        logger.debug("where it came from:", exc_info=True)
        logs.refuse(cause)
        raise SystemExit(status) from None


def start_ray(store: Store) -> str:
    """Join the cluster that RAY_ADDRESS names (a submitted job's own), or start Ray on this machine; its id of us.

    Raises:
        ValueError: a store that only this machine can reach, on a cluster of several.
    """
    if logs.current().is_json:  # Ray would put names before the lines of workers, and words behind those that repeat
        os.environ |= {"RAY_DISABLE_WORKER_LOG_PREFIX": "1", "RAY_DEDUP_LOGS": "0"}
    import ray

    address, environment = os.environ.get("RAY_ADDRESS"), live.for_workers()
    # Without an address Ray would join whatever cluster was last started on this machine, also one that has died.
    context = ray.init(
        address or "local",
        logging_level=logging.WARNING,
        runtime_env={"env_vars": environment} if environment else None,
    )
    if context.dashboard_url:
        logger.info("Ray's dashboard: http://%s", context.dashboard_url)
    if store.is_local and not live.shares(store.directory("")):
        raise ValueError(
            f"store {store.uri}: only one of the cluster's machines can reach it; expected one that all can: "
            f'store = "s3://…" in the recipe, or as an override'
        )
    pipeline.quieten_data()
    return ray.get_runtime_context().get_job_id()
