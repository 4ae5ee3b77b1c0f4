"""What a training says as it goes: to the log now and then, to Prometheus, and to Ray Tune."""

import logging
import time
from dataclasses import dataclass

from retort.metrics import TrainingMetrics, runs_ray
from retort.training.config import TrainingConfig
from retort.training.progress import StepMetrics, is_measured

logger = logging.getLogger(__name__)
REPORT_EVERY_S = 5.0
SHOWN = ("loss", "dev_loss", "dev_accuracy", "step", "learning_rate", "padding_share", "memory_bytes", "mfu")
"""Fields of a step that are gauges."""


@dataclass
class Teller:
    """Sees every step of a training; on the first worker it speaks."""

    config: TrainingConfig
    label: str
    is_first: bool
    tells_tune: bool
    said_at: float = 0.0
    metrics: TrainingMetrics | None = None

    def __post_init__(self) -> None:
        """Where no Ray runs nobody reads metrics."""
        if self.is_first and runs_ray():
            self.metrics = TrainingMetrics(self.label, self.config.steps)

    def see(self, row: StepMetrics) -> None:
        """A step was taken."""
        config, label = self.config, self.label
        if self.metrics is not None:
            self.metrics.saw({name: getattr(row, name) for name in SHOWN}, row.example_tokens)
        if self.is_first and (is_measured(row) or time.monotonic() - self.said_at > REPORT_EVERY_S):
            self.said_at = time.monotonic()
            dev = "" if row.dev_loss is None else f", dev loss {row.dev_loss:.4f}"
            right = "" if row.dev_accuracy is None else f", dev accuracy {row.dev_accuracy:.1%}"
            speed = f"{row.example_tokens / row.seconds:,.0f} example tokens/s"
            used = "" if row.mfu is None else f", MFU {row.mfu:.0%}"
            place = f"{row.padding_share:.0%} padding, {row.memory_bytes / 1e9:.1f} GB"
            logger.info(
                "training %s: step %d/%d, loss %.4f%s%s; %s%s, %s",
                *(label, row.step, config.steps, row.loss, dev, right, speed, used, place),
            )
        # A trial that is stopped at its last step would be trained in vain.
        if self.tells_tune and row.dev_loss is not None and row.step < config.steps:
            tell_tune(row.step, row.dev_loss, config.num_workers)

    def saved(self) -> None:
        """A state was saved."""
        if self.metrics is not None:
            self.metrics.saved()

    def went_on(self) -> None:
        """The training goes on from a state."""
        if self.metrics is not None:
            self.metrics.went_on()

    def close(self) -> None:
        """The training is over."""
        if self.metrics is not None:
            self.metrics.close()


def tell_tune(step: int, dev_loss: float, num_workers: int | tuple[int, int]) -> None:
    """Report a dev loss to the trial that this training is part of: straight, or through Ray Train's report."""
    import ray.train
    from ray import tune

    report = ray.train.report if num_workers else tune.report
    report({"step": step, "dev_loss": dev_loss})
