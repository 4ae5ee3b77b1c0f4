"""`endpoint`: a model that a server offers under OpenAI's API, so that a teacher can live outside the cluster.

Under `api = "chat"` a prompt that is a plain string becomes one message of a user; under `"completions"` only plain
strings can be asked. What a server may still answer is asked again, with back-off; while a server asks for a pause,
none of the engine's requests are sent. Nothing but `stop` and `length` is kept of how a chain ended: one that a filter
or a tool ended has ended by itself, and one that filled the model's context counts as cut off at its budget, except on
vLLM's servers, whose counts are sure enough to refuse it. An answer with a completion that was broken off, or ended in
a way that is not known, is none: it is asked for again, siblings included. What a server's parser took for reasoning
stands before the answer, a blank line between the two.

The model is known by the name and the label in its settings, wherever it is served: two servers of one model share a
pool. Counts of tokens are the server's; where it tells siblings' as one sum only, each gets a share by the length of
its text, and where it gives no usage at all they are 0. Log-probabilities are as the server counts them.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, field_validator, model_validator

from retort import prompts
from retort.engines.interface import (
    Completion,
    ModelConfig,
    PromptTooLongError,
    SamplingDistribution,
    Seeding,
)
from retort.engines.openai_api import Answer, Caller, Choice, Usage
from retort.prompts import Messages
from retort.records import Request

logger = logging.getLogger(__name__)

SEEDING: Seeding = "none"

GATHER_S = 0.005
"""How long a request waits for siblings; a sampler hands them over in one go."""


class Config(ModelConfig):
    """Settings of a model behind a server. The key itself is read from the environment, and is never one of them."""

    model_config: ClassVar[ConfigDict] = ConfigDict(hide_input_in_errors=True)

    base_url: str
    """Address of the API, such as `https://api.openai.com/v1`."""
    model: str = Field(min_length=1)
    """The name by which the server knows it."""
    revision: str = Field(min_length=1)
    """A label of your own for what the server has under this name: nobody can resolve it. Change it when that does."""
    api: Literal["chat", "completions"]
    """`chat` goes through the model's template; `completions` hands it the prompt as it is."""
    server: Literal["openai", "vllm", "other"] = "other"
    """What it may be told beyond what all understand: `openai` calls the budget `max_completion_tokens`; `vllm` takes
    `top_k`, says which stop string ended a chain, and gives token ids."""
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key, on every machine that samples; "" sends none."""
    max_concurrency: int = Field(default=64, ge=1, le=1000)
    """HTTP requests open at once."""
    siblings: int = Field(default=1, ge=1, le=128)
    """Chains of one prompt asked for in one HTTP request, where hosts charge the prompt once. With `send_seed` they are
    chains of consecutive indexes: those between gaps are asked for apart."""
    timeout_s: float = Field(default=600, gt=0)
    """How long an HTTP request may take; then it is sent again."""
    max_retries: int = Field(default=10, ge=0, le=100)
    """How often a request is sent again after a failure; with ten it takes two to four minutes to give up, and as long
    as the failures themselves take. Pauses that a server asks for do not count: they are waited for, up to 10 minutes
    each, and up to 30 minutes in which it answers nothing."""
    send_seed: bool = True
    """Send the seed of the (first) chain. Few servers promise anything for it; it also keeps caches from answering."""

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected an address such as https://api.openai.com/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("expected an address without user, password or parameters; the key goes into api_key_env")
        return url.rstrip("/")

    @field_validator("api_key_env")
    @classmethod
    def _is_name(cls, name: str) -> str:
        if name and not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
            # Not shown: it may be the key itself.
            raise ValueError('expected the name of an environment variable, such as OPENAI_API_KEY, or "" for no key')
        return name

    @model_validator(mode="after")
    def _offers_token_ids(self) -> Self:
        if self.token_ids and self.server != "vllm":
            raise ValueError(f"token_ids: only server = 'vllm' tells them, got server = {self.server!r}")
        return self

    def identity(self) -> dict[str, str]:
        known = {"model": f"{self.model}@{self.revision}", "quantization": "none"}
        # A string that went through a template is not what a model loaded here would be handed.
        return known | ({"api": "chat"} if self.api == "chat" else {})

    def check(self) -> None:
        self.key()

    def key(self) -> str:
        """The key, out of the environment. Raises ValueError where it is not there."""
        key = os.environ.get(self.api_key_env, "").strip() if self.api_key_env else ""
        if self.api_key_env and not key:
            raise ValueError(
                f"api_key_env = {self.api_key_env!r}: no such environment variable on this machine; set it to the key "
                f'for {self.base_url}, or api_key_env = "" for a server that wants none'
            )
        return key

    @property
    def capacity(self) -> int:
        return self.max_concurrency * self.siblings


class _Key(NamedTuple):
    """Which request a gathering waits for; the seed is None where none is sent."""

    prompt: str
    max_new_tokens: int
    distribution: SamplingDistribution
    seed: int | None

    def following(self) -> "_Key":
        return self._replace(seed=None if self.seed is None else self.seed + 1)


@dataclass
class _Gathering:
    """Requests for chains of one prompt, which are asked for together; `task` ends with the answer to all.

    Their seeds follow each other: vLLM's server draws sibling i with the seed that it is sent plus i, so that with any
    other seed a chain would repeat the draw of another index, which the pool may have.
    """

    awaited: _Key
    requests: list[Request] = field(default_factory=list)
    is_full: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[list[Completion | None]] | None" = None


class Engine:
    """A client of one server."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._caller: Caller | None = None
        self._slots = asyncio.Semaphore(config.max_concurrency)
        self._gatherings: dict[_Key, _Gathering] = {}
        self._tasks: set[asyncio.Task[list[Completion | None]]] = set()

    @property
    def num_tokens(self) -> None:
        """Not known before an answer is whole: timeouts and bounded retries and pauses end the silence of a server."""
        return

    async def start(self) -> None:
        config = self._config
        self._caller = Caller(config.base_url, config.key(), config.api, config.timeout_s, config.max_retries)

    async def complete(
        self, prompt: str | Messages, request: Request, distribution: SamplingDistribution
    ) -> Completion:
        """One completion, perhaps out of an answer that holds those of siblings too.

        Of siblings whose completions the server breaks off only these are asked for again.

        Raises:
            PromptTooLongError: the model cannot see so much.
            ValueError: the server refuses the request, and would again.
            ConnectionError: no answer after all retries. A new engine would not get one either.
        """
        completion = None
        while completion is None:
            gathering = self._gather(prompt, request, distribution)
            place = len(gathering.requests) - 1
            assert gathering.task is not None
            # Shielded: a request that is given up must not take its siblings with it.
            completions = await asyncio.shield(gathering.task)
            if place >= len(completions):
                raise ValueError(
                    f"siblings = {self._config.siblings}: {self._config.base_url} gave {len(completions)} of "
                    f"{len(gathering.requests)} completions that were asked for at once; set siblings = 1"
                )
            completion = completions[place]
        budget = request.max_new_tokens
        if self._config.server == "vllm" and completion.finish_reason == "length" and completion.num_tokens < budget:
            # It cuts a budget down to what is left of the context, and says so nowhere else.
            raise PromptTooLongError(
                f"{request.problem_id}: the context of {self._config.model!r} ended a chain after "
                f"{completion.num_tokens} of max_new_tokens = {budget}; lower it or ask a model that sees more"
            )
        return completion

    def _gather(self, prompt: str | Messages, request: Request, distribution: SamplingDistribution) -> _Gathering:
        """The gathering that waits for this request, or a new one; it is the last in it now."""
        seed = request.seed if self._config.send_seed else None
        key = _Key(prompts.canonical(prompt), request.max_new_tokens, distribution, seed)
        gathering = self._gatherings.pop(key, None) or _Gathering(key)
        gathering.requests.append(request)
        gathering.awaited = key.following()
        # Greedy siblings are all alike, and some servers refuse to draw several.
        if len(gathering.requests) == (self._config.siblings if distribution.temperature > 0 else 1):
            gathering.is_full.set()
        else:
            self._gatherings[gathering.awaited] = gathering
        if gathering.task is None:
            gathering.task = asyncio.create_task(self._answer(gathering, prompt, distribution))
            self._tasks.add(gathering.task)
            gathering.task.add_done_callback(self._tasks.discard)
        return gathering

    async def _answer(
        self, gathering: _Gathering, prompt: str | Messages, distribution: SamplingDistribution
    ) -> list[Completion | None]:
        """Ask once all siblings are there or none came for a while; they go on gathering until a slot is free."""
        assert self._caller is not None, "start() comes first"
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(gathering.is_full.wait(), GATHER_S)
        async with self._slots:
            if self._gatherings.get(gathering.awaited) is gathering:
                del self._gatherings[gathering.awaited]
            first, n = gathering.requests[0], len(gathering.requests)
            answer = await self._caller.ask(_body(self._config, prompt, first, n, distribution))
        return self._completions(answer)

    def _completions(self, answer: Answer) -> list[Completion | None]:
        """What an answer holds, in the order in which it was asked for; None for what was broken off."""
        choices = sorted(answer.choices, key=lambda each: each.index)
        usage = answer.usage or Usage()
        counts = _counts(choices, usage.completion_tokens or 0)
        num_prompt_tokens = usage.prompt_tokens or 0
        return [
            self._completion(choice, num_prompt_tokens, count) for choice, count in zip(choices, counts, strict=True)
        ]

    def _completion(self, choice: Choice, num_prompt_tokens: int, num_tokens: int) -> Completion | None:
        logprobs = choice.logprobs.values if choice.logprobs is not None else ()
        token_ids = choice.token_ids or ()
        if choice.ended is None:
            return None
        if choice.finish_reason not in ("stop", "length", None):
            logger.warning("%s: a completion ended by %r, kept as it came", self._config.base_url, choice.finish_reason)
        completion = Completion(
            text=choice.said,
            finish_reason=choice.ended,
            num_prompt_tokens=num_prompt_tokens,
            num_tokens=num_tokens,
            stop=choice.stop_reason if isinstance(choice.stop_reason, str) else None,
        )
        return self._config.kept(completion, logprobs, token_ids)

    def close(self) -> None:
        for task in self._tasks:
            task.get_loop().call_soon_threadsafe(task.cancel)
        if self._caller is not None:
            self._caller.close()
            self._caller = None


