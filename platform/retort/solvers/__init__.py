"""Solvers: a program or a system of equations that a model wrote in, its value or the reason why there is none out.

Model text is hostile: nothing here evaluates it in this process. `zygote` holds the sandbox that runs it, `program` and
`equations` answer what can be answered without running anything.
"""

from typing import NamedTuple


class Outcome(NamedTuple):
    """What became of a model's text: a value as text, or the reason why there is none. One of the two is None."""

    value: str | None
    reason: str | None
