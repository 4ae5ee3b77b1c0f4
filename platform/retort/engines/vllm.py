"""`vllm`: an AsyncLLM in this process's event loop. Requests join its continuous batch as they come.

Every request carries its own seed and asks for the final output only; siblings of a prompt share their prefill through
the engine's prefix cache. On CPU builds the key-value cache is set by `cpu_kv_cache_gib`.

The model lives in a process of its own, with more below it: one that ends is an EngineDiedError for every request that
is open, and `close` ends them all, hung or not.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

import psutil
from pydantic import Field, model_validator

from retort.engines import models
from retort.engines.interface import (
    Completion,
    EngineDiedError,
    PromptTooLongError,
    SamplingDistribution,
    Seeding,
)
from retort.engines.local import LocalModelConfig
from retort.prompts import Messages, canonical
from retort.records import Request

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from vllm import SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

SEEDING: Seeding = "exact"

CLOSE_S = 5.0
"""What an engine may take to end by itself before its processes are killed."""
KEPT_PROMPTS = 256
"""Prompts whose tokens are remembered: siblings come one after the other, and templates are slow to fill in."""


class Config(LocalModelConfig):
    """Settings of a model served by vLLM inside an actor."""

    quantization: str | None = None
    """vLLM's name of the quantisation; part of the model's identity."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs of one engine, in one machine."""
    pipeline_parallel_size: int = Field(default=1, ge=1)
    """Groups of so many GPUs that share out the layers of one engine. With more than one they may be in as many
    machines, and vLLM takes them of Ray by itself: any, also of other kinds than `accelerator_type`."""
    max_model_len: int | None = Field(default=None, ge=16)
    """Longest prompt plus completion, in tokens; None takes the model's own."""
    memory_share: float = Field(default=0.9, gt=0, le=0.95)
    """Share of a GPU's memory that the engine takes."""
    cpu_kv_cache_gib: int = Field(default=1, ge=1)
    """Key-value cache on a machine without a GPU."""
    max_num_seqs: int = Field(default=256, ge=1)
    """Sequences that the engine runs at once."""

    def identity(self) -> dict[str, str]:
        return super().identity() | {"quantization": self.quantization or "none"}

    def sharing(self, engines: int) -> Self:
        return self.model_copy(update={"memory_share": self.memory_share / engines})

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.pipeline_parallel_size > 1 and (self.device == "cpu" or self.accelerator_type is None):
            raise ValueError(
                f"pipeline_parallel_size = {self.pipeline_parallel_size} with device = {self.device!r}, "
                f"accelerator_type = {self.accelerator_type!r}: expected GPUs, and the kind of those of the machine "
                f"that the engine is led from"
            )
        return self

    def on_gpus(self, has_gpus: bool) -> bool:
        return self.pipeline_parallel_size > 1 or super().on_gpus(has_gpus)

    def num_gpus(self, has_gpus: bool) -> int:
        if self.pipeline_parallel_size > 1:
            return 0  # of the actor's own
        return self.tensor_parallel_size if self.on_gpus(has_gpus) else 0

    def bundles(self, has_gpus: bool) -> list[dict[str, float]]:
        bundles = super().bundles(has_gpus)
        if self.pipeline_parallel_size > 1:
            bundles[0][f"accelerator_type:{self.accelerator_type}"] = 0.001
            bundles += [{"GPU": float(self.tensor_parallel_size)}] * self.pipeline_parallel_size
        return bundles

    @property
    def capacity(self) -> int:
        """A quarter more than run at once: the next is there when one ends. More would die with the engine."""
        return self.max_num_seqs * 5 // 4


