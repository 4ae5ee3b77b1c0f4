"""An engine for tests: a recording that writes down every request, may take its time, and cuts chains off."""

import asyncio
import json
import os
from pathlib import Path

from retort.engines import replay
from retort.engines.interface import Completion, SamplingDistribution, Seeding
from retort.prompts import Messages
from retort.records import Request

SEEDING: Seeding = "none"


class Config(replay.Config):
    """Of a recording; `log` is where requests are written down."""

    log: str
    seconds: float = 0.0
    slow_problem: str = ""
    """The problem whose first chain takes `slow_s`."""
    slow_s: float = 0.0
    length: int = 0
    """Tokens of every third chain, which a smaller budget cuts off."""
    dies_at: int = 0
    """The request, of all that were written down, at which the process ends."""
    actors: int = 1

    @property
    def num_actors(self) -> int:
        return self.actors


class Engine(replay.Engine):
    """The recording."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._config = config

    async def complete(
        self, prompt: str | Messages, request: Request, distribution: SamplingDistribution
    ) -> Completion | None:
        line = json.dumps([request.prompt_hash, request.index, request.thought, request.max_new_tokens]) + "\n"
        descriptor = os.open(self._config.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line.encode())
        os.close(descriptor)
        if self._config.dies_at and len(calls(Path(self._config.log))) == self._config.dies_at:
            os._exit(1)
        is_slow = request.problem_id == self._config.slow_problem and request.index == 0
        await asyncio.sleep(self._config.slow_s if is_slow else self._config.seconds)
        completion = await super().complete(prompt, request, distribution)
        if completion is None:
            return None
        tokens = self._config.length if request.index % 3 == 0 else 5
        if tokens > request.max_new_tokens:
            return Completion("cut", "length", 3, request.max_new_tokens)
        return completion._replace(num_prompt_tokens=3, num_tokens=tokens)


def calls(log: Path) -> list[tuple[str, int, str, int]]:
    """(prompt hash, index, thought, budget) of every request so far, sorted."""
    return sorted(tuple(json.loads(line)) for line in log.read_text().splitlines()) if log.exists() else []
