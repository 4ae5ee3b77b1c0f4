"""Runs compared: which problems are one, what may be said of a difference, and the page in a real browser."""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from retort.pipeline import measure
from retort.records import Prediction, Problem, Verdict
from retort.report import report
from retort.report.blocks import Exhibit, Exhibits, Remark, Section, Table
from retort.report.contents import Contents, open_run
from retort.report.differences import cost, data, elements, recipes, renamed, versions
from retort.report.duels import Duel, Side, duels, opponents
from retort.report.formatting import visible
from retort.report.outcomes import MAX_CHARACTERS, MOST_READ, MOST_SPOKEN, finding, problems, result
from retort.report.versus import COLOURS, compose, names_runs, versus, versus_commands
from retort.run import Run, index
from retort.store import open_store
from retort.store.artifacts import Address, Artifact, Writer
from retort.store.hashing import digest
from retort.store.interface import Store
from test_report import HOSTILE, check_plots, checkpoint, chromium, corpus, recipe_in, sampled, verdicts, watched
from test_report import problems as all_problems

ROOT = Path(__file__).parent.parent


def distilled(folder: Path, store: Store, skill: float, tested: Sequence[Problem], **change: Any) -> Artifact:
    """The index of a run whose student `cot` is right as often as its skill says; all that it writes is hostile."""
    folder.mkdir(exist_ok=True)
    recipe = recipe_in(folder).model_copy(update=change)
    run = Run(recipe, store)
    rows = [*(row for row in all_problems() if row.split != "test"), *tested]
    writer = Writer(store, Address("problems", 1, {}, {"rows": digest([row.id + row.question for row in rows])}))
    kept = writer.commit([writer.put_records("problems.parquet", Problem, rows)], Counter(row.split for row in rows))
    run.keep("problems", "arithmetic", kept)
    learned = [row for row in rows if row.split != "test"]
    taught = verdicts("tiny", "cot", learned, 4, 0.9)
    sampled(run, "tiny/cot", taught)
    corpus(run, "chains", taught)
    corpus(run, "labels", verdicts("labels", "answer", learned, 1, 1.0))
    for student in recipe.student:
        checkpoint(run, student.id)
        thought, right = ("answer", 0.2) if student.corpus == "labels" else ("cot", skill)
        hostile = cycle(HOSTILE.values())
        for key, num_chains in (("greedy", 1), ("maj", 4)):
            said = verdicts(f"{student.id}", thought, tested, num_chains, right)
            judged(run, f"{student.id}/test-{key}", [replace(row, text=next(hostile)) for row in said])
        measure(run, student.id, recipe.evaluation.decodes)
    return index(run)


def judged(run: Run, name: str, rows: list[Verdict]) -> None:
    """Verdicts at an address that differs as they do, as those of two checkpoints."""
    made = sampled(run, name, rows)
    writer = Writer(
        run.store, Address("verdicts", 1, {}, {"rows": digest([(row.problem_id, row.answer) for row in rows])})
    )
    run.keep("verdicts", name, writer.commit([writer.put_records("part-0.parquet", Verdict, rows)], made.stats))


