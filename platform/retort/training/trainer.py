"""A student's training under Ray Train: corpus in, checkpoint in Hugging Face format out.

Rows in: `Example`. The artifact holds the weights with the lowest dev loss (safetensors), the tokenizer, and the
training curve as `metrics.jsonl` (`StepMetrics`).
"""

import json
import logging
import math
import tempfile
import time
from pathlib import Path
from typing import Any

from retort.engines import models
from retort.records import Example
from retort.store import Store
from retort.store.artifacts import Address, Artifact, Writer, find
from retort.training.config import TrainingConfig

logger = logging.getLogger(__name__)
VERSION = 1
LIBRARIES = ("torch", "transformers", "tokenizers")
REPORT_EVERY_S = 5.0


def train(
    store: Store, corpus: Artifact, base: str, revision: str | None, init: str, config: TrainingConfig, label: str
) -> Artifact:
    """Fine-tune a copy of `base` on a corpus; found, if it was done before.

    `init` is `pretrained`, or `random` for the architecture and tokenizer of `base` with weights drawn from the seed.
    Killed and run again, training starts anew: nothing of it is kept before it ends.
    """
    inputs = {
        "corpus": corpus.id,
        "base": models.identity(base, revision, has_weights=init == "pretrained"),
        "init": init,
    }
    where = Address("checkpoint", VERSION, config.model_dump(mode="json"), inputs, LIBRARIES)
    found = find(store, where)
    if found is not None:
        return found
    import ray
    from ray.train import CheckpointConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    logger.info("training %s: starting %d worker(s) for %d steps", label, config.num_workers, config.steps)
    has = ray.cluster_resources()
    for kind, each in (("CPU", config.cpus_per_worker), ("GPU", config.gpus_per_worker)):
        if each * config.num_workers > has.get(kind, 0):
            needs = f"{config.num_workers} x {each} {kind}s, the cluster has {has.get(kind, 0):.0f} now"
            logger.warning("training %s: waits for %s; it starts when an autoscaler adds them", label, needs)
    writer = Writer(store, where)
    with tempfile.TemporaryDirectory(prefix="retort-train-") as scratch:
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={
                "corpus": corpus,
                "base": base,
                "revision": models.pin(base, revision),
                "init": init,
                "config": config,
                "label": label,
            },
            torch_config=TorchConfig(backend="nccl" if config.gpus_per_worker else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=config.num_workers,
                use_gpu=config.gpus_per_worker > 0,
                resources_per_worker={"CPU": config.cpus_per_worker, "GPU": config.gpus_per_worker},
            ),
            run_config=RunConfig(name="run", storage_path=scratch, checkpoint_config=CheckpointConfig(num_to_keep=1)),
        )
        checkpoint = trainer.fit().checkpoint
        assert checkpoint is not None
        with checkpoint.as_directory() as directory:
            stats = json.loads(Path(directory, "stats.jsonl").read_text())
            files = writer.put_directory(Path(directory))
    logger.info(
        "training %s: %d + %d examples, %d too long for a row; best dev loss %s at step %d",
        *(label, stats["train_examples"], stats["dev_examples"], stats["too_long"]),
        *(stats["best_dev_loss"], stats["best_step"]),
    )
    return writer.commit(files, stats)


def train_worker(arguments: dict[str, Any]) -> None:
    """What each worker of Ray Train runs. Rank 0 keeps the best weights and reports them once, at the end."""
    import ray.train
    import ray.train.torch
    import torch

    config: TrainingConfig = arguments["config"]
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(config.cpus_per_worker)
    device = ray.train.torch.get_device()
    with tempfile.TemporaryDirectory(prefix="retort-student-") as directory:
        stats = _train_and_save(arguments, Path(directory), device)
        checkpoint = None
        if ray.train.get_context().get_world_rank() == 0:
            checkpoint = ray.train.Checkpoint.from_directory(directory)
        ray.train.report({"best_dev_loss": stats["best_dev_loss"]}, checkpoint=checkpoint)


def _train_and_save(arguments: dict[str, Any], directory: Path, device: Any) -> dict[str, Any]:
    import torch
    import torch.distributed as dist
    from transformers import AutoTokenizer

    from retort.training.examples import tokenize
    from retort.training.loop import StepMetrics, fit

    config: TrainingConfig = arguments["config"]
    model = load_model(arguments["base"], arguments["revision"], arguments["init"], config).to(device)
    tokenizer: Any = AutoTokenizer.from_pretrained(models.locate(arguments["base"]), revision=arguments["revision"])
    examples = list(arguments["corpus"].records(Example))
    tokenized = tokenize(tokenizer, examples)
    fitting = [len(example) <= config.row_tokens for example in tokenized]
    by_split = {
        split: [t for t, e, fits in zip(tokenized, examples, fitting, strict=True) if fits and e.split == split]
        for split in ("train", "dev")
    }
    curve: list[StepMetrics] = []
    said_at = 0.0
    best_loss = math.inf
    best: dict[str, torch.Tensor] = {}
    best_row: StepMetrics | None = None
    is_first = not dist.is_initialized() or dist.get_rank() == 0

    def on_step(row: StepMetrics) -> None:
        nonlocal best_row, best_loss, said_at
        curve.append(row)
        if row.dev_loss is not None and (best_row is None or row.dev_loss < best_loss):
            best_row, best_loss = row, row.dev_loss
            best.update({name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()})
        if is_first and (row.dev_loss is not None or time.monotonic() - said_at > REPORT_EVERY_S):
            said_at = time.monotonic()
            dev = "" if row.dev_loss is None else f", dev loss {row.dev_loss:.4f}"
            logger.info(
                "training %s: step %d/%d, loss %.4f%s", arguments["label"], row.step, config.steps, row.loss, dev
            )

    wrapped = torch.nn.parallel.DistributedDataParallel(model) if config.num_workers > 1 else model
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    fit(wrapped, by_split["train"], by_split["dev"], config, pad_id, device, on_step)
    if best:
        model.load_state_dict(best)
    stats = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "train_examples": len(by_split["train"]),
        "dev_examples": len(by_split["dev"]),
        "too_long": fitting.count(False),
        "best_step": best_row.step if best_row else config.steps,
        "best_dev_loss": best_row.dev_loss if best_row else None,
        "target_tokens": sum(row.target_tokens for row in curve),
        "train_seconds": round(sum(row.seconds for row in curve), 3),
    }
    if is_first:
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        (directory / "metrics.jsonl").write_text("".join(json.dumps(row.as_row()) + "\n" for row in curve))
        (directory / "stats.jsonl").write_text(json.dumps(stats))
    return stats


def load_model(base: str, revision: str | None, init: str, config: TrainingConfig) -> Any:
    """The student before training. Weights of a random one come from the seed."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    dtype = getattr(torch, config.dtype)
    located = models.locate(base)
    torch.manual_seed(config.seed)
    if init == "random":
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(located, revision=revision), dtype=dtype)
    return AutoModelForCausalLM.from_pretrained(located, revision=revision, dtype=dtype, use_safetensors=True)
