"""Room: whether machines of some types, as many as there may be, hold what a run asks for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from retort.cluster.nodes import NodeType, told


@dataclass(frozen=True)
class Demand:
    """So many bundles of resources, all of them at once; no machine holds part of a bundle."""

    what: str
    """Who asks: `teacher tiny`."""
    bundle: Mapping[str, float]
    count: int
    remedy: str
    """The settings that ask for less."""

    @property
    def text(self) -> str:
        """In words: `teacher tiny: 2 x (1 CPU, 8 GPU)`."""
        return f"{self.what}: {self.count} x ({told(self.bundle)})"


def capacity(bundle: Mapping[str, float], types: Iterable[NodeType]) -> int:
    """How many of a bundle machines of some types hold, when there are as many of each as there may be."""
    return sum(kind.fits(bundle) * kind.most for kind in types)


def unmet(demand: Demand, types: Sequence[NodeType]) -> str | None:
    """What a demand lacks even where every machine is there, in one line; None where it has room."""
    holds = capacity(demand.bundle, types)
    if holds >= demand.count:
        return None
    kinds = "; ".join(f"{kind.name} {told(kind.resources)} (up to {kind.most})" for kind in types)
    has = f"there is room for {holds}" if holds else "no machine has room for one"
    return f"{demand.text}: {has} (machines: {kinds}); lower {demand.remedy}, or add machines"


def refuse_unmet(demands: Iterable[Demand], types: Sequence[NodeType]) -> None:
    """Raises ValueError with every demand that these machines can never meet, a line each."""
    lines = [line for demand in demands if (line := unmet(demand, types)) is not None]
    if lines:
        raise ValueError("\n".join(lines))
