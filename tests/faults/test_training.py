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
from faults.training_process import Workers, curve, newest_state, training
from retort.store import Store, open_store
from retort.training.config import LoraConfig
from retort.training.states import States
from retort.training.trainer import train


@pytest.mark.parametrize(
    "changed",
    [
        {},
        pytest.param({"lora": LoraConfig(rank=4, dropout=0.1)}, marks=pytest.mark.slow),
        pytest.param({"save_every_s": 0.05, "steps": 120}, marks=pytest.mark.slow),
    ],
    ids=["saved after every step", "adapters with dropout", "saved now and then"],
)
def test_a_training_killed_at_ten_random_steps_ends_bitwise_as_one_that_was_not(
    changed: dict[str, Any], store: Store, tmp_path: Path
) -> None:
    rng = random.Random(len(changed))
    made = training(store, **changed)
    undisturbed = Workers(1, made, tmp_path / "whole", open_store(str(tmp_path / "elsewhere")))
    for _ in range(10):
        workers = Workers(1, made, tmp_path / "killed", store)
        workers.wait_for_state(newest_state(store, made) + rng.randint(1, 4))
        time.sleep(rng.uniform(0, 0.03))
        workers.kill()
    killed, whole = Workers(1, made, tmp_path / "killed", store).wait(), undisturbed.wait()
    assert curve(killed) == curve(whole)
    assert [row["step"] for row in curve(killed)] == list(range(1, made.config.steps + 1))
    went_on = json.loads((killed / "stats.json").read_text())["went_on_from"]
    assert len(went_on) == 10
    assert len(set(went_on)) > 4, "it was killed again and again before its next state"
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_damaged_state_is_passed_over_for_the_one_before(store: Store, tmp_path: Path) -> None:
    made = training(store, steps=30)
    workers = Workers(1, made, tmp_path / "killed", store)
    workers.wait_for_state(4)
    workers.kill()
    *_, before, newest = store.keys(f"{made.address.prefix}state/")
    whole = store.get(newest)
    store.replace(newest, whole[: len(whole) // 2])
    student = Workers(1, made, tmp_path / "student", store).wait()
    assert json.loads((student / "stats.json").read_text())["went_on_from"] == [int(Path(before).stem)]
    assert [row["step"] for row in curve(student)] == list(range(1, 31))


def test_states_are_gone_once_there_is_a_checkpoint(store: Store, ray_session: None) -> None:
    made = training(store, steps=3)
    artifact = train(store, made)
    assert artifact.stats["went_on_from"] == []
    assert store.keys(f"{made.address.prefix}state/") == []
    assert train(store, made).manifest == artifact.manifest


def test_a_full_disk_ends_a_training_in_one_line_and_the_last_state_stays(disk: Path, tmp_path: Path) -> None:
    store = open_store(str(disk / "store"))
    made = training(store)
    workers = Workers(1, made, tmp_path / "killed", store)
    workers.wait_for_state(4)
    workers.kill()
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
