"""A student's training under Ray Train: corpus in, checkpoint in Hugging Face format out.

Rows in: `Example`. The artifact holds the weights with the lowest dev loss (safetensors), the tokenizer, and the
training curve as `metrics.jsonl` (`StepMetrics`).
"""

import json
import logging
import math
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retort.engines import models
from retort.records import Example
from retort.store import Store
from retort.store.artifacts import Address, Artifact, File, Writer, find
from retort.training.config import TrainingConfig
from retort.training.examples import TokenizedExample, View, tokenize, viewed

if TYPE_CHECKING:
    import torch

    from retort.training.loop import StepMetrics

logger = logging.getLogger(__name__)
VERSION = 2
LIBRARIES = ("torch", "transformers", "tokenizers")
REPORT_EVERY_S = 5.0


@dataclass(frozen=True)
class Training:
    """One training, as each worker gets it. `revision` is pinned; `label` is what log lines call it."""

    corpus: Artifact
    base: str
    revision: str | None
    init: str
    config: TrainingConfig
    label: str
    view: View | None = None
    tells_tune: bool = False


def train(
    store: Store,
    corpus: Artifact,
    base: str,
    revision: str | None,
    init: str,
    config: TrainingConfig,
    label: str,
    view: View | None = None,
    tells_tune: bool = False,
) -> Artifact:
    """Fine-tune a copy of `base` on a corpus, or on what a role sees of it; found, if it was done before.

    `init` is `pretrained`, or `random` for the architecture and tokenizer of `base` with weights drawn from the seed,
    of which `config` holds one. Killed and run again, training starts anew: nothing of it is kept before it ends.
    Inside a trial of Ray Tune it `tells_tune` of dev losses, but for the last step's.

    Raises:
        ValueError: nothing to learn from, or a loss that is not finite.
    """
    training = Training(corpus, base, models.pin(base, revision), init, config, label, view, tells_tune)
    where = address(training)
    found = find(store, where)
    if found is not None:
        return found
    writer = Writer(store, where)
    files, stats = _run_here(training, writer) if config.num_workers == 0 else _run_workers(training, writer)
    best = stats["best_dev_loss"]
    logger.info(
        "training %s: %d + %d examples, %d too long for a row; best dev loss %s at step %d",
        *(label, stats["train_examples"], stats["dev_examples"], stats["too_long"]),
        *("unknown" if best is None else f"{best:.4f}", stats["best_step"]),
    )
    return writer.commit(files, stats)


def address(training: Training) -> Address:
    """What decides the checkpoint: of the seeds its own alone, so that further seeds leave the others' as they are."""
    settings = training.config.model_dump(mode="json", exclude={"seeds"}) | {"seed": training.config.seed}
    inputs: dict[str, Any] = {
        "corpus": training.corpus.id,
        "base": models.identity(training.base, training.revision, has_weights=training.init == "pretrained"),
        "init": training.init,
    }
    if training.view is not None:
        role, sharing = training.view
        inputs |= {"role": role, "view": sharing.model_dump(mode="json", include={"questions", "guidance"})}
    return Address("checkpoint", VERSION, settings, inputs, LIBRARIES)


def _run_here(training: Training, writer: Writer) -> tuple[list[File], dict[str, Any]]:
    """Train in this process; the checkpoint's files, and what there is to say of it."""
    import torch

    logger.info("training %s: %d steps in this process", training.label, training.config.steps)
    torch.set_num_threads(training.config.cpus_per_worker)
    device = torch.device("cuda" if training.config.gpus_per_worker else "cpu")
    with tempfile.TemporaryDirectory(prefix="retort-student-") as directory:
        stats = train_and_save(training, Path(directory), device)
        return writer.put_directory(Path(directory)), stats


def _run_workers(training: Training, writer: Writer) -> tuple[list[File], dict[str, Any]]:
    """Train under Ray; the checkpoint's files, and what there is to say of it."""
    import ray
    from ray.train import RunConfig, ScalingConfig, WorkerGroupError
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    config, label = training.config, training.label
    logger.info("training %s: starting %d worker(s) for %d steps", label, config.num_workers, config.steps)
    has = ray.cluster_resources()
    for kind, each in (("CPU", config.cpus_per_worker), ("GPU", config.gpus_per_worker)):
        if each * config.num_workers > has.get(kind, 0):
            needs = f"{config.num_workers} x {each} {kind}s, the cluster has {has.get(kind, 0):.0f} now"
            logger.warning("training %s: waits for %s; it starts when an autoscaler adds them", label, needs)
    with tempfile.TemporaryDirectory(prefix="retort-train-") as scratch:
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"training": training, "writer": writer},
            torch_config=TorchConfig(backend="nccl" if config.gpus_per_worker else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=config.num_workers,
                use_gpu=config.gpus_per_worker > 0,
                resources_per_worker={"CPU": config.cpus_per_worker, "GPU": config.gpus_per_worker},
            ),
            run_config=RunConfig(
                name="run", storage_path=scratch, callbacks=[TuneReportCallback()] if training.tells_tune else []
            ),
        )
        try:
            made = trainer.fit().return_value
        except WorkerGroupError as error:
            # What is wrong with settings or data is one line, with workers as without.
            causes = [getattr(failure, "_base_exc", failure) for failure in error.worker_failures.values()]
            raise next((cause for cause in causes if type(cause) is ValueError), error) from None
        assert made is not None
        return made


