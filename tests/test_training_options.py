"""What a training can be told: adapters, precision, what chooses its checkpoint, when it ends."""

import json
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.llama.modeling_llama import LlamaMLP

from families import one_thread as one_thread
from faults.training_process import CONFIG, curve, training
from recordings import recipe, write_recording
from retort import planning
from retort.asking import student_asked
from retort.engines import models
from retort.loading import load
from retort.records import Example, Problem
from retort.rollouts import Rollout
from retort.run import prepare
from retort.selection import label
from retort.store import Store, open_store
from retort.store.artifacts import Address, Writer
from retort.training import keeping, speed
from retort.training.config import LoraConfig, TrainingConfig
from retort.training.examining import Exam
from retort.training.examples import TokenizedExample, tokenize
from retort.training.keeping import Keeper, Surroundings
from retort.training.packing import group, pack_rows
from retort.training.progress import Progress, StepMetrics
from retort.training.states import FOLDER, States
from retort.training.students import load_student
from retort.training.trainer import Training, train, train_and_save
from retort.verification import VerificationConfig

EXAMPLES = [TokenizedExample("p", "cot", (1, 2, 3), tuple(range(10, 10 + length))) for length in (4, 9)]


def trained(made: Training, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    return train_and_save(made, folder, torch.device("cpu"))


def weights(folder: str | Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


@pytest.mark.parametrize("dora", [False, True])
def test_adapters_alone_are_trained_and_merged_into_what_is_saved(dora: bool, store: Store, tmp_path: Path) -> None:
    made = training(store, lora=LoraConfig(rank=4, dora=dora), steps=20, learning_rate=1e-2)
    trained(made, tmp_path / "student")
    losses = [row["loss"] for row in curve(tmp_path / "student")]
    assert losses[-1] < 0.9 * losses[0]
    before, after = weights(models.locate("shipped:student")), weights(tmp_path / "student")
    assert before.keys() == after.keys(), "no adapter is left over"
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "_proj" in name}


def test_a_student_is_saved_in_the_precision_that_it_was_trained_in(store: Store, tmp_path: Path) -> None:
    single, half = (training(store, dtype=dtype, steps=10) for dtype in ("float32", "bfloat16"))
    trained(single, tmp_path / "single")
    trained(half, tmp_path / "half")
    assert {tensor.dtype for tensor in weights(tmp_path / "half").values()} == {torch.bfloat16}
    one, other = ([row["loss"] for row in curve(tmp_path / name)] for name in ("single", "half"))
    assert one != other
    assert other == pytest.approx(one, rel=0.05)


def test_activations_that_are_computed_again_are_the_same(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    forward = LlamaMLP.forward

    def counted(self: Any, x: torch.Tensor) -> torch.Tensor:
        calls.append("")
        return forward(self, x)

    monkeypatch.setattr(LlamaMLP, "forward", counted)
    plain, again = (training(store, activation_checkpointing=each, steps=5, dev_every=5) for each in (False, True))
    assert plain.address == again.address
    trained(plain, tmp_path / "plain")
    once = len(calls)
    trained(again, tmp_path / "again")
    assert len(calls) - once > 1.5 * once, "nothing was computed again"
    assert curve(tmp_path / "plain") == curve(tmp_path / "again")


def test_among_equal_accuracies_the_lower_loss_is_kept() -> None:
    config = TrainingConfig(steps=9, batch_examples=1, learning_rate=0.1, choose_by="dev_accuracy")
    row = StepMetrics(1, 2.0, 2.0, 0.5, 0.1, 1.0, 1, 1, 1, 0.0, None, 1, 1.0)
    progress = Progress([row], row)
    assert progress.is_better(replace(row, dev_loss=1.9), config)
    assert not progress.is_better(replace(row, dev_loss=2.1), config)
    assert progress.is_better(replace(row, dev_loss=9.0, dev_accuracy=0.6), config)
    assert not progress.is_better(replace(row, dev_loss=1.0, dev_accuracy=0.4), config)
    assert not progress.is_better(replace(row, dev_loss=math.nan, dev_accuracy=0.9), config)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_student_learns_the_same(store: Store, tmp_path: Path) -> None:
    plain, compiled = (training(store, compile=each, steps=5, dev_every=5) for each in (False, True))
    trained(plain, tmp_path / "plain")
    trained(compiled, tmp_path / "compiled")
    losses = [[row["loss"] for row in curve(tmp_path / name)] for name in ("plain", "compiled")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_prompts_that_are_shared_change_no_loss(store: Store, tmp_path: Path) -> None:
    shared, plain = (training(store, share_prompts=each, steps=10, dev_every=5) for each in (True, False))
    sharing, without = trained(shared, tmp_path / "shared"), trained(plain, tmp_path / "plain")
    assert sharing["computed_tokens"] < 0.8 * without["computed_tokens"]
    assert without["computed_tokens"] == without["example_tokens"] == sharing["example_tokens"]
    losses = [[row["loss"] for row in curve(tmp_path / name)] for name in ("shared", "plain")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_training_ends_early_once_it_gets_no_better(store: Store, tmp_path: Path) -> None:
    # A learning rate this high makes losses go up and down.
    made = training(store, learning_rate=1e-2, schedule="constant", steps=300, dev_every=2, patience=3)
    stats = trained(made, tmp_path / "student")
    measured = [row for row in curve(tmp_path / "student") if row["dev_loss"] is not None]
    assert stats["best_dev_loss"] == min(row["dev_loss"] for row in measured)
    assert stats["steps"] == stats["best_step"] + 3 * 2 < 300


EXAMINED = """
[[student]]
id = "cot"
base = "shipped:student"
corpus = "chains"
[student.training]
steps = 10
batch_examples = 2
learning_rate = 1e-3
choose_by = "dev_accuracy"
dev_problems = 5
"""


def exam() -> Exam:
    """The questions of the corpus, which the student learns by heart."""
    asked = {number: f"Question: What is {number} + {number}?\n" for number in range(4)}
    problems = [
        Problem(f"p/dev/{number}", "p", "dev", question, "number", str(2 * number))
        for number, question in asked.items()
    ]
    return Exam(tuple(problems), "cot", tuple(asked.values()), 24, Rollout(), VerificationConfig())


def test_the_checkpoint_with_the_most_right_answers_is_kept(store: Store, tmp_path: Path) -> None:
    config: dict[str, Any] = {"choose_by": "dev_accuracy", "steps": 100, "dev_every": 20, "learning_rate": 1e-3}
    made = replace(training(store, **config), exam=exam())
    assert made.address != training(store, **config).address
    stats = trained(made, tmp_path / "student")
    rows = curve(tmp_path / "student")
    measured = {row["step"]: row["dev_accuracy"] for row in rows if row["dev_accuracy"] is not None}
    assert list(measured) == [20, 40, 60, 80, 100]
    assert stats["best_dev_accuracy"] == max(measured.values()) >= 0.75
    assert stats["best_step"] == min(step for step, right in measured.items() if right == max(measured.values()))
    # What is kept answers so by itself, with the attention of its kind.
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "student")
    student: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    right, of = exam().with_tokenizer(tokenizer, torch.float32)(student)
    assert (right / of, of) == (stats["best_dev_accuracy"], 4)
    assert json.loads((tmp_path / "student/config.json").read_text()).get("attn_implementation") is None


def test_a_student_of_bfloat16_is_examined_in_it(store: Store) -> None:
    student: Any = load_student("shipped:student", None, "pretrained", CONFIG)
    tokenizer: Any = AutoTokenizer.from_pretrained(models.locate("shipped:student"))
    seen: set[torch.dtype] = set()
    student.get_output_embeddings().register_forward_hook(lambda *call: seen.add(call[2].dtype))
    for dtype in (torch.bfloat16, torch.float32):
        seen.clear()
        assert exam().with_tokenizer(tokenizer, dtype)(student)[1] == 4
        assert seen == {dtype}


def test_a_dev_problem_that_is_too_long_for_the_student_is_refused_before_a_step(store: Store, tmp_path: Path) -> None:
    long = replace(exam(), max_new_tokens=100_000)
    made = replace(training(store, choose_by="dev_accuracy"), exam=long)
    told = r"^training test: dev problem p/dev/0: prompt of \d+ tokens .*lower training.dev_max_new_tokens$"
    with pytest.raises(ValueError, match=told):
        train(store, made)


def test_a_loss_is_the_mean_over_weighted_tokens(tmp_path: Path) -> None:
    """Problems with one, two and three chains, of which each weighs its share."""
    chains = [("1", ["one"]), ("2", ["two", "two, I say"]), ("3", ["three", "it is three", "three, as I have said"])]
    rows = [
        Example(f"p/train/{number}", "train", "cot", index, f"Question: {question}?\n", text)
        for number, (question, texts) in enumerate(chains)
        for index, text in enumerate(texts)
    ]
    store = open_store(str(tmp_path / "store"))
    writer = Writer(store, Address("corpus", 2, {}, {}))
    corpus = writer.commit([writer.put_records("part.parquet", Example, rows)], {})
    config = {"steps": 1, "batch_examples": 6, "group_chains": 3, "chain_weights": "per_problem", "warmup_steps": 0}
    made = replace(training(store, **config), corpus=corpus)
    trained(made, tmp_path / "student")
    student: Any = load_student("shipped:student", None, "pretrained", made.config).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(models.locate("shipped:student"))
    loss = weight = 0.0
    for example in tokenize(tokenizer, rows):
        share = 1 / len(chains[int(example.problem_id[-1])][1])
        ids = torch.tensor([example.prompt_ids + example.target_ids])
        logits = student(input_ids=ids).logits[0, len(example.prompt_ids) - 1 : -1]
        loss += share * cross_entropy(logits, torch.tensor(example.target_ids), reduction="sum").item()
        weight += share * len(example.target_ids)
    assert curve(tmp_path / "student")[0]["loss"] == pytest.approx(loss / weight, rel=1e-5)


def test_memory_is_told_of_each_training_and_not_of_the_largest_before() -> None:
    cpu = torch.device("cpu")
    large = torch.ones(100_000_000)
    assert speed.peak_memory(cpu) > large.nbytes
    del large
    speed.forget_peak_memory(cpu)
    assert speed.peak_memory(cpu) < psutil.Process().memory_info().rss + 100_000_000


def test_a_machine_that_goes_in_an_hour_saves_once_and_then_by_the_clock(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "LOOK_EVERY_S", 0.0)
    saved: list[int] = []
    keeper = Keeper(Surroundings(States(store, "x/"), is_ending=lambda: True), save_every_s=3600)
    for step in range(1, 4):
        assert keeper.wishes == (False, True)
        keeper.keep(Progress(), keeper.wishes, lambda states, progress, step=step: saved.append(step))
    assert saved == [1]


def test_what_a_killed_transfer_left_on_this_machine_is_cleared_away(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen(["true"])
    ended.wait()
    left, ours = tmp_path / f"{FOLDER}{ended.pid}-a", tmp_path / f"{FOLDER}{os.getpid()}-b"
    for folder in (left, ours):
        folder.mkdir()
        (folder / "00000004.pt").write_bytes(b"x")
    States(store, "x/")
    assert not left.exists()
    assert ours.exists()


def test_too_little_memory_to_read_a_state_leaves_it_where_it_is(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    states = States(store, "x/")
    states.save(1, {"weights": {"a": torch.ones(1000)}})
    states.wait()
    limited = """
import resource, sys
from retort.store import open_store
from retort.training.states import States
states = States(open_store(sys.argv[1]), "x/")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 50_000_000,) * 2)
states.newest()
"""
    states.save(2, {"weights": {"a": torch.ones(100_000_000)}})
    states.wait()
    ran = subprocess.run([sys.executable, "-c", limited, store.uri], capture_output=True, text=True, check=False)
    assert ran.returncode != 0
    assert "memory" in ran.stderr.lower()
    assert len(store.keys("x/state/")) == 2


def test_an_exam_asks_what_training_and_evaluation_ask(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(recipe(write_recording(tmp_path / "rec.jsonl", 1), "/unused", 1) + EXAMINED)
    run = prepare(load(path), store)
    student = run.recipe.student[0]
    made = planning.exam(run, student)
    assert made is not None
    assert len(made.problems) == 5
    asked = student_asked(student.rollout)
    for problem, prompt in zip(made.problems, made.asked, strict=True):
        taught = label(problem, "cot")
        assert taught is not None
        assert prompt == taught.prompt == asked(problem, made.thought)
    by_loss = student.model_copy(update={"training": CONFIG})
    assert planning.exam(run, by_loss) is None


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {"max_example_tokens": 512, "row_tokens": 256},
            "a row holds whole examples; expected row_tokens",
        ),
        ({"num_workers": [2, 1]}, r"\[least, most\] with 1 ≤ least ≤ most"),
        ({"num_workers": [0, 2]}, r"\[least, most\]"),
        ({"shard": True}, "shard = true with num_workers = 1: expected 2 at the least"),
        ({"shard": True, "num_workers": 2, "choose_by": "dev_accuracy"}, "no worker has all weights to answer with"),
        ({"num_workers": [1, 2, 3]}, r"\[least, most\]"),
        ({"lora": {"rank": 0}}, "lora.rank"),
        ({"group_chains": 2}, "group_chains = 2, batch_examples = 1"),
        ({"warmup_steps": 2}, "warmup_steps = 2 of steps = 1; expected no more"),
        ({"curriculum_steps": 2}, "curriculum_steps = 2 of steps = 1"),
        ({"patience": 1}, r"patience = 1 with dev_every = 100 and steps = 1: it never ends early"),
        ({"chain_weights": "per_problem"}, "chain_weights = 'per_problem' with group_chains = 1"),
        ({"schedule": "step"}, "schedule"),
    ],
)
def test_settings_that_cannot_be_are_refused(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        TrainingConfig.model_validate({"steps": 1, "batch_examples": 1, "learning_rate": 0.1, **changed})


def test_flops_are_six_times_parameters_and_tokens_and_those_of_attention(store: Store) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(models.locate("shipped:student"))
    (row,) = pack_rows(group(EXAMPLES, shares=True), 256, 0, width_step=64)
    config, head = model.config, model.get_output_embeddings().weight.numel()
    layers = sum(parameter.numel() for parameter in model.parameters()) - head  # tied: the embedding is the output
    attention = 12 * config.num_hidden_layers * config.hidden_size * row.num_pairs
    flops = speed.forward_backward_flops(model, row)
    assert flops == 6 * layers * row.num_tokens + 6 * head * len(row.labels_S) + attention
    model.requires_grad_(False)
    assert (
        speed.forward_backward_flops(model, row)
        == 4 * layers * row.num_tokens + 4 * head * len(row.labels_S) + attention
    )
    assert speed.peak_flops(torch.device("cpu"), torch.float32) is None


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA L40", None),
        ("NVIDIA B200", None),
    ],
)
def test_the_peak_of_a_gpu_is_that_of_its_data_sheet(name: str, peak: float | None) -> None:
    assert speed.known_peak(name) == peak
