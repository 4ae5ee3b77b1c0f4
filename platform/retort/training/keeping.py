"""When a training saves its state: by the clock, and when a machine is about to be taken away."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from retort.training.progress import Progress
from retort.training.states import States

MOST_SAVING = 0.05
"""Share of the time that may go into saving states, where they are large."""
LOOK_EVERY_S = 5.0
"""Between two looks at whether a machine is about to be taken away, for which the workers wait for each other."""


@dataclass(frozen=True)
class Surroundings:
    """What a training has around it, where it has it."""

    states: States | None = None
    """Where it keeps states, and finds them again."""
    examine: Callable[[Any], tuple[int, int]] | None = None
    """This worker's share of the dev problems: how many the student answers right, and of how many."""
    is_ending: Callable[[], bool] = lambda: False
    """Whether this machine is about to be taken away; asked on all workers at once."""
    on_saved: Callable[[], None] = lambda: None
    """Hears of each state that is saved."""
    on_going_on: Callable[[], None] = lambda: None
    """Hears of it where the training goes on from a state."""


class Keeper:
    """Saves states of a training on all of its workers at once.

    Their clocks differ: each has wishes, which are exchanged with the loss of a step, and what one wishes is done by
    all.
    """

    def __init__(self, around: Surroundings, save_every_s: float) -> None:
        self._around, self._every_s = around, save_every_s
        self._pause_s = save_every_s
        self._saved_at = self._looked_at = time.monotonic()
        self._is_ending = False

    @property
    def wishes(self) -> tuple[bool, bool]:
        """To save, and to look whether a machine is about to go."""
        now = time.monotonic()
        return now - self._saved_at >= self._pause_s, now - self._looked_at >= LOOK_EVERY_S

    def keep(self, progress: Progress, wished: Sequence[bool], save: Callable[[States, Progress], None]) -> None:
        """Save if that is wished for, or a machine is about to go."""
        is_due, looks = wished
        if self._around.states is None:
            return
        if looks:
            self._looked_at = time.monotonic()
            was_ending, self._is_ending = self._is_ending, self._around.is_ending()
            is_due = is_due or (self._is_ending and not was_ending)  # once: the end may be an hour away
        if is_due:
            began = time.monotonic()
            save(self._around.states, progress)
            self._around.on_saved()
            self._saved_at = time.monotonic()
            self._pause_s = self._every_s and max(self._every_s, (self._saved_at - began) / MOST_SAVING)
