"""Settings of a student's training."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

SEED_LIMIT = 2**32
"""Seeds that every generator of random numbers takes as they are; some take -1 for 1."""


class LoraConfig(BaseModel):
    """Low-rank adapters on every linear layer but the output (`peft`); merged into the weights when they are saved."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(ge=1)
    alpha: int = Field(default=16, ge=1)
    """Adapters are scaled by `alpha / rank`."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    dora: bool = False
    """Learn the magnitude of each weight column apart from its direction (DoRA)."""


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
    """Chains of one problem that are drawn together, and share its prompt; 1 is the papers' balanced draw. With more of
    them a step has fewer problems."""
    thought_weights: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = {}
    """Where a problem has chains of several thoughts, how often each is drawn; none named: all equally often."""
    chain_weights: Literal["equal", "per_problem"] = "equal"
    """Weight of a chain's tokens in the loss: 1, or 1/n for the n chains of its problem that are drawn together (up to
    `group_chains`), so that problems with many chains do not outweigh those with few."""
    curriculum_steps: int = Field(default=0, ge=0)
    """Steps over which problems come in from the easiest, by the teacher's pass rate; 0: all from the start."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up, within `steps`."""
    schedule: Literal["linear", "cosine", "constant", "inverse_sqrt"] = "linear"
    """Learning rate after the warm-up, as transformers has it."""
    weight_decay: float = Field(default=0.0, ge=0)
    adam_epsilon: float = Field(default=1e-8, gt=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    max_example_tokens: int = Field(default=512, ge=16)
    """Longest example, prompt and target together (an encoder-decoder's each); the model's positions bound it too."""
    long_examples: Literal["drop", "truncate"] = "drop"
    """What becomes of a longer one: it is left out, or its target is cut off. One whose prompt is too long is left
    out."""
    row_tokens: int = Field(default=2048, ge=16)
    """Tokens of a packed row, which is one forward pass; a step accumulates as many as its examples need. For
    encoder-decoders, which do not pack, the positions of a batch of pairs."""
    share_prompts: bool = True
    """Compute a prompt once for all chains of a step that have it. Changes no loss and no gradient, dropout apart: of
    that a shared prompt has one draw."""
    dev_every: int = Field(default=100, ge=1)
    """Steps between two measurements on dev problems; the best checkpoint by `choose_by` is kept."""
    choose_by: Literal["dev_loss", "dev_accuracy"] = "dev_loss"
    """What tells checkpoints apart: the loss on dev chains, or greedy answers to dev problems."""
    dev_problems: int = Field(default=100, ge=1)
    """Dev problems that `dev_accuracy` asks, drawn by a hash of their ids, under the first thought of the corpus."""
    dev_max_new_tokens: int = Field(default=256, ge=1)
    """Token budget of an answer to one of them."""
    patience: int | None = Field(default=None, ge=1)
    """Measurements in a row without a new best after which training stops early."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix products and activations, and of the saved student. Weights and optimiser are float32."""
    lora: LoraConfig | None = None
    """Train adapters instead of all weights."""
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Seeds of the drawing of examples (and of the weights, where the student starts from random ones): one training
    each."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them."""
    compile: bool = False
    """`torch.compile` the student: slower to start, faster where a GPU trains for long."""
    shard: bool = False
    """Share out weights, gradients and optimiser over the workers (FSDP2), for students that one of them cannot
    hold."""
    save_every_s: float = Field(default=60.0, ge=0)
    """Seconds between two saved states, from which a training that died goes on; longer where saving takes long. 0:
    after every step."""
    num_workers: int | tuple[int, int] = 1
    """Data-parallel workers of Ray Train; 0 trains in the process of the run, or of the trial. Two numbers are the
    least and the most: as many as there is room for, more or fewer as nodes come and go."""
    cpus_per_worker: int = Field(default=1, ge=1)
    """CPU cores, and PyTorch threads, of a worker."""
    gpus_per_worker: int = Field(default=0, ge=0, le=1)
    accelerator_type: str | None = Field(default=None, min_length=1)
    """Kind of GPU that each worker must have, as Ray calls it: `H100`, `A100-80G`, `L4`. None takes any."""

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not all(0 <= seed < SEED_LIMIT for seed in seeds):
            raise ValueError(f"{list(seeds)!r}; expected each from 0 to 2**32 - 1")
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"{list(seeds)!r} names one twice; expected each once")
        return seeds

    @field_validator("num_workers", mode="before")
    @classmethod
    def _in_order(cls, workers: object) -> object:
        is_pair = isinstance(workers, list | tuple)
        pair: list[Any] = list(workers) if isinstance(workers, list | tuple) else [workers, workers]
        is_whole = len(pair) == 2 and all(type(each) is int for each in pair)
        if not is_whole or pair[0] < is_pair or pair[1] < pair[0]:
            raise ValueError(f"{workers!r}; expected 0 or more, or [least, most] with 1 ≤ least ≤ most")
        return workers

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.max_example_tokens > self.row_tokens:
            raise ValueError(
                f"row_tokens = {self.row_tokens}, max_example_tokens = {self.max_example_tokens}: a row holds whole "
                f"examples; expected row_tokens to be no less"
            )
        if self.chain_weights == "per_problem" and self.group_chains == 1:
            raise ValueError(
                "chain_weights = 'per_problem' with group_chains = 1: chains that are drawn one by one weigh the same; "
                "expected group_chains above 1, or 'equal'"
            )
        for name in ("warmup_steps", "curriculum_steps"):
            if getattr(self, name) > self.steps:
                raise ValueError(f"{name} = {getattr(self, name)} of steps = {self.steps}; expected no more")
        if self.group_chains > self.batch_examples:
            raise ValueError(
                f"group_chains = {self.group_chains}, batch_examples = {self.batch_examples}: a step holds groups; "
                f"expected no more"
            )
        if self.patience is not None and self.patience * self.dev_every >= self.steps:
            raise ValueError(
                f"patience = {self.patience} with dev_every = {self.dev_every} and steps = {self.steps}: it never ends "
                f"early; expected patience * dev_every below steps"
            )
        if self.shard and self.least_workers < 2:
            raise ValueError(f"shard = true with num_workers = {self.num_workers}: expected 2 at the least")
        if self.shard and self.choose_by == "dev_accuracy":
            raise ValueError(
                "choose_by = 'dev_accuracy' with shard = true: no worker has all weights to answer with; "
                "expected 'dev_loss'"
            )
        return self

    @property
    def seed(self) -> int:
        """The seed of one training: whoever starts it has picked one of `seeds`."""
        assert len(self.seeds) == 1, f"one training has one seed, got {self.seeds}"
        return self.seeds[0]

    @property
    def least_workers(self) -> int:
        """Workers that a training starts with at least."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]

    @property
    def worker_bundle(self) -> dict[str, float]:
        """What one worker takes of Ray, of one machine."""
        bundle: dict[str, float] = {"CPU": self.cpus_per_worker, "GPU": self.gpus_per_worker}
        if self.gpus_per_worker and self.accelerator_type is not None:
            bundle[f"accelerator_type:{self.accelerator_type}"] = 0.001  # as Ray asks for one
        return bundle

    @property
    def most_workers(self) -> int:
        """Workers that a training has at most."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]


MACHINERY = frozenset(
    {
        "accelerator_type",
        "activation_checkpointing",
        "compile",
        "cpus_per_worker",
        "gpus_per_worker",
        "num_workers",
        "row_tokens",
        "save_every_s",
        "shard",
    }
)
"""Fields that say how a student is computed and not which: rounding apart, and draws of dropout, none changes it."""
OF_EXAM = frozenset({"dev_problems", "dev_max_new_tokens"})
"""Fields that decide something under `dev_accuracy` alone."""
