"""Drawing: what is ordered of one prompt, how far it is drawn, and how much may be spent on it."""

import asyncio
import json
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from retort.records import Chain
from retort.solvers.zygote import Sandbox
from retort.store.hashing import digest
from retort.store.plan import PlannedPrompt
from retort.verification import ACCEPTED, VerificationConfig, judge

Drawn = Literal["accepted", "rejected", "lacking", "withheld"]
"""What came of one chain: judged, or not to be had (a recording without it), or not asked for (`max_tokens_total`)."""


@dataclass(frozen=True)
class Order:
    """What is to be drawn of one prompt. `prompts`: the problems that ask it; `known`: durable chains, by index."""

    prompts: tuple[PlannedPrompt, ...]
    indexes: tuple[int, ...]
    known: dict[int, bool] = field(default_factory=dict[int, bool])

    def to_json(self) -> str:
        known = sorted(self.known.items())
        return json.dumps([[prompt.as_row() for prompt in self.prompts], self.indexes, known])

    @classmethod
    def from_json(cls, text: str) -> "Order":
        prompts, indexes, known = json.loads(text)
        return cls(tuple(map(PlannedPrompt.from_row, prompts)), tuple(indexes), dict(known))


def batch_name(orders: Sequence[Order], max_new_tokens: int) -> str:
    """The name of a batch: the hash of its keys and budget."""
    return digest([max_new_tokens, [[order.prompts[0].prompt_hash, order.indexes] for order in orders]])[:20]


class Allowance:
    """Tokens that may still be bought. What is under way counts as the most that it may come to."""

    def __init__(self, tokens: int | None) -> None:
        self._left = tokens
        self._num_open = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def reserve(self, tokens: int) -> bool:
        """Set tokens aside for a request, waiting for those that others leave over; False where they will not be."""
        if self._left is None:
            return True
        while tokens > self._left:
            if self._num_open == 0:
                return False
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting
        self._left -= tokens
        self._num_open += 1
        return True

    def settle(self, reserved: int, used: int) -> None:
        """Give back what a request left over."""
        if self._left is None:
            return
        self._left += reserved - used
        self._num_open -= 1
        waiting, self._waiting = self._waiting, deque()
        for each in waiting:
            if not each.done():
                each.set_result(None)


def accepts(
    prompts: Iterable[PlannedPrompt], chain: Chain, max_new_tokens: int, config: VerificationConfig, sandbox: Sandbox
) -> bool:
    """Whether a chain is worth learning from: right for every problem that asks its prompt, or unlabelled."""
    reasons = (judge(p.problem, p.thought, chain, max_new_tokens, config, sandbox)[0] for p in prompts)
    return all(reason in ACCEPTED for reason in reasons)


async def draw_until_correct(
    num_correct: int,
    known: Mapping[int, bool],
    indexes: Sequence[int],
    draw: Callable[[int], Coroutine[Any, Any, Drawn]],
) -> Counter[Drawn]:
    """Draw in the order of indexes until so many chains are accepted, never more at once than are still needed.

    What is drawn, with what was known, is the shortest prefix with `num_correct` accepted chains, whatever the order in
    which they finish: a further one is begun only when one has failed. A chain that cannot be had ends the prefix, and
    counts for all after it.
    """
    outcomes: Counter[Drawn] = Counter()
    found, ahead = 0, iter(range(max([*known, *indexes], default=-1) + 1))
    open_tasks: set[asyncio.Task[Drawn]] = set()
    try:
        while True:
            while found + len(open_tasks) < num_correct and (index := next(ahead, None)) is not None:
                if index in known:
                    found += known[index]
                else:
                    open_tasks.add(asyncio.create_task(draw(index)))
            if not open_tasks:
                return outcomes
            done, open_tasks = await asyncio.wait(open_tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                outcome: Drawn = task.result()
                outcomes[outcome] += 1
                found += outcome == "accepted"
                if outcome == "lacking" or outcome == "withheld":
                    outcomes[outcome] += sum(index not in known for index in ahead)  # which ends `ahead`
    finally:
        for task in open_tasks:
            task.cancel()
        await asyncio.gather(*open_tasks, return_exceptions=True)
