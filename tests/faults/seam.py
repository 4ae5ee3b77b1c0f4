"""Engines that write down, at the seam, what they were asked and what they gave: a line each, synced before it counts.

The tests' own record of what was paid for, independent of the pool's word.
"""

import asyncio
import hashlib
import json
import os
import random
import time
from pathlib import Path

from retort.engines import replay, vllm
from retort.engines.interface import Completion, SamplingDistribution
from retort.prompts import Messages
from retort.records import Request

LOG = "RETORT_SEAM_LOG"


def note(event: str, request: Request, text: str = "") -> None:
    """Append a synced line. Lines are short, so that appends of several processes do not mix."""
    line = {
        "event": event,
        "key": f"{request.prompt_hash}/{request.index}",
        "at_s": time.time(),
        "text": hashlib.sha256(text.encode()).hexdigest()[:16],
    }
    descriptor = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, (json.dumps(line) + "\n").encode())
    os.fsync(descriptor)
    os.close(descriptor)


def read(log: Path) -> list[dict[str, str | float]]:
    """The lines written so far; a last line cut off by a kill is left out."""
    if not log.exists():
        return []
    return [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]


class LoggedReplay(replay.Engine):
    """Recorded completions that take their time, some much longer than others."""

    async def complete(
        self, prompt: str | Messages, request: Request, distribution: SamplingDistribution
    ) -> Completion | None:
        note("asked", request)
        await asyncio.sleep(random.Random(request.seed).lognormvariate(0.0, 1.0))
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