def changed() -> list[Problem]:
    """The test problems: the first is gone, the third has another question, and the fourth another gold answer."""
    tested = [row for row in all_problems() if row.split == "test"]
    return [replace(tested[2], question="Another?"), replace(tested[3], answer="7"), tested[1], *tested[4:]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    """Two runs in two stores: B has a better student, other test problems, and other settings."""
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    stores = [open_store(str(folder / "store")) for folder in folders]
    tested = [row for row in all_problems() if row.split == "test"]
    better = recipe_in(folders[1]).student[0]
    students = (
        better.model_copy(update={"training": better.training.model_copy(update={"steps": 900})}),
        better.model_copy(update={"id": "late"}),
    )
    return [
        distilled(folders[0] / "a", stores[0], 0.5, tested),
        distilled(folders[1] / "b", stores[1], 0.95, changed(), name="trial-b", student=students),
    ]


@pytest.fixture(scope="module")
def sides(runs: list[Artifact]) -> list[Side]:
    return [Side(letter, open_run(run.store, run)) for letter, run in zip(COLOURS, runs, strict=False)]


@pytest.fixture(scope="module")
def fought(sides: list[Side]) -> list[Duel]:
    return list(duels(*sides))


def tables(section: Section) -> dict[str, Table]:
    return {block.caption: block for block in section.blocks if isinstance(block, Table)}


def said(rights: Mapping[str, bool]) -> dict[str, Prediction]:
    return {
        name: Prediction(name, "sums", "cot", "greedy", f"{name}?", "1", "1" if right else "2", right, 1, right, 9)
        for name, right in rights.items()
    }


def counted(duel: Duel, both: int, only_one: int, only_other: int, neither: int) -> Duel:
    """A duel of so many problems that both, one or none of two students have right."""
    outcomes = [(True, True)] * both + [(True, False)] * only_one + [(False, True)] * only_other
    outcomes += [(False, False)] * neither
    one, other = ({str(n): outcome[side] for n, outcome in enumerate(outcomes)} for side in (0, 1))
    return replace(duel, answers=said(one), other_answers=said(other))


def test_a_problem_is_matched_by_its_id_question_and_gold_answer(fought: list[Duel]):
    duel = fought[0]
    assert (duel.one.name, duel.other.name, duel.decode) == ("cot of A", "cot of B", "greedy")
    assert duel.unmatched == (1, 0, 2)
    assert len(duel.matched) == 37
    assert not {f"arithmetic/test/{row:05}" for row in (0, 2, 3)} & set(duel.matched)


@pytest.mark.parametrize(
    ("counts", "claim"),
    [
        ((50, 5, 30, 15), "cot of B (80.0%) is 25.0 points ahead of cot of A (55.0%): 95% interval +14.0 to +35.2"),
        ((50, 30, 5, 15), "cot of B (55.0%) is 25.0 points behind cot of A (80.0%): 95% interval −35.2 to −14.0"),
        ((50, 10, 14, 26), "cot of B (64.0%) cannot be told from cot of A (60.0%): the difference is +4.0 points"),
        # The interval leaves out 0, the exact test does not: nothing is claimed.
        ((40, 1, 7, 2), "cannot be told from"),
        ((5, 0, 0, 5), "the difference is +0.0 points"),
    ],
)
def test_a_sentence_claims_no_more_than_interval_and_test_allow(fought: list[Duel], counts: Any, claim: str):
    duel = counted(fought[0], *counts)
    assert claim in finding(duel)
    assert f"({sum(counts)} test problems that both answered, greedy)" in finding(duel)


def test_the_disputed_case_of_the_table_is_one(fought: list[Duel]):
    pair = counted(fought[0], 40, 1, 7, 2).pair
    assert pair is not None
    assert pair.low > 0
    assert pair.p > 0.05


def test_nothing_is_said_where_nothing_can_be_compared(fought: list[Duel], sides: list[Side]):
    apart = replace(fought[0], answers=said({"1": True}), other_answers=said({"2": True}))
    assert apart.pair is None
    assert "answered no test problem in common" in finding(apart)
    assert "one evaluation of one checkpoint" in finding(replace(fought[0], is_same=True))
    bare = [side._replace(contents=replace(side.contents, artifacts={})) for side in sides]
    told = [block.text for block in result(list(duels(*bare)), bare) if isinstance(block, Remark)]
    assert told == [f"Nothing can be said of students of {letter}: none was evaluated in this run." for letter in "AB"]


def test_the_same_evaluation_in_both_runs_is_told(sides: list[Side]):
    assert all(duel.is_same for duel in duels(sides[0], Side("B", sides[0].contents)) if duel.one == duel.other)


def of_students(contents: Contents, students: Mapping[str, str]) -> Contents:
    """A run in which students of some corpora were evaluated, as far as its index tells."""
    first = contents.recipe["student"][0]
    recipe = {
        **contents.recipe,
        "student": [{**first, "id": name, "corpus": corpus} for name, corpus in students.items()],
    }
    run = replace(contents.run, manifest={**contents.run.manifest, "config": recipe})
    made = contents.stage("evaluation")["cot"]
    return Contents(run, {"evaluation": dict.fromkeys(students, made)})


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"cot": "chains", "plain": "labels"}, {"plain": "labels", "cot": "chains"}, ["cot cot", "plain plain"]),
        ({"cot": "chains", "plain": "labels"}, {"eot": "chains", "bare": "labels"}, ["cot eot", "plain bare"]),
        ({"a": "chains", "b": "chains"}, {"b": "chains", "c": "chains"}, ["b b", "a b", "a c", "b c"]),
        ({"cot": "chains"}, {"cot": "labels"}, ["cot cot"]),
        ({"cot": "chains"}, {"plain": "labels"}, []),
    ],
)
def test_students_meet_their_namesake_or_their_kind(sides: list[Side], one: Any, other: Any, expected: list[str]):
    contents = [of_students(sides[0].contents, students) for students in (one, other)]
    assert [" ".join(pair) for pair in opponents(*contents)] == expected


