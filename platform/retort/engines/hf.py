"""`hf`: transformers in this process, for the models that vLLM does not serve: encoder-decoders (T5, CodeT5, BART).

Requests gather into batches of one sampling distribution; each batch is one `generate` in a thread, and while one runs
the next fills up. A row is answered as soon as it has ended, while its batch goes on. The draw of a row depends on its
own seed alone: Gumbel noise from a generator of that seed is added to the scores, of which the largest then is a draw
from their softmax, whoever else is in the batch. Log-probabilities are those of the scores as the model gave them.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import Field

from retort.engines import models
from retort.engines.interface import (
    Completion,
    PromptTooLongError,
    SamplingDistribution,
    Seeding,
    until_stop,
)
from retort.engines.local import LocalModelConfig
from retort.prompts import Messages
from retort.records import FinishReason, Request

if TYPE_CHECKING:
    import torch

SEEDING: Seeding = "exact"

UNBOUNDED = 10**9
"""Tokenizers that set no bound say 10^30."""


class Config(LocalModelConfig):
    """Settings of a model that transformers runs inside an actor."""

    batch_size: int = Field(default=32, ge=1)
    """Requests of one batch."""
    max_wait_ms: float = Field(default=20, ge=0, le=60_000)
    """How long an idle engine waits for a batch to fill."""

    @property
    def capacity(self) -> int:
        """A batch that runs, and the next."""
        return 2 * self.batch_size


@dataclass(frozen=True, slots=True)
class _Row:
    """A request as the model takes it, and what comes of it."""

    token_ids: list[int]
    max_new_tokens: int
    seed: int
    completion: asyncio.Future[Completion]


@dataclass
class _Batch:
    """Requests that are answered together; `task` ends after the last of them."""

    rows: list[_Row] = field(default_factory=list)
    is_full: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Engine:
    """One model, which answers one batch at a time: its settings', or one `loaded` with its tokenizer."""

    def __init__(self, config: Config, loaded: tuple[Any, Any] | None = None) -> None:
        self._config, self._loaded = config, loaded
        self._model: _Model | None = None
        self._filling: dict[SamplingDistribution, _Batch] = {}
        self._turn = asyncio.Lock()

    @property
    def num_tokens(self) -> int:
        return self._model.num_tokens if self._model is not None else 0

    async def start(self) -> None:
        model, tokenizer = self._loaded or await asyncio.to_thread(_load, self._config)
        self._model = _Model(self._config, model, tokenizer)

    async def complete(
        self, prompt: str | Messages, request: Request, distribution: SamplingDistribution
    ) -> Completion:
        model = self._model
        assert model is not None, "start() comes first"
        completion: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        row = _Row(model.encode(prompt, request), request.max_new_tokens, request.seed, completion)
        batch = self._filling.setdefault(distribution, _Batch())
        batch.rows.append(row)
        if batch.task is None:
            batch.task = asyncio.create_task(self._answer(model, batch, distribution))
        if len(batch.rows) == self._config.batch_size:
            del self._filling[distribution]
            batch.is_full.set()
        # `wait` cancels nothing: a request that is given up must not take the others with it.
        await asyncio.wait([completion, batch.task], return_when=asyncio.FIRST_COMPLETED)
        if not completion.done():
            batch.task.result()  # raises what the model raised
        return completion.result()

    def encode(self, prompt: str | Messages, request: Request) -> list[int]:
        """A prompt as the model sees it. Raises PromptTooLongError where its whole budget does not fit behind it."""
        assert self._model is not None, "start() comes first"
        return self._model.encode(prompt, request)

    async def _answer(self, model: "_Model", batch: _Batch, distribution: SamplingDistribution) -> None:
        """Answer a batch once it is full or has waited; it goes on filling until the model is free."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(batch.is_full.wait(), self._config.max_wait_ms / 1000)
        async with self._turn:
            if self._filling.get(distribution) is batch:
                del self._filling[distribution]
            await asyncio.to_thread(model.generate, batch.rows, distribution)

    def close(self) -> None:
        self._model = None
        self._filling.clear()


def _load(config: Config) -> tuple[Any, Any]:
    """Weights on their device, and the tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    located = models.locate(config.model)
    asked = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    architecture = AutoConfig.from_pretrained(located, **asked)
    auto: Any = AutoModelForSeq2SeqLM if architecture.is_encoder_decoder else AutoModelForCausalLM
    device = torch.device("cuda" if config.num_gpus(has_gpus=torch.cuda.is_available()) else "cpu")
    tokenizer: Any = AutoTokenizer.from_pretrained(located, **asked)
    model = auto.from_pretrained(located, dtype=config.dtype, use_safetensors=True, **asked)
    return model.to(device).eval(), tokenizer


