"""Engines that write down, at the seam, what they were asked and what they gave: a line each, synced before it counts.

The tests' own record of what was paid for, independent of the pool's word. Times are of the monotonic clock, which all
processes of a machine share and no step of the wall clock moves.
"""

import asyncio
import hashlib
import json
import os
import random
import time
from pathlib import Path
from typing import NamedTuple

from retort.engines import replay, vllm
from retort.engines.interface import Completion, SamplingDistribution
from retort.prompts import Messages
from retort.records import Request

LOG = "RETORT_SEAM_LOG"
NAME = "RETORT_SEAM_NAME"
"""Environment variables: the file, and the name of the job that asks."""
UNTIL = "RETORT_SEAM_UNTIL"
"""The stage up to which a job goes; `sample` where it is not set."""
OPEN_REQUESTS = 64
"""What the replay engine is handed at once: some 60 chains a second, so that a job of some hundred lasts a while."""
LONGEST_S = 6.0


class Line(NamedTuple):
    """One event of one request; `text` is a hash of what came back."""

    event: str
    key: str
    at_s: float
    job: str
    pid: int
    text: str


def note(event: str, request: Request, text: str = "") -> None:
    """Append a synced line. Lines are short, so that appends of several processes do not mix."""
    key = f"{request.prompt_hash}/{request.index}"
    line = Line(event, key, time.monotonic(), os.environ[NAME], os.getpid(), digest(text))
    descriptor = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, (json.dumps(line) + "\n").encode())
    os.fsync(descriptor)
    os.close(descriptor)


def digest(text: str) -> str:
    """What the log keeps of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Log:
    """The log as a test reads it, on and on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: list[Line] = []
        self._offset = 0

    def lines(self) -> list[Line]:
        """The lines written so far; one that a kill cut off is passed over."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._offset)
                whole, end, _ = file.read().rpartition(b"\n")
            self._offset += len(whole) + len(end)
            self._lines += [Line(*json.loads(line)) for line in whole.splitlines() if line.endswith(b"]")]
        return self._lines


class ReplayConfig(replay.Config):
    """A recording that is played back by an engine with few seats."""

    @property
    def capacity(self) -> int:
        return OPEN_REQUESTS


class LoggedReplay(replay.Engine):
    """Recorded completions that take their time, some much longer than others."""

    async def complete(
        self, prompt: str | Messages, request: Request, distribution: SamplingDistribution
    ) -> Completion | None:
        note("asked", request)
        await asyncio.sleep(min(random.Random(request.seed).lognormvariate(-0.5, 1.0), LONGEST_S))
        completion = await super().complete(prompt, request, distribution)
        note("finished", request, completion.text if completion else "")
        return completion


class LoggedVllm(vllm.Engine):
    """The real engine."""

    async def complete(
        self, prompt: str | Messages, request: Request, distribution: SamplingDistribution
    ) -> Completion:
        note("asked", request)
        completion = await super().complete(prompt, request, distribution)
        note("finished", request, completion.text)
        return completion