def test_every_thought_and_decode_that_both_measured_is_in_the_table(fought: list[Duel], sides: list[Side]):
    (shown,) = [block for block in result(fought, sides) if isinstance(block, Table)]
    rows = [dict(zip((column.name for column in shown.columns), row, strict=True)) for row in shown.rows]
    assert [(row["student"], row["decode"]) for row in rows] == [
        ("cot", "greedy"),
        ("cot", "maj@4"),
        ("late of B, cot of A", "greedy"),
        ("late of B, cot of A", "maj@4"),
    ]
    for row, duel in zip(rows, fought, strict=True):
        assert duel.pair is not None
        ids = {name for name, p in duel.answers.items() if p.is_correct} & set(duel.matched)
        other_ids = {name for name, p in duel.other_answers.items() if p.is_correct} & set(duel.matched)
        assert (row["only A"], row["only B"]) == (str(len(ids - other_ids)), str(len(other_ids - ids)))
        assert row["A"] == f"{100 * len(ids) / 37:.1f}%"
        assert (row["matched"], row["not matched"]) == ("37", "3")
        assert row["B − A"] == f"{100 * (len(other_ids) - len(ids)) / 37:+.1f}"
    told = " ".join(block.text for block in result(fought, sides) if isinstance(block, Remark))
    assert "cot of A and cot of B on arithmetic: 37 matched, 1 answered by the first alone, 0 by the second" in told
    assert "Without a student of the same kind, task and decode to be compared with: label-only of A." in told


def test_no_more_sentences_than_are_read(fought: list[Duel], sides: list[Side]):
    told = [block for block in result([fought[0]] * 9, sides) if isinstance(block, Remark)]
    assert sum(block.is_finding for block in told) == MOST_SPOKEN
    assert "3 more comparisons" in " ".join(block.text for block in told)


def exhibits(section: Section) -> list[Exhibits]:
    return [block for block in section.blocks if isinstance(block, Exhibits)]


def test_the_problems_to_read_are_those_of_the_smallest_hashes(fought: list[Duel]):
    first = exhibits(problems(fought))[0]
    duel = fought[0]
    assert duel.pair is not None
    assert first.caption.startswith(f"cot of B alone is right, cot of A is not: {duel.pair.only_first} of 37 problems")
    won = [n for n in duel.matched if duel.other_answers[n].is_correct and not duel.answers[n].is_correct]
    assert len(won) > MOST_READ
    expected = sorted(won, key=digest)[:MOST_READ]
    assert [each.facts[0] for each in first.exhibits] == [name for name in expected for _ in range(2)]
    assert [each.why for each in first.exhibits[:2]] == ["cot of B is right", "cot of A is not"]
    assert [each.answer == each.gold for each in first.exhibits] == [True, False] * MOST_READ


def test_the_chain_of_a_vote_is_one_that_carries_its_answer(fought: list[Duel]):
    voted = [replace(duel, speaks=duel.decode == "maj@4") for duel in fought]
    shown: list[Exhibit] = [each for block in exhibits(problems(voted)) for each in block.exhibits]
    assert len(shown) > 4
    for each in shown:
        side = next(who.side for duel in voted for who in (duel.one, duel.other) if each.why.startswith(who.name))
        student = each.why.split(" ")[0]
        rows = side.contents.stage("verdicts")[f"{student}/test-maj"].records(Verdict)
        own = [row for row in rows if row.problem_id == each.facts[0]]
        chain = min((row for row in own if row.answer == each.answer), key=lambda row: row.index)
        assert each.text[:30] == chain.text[:30]
        assert each.facts[2] == f"{sum(row.is_correct is True for row in own)} of 4 chains right"


