"""The tasks on the real data sets, which lie in `$RETORT_DATA/data`: counts, and gold answers that can be read."""

import os
from collections import Counter
from pathlib import Path

import pytest

from retort import answers
from retort.records import AnswerKind, Problem
from retort.tasks import gsm8k, jsonl, multiarith, svamp

pytestmark = pytest.mark.data

# Rows and kind of answer; MultiArith lacks four of its 600, StrategyQA is its train split.
FAITHFUL_COT: dict[str, tuple[int, AnswerKind]] = {
    "GSM8K": (1_319, "number"),
    "SVAMP": (1_000, "number"),
    "MultiArith": (596, "number"),
    "StrategyQA": (2_290, "yes_no"),
}


@pytest.fixture(scope="module")
def data() -> Path:
    return Path(os.environ["RETORT_DATA"], "data")


def gold_numbers(problems: list[Problem]) -> list[str]:
    """The canonical gold answers; all can be read."""
    assert len({problem.id for problem in problems}) == len(problems)
    numbers = [answers.canonical("number", problem.answer or "") for problem in problems]
    assert [problem for problem, number in zip(problems, numbers, strict=True) if number is None] == []
    return [number for number in numbers if number]


def test_gsm8k_is_whole(data: Path):
    problems = list(gsm8k.load(gsm8k.Config(id="gsm8k", path=str(data / "gsm8k"))))
    splits = Counter(problem.split for problem in problems)
    assert splits["test"] == 1_319
    assert splits["train"] + splits["dev"] == 7_473
    assert 650 <= splits["dev"] <= 850
    numbers = gold_numbers(problems)
    assert all(float(number) == int(float(number)) for number in numbers), "every GSM8K answer is a whole number"
    by_id = {problem.id: problem for problem in problems}
    first = by_id.get("gsm8k/train/00000") or by_id["gsm8k/dev/00000"]
    assert first.question.startswith("Natalia sold clips to 48 of her friends")
    assert (first.answer, len(first.steps)) == ("72", 2)


def test_svamp_is_whole(data: Path):
    problems = list(svamp.load(svamp.Config(id="svamp", path=str(data / "svamp/SVAMP.json"))))
    assert len(problems) == 1_000
    assert {problem.id.rsplit("/", 1)[1] for problem in problems} == {f"chal-{number}" for number in range(1, 1_001)}
    assert Counter(problem.split for problem in problems).keys() == {"train", "dev", "test"}
    assert len(gold_numbers(problems)) == 1_000


def test_multiarith_is_whole(data: Path):
    problems = list(multiarith.load(multiarith.Config(id="multiarith", path=str(data / "multiarith/MultiArith.json"))))
    assert len(problems) == 600
    assert Counter(problem.split for problem in problems).keys() == {"train", "dev", "test"}
    assert len(gold_numbers(problems)) == 600


@pytest.mark.parametrize("name", FAITHFUL_COT)
def test_rows_of_others_come_in_as_jsonl(data: Path, name: str):
    count, kind = FAITHFUL_COT[name]
    path = str(data / f"chains/faithful_cot/data/{name}/test.jsonl")
    problems = list(jsonl.load(jsonl.Config(id=name.lower(), kind="jsonl", paths={"test": path}, answer_kind=kind)))
    assert len(problems) == count
    for problem in problems:
        assert problem.split == "test"
        assert problem.answer is not None
        assert answers.canonical(kind, problem.answer) == problem.answer
    if kind == "yes_no":
        assert {problem.answer for problem in problems} == {"yes", "no"}


def test_asdiv_rows_with_several_answers_are_refused_by_line(data: Path):
    path = str(data / "chains/faithful_cot/data/ASDiv/test.jsonl")
    with pytest.raises(ValueError, match=r"line 1175: field 'answer' is .*'5', '15', '20'.*expected number"):
        list(jsonl.load(jsonl.Config(id="asdiv", kind="jsonl", paths={"test": path}, answer_kind="number")))
