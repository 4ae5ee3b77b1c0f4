"""`recorded-cot.toml`: recorded chains of large models through the whole path, with the figures that came out."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from retort.store import open_store
from retort.store.artifacts import Artifact, open_artifact

pytestmark = pytest.mark.data
ROOT = Path(__file__).parent.parent.parent

# Right answers of the six models (Faithful-COT's few-shot chains), answers marked in the text only.
GREEDY = {
    "code001": {"svamp": 414, "gsm8k": 197, "multiarith": 346},
    "code002": {"svamp": 774, "gsm8k": 825, "multiarith": 575},
    "text002": {"svamp": 685, "gsm8k": 619, "multiarith": 547},
    "text003": {"svamp": 793, "gsm8k": 771, "multiarith": 566},
    "gpt-3-5-turbo": {"svamp": 824, "gsm8k": 1041, "multiarith": 585},
    "gpt4": {"svamp": 796, "gsm8k": 932, "multiarith": 560},
}


def artifacts(store: str, stage: str) -> list[Artifact]:
    opened = open_store(store)
    prefixes = {key.rsplit("/", 1)[0] for key in opened.keys(f"artifacts/{stage}/") if key.endswith("manifest.json")}
    return [made for prefix in sorted(prefixes) if (made := open_artifact(opened, f"{prefix}/")) is not None]


# A student that is trained in the job's process and sampled by transformers, which start sooner.
CHEAP = ("student.bytes.training.num_workers=0", "student.bytes.engine=hf", "evaluation.max_new_tokens=16")


@pytest.mark.parametrize(
    ("models", "overrides"),
    [pytest.param(list(GREEDY), (), marks=pytest.mark.slow), (["gpt4"], CHEAP)],
    ids=["as it is", "one model of six"],
)
def test_recorded_chains_of_large_models_go_through_the_whole_path(
    tmp_path: Path, models: list[str], overrides: tuple[str, ...]
) -> None:
    store = str(tmp_path / "store")
    tasks = {"palm": ["svamp-palm"]} | {name: list(GREEDY["gpt4"]) for name in [*models, "all-six"]}
    references = ", ".join(f"{name} = {json.dumps(of)}" for name, of in tasks.items())
    command = [sys.executable, "jobs/distill.py", "jobs/recipes/recorded-cot.toml", f"store={store}", *overrides]
    command.append(f"evaluation.references={{ {references} }}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (run,) = artifacts(store, "run")
    opened = open_store(store)
    names = run.manifest["inputs"]
    scores = {
        name: {(row["task"], row["decode"]): row["correct"] for row in made.lines("scores.jsonl")}
        for name, prefix in names["evaluation"].items()
        if (made := open_artifact(opened, prefix)) is not None
    }
    for model in models:
        assert {task: scores[model][task, "greedy"] for task in GREEDY[model]} == GREEDY[model]
    best = {task: max(right[task] for right in GREEDY.values()) for task in ("svamp", "multiarith")}
    for task, single in best.items():
        assert scores["all-six"][task, "maj@6"] > single, "six models together vote better than the best of them"
    palm = open_artifact(opened, names["verdicts"]["palm/cot"])
    assert palm is not None
    assert palm.stats["reasons"] == {"correct": 594, "no_answer": 11, "wrong": 195}
    (report,) = artifacts(store, "report")
    assert f"artifact: {report.uri}" in done.stdout