def test_the_other_direction_is_counted_even_where_it_is_empty(fought: list[Duel]):
    section = problems([counted(fought[0], 5, 0, 0, 5)])
    told = [block.text for block in section.blocks if isinstance(block, Remark)]
    assert told[0] == "cot of B alone is right, cot of A is not: 0 of 10 problems of arithmetic, greedy."
    assert told[1] == "cot of A alone is right, cot of B is not: 0 of 10 problems of arithmetic, greedy."


def test_fields_are_dotted_and_elements_are_found_by_id():
    recipe = {
        "name": "a",
        "assumed": [],
        "task": [],
        "evaluation": {"decodes": ["greedy"], "hf": {"dtype": "auto"}, "references": {}},
        "teacher": [{"id": "tiny", "num_chains": 4, "settings": {"model": "m", "stop": []}, "lesson": {"given": "x"}}],
    }
    assert elements(recipe) == {
        "": {"name": "a", "assumed": [], "evaluation.decodes": ["greedy"], "evaluation.hf.dtype": "auto"},
        "teacher.tiny": {"id": "tiny", "num_chains": 4, "model": "m", "stop": [], "given": "x"},
    }


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [
        (["student.eot", "corpus.x"], ["student.cot", "corpus.x"], ["student.cot", "corpus.x"]),
        (["student.eot"], ["student.cot", "student.pot"], ["student.eot"]),
        (["student.eot", "student.cot"], ["student.cot"], ["student.eot", "student.cot"]),
        (["student.b", "student.c"], ["student.a", "student.b"], ["student.b", "student.a"]),
    ],
)
def test_the_only_tables_left_are_held_against_each_other(here: list[str], there: list[str], expected: list[str]):
    found = renamed({name: {"id": name} for name in here}, {name: {} for name in there})
    assert list(found) == expected
    assert [fields["id"] for fields in found.values()] == here


def test_only_what_differs_in_the_recipes_is_listed(sides: list[Side]):
    rows = {row[0]: row[1:] for row in tables(recipes(sides))["Fields that differ"].rows}
    assert rows["name"] == ('"trial"', '"trial-b"')
    assert rows["student.cot.training.steps"] == ("700", "900")
    assert rows["student.label-only.id"] == ('"label-only"', '"late"')
    assert rows["student.label-only.corpus"] == ('"labels"', '"chains"')
    assert not any(name.startswith(("task.", "corpus.", "teacher.tiny")) for name in rows)
    same = recipes([sides[0], sides[0]])
    assert [block.text for block in same.blocks if isinstance(block, Remark)] == ["The recipes are equal."]


def test_a_table_that_one_run_lacks_is_one_row(sides: list[Side]):
    of_three = of_students(sides[0].contents, {"cot": "chains", "b": "chains", "c": "chains"})
    rows = tables(recipes([sides[1], Side("B", of_three)]))["Fields that differ"].rows
    assert [row for row in rows if row[0].startswith(("student.b", "student.c.", "student.late"))] == [
        ("student.late", "there", "–"),
        ("student.b", "–", "there"),
    ]


def test_data_tells_what_is_shared_and_accepted(sides: list[Side]):
    shown = tables(data(sides))
    assert shown["Problems"].rows == (
        ("arithmetic", "train", "30", "30", "30"),
        ("arithmetic", "dev", "6", "6", "6"),
        ("arithmetic", "test", "40", "39", "37"),
    )
    ((model, plan, letter, verdicts_, accepted), other) = shown["Teachers' chains"].rows
    right = next(one for one in sides[0].contents.samplings if one.model == "tiny").verdicts
    assert right is not None
    assert (model, plan, letter, verdicts_) == ("tiny", "train + dev, cot", "A", "144")
    assert accepted.startswith(f"{right.stats['reasons']['correct']} (")
    assert other[2] == "B"
    assert [row[:3] for row in shown["Corpora"].rows][:2] == [("chains", "A", "144"), ("chains", "B", "144")]
    hashes = {row[0]: row[1:] for row in shown["Hashes"].rows}
    assert hashes["problems of arithmetic"][0] != hashes["problems of arithmetic"][1]
    assert hashes["corpus chains"][0] == hashes["corpus chains"][1]


