"""Exemplars: each is right by our own verifier, has the form that its thought asks for, and is in no data set."""

import ast
import gzip
import os
import re
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from retort import answers, prompts
from retort.records import AnswerKind
from retort.solvers import calculator
from retort.solvers.zygote import Sandbox
from retort.tasks import TASKS, arithmetic, imdb_contrast
from retort.thoughts import THOUGHTS, exemplars, socratic
from retort.thoughts.exemplars import DEFAULTS, Exemplar, load, shown

REASONED = ("answer", "cot", "pot", "eot", "socratic")
# Of each file: how many exemplars it has at least, and under which thoughts.
FILES: dict[str, tuple[int, tuple[str, ...]]] = {
    "gsm8k": (8, REASONED),
    "arithmetic": (8, REASONED),
    "svamp": (6, REASONED),
    "asdiv": (6, REASONED),
    "multiarith": (6, REASONED),
    "strategyqa": (6, ("answer", "cot", "socratic")),
    "commonsense_qa": (7, ("answer", "cot")),
    "openbookqa": (7, ("answer", "cot")),
    "quarel": (7, ("answer", "cot")),
    "imdb_contrast": (4, ("answer", "cot")),
    "text": (4, ("answer", "cot")),
}
MARKERS: dict[AnswerKind, str] = {
    "number": "The answer is {}.",
    "choice": "So the answer is: ({}).",
    "yes_no": "So the answer is {}.",
    "text": "The answer is {}.",
}
SNAKE_CASE = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
EQUATION = re.compile(r"((?:\d[\d.]* [-+*/] )+\d[\d.]*) = (\d+(?:\.\d+)?)")  # `46 + 46 + 38 = 130`, in prose
SHARED_WORDS = 13  # as GPT-3's authors looked for test questions in their training text

PACKAGE = Path(exemplars.__file__).parents[2]
ALL = [exemplar for name in FILES for exemplar in load(name, "text")]
NUMERIC = [exemplar for exemplar in ALL if exemplar.problem.answer_kind == "number"]
STEPWISE = [exemplar for exemplar in ALL if "socratic" in exemplar.completions]


def named(found: Sequence[Exemplar]):
    """A test for each exemplar, under its id."""
    return pytest.mark.parametrize("exemplar", found, ids=[exemplar.problem.id for exemplar in found])


def texts(exemplar: Exemplar) -> Iterator[str]:
    """All that stands in an exemplar."""
    problem = exemplar.problem
    yield from [problem.question, problem.context or "", " ".join(problem.choices), *problem.steps, *problem.facts]
    yield from exemplar.completions.values()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as opened:
        yield opened


@named(ALL)
def test_every_completion_is_verified_as_correct(exemplar: Exemplar, sandbox: Sandbox):
    problem = exemplar.problem
    assert problem.answer is not None
    assert answers.canonical(problem.answer_kind, problem.answer, choices=problem.choices) is not None
    for thought, completion in exemplar.completions.items():
        value, reason = THOUGHTS[thought].read(completion, problem, False, sandbox)
        assert reason is None, f"{thought}: {reason}"
        equal = answers.compare(problem.answer_kind, value or "", problem.answer, choices=problem.choices)
        assert equal is True, f"{thought}: {value!r}"


@named(ALL)
def test_a_completion_with_another_answer_is_not(exemplar: Exemplar, sandbox: Sandbox):
    problem = exemplar.problem
    other = next(one for one in load(problem.task, "text") if one.problem.answer != problem.answer)
    for thought, completion in other.completions.items():
        value, _ = THOUGHTS[thought].read(completion, problem, False, sandbox)
        equal = answers.compare(problem.answer_kind, value or "", problem.answer or "", choices=problem.choices)
        assert equal is not True, thought


