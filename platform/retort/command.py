"""The command line that the jobs share: a recipe, overrides, and how far to go.

Wrong input ends with exit status 2 and one line, before Ray starts.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from retort import loading, pipeline, run
from retort.cluster import live
from retort.cluster.demands import forecast
from retort.cluster.nodes import read_launch
from retort.config import Recipe
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
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("botocore").setLevel(logging.WARNING)  # it says where it found credentials, each time
    try:
        recipe = loading.load(arguments.recipe, arguments.overrides)
        store = open_store(recipe.store)
        if arguments.dry_run:
            launched = read_launch(arguments.cluster) if arguments.cluster else live.launch()
            machines = [] if launched is None else forecast(recipe, launched, work.until)
            print("\n".join([*work.dry_run(recipe, store), *machines]), flush=True)
            # Not `return`: threads of native libraries, which have nothing left to do, may abort a normal exit.
            os._exit(0)
        work.prepare(recipe, store)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    try:
        start_ray(store)
        with present(store):
            artifact = work.carry_out(recipe, store)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None
    except (ValueError, OSError, ImportError) as error:
        # Ray wraps what a task raises. Subclasses of ValueError are libraries' own, and so bugs.
        cause = getattr(error, "cause", error)
        if isinstance(cause, ValueError) and type(cause) is not ValueError:
            raise
        logger.debug("where it came from:", exc_info=True)
        print(cause, file=sys.stderr)
        raise SystemExit(1) from None
    if artifact.manifest["stage"] == "report":
        print(f"report: {artifact.directory()}/index.html")
    print(f"artifact: {artifact.uri}")


def start_ray(store: Store) -> None:
    """Join the cluster that RAY_ADDRESS names (a submitted job's own), or start Ray on this machine.

    Raises:
        SystemExit: a store that only this machine can reach, on a cluster of several.
    """
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
    if store.is_local and live.has_other_machines():
        print(
            f"store {store.uri}: only one of the cluster's machines can reach it; expected one that all can: "
            f'store = "s3://…" in the recipe, or as an override',
            file=sys.stderr,
        )
        raise SystemExit(2)
    pipeline.quieten_data()
