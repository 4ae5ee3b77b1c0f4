"""The training loop: plain PyTorch, with or without a process group, without Ray.

The loss of a step is the mean over all target tokens of its examples, over all micro-batches and workers, so that
neither packing nor the number of workers changes it.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy

from retort.training.config import TrainingConfig
from retort.training.examples import TokenizedExample, draw_steps
from retort.training.packing import IGNORED, Batch, Layout, layout


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """One row of the training curve. `loss` is nats per target token; `dev_loss` is None between measurements."""

    step: int
    loss: float
    dev_loss: float | None
    learning_rate: float
    grad_norm: float
    target_tokens: int
    padding_share: float
    seconds: float

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


def learning_rate_factor(config: TrainingConfig, step: int) -> float:
    """Share of the peak learning rate at a step (counted from 0)."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    match config.schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - progress
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))


def summed_loss(model: torch.nn.Module, batch: Batch, device: torch.device) -> torch.Tensor:
    """Cross-entropy summed over the target tokens of a micro-batch, in float32."""
    inputs = {name: tensor.to(device) for name, tensor in batch.inputs.items()}
    logits_BTV = model(**inputs, use_cache=False).logits
    labels_BT = batch.labels_BT.to(device)
    scored_BT = labels_BT != IGNORED
    return cross_entropy(logits_BTV[scored_BT].float(), labels_BT[scored_BT], reduction="sum")


def _sum_over_workers(value: float, device: torch.device) -> float:
    if not dist.is_initialized():
        return value
    total = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return total.item()


def mean_loss(
    model: torch.nn.Module, examples: Sequence[TokenizedExample], lay_out: Layout, device: torch.device
) -> float:
    """Loss per target token over examples, shared out over the workers; nan without examples."""
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    loss, tokens = 0.0, 0
    model.eval()
    with torch.inference_mode():
        for batch in lay_out(examples[rank::world]):
            loss += summed_loss(model, batch, device).item()
            tokens += int((batch.labels_BT != IGNORED).sum())
    model.train()
    total = _sum_over_workers(tokens, device)
    return _sum_over_workers(loss, device) / total if total else math.nan


def fit(
    model: torch.nn.Module,
    examples: Sequence[TokenizedExample],
    dev_examples: Sequence[TokenizedExample],
    config: TrainingConfig,
    pad_id: int,
    device: torch.device,
    on_step: Callable[[StepMetrics], None],
) -> None:
    """Train in place for `config.steps` steps; `on_step` sees every step's metrics, on every worker alike.

    Raises:
        ValueError: there is nothing to learn from, the model cannot take it, or the loss is not finite.
    """
    if not examples:
        raise ValueError("no training examples: expected at least one; look at the reasons in the corpus artifact")
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    bare = model.module if isinstance(model, torch.nn.parallel.DistributedDataParallel) else model
    lay_out = layout(bare, config, pad_id)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, eps=config.adam_epsilon, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(config, step))
    draws = draw_steps(examples, config.batch_examples, config.group_chains, config.seed, config.thought_weights)
    model.train()
    for step, drawn in zip(range(1, config.steps + 1), draws, strict=False):
        started = time.perf_counter()
        batches = list(lay_out(drawn[rank::world]))
        target_tokens = sum(len(example.target_ids) for example in drawn)
        learning_rate = float(schedule.get_last_lr()[0])
        loss = _backward(model, batches, target_tokens, world, device)
        if not math.isfinite(loss):
            raise ValueError(f"loss is {loss} at step {step}: expected a finite one; lower training.learning_rate")
        grad_norm = _update(model, optimizer, schedule, config.max_grad_norm)
        measure = bool(dev_examples) and (step == config.steps or step % config.dev_every == 0)
        dev_loss = mean_loss(model, dev_examples, lay_out, device) if measure else None
        used, size = sum(len(example) for example in drawn), sum(batch.num_tokens for batch in batches)
        padding_share = 1 - used / _sum_over_workers(size, device)
        seconds = time.perf_counter() - started
        on_step(StepMetrics(step, loss, dev_loss, learning_rate, grad_norm, target_tokens, padding_share, seconds))


def _update(model: torch.nn.Module, optimizer: Any, schedule: Any, max_grad_norm: float) -> float:
    """Clip, step, and forget the gradients; their norm before clipping."""
    grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    schedule.step()
    return float(grad_norm)


def _backward(
    model: torch.nn.Module, batches: Sequence[Batch], target_tokens: int, world: int, device: torch.device
) -> float:
    """Accumulate a step's gradients; return its loss. Workers' gradients are averaged, hence the factor `world`."""
    total = 0.0
    for number, batch in enumerate(batches):
        is_last = number + 1 == len(batches)
        waits = (
            model.no_sync()
            if isinstance(model, torch.nn.parallel.DistributedDataParallel) and not is_last
            else nullcontext()
        )
        with waits:
            loss = summed_loss(model, batch, device) / target_tokens
            (loss * world).backward()
        total += loss.item()
    return _sum_over_workers(total, device)
