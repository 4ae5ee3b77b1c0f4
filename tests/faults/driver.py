"""A job to be hurt: `python tests/faults/driver.py RECIPE` samples or sweeps with engines that log at the seam; or goes
as far as the environment says.
"""

import os
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import seam

from retort import command
from retort.engines import ENGINES, vllm

if __name__ == "__main__":
    ENGINES["replay"] = SimpleNamespace(Config=seam.ReplayConfig, Engine=seam.LoggedReplay, SEEDING="none")  # type: ignore[assignment]
    ENGINES["vllm"] = SimpleNamespace(Config=vllm.Config, Engine=seam.LoggedVllm, SEEDING="exact")  # type: ignore[assignment]
    is_sweep = tomllib.loads(Path(sys.argv[1]).read_text()).get("sweep") is not None
    until: Any = os.environ.get(seam.UNTIL, "sample")
    sys.argv[0] = "sweep" if is_sweep else until
    command.main("logged", command.SWEEP if is_sweep else command.up_to(until))
