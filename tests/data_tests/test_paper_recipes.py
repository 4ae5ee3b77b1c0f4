"""The papers' recipes pass `--dry-run` on the real data sets, with local copies in the place of the hub."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from retort import loading

pytestmark = pytest.mark.data
ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("RETORT_DATA", ""), "data")


def paths(folder: str, **files: str) -> str:
    named = ", ".join(f'{split} = "{DATA / folder / name}"' for split, name in files.items())
    return f"paths={{ {named} }}"


GSM8K = f"task.gsm8k.path={DATA / 'gsm8k'}"
SOCRATIC = f'task.gsm8k.socratic_paths={{ test = "{DATA / "gsm8k/test_socratic.jsonl"}" }}'
LOCAL = {
    "scotd-commonsense": [
        f"task.commonsense_qa.path={DATA / 'commonsenseqa'}",
        "task.openbookqa."
        + paths("openbookqa", train="llm_adapters/train.json", dev="mario/dev.jsonl", test="llm_adapters/test.json"),
        f"task.quarel.{paths('quarel', train='train.jsonl', dev='dev.jsonl', test='test.jsonl')}",
    ],
    "socratic-gsm8k": [GSM8K, SOCRATIC],
    "etd-gsm8k": [
        GSM8K,
        f"task.svamp.path={DATA / 'svamp/SVAMP.json'}",
        f"task.asdiv.path={DATA / 'asdiv/ASDiv.xml'}",
        f"task.multiarith.path={DATA / 'multiarith/MultiArith.json'}",
    ],
}
EXPECTED = {
    # 9,741 + 4,957 + 499 + 1,757 + 278 questions, thirty chains each.
    "scotd-commonsense": ["17232 problems, 516960 chains wanted", "teacher greedy, cot: 17232 problems, 17232 chains"],
    "socratic-gsm8k": ["teacher teacher, socratic: 7473 problems, 7473 chains", "teacher teacher, cot: 7473 problems"],
    "etd-gsm8k": [f"teacher teacher, {thought}: 7473 problems, 29892 chains" for thought in ("pot", "eot", "cot")],
}


@pytest.mark.parametrize("name", LOCAL)
def test_the_recipe_of_a_paper_plans_what_the_paper_bought(name: str, tmp_path: Path):
    path = ROOT / "jobs/recipes" / f"{name}.toml"
    recipe = loading.load(path)
    # Without the hub a model's commit cannot be asked for: the recipe's user names one.
    revisions = [f"teacher.{teacher.id}.revision=main" for teacher in recipe.teacher]
    revisions += [f"student.{student.id}.revision=main" for student in recipe.student]
    command = [sys.executable, "jobs/distill.py", str(path), *LOCAL[name], *revisions, f"store={tmp_path}", "--dry-run"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line for line in EXPECTED[name] if line not in done.stdout] == [], done.stdout


@pytest.mark.parametrize("name", LOCAL)
def test_what_a_paper_leaves_open_is_listed(name: str):
    recipe = loading.load(ROOT / "jobs/recipes" / f"{name}.toml")
    assert "teacher.teacher.model" in recipe.assumed
    assert all(recipe.value(field) is not None for field in recipe.assumed)
