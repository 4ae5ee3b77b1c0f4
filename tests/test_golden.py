"""Invariant 8: what a stage makes of fixed input changes only with the stage's VERSION.

`tests/data/golden.json` holds the digest of each stage's output and the version that made it. Where a digest differs,
raise the VERSION of that stage and write the new digest down; artifacts of the old version are then not taken for new.
"""

import json
from pathlib import Path

from recordings import recipe, write_recording
from retort import evaluation, pipeline, selection, verification
from retort.config import load
from retort.pipeline import Run, build_corpus, judge, prepare, teacher_plans
from retort.records import Example, Prediction, Problem, Verdict, as_row
from retort.store import Store
from retort.store.hashing import digest

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
    scored = evaluation.evaluate(
        store, {"greedy": kept["rec/test-greedy"], "maj": kept["rec/test-maj"]}, ("greedy", "maj@3"), "rec"
    )
    made["predictions"] = [as_row(row) for row in scored.records(Prediction)]
    made["scores"] = scored.lines("scores.jsonl")
    versions = {
        "problems": pipeline.VERSION,
        "verdicts": verification.VERSION,
        "corpus": selection.VERSION,
        "labels": selection.VERSION,
        "predictions": evaluation.VERSION,
        "scores": evaluation.VERSION,
    }
    assert all(len(rows) > 1 for rows in made.values())
    got = {stage: {"version": versions[stage], "digest": rows_digest(rows)} for stage, rows in made.items()}
    assert got == json.loads(GOLDEN.read_text()), (
        f"new output; if it is meant, raise the VERSION and keep:\n{json.dumps(got, indent=1)}"
    )
