"""A job to be hurt: `python tests/faults/driver.py RECIPE` samples a recipe with engines that log at the seam."""

import sys
from types import SimpleNamespace

import seam

from retort import command
from retort.engines import ENGINES, vllm

if __name__ == "__main__":
    ENGINES["replay"] = SimpleNamespace(Config=seam.ReplayConfig, Engine=seam.LoggedReplay, SEEDING="none")  # type: ignore[assignment]
    ENGINES["vllm"] = SimpleNamespace(Config=vllm.Config, Engine=seam.LoggedVllm, SEEDING="exact")  # type: ignore[assignment]
    sys.argv[0] = "sample"
    command.main("sample, logged", until="sample")