def train_worker(arguments: dict[str, Any]) -> tuple[list[File], dict[str, Any]] | None:
    """What each worker of Ray Train runs. Rank 0 writes the checkpoint to the store, and says what it wrote.

    Ray Train's own checkpoints are not used: it copies them once, without a retry, through a folder that all machines
    would have to share.
    """
    import ray.train.torch
    import torch

    training: Training = arguments["training"]
    writer: Writer = arguments["writer"]
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    torch.set_num_threads(training.config.cpus_per_worker)
    device = ray.train.torch.get_device()
    with tempfile.TemporaryDirectory(prefix="retort-student-") as directory:
        stats = train_and_save(training, Path(directory), device)
        is_first = ray.train.get_context().get_world_rank() == 0
        return (writer.put_directory(Path(directory)), stats) if is_first else None


def train_and_save(training: Training, directory: Path, device: Any) -> dict[str, Any]:
    """Train in this process, alone or as one of a process group; rank 0 writes the checkpoint to `directory`."""
    import torch
    import torch.distributed as dist
    from transformers import AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    from retort.training.loop import fit

    disable_progress_bar()  # of reading and writing weights, in the log of a cluster
    config = training.config
    model = load_model(training.base, training.revision, training.init, config).to(device)
    tokenizer: Any = AutoTokenizer.from_pretrained(models.locate(training.base), revision=training.revision)
    examples = viewed(list(training.corpus.records(Example)), training.view)
    tokenized = tokenize(tokenizer, examples)
    fitting = [_row_length(example, model.config.is_encoder_decoder) <= config.row_tokens for example in tokenized]
    by_split = {
        split: [t for t, e, fits in zip(tokenized, examples, fitting, strict=True) if fits and e.split == split]
        for split in ("train", "dev")
    }
    is_first = not dist.is_initialized() or dist.get_rank() == 0
    progress = _Progress(model, config, training.label if is_first else None, training.tells_tune)
    shared = torch.nn.parallel.DistributedDataParallel(model) if config.num_workers > 1 else model
    fit(shared, by_split["train"], by_split["dev"], config, _pad_id(tokenizer), device, progress.see)
    if progress.weights:
        model.load_state_dict(progress.weights)
    stats = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "train_examples": len(by_split["train"]),
        "dev_examples": len(by_split["dev"]),
        "too_long": fitting.count(False),
        "best_step": progress.best.step if progress.best else config.steps,
        "best_dev_loss": progress.best.dev_loss if progress.best else None,
        "target_tokens": sum(row.target_tokens for row in progress.curve),
        "train_seconds": round(sum(row.seconds for row in progress.curve), 3),
    }
    if is_first:
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        (directory / "metrics.jsonl").write_text("".join(json.dumps(row.as_row()) + "\n" for row in progress.curve))
    return stats


def _pad_id(tokenizer: Any) -> int:
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id


@dataclass
class _Progress:
    """What a training has come to: the curve, and the weights with the lowest dev loss. Says so now and then."""

    model: Any
    config: TrainingConfig
    label: str | None
    tells_tune: bool = False
    curve: "list[StepMetrics]" = field(default_factory=list)
    best: "StepMetrics | None" = None
    weights: "dict[str, torch.Tensor]" = field(default_factory=dict)
    best_loss: float = math.inf
    said_at: float = 0.0

    def see(self, row: "StepMetrics") -> None:
        self.curve.append(row)
        if row.dev_loss is not None and (self.best is None or row.dev_loss < self.best_loss):
            self.best, self.best_loss = row, row.dev_loss
            self.weights = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
        if self.label is not None and (row.dev_loss is not None or time.monotonic() - self.said_at > REPORT_EVERY_S):
            self.said_at = time.monotonic()
            dev = "" if row.dev_loss is None else f", dev loss {row.dev_loss:.4f}"
            logger.info("training %s: step %d/%d, loss %.4f%s", self.label, row.step, self.config.steps, row.loss, dev)
        # A trial that is stopped at its last step would be trained in vain.
        if self.tells_tune and row.dev_loss is not None and row.step < self.config.steps:
            tell_tune(row.step, row.dev_loss, self.config.num_workers)


def tell_tune(step: int, dev_loss: float, num_workers: int) -> None:
    """Report a dev loss to the trial that this training is part of: straight, or through Ray Train's report."""
    import ray.train
    from ray import tune

    report = ray.train.report if num_workers else tune.report
    report({"step": step, "dev_loss": dev_loss})


def _row_length(example: TokenizedExample, is_encoder_decoder: bool) -> int:
    """What `row_tokens` bounds: the whole of an example, or the longer part where each has a row of its own."""
    return max(len(example.prompt_ids), len(example.target_ids)) if is_encoder_decoder else len(example)


def load_model(base: str, revision: str | None, init: str, config: TrainingConfig) -> Any:
    """The student before training. Weights of a random one come from the seed."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    dtype = getattr(torch, config.dtype)
    located = models.locate(base)
    architecture = AutoConfig.from_pretrained(located, revision=revision)
    auto: Any = AutoModelForSeq2SeqLM if architecture.is_encoder_decoder else AutoModelForCausalLM
    torch.manual_seed(config.seed)
    if init == "random":
        return auto.from_config(architecture, dtype=dtype)
    return auto.from_pretrained(located, revision=revision, dtype=dtype, use_safetensors=True)
