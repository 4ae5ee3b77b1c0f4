"""The small twins of the papers' recipes, from end to end with vLLM, and what they show (`make test-slow`)."""

import re
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from retort.store import open_store
from retort.store.artifacts import Artifact, open_artifact
from retort.sweep import ledger

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]


def distilled(name: str, store: Path) -> dict[str, Artifact]:
    """Run a recipe to its report; the evaluations by run, and `comparison`."""
    command = [sys.executable, "jobs/distill.py", f"jobs/recipes/{name}.toml", f"store={store}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    report = done.stdout.splitlines()[-2].removeprefix("report: ")
    assert Path(report).stat().st_size > 100_000
    return evaluations(store)


def evaluations(store: Path) -> dict[str, Artifact]:
    kept = open_store(str(store))
    (index,) = {key.rsplit("/", 1)[0] for key in kept.keys("artifacts/run/")}
    made = open_artifact(kept, f"{index}/")
    assert made is not None
    inputs: dict[str, dict[str, str]] = made.manifest["inputs"]
    named = {**inputs["evaluation"], "comparison": inputs["comparison"]["students"]}
    found = {name: open_artifact(kept, prefix) for name, prefix in named.items()}
    return {name: artifact for name, artifact in found.items() if artifact is not None}


def accuracy(rows: list[dict[str, Any]], thought: str, decode: str = "greedy") -> float:
    return next(row["accuracy"] for row in rows if (row["thought"], row["decode"]) == (thought, decode))


def means(kept: dict[str, Artifact]) -> dict[tuple[str, str], float]:
    return {(row["student"], row["thought"]): row["mean"] for row in kept["comparison"].lines("seeds.jsonl")}


def test_the_sweep_over_sample_counts_and_picks(tmp_path: Path):
    overrides = [f"store={tmp_path / 'store'}", f'sweep.study="sqlite:///{tmp_path / "study.db"}"']
    command = [sys.executable, "jobs/sweep.py", "jobs/recipes/demo-sweep.toml", *overrides]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    store = open_store(str(tmp_path / "store"))
    rows = ledger.rows(store, "demo-sweep").values()
    assert len(rows) == 4 * 2 * 3 + 6
    assert all(row.state == "finished" and row.step == 400 for row in rows), "all have equal steps"
    sampled = [
        artifact.stats
        for key in store.keys("artifacts/sampling/")
        if key.endswith("manifest.json") and (artifact := open_artifact(store, key.removesuffix("manifest.json")))
    ]
    of_teacher = [stats["sampled"] for stats in sampled if stats["wanted"] == 30 * 450]
    assert of_teacher == [30 * 450], "every chain was sampled once, for the largest sample count"
    means = {
        (chains, rule): fmean(
            row.value or 0
            for row in rows
            if (row.params["selection.num_chains"], row.params.get("selection.rule")) == (chains, rule)
        )
        for chains in (1, 4, 16, 30)
        for rule in ("correct", "all")
    }
    for rule in ("correct", "all"):
        assert means[30, rule] > means[1, rule], "many chains teach more than one"


def test_the_ensemble_of_thoughts(tmp_path: Path):
    kept = distilled("demo-etd", tmp_path)
    mean = means(kept)
    assert all(row["seeds"] == 3 for row in kept["comparison"].lines("seeds.jsonl"))
    singles = [mean[name, name] for name in ("pot", "eot", "cot")]
    combined = {thought: value for (name, thought), value in mean.items() if name == "etd" and ":" in thought}
    assert len(combined) == 5
    assert min(singles) > 0.05
    # The papers' direction: one student of all thoughts, combined, against each student of one. Equations alone come
    # close; the page says how each stands.
    assert combined["fallback:pot,eot,cot"] > max(mean["pot", "pot"], mean["cot", "cot"]) + 0.1
    assert combined["weighted:pot,eot,cot"] > max(singles)
    assert combined["oracle:pot,eot,cot"] >= max(combined.values())
    page = next((tmp_path / "artifacts/report").rglob("index.html")).read_text()
    assert all(re.search(rf"points (?:ahead of|behind)[^.]*\b{name}\b", page) for name in ("pot", "eot", "cot"))


def test_socratic_students(tmp_path: Path):
    kept = distilled("demo-socratic", tmp_path)
    unified, pair = (accuracy(kept[name].lines("scores.jsonl"), "socratic") for name in ("unified", "iterative"))
    cot = accuracy(kept["cot"].lines("scores.jsonl"), "cot")
    labels = accuracy(kept["label-only"].lines("scores.jsonl"), "answer")
    assert min(unified, pair, cot) > labels + 0.2
    for name in ("unified", "iterative"):
        (asked,) = kept[name].lines("questions.jsonl")
        assert asked["bleu"] > 50
        assert asked["same_count"] > 0.5


def test_many_chains_against_one_and_filtered_against_label_free(tmp_path: Path):
    kept = distilled("demo-scotd", tmp_path)
    scores = {name: kept[name].lines("scores.jsonl") for name in kept if name != "comparison"}
    supervised, label_free = (accuracy(scores[name], "cot") for name in ("supervised", "label-free"))
    labels = accuracy(scores["label-only"], "answer")
    assert min(supervised, label_free) > labels + 0.1
    # Eight chains a problem against one, the papers' main finding.
    assert supervised > accuracy(scores["supervised-1"], "cot") + 0.05
    assert label_free > accuracy(scores["label-free-1"], "cot")
    assert {row["decode"] for row in scores["label-free"]} == {"greedy", "maj@8"}