class _Model:
    """Tokenizer and weights."""

    def __init__(self, config: Config, model: Any, tokenizer: Any) -> None:
        from transformers import GenerationConfig

        self.num_tokens = 0
        self._config, self._model, self._tokenizer = config, model, tokenizer
        self._is_encoder_decoder: bool = model.config.is_encoder_decoder
        self._device = model.device
        ends = model.generation_config.eos_token_id
        listed = ends if isinstance(ends, list) else [ends]
        self._end_ids = {end for end in (*listed, self._tokenizer.eos_token_id) if end is not None}
        self._pad_id: int = next(end for end in (self._tokenizer.pad_token_id, *self._end_ids, 0) if end is not None)
        # What a checkpoint recommends (beams, penalties, forced tokens) has no part in a draw.
        start_id = getattr(model.config, "decoder_start_token_id", None)
        model.generation_config = GenerationConfig(pad_token_id=self._pad_id, decoder_start_token_id=start_id)
        self._positions = _positions(model.config, self._tokenizer)

    def encode(self, prompt: str | Messages, request: Request) -> list[int]:
        """Token ids of a prompt. Raises PromptTooLongError where the model cannot see it and its completion."""
        if isinstance(prompt, str):
            token_ids: list[int] = self._tokenizer.encode(prompt)
        else:
            token_ids = self._tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
        # Prompt and completion share a decoder-only model's positions; an encoder and a decoder each have their own.
        budget = request.max_new_tokens
        needed = max(len(token_ids), budget) if self._is_encoder_decoder else len(token_ids) + budget
        if self._positions is not None and needed > self._positions:
            raise PromptTooLongError(
                f"{request.problem_id}: prompt of {len(token_ids)} tokens and max_new_tokens = {budget} need {needed} "
                f"positions, the model has {self._positions}; lower max_new_tokens or ask a model with more"
            )
        return token_ids

    def generate(self, rows: Sequence[_Row], distribution: SamplingDistribution) -> None:
        """Complete each row; its completion is set as soon as it has ended."""
        import torch
        from transformers import LogitsProcessorList, StoppingCriteriaList

        width = max(len(row.token_ids) for row in rows)
        input_ids, attention_mask = torch.full((len(rows), width), self._pad_id), torch.zeros((len(rows), width)).long()
        for number, row in enumerate(rows):
            # A decoder goes on from the right end, an encoder starts from the left one.
            length = len(row.token_ids)
            place = slice(0, length) if self._is_encoder_decoder else slice(width - length, width)
            input_ids[number, place] = torch.tensor(row.token_ids)
            attention_mask[number, place] = 1
        raw = _RawScores()
        ends = _Ends(self, rows, distribution.stop, raw, start=1 if self._is_encoder_decoder else width)
        self._model.generate(
            input_ids=input_ids.to(self._device),
            attention_mask=attention_mask.to(self._device),
            logits_processor=LogitsProcessorList([raw, *_warpers(rows, distribution, self._device)]),
            stopping_criteria=StoppingCriteriaList([ends]),
            max_new_tokens=max(row.max_new_tokens for row in rows),
            do_sample=False,
        )

    def complete(
        self, row: _Row, token_ids: list[int], logprobs: list[float], stops: Sequence[str]
    ) -> Completion | None:
        """What a row has come to with these new tokens, if it ends there: by a token, a stop string or its budget."""
        is_end = token_ids[-1] in self._end_ids
        is_last = len(token_ids) == row.max_new_tokens
        if not (is_end or is_last or stops):
            return None
        text, stop = until_stop(self._text(row, token_ids[:-1] if is_end else token_ids), stops)
        if not (is_end or is_last or stop):
            return None
        reason: FinishReason = "stop" if is_end or stop else "length"
        completion = Completion(text, reason, len(row.token_ids), len(token_ids), stop)
        return self._config.kept(completion, logprobs, token_ids)

    def _text(self, row: _Row, token_ids: list[int]) -> str:
        """New tokens as text. The prompt's last one goes before them where it does, for the blank between the two."""
        before = [] if self._is_encoder_decoder else row.token_ids[-1:]
        shown = self._decode(before)
        # A character of several tokens that is cut off is no text yet.
        return self._decode(before + token_ids)[len(shown) :].rstrip("\ufffd")

    def _decode(self, token_ids: list[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


class _RawScores:
    """Logits processor that comes first, changes nothing, and knows what the model thought of each token."""

    def __call__(self, input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        del input_ids
        self._scores = scores
        return scores

    def logprobs(self, token_ids: "torch.Tensor") -> list[float]:
        """Of the tokens that were taken at this step, one a row."""
        taken = self._scores.gather(1, token_ids[:, None])[:, 0]
        return (taken - self._scores.logsumexp(dim=1)).tolist()


class _Ends:
    """Stopping criterion of a batch: says which rows have ended, and hands their completions over at once."""

    def __init__(self, model: _Model, rows: Sequence[_Row], stops: Sequence[str], raw: _RawScores, start: int) -> None:
        self._have_ended = [False] * len(rows)
        self._logprobs: list[list[float]] = [[] for _ in rows]
        self._model, self._rows, self._stops, self._raw, self._start = model, rows, stops, raw, start

    def __call__(self, input_ids: "torch.Tensor", scores: Any, **kwargs: Any) -> "torch.Tensor":
        import torch

        del scores, kwargs
        logprobs = self._raw.logprobs(input_ids[:, -1])
        for number, (row, token_ids) in enumerate(zip(self._rows, input_ids[:, self._start :].tolist(), strict=True)):
            if self._have_ended[number]:
                continue
            self._model.num_tokens += 1
            self._logprobs[number].append(logprobs[number])
            completion = self._model.complete(row, token_ids, self._logprobs[number], self._stops)
            if completion is not None:
                self._have_ended[number] = True
                # This is the thread of the model; futures belong to that of their loop.
                row.completion.get_loop().call_soon_threadsafe(row.completion.set_result, completion)
        return torch.tensor(self._have_ended, device=input_ids.device)


class _SeededNoise:
    """Logits processor that makes the largest score a draw: minus log of an exponential variable is Gumbel noise."""

    def __init__(self, seeds: Sequence[int], device: "torch.device") -> None:
        import torch

        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        import torch

        del input_ids
        waits = torch.empty_like(scores)
        for row, generator in zip(waits, self._generators, strict=True):
            row.exponential_(generator=generator)
        # A wait of exactly 0 would draw a token that has no chance.
        return scores - waits.clamp_(min=torch.finfo(waits.dtype).eps / 2).log()


def _warpers(rows: Sequence[_Row], distribution: SamplingDistribution, device: "torch.device") -> list[Any]:
    """Temperature, top-k, top-p, then the draw; none where the largest score is taken as it is."""
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    if distribution.temperature == 0:
        return []
    warpers: list[Any] = [TemperatureLogitsWarper(distribution.temperature)]
    if distribution.top_k:
        warpers.append(TopKLogitsWarper(distribution.top_k))
    if distribution.top_p < 1:
        warpers.append(TopPLogitsWarper(distribution.top_p))
    return [*warpers, _SeededNoise([row.seed for row in rows], device)]


def _positions(architecture: Any, tokenizer: Any) -> int | None:
    """Tokens that a model can see; None where neither it nor its tokenizer sets a bound (T5 counts distances)."""
    known = getattr(architecture, "max_position_embeddings", None)
    if known is not None:
        return known
    return tokenizer.model_max_length if tokenizer.model_max_length < UNBOUNDED else None
