"""States of a training that has not ended, from which it goes on after it died.

    artifacts/checkpoint/3fa94c…/state/00000400.pt      weights, optimiser, curve and best weights after step 400

They lie beside the checkpoint that the training is to become, so that the same command finds them, on whatever machine,
and gc takes them for what they are where it never comes. A state is written to this machine at once, and goes to the
store in the background, where an object is there as a whole or not at all; failed transfers are tried again there.
"""

import errno
import io
import logging
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import torch

from retort.store import Store, address

logger = logging.getLogger(__name__)
FORMAT = 1
KEPT = 2
"""States that stay: the last, and the one before it, for the case that the last is damaged."""

FOLDER = "retort-state-"
"""Begin of the name of a folder on this machine in which a state waits for its transfer; the number of its process
follows."""
ASIDE = ".damaged"

State = dict[str, Any]
"""What `loop.Trainee.save` makes: tensors, numbers, texts, and lists and tables of these."""


def clear_left_over() -> None:
    """Remove the folders of processes that were killed during a transfer: of large students a few fill a disk."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER}*-*"):
        pid = folder.name.removeprefix(FOLDER).partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


class States:
    """The states of one training. The first worker saves; all load."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store, self._prefix = store, f"{prefix}state/"
        self._kept: list[str] = []
        self._uploading: Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, "states")
        clear_left_over()

    def newest(self) -> State | None:
        """The state with the most steps, or None where there is none."""
        keys = [key for key in self._store.keys(self._prefix) if not key.endswith(ASIDE)]
        while keys:
            key = keys.pop()
            try:
                state = self._read(key)
            except FileNotFoundError:
                continue
            except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
                if "allocat" in str(error):  # torch had too little memory: nothing is wrong with the state
                    raise
                told, aside = " ".join(str(error).split())[:100], f"{key}{ASIDE}"
                where = address(self._store, key)
                logger.warning("%s cannot be read (%s) and is set aside; the state before it is taken", where, told)
                self._store.move(key, aside)  # its place is needed
                continue
            self._kept = [*keys, key]
            if state.get("format") != FORMAT:
                raise ValueError(
                    f"{address(self._store, key)}: format {state.get('format')!r}; expected {FORMAT}; go on with the "
                    f"release that wrote it, or delete it to start anew"
                )
            return state
        return None

    def _read(self, key: str) -> State:
        return torch.load(io.BytesIO(self._store.get(key)), weights_only=True)

    def save(self, step: int, state: State) -> None:
        """Keep a state, and drop those before the last; returns while it is on its way to the store.

        Raises:
            OSError: this one found no place, or the one before did not reach the store.
        """
        self.wait()
        folder = tempfile.TemporaryDirectory(prefix=f"{FOLDER}{os.getpid()}-")
        path = Path(folder.name, f"{step:08d}.pt")
        try:
            torch.save({"format": FORMAT, **state}, path)
        except RuntimeError as error:  # of a full disk torch tells so
            folder.cleanup()
            told = f"the state of step {step} cannot be written to {path.parent.parent}: {error}"
            raise OSError(errno.ENOSPC, told) from error
        self._uploading = self._thread.submit(self._upload, path, folder.cleanup)

    def _upload(self, path: Path, clean_up: Callable[[], None]) -> None:
        key = f"{self._prefix}{path.name}"
        try:
            self._store.put_file(key, path)
        finally:
            clean_up()
        # Not those that another driver may have written: only what was there, or came from here.
        self._kept.append(key)
        while len(self._kept) > KEPT:
            self._store.delete(self._kept.pop(0))

    def wait(self) -> None:
        """Wait for the last state to be in the store. Raises what kept it from getting there."""
        if self._uploading is not None:
            uploading, self._uploading = self._uploading, None
            try:
                uploading.result()
            except OSError as error:
                told = f"a state could not be kept in {address(self._store, self._prefix)}: {error.strerror or error}"
                raise OSError(
                    error.errno, f"{told}; make room and run again: it goes on from the last that is there"
                ) from error

    def close(self) -> None:
        """Wait for what is on its way, whatever becomes of it."""
        self._thread.shutdown(wait=True)

    def forget(self) -> None:
        """Delete all states: the training has become a checkpoint."""
        for key in self._store.keys(self._prefix):
            self._store.delete(key)
