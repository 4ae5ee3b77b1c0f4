"""A student's training under Ray Train: corpus in, checkpoint in Hugging Face format out.

Rows in: `Example`. The artifact holds the weights of the best measurement (safetensors), the tokenizer, and the
training curve as `metrics.jsonl` (`StepMetrics`). A training that died goes on from the newest of its `states`.
"""

import json
import logging
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retort.engines import models
from retort.records import Example
from retort.store import Store
from retort.store.artifacts import Address, Artifact, File, Writer, find
from retort.store.hashing import digest
from retort.training.config import MACHINERY, TrainingConfig
from retort.training.examples import Fitted, View, fit_to, tokenize, viewed

if TYPE_CHECKING:
    from retort.training.examining import Exam
    from retort.training.loop import Progress, StepMetrics

logger = logging.getLogger(__name__)
VERSION = 3
LIBRARIES = ("torch", "transformers", "tokenizers")
REPORT_EVERY_S = 5.0
MAX_FAILURES = 3
"""Deaths of workers after which a training gives up; machines that were taken away do not count."""


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
    exam: "Exam | None" = None
    tells_tune: bool = False

    @property
    def address(self) -> Address:
        """What decides the checkpoint: of the seeds its own alone, so that further seeds leave the others' as they are;
        and not by how many machines of what kind it is computed."""
        left_out = {"seeds", *MACHINERY}
        settings = self.config.model_dump(mode="json", exclude=left_out) | {"seed": self.config.seed}
        inputs: dict[str, Any] = {
            "corpus": self.corpus.id,
            "base": models.identity(self.base, self.revision, has_weights=self.init == "pretrained"),
            "init": self.init,
        }
        if self.view is not None:
            role, sharing = self.view
            inputs |= {"role": role, "view": sharing.model_dump(mode="json", include={"questions", "guidance"})}
        if self.exam is not None:
            inputs["exam"] = digest(self.exam.describe())
        libraries = (*LIBRARIES, "peft") if self.config.lora is not None else LIBRARIES
        return Address("checkpoint", VERSION, settings, inputs, libraries)


@dataclass(frozen=True)
class Made:
    """What a worker group made: the checkpoint's files and figures, or what was wrong with settings, data or disks."""

    files: tuple[File, ...] = ()
    stats: dict[str, Any] | None = None
    refusal: str | None = None


def train(store: Store, training: Training) -> Artifact:
    """Fine-tune a copy of `base` on a corpus, or on what a role sees of it; found, if it was done before.

    `init` is `pretrained`, or `random` for the architecture and tokenizer of `base` with weights drawn from the seed,
    of which `config` holds one. Killed and run again, it goes on from the newest state that it saved. Inside a trial of
    Ray Tune it `tells_tune` of dev losses, but for the last step's.

    Raises:
        ValueError: nothing to learn from, a loss that is not finite, or no room for what must be kept.
    """
    from retort.training.states import States

    found = find(store, training.address)
    if found is not None:
        return found
    writer = Writer(store, training.address)
    made = _run_here(training, writer) if training.config.num_workers == 0 else _run_workers(training, writer)
    if made.refusal is not None:
        raise ValueError(made.refusal)
    assert made.stats is not None
    _tell(training.label, made.stats)
    artifact = writer.commit(made.files, made.stats)
    States(store, training.address.prefix).forget()
    return artifact


def _tell(label: str, stats: dict[str, Any]) -> None:
    """The summary line."""
    loss, accuracy = stats["best_dev_loss"], stats["best_dev_accuracy"]
    best = "unknown" if loss is None else f"{loss:.4f}"
    right = "" if accuracy is None else f", dev accuracy {accuracy:.1%}"
    logger.info(
        "training %s: %d + %d examples, %d too long, %d cut off; best dev loss %s%s at step %d; %d tokens/s",
        *(label, stats["train_examples"], stats["dev_examples"], stats["too_long"], stats["truncated"]),
        *(best, right, stats["best_step"], stats["example_tokens"] / max(stats["train_seconds"], 1e-9)),
    )


def _run_here(training: Training, writer: Writer) -> Made:
    """Train in this process."""
    import torch

    logger.info("training %s: %d steps in this process", training.label, training.config.steps)
    torch.set_num_threads(training.config.cpus_per_worker)
    device = torch.device("cuda" if training.config.gpus_per_worker else "cpu")
    return _made(training, writer, device)


