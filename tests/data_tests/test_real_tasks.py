"""The tasks on the real data sets, which lie in `$RETORT_DATA/data`: counts, splits, and gold answers that can be read.

Single problems are known by a digest, so that no text of a data set stands here.
"""

import hashlib
import logging
import os
from collections import Counter
from pathlib import Path

import pytest

from retort import answers
from retort.records import AnswerKind, Problem, Split
from retort.tasks import (
    asdiv,
    commonsense_qa,
    gsm8k,
    imdb_contrast,
    jsonl,
    multiarith,
    openbookqa,
    quarel,
    strategyqa,
    svamp,
)

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


def answers_of(problems: list[Problem], split: Split) -> dict[str | None, int]:
    """How often each answer is the gold one in a split; every gold answer is in its normal form."""
    assert len({problem.id for problem in problems}) == len(problems)
    for problem in problems:
        assert answers.canonical(problem.answer_kind, problem.answer or "", choices=problem.choices) == problem.answer
    return dict(Counter(problem.answer for problem in problems if problem.split == split))


def repeats(problems: list[Problem]) -> tuple[int, int]:
    """Problems that repeat another's question, choices and context, and of these problems those in several splits."""
    splits: dict[tuple[str | None, str, tuple[str, ...]], list[Split]] = {}
    for problem in problems:
        splits.setdefault((problem.context, problem.question, problem.choices), []).append(problem.split)
    return len(problems) - len(splits), sum(len(set(found)) > 1 for found in splits.values())


def seen(problem: Problem) -> tuple[str, str | None]:
    """A digest of what a student is shown of a problem, and the gold answer."""
    shown = "\n".join([problem.context or "", problem.question, *problem.choices])
    return hashlib.sha256(shown.encode()).hexdigest()[:16], problem.answer


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
    assert (seen(first), len(first.steps)) == (("1d95cc8654e05b68", "72"), 2)


def test_svamp_is_whole(data: Path):
    problems = list(svamp.load(svamp.Config(id="svamp", path=str(data / "svamp/SVAMP.json"))))
    assert len(problems) == 1_000
    assert {problem.id.rsplit("/", 1)[1] for problem in problems} == {f"chal-{number}" for number in range(1, 1_001)}
    assert Counter(problem.split for problem in problems).keys() == {"train", "dev", "test"}
    assert len(gold_numbers(problems)) == 1_000
    assert repeats(problems) == (0, 0)


def test_multiarith_is_whole(data: Path):
    problems = list(multiarith.load(multiarith.Config(id="multiarith", path=str(data / "multiarith/MultiArith.json"))))
    assert len(problems) == 600
    assert Counter(problem.split for problem in problems).keys() == {"train", "dev", "test"}
    assert len(gold_numbers(problems)) == 600
    assert repeats(problems) == (20, 0)


def test_gsm8k_test_problems_get_a_sub_question_for_each_step(data: Path):
    paths = {"test": str(data / "gsm8k/test_socratic.jsonl")}
    config = gsm8k.Config.model_validate({"id": "g", "path": str(data / "gsm8k"), "socratic_paths": paths})
    problems = [problem for problem in gsm8k.load(config) if problem.split == "test"]
    assert all(len(problem.sub_questions) == len(problem.steps) > 0 for problem in problems)
    assert sum(len(problem.steps) for problem in problems) == 4_819
    assert all(step.strip() for problem in problems for step in (*problem.steps, *problem.sub_questions))


def test_asdiv_keeps_every_problem_with_one_number(data: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="retort.tasks.asdiv"):
        problems = list(asdiv.load(asdiv.Config(id="asdiv", path=str(data / "asdiv/ASDiv.xml"))))
    assert len(problems) == 2_095
    assert [record.getMessage() for record in caplog.records] == [
        "task asdiv: left out 210 of 2305 (a ratio or a time: 61, several numbers: 90, words: 59)"
    ]
    assert Counter(problem.split for problem in problems) == {"train": 1_288, "dev": 148, "test": 659}
    assert len(gold_numbers(problems)) == 2_095
    assert repeats(problems) == (1, 0)
    assert all(problem.steps for problem in problems)
    (first,) = (problem for problem in problems if problem.id.endswith("/nluds-0001"))
    assert (seen(first), first.steps) == (("cf2dc88fc0034dbb", "9"), ("7+2=9",))


def test_strategyqa_is_whole(data: Path):
    paths = {split: str(data / f"strategyqa/strategyqa_processed_{split}.json") for split in ("train", "dev", "test")}
    problems = list(strategyqa.load(strategyqa.Config.model_validate({"id": "strategyqa", "paths": paths})))
    assert Counter(problem.split for problem in problems) == {"train": 1_648, "dev": 184, "test": 458}
    assert answers_of(problems, "train") == {"no": 877, "yes": 771}
    assert answers_of(problems, "dev") == {"no": 98, "yes": 86}
    assert answers_of(problems, "test") == {"no": 244, "yes": 214}
    assert repeats(problems) == (1, 1), "the source put one question into train and test"
    assert {len(problem.facts) for problem in problems} == {2, 3, 4, 5}
    assert {len(problem.sub_questions) for problem in problems} == {1, 2, 3, 4, 5}
    first = next(problem for problem in problems if problem.split == "dev")
    assert (seen(first), len(first.facts), len(first.sub_questions)) == (("cbb87ba71275070b", "no"), 4, 3)


