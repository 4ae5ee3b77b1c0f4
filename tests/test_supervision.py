"""Supervision: an engine that dies or falls silent is replaced, once, and every open request is answered in the end."""

import asyncio
import time

import pytest

from retort.engines.interface import (
    Completion,
    EngineDiedError,
    PromptTooLongError,
    SamplingDistribution,
)
from retort.metrics import SamplerMetrics
from retort.prompts import Messages
from retort.records import Request
from retort.sampling import supervision
from retort.sampling.supervision import MAX_FRUITLESS, Supervised

DISTRIBUTION = SamplingDistribution(temperature=1.0)
REQUESTS = [Request("a" * 64, index, '"Q"', index, 8, "t/train/0", "cot", "Q") for index in range(40)]


class Mortal:
    """An engine with a script: it answers `answers` requests, 10 ms each, and then dies, falls silent or goes on."""

    def __init__(self, answers: int | None, end: str = "dies", log: list[str] | None = None) -> None:
        self._left, self._end, self._log = answers, end, log if log is not None else []
        self._tokens = self.open = self.most_open = 0

    @property
    def num_tokens(self) -> int:
        return self._tokens

    async def start(self) -> None:
        self._log.append("start")
        if self._end == "dies at its start":
            raise EngineDiedError("no memory")

    async def complete(
        self, prompt: str | Messages, request: Request, distribution: SamplingDistribution
    ) -> Completion | None:
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        try:
            await asyncio.sleep(0.01)
            if self._left == 0:
                if self._end == "falls silent":
                    await asyncio.sleep(3600)
                raise EngineDiedError("killed")
            if self._left is not None:
                self._left -= 1
            self._tokens += 1
            return Completion(str(request.index), "stop", 1, 1)
        finally:
            self.open -= 1

    def close(self) -> None:
        self._log.append("close")


def supervise(engines: list[Mortal], capacity: int = 8) -> Supervised:
    return Supervised(iter(engines).__next__, capacity, stall_s=0.4, metrics=SamplerMetrics("test"))


async def ask_all(supervised: Supervised) -> list[str]:
    asked = (supervised.complete("Q", request, DISTRIBUTION) for request in REQUESTS)
    return [completion.text for completion in await asyncio.gather(*asked) if completion is not None]


@pytest.mark.parametrize("end", ["dies", "falls silent"])
def test_an_engine_that_ends_is_replaced_and_every_request_is_answered(end: str) -> None:
    async def check() -> None:
        log: list[str] = []
        supervised = supervise([Mortal(7, end, log), Mortal(9, end, log), Mortal(None, log=log)])
        assert await ask_all(supervised) == [str(index) for index in range(40)]
        usage = supervised.usage()
        assert (usage.engine_starts, usage.replacements) == (3, 2)
        assert usage.stalls == (2 if end == "falls silent" else 0)
        assert log == ["start", "close", "start", "close", "start"], "one engine at a time"
        supervised.close()
        assert log[-1] == "close"

    asyncio.run(check())


def test_a_silent_engine_is_given_time_and_an_idle_one_is_left_alone() -> None:
    async def check() -> None:
        supervised = supervise([Mortal(40, "falls silent"), Mortal(None)])
        await ask_all(supervised)
        await asyncio.sleep(1.0)
        assert supervised.usage().replacements == 0, "it was silent because nobody asked"
        began = time.monotonic()
        await supervised.complete("Q", REQUESTS[0], DISTRIBUTION)
        assert time.monotonic() - began >= 0.4
        assert supervised.usage().stalls == 1

    asyncio.run(check())


def test_engines_that_never_complete_anything_end_the_job() -> None:
    async def check(end: str) -> int:
        log: list[str] = []
        supervised = supervise([Mortal(0, end, log) for _ in range(10)])
        with pytest.raises(EngineDiedError) as died:
            await ask_all(supervised)
        assert "in a row" in died.value.__notes__[0]
        return log.count("start")

    assert asyncio.run(check("dies")) == MAX_FRUITLESS
    assert asyncio.run(check("dies at its start")) == MAX_FRUITLESS


def test_an_engine_that_never_comes_up_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hung(Mortal):
        async def start(self) -> None:
            await super().start()
            await asyncio.sleep(3600)

    async def check() -> list[str]:
        log: list[str] = []
        supervised = supervise([Hung(0, log=log), Mortal(None, log=log)])
        assert await ask_all(supervised) == [str(index) for index in range(40)]
        return log

    monkeypatch.setattr(supervision, "START_S", 0.3)
    assert asyncio.run(check()) == ["start", "close", "start"]


def test_an_engine_is_never_handed_more_than_its_capacity() -> None:
    async def check() -> None:
        engine = Mortal(None)
        supervised = supervise([engine], capacity=5)
        await ask_all(supervised)
        assert engine.most_open == 5

    asyncio.run(check())


def test_what_a_request_did_wrong_is_its_own_matter() -> None:
    class Strict(Mortal):
        async def complete(self, prompt, request, distribution):
            if request.index == 3:
                raise PromptTooLongError("too long")
            return await super().complete(prompt, request, distribution)

    async def check() -> None:
        supervised = supervise([Strict(None)])
        asked = (supervised.complete("Q", request, DISTRIBUTION) for request in REQUESTS)
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert [isinstance(outcome, PromptTooLongError) for outcome in outcomes] == [i == 3 for i in range(40)]
        assert supervised.usage().replacements == 0

    asyncio.run(check())


def test_busy_time_is_the_time_with_requests_open() -> None:
    async def check() -> None:
        supervised = supervise([Mortal(None)])
        await ask_all(supervised)
        await asyncio.sleep(0.5)
        usage = supervised.usage()
        assert 0 < usage.busy_s <= usage.engine_s - 0.3

    asyncio.run(check())
