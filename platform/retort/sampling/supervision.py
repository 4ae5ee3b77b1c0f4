"""Supervision: an engine that dies or falls silent is replaced, and what it was asked is asked of the new one.

`Supervised` is an engine in front of an engine. It hands over as many requests as the engine can use, so that any
number may wait outside, and keeps the times that say how well the engine was used.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from retort.engines.interface import Completion, Engine, EngineDiedError, SamplingDistribution
from retort.metrics import SamplerMetrics
from retort.prompts import Messages
from retort.records import Request

logger = logging.getLogger(__name__)
MAX_FRUITLESS = 3
"""Engines in a row that end before they complete anything: then it is not chance, and the job ends."""
START_S = 3600.0
"""What an engine may take to load its model, downloads included: longer, and it hangs."""
MAX_DEATHS = 5
"""Engines that may end over one request, which may be what ends them."""


@dataclass
class Usage:
    """How the engines of one actor were used: seconds with an engine loaded, and of these with a request open."""

    engine_s: float = 0.0
    busy_s: float = 0.0
    engine_starts: int = 0
    stalls: int = 0
    replacements: int = 0


@dataclass
class _Life:
    """One engine from its start to its end; `ended` says why, once it is found dead or silent."""

    engine: Engine
    ended: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    has_completed: bool = False

    async def ask(
        self, prompt: str | Messages, request: Request, distribution: SamplingDistribution
    ) -> Completion | None:
        """The engine's answer. Raises EngineDiedError as soon as the engine is given up, whatever it is doing."""
        asked = asyncio.ensure_future(self.engine.complete(prompt, request, distribution))
        try:
            await asyncio.wait((asked, self.ended), return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise EngineDiedError(self.ended.result())
            completion = asked.result()
        finally:
            asked.cancel()
        self.has_completed = True
        return completion


class Supervised:
    """An engine that outlives its processes. Lives in one event loop."""

    def __init__(self, make: Callable[[], Engine], capacity: int, stall_s: float, metrics: SamplerMetrics) -> None:
        self._make, self._stall_s, self._metrics = make, stall_s, metrics
        self._slots = asyncio.Semaphore(capacity)
        self._starting: asyncio.Task[_Life] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._fruitless = 0
        self._given_up: Exception | None = None
        self.first_asked_s = math.inf
        self._num_open = 0
        self._opened_at = 0.0
        self._ticked_at = time.monotonic()
        self._usage = Usage()
        self._is_up = False

    async def complete(
        self, prompt: str | Messages, request: Request, distribution: SamplingDistribution
    ) -> Completion | None:
        """What the engine says, or the one that takes its place. Raises what an engine raises of a request."""
        deaths = 0
        async with self._slots:
            self._open(1)
            try:
                while True:
                    if self._given_up is not None:
                        raise self._given_up
                    if self._starting is None:
                        self._starting = asyncio.create_task(self._start())
                    started = self._starting
                    try:
                        # Shielded: a request that is given up must not take the engine's start with it.
                        life = await asyncio.shield(started)
                        self.first_asked_s = min(self.first_asked_s, time.monotonic())
                        return await life.ask(prompt, request, distribution)
                    except EngineDiedError as error:
                        self._replace(started, error)
                        deaths += 1
                        if deaths == MAX_DEATHS:
                            error.add_note(f"{deaths} engines ended over {request.problem_id}, chain {request.index}")
                            raise
            finally:
                self._open(-1)

    def give_up(self, error: Exception) -> None:
        """Ask nothing more: whoever still waits for a slot gets this error, requests that are open go on."""
        self._given_up = self._given_up or error

    def usage(self) -> Usage:
        """Up to the last event, of which there is one a second at least."""
        return self._usage

    @property
    def num_open(self) -> int:
        """Requests that it has been asked and has not answered."""
        return self._num_open

    def close(self) -> None:
        """End the engine; a start that is under way ends with its process."""
        if self._starting is not None and self._starting.done() and self._starting.exception() is None:
            self._starting.result().engine.close()

    async def _start(self) -> _Life:
        if self._closing is not None:
            await self._closing
        self._usage.engine_starts += 1
        self._metrics.engine_started()
        life = _Life(self._make())
        try:
            await asyncio.wait_for(life.engine.start(), START_S)
        except TimeoutError as error:
            self._closing = asyncio.create_task(asyncio.to_thread(life.engine.close))
            raise EngineDiedError(f"the engine did not start within {START_S:g} s") from error
        self._tick()
        self._is_up = True
        self._watching = asyncio.create_task(self._watch(life))
        return life

    def _replace(self, started: asyncio.Task[_Life], error: EngineDiedError) -> None:
        """Give an engine up, once for all its requests; and all of them, where new engines do not help."""
        if started is not self._starting:
            return
        self._tick()
        self._starting, self._is_up = None, False
        life = started.result() if started.exception() is None else None
        self._fruitless = 0 if life is not None and life.has_completed else self._fruitless + 1
        if life is not None:
            if not life.ended.done():
                life.ended.set_result(str(error))
            self._closing = asyncio.create_task(asyncio.to_thread(life.engine.close))
        if self._fruitless >= MAX_FRUITLESS:
            error.add_note(f"{MAX_FRUITLESS} engines in a row ended before they completed anything")
            self.give_up(error)
            return
        self._usage.replacements += 1
        self._metrics.replaced()
        logger.warning("the engine is replaced, %d open requests are asked again: %s", self._num_open, error)

    async def _watch(self, life: _Life) -> None:
        """Give up an engine that has open requests and generates nothing for `stall_s`."""
        seen, since = life.engine.num_tokens, time.monotonic()
        while not life.ended.done():
            await asyncio.sleep(min(1.0, self._stall_s / 4))
            self._tick()
            now, tokens = time.monotonic(), life.engine.num_tokens
            if tokens is None or tokens != seen or self._num_open == 0:
                seen, since = tokens, now
            elif now - max(since, self._opened_at) > self._stall_s and not life.ended.done():
                self._usage.stalls += 1
                self._metrics.stalled()
                life.ended.set_result(f"no token for {self._stall_s:g} s with {self._num_open} requests open")

    def _open(self, change: int) -> None:
        self._tick()
        if self._num_open == 0:
            self._opened_at = time.monotonic()
        self._num_open += change

    def _tick(self) -> None:
        """Add the time since the last look to what it was: idle or busy, with an engine or without."""
        now = time.monotonic()
        if self._is_up:
            self._usage.engine_s += now - self._ticked_at
            self._usage.busy_s += (now - self._ticked_at) * (self._num_open > 0)
        self._ticked_at = now
