"""The sides of the sampling benchmark, each in a process of its own that loads its engine anew.

    python tests/benchmarks/sides.py SIDE FOLDER MODEL LENGTHS CHAINS SEED

ours          `sampling.sample`: Ray Data, the pool, verification as chains finish
bare          one asyncio program around vLLM's AsyncLLM, and nothing else
ray_data_llm  the processor of `ray.data.llm`, batches of its default size
generate      one `LLM.generate` for each batch

All have the same engine arguments, one seeded row a chain, the same rows and synced segments. The bare loop flushes as
ours does, by time and by number; the other two have no other way than a segment a batch.
"""

import asyncio
import itertools
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pyarrow as pa
from workload import DISTRIBUTION, Config, Engine, Lengths, Workload, chain_of, ending, engine_config, mark, mark_of

from retort.engines import ENGINES, vllm
from retort.records import Chain, Request, as_row, from_rows, to_table
from retort.sampling import Model, SamplingConfig, sample
from retort.store import Store, open_store
from retort.store.artifacts import parquet_bytes
from retort.store.pool import Pool
from retort.verification import VerificationConfig

GENERATE_BATCH = 64
RAY_DATA_LLM_BATCH = 32
"""Its default."""


def ours(work: Workload, folder: Path, config: Config) -> None:
    """What we built, as a recipe uses it."""
    from retort.command import start_ray

    ENGINES["drawn"] = SimpleNamespace(Config=Config, Engine=Engine, SEEDING="exact")  # type: ignore[assignment]
    store = store_of(folder)
    model = Model("drawn", (config,))
    start_ray(store)
    plans = [(work.plan(model.pool(store, DISTRIBUTION)), DISTRIBUTION)]
    (sampled,) = sample(model, plans, SamplingConfig(), "bench", VerificationConfig())
    (folder / "sampled.json").write_text(json.dumps(asdict(sampled)))


def bare(work: Workload, folder: Path, config: Config) -> None:
    """The engine's own speed: what nobody can be faster than."""
    asyncio.run(_bare(requests_of(work, folder), work.lengths, folder, config))


async def _bare(requests: Sequence[Request], lengths: Lengths, folder: Path, config: Config) -> None:
    from vllm import TokensPrompt

    engine = vllm.Engine(config)
    await engine.start()
    llm = engine._engine
    assert llm is not None
    tokenizer: Any = llm.get_tokenizer()
    store, numbers, waiting = store_of(folder), itertools.count(), list[Chain]()
    slots = asyncio.Semaphore(config.capacity)
    when = SamplingConfig()

    async def flush() -> None:
        taken = waiting.copy()
        waiting.clear()
        if taken:
            await asyncio.to_thread(write, store, next(numbers), taken)

    async def flush_now_and_then() -> None:
        while True:
            await asyncio.sleep(when.flush_s / 2)
            await flush()

    async def one(number: int, request: Request) -> None:
        async with slots:
            tokens, _ = ending(request, lengths)
            prompt = TokensPrompt(prompt_token_ids=tokenizer.encode(json.loads(request.prompt)))
            async for output in llm.generate(prompt, params(engine, request, tokens), request_id=str(number)):
                if output.finished:
                    waiting.append(chain_from(request, output))
        if len(waiting) >= when.segment_chains:
            await flush()

    mark(mark_of(folder))
    flushing = asyncio.create_task(flush_now_and_then())
    await asyncio.gather(*itertools.starmap(one, enumerate(requests)))
    flushing.cancel()
    await flush()
    engine.close()


def generate(work: Workload, folder: Path, config: Config) -> None:
    """Batch by batch: a batch ends with its longest chain."""
    from vllm import LLM, TokensPrompt

    requests = requests_of(work, folder)
    engine, llm = vllm.Engine(config), LLM(**vllm.engine_arguments(config))
    tokenizer: Any = llm.get_tokenizer()
    store = store_of(folder)
    mark(mark_of(folder))
    for number, start in enumerate(range(0, len(requests), GENERATE_BATCH)):
        batch = requests[start : start + GENERATE_BATCH]
        outputs = llm.generate(
            [TokensPrompt(prompt_token_ids=tokenizer.encode(json.loads(request.prompt))) for request in batch],
            [params(engine, request, ending(request, work.lengths)[0]) for request in batch],
            use_tqdm=False,
        )
        write(store, number, list(map(chain_from, batch, outputs)))


