"""The corpus as an artifact: selection with Ray Data over the verdicts of two teachers, and what is refused before."""

import json
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from recordings import recipe
from retort.loading import load
from retort.pipeline import build_corpus
from retort.records import Example, Problem, Verdict
from retort.run import prepare
from retort.selection import SelectionConfig, corpus, curate, left_out, select
from retort.selection.budgets import Source, Supply, limits
from retort.selection.counts import STRATA, stratum
from retort.selection.rules import pass_rate, unique_bigrams
from retort.store import Store, open_store
from retort.store.artifacts import Address, Artifact, Writer

PROBLEMS = [
    *(Problem(f"t/train/{number}", "t", "train", "q?", "number", "3") for number in range(40)),
    *(Problem(f"t/dev/{number}", "t", "dev", "q?", "number", "3") for number in range(10)),
]
TEACHERS = ("big", "small")


def answered(problem: Problem, teacher: str, rng: random.Random) -> list[Verdict]:
    """Six chains of a teacher on a problem, of which it gets the harder ones right less often."""
    number = int(problem.id.rsplit("/", 1)[1])
    made: list[Verdict] = []
    for index in range(6):
        said = "3" if rng.random() < number / 39 else "4"
        text = f"{' '.join(rng.choices('abcdef', k=rng.randint(2, 9)))} The answer is {said}."
        reason = "correct" if said == "3" else "wrong"
        args = (problem.id, "t", problem.split, "cot", index, "q?", "Question: q?\n", "3", text, said)
        made.append(Verdict(*args, reason == "correct", reason, 5, len(text.split()), teacher))
    return made


def verdicts_of(store: Store) -> tuple[list[Artifact], dict[str, list[Verdict]]]:
    """The verdicts of both teachers, chains of a problem in several files each; and all of them by problem."""
    rng = random.Random(0)
    artifacts: list[Artifact] = []
    by_problem: dict[str, list[Verdict]] = {problem.id: [] for problem in PROBLEMS}
    for teacher in TEACHERS:
        rows = [verdict for problem in PROBLEMS for verdict in answered(problem, teacher, rng)]
        for row in rows:
            by_problem[row.problem_id].append(row)
        rng.shuffle(rows)
        writer = Writer(store, Address("verdicts", 1, {}, {"of": teacher}))
        files = [writer.put_records(f"{part}.parquet", Verdict, rows[part::3]) for part in range(3)]
        artifacts.append(writer.commit(files, {"rows": len(rows), "logprobs": 0}))
    return artifacts, by_problem


def fates(made: Artifact, split: str) -> dict[str, int]:
    return {key.split("/")[1]: count for key, count in made.stats["fates"].items() if key.startswith(f"{split}/")}


def test_the_corpus_is_what_the_rules_say_of_each_problem(store: Store, ray_session: None):
    config = SelectionConfig(
        pick="random", chains_per_problem=2, deduplicate="near", max_pass_rate=0.9, label_fraction=0.5
    )
    verdicts, by_problem = verdicts_of(store)
    out = left_out(PROBLEMS, {}, config)
    made = curate(store, verdicts, [], ["t"], ["cot"], config, out)

    expected = [pair for rows in by_problem.values() for pair in select(rows, config, out)]
    learned = Counter((row.problem_id, row.target) for row in made.records(Example))
    assert learned == Counter((row.problem_id, row.text) for row, fate in expected if fate == "selected")
    assert made.stats["fates"] == Counter(f"{row.split}/{fate}" for row, fate in expected)
    assert {"selected", "over_budget", "unlabelled", "too_easy", "wrong"} <= fates(made, "train").keys()
    assert made.stats["rows_in"] == len(expected) == 600
    assert made.stats["problems"] == len({problem_id for problem_id, _ in learned})
    check_difficulty(made, by_problem)


def check_difficulty(made: Artifact, by_problem: Mapping[str, list[Verdict]]) -> None:
    """Every problem is counted in the stratum of its pass rate, with its chains and those that were selected."""
    rows = {(row["split"], row["stratum"]): row for row in made.stats["difficulty"]}
    assert len(rows) == len(made.stats["difficulty"]) > 8
    learned = Counter(row.problem_id for row in made.records(Example))
    for (split, named), row in rows.items():
        members = [
            problem
            for problem, chains in by_problem.items()
            if f"/{split}/" in problem and stratum(pass_rate(chains)) == named
        ]
        assert row["thought"] == "cot"
        assert row["problems"] == len(members)
        assert row["chains"] == sum(len(by_problem[problem]) for problem in members)
        assert row["selected"] == sum(learned[problem] for problem in members)
    assert sum(row["problems"] for row in rows.values()) == len(by_problem)


@pytest.mark.slow
def test_many_verdicts_make_more_files_and_the_same_corpus(
    tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
):
    config = SelectionConfig(rule="all", pick="open_ended", chains_per_problem=3, total_chains=100)
    made: list[Artifact] = []
    for name, rows_of_file in (("few", corpus.ROWS_OF_FILE), ("many", 50)):
        monkeypatch.setattr(corpus, "ROWS_OF_FILE", rows_of_file)
        store = open_store(str(tmp_path / name))
        made.append(curate(store, verdicts_of(store)[0], [], ["t"], ["cot"], config, {}))
    few, many = ({(row.problem_id, row.target) for row in each.records(Example)} for each in made)
    assert few == many
    assert len(made[0].manifest["files"]) <= corpus.FILES < len(made[1].manifest["files"])


