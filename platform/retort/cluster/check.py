"""`jobs/check_cluster.py`: what a cluster file still lacks, whether a recipe fits on it, and what an hour costs."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from retort import loading
from retort.cluster.demands import demands
from retort.cluster.nodes import Launch, NodeType, read_launch, told
from retort.cluster.prices import Prices, hourly, read_prices
from retort.cluster.room import capacity, unmet
from retort.store.inventory import table

PRICES = Path("cluster/prices.toml")


def cluster_commands(parser: argparse.ArgumentParser, arguments: list[str] | None) -> Iterator[str]:
    """The lines of the check; ends with status 1 where something is empty or has no room."""
    parser.add_argument("cluster", metavar="FILE", type=Path, help="a file of `ray up`, or a RayCluster manifest")
    about = "a recipe that is to run there, with its overrides"
    parser.add_argument("recipe", metavar="RECIPE", nargs="?", help=about)
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*")
    about = f"table of dollars an hour, to be edited (default {PRICES})"
    parser.add_argument("--prices", metavar="TABLE", type=Path, default=PRICES, help=about)
    given = parser.parse_intermixed_args(arguments)
    if given.cluster.is_dir():
        raise ValueError(
            f"cluster file {given.cluster}: a folder; expected a file, such as {given.cluster}/cluster.yaml"
        )
    launch, prices = read_launch(given.cluster), read_prices(given.prices)
    yield from _shown(launch, prices)
    yield from (f"still empty: {place}" for place in launch.unfilled)
    lacking: list[str] = []
    if given.recipe is not None:
        lacking = yield from _fitted(launch, given.recipe, given.overrides)
    yield from lacking
    if launch.unfilled or lacking:
        raise SystemExit(1)
    yield f"{given.cluster}: nothing is empty" + (", and the recipe can run" if given.recipe else "")


def _shown(launch: Launch, prices: Prices) -> Iterator[str]:
    """The node types, and what an hour of them costs."""
    each = {kind.name: hourly(kind, launch, prices) for kind in launch.types}
    rows = [
        [
            kind.name,
            kind.instance or "?",
            "spot" if kind.is_spot else "on demand",
            f"{kind.least}–{kind.most}",
            told(kind.resources),
            _dollars(each[kind.name]),
        ]
        for kind in launch.types
    ]
    yield from table(["node type", "instance", "market", "machines", "offers", "$/h each"], rows)
    if launch.provider == "kuberay":
        yield "an hour costs what the nodes below the pods do, which this manifest does not name"
        return
    least = sum(kind.least * (each[kind.name] or 0) for kind in launch.types)
    most = _at_most(launch, each)
    unpriced = [kind.name for kind in launch.types if each[kind.name] is None]
    if len(unpriced) == len(launch.types):
        yield f"an hour: not known, the table has no price for {launch.provider} {launch.region}".rstrip()
        return
    beside = f", and {', '.join(unpriced)}, for which the table has no price" if unpriced else ""
    yield f"an hour: ${_dollars(least)} at rest, ${_dollars(most)} with every machine{beside}"


def _at_most(launch: Launch, each: Mapping[str, float | None]) -> float:
    """Dollars an hour of as many machines as there may be at a time, the dearest first."""
    left, dollars = launch.most_workers, 0.0
    for kind in sorted(launch.types, key=lambda kind: each[kind.name] or 0, reverse=True):
        number = kind.most if kind.is_head or left is None else min(kind.most, left)
        dollars += number * (each[kind.name] or 0)
        left = left if kind.is_head or left is None else left - number
    return dollars


def _fitted(launch: Launch, path: str, overrides: Sequence[str]) -> Iterator[str]:
    """What a recipe asks for, and where it finds room; returned are the demands that find none."""
    recipe = loading.load(path, overrides)
    lacking: list[str] = []
    for demand in demands(recipe, any(kind.gpus for kind in launch.types)):
        fitting = [kind for kind in launch.types if kind.fits(demand.bundle)]
        wanted = demand.bundle.get("GPU", 0)
        few = [_with_gpus(kind) for kind in launch.types if kind.gpus < wanted]
        where = f"on {', '.join(kind.name for kind in fitting)}" if fitting else "nowhere"
        holds = capacity(demand.bundle, launch.types, launch.most_workers)
        where += f", {holds} at a time" if 0 < holds < demand.count else ""
        yield f"{demand.text}: {where}" + (f"; too few GPUs for one: {', '.join(few)}" if few else "")
        if (line := unmet(demand, launch.types, launch.most_workers)) is not None:
            lacking.append(line)
    return lacking


def _with_gpus(kind: NodeType) -> str:
    return f"{kind.name} ({kind.instance or 'unnamed'}, {kind.gpus:g} GPUs)"


def _dollars(amount: float | None) -> str:
    return "?" if amount is None else f"{amount:,.2f}"
