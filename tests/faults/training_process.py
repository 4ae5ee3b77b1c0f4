"""A training in a process of its own, which says each step that it has taken, and which can be killed.

Forked from a server that has imported all that it needs, so that a hundred of them cost no more than their steps.
"""

import multiprocessing
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from retort.store import Store
from retort.training import loop, trainer
from retort.training.trainer import Training

FORKS: Any = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "peft",
        "retort.training.examining",
        "retort.training.loop",
        "retort.training.trainer",
        "transformers.models.auto.modeling_auto",
        "transformers.models.auto.tokenization_auto",
        "transformers.models.llama.modeling_llama",
    ]
)


def run(training: Training, store: Store, directory: Path, told: Connection) -> None:
    """Train, on one thread; say each step's number once it is taken."""
    torch.set_num_threads(1)
    see = trainer._Told.see

    def see_and_tell(self: Any, row: loop.StepMetrics) -> None:
        see(self, row)
        told.send(row.step)

    trainer._Told.see = see_and_tell
    directory.mkdir(exist_ok=True)
    trainer.train_and_save(training, directory, torch.device("cpu"), store)
    told.send(None)


class Process:
    """A training that was started."""

    def __init__(self, training: Training, store: Store, directory: Path) -> None:
        self._ear, mouth = FORKS.Pipe(duplex=False)
        config = training.config.model_copy(update={"num_workers": 0})
        self._process = FORKS.Process(target=run, args=(replace(training, config=config), store, directory, mouth))
        self._process.start()
        mouth.close()

    def wait_for(self, steps: int) -> int | None:
        """Wait until it has taken so many steps since it started; the number of the last, None if it has ended."""
        step = None
        for _ in range(steps):
            try:
                step = self._ear.recv()
            except EOFError:
                raise AssertionError(f"it failed with {self._process.exitcode}") from None
            if step is None:
                self._process.join()
                return None
        return step

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.join()
        self._ear.close()