def test_every_task_but_the_open_one_has_its_exemplars():
    folder = Path(exemplars.__file__).parent
    assert {path.stem for path in folder.glob("*.jsonl")} == FILES.keys()
    assert set(TASKS) - {"jsonl"} <= FILES.keys()


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_enough_exemplars_under_each_of_its_thoughts(name: str):
    at_least, thoughts = FILES[name]
    found = load(name, "text")
    assert len(found) >= at_least
    assert {tuple(exemplar.completions) for exemplar in found} == {thoughts}
    assert len({exemplar.problem.answer_kind for exemplar in found}) == 1


def test_ids_and_questions_are_distinct():
    assert len({exemplar.problem.id for exemplar in ALL}) == len(ALL)
    asked = {" ".join(words(prompts.body(exemplar.problem))) for exemplar in ALL}
    assert len(asked) == len(ALL)


@named(ALL)
def test_no_blank_line_parts_an_exemplar(exemplar: Exemplar):
    # Blank lines stand between exemplars, and teachers are stopped there.
    assert [text for text in texts(exemplar) if text != text.strip() or "\n\n" in text] == []


@pytest.mark.parametrize("name", ["strategyqa", "commonsense_qa", "openbookqa", "quarel", "imdb_contrast"])
def test_no_label_is_the_answer_more_often_than_another(name: str):
    found = load(name, "text")
    num_choices = {len(exemplar.problem.choices) for exemplar in found}
    labels = prompts.LETTERS[: max(num_choices)] or ("yes", "no")
    counts = [sum(exemplar.problem.answer == label for exemplar in found) for label in labels]
    assert len(num_choices) == 1
    assert sum(counts) == len(found)
    assert max(counts) - min(counts) <= 1


def test_reviews_are_asked_about_as_in_their_task():
    for exemplar in load("imdb_contrast", "choice"):
        asked = exemplar.problem.question, exemplar.problem.choices
        assert asked == (imdb_contrast.QUESTION, imdb_contrast.CHOICES)
        assert exemplar.problem.context


@named(ALL)
def test_a_label_alone_is_what_labels_teach(exemplar: Exemplar):
    assert exemplar.completions["answer"] == THOUGHTS["answer"].gold(exemplar.problem)


@named(ALL)
def test_a_chain_of_thought_ends_with_its_marker(exemplar: Exemplar):
    problem, chain = exemplar.problem, exemplar.completions["cot"]
    reasoning, said, rest = chain.rpartition(" " + MARKERS[problem.answer_kind].format(problem.answer))
    assert said
    assert rest == ""
    assert len(reasoning.split()) >= 5
    assert "answer is" not in reasoning.lower()


@named(NUMERIC)
def test_what_a_chain_of_thought_computes_is_right(exemplar: Exemplar):
    computed = EQUATION.findall(exemplar.completions["cot"])
    assert len(computed) >= len(exemplar.problem.steps)
    assert [pair for pair in computed if answers.compare("number", *pair) is not True] == []


@named(NUMERIC)
def test_a_program_is_straight_lines_that_end_in_the_answer(exemplar: Exemplar):
    statements = ast.parse(exemplar.completions["pot"]).body
    assert all(isinstance(statement, ast.Assign) for statement in statements)
    targets = [ast.unparse(target) for one in statements if isinstance(one, ast.Assign) for target in one.targets]
    assert targets[-1] == "ans"
    assert [name for name in targets if not SNAKE_CASE.fullmatch(name)] == []


@named(NUMERIC)
def test_equations_alternate_with_the_conditions_that_they_restate(exemplar: Exemplar):
    lines = exemplar.completions["eot"].splitlines()
    assert len(lines) % 2 == 1
    comments, equations, last = lines[:-1:2], lines[1:-1:2], lines[-1]
    # A solver that keeps every line with `=` (the paper's) must not take a comment for an equation.
    assert [line for line in comments if not re.fullmatch(r"% [A-Z0-9][^=]+[^=.]", line)] == []
    assert [line for line in equations if line.count("=") != 1 or "%" in line] == []
    names = {name for line in equations for name in re.findall(r"[A-Za-z_]\w*", line)}
    assert [name for name in names if not SNAKE_CASE.fullmatch(name)] == []
    assert re.fullmatch(r"ans = (\w+)", last)
    assert last.removeprefix("ans = ") in names


