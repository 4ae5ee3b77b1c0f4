"""Room: whether machines of some types, as many as there may be, hold what a run asks for."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from retort.cluster.nodes import NodeType, told


@dataclass(frozen=True)
class Demand:
    """So many bundles of resources; no machine holds part of a bundle. At least `least` of them are held at once."""

    what: str
    """Who asks: `teacher tiny`."""
    bundle: Mapping[str, float]
    count: int
    least: int
    remedy: str
    """The settings that ask for less."""

    @property
    def text(self) -> str:
        """In words: `teacher tiny: 2 x (1 CPU, 8 GPU)`."""
        return f"{self.what}: {self.count} x ({told(self.bundle)})"


def capacity(bundle: Mapping[str, float], types: Iterable[NodeType], most_workers: int | None = None) -> int:
    """How many of a bundle machines of some types hold, when there are as many of each as there may be.

    `most_workers` bounds the machines of all types, but for the head's: those that hold more come first.
    """
    left = math.inf if most_workers is None else most_workers
    held = 0
    for kind in sorted(types, key=lambda kind: kind.fits(bundle), reverse=True):
        number = kind.most if kind.is_head else min(kind.most, left)
        held += int(kind.fits(bundle) * number)
        left -= 0 if kind.is_head else number
    return held


def unmet(demand: Demand, types: Sequence[NodeType], most_workers: int | None = None) -> str | None:
    """What a demand lacks even where every machine is there, in one line; None where it has room."""
    holds = capacity(demand.bundle, types, most_workers)
    if holds >= demand.least:
        return None
    kinds = "; ".join(f"{kind.name} {told(kind.resources)} (up to {kind.most})" for kind in types)
    has = f"there is room for {holds}" if holds else "no machine has room for one"
    limit = "" if most_workers is None else f", {most_workers} workers at most"
    return f"{demand.text}: {has} (machines: {kinds}{limit}); lower {demand.remedy}, or add machines"


def refuse_unmet(demands: Iterable[Demand], types: Sequence[NodeType], most_workers: int | None = None) -> None:
    """Raises ValueError with every demand that these machines can never meet, a line each."""
    lines = [line for demand in demands if (line := unmet(demand, types, most_workers)) is not None]
    if lines:
        raise ValueError("\n".join(lines))
