"""Trainings that die: SIGKILL of the process, of a worker and of the driver, full disks, losses that are no numbers."""

import json
import random
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import families
from faults.test_disk_full import disk as disk
from faults.test_disk_full import fill
from faults.training_process import Process
from retort.records import Example, Split
from retort.store import Store, open_store
from retort.store.artifacts import Address, Artifact, Writer
from retort.training.config import LoraConfig, TrainingConfig
from retort.training.states import States
from retort.training.trainer import Training, train, train_and_save

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
        Example(
            f"p/{split}/{number}", split, "cot", chain, f"Question: What is {number} + {number}?\n", f"It is {text}."
        )
        for split, count in SPLITS.items()
        for number in range(count)
        for chain, text in enumerate((f"It is {2 * number}.", f"{number} twice, so {2 * number}."))
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


@pytest.mark.parametrize(
    "changed",
    [
        {},
        pytest.param({"lora": LoraConfig(rank=4, dropout=0.1)}, marks=pytest.mark.slow),
        pytest.param({"save_every_s": 0.05, "steps": 80}, marks=pytest.mark.slow),
    ],
    ids=["saved after every step", "adapters with dropout", "saved now and then"],
)
def test_a_training_killed_at_ten_random_steps_ends_bitwise_as_one_that_was_not(
    changed: dict[str, Any], store: Store, tmp_path: Path
) -> None:
    rng = random.Random(len(changed))
    made = training(store, **changed)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    undisturbed = Process(made, open_store(str(tmp_path / "elsewhere")), whole)
    reached: list[int] = []
    while len(reached) < 10:
        process = Process(made, store, killed)
        step = process.wait_for(rng.randint(1, 4))
        assert step is not None, f"it ended before it was killed ten times: {reached}"
        reached.append(step)
        time.sleep(rng.uniform(0, 0.03))
        process.kill()
    assert len(set(reached)) > 4, reached
    assert Process(made, store, killed).wait_for(made.config.steps + 1) is None
    assert undisturbed.wait_for(made.config.steps + 1) is None
    assert curve(killed) == curve(whole)
    assert [row["step"] for row in curve(killed)] == list(range(1, made.config.steps + 1))
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_damaged_state_is_passed_over_for_the_one_before(store: Store, tmp_path: Path) -> None:
    made = training(store, steps=6, dev_every=6)
    process = Process(made, store, tmp_path / "student")
    assert process.wait_for(5) == 5
    process.kill()
    *_, before, newest = store.keys(f"{made.address.prefix}state/")
    whole = store.get(newest)
    store.replace(newest, whole[: len(whole) // 2])
    stats = train_and_save(made, tmp_path / "student", torch.device("cpu"), store)
    assert stats["went_on_from"] == [int(before.split("/")[-1].split(".")[0])]
    assert [row["step"] for row in curve(tmp_path / "student")] == list(range(1, 7))


def test_states_are_gone_once_there_is_a_checkpoint(store: Store, ray_session: None) -> None:
    made = training(store, steps=3)
    artifact = train(store, made)
    assert artifact.stats["went_on_from"] == []
    assert store.keys(f"{made.address.prefix}state/") == []
    assert train(store, made).manifest == artifact.manifest


def test_a_full_disk_ends_a_training_in_one_line_and_the_last_state_stays(disk: Path, tmp_path: Path) -> None:
    store = open_store(str(disk / "store"))
    made = training(store)
    process = Process(made, store, tmp_path / "killed")
    assert process.wait_for(4) is not None
    process.kill()
    before = store.keys(f"{made.address.prefix}state/")
    ballast = fill(disk)
    with pytest.raises(ValueError, match=r"^training test: .*No space left on device"):
        train(store, made)
    assert before
    assert store.keys(f"{made.address.prefix}state/") == before
    ballast.unlink()
    assert train(store, made).stats["went_on_from"]


def test_a_loss_that_is_no_number_ends_a_training_in_one_line_and_the_last_state_stays(
    store: Store, tmp_path: Path
) -> None:
    """Of one word the embedding is broken; it is drawn after some steps."""
    base = Path(families.save("llama", tmp_path / "base"))
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    (word,) = set(tokenizer.encode("What is 7")) - set(tokenizer.encode("What is "))
    with torch.no_grad():
        model.get_input_embeddings().weight[word] = torch.nan
    model.save_pretrained(base)
    made = replace(training(store, batch_examples=2, group_chains=1, seeds=(3,)), base=str(base))
    with pytest.raises(
        ValueError, match=r"^training test: loss is nan at step \d+: expected a finite one; lower"
    ) as told:
        train(store, made)
    step = int(re.findall(r"step (\d+)", str(told.value))[0])
    assert step > 1, "it was drawn first: no state could be kept"
    state = States(store, made.address.prefix).newest()
    assert state is not None
    assert len(state["curve"]) == step - 1
    assert not any(tensor.isnan().any() for name, tensor in state["weights"].items() if "embed" not in name)
