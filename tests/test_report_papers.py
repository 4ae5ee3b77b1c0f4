"""The papers beside a run: their values as they were printed, and what the page says of a run's own next to them."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from retort.comparison import compare
from retort.config import Recipe
from retort.evaluation import score
from retort.intervals import wilson
from retort.pipeline import measured
from retort.records import Prediction
from retort.report.beside import align
from retort.report.blocks import Remark, Section, Table
from retort.report.claims import DIRECTIONS
from retort.report.contents import Contents, open_run
from retort.report.directions import weigh
from retort.report.page import render
from retort.report.papers import figures, papers
from retort.report.placing import placed
from retort.report.published import PAPERS, published
from retort.run import Run, index
from retort.store.artifacts import Address, Writer
from retort.store.local import LocalStore
from retort.tasks import TASKS
from test_report import chromium, watched
from test_report_sweep import contents_of, trial

PROBLEMS = 200
TRAINING = {"steps": 300, "batch_examples": 16, "learning_rate": 1e-3}
Rights = Mapping[tuple[str, str, str, str], int | Collection[int]]
"""By run of a model, task, thought and decode: the test problems that it has right, or the first so many."""


def teacher(name: str, **fields: Any) -> dict[str, Any]:
    drawn = {"temperature": 1.0, "num_chains": 30, "exemplars": 7}
    return {"id": name, "engine": "vllm", "model": "shipped:teacher", "max_new_tokens": 96} | drawn | fields


def corpus(name: str, tasks: Sequence[str], thoughts: Sequence[str] = ("cot",), **selection: Any) -> dict[str, Any]:
    """A corpus of `big`'s chains; `teachers` may say otherwise."""
    teachers = selection.pop("teachers", ["big"])
    return {"id": name, "tasks": tasks, "teachers": teachers, "thoughts": thoughts, "selection": selection}


def student(name: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "base": "shipped:student", "corpus": name, "training": TRAINING} | fields


def scotd(task: str) -> list[dict[str, Any]]:
    """The corpora of SCoTD on a task."""
    return [
        corpus("supervised", [task]),
        corpus("supervised-1", [task], teachers=["greedy"]),
        corpus("free", [task], rule="all", num_chains=8),
        corpus("free-1", [task], rule="all", chains_per_problem=1),
        corpus("labels", [task], ["answer"], teachers=[]),
        corpus("free-labels", [task], rule="majority", target="answer"),
    ]


SCOTD = ("supervised", "supervised-1", "free", "free-1", "labels", "free-labels")
TEACHERS = [teacher("big"), teacher("greedy", temperature=0.0, num_chains=1)]


def opened(
    folder: Path,
    rights: Rights,
    tasks: Sequence[dict[str, Any]],
    corpora: Sequence[dict[str, Any]],
    students: Sequence[dict[str, Any]],
    teachers: Sequence[dict[str, Any]] = TEACHERS,
    **evaluated: Any,
) -> Contents:
    """A run whose models have the problems right that `rights` says."""
    settings = {"tasks": [task["id"] for task in tasks], "decodes": ["greedy", "maj@8"]} | evaluated
    fields = {"name": "beside", "task": tasks, "teacher": teachers, "corpus": corpora, "student": students}
    store = LocalStore(str(folder / "store"))
    run = Run(Recipe.model_validate({**fields, "evaluation": settings, "store": store.root}), store)
    for task in settings["tasks"]:
        writer = Writer(store, Address("problems", 1, {}, {"task": task}))
        run.keep("problems", task, writer.commit([], {"train": 400, "dev": 50, "test": PROBLEMS}))
    for name in dict.fromkeys(name for name, *_ in rights):
        evaluate(run, name, {key[1:]: right for key, right in rights.items() if key[0] == name})
    for name in [made["id"] for made in students]:
        writer = Writer(store, Address("checkpoint", 1, {}, {"name": name}))
        run.keep("checkpoint", name, writer.commit([], {"parameters": 528_960}))
    if students:
        run.keep("comparison", "students", compare(store, measured(run)))
    return open_run(store, index(run))


