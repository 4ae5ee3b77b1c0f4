"""Workers that train one student together: what is wrapped, summed, gathered and shared out. Alone, all of it is idle.

Data parallel (DDP) where each worker holds the student, FSDP2 where weights, gradients and optimiser are shared out.
Whole states, which any number of workers can load, are gathered on the first.
"""

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from retort.training.progress import Weights
from retort.training.scoring import Scorer


@contextmanager
def together() -> Generator[None]:
    """What one worker refuses, all refuse, with the same words; around what each does by itself, not with the others.

    Raises:
        ValueError, OSError: this worker's own.
        ValueError: another's.
    """
    trouble: ValueError | OSError | None = None
    try:
        yield
    except (ValueError, OSError) as error:
        trouble = error
    told: list[str | None] = [None] * rank_and_world()[1]
    if dist.is_initialized():
        dist.all_gather_object(told, None if trouble is None else str(trouble))
    if trouble is not None:
        raise trouble
    for each in told:
        if each is not None:
            raise ValueError(each)


def rank_and_world() -> tuple[int, int]:
    """This worker's number, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def wrap(scorer: Scorer, shard: bool, dtype: torch.dtype) -> torch.nn.Module:
    """A scorer whose gradients are averaged over the workers, its weights shared out where they are to be."""
    if rank_and_world()[1] == 1:
        return scorer
    if not shard:
        return DistributedDataParallel(scorer)
    layers: set[str] = set(getattr(scorer.model, "_no_split_modules", None) or ())
    # Gathered in the precision of products, summed in full.
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for module in scorer.modules():
        if type(module).__name__ in layers:
            fully_shard(module, mp_policy=policy)
    fully_shard(scorer, mp_policy=policy)
    return scorer


def accumulating(scorer: torch.nn.Module, is_last: bool) -> AbstractContextManager[None]:
    """Around a backward pass: gradients of whole students are exchanged in the last one of a step alone. Those of
    shards are in each, or every worker would hold them whole."""
    if isinstance(scorer, DistributedDataParallel) and not is_last:
        return scorer.no_sync()
    return nullcontext()


def summed(values: Sequence[float], device: torch.device) -> list[float]:
    """Each value summed over the workers."""
    if not dist.is_initialized():
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return total.tolist()


def largest(value: int, device: torch.device) -> int:
    """The largest value of all workers."""
    if not dist.is_initialized():
        return value
    found = torch.tensor(value, device=device)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return int(found)


_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)


def gather_weights(scorer: torch.nn.Module) -> Weights:
    """A copy in main memory of all weights that are trained; empty on all workers but the first."""
    found: dict[str, Any] = get_model_state_dict(scorer, options=_WHOLE)
    copies = {(tensor.data_ptr(), tensor.shape): tensor.clone() for tensor in found.values()}  # tied ones once
    return {name: copies[tensor.data_ptr(), tensor.shape] for name, tensor in found.items()}


def gather_optimizer(scorer: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The same of what the optimiser knows, which may share memory with it."""
    return get_optimizer_state_dict(scorer, optimizer, options=_WHOLE)


def load_weights(scorer: torch.nn.Module, weights: Weights) -> None:
    """Take over weights that were gathered, which the first worker has; frozen ones stay those of the base."""
    options = StateDictOptions(full_state_dict=True, strict=False, broadcast_from_rank0=dist.is_initialized())
    found = set_model_state_dict(scorer, weights, options=options)
    if rank_and_world()[0] == 0:
        trained = {name.removeprefix("module.") for name, each in scorer.named_parameters() if each.requires_grad}
        lacking = trained & {name.removeprefix("module.") for name in found.missing_keys}
        assert not found.unexpected_keys, f"weights of another student: {found.unexpected_keys[:3]}"
        assert not lacking, f"a state without {sorted(lacking)[:3]}"


def load_optimizer(scorer: torch.nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over what an optimiser knew, which the first worker has."""
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=dist.is_initialized())
    set_optimizer_state_dict(scorer, optimizer, state, options=options)


def told_by_first(value: Any) -> Any:
    """A small object of the first worker, on all."""
    told = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(told, src=0)
    return told[0]
