"""An engine without a model, for benchmarks that count what sampling asks, writes and reads, and not how fast.

Chains have the lengths of `workload.ending`, take their time, and are made of words of sums: one a token. Each request
is written down at the seam, with the tokens that it cost; and where a folder is given for that, when it was open.
"""

import asyncio
import json
import os
import random
import struct
import time
from pathlib import Path

from workload import Lengths, ending

from retort.engines.interface import Completion, EngineConfig, SamplingDistribution
from retort.prompts import Messages
from retort.records import Request

WORDS = (*(f" {number}" for number in range(100)), " +", " -", " *", " /", " =", " so", " then", " and", " gives", ".")

SPAN = struct.Struct("dd")

Asked = tuple[str, int, int]
"""One request as the engine saw it: prompt hash, index, and the tokens that it cost."""


class Config(EngineConfig):
    """How long its chains are, how long they take, and where its requests are written down."""

    log: str = ""
    """Empty: they are not written down."""
    spans: str = ""
    """A folder, in which each engine leaves a file of the times at which its requests began and ended."""
    actors: int = 1
    lengths: Lengths = "heavy"
    words_per_token: int = 1
    token_s: float = 0.0
    open_requests: int = 320
    """As many as vLLM is handed with its default of 256 sequences."""

    def identity(self) -> dict[str, str]:
        return {"model": f"made up, {self.lengths}", "quantization": "none"}

    @property
    def num_actors(self) -> int:
        return self.actors

    @property
    def capacity(self) -> int:
        return self.open_requests


class Engine:
    """Answers without a model."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._spans: int | None = None
        self.num_tokens = 0

    async def start(self) -> None:
        return

    async def complete(
        self, prompt: str | Messages, request: Request, distribution: SamplingDistribution
    ) -> Completion:
        del distribution
        began = time.time()
        tokens, reason = ending(request, self._config.lengths)
        if self._config.log:
            self._note(request, tokens)
        await asyncio.sleep(tokens * self._config.token_s)
        self.num_tokens += tokens
        text = "".join(random.Random(request.seed).choices(WORDS, k=tokens * self._config.words_per_token))
        if self._config.spans:
            self._note_span(began)
        return Completion(text, reason, num_prompt_tokens=len(prompt), num_tokens=tokens)

    def close(self) -> None:
        return

    def _note(self, request: Request, tokens: int) -> None:
        descriptor = os.open(self._config.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, (json.dumps([request.prompt_hash, request.index, tokens]) + "\n").encode())
        os.close(descriptor)

    def _note_span(self, began: float) -> None:
        if self._spans is None:
            path = Path(self._config.spans, f"{os.getpid()}-{id(self):x}")
            path.parent.mkdir(parents=True, exist_ok=True)
            self._spans = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.write(self._spans, SPAN.pack(began, time.time()))


def spans_of(folder: Path) -> list[list[tuple[float, float]]]:
    """Of each engine, when its requests began and ended, in the order in which they ended."""
    return [list(SPAN.iter_unpack(path.read_bytes())) for path in sorted(folder.iterdir())]


def asked(log: Path) -> list[Asked]:
    """Every request so far."""
    return [tuple(json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []
