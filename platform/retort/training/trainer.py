"""A student's training under Ray Train: corpus in, checkpoint in Hugging Face format out.

Rows in: `Example`. The artifact holds the weights of the best measurement (safetensors), the tokenizer, and the
training curve as `metrics.jsonl` (`StepMetrics`). A training that died goes on from the newest of its `states`.
"""

import errno
import json
import logging
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from retort import logs
from retort.cluster import live
from retort.cluster.room import Demand
from retort.cluster.skew import installed
from retort.engines import models
from retort.records import Example
from retort.store import Store
from retort.store.artifacts import Address, Artifact, File, Writer, find
from retort.store.hashing import digest
from retort.training.config import MACHINERY, OF_EXAM, TrainingConfig
from retort.training.examples import Fitted, View, fit_to, tokenize, viewed
from retort.training.students import load_student, save_student
from retort.training.telling import Teller

if TYPE_CHECKING:
    from retort.training.examining import Exam
    from retort.training.progress import Progress

logger = logging.getLogger(__name__)
VERSION = 3
LIBRARIES = ("torch", "transformers", "tokenizers")
Result = TypeVar("Result")
FOR_GOOD = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}  # of disks, as they do not pass
MAX_FAILURES = 3
"""Deaths of workers after which a training gives up, as their cause may last; announced ends do not count."""


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
        left_out = {"seeds", *MACHINERY, *(OF_EXAM if self.exam is None else ())}
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
        logger.info("training %s: found, it was trained before", training.label)
        return found
    writer = Writer(store, training.address, training.label)
    made = _run_here(training, writer) if training.config.num_workers == 0 else _run_workers(training, writer)
    if made.refusal is not None:
        raise ValueError(made.refusal)
    assert made.stats is not None
    _tell(training.label, training.config.steps, made.stats)
    artifact = writer.commit(made.files, made.stats)
    States(store, training.address.prefix).forget()
    return artifact


def _tell(label: str, steps: int, stats: dict[str, Any]) -> None:
    """The summary line."""
    loss, accuracy = stats["best_dev_loss"], stats["best_dev_accuracy"]
    best = "" if loss is None else f", dev loss {loss:.4f}"
    right = "" if accuracy is None else f", dev accuracy {accuracy:.1%}"
    ended = "" if stats["steps"] == steps else f"; ended early, at step {stats['steps']} of {steps}"
    logger.info(
        "training %s: %d + %d examples, %d more too long, %d of them cut off%s; kept step %d%s%s; %d example tokens/s",
        *(label, stats["train_examples"], stats["dev_examples"], stats["too_long"], stats["truncated"]),
        *(ended, stats["best_step"], best, right, stats["example_tokens"] / max(stats["train_seconds"], 1e-9)),
    )


def _run_here(training: Training, writer: Writer) -> Made:
    """Train in this process."""
    import torch

    logger.info("training %s: %d steps in this process", training.label, training.config.steps)
    torch.set_num_threads(training.config.cpus_per_worker)
    return _made(training, writer, torch.device("cuda" if training.config.gpus_per_worker else "cpu"))


def _run_workers(training: Training, writer: Writer) -> Made:
    """Train under Ray, which starts workers anew where they die, but ends where one dies while they are started."""
    from ray.exceptions import RayError
    from ray.train import ControllerError

    config, label = training.config, training.label
    workers = config.num_workers if isinstance(config.num_workers, int) else " to ".join(map(str, config.num_workers))
    asked = demand(config, label)
    if not training.tells_tune:
        live.refuse([asked])
    logger.info("training %s: starting %s worker(s) for %d steps", label, workers, config.steps)
    failures = 0
    while True:
        try:
            with tempfile.TemporaryDirectory(prefix="retort-train-") as scratch, live.waiting([asked]):
                return cast("Made", interruptible(_trainer(training, writer, scratch).fit).return_value)
        except ControllerError as error:
            failures += 1
            if failures > MAX_FAILURES or not isinstance(error.controller_failure, RayError):
                raise
            logger.warning("training %s: its workers could not be started, trying again: %s", label, error)


def _trainer(training: Training, writer: Writer, scratch: str) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    config = training.config
    return TorchTrainer(
        train_worker,
        train_loop_config={"training": training, "writer": writer, "driver": installed(), "log": logs.current()},
        torch_config=TorchConfig(backend="nccl" if config.gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=config.num_workers,
            use_gpu=config.gpus_per_worker > 0,
            resources_per_worker=config.worker_bundle,
        ),
        run_config=RunConfig(
            name="run",
            storage_path=scratch,
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            callbacks=[TuneReportCallback()] if training.tells_tune else [],
        ),
    )


def interruptible(call: Callable[[], Result]) -> Result:
    """Call in a thread, so that Ctrl-C stays ours: in the main one Ray Train takes it and ends with status 1.

    What is interrupted dies with this process.
    """
    found: list[Result] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(call())
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread of the caller
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


def demand(config: TrainingConfig, label: str) -> Demand:
    """What the workers of a training ask for at least, all at once."""
    remedy = "num_workers, cpus_per_worker or gpus_per_worker"
    least = config.least_workers
    return Demand(f"training {label}", config.worker_bundle, least, least, remedy)


def train_worker(arguments: dict[str, Any]) -> Made | None:
    """What each worker of Ray Train runs. Rank 0 writes states and the checkpoint to the store, and says what it wrote.

    Ray Train's own checkpoints are not used: it copies them once, without a retry, through a folder that all machines
    would have to share.
    """
    import ray.train.torch
    import torch

    from retort.training.parallel import together

    training, log = cast("Training", arguments["training"]), cast("logs.Log", arguments["log"])
    logs.configure(log, "%(message)s", replaces=log.is_json)  # Ray Train's handlers write text
    torch.set_num_threads(training.config.cpus_per_worker)
    try:
        with together():
            arguments["driver"].check()
    except ValueError as error:
        made = Made(refusal=f"training {training.label}: {error}")
    else:
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
            # Subclasses of ValueError are libraries' own, and so bugs; a store that is away may be there again.
            is_ours = error.errno in FOR_GOOD if isinstance(error, OSError) else type(error) is ValueError
            if not is_ours:
                raise
            return Made(refusal=f"training {training.label}: {error}")


def train_and_save(training: Training, directory: Path, device: Any, store: Store | None = None) -> dict[str, Any]:
    """Train in this process, alone or as one of a process group; rank 0 writes the checkpoint to `directory`.

    With a store it goes on from the states there, and saves its own.
    """
    import torch
    from transformers import AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    from retort.training.keeping import Surroundings
    from retort.training.loop import fit
    from retort.training.parallel import rank_and_world, together
    from retort.training.states import States

    disable_progress_bar()  # of reading and writing weights, in the log of a cluster
    config, is_first = training.config, rank_and_world()[0] == 0
    load = partial(load_student, training.base, training.revision, training.init, config)
    with together():
        model = load()
        parameters = sum(parameter.numel() for parameter in model.parameters())
        tokenizer: Any = AutoTokenizer.from_pretrained(models.locate(training.base), revision=training.revision)
        fitted = tokenized_splits(training, tokenizer, model.config)
        if not fitted["train"].examples and fitted["train"].dropped:
            raise ValueError(
                f"all {fitted['train'].dropped} training examples are longer than max_example_tokens = "
                f"{config.max_example_tokens}, or than the student has positions for; raise it"
            )
        if training.exam is not None:
            training.exam.check(model, tokenizer)
    if not config.shard:  # what is shared out goes to the workers' devices layer by layer
        model = model.to(device)
    states = None if store is None else States(store, training.address.prefix)
    exam, dtype = training.exam, getattr(torch, config.dtype)
    teller = Teller(config, training.label, is_first, training.tells_tune)
    around = Surroundings(
        states=states,
        examine=None if exam is None else exam.with_tokenizer(tokenizer, dtype),
        is_ending=_is_ending if config.num_workers != 0 and store is not None else lambda: False,
        on_saved=teller.saved,
        on_going_on=teller.went_on,
    )
    train_examples, dev_examples = fitted["train"].examples, fitted["dev"].examples
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    try:
        progress = fit(model, train_examples, dev_examples, config, pad_id, device, teller.see, around)
    finally:
        teller.close()
        if states is not None:
            states.close()
    if is_first:
        save_student(load(), progress.best_weights, config, directory)
        tokenizer.save_pretrained(directory)
        lines = [json.dumps(row.as_row()) + "\n" for row in progress.curve]
        (directory / "metrics.jsonl").write_text("".join(lines))
    how = {"workers": rank_and_world()[1], "device": str(device.type), "shard": config.shard, "compile": config.compile}
    return {**_stats(progress, fitted, parameters), "computed": how}


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


def _stats(progress: "Progress", fitted: dict[str, Fitted], parameters: int) -> dict[str, Any]:
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