def evaluate(run: Run, name: str, rights: Mapping[tuple[str, str, str], int | Collection[int]]) -> None:
    predictions: list[Prediction] = []
    scores: list[dict[str, Any]] = []
    for (task, thought, decode), right in rights.items():
        known = range(right) if isinstance(right, int) else right
        own = [
            Prediction(f"{task}/test/{n:05}", task, thought, decode, "?", "1", "1", n in known, 1, int(n in known), 9)
            for n in range(PROBLEMS)
        ]
        predictions += own
        scores.append(asdict(score(own, [])))
    writer = Writer(run.store, Address("evaluation", 1, {}, {"name": name}))
    files = [writer.put_records("predictions.parquet", Prediction, predictions)]
    run.keep("evaluation", name, writer.commit([*files, writer.put_lines("scores.jsonl", scores)], {"weights": {}}))


def on(task: str, **rights: tuple[int, int]) -> Rights:
    """Problems that students have right greedily and by vote; those of labels answer without a chain."""
    return {
        (name.replace("_", "-"), task, "answer" if "labels" in name else "cot", decode): right
        for name, both in rights.items()
        for decode, right in zip(("greedy", "maj@8"), both, strict=True)
    }


RIGHT = on(
    "csqa",
    supervised=(130, 131),
    supervised_1=(128, 120),
    free=(100, 125),
    free_1=(80, 80),
    labels=(90, 90),
    free_labels=(85, 85),
)


def csqa(folder: Path, rights: Rights = RIGHT, **other: Any) -> Contents:
    tasks = [{"id": "csqa", "kind": "commonsense_qa"}]
    return opened(folder, rights, tasks, scotd("csqa"), [student(name) for name in SCOTD], **other)


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    asked: Rights = {("big", "csqa", "cot", "greedy"): 150, ("big", "csqa", "cot", "maj@8"): 160}
    return csqa(tmp_path_factory.mktemp("csqa"), {**asked, **RIGHT}, references={"big": ["csqa"]})


@pytest.fixture(scope="module")
def section(contents: Contents) -> Section:
    (made,) = papers(contents)
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def tables(section: Section) -> dict[str, list[dict[str, str]]]:
    """Rows of the section's tables, by caption and by the names of their columns."""
    return {
        block.caption: [dict(zip((column.name for column in block.columns), row, strict=True)) for row in block.rows]
        for block in section.blocks
        if isinstance(block, Table)
    }


def told_by(section: Section) -> str:
    return " ".join(block.text for block in section.blocks if isinstance(block, Remark))