def test_cost_adds_up_by_stage_and_role(sides: list[Side]):
    shown = tables(cost(sides))
    assert [row[0] for row in shown["Seconds by stage"].rows][:2] == ["problems", "sampling"]
    rows = {row[:2]: row[2:] for row in shown["Tokens sampled"].rows}
    assert rows["teacher", "A"][0] == rows["teacher", "B"][0] == "144"
    # Two students of chains in B, each with one greedy chain and four that vote on 39 problems; one of 40 in A.
    assert rows["student of chains", "A"][0] == "200"
    assert rows["student of chains", "B"][0] == "390"
    assert ("student of labels", "B") not in rows
    learned = {row[:2]: row[2:] for row in shown["Tokens learned"].rows}
    assert list(learned) == [("cot", "A"), ("cot", "B"), ("label-only", "A"), ("late", "B")]
    assert learned["cot", "A"][:2] == ("420,000", "700")


def test_versions_are_listed_where_they_differ(sides: list[Side]):
    assert not tables(versions(sides))
    contents = sides[1].contents
    made = contents.stage("checkpoint")["cot"]
    newer = replace(made, manifest={**made.manifest, "version": 9, "libraries": {"torch": "99"}})
    later = replace(contents, artifacts={**contents.artifacts, "checkpoint": {"cot": newer}})
    rows = tables(versions([sides[0], Side("B", later)]))["Versions that differ"].rows
    libraries = made.manifest["libraries"]
    assert sorted(rows) == [
        ("the stage", "training", "1", "9"),
        ("torch", "training", libraries["torch"], "99"),
        ("transformers", "training", libraries["transformers"], "–"),
    ]
    without = replace(contents, artifacts={"problems": contents.artifacts["problems"]})
    assert not tables(versions([sides[0], Side("B", without)]))


def commanded(*arguments: str) -> list[str]:
    return list(versus_commands(argparse.ArgumentParser(), list(arguments)))


def test_the_addresses_that_jobs_print_are_taken(runs: list[Artifact], monkeypatch: pytest.MonkeyPatch):
    first, second = runs
    printed = commanded(first.uri, second.uri)
    page = printed[0].removeprefix("report: ")
    assert Path(page).is_file()
    assert printed[1].startswith(f"artifact: {first.store.uri}/artifacts/versus/")
    made = report(first.store, first)
    for named in (made.uri, f"{made.directory()}/index.html", f"{first.uri}/", first.uri.removeprefix("file://")):
        assert commanded(named, second.uri) == printed
    monkeypatch.chdir(Path(first.store.uri.removeprefix("file://")).parent)
    assert commanded(f"store/artifacts/run/{first.id}", second.uri) == printed
    assert commanded(second.uri, first.uri) != printed


def test_anything_else_is_refused_in_one_line(runs: list[Artifact], tmp_path: Path):
    first, second = (run.uri for run in runs)
    store = open_store(str(tmp_path / "old"))
    old = Writer(store, Address("run", 1, {"name": "old"}, {})).commit([], {})
    problems_ = open_run(runs[0].store, runs[0]).stage("problems")["arithmetic"].uri
    for arguments, told in (
        ([first], "runs to compare: got 1; expected 2 to 8"),
        ([first, second] * 5, "runs to compare: got 10; expected 2 to 8"),
        ([first, "demo.toml"], "got 'demo.toml' among runs to compare; expected the address of a run or report"),
        ([first, problems_], "among runs to compare; expected the address of a run or report"),
        ([first, second, "teacher.tiny.num_chains=4"], "got 'teacher.tiny.num_chains=4' among runs to compare"),
        ([first, first], f"is run {runs[0].id}, which is named before; expected different runs"),
        ([first, f"{first[:-24]}{runs[1].id}"], f"no run '{runs[1].id}' in {runs[0].store.uri}"),
        ([first, f"{tmp_path}/nothing/artifacts/run/{'0' * 24}"], "no such folder"),
        ([first, old.uri], "has an index of version 1, of an older release; expected 2"),
        ([first, f"gs://bucket/artifacts/run/{'0' * 24}"], "unknown scheme 'gs'"),
    ):
        with pytest.raises(ValueError, match=re.escape(told)) as raised:
            commanded(*arguments)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["demo.toml"], False),
        (["recipes/artifacts/demo.toml", "student.cot.base=/s/artifacts/checkpoint/3f/x"], False),
        (["/s/artifacts/run/3f", "demo.toml"], True),
        (["s3://b/p/artifacts/report/3f?endpoint=http://127.0.0.1:9&region=x", "x"], True),
    ],
)
def test_a_command_line_names_runs_or_a_recipe(arguments: list[str], expected: bool):
    assert names_runs(arguments) is expected


