"""States of a training that has not ended, from which it goes on after it died.

    artifacts/checkpoint/3fa94c…/state/00000400.pt      weights, optimiser, curve and best weights after step 400

They lie beside the checkpoint that the training is to become, so that the same command finds them, on whatever machine,
and gc takes them for what they are where it never comes. A state is written to this machine at once, and goes to the
store in the background, where an object is there as a whole or not at all; failed transfers are tried again there.
"""

import io
import logging
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from retort.store import Store, address

logger = logging.getLogger(__name__)
FORMAT = 1

State = dict[str, Any]
"""`step`, `weights`, `optimizer`, `curve`, `best` and `best_weights`: tensors, numbers, texts, and lists of these."""


class States:
    """The states of one training. The first worker saves; all load."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store, self._prefix = store, f"{prefix}state/"
        self._uploading: Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, "states")

    def newest(self) -> State | None:
        """The state with the most steps, or None where there is none."""
        keys = [key for key in self._store.keys(self._prefix) if key.endswith(".pt")]
        for key in reversed(keys):
            try:
                state = self._read(key)
            except (RuntimeError, EOFError, ValueError, FileNotFoundError) as error:
                told = " ".join(str(error).split())[:200]
                logger.warning("%s cannot be read (%s); the state before it is taken", address(self._store, key), told)
                continue
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
        folder = tempfile.TemporaryDirectory(prefix="retort-state-")
        path = Path(folder.name, f"{step:08d}.pt")
        try:
            torch.save({"format": FORMAT, **state}, path)
        except RuntimeError as error:  # of a full disk torch tells so
            folder.cleanup()
            raise OSError(f"the state of step {step} cannot be written to {path.parent.parent}: {error}") from error
        self._uploading = self._thread.submit(self._upload, path, folder.cleanup)

    def _upload(self, path: Path, clean_up: Callable[[], None]) -> None:
        try:
            self._store.put_file(f"{self._prefix}{path.name}", path)
        finally:
            clean_up()
        for key in self._store.keys(self._prefix)[:-2]:
            self._store.delete(key)

    def wait(self) -> None:
        """Wait for the last state to be in the store. Raises what kept it from getting there."""
        if self._uploading is not None:
            uploading, self._uploading = self._uploading, None
            uploading.result()

    def close(self) -> None:
        """Wait for what is on its way, whatever becomes of it."""
        self._thread.shutdown(wait=True)

    def forget(self) -> None:
        """Delete all states: the training has become a checkpoint."""
        for key in self._store.keys(self._prefix):
            self._store.delete(key)
