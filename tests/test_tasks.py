"""Tasks: one contract for all, the arithmetic stories, problems of one's own, and splits."""

import gzip
import operator
import pickle
import random
import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import pytest

import external_rows
from external_rows import write
from retort import answers
from retort.records import AnswerKind, Chain, Problem, Split
from retort.solvers.zygote import Sandbox
from retort.tasks import TASKS, arithmetic, jsonl, source
from retort.tasks.config import TaskConfig
from retort.verification import VerificationConfig, verdict

SPLITS: tuple[Split, ...] = get_args(Split)
OPERATIONS: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
UNTAUGHT: dict[str, set[Split]] = {"imdb_contrast": {"train"}}
STORIES = [story for split in SPLITS for story in islice(arithmetic.stories(split, 0), 100)]


def own(path: str, kind: AnswerKind = "number", **fields: Any) -> jsonl.Config:
    return jsonl.Config(id="own", kind="jsonl", paths={"train": path}, answer_kind=kind, **fields)


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TaskConfig]:
    return external_rows.configs(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("name", TASKS)
def test_a_task_keeps_the_contract(name: str, configs: dict[str, TaskConfig]):
    task: Any = TASKS[name]
    config: Any = configs[name]
    assert config.kind == name
    problems: list[Problem] = list(task.load(config))
    assert {problem.split for problem in problems} == set(SPLITS) - UNTAUGHT.get(name, set())
    ids = [problem.id for problem in problems]
    assert len(set(ids)) == len(ids)
    for problem in problems:
        assert re.fullmatch(rf"my-{name}/{problem.split}/[^/]+", problem.id)
        assert problem.task == f"my-{name}"
        assert problem.question == problem.question.strip()
        assert problem.answer is not None
        assert answers.canonical(problem.answer_kind, problem.answer, choices=problem.choices) == problem.answer
    assert list(task.load(task.Config.model_validate(config.model_dump()))) == problems
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301
    assert pickle.loads(pickle.dumps(problems)) == problems  # noqa: S301
    assert all(Path(file).is_file() for file in config.files())


@pytest.mark.parametrize("name", TASKS)
def test_a_task_gives_as_many_problems_of_a_split_as_its_recipe_wants(name: str, configs: dict[str, TaskConfig]):
    task: Any = TASKS[name]
    wanted = {"train": 7, "dev": 1, "test": 3}
    if name in UNTAUGHT:
        del wanted["train"]
    few = list(task.load(task.Config.model_validate(configs[name].model_dump() | wanted)))
    assert Counter(problem.split for problem in few) == wanted
    assert set(few) <= set(task.load(configs[name]))


# arithmetic


def test_splits_share_no_story_whatever_the_seed_and_the_count():
    seen = {
        split: {story.numbers for seed in range(3) for story in islice(arithmetic.stories(split, seed), 300)}
        for split in SPLITS
    }
    assert all(len(numbers) > 300 for numbers in seen.values())
    assert not seen["train"] & seen["dev"]
    assert not seen["train"] & seen["test"]
    assert not seen["dev"] & seen["test"]


def test_more_problems_of_a_seed_begin_with_the_same_ones():
    few, many, other = (
        list(arithmetic.load(arithmetic.Config(id="arithmetic", train=train, dev=dev, test=5, seed=seed)))
        for train, dev, seed in ((10, 0, 0), (30, 8, 0), (30, 8, 1))
    )
    assert [problem for problem in few if problem.split == "train"] == many[:10]
    assert [problem for problem in few if problem.split == "test"] == many[-5:]
    assert len({problem.question for problem in many}) == len(many)
    assert {problem.question for problem in many} != {problem.question for problem in other}


def test_stories_have_all_lengths_and_operations():
    assert Counter(len(story.steps) for story in STORIES).keys() == {1, 2, 3, 4}
    assert Counter(step.operation for story in STORIES for step in story.steps).keys() == OPERATIONS.keys()


def calculated(expression: str, known: dict[str, Fraction]) -> Fraction:
    """The value of `a + 3`: names and numbers with operators between them, from left to right."""
    first, *rest = expression.split()
    value = known[first] if first in known else Fraction(first)
    for symbol, operand in zip(rest[::2], rest[1::2], strict=True):
        value = OPERATIONS[symbol](value, known[operand] if operand in known else Fraction(operand))
    return value


def substituted(lines: str) -> Fraction:
    """`ans` of lines `name = expression`, each of which uses names above it; `%` starts a comment."""
    known: dict[str, Fraction] = {}
    for line in lines.splitlines():
        if not line.startswith("%"):
            name, _, expression = line.partition(" = ")
            known[name] = calculated(expression, known)
    return known["ans"]


def test_every_form_of_a_story_gives_its_answer():
    rng = random.Random(0)
    for story in STORIES:
        gold = str(story.answer)
        chain = story.chain_of_thought(rng)
        assert answers.canonical("number", answers.find("number", chain) or "") == gold
        equations = re.findall(r"(\d+ [-+*/] \d+) = (\d+)", chain)
        assert len(equations) == len(story.steps)
        assert all(calculated(left, {}) == int(right) for left, right in equations)
        assert substituted(story.program()) == story.answer
        assert substituted(story.equations()) == story.answer
        assert story.equations().count("%") == len(story.steps) + 1

        *solved, last = story.socratic().splitlines()
        assert last == f"#### {gold}"
        assert [line.partition(" ** ")[0] for line in solved] == list(story.sub_questions())
        notes = [re.fullmatch(r".* = <<(\d+)([-+*/])(\d+)=(\d+)>>(\d+)", line) for line in solved]
        assert len(notes) == len(story.steps)
        for note in notes:
            assert note is not None
            assert calculated(" ".join(note.group(1, 2, 3)), {}) == int(note[4]) == int(note[5])
        assert solved[-1].endswith(f">>{gold}")


def test_every_number_of_a_story_lies_within_1_and_99():
    numbers = {number for story in STORIES for step in story.steps for number in (story.start, step.before, step.after)}
    assert min(numbers) >= 1
    assert max(numbers) <= 99
    assert len(numbers) > 80


def test_steps_of_a_problem_lead_from_its_first_number_to_its_answer():
    for number, story in enumerate(STORIES):
        problem = story.problem("train", number)
        assert len(problem.sub_questions) == len(problem.steps) == len(story.steps)
        value = Fraction(re.findall(r"\d+", problem.question)[0])
        for step in problem.steps:
            left, right = step.split(" = ")
            assert left.split()[0] == str(value)
            value = calculated(left, {})
            assert value == int(right)
        assert problem.answer == str(value)


# jsonl


@pytest.mark.parametrize(
    ("kind", "row", "gold"),
    [
        ("number", {"answer": 18}, "18"),
        ("number", {"answer": "So it is 9 * 2 = 18.\n#### 1,018"}, "1018"),
        ("yes_no", {"answer": True}, "yes"),
        ("yes_no", {"answer": "No"}, "no"),
        ("choice", {"choices": ["apple", "stone"], "answer": "(b)"}, "b"),
        ("choice", {"choices": ["apple", "stone"], "answer": "stone"}, "b"),
        ("text", {"answer": "The Sky"}, "the sky"),
        ("number", {}, None),
        ("choice", {"choices": ["apple", "stone"], "answer": None}, None),
        ("text", {"answer": None, "choices": None, "context": None, "id": None}, None),
    ],
)
def test_own_answers_are_brought_into_their_normal_form(
    kind: AnswerKind, row: dict[str, Any], gold: str | None, tmp_path: Path
):
    path = write(tmp_path / "rows.jsonl", [{"question": " q? ", **row}])
    (problem,) = jsonl.load(own(path, kind, dev_share=0))
    assert (problem.id, problem.question, problem.answer) == ("own/train/00000", "q?", gold)
    assert problem.choices == tuple(row.get("choices") or ())


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.json", "rows.json.gz"])
def test_own_rows_come_as_lines_or_as_one_list_gzipped_or_not(name: str, tmp_path: Path):
    rows = [{"id": "a/1", "question": "Où?", "answer": "2", "context": "There."}, {"question": "2?", "answer": 3}]
    path = write(tmp_path / name, rows, as_list=".json." in f"{name}.")
    problems = list(jsonl.load(own(path, dev_share=0)))
    assert [(p.id, p.question, p.context) for p in problems] == [
        ("own/train/a/1", "Où?", "There."),
        ("own/train/00001", "2?", None),
    ]


def test_own_fields_may_have_other_names(tmp_path: Path):
    row = {"qid": 7, "stem": "Which?", "options": ["x", "y"], "label": "B", "passage": "Read.", "question": "no"}
    names: Any = {"id": "qid", "question": "stem", "choices": "options", "answer": "label", "context": "passage"}
    (problem,) = jsonl.load(own(write(tmp_path / "r.jsonl", [row]), "choice", dev_share=0, fields=names))
    assert problem == Problem("own/train/7", "own", "train", "Which?", "choice", "b", ("x", "y"), "Read.")


def test_own_problems_may_have_annotations(tmp_path: Path):
    row = {"question": "q?", "steps": ["1 + 1 = 2"], "facts": ["Two is even."], "sub_questions": ["How many?"]}
    (problem,) = jsonl.load(own(write(tmp_path / "r.jsonl", [row]), dev_share=0))
    assert (problem.steps, problem.facts, problem.sub_questions) == (("1 + 1 = 2",), ("Two is even.",), ("How many?",))


GOOD = '{"question": "q?", "answer": "1"}'


@pytest.mark.parametrize(
    ("lines", "kind", "said"),
    [
        ([GOOD, "{question: 1}"], "number", ["line 2", "not JSON"]),
        ([GOOD, "", '"q?"'], "number", ["line 3", "'question'", "str"]),
        ([GOOD, '{"answer": "1"}'], "number", ["line 2", "'question'", "['answer']"]),
        (['{"question": "  "}'], "number", ["line 1", "'question'", "'  '", "a text"]),
        (['{"question": 3}'], "number", ["line 1", "'question'", "3", "a text"]),
        ([GOOD, '{"question": "q?", "answer": "many"}'], "number", ["line 2", "'answer'", "'many'", "number"]),
        (['{"question": "q?", "answer": "perhaps"}'], "yes_no", ["line 1", "'answer'", "'perhaps'", "yes or no"]),
        (['{"question": "q?", "answer": "a"}'], "choice", ["line 1", "'choices'", "[]", "a list"]),
        (['{"question": "q?", "answer": "a", "choices": "a b"}'], "choice", ["line 1", "'choices'", "'a b'", "a list"]),
        (['{"question": "q?", "answer": "c", "choices": ["x", "y"]}'], "choice", ["line 1", "'answer'", "'c'"]),
        (['{"question": "q?", "choices": {"a": 1}}'], "text", ["line 1", "'choices'", "{'a': 1}"]),
        (
            ['{"id": 1, "question": "q?"}', '{"id": "1", "question": "r?"}'],
            "text",
            ["line 2", "'id'", "'1'", "distinct"],
        ),
        (['[{"question": "q?"}, {"answer": 1}]'], "number", ["element 2", "'question'"]),
        (['{"question": "q?", "steps": "1 + 1 = 2"}'], "number", ["line 1", "'steps'", "a list of texts"]),
        (['{"question": "q?", "facts": [1]}'], "text", ["line 1", "'facts'", "[1]", "a list of texts"]),
        (['[{"question": "q?"}', "{}"], "number", ["not JSON", "one list"]),
    ],
)
def test_a_malformed_row_is_refused_with_file_line_and_field(
    lines: list[str], kind: AnswerKind, said: list[str], tmp_path: Path
):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"^[^\n]+\Z") as refused:
        list(jsonl.load(own(str(path), kind)))
    assert [part for part in (str(path), *said) if part not in str(refused.value)] == [], refused.value


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.jsonl", b'{"question": "\xff"}'),
        ("r.jsonl.gz", GOOD.encode()),
        ("r.jsonl.gz", gzip.compress(b"x" * 99)[:-9]),
    ],
    ids=["not UTF-8", "not gzip", "half a gzip"],
)
def test_a_damaged_file_is_refused_by_name(name: str, content: bytes, tmp_path: Path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}[^\n]+\Z"):
        list(jsonl.load(own(str(path))))