def _run_workers(training: Training, writer: Writer) -> Made:
    """Train under Ray."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    config, label = training.config, training.label
    workers = config.num_workers if isinstance(config.num_workers, int) else " to ".join(map(str, config.num_workers))
    logger.info("training %s: starting %s worker(s) for %d steps", label, workers, config.steps)
    _tell_waiting(config, label)
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
                name="run",
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
                callbacks=[TuneReportCallback()] if training.tells_tune else [],
            ),
        )
        made = trainer.fit().return_value
        assert isinstance(made, Made)
        return made


def _tell_waiting(config: TrainingConfig, label: str) -> None:
    """Say what is waited for, where the cluster has not got it now."""
    import ray

    has = ray.cluster_resources()
    for kind, each in (("CPU", config.cpus_per_worker), ("GPU", config.gpus_per_worker)):
        if each * config.least_workers > has.get(kind, 0):
            needs = f"{config.least_workers} x {each} {kind}s, the cluster has {has.get(kind, 0):.0f} now"
            logger.warning("training %s: waits for %s; it starts when an autoscaler adds them", label, needs)


def train_worker(arguments: dict[str, Any]) -> Made | None:
    """What each worker of Ray Train runs. Rank 0 writes states and the checkpoint to the store, and says what it wrote.

    Ray Train's own checkpoints are not used: it copies them once, without a retry, through a folder that all machines
    would have to share.
    """
    import ray.train.torch
    import torch

    training: Training = arguments["training"]
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    torch.set_num_threads(training.config.cpus_per_worker)
    made = _made(training, arguments["writer"], ray.train.torch.get_device())
    return made if ray.train.get_context().get_world_rank() == 0 else None


def _made(training: Training, writer: Writer, device: Any) -> Made:
    """Train and put the checkpoint into the store; what is wrong with the input comes back, since to try again would
    end the same way."""
    with tempfile.TemporaryDirectory(prefix="retort-student-") as directory:
        try:
            stats = train_and_save(training, Path(directory), device, writer.store)
            return Made(tuple(writer.put_directory(Path(directory))), stats)
        except (ValueError, OSError) as error:
            # Subclasses of ValueError are libraries' own, and so bugs; a lost connection between workers is no OSError.
            if isinstance(error, ValueError) and type(error) is not ValueError:
                raise
            return Made(refusal=f"training {training.label}: {error}")


def train_and_save(training: Training, directory: Path, device: Any, store: Store | None = None) -> dict[str, Any]:
    """Train in this process, alone or as one of a process group; rank 0 writes the checkpoint to `directory`.

    With a store it goes on from the states there, and saves its own.
    """
    from transformers import AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    from retort.training.loop import Surroundings, fit
    from retort.training.parallel import rank_and_world
    from retort.training.states import States

    disable_progress_bar()  # of reading and writing weights, in the log of a cluster
    config = training.config
    model = load_model(training).to(device)
    tokenizer: Any = AutoTokenizer.from_pretrained(models.locate(training.base), revision=training.revision)
    fitted = tokenized_splits(training, tokenizer, model.config)
    is_first = rank_and_world()[0] == 0
    states = None if store is None else States(store, training.address.prefix)
    around = Surroundings(
        states=states,
        examine=None if training.exam is None else training.exam.with_tokenizer(tokenizer),
        is_ending=_is_ending if config.num_workers != 0 and store is not None else lambda: False,
    )
    told = _Told(training, is_first)
    train_examples, dev_examples = fitted["train"].examples, fitted["dev"].examples
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    try:
        progress = fit(model, train_examples, dev_examples, config, pad_id, device, told.see, around)
    finally:
        if states is not None:
            states.close()
    if is_first:
        save_student(training, progress, directory)
        tokenizer.save_pretrained(directory)
        lines = [json.dumps(row.as_row()) + "\n" for row in progress.curve]
        (directory / "metrics.jsonl").write_text("".join(lines))
    return _stats(training, progress, fitted, sum(parameter.numel() for parameter in model.parameters()))


def _is_ending() -> bool:
    """Whether a machine of this worker group is about to be taken away."""
    import ray.train

    return ray.train.get_preemption_info() is not None


def tokenized_splits(training: Training, tokenizer: Any, architecture: Any) -> dict[str, Fitted]:
    """The examples of `train` and `dev` that fit, as token ids."""
    examples = viewed(list(training.corpus.records(Example)), training.view)
    tokenized = tokenize(tokenizer, examples)
    positions = getattr(architecture, "max_position_embeddings", None)  # none where positions are relative (T5)
    most = min(training.config.max_example_tokens, positions or training.config.max_example_tokens)
    apart = architecture.is_encoder_decoder
    fit = partial(fit_to, most=most, long_examples=training.config.long_examples, apart=apart)
    pairs = list(zip(tokenized, examples, strict=True))
    return {split: fit([made for made, example in pairs if example.split == split]) for split in ("train", "dev")}


def _stats(training: Training, progress: "Progress", fitted: dict[str, Fitted], parameters: int) -> dict[str, Any]:
    """What there is to say of a training, beside its curve."""
    best, curve = progress.best, progress.curve
    return {
        "parameters": parameters,
        "train_examples": len(fitted["train"].examples),
        "dev_examples": len(fitted["dev"].examples),
        "too_long": sum(each.dropped for each in fitted.values()),
        "dropped_tokens": sum(each.dropped_tokens for each in fitted.values()),
        "truncated": sum(each.truncated for each in fitted.values()),
        "truncated_tokens": sum(each.truncated_tokens for each in fitted.values()),
        "steps": len(curve),
        "best_step": best.step if best else len(curve),
        "best_dev_loss": best.dev_loss if best else None,
        "best_dev_accuracy": best.dev_accuracy if best else None,
        "target_tokens": sum(row.target_tokens for row in curve),
        "example_tokens": sum(row.example_tokens for row in curve),
        "computed_tokens": sum(row.computed_tokens for row in curve),
        "memory_bytes": max((row.memory_bytes for row in curve), default=0),
        "train_seconds": round(sum(row.seconds for row in curve), 3),
        "went_on_from": progress.went_on_from,
    }


def save_student(training: Training, progress: "Progress", directory: Path) -> None:
    """Write the best weights in Hugging Face format: into a new copy of the base, adapters merged."""
    import torch

    from retort.training.adapters import merged, with_adapters
    from retort.training.parallel import load_weights
    from retort.training.scoring import Scorer

    config = training.config
    scorer = Scorer(with_adapters(load_model(training), config.lora), torch.float32)
    load_weights(scorer, progress.best_weights)
    merged(scorer.model, config.lora).to(getattr(torch, config.dtype)).save_pretrained(directory)


@dataclass
class _Told:
    """Says how a training goes: in the log now and then, and to Ray Tune."""

    training: Training
    is_first: bool
    said_at: float = 0.0

    def see(self, row: "StepMetrics") -> None:
        from retort.training.loop import is_measured

        config, label = self.training.config, self.training.label
        if self.is_first and (is_measured(row) or time.monotonic() - self.said_at > REPORT_EVERY_S):
            self.said_at = time.monotonic()
            dev = "" if row.dev_loss is None else f", dev loss {row.dev_loss:.4f}"
            right = "" if row.dev_accuracy is None else f", dev accuracy {row.dev_accuracy:.1%}"
            speed = f"{row.example_tokens / row.seconds:,.0f} tokens/s"
            used = "" if row.mfu is None else f", MFU {row.mfu:.0%}"
            place = f"{row.padding_share:.0%} padding, {row.memory_bytes / 1e9:.1f} GB"
            logger.info(
                "training %s: step %d/%d, loss %.4f%s%s; %s%s, %s",
                *(label, row.step, config.steps, row.loss, dev, right, speed, used, place),
            )
        # A trial that is stopped at its last step would be trained in vain.
        if self.training.tells_tune and row.dev_loss is not None and row.step < config.steps:
            tell_tune(row.step, row.dev_loss, config.num_workers)


def tell_tune(step: int, dev_loss: float, num_workers: int | tuple[int, int]) -> None:
    """Report a dev loss to the trial that this training is part of: straight, or through Ray Train's report."""
    import ray.train
    from ray import tune

    report = ray.train.report if num_workers else tune.report
    report({"step": step, "dev_loss": dev_loss})


def load_model(training: Training) -> Any:
    """The student before training, in float32. Weights of a random one come from the seed."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    located = models.locate(training.base)
    architecture = AutoConfig.from_pretrained(located, revision=training.revision)
    auto: Any = AutoModelForSeq2SeqLM if architecture.is_encoder_decoder else AutoModelForCausalLM
    torch.manual_seed(training.config.seed)
    if training.init == "random":
        return auto.from_config(architecture, dtype=torch.float32)
    return auto.from_pretrained(located, revision=training.revision, dtype=torch.float32, use_safetensors=True)
