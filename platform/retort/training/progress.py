"""What a training has come to: its curve, the best of its weights, and whether it is over."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from retort.training.config import TrainingConfig

Weights = dict[str, Any]
"""Tensors by name."""


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
        """Whether a measurement beats the best so far; of two with one accuracy the one with the lower loss does."""

        def rank(each: StepMetrics) -> tuple[float, float]:
            right = each.dev_accuracy if config.choose_by == "dev_accuracy" else None
            return -(right or 0.0), math.inf if each.dev_loss is None else each.dev_loss

        is_known = row.dev_accuracy is not None if config.choose_by == "dev_accuracy" else row.dev_loss is not None
        if row.dev_loss is not None and math.isnan(row.dev_loss):
            return False
        return is_known and (self.best is None or rank(row) < rank(self.best))

    def is_over(self, config: TrainingConfig) -> bool:
        """Whether the last measurements have brought nothing better for too long."""
        if config.patience is None or self.best is None:
            return False
        since = [row for row in self.curve if row.step > self.best.step and is_measured(row)]
        return len(since) >= config.patience


def is_measured(row: StepMetrics) -> bool:
    """Whether the step ended with a measurement on dev problems."""
    return row.dev_loss is not None or row.dev_accuracy is not None