def test_lone_surrogates_of_a_file_are_replaced_as_it_is_read(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "q\\ud800?", "answer": "a\\udfff", "id": "\\ud83d\\ude00"}')
    (problem,) = jsonl.load(own(str(path), "text", dev_share=0))
    assert (problem.id, problem.question, problem.answer) == ("own/train/😀", "q\ufffd?", "a\ufffd")


def test_a_problem_without_an_answer_is_neither_right_nor_wrong(tmp_path: Path, sandbox: Sandbox):
    (problem,) = jsonl.load(own(write(tmp_path / "r.jsonl", [{"question": "q?"}]), dev_share=0))
    chain = Chain("0" * 64, 0, '"q?"', "The answer is 3.", "stop", 1, 5, 8, 0, problem.id, "cot", 1.5)
    made = verdict(problem, "cot", chain, 8, "m", VerificationConfig(), sandbox)
    assert (made.gold, made.answer, made.is_correct, made.reason) == (None, "3", None, "unlabelled")


# Splits


def test_a_repeated_question_is_never_in_two_splits(tmp_path: Path):
    rows = [{"question": f"{n % 300}?", "context": f"{n % 600}.", "answer": n % 300} for n in range(900)]
    problems = list(jsonl.load(own(write(tmp_path / "r.jsonl", rows), dev_share=0.3)))
    splits: dict[tuple[str | None, str], set[Split]] = {}
    for problem in problems:
        splits.setdefault((problem.context, problem.question), set()).add(problem.split)
    assert Counter(map(len, splits.values())) == {1: 600}
    by_question = Counter((question, *sorted(found)) for (_, question), found in splits.items())
    assert set(by_question.values()) == {1, 2}, "the same words on another context are another problem"