def verdicts(contents: Contents, task: str) -> dict[str, str]:
    """The verdict on each direction."""
    (made,) = papers(contents)
    rows = tables(made)[f"The papers' directions on {task}"]
    found = {row["direction"]: row["here"] for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.parametrize(
    ("kind", "place", "value", "tables", "source"),
    [
        ("commonsense_qa", ("prompted teacher", "answer", "", None), "82.1", ("Table 2a",), "P"),
        ("quarel", ("prompted teacher", "cot", "greedy", None), "83.3", ("Table 2a",), "P"),
        ("openbookqa", ("prompted teacher", "cot", "vote", None), "86.4", ("Table 2a",), "P"),
        ("quarel", ("prompted student", "answer", "", None), "9.7", ("Table 2a",), "P"),
        ("openbookqa", ("prompted student", "cot", "vote", None), "22.2", ("Table 2a",), "P"),
        ("quarel", ("chance", "", "", None), "50.0", ("Table 2a",), "P"),
        ("commonsense_qa", ("label-free", "answer", "vote", None), "62.7", ("Table 2b",), "P"),
        ("openbookqa", ("label-free", "cot", "vote", "greedy"), "48.8", ("Table 2b",), "P"),
        ("quarel", ("supervised", "answer", "greedy", None), "59.0", ("Table 2b",), "P"),
        ("commonsense_qa", ("supervised", "cot", "greedy", "greedy"), "68.2", ("Table 2b",), "P"),
        ("quarel", ("supervised", "cot", "greedy", 30), "83.8", ("Table 2b", "Table 3a"), "P"),
        ("openbookqa", ("supervised", "cot", "greedy", 30), "67.0", ("Table 2b",), "P"),
        ("openbookqa", ("supervised", "cot", "greedy", 30), "65.8", ("Table 3a",), "P"),
        ("openbookqa", ("supervised", "cot", "vote", 30), "63.6", ("Table 3a",), "P"),
        ("commonsense_qa", ("label-free", "cot", "greedy", 30), "60.2", ("Table 3a", "Table 3b"), "P"),
        ("openbookqa", ("label-free", "cot", "vote", 30), "57.8", ("Table 2b", "Table 3a", "Table 3b"), "P"),
        ("commonsense_qa", ("label-free", "cot", "vote", 5), "63.0", ("Table 3b",), "P"),
        ("quarel", ("label-free", "cot", "greedy", 20), "70.9", ("Table 3b",), "P"),
        ("openbookqa", ("label-free", "cot", "vote", 20), "59.8", ("Table 3b",), "P"),
        ("openbookqa", ("label-free", "cot", "greedy", 1), "39.0", ("Table 3b",), "P"),
        ("quarel", ("supervised", "cot", "greedy", 50), "84.9", ("N = 50",), "P"),
        ("imdb_contrast:original", ("supervised", "cot", "greedy", None), "95.5", ("contrast sets",), "P"),
        ("imdb_contrast:contrast", ("supervised", "answer", "greedy", None), "81.6", ("contrast sets",), "P"),
        ("gsm8k", ("supervised", "cot", "", "gold"), "14.1", ("Table 3 of 2407.18248",), "S"),
        ("gsm8k", ("supervised", "socratic", "", None), "21.1", ("Table 3 of 2407.18248",), "S"),
        ("gsm8k", ("supervised", "fallback:pot,eot,cot", "", None), "42.45", ("ArXivQA, on version 1",), "S"),
        ("gsm8k", ("supervised", "pot", "", None), "44.88", ("model card of an earlier release",), "S"),
        ("gsm8k", ("prompted teacher", "fallback:eot,cot", "greedy", None), "81.43", ("published outputs",), "K"),
        ("gsm8k", ("prompted teacher", "majority:cot,pot,eot", "greedy", None), "84.61", ("published outputs",), "K"),
    ],
)
def test_values_are_the_papers(kind: str, place: tuple[Any, ...], value: str, tables: tuple[str, ...], source: str):
    found = [(str(row.value), row.tables, row.source) for row in published(kind) if row.place == place]
    assert (value, tables, source) in found


def test_a_value_that_tables_repeat_stands_once_and_one_that_they_contradict_twice():
    assert {kind: len(published(kind)) for kind in ("commonsense_qa", "quarel", "openbookqa")} == {
        "commonsense_qa": 24,
        "quarel": 24,
        "openbookqa": 25,
    }
    twice = [place for place, number in Counter(row.place for row in published("openbookqa")).items() if number > 1]
    assert twice == [("supervised", "cot", "greedy", 30)]


def test_every_task_of_the_papers_is_a_task_here():
    kinds = {kind.partition(":")[0] for paper in PAPERS.values() for kind in paper.kinds}
    assert len(kinds) == 9
    assert kinds <= TASKS.keys()


@pytest.mark.parametrize(
    ("claim", "kind", "told"),
    [
        ("supervised: many chains ahead of labels alone", "commonsense_qa", "63.0 → 67.0 (+4.0)"),
        ("supervised: many chains ahead of labels alone", "quarel", "59.0 → 83.8 (+24.8)"),
        ("supervised: many chains ahead of labels alone", "openbookqa", "60.2 → 67.0 (+6.8)"),
        ("supervised: many chains ahead of labels alone", "imdb_contrast:contrast", "81.6 → 92.0 (+10.4)"),
        (
            "supervised, reviews as they were: many chains level with labels alone",
            "imdb_contrast:original",
            "96.1 → 95.5 (−0.6)",
        ),
        ("supervised: many chains ahead of one", "commonsense_qa", "68.2 → 67.0 (−1.2)"),
        ("label-free: many chains ahead of one", "commonsense_qa", "53.0 → 60.2 (+7.2)"),
        ("label-free: many chains ahead of one", "quarel", "62.2 → 73.4 (+11.2)"),
        ("label-free: many chains ahead of one", "openbookqa", "39.0 → 44.4 (+5.4)"),
        ("label-free: a vote ahead of greedy decoding", "quarel", "73.4 → 73.0 (−0.4)"),
        ("label-free: a vote ahead of greedy decoding", "openbookqa", "44.4 → 57.8 (+13.4)"),
        ("supervised: a vote level with greedy decoding", "openbookqa", "65.8 → 63.6 (−2.2)"),
        ("Socratic chains ahead of human steps alone", "gsm8k", "14.1 → 21.1 (+7.0)"),
        # Students of two releases and sizes are no comparison, and what was not measured has no figure.
        ("ensemble of thoughts ahead of pot alone", "gsm8k", "–"),
        ("a pair of students ahead of one", "gsm8k", "–"),
        ("label-free: many chains ahead of one", "arithmetic", "–"),
    ],
)
def test_figures_of_a_direction_are_of_one_table(claim: str, kind: str, told: str):
    (direction,) = [each for each in DIRECTIONS if each.claim == claim]
    assert figures(direction, kind) == told


@pytest.mark.parametrize(
    ("expected", "low", "high", "verdict"),
    [
        ("ahead", 0.001, 0.2, "holds"),
        ("ahead", -0.2, -0.001, "does not hold"),
        ("ahead", 0.0, 0.2, "cannot tell"),
        ("ahead", -0.2, 0.2, "cannot tell"),
        ("level", -0.029, 0.029, "holds"),
        ("level", -0.031, 0.0, "cannot tell"),
        ("level", 0.01, 0.06, "cannot tell"),
        ("level", 0.031, 0.06, "does not hold"),
        ("level", -0.06, -0.031, "does not hold"),
    ],
)
def test_an_interval_decides_only_where_all_of_it_does(expected: Any, low: float, high: float, verdict: str):
    assert weigh(expected, low, high) == verdict


def test_a_run_stands_beside_the_paper_line_by_line(section: Section):
    rows = {
        row["what was taught or asked"]: row for row in tables(section)["Papers' accuracies on csqa and this run's"]
    }
    low, high = wilson(130, PROBLEMS)
    assert list(rows["supervised: cot, 30 chains, greedy"].values()) == [
        "supervised: cot, 30 chains, greedy",
        "67.0%",
        "65.0%",
        f"{100 * low:.1f}–{100 * high:.1f}%",
        "supervised, greedy, 30 chains",
        "OPT-1.3B",
        "SCoTD, Table 2b and Table 3a (P)",
    ]
    paired = {name: (row["paper"], row["here"]) for name, row in rows.items() if "–" not in (row["paper"], row["here"])}
    assert paired == {
        "teacher, prompted: cot, greedy": ("77.6%", "75.0%"),
        "teacher, prompted: cot, vote": ("81.3%", "80.0%"),
        "label-free: labels alone, vote": ("62.7%", "42.5%"),
        "supervised: labels alone, greedy": ("63.0%", "45.0%"),
        "supervised: cot, one greedy chain, greedy": ("68.2%", "64.0%"),
        "supervised: cot, 30 chains, greedy": ("67.0%", "65.0%"),
        "supervised: cot, 30 chains, vote": ("66.8%", "65.5%"),
    }
    # Eight chains, and the first of thirty, are no number of the paper's: they stand between its own.
    order = [name for name in rows if name.startswith("label-free: cot") and name.endswith("greedy")]
    assert [name.split(", ")[1] for name in order] == [
        "1 chain",
        "1 of 30 chains",
        "5 chains",
        "8 chains",
        "10 chains",
        "20 chains",
        "30 chains",
    ]
    assert rows["label-free: cot, 8 chains, greedy"]["paper"] == "–"
    assert rows["chance"]["paper"] == "20.0%"


def test_a_sentence_says_what_sets_a_run_apart_from_the_paper(section: Section):
    told = told_by(section)
    assert "This run is no reproduction of SCoTD (Li et al. 2023): here the teacher is shipped:teacher with 7 " in told
    assert (
        "exemplars, at temperature 1 and shipped:teacher with 7 exemplars, at temperature 0, there code-davinci" in told
    )
    assert "students are shipped:student (528,960 parameters), there OPT-1.3B; " in told
    assert "of a problem they learn 30 chains, one greedy chain, 8 chains and 1 of 30 chains, there 30; " in told
    assert "a vote is over 8 samples at temperature 0.7, there 30 samples at temperature 0.7; " in told
    assert "training problems are 400, there 9,741; test problems are 200, there 1,221 of validation" in told
    assert "One standard error of the paper's values is about 1.4 points" in told


def test_the_directions_of_the_paper_are_judged_by_the_run_s_own_intervals(section: Section):
    rows = {row["direction"]: row for row in tables(section)["The papers' directions on csqa"]}
    assert {name: row["here"] for name, row in rows.items()} == {
        "supervised: many chains ahead of labels alone": "holds",
        "supervised: many chains ahead of one": "cannot tell",  # 130 and 128 of 200
        "label-free: many chains ahead of one": "holds",
        "label-free: a vote ahead of greedy decoding": "holds",
        "supervised: a vote level with greedy decoding": "holds",  # 131 and 130: all of its interval is near zero
    }
    vote = rows["supervised: a vote level with greedy decoding"]
    assert vote["first – second"] == "supervised, maj@8 – supervised, greedy"
    assert vote["difference (95% interval)"].startswith("+0.5 (")
    assert vote["by"] == "200 problems, p 1.0000"
    assert vote["whose"] == "SCoTD (P): 67.0 → 66.8 (−0.2)"
    # The one chain is another teacher's, and the many of the label-free student are not all that there are.
    assert rows["supervised: many chains ahead of one"]["by"].endswith("p 0.5000; they also differ in teachers")
    assert "differ" not in rows["label-free: many chains ahead of one"]["by"]
    told = "On csqa, of the 5 comparisons that look for a direction of the papers, 4 show it, none go against it and 1"
    assert told in told_by(section)


def test_a_run_may_go_against_the_paper(tmp_path: Path):
    rights = {**RIGHT, **on("csqa", supervised=(60, 100), free=(50, 30))}
    assert verdicts(csqa(tmp_path, rights), "csqa") == {
        "supervised: many chains ahead of labels alone": "does not hold",
        "supervised: many chains ahead of one": "does not hold",
        "label-free: many chains ahead of one": "does not hold",
        "label-free: a vote ahead of greedy decoding": "does not hold",
        "supervised: a vote level with greedy decoding": "does not hold",
    }


def test_problems_that_students_share_decide_and_not_their_accuracies(tmp_path: Path):
    """Equal accuracies as above, on problems of which each has its own: then the difference may be chance."""
    rights = {**RIGHT, ("supervised", "csqa", "cot", "maj@8"): range(PROBLEMS - 131, PROBLEMS)}
    name = "supervised: a vote level with greedy decoding"
    assert verdicts(csqa(tmp_path, rights), "csqa")[name] == "cannot tell"


def test_seeds_that_say_otherwise_leave_a_direction_open(tmp_path: Path):
    def judged(later: int, folder: str) -> dict[str, str]:
        seeded = [student("supervised", training={**TRAINING, "seeds": [0, 1, 2]}), student("labels")]
        rights: Rights = {("labels", "csqa", "answer", "greedy"): 90} | {
            (f"supervised@{seed}", "csqa", "cot", "greedy"): 130 if seed == 0 else later for seed in range(3)
        }
        tasks = [{"id": "csqa", "kind": "commonsense_qa"}]
        return verdicts(opened(tmp_path / folder, rights, tasks, scotd("csqa"), seeded), "csqa")

    assert judged(125, "as-well") == {"supervised: many chains ahead of labels alone": "holds"}
    assert judged(60, "not") == {"supervised: many chains ahead of labels alone": "cannot tell"}


def test_students_of_other_bases_are_not_compared_and_other_training_is_named(tmp_path: Path):
    def made(folder: str, **fields: Any) -> list[Section]:
        rights = on("arithmetic", supervised=(130, 131), labels=(90, 90))
        students = [student("supervised"), student("labels", **fields)]
        tasks = [{"id": "arithmetic", "train": 400, "dev": 50, "test": PROBLEMS}]
        return papers(opened(tmp_path / folder, rights, tasks, scotd("arithmetic"), students))

    (section,) = made("steps", training={**TRAINING, "steps": 900})
    row = tables(section)["The papers' directions on arithmetic"][0]
    assert row["direction"] == "supervised: many chains ahead of labels alone"
    assert row["by"].endswith("they also differ in training.steps")
    (section,) = made("base", init="random")
    (row,) = tables(section)["The papers' directions on arithmetic"]
    assert row["direction"] == "supervised: a vote level with greedy decoding"


def test_a_task_of_no_paper_has_directions_and_none_of_the_papers_numbers(tmp_path: Path):
    rights = {("big", "arithmetic", "cot", "greedy"): 150, **on("arithmetic", free=(100, 125), free_1=(80, 80))}
    tasks = [{"id": "arithmetic", "train": 400, "dev": 50, "test": PROBLEMS}]
    students = [student("free"), student("free-1")]
    (section,) = papers(opened(tmp_path, rights, tasks, scotd("arithmetic"), students))
    (caption, rows), *others = tables(section).items()
    assert (caption, others) == ("The papers' directions on arithmetic", [])
    assert {row["direction"]: (row["here"], row["whose"]) for row in rows} == {
        "label-free: many chains ahead of one": ("holds", "SCoTD (P)"),
        "label-free: a vote ahead of greedy decoding": ("holds", "SCoTD (P)"),
    }
    assert "No paper measured arithmetic" in told_by(section)


def test_a_run_that_nothing_can_be_said_of_has_no_section(tmp_path: Path):
    tasks = [{"id": "arithmetic", "train": 400, "dev": 50, "test": PROBLEMS}]
    rights = {("free", "arithmetic", "cot", "greedy"): 80}
    assert papers(opened(tmp_path, rights, tasks, scotd("arithmetic"), [student("free")], decodes=["greedy"])) == []


def test_other_tasks_under_a_paper_s_name_are_not_its_own(tmp_path: Path):
    """A file of the user's own is of the kind `jsonl`, whatever it is called."""
    (tmp_path / "rows.jsonl").write_text("")
    task = {"id": "commonsense_qa", "kind": "jsonl", "answer_kind": "choice"}
    task |= {"paths": {"train": str(tmp_path / "rows.jsonl"), "test": str(tmp_path / "rows.jsonl")}}
    rights = on("commonsense_qa", supervised=(130, 131), labels=(90, 90))
    students = [student("supervised"), student("labels")]
    (section,) = papers(opened(tmp_path, rights, [task], scotd("commonsense_qa"), students))
    assert list(tables(section)) == ["The papers' directions on commonsense_qa"]


def test_a_student_that_was_taught_another_task_is_none_of_the_paper_s(tmp_path: Path):
    tasks = [{"id": "commonsense_qa"}, {"id": "quarel"}]
    rights = {**on("commonsense_qa", supervised=(130, 131)), **on("quarel", supervised=(130, 131))}
    contents = opened(tmp_path, rights, tasks, scotd("quarel"), [student("supervised")])
    (section,) = papers(contents)
    assert [caption for caption in tables(section) if "accuracies" in caption] == [
        "Papers' accuracies on quarel and this run's"
    ]


def test_contrast_sets_are_two_tasks_with_a_direction_each(tmp_path: Path):
    for split in ("dev", "test"):
        for part in ("original", "contrast"):
            (tmp_path / f"{split}_{part}.tsv").write_text("")
    parts = [
        {"id": part, "kind": "imdb_contrast", "part": part, "path": str(tmp_path)} for part in ("original", "contrast")
    ]
    reviews = [{"id": "arithmetic", "train": 400, "dev": 50, "test": PROBLEMS}]
    rights = {
        **on("original", supervised=(190, 190), labels=(190, 190)),
        **on("contrast", supervised=(180, 180), labels=(150, 150)),
    }
    students = [student("supervised"), student("labels")]
    contents = opened(tmp_path, rights, [*parts, *reviews], scotd("arithmetic"), students)
    assert verdicts(contents, "original") == {
        "supervised, reviews as they were: many chains level with labels alone": "holds"
    }
    assert verdicts(contents, "contrast") == {"supervised: many chains ahead of labels alone": "holds"}


def gsm8k(folder: Path) -> Contents:
    """Socratic students, one and a pair, and an ensemble of thoughts with its parts."""
    corpora = [
        corpus("socratic", ["gsm8k"], ["socratic"], teachers=["one"]),
        corpus("human", ["gsm8k"], teachers=[]),
        corpus("cot", ["gsm8k"], teachers=["one"]),
        corpus("etd", ["gsm8k"], ["pot", "eot", "cot"], teachers=["one"]),
        corpus("pot", ["gsm8k"], ["pot"], teachers=["one"]),
    ]
    students = [student(made["id"]) for made in corpora]
    students.append(student("pair", corpus="socratic", rollout={"iterative": {"questions": "at_once"}}))
    thoughts = {"socratic": "socratic", "pair": "socratic", "human": "cot", "cot": "cot", "pot": "pot"}
    right = {"socratic": 60, "pair": 62, "human": 40, "cot": 80, "pot": 70}
    rights = {(name, "gsm8k", thought, "greedy"): right[name] for name, thought in thoughts.items()}
    rights |= {("etd", "gsm8k", thought, "greedy"): n for thought, n in (("pot", 71), ("eot", 60), ("cot", 50))}
    rights |= {("etd", "gsm8k", "fallback:pot,eot,cot", "greedy"): 110}
    combine = ["fallback:pot,eot,cot"]
    one = teacher("one", num_chains=1, temperature=0.0)
    return opened(folder, rights, [{"id": "gsm8k"}], corpora, students, [one], decodes=["greedy"], combine=combine)


def test_gsm8k_has_the_directions_of_both_its_papers(tmp_path: Path):
    contents = gsm8k(tmp_path)
    (section,) = papers(contents)
    rows = tables(section)["The papers' directions on gsm8k"]
    found = {(row["direction"], row["first – second"].split(",")[0]): row for row in rows}
    assert {key: row["here"] for key, row in found.items()} == {
        ("Socratic chains ahead of human steps alone", "socratic"): "holds",
        ("Socratic chains ahead of human steps alone", "pair"): "holds",
        ("Socratic chains ahead of plain ones", "socratic"): "does not hold",
        ("Socratic chains ahead of plain ones", "pair"): "does not hold",
        ("a pair of students ahead of one", "pair"): "cannot tell",
        ("ensemble of thoughts ahead of pot alone", "etd · fallback: pot"): "holds",
        ("ensemble of thoughts ahead of cot alone", "etd · fallback: pot"): "holds",
    }
    assert {row["whose"] for row in rows} == {
        "Socratic CoT (S): 14.1 → 21.1 (+7.0)",
        "Socratic CoT (A)",
        "Socratic CoT (S)",
        "ETD (A)",
    }
    table = tables(section)["Papers' accuracies on gsm8k and this run's"]
    beside = {row["who here"].split(",")[0]: (row["paper"], row["here"]) for row in table if row["who here"] != "–"}
    # The value of a student of programs alone is not beside the ensemble's programs.
    assert beside == {
        "human": ("14.1%", "20.0%"),
        "socratic": ("21.1%", "30.0%"),
        "pair": ("–", "31.0%"),
        "cot": ("–", "40.0%"),
        "etd · fallback: pot": ("42.45%", "55.0%"),
        "pot": ("44.88%", "35.0%"),
    }
    told = told_by(section)
    assert "no reproduction of Socratic CoT" in told
    assert "no reproduction of ETD" in told
    assert "of a problem they learn one greedy chain, there a number that could not be found" in told
    assert not any(row["what was taught or asked"].startswith("teacher, prompted") for row in table)
    assert "S a secondary page, not checked against the paper" in told


def test_every_score_with_a_place_stands_in_the_table_once(contents: Contents):
    own = placed(contents, "csqa")
    lines = list(align(published("commonsense_qa"), own))
    here = [line.here for line in lines if line.here is not None]
    assert len(own) == 14
    assert sorted(map(id, here)) == sorted(map(id, own))
    assert [line.published for line in lines if line.published] == list(published("commonsense_qa"))


@pytest.mark.parametrize(
    ("greedy", "maj", "here"),
    [
        (((40, 90), (42, 95), (45, 93)), 8, ("holds", "holds")),
        (((90, 40), (92, 46), (95, 43)), -8, ("does not hold", "does not hold")),
        (((40, 90), (95, 42), (45, 60)), 0, ("cannot tell", "cannot tell")),
    ],
)
def test_trials_of_a_sweep_show_directions_too(tmp_path: Path, greedy: Any, maj: int, here: tuple[str, str]):
    """Three seeds of one chain and of thirty, label-free; a vote that adds about as much to each."""
    rows = [
        trial(
            {"selection.num_chains": chains, "selection.rule": "all", "training.seed": seed},
            right,
            right + (maj and maj + seed),
        )
        for seed, both in enumerate(greedy)
        for chains, right in zip((1, 30), both, strict=True)
    ]
    space = [{"selection.num_chains": [1, 30], "selection.rule": ["all"], "training.seed": [0, 1, 2]}]
    (section,) = papers(contents_of(tmp_path, rows, space))
    found = tables(section)["The papers' directions on arithmetic"]
    assert [(row["direction"], row["here"], row["first – second"], row["by"]) for row in found] == [
        ("label-free: many chains ahead of one", here[0], "num_chains = 30 – 1, greedy", "3 pairs of trials"),
        (
            "label-free: a vote ahead of greedy decoding",
            here[1],
            "maj@8 – greedy, num_chains = 30",
            "3 pairs of trials",
        ),
    ]


def test_trials_of_four_chains_stand_for_no_trial_of_one(tmp_path: Path):
    rows = [
        trial({"selection.num_chains": chains, "training.seed": seed}, 40 + chains + seed, 60 + chains)
        for chains in (4, 30)
        for seed in range(3)
    ]
    space = [{"selection.num_chains": [4, 30], "training.seed": [0, 1, 2]}]
    (section,) = papers(contents_of(tmp_path, rows, space))
    found = tables(section)["The papers' directions on arithmetic"]
    assert [row["direction"] for row in found] == ["supervised: a vote level with greedy decoding"]


def test_the_filter_s_share_is_beside_the_paper_s(contents: Contents, tmp_path: Path):
    fates = {
        "train/selected": 500,
        "train/over_budget": 50,
        "train/near_duplicate": 10,
        "train/wrong": 300,
        "train/truncated": 140,
        "train/unlabelled": 777,
        "dev/wrong": 99,
    }
    made = Writer(contents.run.store, Address("corpus", 1, {}, {})).commit([], {"fates": fates})
    (section,) = papers(Contents(contents.run, {**contents.artifacts, "corpus": {"supervised": made}}))
    assert "took away 40.4% of the teacher's chains in SCoTD (P), and here 44.0% (supervised)" in told_by(section)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_section_fits_a_window_and_a_phone(
    contents: Contents, section: Section, browser: Browser, tmp_path: Path, width: int
):
    file = tmp_path / "index.html"
    file.write_bytes(render(contents, [section]))
    with watched(browser, file) as window:
        window.set_viewport_size({"width": width, "height": 800})
        assert window.evaluate("document.documentElement.scrollWidth") == width
        table = window.get_by_role("table", name="The papers' directions on csqa", exact=True)
        assert table.locator("tbody tr").count() == 5


def test_published_values_are_shares_in_percent():
    values = [row.value for paper in PAPERS.values() for kind in paper.kinds for row in published(kind)]
    assert len(values) > 80
    assert all(Decimal(0) < value < Decimal(100) for value in values)
