"""Trainings in processes of their own, alone or several together, which can be killed.

Forked from a server that has imported all that it needs, so that a hundred of them cost no more than their steps.
"""

import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from retort.records import Example, Split
from retort.store import Store
from retort.store.artifacts import Address, Artifact, Writer
from retort.training import trainer
from retort.training.config import TrainingConfig
from retort.training.examples import TokenizedExample
from retort.training.loop import Trainee
from retort.training.parallel import accumulating
from retort.training.students import load_student
from retort.training.trainer import Training

FORKS: Any = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "peft",
        "retort.training.examining",
        "retort.training.loop",
        "retort.training.trainer",
        "transformers.models.auto.modeling_auto",
        "transformers.models.auto.tokenization_auto",
        "transformers.models.llama.modeling_llama",
    ]
)


CONFIG = TrainingConfig(
    steps=40,
    batch_examples=8,
    learning_rate=3e-3,
    group_chains=2,
    max_example_tokens=64,
    row_tokens=128,
    dev_every=7,
    warmup_steps=5,
    save_every_s=0,
    num_workers=0,
)
TIMES = ("seconds", "mfu", "memory_bytes")
"""What of a step is another time another."""


SPLITS: dict[Split, int] = {"train": 24, "dev": 4}


def corpus(store: Store) -> Artifact:
    rows = [
        Example(f"p/{split}/{number}", split, "cot", chain, f"Question: What is {number} + {number}?\n", text)
        for split, count in SPLITS.items()
        for number in range(count)
        for chain, text in enumerate((f"The answer is {2 * number}.", f"{number} twice. The answer is {2 * number}."))
    ]
    writer = Writer(store, Address("corpus", 1, {}, {}))
    return writer.commit([writer.put_records("part.parquet", Example, rows)], {})


def training(store: Store, **changed: Any) -> Training:
    config = CONFIG.model_copy(update=changed)
    return Training(corpus(store), "shipped:student", None, "pretrained", config, "test")


def curve(directory: Path) -> list[dict[str, Any]]:
    """What each step came to, without how long it took."""
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def newest_state(store: Store, made: Training) -> int:
    """The step of the newest state in the store; 0 without one."""
    keys = store.keys(f"{made.address.prefix}state/")
    return int(Path(keys[-1]).stem) if keys else 0


def work(rank: int, world: int, made: Training, store: Store | None, folder: Path) -> None:
    """One of some workers, which meet at a file."""
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    place = folder / str(rank)
    place.mkdir(parents=True, exist_ok=True)
    stats = trainer.train_and_save(made, place, torch.device("cpu"), store)
    (place / "stats.json").write_text(json.dumps(stats))
    if world > 1:
        dist.destroy_process_group()


def hold_shards(rank: int, folder: Path) -> None:
    """One of two workers with shards, after the first of two backward passes of a step."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    config = CONFIG.model_copy(update={"shard": True, "num_workers": 2})
    trainee = Trainee(load_student("shipped:student", None, "pretrained", config), config, 0, torch.device("cpu"))
    (batch,) = trainee.batches([TokenizedExample("p", "cot", (5, 6, 7), (8, 9, 10))])
    with accumulating(trainee.scorer, is_last=False):
        trainee.scorer(batch, torch.device("cpu")).backward()
    parameters: dict[str, Any] = dict(trainee.scorer.named_parameters())
    held = [each.grad.to_local().numel() for each in parameters.values() if each.grad is not None]
    assert len(held) == len(parameters), "gradients wait, whole, for the last pass"
    assert sum(held) <= 0.6 * sum(each.numel() for each in parameters.values())
    dist.destroy_process_group()


class Workers:
    """Processes that train together; what they made lies in `place`."""

    def __init__(self, world: int, made: Training, folder: Path, store: Store | None = None) -> None:
        self.place = folder / "0"
        self._made, self._store = made, store
        (folder / "meeting").unlink(missing_ok=True)
        folder.mkdir(exist_ok=True)
        self._processes = [FORKS.Process(target=work, args=(rank, world, made, store, folder)) for rank in range(world)]
        for process in self._processes:
            process.start()

    def wait_for_state(self, step: int) -> int:
        """Wait until the state of a step, or of a later one, is in the store; its step."""
        assert self._store is not None
        while (newest := newest_state(self._store, self._made)) < step:
            assert self._processes[0].is_alive(), f"it ended with {self._processes[0].exitcode} before step {step}"
            time.sleep(0.002)
        return newest

    def kill(self) -> None:
        """SIGKILL."""
        assert self._processes[0].is_alive(), "it had ended: nothing was killed"
        for process in self._processes:
            process.kill()
            process.join()

    def wait(self, timeout_s: float = 60) -> Path:
        """Wait for their end, which is a good one; where the student lies."""
        for process in self._processes:
            process.join(timeout_s)
        assert [process.exitcode for process in self._processes] == [0] * len(self._processes)
        return self.place
