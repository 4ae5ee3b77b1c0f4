"""The seam between sampling and the models: settings, completions and the protocol of an engine.

An engine's module holds `Config` (its fields of a `[[teacher]]`), `Engine` (the class, which owns a process or a
recording) and `SEEDING`: `exact` where the seed of a request fixes its draw, `none` where it does not.
"""

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field

from retort.prompts import Messages
from retort.records import FinishReason, Request

Seeding = Literal["exact", "none"]


class SamplingDistribution(BaseModel):
    """What a chain is drawn from. With the model it identifies a pool, and nothing else does."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(ge=0, le=10)
    """0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    """0 considers all tokens."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Strings that end a completion; they are not part of its text."""


class EngineConfig(BaseModel):
    """What every engine's settings share."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    def identity(self) -> dict[str, str]:
        """What distinguishes the model from any other, by content. Raises ValueError where it cannot be resolved."""
        raise TypeError(f"{type(self).__name__} does not say what its model is")

    def check(self) -> None:
        """Look at what the engine will need, where that is cheap. Raises ValueError for what it could not use."""

    def pinned(self) -> Self:
        """The same settings with the model's revision fixed, so that every loader loads what `identity` names."""
        return self

    def sharing(self, engines: int) -> Self:
        """The same settings for one of several engines in one actor: each takes its share of the memory."""
        del engines
        return self

    @property
    def num_actors(self) -> int:
        """Ray actors that each hold one engine."""
        return 1

    @property
    def capacity(self) -> int:
        """Requests that one engine is handed at once; more would only wait inside it."""
        return 1024

    def num_gpus(self, has_gpus: bool) -> int:
        """GPUs that one actor asks of Ray, on a cluster that has some or not; each actor also takes one CPU."""
        del has_gpus
        return 0

    @property
    def accelerator(self) -> str | None:
        """Ray's name of the kind of GPU that an actor must have; None takes any."""
        return None

    def bundles(self, has_gpus: bool) -> list[dict[str, float]]:
        """What one actor takes of Ray, and what its engine takes beside: resources of one machine each."""
        bundle: dict[str, float] = {"CPU": 1, "GPU": self.num_gpus(has_gpus)}
        if bundle["GPU"] and self.accelerator is not None:
            bundle[f"accelerator_type:{self.accelerator}"] = 0.001  # as Ray asks for one
        return [bundle]


class Completion(NamedTuple):
    """What came back for one request. Token counts include the end token."""

    text: str
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_tokens: int
    stop: str | None = None
    """The stop string that ended it; None where an end token or the budget did."""
    logprob: float | None = None
    """Sum of the log-probabilities of its tokens under the model, before temperature and cuts; None where unknown.

    Its tokens are all that were generated: the end token is one of them, and so are those that spell a stop string.
    """
    token_logprobs: tuple[float, ...] = ()
    token_ids: tuple[int, ...] = ()


class ModelConfig(EngineConfig):
    """What the settings of engines share that ask a model, and not a recording."""

    logprobs: Literal["none", "sum", "tokens"] = "none"
    """Log-probabilities kept of a chain: none, their sum, or the sum and each token's."""
    token_ids: bool = False
    """Keep the ids of a chain's tokens."""

    def kept(self, completion: Completion, logprobs: Sequence[float], token_ids: Sequence[int]) -> Completion:
        """A completion with what is to be kept of its tokens; a sequence is empty where it is not known."""
        return completion._replace(
            logprob=math.fsum(logprobs) if logprobs and self.logprobs != "none" else None,
            token_logprobs=tuple(logprobs) if self.logprobs == "tokens" else (),
            token_ids=tuple(token_ids) if self.token_ids else (),
        )


class PromptTooLongError(ValueError):
    """A prompt and the completion asked for exceed what the model can see.

    The first prompt of a request is its user's matter. Those of later turns hold what models wrote: rollouts catch it.
    """


class EngineDiedError(RuntimeError):
    """An engine cannot go on, though a new one could: the sampler replaces it and asks again what was open."""


def until_stop(text: str, stops: Sequence[str]) -> tuple[str, str | None]:
    """A text up to the stop string that is complete first, as it is for whoever reads along; and that string."""
    found = [(text.find(stop), stop) for stop in stops if stop in text]
    if not found:
        return text, None
    place, stop = min(found, key=lambda each: each[0] + len(each[1]))
    return text[:place], stop


class Completer(Protocol):
    """Completes prompts, many at a time: an engine, or what stands in front of one."""

    async def complete(
        self, prompt: str | Messages, request: Request, distribution: SamplingDistribution
    ) -> Completion | None:
        """One completion of one prompt; None where this engine has none to give (a recording that lacks it).

        Raises:
            PromptTooLongError: the model cannot see so much.
            EngineDiedError: the engine is gone, and this request with it.
        """
        ...


class Engine(Completer, Protocol):
    """Owns what it completes with, such as a process; lives in one event loop."""

    async def start(self) -> None:
        """Load the model. Called once, before the first request.

        Raises:
            EngineDiedError: its process ended while it loaded.
        """
        ...

    @property
    def num_tokens(self) -> int | None:
        """A count that grows whenever anything was generated: by it a silent engine is told from a slow one.

        None where that is not known before a completion ends (a server elsewhere): its own timeouts have to do.
        """
        ...

    def close(self) -> None:
        """End what the engine started, hung or not. The engine is of no use afterwards."""
        ...