def mentions_an_unknown_first(text: str) -> bool:
    """Whether the equations, read as a program, use a name before it has a value."""
    known: set[str] = set()
    for line in text.splitlines()[1:-1:2]:
        left, _, right = line.partition(" = ")
        needed = set(re.findall(r"[a-z]\w*", right)) | set(re.findall(r"[a-z]\w*", left) if " " in left else [])
        if not needed <= known:
            return True
        known.add(left)
    return False


def test_equations_say_what_programs_cannot():
    assert mentions_an_unknown_first("% c\nx + 5 = 9\nans = x")
    assert not mentions_an_unknown_first("% c\na = 5\n% d\nb = a + 4\nans = b")
    found = [exemplar for exemplar in NUMERIC if mentions_an_unknown_first(exemplar.completions["eot"])]
    counts = Counter(exemplar.problem.task for exemplar in found)
    assert counts.keys() == {exemplar.problem.task for exemplar in NUMERIC}
    assert min(counts.values()) >= 2


@named(STEPWISE)
def test_sub_questions_and_solutions_are_one_a_line(exemplar: Exemplar):
    problem, text = exemplar.problem, exemplar.completions["socratic"]
    steps = socratic.steps_of(text)
    assert socratic.text_of(steps, problem.answer or "") == text
    assert [step.question for step in steps if not re.fullmatch(r"[^?]+\?", step.question)] == []
    assert len({step.question for step in steps}) == len(steps)


@named(NUMERIC)
def test_every_step_of_a_calculation_is_annotated_and_right(exemplar: Exemplar):
    problem, text = exemplar.problem, exemplar.completions["socratic"]
    steps = socratic.steps_of(text)
    assert tuple(step.solution for step in steps) == problem.steps
    assert calculator.check(text) == (len(steps), len(steps))
    for step in steps:
        ((expression, value),) = calculator.ANNOTATION.findall(step.solution)
        assert f"{expression}={value}" in re.sub(r"[ $]", "", calculator.without(step.solution))
    assert socratic.answer_of(steps[-1].solution) == problem.answer
    assert problem.task != "gsm8k" or 2 <= len(steps) <= 5


@named(load("strategyqa", "yes_no"))
def test_facts_are_asked_for_before_the_question_is_decided(exemplar: Exemplar):
    problem = exemplar.problem
    *asked, last = socratic.steps_of(exemplar.completions["socratic"])
    assert len(problem.facts) >= 2
    assert tuple(step.solution for step in asked) == problem.facts
    assert last.question == problem.question
    assert last.solution.startswith(f"{(problem.answer or '').capitalize()}, ")


def test_no_arithmetic_exemplar_tells_a_story_of_dev_or_test():
    for exemplar in load("arithmetic", "number"):
        steps: list[arithmetic.Step] = []
        for expression, value in calculator.ANNOTATION.findall(exemplar.completions["socratic"]):
            before, operation, operand = re.split(r"([-+*/])", expression)
            assert operation in arithmetic.SYMBOLS
            steps.append(arithmetic.Step(int(before), operation, int(operand), int(value), verb=""))
        story = arithmetic.Story("", "she", "", steps[0].before, tuple(steps))
        assert arithmetic.split_of(story) == "train", exemplar.problem.id


@pytest.mark.parametrize("kind", DEFAULTS)
def test_only_a_task_without_a_file_is_shown_those_of_its_kind_of_answer(kind: AnswerKind):
    found = load("jsonl", kind)
    assert found == load(DEFAULTS[kind], kind)
    assert {exemplar.problem.task for exemplar in load("svamp", kind)} == {"svamp"}
    assert {exemplar.problem.answer_kind for exemplar in found} == {kind}


def test_without_shuffling_the_first_ones_are_shown():
    found = load("gsm8k", "number")
    assert shown(found, "gsm8k/train/00001", 3, False) == found[:3]
    assert shown(found, "gsm8k/train/00001", 0, False) == ()