def dev_questions(path: str, **fields: Any) -> set[str]:
    return {problem.question for problem in jsonl.load(own(path, **fields)) if problem.split == "dev"}


def test_a_missing_dev_is_a_seeded_share_that_more_rows_do_not_move(tmp_path: Path):
    rows = [{"question": f"{n}?", "answer": n} for n in range(1_000)]
    few, many = write(tmp_path / "few.jsonl", rows[:400]), write(tmp_path / "many.jsonl", rows)
    dev = dev_questions(many)
    assert 60 <= len(dev) <= 140
    assert dev_questions(few) == dev & {row["question"] for row in rows[:400]}
    assert dev_questions(many, split_seed=1) not in (dev, set())
    assert dev < dev_questions(many, dev_share=0.2)
    assert dev_questions(many, dev_share=0) == set()


def test_a_dev_file_takes_nothing_from_train(tmp_path: Path):
    rows = [{"question": f"{n}?", "answer": n} for n in range(50)]
    paths: dict[Split, str] = {"train": write(tmp_path / "t", rows), "dev": write(tmp_path / "d", rows[:3])}
    problems = list(jsonl.load(jsonl.Config(id="own", paths=paths, answer_kind="number")))
    assert Counter(problem.split for problem in problems) == {"train": 50, "dev": 3}


def test_a_limit_takes_the_first_problems_of_each_split(tmp_path: Path):
    path = write(tmp_path / "r.jsonl", [{"question": f"{n}?", "answer": n} for n in range(200)])
    whole = list(jsonl.load(own(path)))
    limited = list(jsonl.load(own(path, train=5, dev=2)))
    assert [p for p in limited if p.split == "train"] == [p for p in whole if p.split == "train"][:5]
    assert [p for p in limited if p.split == "dev"] == [p for p in whole if p.split == "dev"][:2]
    assert len(limited) == 7


def test_a_path_may_hold_an_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "rows.jsonl").write_text(GOOD)
    monkeypatch.setenv("OWN_DATA", str(tmp_path))
    assert source.existing_file("${OWN_DATA}/rows.jsonl") == str(tmp_path / "rows.jsonl")
    monkeypatch.delenv("OWN_DATA")
    with pytest.raises(ValueError, match="not set"):
        source.existing_file("${OWN_DATA}/rows.jsonl")
