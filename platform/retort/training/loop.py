"""The training loop: plain PyTorch, with or without a process group, without Ray.

The loss of a step is the weighted mean over all target tokens of its examples, over all micro-batches and workers, so
that neither packing nor the number of workers changes it. All that is random depends on the seed, the step and the
worker, so that a training that goes on from a saved state takes the steps that it would have taken.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
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
from retort.training.parallel import (
    Weights,
    accumulating,
    gather_optimizer,
    gather_weights,
    largest,
    load_optimizer,
    load_weights,
    rank_and_world,
    summed,
    wrap,
)
from retort.training.scoring import Batch, Scorer, layout
from retort.training.states import States

MOST_SAVING = 0.05
"""Share of the time that may go into saving states, where they are large."""
LOOK_EVERY_S = 5.0
"""Between two looks at whether a machine is about to be taken away, for which the workers wait for each other."""


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """One row of the training curve. `loss` is nats per target token; dev figures are None between measurements.

    `example_tokens` are those of the step's examples, each with its prompt, as plain training would compute them;
    `computed_tokens` are those that were, and `padding_share` is what came on top of these, of all positions. `mfu` is
    `speed`'s; `memory_bytes` the most that the first worker has used so far; `seconds` leave out what is measured.
    """

    step: int
    loss: float
    dev_loss: float | None
    dev_accuracy: float | None
    learning_rate: float
    grad_norm: float
    target_tokens: int
    example_tokens: int
    computed_tokens: int
    padding_share: float
    mfu: float | None
    memory_bytes: int
    seconds: float

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Progress:
    """What a training has come to. `best_weights` are on the first worker alone, and empty before a measurement."""

    curve: list[StepMetrics] = field(default_factory=list)
    best: StepMetrics | None = None
    best_weights: Weights = field(default_factory=dict)
    went_on_from: list[int] = field(default_factory=list)
    """Steps of the states that it went on from, each time after it had died."""

    def is_better(self, row: StepMetrics, config: TrainingConfig) -> bool:
        """Whether a measurement beats the best so far."""
        if config.choose_by == "dev_accuracy":
            assert row.dev_accuracy is not None
            return self.best is None or row.dev_accuracy > (self.best.dev_accuracy or 0.0)
        if row.dev_loss is None or math.isnan(row.dev_loss):
            return False
        return self.best is None or row.dev_loss < (self.best.dev_loss or 0.0)

    def is_over(self, config: TrainingConfig) -> bool:
        """Whether the last measurements have brought nothing better for too long."""
        if config.patience is None or self.best is None:
            return False
        since = [row for row in self.curve if row.step > self.best.step and is_measured(row)]
        return len(since) >= config.patience


def is_measured(row: StepMetrics) -> bool:
    """Whether the step ended with a measurement on dev problems."""
    return row.dev_loss is not None or row.dev_accuracy is not None


@dataclass(frozen=True)
class Surroundings:
    """What a training has around it, where it has it."""

    states: States | None = None
    """Where it keeps states, and finds them again."""
    examine: Callable[[Any], tuple[int, int]] | None = None
    """This worker's share of the dev problems: how many the student answers right, and of how many."""
    is_ending: Callable[[], bool] = lambda: False
    """Whether this machine is about to be taken away; asked on all workers at once."""


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
    trainee = Trainee(model, config, pad_id, device)
    around = around or Surroundings()
    progress = trainee.go_on(around.states)
    draws = islice(draw_steps(examples, config), len(progress.curve), config.steps)
    saved_at = looked_at = time.monotonic()
    pause = config.save_every_s
    for step, drawn in enumerate(draws, start=len(progress.curve) + 1):
        if progress.is_over(config):
            break
        now = time.monotonic()
        # Clocks differ, and all workers must do the same: what one of them wants is done by all.
        metrics, (is_due, looks) = trainee.step(step, drawn, (now - saved_at >= pause, now - looked_at >= LOOK_EVERY_S))
        if step == config.steps or step % config.dev_every == 0:
            metrics = trainee.measure(metrics, dev_examples, around.examine)
        progress.curve.append(metrics)
        if is_measured(metrics) and progress.is_better(metrics, config):
            progress.best, progress.best_weights = metrics, gather_weights(trainee.scorer)
        on_step(metrics)
        looked_at = time.monotonic() if looks else looked_at
        if around.states is not None and ((looks and around.is_ending()) or is_due):
            began = time.monotonic()
            trainee.save(around.states, progress)
            saved_at = time.monotonic()
            pause = config.save_every_s and max(config.save_every_s, (saved_at - began) / MOST_SAVING)
    if around.states is not None:
        around.states.wait()
    if not progress.best_weights and progress.best is None:
        progress.best_weights = gather_weights(trainee.scorer)
    return progress