def ray_data_llm(work: Workload, folder: Path, config: Config) -> None:
    """Ray's own way: batches side by side, each of which ends with its longest chain."""
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    ray.init("local", num_cpus=4, logging_level=logging.WARNING)
    arguments = vllm.engine_arguments(config)
    settings = vLLMEngineProcessorConfig(
        model_source=arguments.pop("model"),
        engine_kwargs=arguments,
        batch_size=RAY_DATA_LLM_BATCH,
        concurrency=1,
        # The engine does all three, in one process instead of three.
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
        placement_group_config={"bundles": [{"CPU": 1}]},
        log_engine_metrics=False,
    )
    processor = build_processor(settings, preprocess=to_processor, postprocess=from_processor)
    # A copy, because an assignment would ask for a GPU again.
    (name, stage), *_ = processor.stages.items()
    processor.stages[name] = stage.model_copy(update={"fn": marking(stage.fn, str(mark_of(folder)))})
    rows = [{**as_row(request), "tokens": ending(request, work.lengths)[0]} for request in requests_of(work, folder)]
    blocks = -(-len(rows) // RAY_DATA_LLM_BATCH)
    written = processor(ray.data.from_items(rows, override_num_blocks=blocks)).map_batches(
        Writer, fn_constructor_args=(str(folder),), batch_size=None, batch_format="pyarrow", concurrency=1
    )
    assert sum(row["written"] for row in written.iter_rows()) == len(rows)


def to_processor(row: dict[str, Any]) -> dict[str, Any]:
    """A request as the processor wants it."""
    sampling: dict[str, Any] = {"temperature": DISTRIBUTION.temperature, "top_p": DISTRIBUTION.top_p}
    sampling |= {"top_k": DISTRIBUTION.top_k, "seed": row["seed"], "max_tokens": row["tokens"]}
    return {"request": {**row}, "prompt": json.loads(row["prompt"]), "sampling_params": sampling}


def from_processor(row: dict[str, Any]) -> dict[str, Any]:
    """What the processor says of a request."""
    return {
        **row["request"],
        "text": row["generated_text"],
        "num_prompt_tokens": row["num_input_tokens"],
        "num_tokens": row["num_generated_tokens"],
    }


def marking(stage: type[Any], path: str) -> type[Any]:
    """A stage that says when it first asks its engine."""

    class Marking(stage):
        async def udf(self, batch: list[dict[str, Any]]) -> Any:
            mark(Path(path))
            async for row in super().udf(batch):
                yield row

    return Marking


class Writer:
    """Writes each block of the processor's rows as one segment."""

    def __init__(self, folder: str) -> None:
        self._store = store_of(Path(folder))
        self._numbers = itertools.count()

    def __call__(self, block: pa.Table) -> pa.Table:
        chains: list[Chain] = []
        for row in block.to_pylist():
            text, num_prompt_tokens, num_tokens = (
                row.pop(name) for name in ("text", "num_prompt_tokens", "num_tokens")
            )
            del row["tokens"]
            (request,) = from_rows(Request, [row])
            chains.append(chain_of(request, text, num_prompt_tokens, num_tokens, time.time()))
        write(self._store, next(self._numbers), chains)
        return pa.table({"written": [len(chains)]})


def params(engine: vllm.Engine, request: Request, tokens: int) -> Any:
    """vLLM's parameters of one request, as our engine makes them."""
    return engine._params(replace(request, max_new_tokens=tokens), DISTRIBUTION)


def chain_from(request: Request, output: Any) -> Chain:
    """A finished output of vLLM as a row."""
    (sample_,) = output.outputs
    return chain_of(request, sample_.text, len(output.prompt_token_ids), len(sample_.token_ids), time.time())


def store_of(folder: Path) -> Store:
    """Where a side writes."""
    return open_store(str(folder / "store"))


def requests_of(work: Workload, folder: Path) -> list[Request]:
    """The work as requests; only ours has a pool, the others take its keys."""
    return work.requests(Pool(store_of(folder), {}))


def write(store: Store, number: int, chains: Sequence[Chain]) -> None:
    """Make chains durable as one segment."""
    store.put(f"segments/{number:06d}.parquet", parquet_bytes(to_table(Chain, chains)))


SIDES: dict[str, Callable[[Workload, Path, Config], None]] = {
    "ours": ours,
    "bare": bare,
    "ray_data_llm": ray_data_llm,
    "generate": generate,
}


def main(arguments: Sequence[str]) -> None:
    """Run one side."""
    side, folder, model, lengths, num_chains, seed = arguments
    (kind,) = (each for each in get_args(Lengths) if each == lengths)
    work = Workload(kind, int(num_chains), int(seed))
    SIDES[side](work, Path(folder), engine_config(kind, Path(folder), Path(model)))


if __name__ == "__main__":
    main(sys.argv[1:])
