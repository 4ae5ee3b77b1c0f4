"""Each family of students trains, is saved, and answers what it has learned through the engine `hf`."""

import asyncio
import json
from pathlib import Path

import pytest
import torch

import families
from families import one_thread as one_thread
from retort import prompts
from retort.engines import hf, vllm
from retort.engines.interface import Completion, Engine, SamplingDistribution
from retort.records import Example, Request
from retort.store import Store
from retort.store.artifacts import Address, Artifact, Writer
from retort.training.config import TrainingConfig
from retort.training.trainer import Training, train_and_save

TARGETS = {
    "How many apples are left?": "12 - 5 = 7. The answer is 7.",
    "How many pens does Omar have after he buys 3 more?": "20 + 3 = 23. The answer is 23.",
    "Ann reads 4 books a day for 2 days. How many books is that?": "4 * 2 = 8. The answer is 8.",
    "Who is there?": "No one. The answer is 0.",
}
CONFIG = TrainingConfig(steps=80, batch_examples=4, learning_rate=5e-3, max_example_tokens=128, row_tokens=256)


def corpus(store: Store) -> Artifact:
    rows = [
        Example(f"p/train/{number}", "train", "cot", 0, f"Question: {question}\n", target)
        for number, (question, target) in enumerate(TARGETS.items())
    ]
    writer = Writer(store, Address("corpus", 1, {}, {}))
    return writer.commit([writer.put_records("part.parquet", Example, rows)], {})


async def ask(engine: Engine) -> list[Completion]:
    """What a model says to the training prompts, asked all at once."""
    asked = [f"Question: {question}\n" for question in TARGETS]
    requests = [Request(prompts.prompt_hash(prompt), 0, prompt, 0, 40, "p/train/0", "cot", "") for prompt in asked]
    greedy = SamplingDistribution(temperature=0)
    await engine.start()
    found = await asyncio.gather(*map(engine.complete, asked, requests, [greedy] * len(asked)))
    engine.close()
    return [completion for completion in found if completion is not None]


def trained(family: str, store: Store, directory: Path) -> str:
    """A student that has learned the corpus; its path."""
    base = families.save(family, directory / "base")
    training = Training(corpus(store), base, None, "pretrained", CONFIG, family)
    stats = train_and_save(training, directory / "trained", torch.device("cpu"))
    assert (stats["train_examples"], stats["too_long"]) == (4, 0)
    return str(directory / "trained")


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_student_of_each_family_learns_and_answers_from_its_checkpoint(
    family: str, store: Store, tmp_path: Path
) -> None:
    model = trained(family, store, tmp_path)
    curve = [json.loads(line)["loss"] for line in Path(model, "metrics.jsonl").read_text().splitlines()]
    assert curve[-1] < 0.1 * curve[0]
    completions = asyncio.run(ask(hf.Engine(hf.Config(model=model, batch_size=4))))
    assert [completion.text for completion in completions] == list(TARGETS.values())
    assert {completion.finish_reason for completion in completions} == {"stop"}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "opt", "qwen2"])
def test_vllm_serves_what_was_trained_and_says_what_transformers_says(
    family: str, store: Store, tmp_path: Path
) -> None:
    model = trained(family, store, tmp_path)
    by_transformers = asyncio.run(ask(hf.Engine(hf.Config(model=model))))
    by_vllm = asyncio.run(ask(vllm.Engine(vllm.Config(model=model, dtype="float32"))))
    assert by_vllm == by_transformers
