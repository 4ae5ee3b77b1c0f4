"""Invariant 8: what a stage makes of fixed input changes only with the stage's VERSION.

`tests/data/golden.json` holds the digest of each stage's output and the version that made it. Where a digest differs,
raise the VERSION of that stage and write the new digest down; artifacts of the old version are then not taken for new.
"""

import json
import random
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from recordings import recipe, write_recording
from retort import evaluation, selection, verification
from retort import run as run_module
from retort.combining import Tolerance
from retort.engines import models
from retort.loading import load
from retort.pipeline import build_corpus, judge
from retort.planning import teacher_plans
from retort.records import Example, Prediction, Problem, Verdict, as_row
from retort.run import Run, prepare
from retort.store import Store
from retort.store.hashing import digest
from retort.tasks import arithmetic
from retort.training import trainer
from retort.training.config import TrainingConfig
from retort.training.drawing import draw_steps
from retort.training.examples import tokenize

GOLDEN = Path(__file__).parent / "data/golden.json"


def sampled(store: Store, tmp_path: Path) -> Run:
    path = tmp_path / "recipe.toml"
    path.write_text(
        recipe(
            write_recording(tmp_path / "rec.jsonl", 4),
            "/unused",
            4,
            evaluation='[evaluation]\nreferences = { rec = ["arithmetic"] }\ndecodes = ["greedy", "maj@3"]',
        )
    )
    run = prepare(load(path), store)
    teacher = run.recipe.teacher[0]
    judge(run, teacher.model, teacher_plans(run, teacher, with_references=True), teacher.id)
    return run


def rows_digest(rows: list[dict[str, object]]) -> str:
    """Of rows in any order; the model's id depends on the path-free content of the recording, and stays."""
    return digest(sorted(digest(row) for row in rows))[:24]


def test_stage_outputs_change_only_with_their_version(store: Store, tmp_path: Path, ray_session: None) -> None:
    run = sampled(store, tmp_path)
    kept = run.artifacts["verdicts"]
    made = {
        "problems": [as_row(row) for row in run.artifacts["problems"]["arithmetic"].records(Problem)],
        "verdicts": [as_row(row) for row in kept["rec/cot"].records(Verdict)],
        "corpus": [as_row(row) for row in build_corpus(run, "chains").records(Example)],
        "labels": [as_row(row) for row in build_corpus(run, "labels").records(Example)],
    }
    tests = {"greedy": kept["rec/test-greedy"], "maj": kept["rec/test-maj"]}
    scored = evaluation.evaluate(store, tests, ("greedy", "maj@3"), (), {}, Tolerance(), "rec")
    made["predictions"] = [as_row(row) for row in scored.records(Prediction)]
    made["scores"] = scored.lines("scores.jsonl")
    versions = {
        "problems": run_module.VERSION,
        "verdicts": verification.VERSION,
        "corpus": selection.VERSION,
        "labels": selection.VERSION,
        "predictions": evaluation.VERSION,
        "scores": evaluation.VERSION,
    }
    assert all(len(rows) > 1 for rows in made.values())
    got = {stage: {"version": versions[stage], "digest": rows_digest(rows)} for stage, rows in made.items()}
    check(got)


def test_what_training_is_fed_changes_only_with_its_version() -> None:
    import torch
    from transformers import AutoTokenizer, get_scheduler

    from retort.training.packing import group, pack_rows

    rng = random.Random(0)
    rows = [
        Example(f"p{number}", "train", "cot", chain, f"Question: {story.question}\n", story.chain_of_thought(rng))
        for number, story in enumerate(islice(arithmetic.stories("train", 0), 12))
        for chain in range(3)
    ]
    tokenized = tokenize(AutoTokenizer.from_pretrained(models.locate("shipped:student")), rows)
    config = TrainingConfig(
        steps=40, batch_examples=8, learning_rate=1e-3, warmup_steps=5, schedule="cosine", group_chains=2
    )
    fed = [
        [row.input_ids_T.tolist(), row.position_ids_T.tolist(), row.source_S.tolist(), row.labels_S.tolist(), row.spans]
        for step in islice(draw_steps(tokenized, config), 4)
        for row in pack_rows(group(step, shares=True), 512, pad_id=0, width_step=64)
    ]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
    schedule: Any = get_scheduler(config.schedule, optimizer, config.warmup_steps, config.steps)
    rates: list[float] = []
    for _ in range(config.steps):
        rates.append(round(float(schedule.get_last_lr()[0]), 12))
        optimizer.step()
        schedule.step()
    check({"training": {"version": trainer.VERSION, "digest": digest([fed, rates])[:24]}})


def check(got: Mapping[str, Mapping[str, object]]) -> None:
    golden = json.loads(GOLDEN.read_text())
    expected = {stage: golden.get(stage) for stage in got}
    assert got == expected, f"new output; if it is meant, raise the VERSION and keep:\n{json.dumps(got, indent=1)}"
