"""The training loop: plain PyTorch, with or without a process group, without Ray.

The loss of a step is the weighted mean over all target tokens of its examples, over all micro-batches and workers, so
that neither packing nor the number of workers changes it. All that is random depends on the seed, the step and the
worker, so that a training that goes on from a saved state takes the steps that it would have taken.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from retort.training import speed
from retort.training.adapters import with_adapters
from retort.training.config import TrainingConfig
from retort.training.drawing import draw_steps
from retort.training.examples import TokenizedExample
from retort.training.fused import fused_loss
from retort.training.keeping import Keeper, Surroundings
from retort.training.parallel import (
    accumulating,
    gather_optimizer,
    gather_weights,
    largest,
    load_optimizer,
    load_weights,
    rank_and_world,
    summed,
    together,
    told_by_first,
    wrap,
)
from retort.training.progress import Progress, StepMetrics, is_measured
from retort.training.scoring import Batch, Scorer, layout
from retort.training.states import State, States

logger = logging.getLogger(__name__)
LARGE = ("weights", "optimizer", "best_weights")
"""Parts of a state that hold tensors."""


def fit(
    model: Any,
    examples: Sequence[TokenizedExample],
    dev_examples: Sequence[TokenizedExample],
    config: TrainingConfig,
    pad_id: int,
    device: torch.device,
    on_step: Callable[[StepMetrics], None],
    around: Surroundings | None = None,
) -> Progress:
    """Train in place, for `config.steps` steps or until it no longer gets better, from the newest state if any.

    `on_step` sees every step's metrics, on every worker alike. What comes back has the weights of the best measurement,
    those of the last step where nothing was measured.

    Raises:
        ValueError: there is nothing to learn from, the model cannot take it, or the loss is not finite.
        OSError: a state could not be saved.
    """
    if not examples:
        raise ValueError("no training examples: expected at least one; look at the reasons in the corpus artifact")
    around = around or Surroundings()
    if config.patience is not None and not dev_examples and around.examine is None:
        raise ValueError(f"patience = {config.patience}: there is nothing to measure on; expected dev examples")
    trainee = Trainee(model, config, pad_id, device)
    progress = trainee.go_on(around.states)
    if progress.curve:
        around.on_going_on()
    keeper = Keeper(around, config.save_every_s)
    draws = islice(draw_steps(examples, config), len(progress.curve), config.steps)
    for step, drawn in enumerate(draws, start=len(progress.curve) + 1):
        if progress.is_over(config):
            break
        metrics, wished = trainee.step(step, drawn, keeper.wishes)
        if step == config.steps or step % config.dev_every == 0:
            metrics = trainee.measure(metrics, dev_examples, around.examine)
        progress.curve.append(metrics)
        if is_measured(metrics) and progress.is_better(metrics, config):
            progress.best, progress.best_weights = metrics, gather_weights(trainee.scorer)
        on_step(metrics)
        keeper.keep(progress, wished, trainee.save)
    if progress.best is None:
        progress.best_weights = gather_weights(trainee.scorer)
    with together():
        if around.states is not None:
            around.states.wait()
    return progress


class Trainee:
    """A student in training on this worker: its scorer, its optimiser, and how its examples are laid out."""

    def __init__(self, model: Any, config: TrainingConfig, pad_id: int, device: torch.device) -> None:
        from transformers import get_scheduler

        self._config, self._device = config, device
        self._rank, self._world = rank_and_world()
        speed.forget_peak_memory(device)
        self._layout = layout(model, config, pad_id, device)
        self._dtype = getattr(torch, config.dtype)
        # What is compiled is fused as it is, adapters and shards hide the output layer.
        fused = None if config.compile or config.shard or config.lora else fused_loss(model, self._dtype)
        if config.activation_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model = with_adapters(model, config.lora)
        if config.compile:
            model.compile()
        self._bare = Scorer(model, self._dtype, fused)
        self.scorer = wrap(self._bare, config.shard, self._dtype)
        trained = [parameter for parameter in self.scorer.parameters() if parameter.requires_grad]
        # Matrices decay, biases and norms do not, as in transformers' own trainer.
        groups: list[dict[str, Any]] = [
            {"params": [parameter for parameter in trained if parameter.ndim >= 2]},
            {"params": [parameter for parameter in trained if parameter.ndim < 2], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=config.learning_rate,
            eps=config.adam_epsilon,
            weight_decay=config.weight_decay,
            fused=True,
        )
        name = "constant_with_warmup" if config.schedule == "constant" else config.schedule
        self._schedule: Any = get_scheduler(name, self._optimizer, config.warmup_steps, config.steps)
        self.scorer.train()

    def go_on(self, states: States | None) -> Progress:
        """Take over the newest state; what it has come to, which is nothing where there is none."""
        state: State = {}
        with together():
            if self._rank == 0 and states is not None:
                state = states.newest() or {}
        # All go on from what the first has found, whatever comes to the store meanwhile.
        known = told_by_first({name: value for name, value in state.items() if name not in LARGE})
        if not known:
            return Progress()
        if self._rank == 0:
            logger.info("training goes on from the state of step %d", len(known["curve"]))
        load_weights(self.scorer, state.get("weights", {}))
        load_optimizer(self.scorer, self._optimizer, state.get("optimizer", {}))
        self._schedule.load_state_dict(known["schedule"])
        curve = [StepMetrics(**row) for row in known["curve"]]
        best = next((row for row in curve if row.step == known["best_step"]), None)
        return Progress(curve, best, state.get("best_weights", {}), [*known["went_on_from"], len(curve)])

    def save(self, states: States, progress: Progress) -> None:
        """Save a state; all workers gather it, the first one keeps it. Raises OSError where it cannot, on all."""
        weights, optimizer = gather_weights(self.scorer), gather_optimizer(self.scorer, self._optimizer)
        state: State = {
            "weights": weights,
            "optimizer": optimizer,
            "schedule": self._schedule.state_dict(),
            "curve": [row.as_row() for row in progress.curve],
            "best_step": progress.best.step if progress.best else None,
            "best_weights": progress.best_weights,
            "went_on_from": progress.went_on_from,
        }
        with together():
            if self._rank == 0:
                states.save(len(progress.curve), state)

    def step(
        self, step: int, drawn: Sequence[TokenizedExample], wishes: Sequence[bool]
    ) -> tuple[StepMetrics, list[bool]]:
        """One optimiser step on some examples; its metrics, and each wish that any worker has."""
        started = time.perf_counter()
        torch.manual_seed((self._config.seed * 1_000_003 + step) * 1_009 + self._rank)
        batches = self.batches(drawn)
        weight = sum(example.weight * len(example.target_ids) for example in drawn)
        learning_rate = float(self._schedule.get_last_lr()[0])
        own = self._backward(batches, weight)
        peak = speed.peak_flops(self._device, self._dtype)
        flops = [speed.forward_backward_flops(self._bare.model, batch) for batch in batches if peak is not None]
        tokens, positions = sum(batch.num_tokens for batch in batches), sum(batch.num_positions for batch in batches)
        known = sum(each for each in flops if each is not None)
        loss, tokens, positions, known, *wished = summed([own, tokens, positions, known, *wishes], self._device)
        if not math.isfinite(loss):
            raise ValueError(
                f"loss is {loss} at step {step}: expected a finite one; lower training.learning_rate "
                f"or max_grad_norm; the last saved state stays in the store"
            )
        grad_norm = self._update(step)
        seconds = time.perf_counter() - started
        metrics = StepMetrics(
            step=step,
            loss=loss,
            dev_loss=None,
            dev_accuracy=None,
            learning_rate=learning_rate,
            grad_norm=grad_norm,
            target_tokens=sum(len(example.target_ids) for example in drawn),
            example_tokens=sum(map(len, drawn)),
            computed_tokens=int(tokens),
            padding_share=1 - tokens / positions,
            mfu=None if peak is None or None in flops else known / (seconds * peak * self._world),
            memory_bytes=speed.peak_memory(self._device),
            seconds=seconds,
        )
        return metrics, [votes > 0 for votes in wished]

    def batches(self, examples: Sequence[TokenizedExample]) -> list[Batch]:
        """This worker's batches, as many as every other's: each forward pass may be one that all take part in."""
        batches = self._layout.batches(examples, self._rank, self._world)
        lacking = largest(len(batches), self._device) - len(batches) if self._world > 1 else 0
        return batches + [self._layout.empty()] * lacking

    def _backward(self, batches: Sequence[Batch], weight: float) -> float:
        """Accumulate a step's gradients; this worker's part of the loss. Gradients are averaged, hence `world`."""
        total = 0.0
        for number, batch in enumerate(batches, start=1):
            with accumulating(self.scorer, number == len(batches)):
                loss = self.scorer(batch, self._device) / weight
                (loss * self._world).backward()
            total += loss.item()
        return total

    def _update(self, step: int) -> float:
        """Clip, step, and forget the gradients; their norm before clipping."""
        norm = torch.nn.utils.clip_grad_norm_(self.scorer.parameters(), self._config.max_grad_norm)
        whole = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if not math.isfinite(whole):
            raise ValueError(
                f"the gradient's norm is {whole} at step {step}: expected a finite one; lower training.learning_rate "
                f"or max_grad_norm; the last saved state stays in the store"
            )
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._schedule.step()
        return whole

    def measure(
        self,
        metrics: StepMetrics,
        examples: Sequence[TokenizedExample],
        examine: Callable[[Any], tuple[int, int]] | None,
    ) -> StepMetrics:
        """The metrics with the loss on dev examples, and the accuracy on dev problems where these are asked."""
        dev_accuracy = None
        self.scorer.eval()
        dev_loss = self.mean_loss(examples) if examples else None
        if examine is not None:
            own = 0, 0
            with together():
                own = examine(self._bare.model)
            right, asked = summed(own, self._device)
            dev_accuracy = right / asked
        self.scorer.train()
        return replace(metrics, dev_loss=dev_loss, dev_accuracy=dev_accuracy)

    def mean_loss(self, examples: Sequence[TokenizedExample]) -> float:
        """Loss per target token over examples, shared out over the workers."""
        loss = 0.0
        with torch.no_grad():
            for batch in self.batches(examples):
                loss += self.scorer(batch, self._device).item()
        (total,) = summed([loss], self._device)
        return total / sum(len(example.target_ids) for example in examples)