def _body(
    config: Config, prompt: str | Messages, request: Request, n: int, distribution: SamplingDistribution
) -> dict[str, Any]:
    """The JSON of an HTTP request for n chains. Raises ValueError for what this API or server cannot be asked."""
    fields: dict[str, Any] = {
        "model": config.model,
        "n": n,
        "temperature": distribution.temperature,
        "top_p": distribution.top_p,
        "max_completion_tokens" if config.server == "openai" else "max_tokens": request.max_new_tokens,
    }
    if config.api == "chat":
        fields["messages"] = prompts.as_chat(prompt) if isinstance(prompt, str) else prompt
    elif isinstance(prompt, str):
        fields["prompt"] = prompt
    else:
        raise ValueError("api = 'completions': expected a prompt that is plain text, got messages; set api = 'chat'")
    if config.server == "vllm":
        # Said outright, or what the checkpoint recommends would have a part in the draw.
        fields |= {"top_k": distribution.top_k, "min_p": 0.0, "repetition_penalty": 1.0}
        fields["return_token_ids"] = config.token_ids or n > 1
    elif distribution.top_k:
        raise ValueError(f"top_k = {distribution.top_k}: only a server = 'vllm' knows it; set top_k = 0")
    if distribution.stop:
        fields["stop"] = list(distribution.stop)
    if config.send_seed:
        fields["seed"] = request.seed
    if config.logprobs != "none":
        fields["logprobs"] = True if config.api == "chat" else 1
    return fields


def _counts(choices: Sequence[Choice], num_tokens: int) -> list[int]:
    """Tokens of each of the siblings that have so many together.

    Where nothing is told of each, they are shares by the length of the texts, in whole numbers that add up: 10 tokens
    of three texts of one length are 3, 3 and 4.
    """
    told = [len(choice.token_ids or ()) for choice in choices]
    if len(choices) > 1 and not all(told):
        told = [len(choice.logprobs.values) if choice.logprobs is not None else 0 for choice in choices]
    if all(told):
        return told
    # An empty text has an end token.
    ends = [0, *itertools.accumulate(len(choice.said) + 1 for choice in choices)]
    return [num_tokens * end // ends[-1] - num_tokens * begin // ends[-1] for begin, end in itertools.pairwise(ends)]