def test_commonsense_qa_is_whole(data: Path):
    problems = list(commonsense_qa.load(commonsense_qa.Config(id="csqa", path=str(data / "commonsenseqa"))))
    counts = Counter(problem.split for problem in problems)
    assert counts == {"train": 8_778, "dev": 963, "test": 1_221}
    assert answers_of(problems, "test") == {"a": 241, "b": 255, "c": 241, "d": 250, "e": 234}
    assert repeats(problems) == (0, 0)
    assert {len(problem.choices) for problem in problems} == {5}
    assert sum(len(set(problem.choices)) < 5 for problem in problems) == 146
    (first,) = (problem for problem in problems if problem.id == "csqa/test/1afa02df02c908a558b4036e80242fac")
    assert seen(first) == ("8e64e6a9fbd8f53f", "a")


def test_openbookqa_is_whole_as_instructions(data: Path):
    files = {
        "train": "llm_adapters/train.json",
        "dev": "mario/dev.jsonl",
        "test": "llm_adapters/test.json",
    }
    paths = {split: str(data / "openbookqa" / name) for split, name in files.items()}
    problems = list(openbookqa.load(openbookqa.Config.model_validate({"id": "obqa", "paths": paths})))
    assert Counter(problem.split for problem in problems) == {"train": 4_957, "dev": 499, "test": 500}
    assert answers_of(problems, "train") == {"a": 1_378, "b": 1_212, "c": 1_146, "d": 1_221}
    assert answers_of(problems, "dev") == {"a": 126, "b": 138, "c": 109, "d": 126}
    assert answers_of(problems, "test") == {"a": 138, "b": 126, "c": 132, "d": 104}
    assert repeats(problems) == (5, 0)
    assert {len(problem.choices) for problem in problems} == {4}
    by_id = {problem.id: problem for problem in problems}
    assert seen(by_id["obqa/test/00001"]) == ("907e91bd9379b161", "a")

    inline = openbookqa.Config(id="obqa", paths={"test": str(data / "openbookqa/mario/test.jsonl")})
    known = {seen(problem) for problem in openbookqa.load(inline)}
    assert len(known) == 498
    assert known < {seen(problem) for problem in problems if problem.split == "test"}


def test_quarel_is_whole_but_for_training_questions_without_a_right_chain(data: Path):
    paths = {split: str(data / f"quarel/{split}.jsonl") for split in ("train", "dev", "test")}
    problems = list(quarel.load(quarel.Config.model_validate({"id": "quarel", "paths": paths})))
    assert Counter(problem.split for problem in problems) == {"train": 1_757, "dev": 278, "test": 552}
    assert answers_of(problems, "train") == {"a": 926, "b": 831}
    assert answers_of(problems, "dev") == {"a": 132, "b": 146}
    assert answers_of(problems, "test") == {"a": 248, "b": 304}
    assert repeats(problems) == (0, 0)
    for problem in problems:
        first, second = problem.choices
        assert first.casefold() != second.casefold()
        assert not any(choice.endswith((" or", " and", ",", "/", "?", ".")) for choice in problem.choices)
        assert "(A)" not in problem.question
    (first,) = (problem for problem in problems if problem.id == "quarel/test/00000")
    assert seen(first) == ("14191d28aed714c6", "a")


def test_imdb_contrast_pairs_say_the_opposite(data: Path):
    folder = str(data / "contrast_sets/imdb")
    originals, contrasts = (
        list(imdb_contrast.load(imdb_contrast.Config(id="imdb", path=folder, part=part)))
        for part in imdb_contrast.PARTS
    )
    assert Counter(problem.split for problem in originals) == {"dev": 100, "test": 488}
    assert answers_of(originals, "test") == {"a": 243, "b": 245}
    assert answers_of(contrasts, "test") == {"a": 245, "b": 243}
    assert answers_of(originals, "dev") == {"a": 48, "b": 52}
    assert repeats([*originals, *contrasts]) == (0, 0)
    for original, contrast in zip(originals, contrasts, strict=True):
        assert original.id == contrast.id
        assert {original.answer, contrast.answer} == {"a", "b"}
    lengths = [len(problem.context or "") for problem in (*originals, *contrasts)]
    assert max(lengths) == 1_954, "no review is cut"
    (first,) = (problem for problem in originals if problem.id == "imdb/test/00000")
    assert (seen(first), len(first.context or "")) == (("cc548a83c6787f27", "a"), 1_236)


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