def test_budgets_over_the_whole_corpus_are_kept_in_it(store: Store, ray_session: None):
    settings: dict[str, Any] = {"rule": "all", "pick": "open_ended", "chains_per_problem": 3, "total_chains": 100}
    config = SelectionConfig(**settings)
    verdicts, by_problem = verdicts_of(store)
    made = curate(store, verdicts, [], ["t"], ["cot"], config, {})

    offers = {
        Source(problem.id, f"cot/{teacher}"): Supply(problem.split, "cot", unique_bigrams(by_problem[problem.id]), 6)
        for problem in PROBLEMS
        for teacher in TEACHERS
    }
    expected = Counter[str]()
    for source, limit in limits(offers, config).items():
        expected[source.problem_id] += limit.by_total
    assert Counter(row.problem_id for row in made.records(Example)) == +expected
    # Budgets of 3 a teacher on average: 240 of 480 training chains, and of these 100 in all; 60 of 120 dev chains.
    assert fates(made, "train") == {"selected": 100, "over_budget": 240, "over_total": 140}
    assert fates(made, "dev") == {"selected": 60, "over_budget": 60}


@pytest.mark.parametrize(
    ("rate", "place"), [(0.0, 0), (0.1, 1), (0.25, 1), (0.26, 2), (0.5, 2), (0.75, 3), (0.9, 4), (1.0, 5)]
)
def test_strata_hold_their_upper_bound_and_extremes_stand_alone(rate: float, place: int):
    assert stratum(rate) == STRATA[place]


def test_labels_are_of_a_fraction_of_the_problems_and_every_dev_problem(store: Store):
    config = SelectionConfig(label_fraction=0.3)
    out = left_out(PROBLEMS, {}, config)
    made = curate(store, [], PROBLEMS, ["t"], ["answer"], config, out)
    assert fates(made, "train") == {"selected": 12, "unlabelled": 28}
    assert fates(made, "dev") == {"selected": 10}
    assert not {row.problem_id for row in made.records(Example)} & out.keys()
    assert curate(store, [], PROBLEMS, ["t"], ["answer"], config, {}).id != made.id


def test_the_number_of_chains_is_in_the_verdicts_and_not_in_the_address(store: Store):
    configs = SelectionConfig(), SelectionConfig(num_chains=4), SelectionConfig(seed=1)
    made = [curate(store, [], PROBLEMS, ["t"], ["answer"], config, {}) for config in configs]
    assert made[0].manifest == made[1].manifest
    assert made[0].id != made[2].id


def test_likely_chains_are_not_told_by_guessing(store: Store):
    verdicts, _ = verdicts_of(store)
    config = SelectionConfig(pick="likely", chains_per_problem=2)
    with pytest.raises(ValueError, match=r"'likely': 600 of 600 chains .* without log-probabilities; .*logprobs = "):
        curate(store, verdicts, [], ["t"], ["cot"], config, {})


def test_an_empty_corpus_says_what_became_of_everything(store: Store):
    out = dict.fromkeys((problem.id for problem in PROBLEMS), "contaminated")
    with pytest.raises(ValueError, match=r"corpus is empty: .*'train/contaminated': 40"):
        curate(store, [], PROBLEMS, ["t"], ["answer"], SelectionConfig(), out)


OWN = """
name = "test"
store = "{folder}/store"
[[task]]
id = "own"
kind = "jsonl"
answer_kind = "number"
paths = {{ train = "{folder}/train.jsonl", dev = "{folder}/dev.jsonl", test = "{folder}/test.jsonl" }}
[[corpus]]
id = "labels"
tasks = ["own"]
thoughts = ["answer"]
selection = {{ max_overlap = 0.5 }}
[evaluation]
tasks = ["own"]
"""


def test_questions_that_tests_hold_are_left_out_of_training_and_dev(tmp_path: Path):
    questions = {
        "train": ["How many are 3 and 4 pens in a box of wood?", "What is 5 and 5, if 5 is five and ten is ten?"],
        "dev": ["Ann has 2 pens and gives one of them away, how many now?", "What is 9?"],
        "test": ["how many are 3 and 4 pens in a box of wood ?", "What is 9?"],
    }
    for split, asked in questions.items():
        lines = (json.dumps({"question": question, "answer": "3"}) for question in asked)
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    path = tmp_path / "recipe.toml"
    path.write_text(OWN.format(folder=tmp_path))
    run = prepare(load(path), open_store(f"{tmp_path}/store"))
    made = build_corpus(run, "labels")
    assert made.stats["fates"] == dict.fromkeys(
        ("dev/contaminated", "dev/selected", "train/contaminated", "train/selected"), 1
    )
    _, second, third, *_ = (row.id for row in run.artifacts["problems"]["own"].records(Problem))
    assert {row.problem_id for row in made.records(Example)} == {second, third}
    assert run.artifacts["overlap"]["labels"].stats == {"problems": 4, "equal": 2, "half": 2}


@pytest.mark.parametrize(
    ("name", "selection", "complaint"),
    [
        ("chains", "max_overlap = 0.5", r"corpus\.chains\.selection\.max_overlap: nothing is tested"),
        ("chains", 'pick = "likely", chains_per_problem = 2', r'expected teacher\.rec\.logprobs = "sum"'),
        ("labels", 'deduplicate = "exact"', r"corpus\.labels\.selection\.deduplicate: gold labels are no chains"),
        ("labels", "total_chains = 9", r"corpus\.labels\.selection\.total_chains: gold labels"),
    ],
)
def test_what_a_corpus_cannot_be_selected_by_is_refused_before_anything_is_sampled(
    name: str, selection: str, complaint: str, store: Store, tmp_path: Path
):
    text = recipe(None, "/unused", 2)
    place = text.index("tasks = ", text.index(f'id = "{name}"'))
    (tmp_path / "recipe.toml").write_text(f"{text[:place]}selection = {{ {selection} }}\n{text[place:]}")
    with pytest.raises(ValueError, match=complaint):
        prepare(load(tmp_path / "recipe.toml"), store)