class Trainee:
    """A student in training on this worker: its scorer, its optimiser, and how its examples are laid out."""

    def __init__(self, model: Any, config: TrainingConfig, pad_id: int, device: torch.device) -> None:
        from transformers import get_scheduler

        self._config, self._device = config, device
        self._rank, self._world = rank_and_world()
        self._layout = layout(model, config, pad_id)
        self._dtype = getattr(torch, config.dtype)
        # What is compiled is fused as it is, adapters and shards hide the output layer.
        fused = None if config.compile or config.shard or config.lora else fused_loss(model, self._dtype)
        if config.activation_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model = with_adapters(model, config.lora)
        if config.compile:
            model.compile()
        self._bare = Scorer(model, self._dtype, fused)
        self.scorer = wrap(self._bare, config.shard)
        trained = [parameter for parameter in self.scorer.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(
            trained,
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
        state = None if states is None else states.newest()
        if state is None:
            return Progress()
        load_weights(self.scorer, state["weights"])
        load_optimizer(self.scorer, self._optimizer, state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        curve = [StepMetrics(**row) for row in state["curve"]]
        best = next((row for row in curve if row.step == state["best_step"]), None)
        weights = state["best_weights"] if self._rank == 0 else {}
        return Progress(curve, best, weights, [*state["went_on_from"], len(curve)])

    def save(self, states: States, progress: Progress) -> None:
        """Save a state; all workers gather it, the first one keeps it."""
        weights, optimizer = gather_weights(self.scorer), gather_optimizer(self.scorer, self._optimizer)
        if self._rank > 0:
            return
        state = {
            "weights": weights,
            "optimizer": optimizer,
            "schedule": self._schedule.state_dict(),
            "curve": [row.as_row() for row in progress.curve],
            "best_step": progress.best.step if progress.best else None,
            "best_weights": progress.best_weights,
            "went_on_from": progress.went_on_from,
        }
        states.save(len(progress.curve), state)

    def step(
        self, step: int, drawn: Sequence[TokenizedExample], wishes: Sequence[bool]
    ) -> tuple[StepMetrics, list[bool]]:
        """One optimiser step on some examples; its metrics, and each wish that any worker has."""
        started = time.perf_counter()
        torch.manual_seed((self._config.seed * 1_000_003 + step) * 1_009 + self._rank)
        batches = self._batches(drawn)
        weight = sum(example.weight * len(example.target_ids) for example in drawn)
        learning_rate = float(self._schedule.get_last_lr()[0])
        own = self._backward(batches, weight)
        flops = [speed.forward_backward_flops(self._bare.model, batch) for batch in batches]
        tokens, positions = sum(batch.num_tokens for batch in batches), sum(batch.num_positions for batch in batches)
        known = sum(each for each in flops if each is not None)
        loss, tokens, positions, known, *wished = summed([own, tokens, positions, known, *wishes], self._device)
        if not math.isfinite(loss):
            raise ValueError(
                f"loss is {loss} at step {step}: expected a finite one; lower training.learning_rate; states that were "
                f"saved before are kept until then"
            )
        grad_norm = self._update(step)
        seconds = time.perf_counter() - started
        peak = speed.peak_flops(self._device, self._dtype) * self._world
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
            mfu=None if None in flops else known / (seconds * peak),
            memory_bytes=speed.peak_memory(self._device),
            seconds=seconds,
        )
        return metrics, [votes > 0 for votes in wished]

    def _batches(self, examples: Sequence[TokenizedExample]) -> list[Batch]:
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
                f"the gradient's norm is {whole} at step {step}: expected a finite one; lower "
                f"training.learning_rate; states that were saved before are kept until then"
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
        row = {each.name: getattr(metrics, each.name) for each in fields(metrics)}
        self.scorer.eval()
        if examples:
            row["dev_loss"] = self.mean_loss(examples)
        if examine is not None:
            right, asked = summed(examine(self._bare.model), self._device)
            row["dev_accuracy"] = right / asked if asked else None
        self.scorer.train()
        return StepMetrics(**row)

    def mean_loss(self, examples: Sequence[TokenizedExample]) -> float:
        """Loss per target token over examples, shared out over the workers."""
        loss = 0.0
        with torch.no_grad():
            for batch in self._batches(examples):
                loss += self.scorer(batch, self._device).item()
        (total,) = summed([loss], self._device)
        return total / sum(len(example.target_ids) for example in examples)