class Engine:
    """One AsyncLLM and its engine process."""

    def __init__(self, config: Config) -> None:
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        self._config = config
        self._engine: AsyncLLM | None = None
        self._processes: list[psutil.Process] = []
        self._before_load: set[psutil.Process] | None = None
        self._next_id = 0
        self._num_tokens = 0
        self._counted: dict[str, int] = {}
        self._encoded: dict[str, list[int]] = {}

    @property
    def num_tokens(self) -> int:
        """Looked up when it is asked for: vLLM's own statistics of every step take a third of the client's time."""
        if self._engine is not None:
            for state in self._engine.output_processor.request_states.values():
                assert state.detokenizer is not None
                self._count(state.external_req_id, state.detokenizer.num_output_tokens())
        return self._num_tokens

    def _count(self, request_id: str, num_tokens: int) -> None:
        """Note how many tokens a request has now."""
        self._num_tokens += num_tokens - self._counted.get(request_id, 0)
        self._counted[request_id] = num_tokens

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._before_load = set(psutil.Process().children(recursive=True))
        # In a thread: it takes half a minute and more, and binds to the event loop only with the first request.
        self._engine = await asyncio.to_thread(self._load)
        self._before_load, self._processes = None, _families(_cores(self._engine))

    def _load(self) -> "AsyncLLM":
        """Load the model. Raises EngineDiedError where its process ends meanwhile, whatever it ends of."""
        try:
            from vllm import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM

            if self._config.pipeline_parallel_size > 1:
                import ray

                # Its process joins Ray by itself, and is to join this one.
                os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
        except ImportError as error:
            raise ImportError("engine 'vllm' needs vLLM: install retort with the extra 'gpu' or 'cpu'") from error
        try:
            return AsyncLLM.from_engine_args(AsyncEngineArgs(**engine_arguments(self._config)))
        except (RuntimeError, TimeoutError) as error:
            raise EngineDiedError(f"the engine of {self._config.model} did not start: {error}") from error

    async def complete(
        self, prompt: str | Messages, request: Request, distribution: SamplingDistribution
    ) -> Completion:
        from vllm import TokensPrompt
        from vllm.logprobs import FlatLogprobs
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        engine = self._engine
        assert engine is not None, "start() comes first"
        asked = TokensPrompt(prompt_token_ids=self._token_ids(engine, prompt, request))
        self._next_id += 1
        request_id = str(self._next_id)
        generating = engine.generate(asked, self._params(request, distribution), request_id)
        try:
            # The final output is the only one. To the end, or vLLM would abort what has just finished.
            (output,) = [output async for output in generating]
            (sample,) = output.outputs
            self._count(request_id, len(sample.token_ids))
        except (EngineDeadError, EngineGenerateError) as error:
            if isinstance(error, EngineGenerateError) and not engine.errored:
                raise
            raise EngineDiedError(f"the engine of {self._config.model} has ended") from error
        finally:
            self._counted.pop(request_id, None)
        finish_reason = sample.finish_reason
        if finish_reason != "stop" and finish_reason != "length":
            # `abort` where its process shuts down, `error` where it loses what it has computed: a part is no chain.
            raise EngineDiedError(f"the engine of {self._config.model} broke off a chain: {finish_reason}")
        completion = Completion(
            text=sample.text,
            finish_reason=finish_reason,
            num_prompt_tokens=len(output.prompt_token_ids or ()),
            num_tokens=len(sample.token_ids),
            # A number is an end token of the checkpoint's generation settings.
            stop=sample.stop_reason if isinstance(sample.stop_reason, str) else None,
        )
        told = sample.logprobs
        return self._config.kept(completion, told.logprobs if isinstance(told, FlatLogprobs) else (), sample.token_ids)

    def _token_ids(self, engine: "AsyncLLM", prompt: str | Messages, request: Request) -> list[int]:
        """A prompt as the model sees it. Raises PromptTooLongError where its whole budget does not fit behind it."""
        key = canonical(prompt)
        token_ids = self._encoded.get(key)
        if token_ids is None:
            tokenizer: Any = engine.get_tokenizer()
            if isinstance(prompt, str):
                token_ids = tokenizer.encode(prompt)
            else:
                token_ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
            if len(self._encoded) == KEPT_PROMPTS:
                self._encoded.pop(next(iter(self._encoded)))
            self._encoded[key] = token_ids
        longest: int = engine.model_config.max_model_len
        if len(token_ids) + request.max_new_tokens > longest:
            # A chain that ends at this limit would be taken for one that was cut off at its own budget.
            raise PromptTooLongError(
                f"{request.problem_id}: prompt of {len(token_ids)} tokens + max_new_tokens = {request.max_new_tokens} "
                f"exceeds max_model_len = {longest}; raise max_model_len or lower max_new_tokens"
            )
        return token_ids

    def _params(self, request: Request, distribution: SamplingDistribution) -> "SamplingParams":
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=distribution.temperature,
            top_p=distribution.top_p,
            top_k=distribution.top_k,
            stop=list(distribution.stop) or None,
            seed=request.seed,
            max_tokens=request.max_new_tokens,
            logprobs=None if self._config.logprobs == "none" else 0,  # of the sampled token alone
            flat_logprobs=True,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def close(self) -> None:
        if self._before_load is not None:
            # A load that hangs fails without its processes. One that goes on beside it fails too, and is begun again.
            _kill(set(psutil.Process().children(recursive=True)) - self._before_load)
        if self._engine is None:
            return
        from vllm.v1.engine.exceptions import EngineDeadError

        engine, self._engine = self._engine, None
        if not self._loop.is_closed():
            # `shutdown` tells open requests nothing. This may be another thread: the supervisor's.
            self._loop.call_soon_threadsafe(engine.output_processor.propagate_error, EngineDeadError())
        cores = _cores(engine)
        processes = {*self._processes, *_families(cores)}
        engine.shutdown(timeout=CLOSE_S)
        # What hangs, or has lost its parent, is not ended by that.
        _kill(processes)
        for core in cores:
            core.join(CLOSE_S)
        # Until the last is gone, so is the memory that the next engine needs.
        deadline = time.monotonic() + CLOSE_S
        while any(map(_lives, processes)) and time.monotonic() < deadline:
            time.sleep(0.05)