def test_a_shuffled_order_depends_on_the_problem_alone():
    found = load("gsm8k", "number")
    orders = {f"gsm8k/train/{number:05d}": shown(found, f"gsm8k/train/{number:05d}", 8, True) for number in range(50)}
    assert len({tuple(one.problem.id for one in order) for order in orders.values()}) == 50
    assert all(
        sorted(one.problem.id for one in order) == [one.problem.id for one in found] for order in orders.values()
    )
    for problem_id, order in orders.items():
        assert shown(found[::-1], problem_id, 8, True) == order
        assert shown(found, problem_id, 5, True) == order[:5]
    assert {order[0].problem.id for order in orders.values()} == {one.problem.id for one in found}


def test_shuffled_orders_never_change():
    # Pools outlive releases: in another order every chain in them would be paid for again.
    order = shown(load("gsm8k", "number"), "gsm8k/train/00000", 8, True)
    assert [int(one.problem.id[-2:]) for one in order] == [3, 1, 4, 7, 0, 5, 6, 2]


def test_more_than_there_are_is_refused():
    found = load("strategyqa", "yes_no")
    with pytest.raises(ValueError, match=r"^exemplars of 'strategyqa': got a count of 7, expected at most the 6 there"):
        shown(found, "strategyqa/train/0", 7, True)
    with pytest.raises(ValueError, match=r"^exemplars: got a count of 1, expected at most the 0 there are$"):
        shown((), "t/train/0", 1, False)


def test_a_thought_that_has_none_is_refused():
    (first, *_) = load("strategyqa", "yes_no")
    assert first.completion("cot") == first.completions["cot"]
    with pytest.raises(ValueError, match=r"'strategyqa': none for the thought 'pot'; expected one of answer, cot, soc"):
        first.completion("pot")


def test_exemplars_are_read_out_of_a_zipped_package(tmp_path: Path):
    archive = tmp_path / "package.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in (*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.jsonl")):
            file.write(path, Path("retort", path.relative_to(PACKAGE)))
    program = (
        "from retort.thoughts import exemplars\n"
        "print(exemplars.__file__, *(exemplar.problem.id for exemplar in exemplars.load('svamp', 'text')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(archive)},
        capture_output=True,
        text=True,
        check=False,
    )
    place, *ids = done.stdout.split()
    assert place.startswith(str(archive)), done.stderr
    assert ids == [exemplar.problem.id for exemplar in load("svamp", "text")]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def runs(text: str) -> set[tuple[str, ...]]:
    """All runs of 13 words."""
    found = words(text)
    return {tuple(found[start : start + SHARED_WORDS]) for start in range(len(found) - SHARED_WORDS + 1)}


def corpora(data: Path) -> Iterator[tuple[str, str]]:
    """Name and plain words of every data set's file."""
    folders = ("gsm8k", "svamp", "asdiv", "multiarith", "commonsenseqa", "strategyqa", "openbookqa", "quarel")
    for path in sorted(path for name in (*folders, "contrast_sets") for path in (data / name).rglob("*.*")):
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        # `\n` and `\u2019` of JSON and `<br />` of HTML stand between words and are none.
        yield str(path.relative_to(data)), re.sub(r"\\u[0-9a-f]{4}|\\.|<[^>]{1,40}>", " ", raw.decode())


@pytest.mark.data
def test_no_exemplar_is_taken_from_a_data_set():
    ours = {run: exemplar.problem.id for exemplar in ALL for text in texts(exemplar) for run in runs(text)}
    asked = {f" {' '.join(words(exemplar.problem.question))} ": exemplar.problem for exemplar in ALL}
    found: list[tuple[str, str]] = []
    num_words = 0
    for name, text in corpora(Path(os.environ["RETORT_DATA"], "data")):
        theirs = words(text)
        num_words += len(theirs)
        joined = f" {' '.join(theirs)} "
        found += [(name, problem.id) for question, problem in asked.items() if question in joined]
        found += [(name, ours[run]) for run in runs(text) & ours.keys()]
    assert num_words > 2_000_000
    assert found == []
