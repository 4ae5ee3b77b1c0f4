"""How one request becomes one chain, given an engine. Plain asyncio; knows nothing of Ray."""

import json
import time

from retort.engines.interface import Engine, SamplingDistribution
from retort.records import Chain, Request


async def single_turn(engine: Engine, request: Request, distribution: SamplingDistribution) -> Chain | None:
    """Ask once. None where the engine has nothing to give for this request."""
    completion = await engine.complete(json.loads(request.prompt), request, distribution)
    if completion is None:
        return None
    return Chain(
        prompt_hash=request.prompt_hash,
        index=request.index,
        prompt=request.prompt,
        text=completion.text,
        finish_reason=completion.finish_reason,
        num_prompt_tokens=completion.num_prompt_tokens,
        num_tokens=completion.num_tokens,
        max_new_tokens=request.max_new_tokens,
        seed=request.seed,
        problem_id=request.problem_id,
        thought=request.thought,
        finished_at_s=time.time(),
    )
