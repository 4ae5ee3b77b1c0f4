"""Answers in recorded chains: what we find and accept against what their sources, or our own count, say.

The corpora lie in `$RETORT_DATA/data`; its README names their sources. The figures are counts of chains.
"""

import gzip
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from retort.answers import canonical, compare, find
from retort.records import AnswerKind

pytestmark = pytest.mark.data

MODELS = ("code001", "code002", "text002", "text003", "gpt-3.5-turbo", "gpt4")
PALM = "chains/distilling_step_by_step"

# Right by the flag `is_correct`, right by us, and no answer, of 1,319 questions.
SAMPLES = {
    "6b_finetuning": (286, 286, 4),
    "6b_verification": (515, 515, 1),
    "175b_finetuning": (458, 458, 5),
    "175b_verification": (742, 742, 0),
}

# Right by a marker, and right where the last number counts without one; in the order of MODELS. The source's own field
# `answer` has fewer: it holds a sum (`14 - 2 = 12`), a unit or a sentence with `\boxed` where the others hold a number.
FAITHFUL_COT = {
    "SVAMP": [(414, 414), (774, 774), (685, 727), (793, 793), (824, 829), (796, 918)],
    "GSM8K": [(197, 199), (825, 827), (619, 669), (771, 772), (1041, 1061), (932, 1216)],
    "MultiArith": [(346, 346), (575, 575), (547, 554), (566, 566), (585, 585), (560, 587)],
}

# Right, wrong, no answer, of 2,290: with the marker only; many of the later models answer `Yes, …` without it.
STRATEGYQA = [(1219, 917, 154), (1661, 620, 9), (901, 325, 1064), (1586, 555, 149), (1255, 366, 669), (997, 185, 1108)]

OUTCOMES = {True: "right", False: "wrong", None: "undecided"}


@pytest.fixture(scope="module")
def data() -> Path:
    """The folder of the corpora; these tests are asked for by name, so that its absence is a failure."""
    if not (folder := os.environ.get("RETORT_DATA")):
        pytest.fail("RETORT_DATA is not set: it names the folder that holds data/", pytrace=False)
    return Path(folder) / "data"


def _lines(path: Path) -> list[dict[str, Any]]:
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def _palm(folder: Path, parts: int, suffix: str = "") -> list[str]:
    """The raw strings of `train_CoT_*`, in the order of the questions."""
    chains: list[str] = []
    for part in range(parts):
        raw = (folder / "palm" / f"train_CoT_{part}.json{suffix}").read_bytes()
        chains += json.loads(gzip.decompress(raw) if suffix else raw)
    return chains


def _outcome(kind: AnswerKind, text: str, gold: str, choices: tuple[str, ...] = (), last_number: bool = False) -> str:
    """What becomes of one chain; every gold field must be readable."""
    found_gold = find(kind, gold, choices=choices)
    assert found_gold is not None, gold
    assert canonical(kind, found_gold, choices=choices) is not None, gold
    found = find(kind, text, choices=choices, last_number=last_number)
    return "no answer" if found is None else OUTCOMES[compare(kind, found, found_gold, choices=choices)]


def test_gsm8k_samples_are_judged_as_their_flags_say(data: Path):
    rows = _lines(data / "gsm8k/example_model_solutions.jsonl")
    disagreements: list[tuple[int, str, str]] = []
    for model, expected in SAMPLES.items():
        outcomes = [_outcome("number", row[model]["solution"], row["ground_truth"]) for row in rows]
        flags = [row[model]["is_correct"] for row in rows]
        disagreements += [
            (index, model, outcome)
            for index, (outcome, flag) in enumerate(zip(outcomes, flags, strict=True))
            if (outcome == "right") != flag
        ]
        counts = Counter(outcomes)
        print(f"{model:18} {sum(flags):5} flagged right, ours {dict(counts)}")
        assert (sum(flags), counts["right"], counts["no answer"]) == expected
    assert disagreements == []


def _source_is_right(field: Any, gold: str) -> bool:
    """Whether Faithful-COT's own extraction is the gold number, as the data's README counted it."""
    try:
        return abs(float(str(field).replace("$", "").replace(",", "")) - float(gold)) < 1e-4
    except ValueError:
        return False


@pytest.mark.parametrize("name", FAITHFUL_COT)
def test_faithful_cot_chains_are_accepted(data: Path, name: str):
    golds = [row["answer"] for row in _lines(data / f"chains/faithful_cot/data/{name}/test.jsonl")]
    measured: list[tuple[int, int]] = []
    for model in MODELS:
        rows = _lines(data / f"chains/faithful_cot/output_dir/{name}/test/{model}_COT/predictions.jsonl.gz")
        marked, any_number = (
            Counter(
                _outcome("number", row["completion"], gold, last_number=last_number)
                for row, gold in zip(rows, golds, strict=True)
            )
            for last_number in (False, True)
        )
        numbers = [canonical("number", find("number", gold) or "") or "" for gold in golds]
        source = sum(_source_is_right(row["answer"], number) for row, number in zip(rows, numbers, strict=True))
        print(f"{name:10} {model:14} of {len(rows)}: source {source}, marked {dict(marked)}, last {dict(any_number)}")
        measured.append((marked["right"], any_number["right"]))
    assert measured == FAITHFUL_COT[name]


def test_strategyqa_chains_are_accepted(data: Path):
    golds = [str(row["answer"]) for row in _lines(data / "chains/faithful_cot/data/StrategyQA/test.jsonl")]
    measured: list[tuple[int, int, int]] = []
    for model in MODELS:
        rows = _lines(data / f"chains/faithful_cot/output_dir/StrategyQA/test/{model}_COT/predictions.jsonl.gz")
        counts = Counter(_outcome("yes_no", row["completion"], gold) for row, gold in zip(rows, golds, strict=True))
        print(f"StrategyQA {model:14} {dict(counts)}")
        measured.append((counts["right"], counts["wrong"], counts["no answer"]))
    assert measured == STRATEGYQA


def test_palm_svamp_expressions_are_calculated(data: Path):
    folder = data / PALM / "svamp"
    rows = _lines(folder / "svamp_train.json")
    counts = Counter(_outcome("number", chain, row["label"]) for chain, row in zip(_palm(folder, 2), rows, strict=True))
    print("PaLM SVAMP", dict(counts))
    assert counts == {"right": 594, "wrong": 176, "undecided": 19, "no answer": 11}


def test_palm_commonsense_choices_are_read(data: Path):
    folder = data / PALM / "cqa"
    rows = _lines(folder / "cqa_train.json.gz")
    counts = Counter(
        _outcome("choice", chain, row["answer"], choices=tuple(row["choices"]))
        for chain, row in zip(_palm(folder, 10, ".gz"), rows, strict=True)
    )
    print("PaLM CommonsenseQA", dict(counts))
    assert counts == {"right": 7344, "wrong": 2110, "no answer": 287}
