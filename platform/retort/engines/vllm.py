"""`vllm`: an AsyncLLM in this process's event loop. Requests join its continuous batch as they come.

Every request carries its own seed and asks for the final output only; siblings of a prompt share their prefill through
the engine's prefix cache. On CPU builds the key-value cache is set by `cpu_kv_cache_gib`.
"""

import os
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field

from retort.engines import models
from retort.engines.interface import Completion, PromptTooLongError, SamplingDistribution, Seeding
from retort.engines.local import LocalModelConfig
from retort.prompts import Messages
from retort.records import Request

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

SEEDING: Seeding = "exact"


class Config(LocalModelConfig):
    """Settings of a model served by vLLM inside an actor."""

    quantization: str | None = None
    """vLLM's name of the quantisation; part of the model's identity."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs of one engine."""
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

    def num_gpus(self, has_gpus: bool) -> int:
        return super().num_gpus(has_gpus) * self.tensor_parallel_size


class Engine:
    """One AsyncLLM and its engine process."""

    def __init__(self, config: Config) -> None:
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        self._config = config
        self._engine: AsyncLLM | None = None
        self._next_id = 0

    def _start(self) -> "AsyncLLM":
        """Load the model. Called inside the event loop that the engine's tasks are to live in."""
        try:
            from vllm import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError as error:
            raise ImportError("engine 'vllm' needs vLLM: install retort with the extra 'gpu' or 'cpu'") from error
        config = self._config
        model = models.locate(config.model)
        arguments: dict[str, Any] = {
            "model": model,
            "revision": config.revision,
            "load_format": "safetensors",
            "quantization": config.quantization,
            "dtype": config.dtype,
            "tensor_parallel_size": config.tensor_parallel_size,
            "max_model_len": config.max_model_len,
            "gpu_memory_utilization": config.memory_share,
            "max_num_seqs": config.max_num_seqs,
            "trust_remote_code": config.trust_remote_code,
            "enable_prefix_caching": True,
            "disable_log_stats": True,
        }
        if config.tensor_parallel_size == 1:
            arguments["distributed_executor_backend"] = "uni"
        if not config.num_gpus(has_gpus=_has_gpus()):
            arguments |= {
                "enforce_eager": True,
                "kv_cache_memory_bytes": config.cpu_kv_cache_gib << 30,
                # A seeded request whose prefill is cut in chunks kills vLLM 0.32 on CPU: "CPU Generator does not use
                # offset".
                "enable_chunked_prefill": False,
            }
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))

    async def complete(
        self, prompt: str | Messages, request: Request, distribution: SamplingDistribution
    ) -> Completion:
        from vllm import TokensPrompt

        if self._engine is None:
            self._engine = self._start()
        tokenizer: Any = self._engine.get_tokenizer()
        if isinstance(prompt, str):
            token_ids = tokenizer.encode(prompt)
        else:
            token_ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
        longest: int = self._engine.model_config.max_model_len
        if len(token_ids) + request.max_new_tokens > longest:
            # A chain that ends at this limit would be taken for one that was cut off at its own budget.
            raise PromptTooLongError(
                f"{request.problem_id}: prompt of {len(token_ids)} tokens + max_new_tokens = {request.max_new_tokens} "
                f"exceeds max_model_len = {longest}; raise max_model_len or lower max_new_tokens"
            )
        self._next_id += 1
        async for output in self._engine.generate(
            TokensPrompt(prompt_token_ids=token_ids), _params(request, distribution), request_id=str(self._next_id)
        ):
            if output.finished:
                (sample,) = output.outputs
                return Completion(
                    text=sample.text,
                    finish_reason="length" if sample.finish_reason == "length" else "stop",
                    num_prompt_tokens=len(output.prompt_token_ids or ()),
                    num_tokens=len(sample.token_ids),
                    # A number is an end token of the checkpoint's generation settings.
                    stop=sample.stop_reason if isinstance(sample.stop_reason, str) else None,
                )
        raise RuntimeError(f"vLLM ended request {request.prompt_hash[:8]}/{request.index} without a final output")

    def close(self) -> None:
        if self._engine is not None:
            self._engine.shutdown()
            self._engine = None


def _params(request: Request, distribution: SamplingDistribution) -> "SamplingParams":
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=distribution.temperature,
        top_p=distribution.top_p,
        top_k=distribution.top_k,
        stop=list(distribution.stop) or None,
        seed=request.seed,
        max_tokens=request.max_new_tokens,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _has_gpus() -> bool:
    import torch

    return torch.cuda.is_available()
