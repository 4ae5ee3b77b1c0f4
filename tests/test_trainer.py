"""Training under Ray Train: the loss falls, the best checkpoint is kept, two workers compute what one does."""

from itertools import islice
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from retort.records import Example, Split
from retort.selection import label
from retort.store import Store
from retort.store.artifacts import Address, Artifact, Writer
from retort.tasks import arithmetic
from retort.training.config import TrainingConfig
from retort.training.trainer import train

CONFIG = TrainingConfig(
    steps=12, batch_examples=8, learning_rate=3e-3, row_tokens=128, micro_batch_rows=2, dev_every=4, warmup_steps=2
)


def chains(store: Store, train_count: int = 24) -> Artifact:
    import random

    rng = random.Random(0)
    rows: list[Example] = []
    counts: dict[Split, int] = {"train": train_count, "dev": 6}
    for split, count in counts.items():
        for number, story in enumerate(islice(arithmetic.stories(split, 0), count)):
            problem = story.problem(split, number)
            made = label(problem, "answer")
            assert made is not None
            rows.append(Example(problem.id, split, "cot", 0, made.prompt, story.chain_of_thought(rng)))
    writer = Writer(store, Address("corpus", 1, {"test": train_count}, {}))
    return writer.commit([writer.put_records("part.parquet", Example, rows)], {})


def run(store: Store, config: TrainingConfig, corpus: Artifact | None = None) -> Artifact:
    return train(store, corpus or chains(store), "shipped:student", None, "pretrained", config, "test")


def test_training_learns_and_keeps_the_best_checkpoint_in_hugging_face_format(store: Store, ray_session: None) -> None:
    made = run(store, CONFIG)
    curve = made.lines("metrics.jsonl")
    assert [row["step"] for row in curve] == list(range(1, 13))
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]
    measured = {row["step"]: row["dev_loss"] for row in curve if row["dev_loss"] is not None}
    assert set(measured) == {4, 8, 12}
    assert made.stats["best_step"] == min(measured, key=lambda step: measured[step])
    assert Path(made.directory(), "model.safetensors").is_file()
    loaded = AutoModelForCausalLM.from_pretrained(made.directory())
    assert sum(parameter.numel() for parameter in loaded.parameters()) == made.stats["parameters"]


def test_finished_training_is_found_and_not_repeated(store: Store, ray_session: None) -> None:
    first = run(store, CONFIG)
    assert run(store, CONFIG).manifest == first.manifest


def test_two_workers_follow_the_loss_of_one(store: Store, ray_session: None) -> None:
    corpus = chains(store)
    one = run(store, CONFIG, corpus).lines("metrics.jsonl")
    two = run(store, CONFIG.model_copy(update={"num_workers": 2}), corpus).lines("metrics.jsonl")
    assert [row["target_tokens"] for row in one] == [row["target_tokens"] for row in two]
    for single, double in zip(one, two, strict=True):
        assert double["loss"] == pytest.approx(single["loss"], rel=1e-4)
        assert (double["dev_loss"] is None) == (single["dev_loss"] is None)
        if single["dev_loss"] is not None:
            assert double["dev_loss"] == pytest.approx(single["dev_loss"], rel=1e-4)


def test_an_example_longer_than_a_row_is_left_out_and_counted(store: Store, ray_session: None) -> None:
    config = CONFIG.model_copy(update={"row_tokens": 96, "steps": 2})
    made = run(store, config, chains(store, train_count=40))
    stats = made.stats
    assert stats["too_long"] > 0
    assert stats["train_examples"] + stats["dev_examples"] + stats["too_long"] == 46