def test_a_run_in_s3_is_compared_with_one_on_disk(runs: list[Artifact], s3_uri: str, tmp_path: Path):
    tested = [row for row in all_problems() if row.split == "test"]
    stored = distilled(tmp_path / "s3", open_store(s3_uri), 0.9, tested, name="stored")
    lines = commanded(stored.uri, runs[0].uri)
    assert lines[1].startswith("artifact: s3://")
    assert "A stored, B trial" in Path(lines[0].removeprefix("report: ")).read_text()


def test_the_job_starts_no_ray_and_makes_equal_bytes_twice(runs: list[Artifact]):
    made = versus(runs)
    before = made.read("index.html")
    assert versus(runs).manifest == made.manifest
    shutil.rmtree(Path(made.directory()).parent)
    program = (
        "import runpy, sys; sys.argv[1:] = sys.argv[1:]; runpy.run_path('jobs/report.py', run_name='__main__')\n"
        "assert not {'ray', 'torch', 'vllm'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *(run.uri for run in runs)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"artifact: {made.uri}"
    assert versus(runs).read("index.html") == before


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def file(runs: list[Artifact]) -> Path:
    return Path(versus(runs).directory(), "index.html")


@pytest.fixture
def opened(browser: Browser, file: Path) -> Iterator[Page]:
    with watched(browser, file) as window:
        yield window


def test_the_page_shows_both_runs_and_every_plot(opened: Page):
    assert opened.title() == "A trial, B trial-b · retort"
    assert opened.locator("section h2").all_inner_texts() == [
        *("Result", "Accuracy", "Problems", "Recipe", "Data", "Cost", "Versions"),
    ]
    assert "cot of B" in opened.locator("p.finding").first.inner_text()
    assert check_plots(opened) == 2
    names = [name.strip() for name in opened.locator("svg.plot").first.locator("text").all_text_contents()]
    assert names[names.index("cot A") : names.index("cot A") + 2] == ["cot A", "cot B"]
    assert opened.locator("a.link").count() == 0
    assert opened.locator("p.question").count() * 2 == opened.locator(".exhibit").count() > 0


def test_what_models_wrote_stays_text(opened: Page, file: Path, fought: list[Duel]):
    opened.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    shown = opened.locator(".exhibit .chain-text").all_text_contents()
    written = [each.text for block in exhibits(problems(fought)) for each in block.exhibits]
    assert shown == [visible(text) for text in written]
    assert len({text for text in shown if any(visible(each)[:20] == text[:20] for each in HOSTILE.values())}) > 5
    assert max(map(len, written)) < MAX_CHARACTERS + 100
    assert opened.locator("script, img, iframe, b.injected, textarea, .chain-text *, .question *").count() == 0
    text = file.read_text(encoding="utf-8")
    assert visible(text) == text


def test_a_phone_needs_no_sideways_scrolling(opened: Page):
    opened.set_viewport_size({"width": 390, "height": 844})
    opened.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    assert opened.evaluate("document.documentElement.scrollWidth") == 390
    assert check_plots(opened) == 2


def test_a_third_run_is_held_against_the_first(sides: list[Side]):
    third = Side("C", sides[1].contents)
    sections = {section.id: section for section in compose([*sides, third])}
    captions = list(tables(sections["result"]))
    assert captions == ["Students of B against A", "Students of C against A", "Runs"]
    assert [row[2:6] for row in tables(sections["data"])["Problems"].rows][2] == ("40", "39", "39", "37")
