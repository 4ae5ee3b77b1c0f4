"""Settings of a student's training."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

SEED_LIMIT = 2**32
"""Seeds that every generator of random numbers takes as they are; some take -1 for 1."""


class TrainingConfig(BaseModel):
    """How a student is fine-tuned. Length is set by `steps` and `batch_examples` alone, so that runs compare data."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(ge=1)
    """Optimiser steps."""
    batch_examples: int = Field(ge=1)
    """Examples of one optimiser step, over all workers."""
    learning_rate: float = Field(gt=0, lt=1)
    """Peak learning rate of AdamW."""
    group_chains: int = Field(default=1, ge=1)
    """Chains of one problem that are drawn together; 1 is the papers' balanced draw."""
    thought_weights: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = {}
    """Where a problem has chains of several thoughts, how often each is drawn; none named: all equally often."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up, within `steps`."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Decay of the learning rate after the warm-up."""
    weight_decay: float = Field(default=0.0, ge=0)
    adam_epsilon: float = Field(default=1e-8, gt=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    row_tokens: int = Field(default=512, ge=16)
    """Length of a packed row, in tokens; a longer example is left out, with the reason `too_long`. For
    encoder-decoders, which do not pack, it bounds the prompt and the target each."""
    micro_batch_rows: int = Field(default=4, ge=1)
    """Packed rows of one forward pass, or pairs that fill as many tokens; a step accumulates as many passes as its
    examples need."""
    dev_every: int = Field(default=100, ge=1)
    """Steps between two measurements of the dev loss; the checkpoint with the lowest one is kept."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of weights and activations."""
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Seeds of the drawing of examples (and of the weights, where the student starts from random ones): one training
    each."""
    num_workers: int = Field(default=1, ge=0)
    """Data-parallel workers of Ray Train; 0 trains in the process of the run, or of the trial."""
    cpus_per_worker: int = Field(default=1, ge=1)
    """CPU cores, and PyTorch threads, of a worker."""
    gpus_per_worker: int = Field(default=0, ge=0, le=1)

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not all(0 <= seed < SEED_LIMIT for seed in seeds):
            raise ValueError(f"{list(seeds)!r}; expected each from 0 to 2**32 - 1")
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"{list(seeds)!r} names one twice; expected each once")
        return seeds

    @property
    def seed(self) -> int:
        """The seed of one training: whoever starts it has picked one of `seeds`."""
        assert len(self.seeds) == 1, f"one training has one seed, got {self.seeds}"
        return self.seeds[0]