def engine_arguments(config: Config) -> dict[str, Any]:
    """What vLLM is told of a model and its engine, by the names of its `EngineArgs`."""
    arguments: dict[str, Any] = {
        "model": models.locate(config.model),
        "revision": config.revision,
        "load_format": "safetensors",
        "quantization": config.quantization,
        "dtype": config.dtype,
        "tensor_parallel_size": config.tensor_parallel_size,
        "pipeline_parallel_size": config.pipeline_parallel_size,
        "max_model_len": config.max_model_len,
        "gpu_memory_utilization": config.memory_share,
        "max_num_seqs": config.max_num_seqs,
        "trust_remote_code": config.trust_remote_code,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "logprobs_mode": "raw_logprobs",
    }
    if config.pipeline_parallel_size > 1:
        arguments["distributed_executor_backend"] = "ray"
    elif config.tensor_parallel_size == 1:
        arguments["distributed_executor_backend"] = "uni"
    if not config.on_gpus(has_gpus=_has_gpus()):
        arguments |= {
            "enforce_eager": True,
            "kv_cache_memory_bytes": config.cpu_kv_cache_gib << 30,
            # A seeded request whose prefill is cut in chunks kills vLLM 0.32 on CPU: "CPU Generator does not use
            # offset".
            "enable_chunked_prefill": False,
        }
    return arguments


def _cores(engine: "AsyncLLM") -> "list[BaseProcess]":
    """The processes that the engine itself has started."""
    manager: Any = engine.engine_core.resources.engine_manager
    return manager.processes


def _families(cores: "Sequence[BaseProcess]") -> list[psutil.Process]:
    """Those of them that live, and what they have started."""
    found: list[psutil.Process] = []
    for core in cores:
        if not core.is_alive():
            continue  # its id may be another's by now
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(core.pid)
            found += [process, *process.children(recursive=True)]
    return found


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _lives(process: psutil.Process) -> bool:
    """Whether it is more than an entry that nobody has cleared away yet."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _has_gpus() -> bool:
    import torch

    return torch.cuda.is_available()
