"""Training under Ray Train: the loss falls, the best checkpoint is kept, two workers compute what one does."""

import json
from itertools import islice
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

import families
from recordings import recipe, write_recording
from retort import prompts
from retort.engines import models
from retort.loading import load
from retort.pipeline import carry_out
from retort.records import Example, Split
from retort.selection import label
from retort.store import Store, open_store
from retort.store.artifacts import Address, Artifact, Writer
from retort.tasks import arithmetic
from retort.thoughts import cues, socratic
from retort.thoughts.socratic import Iterative, Role
from retort.training.config import MACHINERY, OF_EXAM, TrainingConfig
from retort.training.examples import View, tokenize, viewed
from retort.training.trainer import Training, train, train_and_save

CONFIG = TrainingConfig(
    steps=12,
    batch_examples=8,
    learning_rate=3e-3,
    max_example_tokens=128,
    row_tokens=256,
    dev_every=4,
    warmup_steps=2,
    num_workers=0,
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
    return train(store, Training(corpus or chains(store), "shipped:student", None, "pretrained", config, "test"))


def test_training_learns_and_keeps_the_best_checkpoint_in_hugging_face_format(store: Store) -> None:
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


@pytest.mark.parametrize("s3_server", ["swift"], indirect=True)
def test_finished_training_is_found_in_s3_and_not_repeated(s3_uri: str) -> None:
    store = open_store(s3_uri)
    first = run(store, CONFIG)
    assert run(store, CONFIG).manifest == first.manifest
    located = Path(models.locate(first.location))
    assert {(path.name, path.stat().st_size) for path in located.iterdir()} == {
        (file["name"], file["size"]) for file in first.manifest["files"]
    }
    AutoModelForCausalLM.from_pretrained(located)


@pytest.mark.slow
def test_two_workers_follow_the_loss_of_one(store: Store, ray_session: None, tmp_path: Path) -> None:
    one = run(store, CONFIG).lines("metrics.jsonl")
    # In a store of its own, or it would be found there: the number of workers decides nothing.
    made = run(open_store(str(tmp_path / "elsewhere")), CONFIG.model_copy(update={"num_workers": 2}))
    assert made.stats["computed"]["workers"] == 2
    two = made.lines("metrics.jsonl")
    assert [row["target_tokens"] for row in one] == [row["target_tokens"] for row in two]
    for single, double in zip(one, two, strict=True):
        assert double["loss"] == pytest.approx(single["loss"], rel=1e-5)
        assert (double["dev_loss"] is None) == (single["dev_loss"] is None)
        if single["dev_loss"] is not None:
            assert double["dev_loss"] == pytest.approx(single["dev_loss"], rel=1e-5)


def test_a_training_that_was_done_with_other_workers_is_found(store: Store) -> None:
    first = run(store, CONFIG)
    other = CONFIG.model_copy(update={"num_workers": (1, 4), "shard": True, "row_tokens": 512})
    assert run(store, other).manifest == first.manifest


def test_room_is_asked_for_before_a_teacher_is_and_not_for_what_is_done(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    path, store = tmp_path / "recipe.toml", open_store(str(tmp_path / "store"))
    small = """
[[student]]
id = "cot"
base = "shipped:student"
corpus = "chains"
training = { steps = 1, batch_examples = 2, learning_rate = 1e-3, num_workers = 0 }
"""
    path.write_text(recipe(write_recording(tmp_path / "rec.jsonl", 1), store.uri, 1) + small)
    large = load(path, ["student.cot.training.num_workers=64"])
    with pytest.raises(ValueError, match=r"^training cot: 64 x \(1 CPU\): there is room for \d+"):
        carry_out(large, store, "train")
    assert store.keys("pools/") == [], "nothing was asked of the teacher"
    made = carry_out(load(path), store, "train").artifacts["checkpoint"]
    assert carry_out(large, store, "train").artifacts["checkpoint"] == made
    with pytest.raises(ValueError, match=r"^training cot: 64 x \(1 CPU\): there is room for \d+"):
        carry_out(load(path, ["student.cot.training.num_workers=64", "student.cot.training.steps=2"]), store, "train")


@pytest.mark.slow
def test_what_is_wrong_with_settings_is_one_line_through_a_worker_too(store: Store, ray_session: None) -> None:
    config = CONFIG.model_copy(update={"max_example_tokens": 16, "steps": 2, "num_workers": 1})
    with pytest.raises(ValueError, match="all 24 training examples are longer than max_example_tokens = 16"):
        run(store, config)


def test_an_example_longer_than_a_row_is_left_out_and_counted(store: Store) -> None:
    config = CONFIG.model_copy(update={"max_example_tokens": 96, "steps": 2})
    made = run(store, config, chains(store, train_count=40))
    stats = made.stats
    assert stats["too_long"] > 0
    assert stats["train_examples"] + stats["dev_examples"] + stats["too_long"] == 46


@pytest.mark.slow
def test_two_workers_train_an_encoder_decoder_on_the_turns_of_a_role_as_one_does(
    store: Store, ray_session: None, tmp_path: Path
) -> None:
    base, chains_of_all = families.save("t5", tmp_path / "t5"), unified(16)
    writer = Writer(store, Address("corpus", 1, {}, {}))
    corpus = writer.commit([writer.put_records("part.parquet", Example, chains_of_all)], {})
    config = CONFIG.model_copy(update={"max_example_tokens": 256, "num_workers": 2})
    view: View = ("solve", Iterative())
    made = train(store, Training(corpus, base, None, "pretrained", config, "test", view))
    assert made.manifest["inputs"]["role"] == "solve"
    num_steps = sum(len(socratic.steps_of(example.target)) for example in chains_of_all)
    assert made.stats["train_examples"] == num_steps > len(chains_of_all)
    AutoModelForSeq2SeqLM.from_pretrained(made.directory())

    alone = Training(corpus, base, None, "pretrained", config.model_copy(update={"num_workers": 1}), "test", view)
    train_and_save(alone, tmp_path, torch.device("cpu"))
    one = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in made.lines("metrics.jsonl")] == pytest.approx(one, rel=1e-4)
    assert one[-1] < 0.8 * one[0]


def test_example_tokens_bound_prompt_and_target_of_an_encoder_decoder_each(store: Store, tmp_path: Path) -> None:
    corpus = chains(store, train_count=40)
    tokenizer = AutoTokenizer.from_pretrained(models.locate("shipped:student"))
    lengths = [
        (len(example.prompt_ids), len(example.target_ids))
        for example in tokenize(tokenizer, list(corpus.records(Example)))
    ]
    left_out = {"llama": sum(sum(pair) > 80 for pair in lengths), "t5": sum(max(pair) > 80 for pair in lengths)}
    assert 0 < left_out["t5"] < left_out["llama"] < len(lengths)
    config = CONFIG.model_copy(update={"max_example_tokens": 80, "steps": 1})
    for family, count in left_out.items():
        base = families.save(family, tmp_path / family)
        training = Training(corpus, base, None, "pretrained", config, "test")
        assert train_and_save(training, tmp_path, torch.device("cpu"))["too_long"] == count


def test_a_training_is_addressed_by_its_one_seed_and_by_what_it_uses(store: Store) -> None:
    def where(config: TrainingConfig, view: View | None = None) -> dict[str, object]:
        return Training(chains(store), "shipped:student", None, "pretrained", config, "x", view).address.describe()

    plain = where(CONFIG)
    assert plain["config"] == {**CONFIG.model_dump(mode="json", exclude={"seeds", *MACHINERY, *OF_EXAM}), "seed": 0}
    assert where(CONFIG.model_copy(update={"num_workers": 2, "shard": True, "save_every_s": 0.0})) == plain
    assert plain["inputs"].keys() == {"corpus", "base", "init"}  # type: ignore[attr-defined]
    assert where(CONFIG.model_copy(update={"seeds": (1,)})) != plain
    assert where(CONFIG.model_copy(update={"thought_weights": {"cot": 1.0}})) != plain

    settings = Iterative()
    asking = where(CONFIG, ("ask", settings))
    same = Iterative(max_steps=3, hints="gold")
    assert where(CONFIG, ("ask", same)) == asking, "what only changes a rollout changes no training"
    others: list[View] = [
        ("solve", settings),
        ("ask", Iterative(questions="interleaved")),
        ("ask", Iterative(guidance="operators")),
    ]
    assert all(where(CONFIG, other) not in (plain, asking) for other in others)


def test_seeds_are_distinct_and_a_training_takes_one() -> None:
    for seeds in ((), (1, 1)):
        with pytest.raises(ValidationError, match="seeds"):
            TrainingConfig.model_validate({**CONFIG.model_dump(), "seeds": seeds})
    assert CONFIG.model_copy(update={"seeds": (7,)}).seed == 7
    with pytest.raises(AssertionError, match="one training has one seed"):
        _ = CONFIG.model_copy(update={"seeds": (7, 8)}).seed


def unified(count: int = 3) -> list[Example]:
    """Chains of the whole: two of the first problem, one of each other."""
    stories = list(islice(arithmetic.stories("train", 0), count))
    made = [
        Example(
            f"arithmetic/train/{number}",
            "train",
            "socratic",
            chain,
            prompts.ask(f"Question: {story.question}", cues.SOCRATIC),
            story.socratic(),
        )
        for number, story in enumerate(stories)
        for chain in range(2 if number == 0 else 1)
    ]
    assert all(socratic.steps_of(example.target) for example in made)
    return made


def test_without_a_view_examples_stay_as_they_are() -> None:
    assert viewed(unified(), None) == unified()


@pytest.mark.parametrize("role", ["ask", "solve", "hint"])
@pytest.mark.parametrize("questions", ["at_once", "interleaved"])
def test_a_view_holds_the_turns_of_one_role_in_order(role: Role, questions: str) -> None:
    settings = Iterative.model_validate({"questions": questions, "guidance": "operators"})
    seen = viewed(unified(), (role, settings))
    assert [(example.prompt, example.target) for example in seen] == [
        pair for example in unified() for pair in socratic.views(example.prompt, example.target, role, settings)
    ]
    assert {(example.thought, example.split) for example in seen} == {(role, "train")}
    for problem in {example.problem_id for example in unified()}:
        indices = [example.index for example in seen if example.problem_id == problem]
        assert indices == list(range(len(indices)))
        assert indices
