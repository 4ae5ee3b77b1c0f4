"""Dev accuracy: greedy answers of a student in training to dev problems, asked and judged as evaluation does.

The engine is `hf` on the weights as they are; several workers share the problems.
"""

import asyncio
import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from retort import prompts
from retort.engines import hf
from retort.engines.interface import PromptTooLongError, SamplingDistribution
from retort.prompts import Messages
from retort.records import Chain, Problem, Request
from retort.rollouts import Rollout, roll_out
from retort.solvers.zygote import Sandbox
from retort.verification import VerificationConfig, judge


@contextlib.contextmanager
def _answering(model: Any, dtype: Any) -> Generator[None]:
    """Lend a model in training to an engine, which takes it as one that was loaded: other attention, other defaults,
    and products in `dtype`."""
    import torch

    from retort.training import attention

    before = model.generation_config
    is_packed = model.config._attn_implementation == attention.NAME
    if is_packed:
        model.set_attn_implementation("sdpa")
    # Not around the call: the engine generates in a thread, where no other's autocast holds.
    model.forward = torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32)(model.forward)
    try:
        yield
    finally:
        del model.forward
        if is_packed:
            model.set_attn_implementation(attention.NAME)
        model.generation_config = before


@dataclass(frozen=True)
class Exam:
    """What is asked: problems with gold answers, under one thought, each with the prompt that evaluation asks."""

    problems: tuple[Problem, ...]
    thought: str
    asked: tuple[str | Messages, ...]
    max_new_tokens: int
    rollout: Rollout
    verification: VerificationConfig

    def describe(self) -> dict[str, Any]:
        """What decides its outcome, for the address of a checkpoint."""
        gold = [[problem.id, problem.answer, prompt] for problem, prompt in zip(self.problems, self.asked, strict=True)]
        return {
            "problems": gold,
            "thought": self.thought,
            "max_new_tokens": self.max_new_tokens,
            "rollout": self.rollout.model_dump(mode="json"),
            "verification": self.verification.model_dump(mode="json"),
        }

    def check(self, model: Any, tokenizer: Any) -> None:
        """Raises ValueError where a student has too few positions for a problem and the answer to it."""
        engine = hf.Engine(hf.Config(model="shipped:student"), loaded=(model, tokenizer))
        asyncio.run(engine.start())
        for number, asked in enumerate(self.asked):
            try:
                engine.encode(asked, self._request(number))
            except PromptTooLongError as error:
                raise ValueError(f"dev problem {error}; lower training.dev_max_new_tokens") from error

    def with_tokenizer(self, tokenizer: Any, dtype: Any) -> Callable[[Any], tuple[int, int]]:
        """The exam as the training loop wants it: a model in, this worker's share of right answers and problems out."""

        from retort.training.parallel import rank_and_world

        def examine(model: Any) -> tuple[int, int]:
            rank, world = rank_and_world()
            own = range(rank, len(self.problems), world)
            with _answering(model, dtype):
                chains = asyncio.run(self._chains(model, tokenizer, own))
            return self._right(chains, own), len(chains)

        return examine

    async def _chains(self, model: Any, tokenizer: Any, numbers: Sequence[int]) -> list[Chain]:
        engine = hf.Engine(hf.Config(model="shipped:student"), loaded=(model, tokenizer))
        await engine.start()
        greedy = SamplingDistribution(temperature=0)
        found = await asyncio.gather(
            *(roll_out([engine], self._request(number), greedy, self.rollout) for number in numbers)
        )
        engine.close()
        chains = [chain for chain in found if chain is not None]
        assert len(chains) == len(found), "a model answers everything"
        return chains

    def _request(self, number: int) -> Request:
        problem, asked = self.problems[number], prompts.canonical(self.asked[number])
        return Request(
            prompts.prompt_hash(asked), 0, asked, 0, self.max_new_tokens, problem.id, self.thought, problem.question
        )

    def _right(self, chains: Sequence[Chain], numbers: Sequence[int]) -> int:
        with Sandbox(self.verification.sandbox) as sandbox:
            reasons = [
                judge(self.problems[number], self.thought, chain, self.max_new_tokens, self.verification, sandbox)[0]
                for number, chain in zip(numbers, chains, strict=True)
            ]
        return sum(reason in ("correct", "wrong_step") for reason in reasons)
